"""Names and documents as pages in the dress of the reports; the folder mirrors the project's.

pdoc makes HTML of Markdown and docstrings. It is one of the developers' packages, so it is imported
where it is needed.
"""

import importlib
import mimetypes
import posixpath
import re
from base64 import b64encode
from html import escape
from pathlib import Path

from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from xai_suite.reference import techniques
from xai_suite.reference.names import WINGS, Name, names_of
from xai_suite.reports import EXPLAINED_IN, template
from xai_utils.engine import written_whole

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "README.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")),
    "data/README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)


def write_all(folder: Path, site: Path, bench: Path) -> int:
    """Write all pages, and remove those of names and documents that are gone.

    Args:
        folder: where the pages go.
        site: the report site, whose pages of notebooks are linked where they exist.
        bench: the file that `make bench` wrote, if there is one.

    Returns:
        How many pages there are.
    """
    wings = {wing: names_of(wing) for wing in WINGS}
    links = addresses(wings)
    pages = {"index.html": index(wings, links)}
    for wing, names in wings.items():
        pages[f"{wing}.html"] = wing_page(wing, names, links)
    pages |= technique_pages(wings["attribution"], links, site, bench)
    pages["attribution.html"]["cards"] = pages["index.html"]["cards"] = [
        {"name": name, "href": f"attribution.{name}.html", **pages[f"attribution.{name}.html"]}
        for name in techniques.TECHNIQUES
    ]
    for document in DOCUMENTS:
        pages[posixpath.splitext(document)[0] + ".html"] = document_page(document, links, site)
    for path, about in pages.items():
        up = "../" * path.count("/")
        about = EMPTY | about | {"up": up, "path": path, "reports": (site / "index.html").exists()}
        html = template("reference.html.j2").render(about)
        with written_whole(folder / path) as temporary:
            temporary.write_text(html, encoding="utf-8")
    for old in folder.rglob("*.html"):
        if old.relative_to(folder).as_posix() not in pages:
            old.unlink()
    return len(pages)


# what a page may be made of
EMPTY = {"lead": "", "body": "", "entries": [], "cards": [], "wings": {}, "documents": {}}
EMPTY |= {"figure": None, "facts": [], "toc": []}


def addresses(wings: dict[str, list[Name]]) -> dict[str, str]:
    """Where each name is described, by `wing.name`."""
    found = {wing: f"{wing}.html" for wing in wings}
    for wing, names in wings.items():
        found |= {f"{wing}.{name.name}": f"{wing}.html#{name.name}" for name in names}
    return found | {
        f"attribution.{name}": f"attribution.{name}.html" for name in techniques.TECHNIQUES
    }


def to_html(markdown: str) -> str:
    from pdoc import render_helpers

    return render_helpers.to_html(markdown)


def index(wings: dict[str, list[Name]], links: dict[str, str]) -> dict:
    about = {
        wing: (to_html(_said_of(wing)), [(n.name, links[f"{wing}.{n.name}"]) for n in names])
        for wing, names in wings.items()
    }
    documents = {doc: (posixpath.splitext(doc)[0] + ".html", _title(doc)) for doc in DOCUMENTS}
    return {"title": "Reference", "wings": about, "documents": documents}


def wing_page(wing: str, names: list[Name], links: dict[str, str]) -> dict:
    described = [name for name in names if f"{wing}.{name.name}.html" not in links.values()]
    entries = [entry(name, links) for name in described]
    toc = [{"id": name.name, "html": escape(name.name)} for name in described]
    if wing == "attribution":
        toc.insert(0, {"id": "techniques", "html": "Techniques"})
    body = linked(to_html(_said_of(wing, whole=True)), links, wing)
    return {"title": f"xai_utils.{wing}", "body": body, "entries": entries, "toc": toc}


def technique_pages(names: list[Name], links, site: Path, bench: Path) -> dict[str, dict]:
    drawn, costs, pages = techniques.figures(), techniques.costs(bench), {}
    for name in names:
        if name.name not in techniques.TECHNIQUES:
            continue
        notebook = EXPLAINED_IN[name.name]
        report = report_of(notebook, site)
        measured = "../bench/bench.html" if (site / "bench" / "bench.html").exists() else ""
        facts = [("cost", [(line, measured) for line in costs[name.name]])]
        facts += [("notebook", [(f"{notebook}.ipynb", report and f"../{report}")])]
        pages[f"attribution.{name.name}.html"] = {
            "title": f"attribution.{name.name}",
            "lead": name.summary.partition(":")[0],
            "figure": drawn[name.name],
            "facts": facts,
            "entries": [entry(name, links)],
        }
    return pages


def document_page(document: str, links: dict[str, str], site: Path) -> dict:
    """A Markdown file of the project; its links lead to the pages that mirror other files."""
    folder = posixpath.dirname(document)
    up = "../" * document.count("/")

    def address(match) -> str:
        target, hash_sign, place = match[3].partition("#")
        path = posixpath.normpath(posixpath.join(folder, target))
        if "//" in match[3] or not target:
            return match[0]
        if match[1] == "!":
            return _picture(ROOT / path, match[2])
        if path in DOCUMENTS:
            page = posixpath.splitext(target)[0] + ".html"
            return f"[{match[2]}]({page}{hash_sign}{place})"
        report = path.endswith(".ipynb") and report_of(Path(path).stem, site)
        return f"[{match[2]}]({up}../{report})" if report else match[2]

    text = (ROOT / document).read_text(encoding="utf-8")
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    text = re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", address, text)
    html = to_html(re.sub(r"^# .*\n", "", text, count=1, flags=re.MULTILINE))
    heads = re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', html)
    toc = [{"id": place, "html": re.sub("<.*?>", "", words)} for place, words in heads]
    html = html.replace("<table", '<div class="scroll"><table').replace(
        "</table>", "</table></div>"
    )
    body = linked(html, {name: up + href for name, href in links.items()})
    return {"title": _title(document), "body": body, "toc": toc}


def _picture(path: Path, alt: str) -> str:
    """A picture as HTML that holds it, of known size."""
    content, (width, height) = b64encode(path.read_bytes()).decode(), Image.open(path).size
    kind = mimetypes.guess_type(path.name)[0]
    return (
        f'<img alt="{escape(alt)}" width="{width}" height="{height}"'
        f' src="data:{kind};base64,{content}">'
    )


def entry(name: Name, links: dict[str, str]) -> dict:
    """One name as the template shows it; the source of a method is a paragraph of its own."""
    from pdoc.docstrings import google

    said = re.sub(r"\n\s*Source:", "\n\n**Source:**", name.doc)
    return {
        "id": name.name,
        "signature": _coloured(name.signature),
        "html": linked(to_html(google(said)), links, name.wing),
    }


def linked(html: str, links: dict[str, str], wing: str = "") -> str:
    """Code that is a public name as a link to it; in its own wing it may stand by itself."""

    def link(match) -> str:
        href = links.get(match[1]) or links.get(f"{wing}.{match[1]}")
        return f'<a href="{href}">{match[0]}</a>' if href else match[0]

    return re.sub(r"(?<!\">)<code>([\w.]+)</code>", link, html)


def report_of(notebook: str, site: Path) -> str | None:
    """The file of a notebook's first report in the site, or None."""
    return next((path.name for path in sorted(site.glob(f"{notebook}--*.html"))), None)


def _coloured(code: str) -> str:
    return highlight(code, PythonLexer(), HtmlFormatter(nowrap=True)).strip()


def _said_of(wing: str, whole: bool = False) -> str:
    said = importlib.import_module(f"xai_utils.{wing}").__doc__.strip()
    return said if whole else said.partition("\n")[0]


def _title(document: str) -> str:
    return re.search(r"^# (.*)", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE)[1]
