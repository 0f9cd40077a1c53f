"""Results of an evaluation: a folder of Parquet files, one a chunk of pictures.

Any reader of Parquet takes the folder as one table. A part is written under another name and
renamed: it is whole or not there, so an evaluation that was killed goes on where it was. What the
results were made with stands beside them, and nothing else may be added.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from xai_utils import __version__
from xai_utils.attribution import FLOORS
from xai_utils.engine import written_whole

FORMAT = 2  # raised when a metric's definition changes: older results are then not gone on with
ABOUT = "_evaluation.json"  # readers of Parquet pass over names that begin with _ or .
METRICS = {
    "deletion": "float64",
    "insertion": "float64",
    "drop": "float64",
    "increase": "float64",
    "infidelity": "float64",
    "sensitivity": "float64",
    "road_most": "float64",
    "road_least": "float64",
    "mass_share": "float64",
    "enrichment": "float64",
    "pointing": "float64",
}
COLUMNS = {
    "number": "int64",
    "path": "string",
    "technique": "string",
    "label": "int64",
    "top": "int64",
    "explained": "int64",
    "probability": "float64",
    **METRICS,
    "error": "string",
}


class Results:
    """A folder of results that is being filled.

    Args:
        folder: made if it is not there.
        about: what the results depend on: JSON values by name.

    Raises:
        ValueError: the folder holds something else, or results made with other values; the message
            says which.
        OSError: it cannot be written.
    """

    def __init__(self, folder, about: dict):
        self.folder = Path(folder).expanduser()
        about = json.loads(json.dumps({"format": FORMAT, "version": __version__, **about}))
        self.about = about
        others = (
            [path for path in self.folder.iterdir() if ABOUT not in path.name]
            if self.folder.is_dir()
            else []
        )
        if any(self.folder.glob("part-*.parquet")):
            self._check()
        elif others or (self.folder.exists() and not self.folder.is_dir()):
            raise ValueError(
                f"{self.folder.name} is there already and holds no evaluation: give another name"
            )
        else:  # nothing is measured yet
            with self._written(self.folder / ABOUT) as temporary:
                temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def _check(self) -> None:
        """Refuse to add to results of other values, by an earlier evaluation or one beside this."""
        _same(read_about(self.folder), self.about, self.folder.name)

    def part(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.parquet"

    def write(self, number: int, rows: list[dict]) -> None:
        """Write one part, whole or not at all."""
        import pyarrow as pa
        from pyarrow import parquet

        self._check()
        schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
        table = pa.table(
            {name: [_plain(row.get(name)) for row in rows] for name in COLUMNS}, schema=schema
        )
        with self._written(self.part(number)) as temporary:
            parquet.write_table(table, temporary)

    @contextlib.contextmanager
    def _written(self, path: Path) -> Iterator[Path]:
        """As `written_whole`, with one line that says what to do where it fails."""
        try:
            with written_whole(path) as temporary:
                yield temporary
        except OSError as error:
            raise OSError(
                f"{self.folder} cannot be written ({error.strerror or error}): give another place"
                " with out= (OUT= of make evaluate)"
            ) from None


def read(folder):
    """All rows of an evaluation so far, a `pyarrow.Table` in the order of the manifest.

    Raises:
        FileNotFoundError: no evaluation there.
    """
    from pyarrow import parquet

    folder = Path(folder).expanduser()
    read_about(folder)
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise FileNotFoundError(f"{folder.name} holds no results yet")
    import pyarrow as pa

    return pa.concat_tables([parquet.read_table(part) for part in parts])


def read_about(folder) -> dict:
    """What the results in a folder were made with; FileNotFoundError if there are none."""
    note = Path(folder).expanduser() / ABOUT
    if not note.is_file():
        raise FileNotFoundError(f"no evaluation at {folder}: it has no {ABOUT}")
    return json.loads(note.read_text(encoding="utf-8"))


def summary(table) -> dict[str, dict[str, tuple[float, float, int]]]:
    """`{technique: {metric: (mean, standard error, pictures)}}`, without metrics of no picture."""
    columns = {name: np.array(table[name].to_pylist(), float) for name in METRICS}
    techniques = np.array(table["technique"].to_pylist(), object)
    moments = {}
    for technique in dict.fromkeys(name for name in techniques if name is not None):
        mine = {name: values[techniques == technique] for name, values in columns.items()}
        mine = {name: values[~np.isnan(values)] for name, values in mine.items()}
        moments[technique] = {
            name: _moments(values) for name, values in mine.items() if len(values)
        }
    return moments


def errors(table) -> list[tuple[str, str | None, str]]:
    """`(path, technique, reason)` of what could not be measured.

    The technique is None where the picture itself was at fault.
    """
    rows = zip(*(table[name].to_pylist() for name in ("path", "technique", "error")))
    return [row for row in rows if row[2]]


def _moments(values) -> tuple[float, float, int]:
    count = len(values)
    return (
        float(values.mean()),
        float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan"),
        count,
    )


def _plain(value):
    """NumPy scalars to Python's; nan, which means that nothing was measured, to a missing value."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and np.isnan(value) else value


def _same(there: dict, now: dict, name: str, of: str = "") -> None:
    """`ValueError` naming the first value that differs, or all techniques that do."""
    if of == " of techniques":
        _same_techniques(there, now, name)
    for key in {**there, **now}:
        old, new = there.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            _same(old, new, name, f" of {key}")
        elif old != new:
            old, new = ("none" if value is None else json.dumps(value)[:80] for value in (old, new))
            raise ValueError(
                f"{name} holds results of another {key}{of}: {old} there, {new} now; give another"
                " place, or delete it"
            )


def _same_techniques(there: dict, now: dict, name: str) -> None:
    """`ValueError` saying what to do about techniques that are only there, or only asked for."""
    old, new = (
        [key for key in one if key not in other] for one, other in ((there, now), (now, there))
    )
    if old:
        all_there = " ".join(key for key in there if key not in FLOORS)
        raise ValueError(
            f"{name} holds results of {', '.join(old)} as well: to go on with it, ask for all that"
            f' it holds, "{all_there}"; or give another place'
        )
    if new:
        raise ValueError(
            f"{name} holds no results of {', '.join(new)}, and what it holds is not measured again:"
            f' to add to it, ask for "{" ".join(new)}" alone, in another place'
        )
