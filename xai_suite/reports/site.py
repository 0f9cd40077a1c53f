"""Executed notebooks become a site: one page a run and a gallery of all of them.

    python -m xai_suite.reports.site pages BUILD_DIR SITE_DIR NAME...
    python -m xai_suite.reports.site index BUILD_DIR SITE_DIR NAME...

`pages` renders each BUILD_DIR/NAME.ipynb, or what a failed run left in BUILD_DIR/failed/. `index`
writes SITE_DIR/index.html for exactly those names, removes pages of other runs, and exits 1 if one
of them failed.
"""

import argparse
import hashlib
import io
import re
import sys
import time
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote

from xai_suite.reports import reading
from xai_utils.engine import written_whole
from xai_utils.show import show_value

TEMPLATE = Path(__file__).resolve().parents[2] / "reports" / "template"
PARTS = (
    "Start",
    "Gradients",
    "Class activation",
    "Perturbation",
    "Synthesis",
    "Detection",
    "Experiments",
    "Does it tell the truth?",
)
GENERATOR = '<meta name="generator" content="xai_suite.reports.site">'
THUMBNAIL = 480  # pixels wide


@dataclass(frozen=True)
class Run:
    """One run as it lies in the build folder. `error` is "" for a good one; `notebook` is None if
    nothing was left.
    """

    name: str
    notebook: dict | None
    error: str
    log: str
    changed_at: float

    @property
    def info(self):
        return (self.notebook or {}).get("metadata", {}).get("report", {})

    @property
    def title(self):
        return self.info.get("title") or self.name.partition("--")[0].replace("_", " ")

    def facts(self):
        """What both a page and a card say about the run, as (label, text) pairs; unknown ones are
        left out.
        """
        info = self.info
        versions = ", ".join(
            f"{name} {version}" for name, version in (info.get("versions") or {}).items() if version
        )
        pairs = [
            ("model", info.get("model")),
            ("took", duration(info.get("seconds"))),
            ("run on", date(info.get("started"))),
            ("commit", info.get("commit")),
            ("with", versions),
        ]
        return [(label, text) for label, text in pairs if text]


def find(build, name):
    """The `Run` called `name`: the good notebook, or the remains of a failure if those are newer or
    all there is.
    """
    good = build / f"{name}.ipynb"
    partial, log = build / "failed" / f"{name}.ipynb", build / "failed" / f"{name}.log"
    failed = [path for path in (partial, log) if path.exists()]
    newest = max((path.stat().st_mtime for path in failed), default=0)
    if good.exists() and good.stat().st_mtime >= newest:
        notebook = reading.read_notebook(good)
        error = notebook.get("metadata", {}).get("report", {}).get("error")
        return Run(name, notebook, one_line(error), "", good.stat().st_mtime)
    text = log.read_text(encoding="utf-8", errors="replace").strip() if log in failed else ""
    notebook, error = None, one_line(text.rpartition("\n")[2])
    if partial in failed:
        try:  # a run may be killed while it writes this one
            notebook = reading.read_notebook(partial)
            error = one_line(notebook.get("metadata", {}).get("report", {}).get("error")) or error
        except ValueError:
            pass
    return Run(
        name,
        notebook,
        error or ("failed without a message" if failed else "has not been run"),
        text,
        newest,
    )


def page(build, name, out):
    """Write the page of run `name` to `out`, atomically: if rendering raises, the old page
    stays.
    """
    run = find(build, name)
    if run.notebook is None and run.error == "has not been run":
        raise FileNotFoundError(f"no notebook {name} in {build}")
    write_page(run, out)


def write_page(run, out):
    body, toc, rows, records = "", [], [], {}
    if run.notebook is not None:
        from xai_suite.reports.pages import render

        rows, records = reading.parameters(run.notebook), reading.read_records(run.notebook)
        body, state = render(run.notebook, run.title)
        toc = state.toc
        for warning in state.warnings:
            print(f"warning: {run.name}: {warning}", file=sys.stderr)
    write(
        out,
        template("page.html.j2").render(
            run=run,
            body=body,
            toc=toc,
            parameters=rows,
            log="\n".join(run.log.splitlines()[-40:]),
            numbers={name: show_value(value) for name, value in records.items()},
        ),
    )


def index(build, site, names):
    """Write the gallery; returns the failed runs as [(name, error)]."""
    parts, failed, models, seconds = {}, [], [], 0.0
    for name in sorted(set(names)):
        try:
            run = find(build, name)
        except ValueError as error:  # a damaged notebook must not take the gallery down
            run = Run(name, None, one_line(error), "", time.time())
        target = site / f"{name}.html"
        if run.error:
            failed.append((name, run.error))
            if run.changed_at and not (target.exists() and target.stat().st_mtime > run.changed_at):
                write_page(run, target)
        seconds += run.info.get("seconds") or 0
        models += [run.info["model"]] if run.info.get("model") not in (None, *models) else []
        parts.setdefault(part(name), []).append(card(run, target.exists()))
    html = template("gallery.html.j2").render(
        parts=parts,
        count=sum(map(len, parts.values())),
        failed=len(failed),
        models=models,
        total=duration(seconds),
        others=other_sites(site),
    )
    write(site / "index.html", html)
    for old in site.glob("*--*.html"):
        if old.stem not in names:
            old.unlink()
    for old in site.glob(".*.tmp"):  # left by a killed process; a young one may be at work
        if time.time() - old.stat().st_mtime > 3600:
            old.unlink(missing_ok=True)
    return failed


def card(run, has_page):
    """What the gallery shows of one run."""
    notebook = run.notebook or {"cells": []}
    changed = [
        (row["name"], row["value"]) for row in reading.parameters(notebook) if row["changed"]
    ]
    numbers = [(name, show_value(value)) for name, value in reading.read_records(notebook).items()][
        :4
    ]
    source, _, label = run.name.partition("--")
    words = [
        run.name,
        run.title,
        *(f"{name} {value}" for name, value in changed),
        "failed" if run.error else "",
    ]
    return {
        "run": run,
        "label": label or source,
        "anchor": source,
        "changed": changed,
        "numbers": numbers,
        "href": quote(f"{run.name}.html") if has_page else "",
        "thumbnail": shrink(reading.thumbnail(notebook)),
        "words": " ".join(words).lower(),
    }


def shrink(png):
    """(data URI, width, height) of a PNG at most 480 px wide, or None."""
    if png is None:
        return None
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(png))
        if image.has_transparency_data:
            image = Image.alpha_composite(
                Image.new("RGBA", image.size, "white"), image.convert("RGBA")
            )
        image = image.convert("RGB")
    except (OSError, ValueError):
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.save(small := io.BytesIO(), "WEBP", quality=82)
    return f"data:image/webp;base64,{b64encode(small.getvalue()).decode()}", *image.size


def part(name):
    """The part of the suite a run belongs to, from its notebook's number: 21_grad_cam--x → 'Class
    activation'.
    """
    digits = name[:2]
    return (
        PARTS[int(digits) // 10]
        if digits.isdecimal() and int(digits) // 10 < len(PARTS)
        else "More"
    )


def other_sites(site):
    """Galleries of other models: [(name, href)], from folders inside `site` and the one around
    it.
    """
    found = [
        (path.parent.name, quote(f"{path.parent.name}/index.html"))
        for path in sorted(site.glob("*/index.html"))
    ]
    above = site.resolve().parent / "index.html"
    if above.exists() and GENERATOR in above.read_text(encoding="utf-8", errors="replace")[:3000]:
        found.append(("default model", "../index.html"))
    return found


def duration(seconds):
    """42.4 → '42 s', 185 → '3 min 05 s', 3723 → '1 h 02 min'."""
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
    """ISO time → '2026-03-14 09:26'; anything else as it is."""
    try:
        return f"{datetime.fromisoformat(started):%Y-%m-%d %H:%M}"
    except (TypeError, ValueError):
        return str(started or "")


def one_line(text):
    """The first line of `text` (anything; None is ""), without terminal colours."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", str(text or "")).strip()
    return plain.splitlines()[0].strip() if plain else ""


@cache
def template(name):
    """A Jinja template with everything escaped, and the stylesheet and script that each page
    carries inside.
    """
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
    digest = b64encode(
        hashlib.sha256(script.encode()).digest()
    ).decode()  # the only script the page may run
    env.globals.update(
        style=Markup((TEMPLATE / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=digest,
        generator=Markup(GENERATOR),
        raw=Markup,
    )
    return env.get_template(name)


def write(path, text):
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def pages(build, site, names):
    """Write the page of each run; returns those that could not be written as [(name, error)]."""
    failed = []
    for name in names:
        try:
            page(build, name, site / f"{name}.html")
        except Exception as error:  # the others go on
            failed.append((name, one_line(error)))
    return failed


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="xai_suite.reports.site", description="Turn executed notebooks into a site."
    )
    parser.add_argument(
        "command", choices=("pages", "index"), help="the pages of the named runs, or their gallery"
    )
    for name, kind in (
        ("build", {"type": Path}),
        ("site", {"type": Path}),
        ("names", {"nargs": "*"}),
    ):
        parser.add_argument(name, **kind)
    options = parser.parse_args(arguments)
    does, says = (pages, "error:") if options.command == "pages" else (index, "FAILED")
    try:
        failed = does(options.build, options.site, options.names)
    except (OSError, ValueError) as error:
        print(f"error: {options.command}: {one_line(error)}", file=sys.stderr)
        return 1
    for name, error in failed:
        print(f"{says} {name}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
