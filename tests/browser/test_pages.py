"""The site in headless Chromium, from the file system, wide and narrow, light and dark."""

from pathlib import Path

import pytest
from miniature import wait_for
from small_reference import written

pytestmark = pytest.mark.browser
REAL = Path(__file__).resolve().parents[2] / "reports" / "site"
REAL_PAGES = sorted(REAL.rglob("*.html")) if (REAL / "index.html").exists() else []
TINY_PAGES = ["index", "21_grad_cam--cat", "10_saliency--hound", "10_saliency--bad"]

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
NO_WORDS = "() => [...document.images].filter((i) => !i.alt.trim()).length"
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
    assert cards.count() == 3 and not page.locator("#nothing").is_visible()
    page.keyboard.press("/")
    assert (
        page.evaluate("() => document.activeElement.id") == "filter"
        and page.input_value("#filter") == ""
    )
    page.keyboard.type("Pixels HOUND")
    assert cards.count() == 1 and "hound" in cards.inner_text()
    assert page.inner_text("#matches") == "1 of 3"
    assert page.locator(".part:visible").count() == 1
    page.keyboard.type("/nothing")
    assert (
        cards.count() == 0
        and page.locator("#nothing").is_visible()
        and page.inner_text("#matches") == "0 of 3"
    )
    page.keyboard.press("Escape")
    assert (
        cards.count() == 3
        and page.input_value("#filter") == ""
        and page.inner_text("#matches") == ""
    )
    page.fill("#filter", "failed")
    assert cards.count() == 1 and "cell 3: Broken" in cards.inner_text()


def test_from_the_gallery_to_a_page_and_back(reader, tiny):
    page = reader.open(tiny / "index.html")
    page.click("text=Weigh the maps")
    assert page.url.endswith("21_grad_cam--cat.html") and page.inner_text("h1") == "Weigh the maps"
    page.click(".toc a >> text=Step through")
    assert page.url.endswith("#Step-through")
    page.click("text=All reports")
    page.click(".card.failed a")
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


def test_stepper_of_the_real_site(reader):
    path = next((path for path in REAL_PAGES if path.stem.startswith("21_grad_cam")), None)
    if path is None:
        pytest.skip("no reports/site here")
    page = reader.open(path)
    stepper = page.locator("figure.stepper").first
    before = stepper.locator("img:visible").get_attribute("src")
    stepper.locator("input").focus()
    page.keyboard.press("Home" if stepper.locator("input").input_value() != "0" else "End")
    assert stepper.locator("img:visible").count() == 1
    assert stepper.locator("img:visible").get_attribute("src") != before


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
