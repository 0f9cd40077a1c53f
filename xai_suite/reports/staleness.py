"""What a report is made from, and whether that has changed since: decided by content alone.

That is the notebook, the modules that its kernel had loaded, the parameters, the files that these
name (pictures, weights, results), the lock, whether GPUs round to TF32 and, for a summary, the
runs it needs. The digest of each stands in the executed notebook's metadata, so that a touched or
copied tree runs nothing again.

Light on purpose: `make reports` asks it about every run before anything else is loaded.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from xai_suite.reports.runs import NOTEBOOKS, RUNS, Run, RunError, digest_of, read_run_file
from xai_utils.models import files_of

LOCK = Path("requirements.lock")
IMAGES, MODELS = Path("data/images"), Path("data/models")
TAIL = 1 << 18  # bytes at the end of a notebook in which its metadata stand, after all its cells


def made_from(run: Run, build: Path) -> dict[str, str]:
    """The digest of each thing that a run's report is made from, but for modules, by name."""
    files = [run.notebook, LOCK, *(file for text in texts(run.parameters) for file in named(text))]
    parts = {file.as_posix(): digest(file) for file in files}
    return parts | told(combined(run.written), run.name, build)


def told(given: str, name: str, build: Path) -> dict[str, str]:
    """What a report is made from that is no file, `given` being the digest of its parameters."""
    # on a GPU it moves maps by a fifth of their largest value
    rounding = {"XAI_TF32": os.environ.get("XAI_TF32") or "0"}
    return rounding | {"parameters": given, "needs": needs(name, build)}


def modules(files: Iterable = ()) -> dict[str, str]:
    """As `made_from`, of the project's modules among these files.

    Each digest is taken once, so that a call before anything is loaded fixes what the files held.
    """
    own = {
        file.resolve(): file
        for package in ("xai_utils", "xai_suite")
        for file in Path(package).rglob("*.py")
    }
    digests = {place: digest(file) for place, file in own.items()}
    return {own[place].as_posix(): digests[place] for place in map(Path, files) if place in own}


def out_of_date(names: Iterable[str], build: Path) -> dict[str, list[str]]:
    """The runs to execute for these names, and why; with them those that they need."""
    stale: dict[str, list[str]] = {}
    wanted = dict.fromkeys(names)
    wanted |= dict.fromkeys(other for name in [*wanted] for other in needed_by(name))
    for name in sorted(wanted, key=lambda name: bool(needed_by(name))):
        anew = [other for other in needed_by(name) if other in stale]
        if why := changes(name, build) or anew:
            stale[name] = why
    return stale


def changes(name: str, build: Path) -> list[str]:
    """What a run's report was made from and has changed since."""
    before = metadata(build / f"{name}.ipynb").get("made_from")
    if before is None:
        return ["not made yet"]
    now = told(parameters(name), name, build)
    return [part for part in before if before[part] != (now.get(part) or digest(Path(part)))]


@cache
def run_names() -> tuple[str, ...]:
    """The names of all run files."""
    return tuple(sorted(file.stem for file in RUNS.glob("*.yaml")))


@cache
def about(notebook: str) -> dict:
    """What a notebook's own metadata say: `needs`, a glob of runs it reads, and `minutes`."""
    try:
        content = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))
        return content["metadata"].get("report", {})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # the run will say
        return {}


@cache
def needed_by(name: str) -> tuple[str, ...]:
    """The runs whose records a run reads."""
    glob = about(name.partition("--")[0]).get("needs", "")
    return tuple(other for other in run_names() if other != name and fnmatch(other, glob))


def needs(name: str, build: Path) -> str:
    made = {other: metadata(build / f"{other}.ipynb").get("made_from") for other in needed_by(name)}
    return combined(made)


def parameters(name: str) -> str:
    """The digest of what a run file says."""
    try:
        return combined(read_run_file(RUNS / f"{name}.yaml"))
    except RunError:  # the run will say what is wrong with its file
        return "unreadable"


def texts(value) -> set[str]:
    """All texts in a parameter's value."""
    inside = [*value.values()] if isinstance(value, dict) else value
    if isinstance(inside, (list, tuple)):
        return set().union(*map(texts, inside))
    return {value} if isinstance(value, str) else set()


def named(text: str) -> list[Path]:
    """Files that a text may name: by path, in `data/images/`, or a network's in `data/models/`.

    A network's card, and the labels that it names, belong to it.
    """
    if not 0 < len(text) < 256 or not text.isprintable():
        return []
    places = [NOTEBOOKS / text, Path(text), IMAGES / text]
    places += [file for place in places if place.is_dir() for file in sorted(place.rglob("*"))]
    places += [file for file in MODELS.glob("*") if file.name.startswith((f"{text}.", f"{text}_"))]
    found = [place for place in places if place.is_file()]
    with contextlib.suppress(ValueError, OSError):  # the run says what is wrong with a card
        of_networks = [file for place in [text, *found] for file in files_of(place)]
        found += [Path(os.path.relpath(file)) for file in of_networks if file.is_file()]
    return [*dict.fromkeys(found)]


def is_there(file: str) -> bool:
    """Whether a file or folder that a parameter names can be found where a run looks for it."""
    with contextlib.suppress(OSError):  # a name that no file can have
        return any((place / file).exists() for place in (NOTEBOOKS, Path(), IMAGES))
    return False


@cache
def digest(file: Path) -> str:
    """Of a file's content."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()[:16]
    except OSError:
        return "missing"


def combined(value) -> str:
    """The digest of anything that JSON can say."""
    return digest_of(json.dumps(value, sort_keys=True, default=str))


def metadata(notebook: Path) -> dict:
    """What an executed notebook says of its run; empty for one that is not there or not whole."""
    try:
        with notebook.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            end = file.read().decode(errors="replace")
        return json.loads("{" + end[end.rindex('\n "metadata": {') :])["metadata"]["report"]
    except (OSError, ValueError, LookupError):
        return {}
