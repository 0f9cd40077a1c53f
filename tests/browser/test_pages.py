"""The site in headless Chromium, from the file system, wide and narrow, light and dark."""

import io
from pathlib import Path

import numpy as np
import pytest
from miniature import wait_for
from pages import Site, code, figure, png, stepped, text
from PIL import Image
from small_reference import written

from xai_utils import show

pytestmark = pytest.mark.browser
REAL = Path(__file__).resolve().parents[2] / "reports" / "site"
REAL_PAGES = sorted(REAL.rglob("*.html")) if (REAL / "index.html").exists() else []
TINY_PAGES = ["index", "21_grad_cam--cat", "10_saliency--hound", "10_saliency--bad"]
TINY_PAGES += ["compare/21_grad_cam"]

# The lowest contrast of any visible text with what lies behind it, and that text.
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * (top[3] ?? 1) + below[i] * (1 - (top[3] ?? 1)));
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let worst = [99, ""];
  for (const element of document.querySelectorAll("body *")) {
    const words = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!words || !element.checkVisibility() || element.closest(".skip")) continue;
    const chain = [];
    for (let at = element; at; at = at.parentElement) chain.unshift(getComputedStyle(at));
    const back = chain.reduce((below, style) => over(parse(style.backgroundColor), below), [255, 255, 255]);
    const shown = chain.reduce((product, style) => product * style.opacity, 1);
    const ink = over([...over(parse(getComputedStyle(element).color), back), shown], back);
    const [a, b] = [light(ink), light(back)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < worst[0]) worst = [contrast, `${element.tagName}.${element.className}: ${words.slice(0, 40)}`];
  }
  return worst;
}"""
WIDER = """() => [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1
  && !e.closest(".scroll, pre, .equation")).map((e) => `${e.tagName}.${e.className}`).slice(0, 5)"""
SCROLLS = (
    "() => Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) > innerWidth"
)
FLAT_MATH = """() => [...document.querySelectorAll("math")].filter((m) => m.checkVisibility()).filter((m) => {
  const box = m.getBoundingClientRect(); return !(box.width > 3 && box.height > 3); }).map((m) => m.textContent)"""
NO_WORDS = """() => [...document.images].filter((i) => !i.alt.trim()).length
  + [...document.querySelectorAll("svg.drawing")].filter((i) => !i.ariaLabel.trim()).length"""
NO_SIZE = """() => [...document.querySelectorAll("img, svg.drawing")]
  .filter((i) => !(i.getAttribute("width") > 0 && i.getAttribute("height") > 0)).length"""
BROKEN = (
    "() => [...document.images].filter((i) => i.complete && !i.naturalWidth &&"
    " i.checkVisibility()).length"
)


def contrast(page):
    worst, where = page.evaluate(CONTRAST)
    assert worst >= 4.5, where
    assert worst < 99


def check(page):
    """What must hold for any page of the site. Opened at 360 pixels."""
    assert not page.evaluate(SCROLLS), page.evaluate(WIDER)
    assert page.evaluate(WIDER) == []
    assert page.evaluate(NO_WORDS) == 0
    assert page.evaluate(NO_SIZE) == 0
    assert page.evaluate(BROKEN) == 0
    page.evaluate("() => document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert not page.evaluate(SCROLLS), page.evaluate(WIDER)
    assert page.evaluate(FLAT_MATH) == []
    prose = " ".join(page.locator(".cell.markdown").all_inner_texts())
    assert "$" not in prose and "\\" not in prose
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    contrast(page)
    page.click("#theme")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") != background
    contrast(page)


@pytest.mark.parametrize("name", TINY_PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_of_the_small_site(reader, tiny, name, scheme):
    check(reader.open(tiny / f"{name}.html", width=360, color_scheme=scheme))


@pytest.mark.parametrize(
    "path",
    REAL_PAGES or [pytest.param(None, marks=pytest.mark.skip("no reports/site here"))],
    ids=lambda path: str(path and path.relative_to(REAL)),
)
def test_a_page_of_the_real_site(reader, path):
    check(reader.open(path, width=360))


def test_the_pages_of_the_reference(reader, tmp_path):
    written(tmp_path)
    for path in sorted(tmp_path.rglob("*.html")):
        check(reader.open(path, width=360))


def test_equations_are_drawn(reader, tiny):
    page = reader.open(tiny / "21_grad_cam--cat.html")
    assert page.locator("math").count() == 2
    box = page.locator(".equation math").bounding_box()
    assert box["width"] > 100 and box["height"] > 30  # the fraction stands on two lines


def test_printed_columns_scroll_instead_of_wrapping(reader, tiny):
    page = reader.open(tiny / "21_grad_cam--cat.html", width=700)
    table = page.locator("pre.columns")
    assert table.evaluate("e => e.scrollWidth > e.clientWidth + 99")
    assert table.evaluate("e => e.clientHeight / parseFloat(getComputedStyle(e).lineHeight)") < 6
    table.focus()
    page.keyboard.press("ArrowRight")
    wait_for(lambda: table.evaluate("e => e.scrollLeft > 0"))


def test_filter(reader, tiny):
    page = reader.open(tiny / "index.html")
    cards = page.locator(".card:visible")
    said = page.locator("#matches")
    assert cards.count() == 3 and not page.locator("#nothing").is_visible()
    assert said.inner_text() == "All 3 shown" and not page.locator("#clear").is_visible()
    page.keyboard.press("/")
    assert (
        page.evaluate("() => document.activeElement.id") == "filter"
        and page.input_value("#filter") == ""
    )
    page.keyboard.type("Pixels HOUND")
    assert cards.count() == 1 and "hound" in cards.inner_text()
    assert said.inner_text() == "1 of 3 shown"
    assert page.locator(".part:visible").count() == 1
    page.keyboard.type("/nothing")
    assert cards.count() == 0 and page.locator("#nothing").is_visible()
    assert said.inner_text() == "0 of 3 shown"
    page.keyboard.press("Escape")
    assert cards.count() == 3 and page.input_value("#filter") == ""
    assert said.inner_text() == "All 3 shown"
    page.fill("#filter", "failed")
    assert cards.count() == 1 and "cell 3: Broken" in cards.inner_text()
    page.click("#clear")
    assert cards.count() == 3 and page.evaluate("() => document.activeElement.id") == "filter"
    page.keyboard.type("maps")
    page.keyboard.press("Enter")  # to the first that is found
    assert page.evaluate("() => document.activeElement.innerText").endswith("Weigh the maps")


@pytest.mark.parametrize("typed", ["grad cam", "Grad-CAM", "grad_cam", "gradcam", "gr\u00e0d CAM"])
def test_a_technique_is_found_however_it_is_written(reader, tiny, typed):
    page = reader.open(tiny / "index.html")
    page.fill("#filter", typed)
    assert page.locator(".card:visible h3").all_inner_texts() == ["Grad-CAM\nWeigh the maps"]


def stands_at(page, end):
    """The browser tells of a new address after the act that changed it: wait for it."""
    page.wait_for_url(lambda url: url.endswith(end))


def test_the_filter_stands_in_the_address(reader, tiny):
    page = reader.open(tiny / "index.html")
    cards, technique = page.locator(".card:visible"), page.locator("select[name=technique]")
    page.fill("#filter", "pixels & more")
    stands_at(page, "index.html#find=pixels+%26+more")
    page.fill("#filter", "pixels")
    technique.focus()
    page.keyboard.press("ArrowDown")  # the keyboard is enough
    assert technique.input_value() == "saliency" and cards.count() == 2
    stands_at(page, "index.html#find=pixels&technique=saliency")

    def as_before():
        assert page.input_value("#filter") == "pixels" and cards.count() == 2
        assert technique.input_value() == "saliency"
        assert page.inner_text("#matches") == "2 of 3 shown"

    page.reload()
    as_before()
    cards.first.locator("h3 a").click()
    stands_at(page, "10_saliency--bad.html")
    page.go_back()
    as_before()
    mailed, page = page.url, reader.open(tiny / "10_saliency--hound.html")
    page.goto(mailed)
    cards, technique = page.locator(".card:visible"), page.locator("select[name=technique]")
    as_before()
    page.evaluate("() => { location.hash = 'technique=grad_cam'; }")
    wait_for(lambda: cards.count() == 1 and "Weigh" in cards.inner_text())
    page.click("#clear")
    stands_at(page, "index.html")
    assert cards.count() == 3


def test_addresses_that_are_no_filter_and_choices_that_are_gone(reader, tiny):
    page = reader.open(tiny / "10_saliency--hound.html")
    page.goto((tiny / "index.html").as_uri() + "#21_grad_cam")  # as pages link to a notebook
    assert page.locator(".card:visible").count() == 3
    page.goto((tiny / "index.html").as_uri() + "#technique=<b>gone</b>")
    page.reload()
    assert page.locator(".card:visible").count() == 0 and page.locator("#nothing").is_visible()
    assert page.locator("select[name=technique]").input_value() == "<b>gone</b>"


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Folder of a site with two runs of a notebook, the second with higher cells."""
    site = Site(tmp_path)
    for name, height in (("low", 100), ("tall", 400)):
        frames = [png(colour, (300, height)) for colour in ("red", "lime")]
        alts = [f"a {name} red field", f"a {name} green field"]
        cells = [
            "Prose is the same for all.",
            "## A figure",
            code("show()", figure(alt=f"A {name} field", size=(300, height))),
            "## Steps",
            code("step()", stepped(monkeypatch, frames, ["one", "two"], alts=alts)),
            "## Only words",
            code("print()", text("the end")),
        ]
        site.add(f"21_grad_cam--{name}", *cells, title="Weigh the maps", changed=["image"])
        site.page(f"21_grad_cam--{name}")
    site.index("21_grad_cam--low", "21_grad_cam--tall")
    return site.site


def test_columns_of_a_comparison_are_level(reader, pair):
    page = reader.open(pair / "index.html")
    page.locator(".beside-others").first.click()  # one click
    page.wait_for_url("**/compare/21_grad_cam.html")
    frames = wait_for(lambda: page.frames[2:] and page.frames[1:])
    assert len(frames) == 2

    def tops(selector):
        return [frame.locator(selector).bounding_box()["y"] for frame in frames]

    for selector in ("figure.picture", "figure.stepper", "text=the end"):
        wait_for(lambda selector=selector: len(set(tops(selector))) == 1)
    assert tops("figure.stepper")[0] - tops("figure.picture")[0] > 400  # room for the higher one
    for frame, column in zip(frames, page.locator("iframe").all()):  # nothing scrolls inside
        fits = "() => document.documentElement.scrollHeight <= innerHeight"
        wait_for(lambda frame=frame, fits=fits: frame.evaluate(fits))
        assert column.bounding_box()["height"] > 500
        assert not frame.locator("text=Prose is the same").is_visible()
    frames[0].locator("input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    wait_for(lambda: frames[1].locator("output").inner_text() == "two")
    assert frames[0].locator("output").inner_text() == "two"


def test_columns_are_chosen_and_remembered(reader, pair):
    page = reader.open(pair / "21_grad_cam--tall.html")
    page.click("text=Compare runs")  # one click from a page, too
    columns = page.locator("section.column:visible")
    assert columns.count() == 2
    page.uncheck("text=tall")
    stands_at(page, "#show=low")
    assert columns.count() == 1
    page.reload()
    assert columns.count() == 1 and not page.is_checked("text=tall")
    page.click("section.column:visible h2 a")
    stands_at(page, "21_grad_cam--low.html")
    page.go_back()
    assert columns.count() == 1
    page.locator("#theme").click()
    column = next(frame for frame in page.frames[1:] if "low" in frame.url)
    wait_for(lambda: column.evaluate("() => document.documentElement.dataset.theme") == "dark")


def test_a_comparison_without_scripts_shows_the_pages(reader, pair):
    page = reader.open(pair / "compare" / "21_grad_cam.html", java_script_enabled=False)
    assert page.locator("iframe:visible").count() == 2
    assert not page.locator(".choice").is_visible()
    assert page.frames[1].locator("text=Prose is the same").is_visible()


def test_the_words_of_a_steppers_frame_stand_below_it(reader, pair):
    page = reader.open(pair / "21_grad_cam--tall.html")
    words = page.locator("figure.stepper .caption.shown")
    assert words.inner_text() == "a tall red field"
    assert words.get_attribute("aria-hidden") == "true"
    before = page.locator("figure.stepper").bounding_box()["height"]
    page.locator("input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    assert words.inner_text() == "a tall green field"
    assert page.locator("figure.stepper").bounding_box()["height"] == before


SHEET = 680  # 180 mm in pixels: what margins leave of an A4 sheet's width
TOO_WIDE = """() => [...document.querySelectorAll("pre, .scroll, table, img")]
  .filter((e) => e.checkVisibility() && (e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth + 1))
  .map((e) => `${e.tagName}.${e.className} ${e.scrollWidth} ${e.clientWidth}`)"""


def test_on_paper_everything_fits_and_no_figure_is_split(reader, tiny, pair):
    page = reader.open(tiny / "21_grad_cam--cat.html", width=SHEET)
    page.emulate_media(media="print")
    assert page.evaluate(TOO_WIDE) == [] and not page.evaluate(SCROLLS)
    table = page.locator("pre.columns")
    assert table.evaluate("e => e.clientHeight / parseFloat(getComputedStyle(e).lineHeight)") < 6
    for figures in (page.locator("figure"), page.locator("tr")):
        styles = figures.evaluate_all("all => all.map(e => getComputedStyle(e).breakInside)")
        assert styles and {*styles} == {"avoid"}
    assert page.locator("input:visible").count() == page.locator("details:visible").count() == 0
    stepper = page.locator("figure.stepper")
    assert stepper.locator("img:visible").count() == 1
    after = "e => getComputedStyle(e, '::after').content.replaceAll('\"', '')"
    place = stepper.locator("output").evaluate("e => e.dataset.place")
    assert place == "1 of 3" and "attr" not in stepper.locator("output").evaluate(after)
    high = (pair / "21_grad_cam--tall.html").read_text()
    page.goto((pair / "21_grad_cam--tall.html").as_uri())
    assert "figcaption" in high and page.locator("figure.picture figcaption").is_visible()
    sheet = page.pdf(prefer_css_page_size=True)
    assert b"/MediaBox [0 0 594.95996 841.91998]" in sheet or b"/MediaBox [0 0 595" in sheet


def test_a_figure_higher_than_a_sheet_keeps_its_shape_on_paper(reader, tmp_path):
    site = Site(tmp_path)
    site.add("10_saliency--high", code("show()", figure(alt="High", size=(400, 2000))))
    site.page("10_saliency--high")
    page = reader.open(site.site / "10_saliency--high.html", width=SHEET)
    page.emulate_media(media="print")
    image = page.locator("figure img")
    assert image.bounding_box()["height"] <= 215 / 25.4 * 96 + 1
    assert image.evaluate("e => getComputedStyle(e).objectFit") == "contain"


def test_from_the_gallery_to_a_page_and_back(reader, tiny):
    page = reader.open(tiny / "index.html")
    page.click("text=Weigh the maps")
    stands_at(page, "21_grad_cam--cat.html")
    assert page.inner_text("h1") == "Weigh the maps"
    page.click(".toc a >> text=Step through")
    stands_at(page, "#Step-through")
    page.click("text=All reports")
    page.click(".card.failed h3 a")
    assert "This run failed. cell 3: Broken" in page.inner_text(".banner")


def test_stepper_by_mouse_and_by_keyboard(reader, tiny):
    page = reader.open(tiny / "21_grad_cam--cat.html")
    stepper = page.locator("figure.stepper")
    shown = stepper.locator("img:visible")
    slider = stepper.locator("input")

    def frame():
        assert shown.count() == 1
        label = shown.get_attribute("alt")
        assert (
            stepper.locator("output").inner_text()
            == slider.get_attribute("aria-valuetext")
            == label
        )
        return label

    assert frame() == "first"
    first = shown.screenshot()
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert frame() == "second"
    assert shown.screenshot() != first
    page.keyboard.press("ArrowRight")
    assert frame() == "third"
    page.keyboard.press("Home")
    assert frame() == "first"
    page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert frame() == "third"


def test_frames_that_share_a_picture_are_stepped_through(reader, tmp_path):
    """As a browser draws them: the picture they share, and the colour that each has of its own."""
    from pages import Site, code, stepped

    colours, size = ((255, 0, 0), (0, 0, 255)), (64, 64, 3)
    frames = [
        show.tiles([[show.Tile(np.full(size, c, float)), show.Tile(np.full(size, 90.0))]])
        for c in colours
    ]
    with pytest.MonkeyPatch.context() as monkeypatch:
        step = stepped(monkeypatch, frames, ["red", "blue"], title="colour")
    site = Site(tmp_path)
    site.add("10_saliency--a", code("step()", step))
    site.page("10_saliency--a")
    page = reader.open(site.site / "10_saliency--a.html")
    frame = page.locator("figure.stepper svg.drawing:visible")
    for label, colour in zip(("red", "blue"), colours):
        assert frame.count() == 1 and frame.get_attribute("aria-label") == label
        with Image.open(io.BytesIO(frame.screenshot())) as seen:
            seen = seen.convert("RGB")
            found = [seen.getpixel((int(x * seen.width), seen.height // 2)) for x in (0.25, 0.75)]
        assert np.abs(np.array(found) - [colour, (90, 90, 90)]).max() <= 2
        page.locator("figure.stepper input").focus()
        page.keyboard.press("End")


def test_stepper_of_the_real_site(reader):
    path = next((path for path in REAL_PAGES if path.stem.startswith("21_grad_cam--")), None)
    if path is None:
        pytest.skip("no reports/site here")
    page = reader.open(path)
    stepper = page.locator("figure.stepper").first
    frame = stepper.locator("img:visible, svg.drawing:visible")
    before = frame.screenshot()
    stepper.locator("input").focus()
    page.keyboard.press("Home" if stepper.locator("input").input_value() != "0" else "End")
    assert frame.count() == 1
    assert frame.screenshot() != before


def test_dark_and_light(reader, tiny):
    def background():
        return page.evaluate("() => getComputedStyle(document.body).backgroundColor")

    page = reader.open(tiny / "21_grad_cam--cat.html", color_scheme="dark")
    dark = background()
    assert page.inner_text("#theme") == "Light"
    page.click("#theme")
    light = background()
    assert light != dark and page.inner_text("#theme") == "Dark"
    page.reload()
    assert background() == light  # remembered
    page = reader.open(tiny / "21_grad_cam--cat.html", color_scheme="light")
    assert background() == light  # and by default as the system has it
    page.emulate_media(color_scheme="dark")
    # the page hears of it a moment later
    page.wait_for_function("() => document.querySelector('#theme').innerText === 'Light'")
    assert background() == dark


def test_code_unfolds_all_at_once_and_one_by_one(reader, tiny):
    page = reader.open(tiny / "21_grad_cam--cat.html")
    code = page.locator("details.code pre:visible")
    assert code.count() == 0
    page.locator("details.code summary").first.click()
    assert code.count() == 1
    page.click("text=Show code")
    assert code.count() == page.locator("details.code").count() > 3
    page.click("text=Show code")
    assert code.count() == 0


def test_everything_is_readable_without_scripts(reader, tiny):
    page = reader.open(tiny / "21_grad_cam--cat.html", java_script_enabled=False)
    assert page.locator("figure.stepper img:visible").count() == 1
    assert page.locator("figure.stepper img:visible").get_attribute("alt") == "first"
    assert not page.locator("#theme").is_visible() and not page.locator("#code").is_visible()
    page.locator("details.code summary").first.click()
    assert page.locator("details.code pre:visible").count() == 1
    page = reader.open(tiny / "index.html", java_script_enabled=False)
    assert page.locator(".card:visible").count() == 3 and not page.locator("#filter").is_visible()


def test_the_keyboard_alone_is_enough(reader, tiny):
    page = reader.open(tiny / "21_grad_cam--cat.html")
    page.keyboard.press("Tab")
    assert (
        page.locator(".skip").is_visible()
        and page.evaluate("() => document.activeElement.className") == "skip"
    )
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "content"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("details.code pre:visible").count() == 1


def test_a_script_that_slipped_in_does_not_run(browser, tiny, tmp_path):
    html = (
        (tiny / "index.html")
        .read_text()
        .replace("<main", "<script>document.title = 'ran'</script><main")
    )
    (tmp_path / "index.html").write_text(html)
    context = browser.new_context()
    page = context.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    assert page.title() == "What image models look at · reports"
    context.close()
