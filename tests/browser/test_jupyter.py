"""JupyterLab and the app with real kernels, headless Chromium, no other network."""

import os
import re

import psutil
import pytest
import servers
from PIL import Image

pytestmark = pytest.mark.browser
START = 150_000  # milliseconds: a kernel that imports TensorFlow on a busy machine
ANSWER = 60_000
MAP = 'img[alt*=" over the picture in grey"]'
SEEN = 'img[alt^="the picture as the network sees it"]'
ALL_RUN = """() => { const all = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
  const failed = document.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
  return failed || (all.length && all.every((e) => /\\d/.test(e.textContent))); }"""
CHANGED = """([selector, trait, before]) => {
  const found = document.querySelector(selector); return found && found.getAttribute(trait) !== before; }"""
NO_WORDS = """() => [...document.querySelectorAll(".jupyter-widgets img, .jp-OutputArea img")]
  .filter((i) => i.checkVisibility() && !i.alt.trim()).length"""


class Visitor:
    """Opens pages of one server and nothing else."""

    def __init__(self, browser, address):
        self.address, self.errors, self.outside = address, [], []
        self.context = browser.new_context(viewport={"width": 1400, "height": 1100})
        self.context.set_default_timeout(ANSWER)
        self.context.route(lambda url: not self.own(url), lambda route: route.abort())
        self.context.on(
            "request", lambda request: self.own(request.url) or self.outside.append(request.url)
        )
        self.context.on("weberror", lambda problem: self.errors.append(str(problem.error)))

    def own(self, url):
        return url.startswith((self.address, self.address.replace("http", "ws"), "data:", "blob:"))

    def open(self, path):
        page = self.context.new_page()
        page.on("websocket", lambda socket: self.own(socket.url) or self.outside.append(socket.url))
        page.goto(f"{self.address}/{path}")
        return page


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with servers.lab(tmp_path_factory.mktemp("lab"), "00_start_here", "01_explorer") as address:
        yield address


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with servers.app(tmp_path_factory.mktemp("app")) as address:
        yield address


# All that a page says, and how faint what it marks as old is, however short a time.
WATCH = """() => {
  window.told = [];
  new MutationObserver(() => {
    const old = [...document.querySelectorAll(".explorer-old")].map((part) => getComputedStyle(part).opacity);
    for (const said of document.querySelectorAll("[role=status]")) window.told.push([said.textContent, old.join(" ")]);
  }).observe(document.body, { subtree: true, childList: true, characterData: true, attributeFilter: ["class"] });
}"""


@pytest.fixture
def visit(browser):
    """Open a page of a server; afterwards nothing else was asked for and no script has failed."""
    visitors = []

    def opened(address, path=""):
        visitors.append(Visitor(browser, address))
        return visitors[-1].open(path)

    yield opened
    for visitor in visitors:
        visitor.context.close()
    assert [url for visitor in visitors for url in visitor.outside] == []
    assert [error for visitor in visitors for error in visitor.errors] == []


def run_all(page):
    """Run all cells through the menu and wait for the last; no cell may end with an error.

    A page has a workspace of its own: in a shared one JupyterLab opens what the page before it had
    open, too.
    """
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=START)
    # before that nothing is run
    page.get_by_text(re.compile(r"\| Idle")).first.wait_for(timeout=START)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=START)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(ALL_RUN, timeout=START)
    errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]')
    assert errors.all_inner_texts() == []


def changes(page, selector, act, trait="src"):
    """Do it, and wait until a picture (or its words) is another one."""
    before = page.locator(selector).first.get_attribute(trait)
    act()
    page.wait_for_function(CHANGED, arg=[selector, trait, before], timeout=ANSWER)
    return page.locator(selector).first.get_attribute(trait)


def slider(page, label):
    return page.locator(f'.jupyter-widgets:has(> label:text-is("{label}")) .noUi-handle').first


def enter(page, label, text):
    field = page.get_by_label(label, exact=True)
    field.fill(text)
    field.press("Enter")


def upload(page, file):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="upload a picture").click()
    chooser.value.set_files(file)


def complaint(page, text):
    page.locator("[role=alert]", has_text=text).wait_for()


def play(page, tmp_path):
    """What a person does in the explorer: dials, another class, a click on the picture, uploads
    good and bad.
    """
    page.wait_for_selector(MAP, timeout=START)
    changes(page, MAP, lambda: slider(page, "brightness, grey levels").press("ArrowRight"))
    changes(page, SEEN, lambda: slider(page, "shift right, pixels").press("ArrowRight"))
    changes(
        page, MAP, lambda: page.get_by_label("one of its top classes").select_option(index=1), "alt"
    )
    changes(page, SEEN, lambda: page.get_by_title("cover row 3, column 5 of 8").click())

    enter(page, "or any class", "goldfysh")
    complaint(page, "nearest: goldfish")
    assert "goldfish" in changes(page, MAP, lambda: enter(page, "or any class", "goldfish"), "alt")
    assert page.locator("[role=alert]").count() == 0
    enter(page, "model", "vgg99")
    complaint(page, "cannot be loaded")

    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    Image.new("1", (10000, 10000)).save(tmp_path / "huge.png")
    for file, said in (("broken.png", "'broken.png' is"), ("huge.png", "10000 x 10000 pixels")):
        upload(page, tmp_path / file)
        complaint(page, said)
    Image.effect_noise((300, 200), 90).convert("RGB").save(tmp_path / "mine.png")
    changes(page, SEEN, lambda: upload(page, tmp_path / "mine.png"))
    assert page.locator("[role=alert]").count() == 0
    changes(page, MAP, lambda: slider(page, "brightness, grey levels").press("ArrowLeft"))
    assert page.evaluate(NO_WORDS) == 0
    waits_in_sight(page)
    parts_beside_the_map(page)


def parts_beside_the_map(page):
    """They come when ticked, after the map, and go when they are not wished for any longer."""
    tick = page.get_by_label("parts and neighbours")
    tick.check()
    parts = page.locator('img[alt*="Nearest to your upload, by the cosine: "]')
    parts.wait_for(timeout=ANSWER)
    assert parts.get_attribute("alt").startswith("Factor 1 of your upload for ")
    assert page.evaluate(NO_WORDS) == 0
    tick.uncheck()
    parts.wait_for(state="detached")


def waits_in_sight(page):
    """What takes seconds says so at once, and what is shown meanwhile is marked as old."""
    page.evaluate(WATCH)
    page.get_by_label("technique", exact=True).select_option("occlusion")
    page.locator("figcaption", has_text="occlusion").wait_for(timeout=ANSWER)
    page.get_by_role("status").filter(has_text="Answered in").wait_for()
    page.locator(".explorer-old").first.wait_for(state="detached")
    told, opacities = map(set, zip(*page.evaluate("() => window.told")))
    assert any("Computing occlusion" in text for text in told)
    assert any("the answer before: Grad-CAM" in text for text in told)
    assert "0.5 0.5" in opacities  # of the picture and of what is said of it


def keep_picture(page, name):
    """A screenshot for people, where `XAI_SCREENSHOTS` says."""
    if folder := os.environ.get("XAI_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def test_the_first_notebook_in_jupyterlab(lab, visit):
    page = visit(lab, "lab/workspaces/first/tree/00_start_here.ipynb")
    run_all(page)
    image = ".jp-OutputArea .widget-html img"
    changes(
        page, image, lambda: page.locator(".jp-OutputArea .noUi-handle").last.press("ArrowRight")
    )
    changes(
        page, image, lambda: page.locator(".jp-OutputArea .noUi-handle").last.press("ArrowLeft")
    )
    keep_picture(page, "lab_00")


def test_the_explorer_in_jupyterlab(lab, visit, tmp_path):
    page = visit(lab, "lab/workspaces/explorer/tree/01_explorer.ipynb")
    run_all(page)
    play(page, tmp_path)
    keep_picture(page, "lab_01")


def test_the_app_shows_no_code_and_answers(app, visit, tmp_path):
    page = visit(app)
    play(page, tmp_path)
    assert not re.search(r"import|Exercise", page.inner_text("body"))
    # 12 MB: more than Tornado takes by itself
    Image.effect_noise((4200, 3000), 90).save(tmp_path / "large.png")
    changes(page, SEEN, lambda: upload(page, tmp_path / "large.png"))
    keep_picture(page, "app")


def test_several_students_at_once(app, visit):
    """Each with a kernel of its own: ten where they fit, on a small machine one more than it has
    processors.
    """
    fit = int(0.7 * psutil.virtual_memory().available / 1e9)
    count = int(os.environ.get("XAI_STUDENTS") or max(2, min(10, fit, 1 + (os.cpu_count() or 1))))
    pages = [visit(app) for _ in range(count)]
    for page in pages:
        page.wait_for_selector(MAP, timeout=START)
    for page in pages:
        changes(
            page, MAP, lambda page=page: slider(page, "brightness, grey levels").press("ArrowRight")
        )
