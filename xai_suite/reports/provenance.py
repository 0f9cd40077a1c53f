"""What an executed notebook says about where it came from, without this machine's paths."""

import contextlib
import os
import re
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path

from xai_utils import __version__
from xai_utils.engine import written_whole


def commit() -> str | None:
    """Short hash of the checkout, with -dirty when tracked files were changed; None without git."""
    here = Path.cwd()
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=7"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        # not of a repository around us
        env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(here.parent)}
        run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return run.stdout.strip()
    return None


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "xai_utils": __version__}
    for package in ("tensorflow", "keras"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def without_machine(text: str) -> str:
    """Take this machine's paths out of a text: relative to the project where possible.

    A path begins where nothing of a path, a word or an address stands before it: in the middle of
    `https://example.org/app/` or of base64 there is none of ours.
    """
    root, home = str(Path.cwd()), str(Path.home())
    places = {root: "", **{f"{prefix}/lib": "lib" for prefix in (sys.prefix, sys.base_prefix)}}
    if len(home) > 1:  # IPython shortens paths below it in tracebacks
        places |= {
            f"~{place.removeprefix(home)}": shown
            for place, shown in places.items()
            if place.startswith(f"{home}/")
        }
        places[home] = "~"
    longest_first = "|".join(map(re.escape, sorted(places, key=len, reverse=True)))

    def shown(match):
        place, slash = places[match[1]], match[2]
        return place + slash if place else "" if slash else "."

    text = re.sub(rf"(?<![\w./~:+-])({longest_first})(?![\w-]|\.\w)(/?)", shown, text)
    return re.sub(r"(?<![\w./-])[\w./-]*/ipykernel_\d+/\d+\.py", "cell", text)


def clean(cell) -> None:
    """Take this machine out of a cell's source, streams and tracebacks; what it displays stays."""
    cell.source = without_machine(cell.source)
    for output in cell.get("outputs", []):
        for name in {"stream": ["text"], "error": ["evalue"]}.get(output.output_type, []):
            output[name] = without_machine(output[name])
        if output.output_type == "error":
            output.traceback = [*map(without_machine, output.traceback)]


def record(
    run,
    name: str,
    started: datetime,
    seconds: float,
    error: str | None,
    computed_on: str | None = None,
) -> dict:
    """What is known of a run that has ended; `run` is None if it could not be made.

    Args:
        computed_on: as `engine.computed_on` says; None if TensorFlow did not start.
    """
    model = run.parameters.get("model") if run else None
    notebook = name.partition("--")[0]
    return {
        "run": name,
        "notebook": notebook,
        "title": run.title if run else notebook,
        "parameters": run.parameters if run else {},
        "changed": run.changed if run else {},
        # a summary's: the default set of reports, no network
        "model": None if model == "default" else model,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "computed_on": computed_on,
        "versions": versions(),
        "commit": commit(),
        "error": error,
    }


def write(notebook, path: Path, report: dict) -> None:
    """Write an executed notebook with what is known of its run, whole or not at all.

    Args:
        notebook: None if the run could not even start; then its title is written.
    """
    import nbformat

    if notebook is None:
        title = nbformat.v4.new_markdown_cell(f"# {report['title']}")
        notebook = nbformat.v4.new_notebook(cells=[title])
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
    for cell in notebook.cells:
        clean(cell)
    notebook.metadata["report"] = {**notebook.metadata.get("report", {}), **report}
    with written_whole(path) as temporary:
        temporary.write_text(nbformat.writes(notebook), encoding="utf-8")
