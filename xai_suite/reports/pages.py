"""One executed notebook as the HTML of its cells.

Equations become MathML, code is folded, nothing is fetched from anywhere.
"""

import contextlib
import io
import re
import xml.etree.ElementTree as ET
from base64 import b64decode
from functools import partial
from html import escape, unescape
from pathlib import Path

import nh3
from latex2mathml.converter import convert
from nbconvert.exporters.html import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import from_dict
from PIL import Image
from traitlets.config import Config

from xai_suite.reports import reading
from xai_suite.reports.sharing import store_once

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ("image/svg+xml", "image/png", "image/jpeg")
SHOWN = ["text/html", "text/markdown", *FIGURES, "text/latex", "text/plain"]  # the first there is
WIDGET = "application/vnd.jupyter.widget-view+json"
HIDDEN = {"hide", "papermill-error-cell-tag"}

# What HTML from a notebook may consist of; all else goes, some of it with what it holds.
MATHML = """
    math menclose mfrac mi mn mo mover mpadded mphantom mroot mrow mspace msqrt mstyle msub msubsup
    msup mtable mtd mtext mtr munder munderover
"""
ATTRIBUTES = """
    align autocomplete border checked class colspan datetime dir disabled for headers height hidden
    id lang max min open role rowspan scope span start step style tabindex title type valign value
    width
"""
MATHML_ATTRIBUTES = """
    accent accentunder columnalign columnlines columnspacing depth display displaystyle fence form
    largeop linebreak linethickness lspace mathbackground mathcolor mathsize mathvariant maxsize
    minsize movablelimits notation rowlines rowspacing rspace scriptlevel separator stretchy voffset
    xmlns
"""
ELEMENTS = nh3.ALLOWED_TAGS.union(
    {"input", "label", "output", "progress", "section", "tfoot"}, MATHML.split()
)
ALLOWED = {
    "clean_content_tags": nh3.CLEAN_CONTENT_TAGS
    | {"form", "iframe", "noscript", "object", "svg", "title"},
    "attributes": {
        "*": set(ATTRIBUTES.split()),
        "a": {"href"},
        "img": {"alt", "decoding", "loading", "src"},
    }
    | dict.fromkeys(MATHML.split(), set(MATHML_ATTRIBUTES.split())),
    "generic_attribute_prefixes": {"aria-", "data-"},
    "url_schemes": {"data", "http", "https", "mailto"},
    "link_rel": None,
}
_LINK = re.compile(r"https?://|mailto:|#|index\.html#", re.I)
# In a style: escapes, and every function that is not known to load nothing from outside.
_LOADS = re.compile(
    r"""\\|(?<![\w-])(?!url\(["']?(data:image/|#))(?!(calc|clamp|hsla?|light-dark|linear-gradient|max"""
    r"""|min|rgba?|rotate|scale|translate|var)\()[\w-]+\(""",
    re.I,
)

# What never belongs on a page: progress bars and the start-up chatter of TensorFlow.
_NOISE = re.compile(
    r"\d%\s*\||[━█▏▎▍▌▋▊▉]{2}|\b(it/s|s/it|[mu]?s/step)\b|^WARNING: All log messages before absl"
    r"|^[IW]\d{4} \d\d:|^\d{4}-\d\d-\d\d [\d:.]+: [IW] |^To enable the following instructions:"
)
_GAPS = re.compile(r"\S {2,}(?=\S)")


class Page:
    """What rendering collects on its way: table of contents, heading ids in use, warnings, and the
    section being rendered, which describes figures that have no words of their own.
    """

    def __init__(self, title=""):
        self.heading, self.toc, self.ids, self.warnings = title, [], set(), []

    def warn(self, text):
        self.warnings.append(" ".join(text.split()))

    def words(self, alt=""):
        return alt or f"Figure: {self.heading}"


def render(notebook, title=""):
    """HTML of a notebook's cells.

    notebook: dict as `reading.read_notebook` gives it; title: describes figures before any heading.
    Returns (html, Page). Equations that cannot be converted stay as source text and are named in
    `Page.warnings`.
    """
    page, notebook = Page(title), from_dict(notebook)
    notebook.cells = [_prepare(cell) for cell in notebook.cells if not reading.tags(cell) & HIDDEN]
    exporter = HTMLExporter(
        config=Config(NbConvertBase={"display_data_priority": SHOWN}),
        template_name="template",  # a folder of reports/
        extra_template_basedirs=[str(ROOT / "reports")],
        filters={
            "in_columns": in_columns,
            "size_of": size_of,
            "local_only": partial(local_only, page=page),
            "markdown2html": partial(markdown, page=page),
            "mathml": lambda tex: math(tex.strip().strip("$"), "block", page),
            "words": page.words,
        },
    )
    html, _ = exporter.from_notebook_node(notebook)
    return store_once(html), page


def markdown(source, attachments=None, *, page):
    """HTML of Markdown with pictures and equations inside it; its headings join the contents."""
    renderer = Renderer(
        escape=False, attachments=attachments, embed_images=True, path=str(ROOT / "notebooks")
    )
    renderer.page = page
    return local_only(MarkdownWithMath(renderer=renderer).render(source), page)


def math(tex, display, page):
    """MathML of one equation (`display`: "inline" or "block"), or its source in <code> and a
    warning on `page`.
    """
    source = re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{split}", tex.strip())
    source = re.sub(r"\\arg\s*\\(max|min)(?![a-zA-Z])", r"\\arg\1", source)
    try:
        mathml = convert(source, display=display)
        # the converter passes on what it does not know
        for element in ET.fromstring(mathml).iter():
            tag = element.tag.rpartition("}")[2]
            if not tag.startswith("m") or (element.text or "").startswith("\\"):
                raise ValueError(element.text or tag)
            if tag in ("mfrac", "msub", "msup", "munder", "mover") and len(element) != 2:
                raise ValueError("an argument is missing")
    # the converter has a dozen error classes and also lets IndexError through
    except Exception as error:
        page.warn(f"equation not converted ({str(error) or type(error).__name__}): {tex}")
        mathml = f'<code class="tex">{escape(tex)}</code>'
    return f'<div class="equation">{mathml}</div>' if display == "block" else mathml


def local_only(html, page, elements=ELEMENTS):
    """HTML that neither loads nor runs anything: of listed elements and attributes, with embedded
    pictures only; others become their description. Wide tables scroll instead of widening the page.
    """

    def allowed(element, name, value):
        if name == "src" and not value.startswith("data:image/"):
            if "//" not in value:  # a badge from elsewhere is no loss, a picture of ours is
                page.warn(f"picture not found in notebooks/: {value[:80]}")
            return None
        # ammonia's own list of schemes cannot tell a picture's address from a link's
        foreign = not _LINK.match(value) if name == "href" else not re.fullmatch(r"[\w-]+", name)
        return None if foreign or name == "style" and _LOADS.search(value) else value

    def described(match):
        image = dict(re.findall(r' ([\w-]+)="([^"]*)"', match[0]))
        image["alt"] = image.get("alt") or escape(page.words())
        if "src" not in image:
            return escape(unescape(image["alt"]))
        if not image.keys() & {"width", "height"}:
            image |= size_of(image["src"].rpartition(";base64,")[2])
        image.setdefault("loading", "lazy")
        return "<img" + "".join(f' {name}="{value}"' for name, value in image.items()) + ">"

    if "<svg" in html:
        page.warn("a drawing inside HTML is left out: display it as image/svg+xml")
    html = nh3.clean(html, tags=elements, attribute_filter=allowed, **ALLOWED)
    html = re.sub(r'<img( [\w-]+="[^"]*")*>', described, html)  # ammonia quotes and escapes values
    return html.replace("<table", '<div class="scroll"><table').replace(
        "</table>", "</table></div>"
    )


def size_of(content, width=None) -> dict[str, int]:
    """Width and height at which base64 of a raster picture is shown, so that nothing jumps when it
    is there; empty for other content.

    Args:
        width: at which it is to be shown, in CSS pixels; default its own.
    """
    with contextlib.suppress(OSError, ValueError):
        across, down = Image.open(io.BytesIO(b64decode(content))).size
        width = int(width or across)
        return {"width": width, "height": round(width * down / across)}
    return {}


def in_columns(text):
    """Characters in the longest line of a printed table, 0 of any other text.

    Three lines or more with two wide gaps or more are a table: wrapped, it could not be read.
    """
    lines = text.splitlines()
    table = sum(len(_GAPS.findall(line)) >= 2 for line in lines) >= 3
    return max(map(len, lines)) if table else 0


def captioned(outputs):
    """Give each picture its words to stand below it, unless words beside it say the same."""
    said = [part for output in outputs if not _alt(output) for part in _words_of(output)]
    for output in outputs:
        words = " ".join(_alt(output).split())
        if words and not any(words in text for text in said):
            output.metadata["caption"] = words


def _alt(output):
    """The text alternative of an output that is a figure, nothing of any other."""
    data = output.get("data", {})
    if data.get("text/html", "").startswith("<img "):
        return data.get("text/plain", "")
    found = (output.metadata.get(mime, {}).get("alt") for mime in FIGURES if mime in data)
    return str(next(found, None) or "")


def _words_of(output):
    """What an output without a picture says, in one line each."""
    data = output.get("data", {})
    found = [output.get("text", ""), data.get("text/markdown", ""), data.get("text/plain", "")]
    return [" ".join(text.split()) for text in found]


def _prepare(cell):
    """How a cell folds; its streams merged and cleaned, without outputs that mean nothing here."""
    tags = reading.tags(cell)
    cell.metadata.fold = next((tag for tag in ("solution", "check", "exercise") if tag in tags), "")
    cell.metadata.code_label = "parameters of this run" if "injected-parameters" in tags else "code"
    CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)
    outputs = cell.get("outputs", [])
    for output in outputs:
        data = output.get("data", {})
        if output.output_type == "stream":
            output.text = _quiet(output.text)
        if WIDGET in data and not data.keys() & {"text/html", *FIGURES}:
            data["text/html"] = '<p class="note">A live control: open the notebook to use it.</p>'
    captioned(outputs)
    cell.outputs = [out for out in outputs if out.output_type != "stream" or out.text.strip()]
    return cell


def _quiet(text):
    """Printed text without the lines that are noise."""
    bare = r"\x1b\[[\d;]*m|\x08"
    lines = [line for line in text.splitlines() if not _NOISE.search(re.sub(bare, "", line))]
    return "\n".join(lines).strip("\n")


class Renderer(IPythonRenderer):
    """Markdown → HTML with MathML, headings that collect into the contents of `page`, and links
    that work in the site.
    """

    def inline_math(self, body):
        return math(body, "inline", self.page)

    def block_math(self, body):
        return math(body, "block", self.page)

    def latex_environment(self, name, body):
        return math(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block", self.page)

    def heading(self, text, level, **attrs):
        page, plain = self.page, unescape(re.sub(r"<math.*?</math>|<[^>]+>", "", text)).strip()
        page.heading = plain or page.heading
        if level == 1 and not page.ids:  # the page's header already shows the title
            page.ids.add("")
            return ""
        name = re.sub(r"\s+", "-", plain) or "section"  # as Jupyter names its anchors
        while name in page.ids:
            name += "-again"
        page.ids.add(name)
        level = max(level, 2)
        if level <= 3:
            entry = local_only(text, page, ELEMENTS - {"a", "img"})
            page.toc.append({"id": name, "level": level, "html": entry})
        return f'<h{level} id="{escape(name)}">{text}</h{level}>\n'

    def link(self, text, url, title=None):
        """A link to another notebook leads to its card; one to a file of the source tree, which a
        mailed page does not have, nowhere.
        """
        url = re.sub(r"^(?:[^:#]*/)?([^/:#]+)\.ipynb(#.*)?$", r"index.html#\1", url)
        return super().link(text, url, title) if _LINK.match(url) else text

    def inline_html(self, html):
        """One tag; nbconvert, looking for a picture in it, would close it on the spot."""
        return super().inline_html(html) if html.startswith("<img") else html

    def image(self, text, url, title=None):
        return super().image(self.page.words(text), url, title)
