"""Executed notebooks become a site: one page a run, and an index of all of them.

A page's card stands in BUILD_DIR/cards, so that the index can be written anew after every run
without reading hundreds of megabytes. What a failed run left is in BUILD_DIR/failed.
"""

import hashlib
import io
import json
import re
import sys
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from posixpath import normpath
from urllib.parse import quote

from xai_suite.reports import finding, reading, staleness
from xai_utils.attribution import spoken
from xai_utils.engine import written_whole
from xai_utils.show import show_value

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "reports" / "template"
PARTS = (
    "Start",
    "Gradients",
    "Class activation",
    "Perturbation",
    "Synthesis",
    "Detection",
    "Experiments",
    "Does it tell the truth?",
    "Transformers",
    "Concepts",
)
GENERATOR = '<meta name="generator" content="xai_suite.reports">'
THUMBNAIL = 480  # pixels wide
NOTHING = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
MADE_WITH = (
    *(
        f"xai_suite/reports/{name}.py"
        for name in ("site", "pages", "reading", "finding", "sharing")
    ),
    "xai_utils/attribution/names.py",
    "xai_utils/show/drawing.py",
)
REFERENCE, BESIDE = "reference", "compare"  # folders of a site that hold no other model's
COLUMNS = 4  # of a comparison that are shown before anybody chooses


@dataclass(frozen=True)
class Run:
    """One run as it lies in the build folder.

    Attributes:
        notebook: executed, whole or partial; without cells if nothing was left.
        error: one line; empty for a good run.
        log: of a failed run.
    """

    name: str
    notebook: dict
    error: str = ""
    log: str = ""

    @property
    def info(self):
        return reading.about(self.notebook)

    @property
    def title(self):
        return self.info.get("title") or self.topic

    @property
    def notebook_name(self):
        return self.name.partition("--")[0]

    @property
    def topic(self):
        return finding.topic(self.notebook_name)

    def facts(self):
        """What page and card say about the run, as (label, text); unknown ones are left out."""
        versions = self.info.get("versions") or {}
        facts = [
            ("model", finding.network(self.notebook)),
            ("took", duration(self.info.get("seconds"))),
            ("run on", date(self.info.get("started"))),
            ("computed on", self.info.get("computed_on")),
            ("commit", self.info.get("commit")),
            ("with", ", ".join(f"{name} {number}" for name, number in versions.items() if number)),
        ]
        return [(label, text) for label, text in facts if text]


def left_by(build, name) -> tuple[Path | None, Path | None]:
    """The newest notebook of a run and, if that is of a failure, its log; else None."""
    good = build / f"{name}.ipynb"
    partial, log = build / "failed" / f"{name}.ipynb", build / "failed" / f"{name}.log"
    failed = [path for path in (partial, log) if path.exists()]
    newest = max((path.stat().st_mtime for path in failed), default=0)
    if good.exists() and good.stat().st_mtime >= newest:
        return good, None
    return partial if partial in failed else None, log if failed else None


def find(build, name) -> Run:
    """The run of that name: its good notebook, or what a failure left if that is newer.

    Raises:
        ValueError: the good notebook is damaged.
    """
    path, log = left_by(build, name)
    words = words_of(log)
    notebook, error = NOTHING, reading.one_line(words.rpartition("\n")[2])
    try:
        notebook = reading.read_notebook(path) if path else NOTHING
        error = reading.one_line(reading.about(notebook).get("error")) or error
    except ValueError:
        if not log:  # of a failure, its log says enough
            raise
    if log or not path:
        error = error or ("failed without a message" if log else "has not been run")
    return Run(name, notebook, error, words)


def words_of(log: Path | None) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip() if log and log.exists() else ""


def lost(build, name, why) -> None:
    """Say of a run, which left nothing itself, why that is so."""
    write(build / "failed" / f"{name}.log", f"{why}\n")
    (build / "failed" / f"{name}.ipynb").unlink(missing_ok=True)


def page(build, site, name) -> None:
    """Write a run's page, whole or not at all: if rendering raises, the old one stays.

    Raises:
        ValueError: a damaged notebook.
    """
    from xai_suite.reports.pages import render

    run, of = find(build, name), fingerprint(build, name)
    body, state = render(run.notebook, run.title)
    for warning in state.warnings:
        print(f"warning: {name}: {warning}", file=sys.stderr)
    records = reading.read_records(run.notebook)
    html = template(
        "page.html.j2"
    ).render(
        run=run,
        body=body.strip(),
        toc=state.toc,
        listed="--" in name,  # else no index shows it and no comparison
        parameters=reading.parameters(run.notebook),
        log="\n".join(run.log.splitlines()[-40:]),
        numbers={name: show_value(value) for name, value in records.items()},
    )
    write(site / f"{name}.html", html)
    keep(build, name, {"of": of, "dress": dress(), "card": card_of(run)})


def keep(build, name, stored) -> None:
    write(build / "cards" / f"{name}.json", json.dumps(stored))


def is_current(build, site, name) -> bool:
    """Whether there is a page of a run's newest notebook, in today's dress."""
    return (site / f"{name}.html").exists() and kept(build, name).get("dress") == dress()


def kept(build, name) -> dict:
    """What is kept of a run's card; empty if it is not of what the run left last."""
    try:
        stored = json.loads((build / "cards" / f"{name}.json").read_text(encoding="utf-8"))
        return stored if stored["of"] == fingerprint(build, name) else {}
    except (OSError, ValueError, LookupError):
        return {}


def fingerprint(build, name) -> str:
    """Of what a run has left: a notebook says of itself when it was run."""
    notebook, log = left_by(build, name)
    return staleness.combined([notebook and staleness.metadata(notebook), words_of(log)])


@cache
def dress() -> str:
    """Of all that pages are made with."""
    own = [ROOT / name for name in MADE_WITH]
    files = [*own, *sorted(file for file in TEMPLATE.rglob("*.*") if file.is_file())]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def index(build, site, names, running=(), waiting=()) -> list[tuple[str, str]]:
    """Write the index of exactly these runs and remove the pages of others.

    Args:
        running, waiting: those whose reports are being made, and will be.

    Returns:
        The failed runs, as (name, error).
    """
    cards = [
        card(build, site, name, name in running, name in waiting) for name in sorted(set(names))
    ]
    parts: dict[str, list[dict]] = {}
    for one in cards:
        parts.setdefault(part(one["name"]), []).append(one)
    compared = compare(site, cards)
    html = template("gallery.html.j2").render(
        parts=parts,
        count=len(cards),
        failed=sum(bool(one["error"]) for one in cards),
        models=among(cards, "networks"),
        total=duration(sum(one["seconds"] for one in cards)),
        links=links(site),
        filters=filters(cards),
        compared=compared,
        running=sorted(running),
        left=len(waiting) + len(running),
        now=f"{datetime.now():%H:%M}",
    )
    write(site / "index.html", html)
    for old in site.glob("*--*.html"):
        if old.stem not in names:
            old.unlink()
    return [(one["name"], one["error"]) for one in cards if one["error"]]


def lists(site, names) -> bool:
    """Whether there is an index of these runs, and what lies beside, written when all was done."""
    index = site / "index.html"
    html = index.read_text(encoding="utf-8") if index.exists() else "data-left"
    pages = {path.stem for path in site.glob("*--*.html")}
    linked = all(f'<a href="{href}">' in html for _, href in links(site))
    whole = "data-left" not in html and linked and pages == {*names}
    return whole and compares(site, {name.partition("--")[0] for name in names})


def refresh(build, site) -> None:
    """Write the index anew where it does not lead to all that lies beside it by now.

    Nothing is written where there is none, or while reports are made, whose end writes it.
    """
    place = site / "index.html"
    html = place.read_text(encoding="utf-8") if place.exists() else "data-left"
    names = [path.stem for path in site.glob("*--*.html")]
    if "data-left" not in html and not lists(site, names):
        index(build, site, names)


def compares(site, notebooks) -> bool:
    """Whether the comparisons of these notebooks show just what the sites around this one have."""
    others = elsewhere(site)
    for notebook in notebooks:
        place = site / BESIDE / f"{notebook}.html"
        html = place.read_text(encoding="utf-8") if place.exists() else ""
        shown = re.findall(r'<iframe src="\.\./([^"/]+/[^"]+)"', html)
        if not html or shown != [column["href"] for column in others.get(notebook, [])]:
            return False
    return True


def card(build, site, name, running=False, waiting=False) -> dict:
    """What the index shows of a run, from its card if that is still true."""
    found = kept(build, name).get("card")
    if found is None:
        try:
            found = card_of(find(build, name))
            keep(build, name, {"of": fingerprint(build, name), "card": found})
        except ValueError as error:  # a damaged notebook must not take the index down
            found = card_of(Run(name, NOTHING, reading.one_line(error)))
    there = (site / f"{name}.html").exists()
    topic = finding.topic(name.partition("--")[0])
    found = {"ended": "", "techniques": [], "pictures": [], "networks": []} | found  # an older one
    words = finding.searchable([topic, found["words"]])
    found |= {"href": quote(f"{name}.html") if there else "", "state": ""}
    found |= {"topic": topic, "words": words}
    if running or waiting:
        found |= {"state": "running" if running else "waiting", "error": ""}
    return found


def card_of(run) -> dict:
    """As JSON values, what a card shows of a run."""
    rows = [row for row in reading.parameters(run.notebook) if row["changed"]]
    changed = [(row["name"], finding.file_name(row["value"])) for row in rows]
    source, _, label = run.name.partition("--")
    settings = [f"{name} {value}" for name, value in changed]
    ended = run.info.get("ended", "")
    words = [*finding.words(run.name, run.notebook), run.title, *settings]
    words += ["failed" if run.error else "", ended]
    records = reading.read_records(run.notebook)
    return {
        "name": run.name,
        "title": run.title,
        "error": run.error,
        "ended": ended,
        "facts": run.facts(),
        "techniques": finding.techniques(run.name, run.notebook),
        "pictures": finding.pictures(run.notebook),
        "networks": finding.networks(run.notebook),
        "seconds": run.info.get("seconds") or 0,
        "label": label or source,
        "anchor": source,
        "changed": changed,
        "numbers": [(name, show_value(value)) for name, value in records.items()][:4],
        "thumbnail": shrink(reading.thumbnail(run.notebook)),
        "words": " ".join(words),
    }


def shrink(png):
    """(data URI, width, height) of a PNG at most 480 px wide, or None."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(png or b"")).convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    except (OSError, ValueError):
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(small := io.BytesIO(), "WEBP", quality=82)
    return f"data:image/webp;base64,{b64encode(small.getvalue()).decode()}", *image.size


def part(name):
    """The part of the suite a run belongs to, from its notebook's number.

    21_grad_cam--x is 'Class activation'.
    """
    known = name[:2].isdecimal() and int(name[0]) < len(PARTS)
    return PARTS[int(name[0])] if known else "More"


def among(cards, key) -> list[str]:
    """The values that these cards have under a key, each once, in their order."""
    return list(dict.fromkeys(value for one in cards for value in one[key]))


def filters(cards) -> list[dict]:
    """What the index can be narrowed by, each with the choices that there are, as (value, text)."""
    used = {value for one in cards for value in one["techniques"]}
    by_name = sorted(among(cards, "pictures"), key=str.lower)
    found = {
        "technique": [(name, spoken(name)) for name in finding.TECHNIQUES if name in used],
        "picture": [(name, name) for name in by_name],
        "network": [(name, name) for name in among(cards, "networks")],
    }
    return [{"name": name, "choices": each} for name, each in found.items() if len(each) > 1]


def compare(site, cards) -> dict[str, int]:
    """Write, for each notebook, a page with the pages of its runs side by side; remove others.

    They show the pages themselves, so that nothing is stored twice. Runs in other models' sites
    and of single reports are columns too.

    Returns:
        How many runs can be compared, by notebook.
    """
    good: dict[str, list[dict]] = {one["anchor"]: [] for one in cards}
    for one in cards:
        if one["href"] and not one["error"]:
            good[one["anchor"]].append(one)
    folder = site / BESIDE
    folder.mkdir(exist_ok=True)
    others = elsewhere(site)
    for notebook, own in good.items():
        columns = columns_of(own) + others.get(notebook, [])
        title = next(one["title"] for one in cards if one["anchor"] == notebook)
        html = template("compare.html.j2").render(
            notebook=notebook, topic=finding.topic(notebook), title=title, columns=columns
        )
        place = folder / f"{notebook}.html"
        if not place.exists() or place.read_text(encoding="utf-8") != html:
            write(place, html)
        good[notebook] = columns
    for old in folder.glob("*.html"):
        if old.stem not in good:
            old.unlink()
    return {notebook: len(columns) for notebook, columns in good.items()}


def columns_of(cards) -> list[dict]:
    """Columns of a comparison, those of the first one's networks first."""
    ordered = sorted(cards, key=lambda one: one["networks"] != cards[0]["networks"])
    return [
        {
            "label": one["label"],
            "href": one["href"],
            "about": ", ".join([*one["pictures"], *one["networks"]]),
            "shown": number < COLUMNS,
        }
        for number, one in enumerate(ordered)
    ]


def elsewhere(site) -> dict[str, list[dict]]:
    """Columns of comparisons, by notebook: its pages in the sites around this one."""
    found: dict[str, list[dict]] = {}
    for name, place in other_sites(site):
        for page in sorted((site / place).glob("*--*.html")):
            notebook, _, label = page.stem.partition("--")
            column = {
                "label": f"{label}, {name}",
                "href": f"{quote(place)}/{quote(page.name)}",
                "about": "",
                "shown": False,
            }
            found.setdefault(notebook, []).append(column)
    return found


def links(site) -> list[tuple[str, str]]:
    """What the index leads to besides its pages, as (text, href)."""
    sites = other_sites(site)
    found = [(name, f"{quote(place)}/index.html") for name, place in sites]
    for place in [".", *(place for _, place in sites if place == "..")]:
        path = normpath(f"{place}/{REFERENCE}/index.html")
        if (site / path).exists():
            return [("reference", path), *found]
    return found


def other_sites(site) -> list[tuple[str, str]]:
    """Sites of other models: (name, place), in folders inside `site` and the one around it."""
    inside = sorted(path.parent.name for path in site.glob("*/index.html"))
    others = [(name, name) for name in inside if name not in (REFERENCE, BESIDE)]
    above = site.resolve().parent / "index.html"
    if above.exists() and GENERATOR in above.read_text(encoding="utf-8", errors="replace")[:3000]:
        others.append(("default model", ".."))
    return others


def duration(seconds):
    """42.4 -> '42 s', 185 -> '3 min 05 s', 3723 -> '1 h 02 min'."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return (
        f"{minutes} min {rest:02d} s"
        if minutes
        else f"{seconds:.1f} s"
        if seconds < 10
        else f"{rest} s"
    )


def date(started):
    """ISO time -> '2026-03-14 09:26'; None -> ''."""
    return (started or "")[:16].replace("T", " ")


@cache
def template(name):
    """A Jinja template with everything escaped, and the style and script that each page carries."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    env = Environment(
        loader=FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATE / "page.js").read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()  # of the only script the page may run
    env.filters["spoken"] = spoken
    env.globals.update(
        style=Markup((TEMPLATE / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=b64encode(digest).decode(),
        generator=Markup(GENERATOR),
        raw=Markup,
    )
    return env.get_template(name)


def write(path, text):
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
