"""One executed notebook → the HTML of its cells: equations as MathML, code folded, nothing fetched
from anywhere.
"""

import re
import sys
from functools import cache
from html import escape, unescape
from pathlib import Path

from xai_suite.reports import reading

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "reports"  # nbconvert looks there for the template named "template"
FIGURES = ("image/svg+xml", "image/png", "image/jpeg")
WIDGET = "application/vnd.jupyter.widget-view+json"

# What never belongs on a page: progress bars and the start-up chatter of TensorFlow.
_NOISE = re.compile(
    r"\d%\s*\||[━█▏▎▍▌▋▊▉]{2}|\b(it/s|s/it|[mu]?s/step)\b|^WARNING: All log messages before absl"
    r"|^[IW]\d{4} \d\d:|^\d{4}-\d\d-\d\d [\d:.]+: [IW] |^To enable the following instructions:"
)
# HTML that may load something, run something, or lacks a description: only that is parsed and
# cleaned.
_SUSPECT = re.compile(
    r"<(script|link|iframe|object|embed|base|meta|form|video|audio|source|image|use)\b"
    r"""|<img(?![^>]*\balt=)|\b(src|srcset|poster|background)\s*=\s*["']?(?!["']?data:)|@import"""
    r"|url\(",
    re.I,
)
_EMBEDDED = re.compile(
    r"(?<=;base64,)[\w+/=]+", re.ASCII
)  # megabytes of frames in which there is nothing to find
_GAPS = re.compile(r"\S {2,}(?=\S)")
_OUTSIDE = re.compile(r"""@import[^;]*;?|url\(\s*["']?(?!["']?(data:|#))[^)]*\)""", re.I)


class Page:
    """What rendering collects on its way: table of contents, heading ids in use, warnings."""

    def __init__(self, title=""):
        self.title, self.toc, self.ids, self.warnings = title, [], set(), []
        self.heading = (
            title  # the section being rendered: describes figures that have no words of their own
        )

    def warn(self, text):
        self.warnings.append(" ".join(text.split()))


def render(notebook, title=""):
    """HTML of a notebook's cells.

    notebook: dict as `report.read_notebook` gives it (changed in place); title: describes figures
    before any heading. Returns (html, Page). Equations that cannot be converted stay as source text
    and are named in `Page.warnings`.
    """
    page = Page(title)
    notebook["cells"] = [_prepare(cell) for cell in _kept(notebook["cells"])]
    _describe(notebook["cells"], title)
    exporter, from_dict = _exporter(page)
    html, _ = exporter.from_notebook_node(from_dict(notebook))
    return html, page


def math(tex, display, page):
    """MathML of one equation (`display`: "inline" or "block"), or its source in <code> and a
    warning on `page`.
    """
    import xml.etree.ElementTree as ET

    from latex2mathml.converter import convert

    source = re.sub(r"\\(begin|end)\{aligned\}", r"\\\1{split}", tex.strip())
    source = re.sub(r"\\arg\s*\\(max|min)(?![a-zA-Z])", r"\\arg\1", source)
    try:
        mathml = convert(source, display=display)
        for element in ET.fromstring(
            mathml
        ).iter():  # the converter passes on what it does not know
            tag = element.tag.rpartition("}")[2]
            if not tag.startswith("m") or (element.text or "").startswith("\\"):
                raise ValueError(element.text or tag)
            if tag in ("mfrac", "msub", "msup", "munder", "mover") and len(element) != 2:
                raise ValueError("an argument is missing")
    except (
        Exception
    ) as error:  # the converter has a dozen error classes and also lets IndexError through
        page.warn(f"equation not converted ({str(error) or type(error).__name__}): {tex}")
        mathml = f'<code class="tex">{escape(tex)}</code>'
    return f'<div class="equation">{mathml}</div>' if display == "block" else mathml


def local_only(html, page):
    """HTML that neither loads nor runs anything: outside pictures become their description, scripts
    go.
    """
    if not _SUSPECT.search(_EMBEDDED.sub("", html)):
        return html
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(html, "html.parser")
    for element in soup.find_all(
        ["script", "link", "iframe", "object", "embed", "base", "meta", "form"]
    ):
        element.decompose()
    for image in soup.find_all("img"):
        image["alt"] = image.get("alt") or f"Figure: {page.heading}"
        if not image.get("src", "").startswith("data:"):
            if "//" not in image.get(
                "src", ""
            ):  # a badge from elsewhere is no loss, a picture of ours is
                page.warn(f"picture not found in notebooks/: {image.get('src', '')[:80]}")
            image.replace_with(image["alt"])
    for element in soup.find_all(True):
        for name in ("src", "srcset", "poster", "background"):
            if not str(element.get(name, "data:")).startswith("data:"):
                del element[name]
        for name in ("href", "xlink:href"):  # <image> and <use> of a drawing load what they name
            if element.name != "a" and not str(element.get(name, "#")).startswith(("#", "data:")):
                del element[name]
        if "style" in element.attrs:
            element["style"] = _OUTSIDE.sub("", element["style"])
        if element.name == "style":
            element.string = _OUTSIDE.sub("", element.get_text())
    return str(soup)


def in_columns(text):
    """Whether printed text is a table: at least three lines with two or more wide gaps. Wrapped, it
    cannot be read.
    """
    return sum(len(_GAPS.findall(line)) >= 2 for line in text.splitlines()) >= 3


def _kept(cells):
    return [cell for cell in cells if not reading.tags(cell) & {"hide", "papermill-error-cell-tag"}]


def _prepare(cell):
    """Decide how a cell folds, merge and clean its streams, drop outputs that mean nothing on a
    page.
    """
    tags, kind = reading.tags(cell), cell["cell_type"]
    fold = next((tag for tag in ("solution", "check", "exercise") if tag in tags), "")
    cell["metadata"]["fold"] = fold
    cell["metadata"]["code_label"] = (
        "parameters of this run" if "injected-parameters" in tags else "code"
    )
    if kind != "code":
        return cell
    outputs = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if WIDGET in data and "text/html" not in data and not any(mime in data for mime in FIGURES):
            data["text/html"] = '<p class="note">A live control: open the notebook to use it.</p>'
        if output.get("metadata", {}).get("image/png", {}).get("alt"):
            data.pop(
                "text/html", None
            )  # `show.figure` puts the picture in twice: as HTML it has words in JupyterLab
        last = outputs[-1] if outputs else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            last["text"] += output["text"]
        else:
            outputs.append(output)
    for output in outputs:
        if output["output_type"] == "stream":
            output["text"] = _clean_stream(output["text"])
    cell["outputs"] = [
        output for output in outputs if output["output_type"] != "stream" or output["text"].strip()
    ]
    return cell


def _clean_stream(text):
    lines = [
        line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")
    ]  # what a terminal would still show
    plain = [re.sub(r"\x1b\[[\d;]*m|\x08", "", line) for line in lines]
    return "\n".join(line for line, bare in zip(lines, plain) if not _NOISE.search(bare)).strip(
        "\n"
    )


def _describe(cells, title):
    """Give every figure without alt text the heading it stands under."""
    heading = title
    for cell in cells:
        if cell["cell_type"] == "markdown":
            prose = re.sub(r"^```.*?^```", "", cell["source"], flags=re.M | re.S)
            found = re.findall(r"^#{1,6}\s+(.+?)\s*#*$", prose, re.M)
            heading = re.sub(r"[*_`$\\{}]", "", found[-1]) if found else heading
        for output in cell.get("outputs", []):
            for mime in FIGURES:
                if mime in output.get("data", {}):
                    about = output.setdefault("metadata", {}).setdefault(mime, {})
                    about["alt"] = about.get("alt") or f"Figure: {heading}"


def _exporter(page):
    """(nbconvert exporter writing into `page`, function dict → notebook node)."""
    exporter_class, from_dict, config = _nbconvert()
    exporter = exporter_class(
        config=config, template_name="template", extra_template_basedirs=[str(TEMPLATES)]
    )
    exporter.page = page
    exporter.register_filter("local_only", lambda html: tables(local_only(html, page)))
    exporter.register_filter("in_columns", in_columns)
    exporter.register_filter("mathml", lambda tex: math(tex.strip().strip("$"), "block", page))
    return exporter, from_dict


def tables(html):
    """Let wide tables scroll inside the page instead of widening it."""
    return re.sub(
        r"</table>", "</table></div>", re.sub(r"(?=<table\b)", '<div class="scroll">', html)
    )


@cache
def _nbconvert():
    """nbconvert and our renderer, imported late: the index does not need them."""
    blocked = "rfc3987_syntax" not in sys.modules
    # jsonschema would build this optional grammar on import, 1.6 s for checks nobody here asks for
    if blocked:
        sys.modules["rfc3987_syntax"] = None
    try:
        from jinja2 import pass_context
        from nbconvert.exporters.html import HTMLExporter
        from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
        from nbformat import from_dict
        from traitlets.config import Config
    finally:
        if blocked:
            del sys.modules["rfc3987_syntax"]

    class Renderer(IPythonRenderer):
        """Markdown → HTML with MathML, headings that collect into the contents, and links that work
        in the site.
        """

        page = None

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
            name = base = re.sub(r"\s+", "-", plain) or "section"  # as Jupyter names its anchors
            while name in page.ids:
                name = f"{base}-{len(page.ids)}"
            page.ids.add(name)
            level = max(level, 2)
            if level <= 3:
                entry = local_only(re.sub(r"</?(a|img)\b[^>]*>", "", text), page)
                page.toc.append({"id": name, "level": level, "html": entry})
            return f'<h{level} id="{escape(name)}">{text}</h{level}>\n'

        def link(self, text, url, title=None):
            if url.split("#")[0].endswith(".ipynb"):
                url = f"index.html#{Path(url.split('#')[0]).stem}"
            elif not re.match(r"(https?://|mailto:|#)", url):
                return text  # a file of the source tree, which a mailed page does not have
            return super().link(text, url, title)

        def image(self, text, url, title=None):
            return super().image(text or f"Figure: {self.page.heading}", url, title)

    class Exporter(HTMLExporter):
        page = None

        @pass_context
        def markdown2html(self, context, source):
            attachments = context.get("cell", {}).get("attachments", {})
            renderer = Renderer(
                escape=False,
                attachments=attachments,
                embed_images=True,
                path=str(ROOT / "notebooks"),
            )
            renderer.page = self.page
            return tables(local_only(MarkdownWithMath(renderer=renderer).render(source), self.page))

    config = Config()
    config.NbConvertBase.display_data_priority = [
        "text/html",
        "text/markdown",
        *FIGURES,
        "text/latex",
        "text/plain",
    ]
    return Exporter, from_dict, config
