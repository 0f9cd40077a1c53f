"""A headless Chromium without a network, and a small site to open in it."""

import os
import re
import shutil

import pytest
from pages import Site, code, failure, figure, output, png, recorded, stepped, text

PATHS = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Reader:
    """Opens pages and keeps what they asked for and complained about."""

    def __init__(self, browser):
        self.browser, self.contexts = browser, []
        self.requests, self.complaints = [], []

    def open(self, path, width=1280, height=900, **settings):
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, offline=True, **settings
        )
        self.contexts.append(context)
        context.route(
            lambda url: not url.startswith(("file:", "data:")), lambda route: route.abort()
        )
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("weberror", lambda problem: self.complaints.append(str(problem.error)))
        context.on(
            "console", lambda message: self.complaints.append(f"{message.type}: {message.text}")
        )
        page = context.new_page()
        page.goto(path.resolve().as_uri())
        return page

    @property
    def outside(self):
        """Every request for anything but the opened pages themselves and what they carry inside."""
        own = re.compile(r"data:|file:.*\.html(#.*)?$")
        return [url[:100] for url in self.requests if not own.match(url)]


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright (make test-browser installs it)"
    )
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, PATHS)), None)
    if not program or not shutil.which(program):
        pytest.skip(
            f"no Chromium at {program or ', '.join(PATHS)}; say where it is with"
            " CHROMIUM=/path/to/it"
        )
    with playwright.sync_playwright() as engine:
        found = engine.chromium.launch(executable_path=shutil.which(program), args=QUIET)
        yield found
        found.close()


@pytest.fixture
def reader(browser):
    """Afterwards nothing may have been requested from outside or written to the console."""
    found = Reader(browser)
    yield found
    for context in found.contexts:
        context.close()
    assert found.outside == []
    assert found.complaints == []


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a site of three runs: a long page, one on another picture, and one that failed."""
    site, long = Site(tmp_path_factory.mktemp("tiny")), "a_very_long_name_" * 9
    with pytest.MonkeyPatch.context() as monkeypatch:
        frames = [png(colour, (700, 300)) for colour in ("red", "lime", "blue")]
        step = stepped(monkeypatch, frames, ["first", "second", "third"], title="layer")
        record = recorded(monkeypatch, peak_inside=0.94, label="umbrella", **{long[:60]: 1})
    cells = [
        "Is it *so*?",
        code("show()", figure(alt="A wide field", size=(1400, 300)), tags=["thumbnail"]),
        "## The idea\n\n"
        + r"With $x^2$ and $$M = \sum_k \frac{\alpha_k A_k}{1 + \lVert A_k \rVert} + a + b + c"
        r" + d$$",
        f"| wide | table |\n|---|---|\n| {'x' * 90} | {'y' * 90} |",
        f"A [link](20_cam.ipynb) `{long}` {long}",
        code(f"x = '{long}'  # a comment\ndef f():\n    return 1", text(f"{long}\n")),
        code("table()", text("\n".join(f"row {i}" + "            0.25" * 9 for i in range(4)))),
        "### Step through",
        code("step()", step),
        code("record()", record),
        code("df", output({"text/html": f"<table><tr>{'<td>12345678</td>' * 30}</tr></table>"})),
        "## Exercise 1",
        code("x = None", tags=["exercise"]),
        code("x = 1", tags=["solution"]),
    ]
    site.add(
        "21_grad_cam--cat",
        *cells,
        changed=["image"],
        given={"image": long, "steps": 8},
        title="Weigh the maps",
    )
    site.add(
        "10_saliency--hound", "## Part", code("show()", figure("blue")), title="Find the pixels"
    )
    # as IPython does
    error = failure("\x1b[38;5;28;01mfor\x1b[39;00m \x1b[31mred\x1b[0m \x1b[1;33myellow\x1b[0m")
    site.add(
        "10_saliency--bad",
        code("1/0", text("half way"), error),
        title="Find the pixels",
        failed=True,
        error="cell 3: Broken",
    )
    names = ("21_grad_cam--cat", "10_saliency--hound", "10_saliency--bad")
    for name in names:
        site.page(name)
    site.index(*names)
    return site.site
