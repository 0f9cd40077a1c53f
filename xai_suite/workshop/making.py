"""Make the workshop: `python -m xai_suite.workshop`, in the project's folder.

Its folders `student` and `teacher` stand alone: notebooks, packages, data and weights. The user's
own pictures and models stay at home. What was made from the same content before is not written
again, so that a copy somebody works in lasts until its notebook changes; copies of what the project
has no longer are removed.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

from xai_suite.reports import RunError
from xai_suite.workshop.copies import WorkshopError, read_notebooks, student_copy, teacher_copy
from xai_suite.workshop.guide import guide
from xai_utils.engine import written_whole

NOTEBOOKS = "[0-9]*.ipynb"
CARRIED = (
    "xai_utils/**/*.py",
    "xai_suite/**/*.py",
    "data/*.json",
    "data/*.csv",
    "data/models/*.npz",
    "data/README.md",
    "data/images/README.md",
    "requirements.lock",
    "LICENSE",
)
FOLDERS = ("student", "teacher")
RECORD = ".made.json"  # beside them: what was written, as SHA-256 sums by name


def contents(repository: str = "") -> dict[str, bytes]:
    """All files of the workshop, by their names in it; made before anything is written.

    Raises:
        RunError: a notebook that is none, or none that can be handed out.
    """
    import nbformat

    files = {}
    notebooks = read_notebooks(Path("notebooks"))
    for path, notebook in notebooks.items():
        student = student_copy(notebook, str(path), repository)
        teacher = teacher_copy(notebook, str(path))
        for folder, made in zip(FOLDERS, (student, teacher)):
            files[f"{folder}/{path.name}"] = (nbformat.writes(made) + "\n").encode()
    files["README.md"] = guide(notebooks).encode()
    for path in _matching(Path(), CARRIED):
        for folder in FOLDERS:
            files[f"{folder}/{path.as_posix()}"] = path.read_bytes()
    return files


def _matching(folder: Path, patterns) -> list[Path]:
    """Files by their paths in the folder; none of a hidden folder, such as an editor's copies."""
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    names = [path.relative_to(folder) for path in paths]
    return [name for name in names if not any(part.startswith(".") for part in name.parts)]


def make(workshop: Path, repository: str = "") -> tuple[int, int]:
    """Bring the workshop up to date.

    Args:
        workshop: its folder.
        repository: public address of the suite; see `student_copy`.

    Returns:
        How many files were written, and how many removed.

    Raises:
        RunError: as `contents`; or the folder cannot be written.
    """
    files = contents(repository)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    before = recorded(workshop)
    changed = [
        name for name in files if before.get(name) != sums[name] or not (workshop / name).is_file()
    ]
    gone = [
        workshop / folder / name
        for folder in FOLDERS
        for name in _matching(workshop / folder, (NOTEBOOKS, *CARRIED))
        if f"{folder}/{name.as_posix()}" not in files
    ]
    try:
        if before != sums or changed:
            # Killed in between, nobody knows what the changed ones hold: the next time they count
            # as not written.
            record(workshop, {name: sums[name] for name in files if name not in changed})
        for name in changed:
            with written_whole(workshop / name) as temporary:
                temporary.write_bytes(files[name])
        for path in gone:
            path.unlink()
        if changed:
            record(workshop, sums)
    except OSError as error:
        raise WorkshopError(
            f"{workshop} cannot be written ({error.strerror or error}): say OUT=, a folder that can"
        ) from None
    return len(changed), len(gone)


def record(workshop: Path, sums: dict[str, str]) -> None:
    """Remember what is written."""
    with written_whole(workshop / RECORD) as temporary:
        temporary.write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def recorded(workshop: Path) -> dict[str, str]:
    """What was written last time; nothing the first time, or where the record is damaged."""
    try:
        sums = json.loads((workshop / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return sums if isinstance(sums, dict) else {}


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m xai_suite.workshop", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--repository", default="", help="public address of the suite, for Colab")
    usual = Path(os.environ.get("OUT") or "workshop")
    parser.add_argument("--out", type=Path, default=usual, help="its folder (OUT, or workshop)")
    given = parser.parse_args(arguments)
    # nbformat's check of a notebook would load it for nothing, for three seconds.
    sys.modules["rfc3987_syntax"] = None
    try:
        written, removed = make(given.out, given.repository)
    except (RunError, OSError) as error:
        print(f"make workshop: {error}", file=sys.stderr)
        return 1
    done = f"{written} files written, {removed} removed" if written or removed else "nothing to do"
    print(f"the workshop is in {given.out / 'README.md'} ({done})")
    return 0
