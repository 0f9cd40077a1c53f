"""What an executed notebook says about where it came from; written whole, and without this
machine's paths.
"""

import contextlib
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from xai_utils import __version__
from xai_utils.engine import written_whole


def commit() -> str | None:
    """Short hash of the checkout, with -dirty when tracked files were changed; None without git."""
    here = Path.cwd()
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=7"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        env = {
            **os.environ,
            "GIT_CEILING_DIRECTORIES": str(here.parent),
        }  # not of a repository around us
        return subprocess.run(
            command, cwd=here, env=env, capture_output=True, text=True, check=True
        ).stdout.strip()
    return None


def versions() -> dict[str, str | None]:
    found = {
        "python": sys.version.split()[0],
        "tensorflow": None,
        "keras": None,
        "xai_utils": __version__,
    }
    for package in ("tensorflow", "keras"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def without_machine(text: str) -> str:
    """Take this machine's paths out of a text (a notebook's JSON, an error): relative to the
    project where possible.
    """
    root, home = str(Path.cwd()), str(Path.home())
    places = {f"{root}/": "", root: "."}
    if root.startswith(f"{home}/"):  # IPython shortens it in tracebacks
        places[f"~{root[len(home) :]}/"] = ""
    for prefix in (sys.prefix, sys.base_prefix):
        places[f"{prefix}/lib/"] = "lib/"
        if prefix.startswith(f"{home}/"):
            places[f"~{prefix[len(home) :]}/lib/"] = "lib/"
    if len(home) > 1:
        places[f"{home}/"] = "~/"
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    # From the start of a path on: begun anywhere, megabytes of embedded figures would take seconds.
    return (
        re.sub(r"(?<![\w./-])[\w./-]*/ipykernel_\d+/\d+\.py", "cell", text)
        if "/ipykernel_" in text
        else text
    )


def write(notebook, path: Path, report: dict) -> None:
    """Write an executed notebook with what is known of its run, whole or not at all."""
    import nbformat

    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
    notebook.metadata["report"] = {**notebook.metadata.get("report", {}), **report}
    with written_whole(path) as temporary:
        temporary.write_text(without_machine(nbformat.writes(notebook)), encoding="utf-8")


def empty_notebook(title: str):
    """What a run shows that could not even start."""
    import nbformat.v4

    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {title}")])
