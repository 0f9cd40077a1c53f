"""Tiny executed notebooks, as the runner leaves them, for the tests of the site."""

import io
import re
import warnings
from pathlib import Path

import nbformat
import nbformat.v4 as v4
from PIL import Image

from xai_suite.reports import site
from xai_utils import show

XSS = "<script>alert('x')</script>"
PARAMETERS = 'image = "cat"  # picture\nsteps = 8  # path points'


def png(colour="red", size=(60, 40), mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def displayed(monkeypatch, function, *arguments, **settings):
    """The mime bundle that `function` displays, as a saved notebook has it (names sorted)."""
    found = []
    with monkeypatch.context() as patch:
        patch.setattr("IPython.display.display", lambda bundle, raw: found.append(bundle))
        function(*arguments, **settings)
    (bundle,) = found
    return bundle


def output(data, **metadata):
    return v4.new_output("display_data", data=data, metadata=metadata)


def figure(colour="red", alt=None, size=(60, 40), mode="RGB"):
    """As `show.figure` displays it if it has words, else as matplotlib's inline backend does."""
    from base64 import b64encode

    content = png(colour, size, mode)
    if alt is None:
        return output({"image/png": b64encode(content).decode()})
    return output({"text/html": show.picture(content, alt), "text/plain": alt})


def text(words, name="stdout"):
    return v4.new_output("stream", name=name, text=words)


def failure(message="broken"):
    return v4.new_output(
        "error", ename="ValueError", evalue=message, traceback=[f"ValueError: {message}"]
    )


def recorded(monkeypatch, **numbers):
    return output(displayed(monkeypatch, show.record, **numbers))


def stepped(monkeypatch, *arguments, **settings):
    bundle = displayed(monkeypatch, show.stepper, *arguments, **settings)
    return output({mime: bundle[mime] for mime in ("text/plain", "text/html")})


def code(source="show()", *outputs, tags=()):
    return v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


class Site:
    """A build folder to put executed notebooks in, and the pages made of them."""

    def __init__(self, place: Path):
        self.build, self.site = place / "build", place / "site"
        (self.build / "failed").mkdir(parents=True)
        self.site.mkdir()

    def add(self, name, *cells, title="Look closely", changed=(), given=None, failed=False, **info):
        """Write the executed notebook of run `name`; a str is a Markdown cell."""
        parts = [f"# {title}", code(PARAMETERS, tags=["parameters"]), *cells]
        notebook = v4.new_notebook(
            cells=[v4.new_markdown_cell(p) if isinstance(p, str) else p for p in parts]
        )
        about = {
            "title": title,
            "model": "tiny",
            "seconds": 4.2,
            "started": "2026-03-14T09:26:53",
            "commit": "abcdef1",
            "versions": {"keras": "3.0"},
            "parameters": given or {},
            "changed": list(changed),
            **info,
        }
        notebook.metadata["report"] = about
        path = self.build / ("failed" if failed else "") / f"{name}.ipynb"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path.write_text(nbformat.writes(notebook), encoding="utf-8")
        return path

    def page(self, name):
        """The HTML of one run's page, written now."""
        site.page(self.build, self.site, name)
        return (self.site / f"{name}.html").read_text(encoding="utf-8")

    def index(self, *names):
        site.index(self.build, self.site, names)
        return (self.site / "index.html").read_text(encoding="utf-8")


def references(html):
    """Everything a page could load or lead to: values of src, href and the like, and of url( ) in
    styles.
    """
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html, "html.parser")
    names = (
        "src",
        "href",
        "xlink:href",
        "srcset",
        "poster",
        "background",
        "action",
        "data",
        "ping",
    )
    found = [
        (tag.name, tag[name]) for tag in soup.find_all(True) for name in names if tag.get(name)
    ]
    styles = [tag.get_text() for tag in soup.find_all("style")] + [
        tag["style"] for tag in soup.find_all(style=True)
    ]
    loads = re.compile(r"(?:url\(|@import)\s*[\"']?([^\"')]*)")
    return found + [("style", url) for style in styles for url in loads.findall(style)]
