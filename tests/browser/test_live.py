"""The explorer as a person meets it: served by Voilà, in Chromium, without a network."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90_000  # milliseconds: a cold start on a busy machine
APP = ["-m", "xai_utils.app", "--port"]


@pytest.fixture
def serve():
    """Starts a server, on this machine only, and returns its address."""
    started = []

    def start(command):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen([sys.executable, *command, str(port)], cwd=ROOT, env=environment,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True))
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return f"http://127.0.0.1:{port}"
            time.sleep(0.5)
        raise AssertionError("the server does not answer")

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def visit(browser):
    """Opens an address; afterwards nothing may have been requested from anywhere but this machine."""
    contexts, outside = [], []

    def opened(address):
        context = browser.new_context(viewport={"width": 1280, "height": 1100})
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        here = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")
        context.on("request", lambda request: request.url.startswith(here) or outside.append(request.url))
        context.route(lambda url: not url.startswith(here), lambda route: route.abort())
        page = context.new_page()
        page.goto(address, timeout=PATIENCE)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert outside == []


def picture(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), colour).save(buffer, "png")
    return {"name": "mine.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


def play(page):
    """What holds wherever the explorer is shown: each control changes the figure, bad input becomes one line."""
    page.get_by_text("Answered in").first.wait_for()
    map_of = page.locator("figure img[alt*='over the picture in grey']").first

    def changes(act):
        before = map_of.get_attribute("src")
        act()
        page.wait_for_function("([image, old]) => image.isConnected === false || image.src !== old",
                               arg=[map_of.element_handle(), before])  # fmt: skip
        page.wait_for_timeout(300)
        assert page.locator("[role=alert]").count() == 0

    def complains(act, text):
        act()
        page.locator("[role=alert]", has_text=text).wait_for()

    control = page.locator(".jupyter-widgets", has=page.get_by_text("brightness, grey levels", exact=True)).last
    changes(lambda: control.locator(".noUi-handle").press("ArrowRight"))
    changes(lambda: page.get_by_label("one of its top classes").select_option(index=1))
    changes(lambda: page.locator("button[title^='cover row 4, column 4']").click())
    named = page.get_by_label("or any class")
    complains(lambda: (named.fill("umbrela"), named.press("Enter")), "umbrella")
    changes(lambda: (named.fill("umbrella"), named.press("Enter")))

    def upload(file):
        with page.expect_file_chooser() as chosen:
            page.get_by_role("button", name="upload a picture").click()
        chosen.value.set_files(file)

    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"}
    complains(lambda: upload(broken), "broken.png")
    changes(lambda: upload(picture("red")))
    model = page.get_by_label("model", exact=True)
    complains(lambda: (model.fill("no_such_network"), model.press("Enter")), "cannot be loaded")
    changes(lambda: page.get_by_label("picture", exact=True).select_option("umbrella"))


def test_the_app_answers_in_voila_and_shows_no_code(serve, visit):
    page = visit(serve(APP))
    play(page)
    assert "import" not in page.locator("body").inner_text()
    assert page.evaluate("() => [...document.images].filter((i) => !i.alt.trim()).length") == 0
