"""Results of an evaluation: a folder of Parquet files, each of some techniques on a few pictures.

Any reader of Parquet takes the folder as one table. A part is written under another name and
renamed: it is whole or not there, so an evaluation that was killed goes on where it was. What the
results were made with stands beside them; techniques may be added, other values may not.
"""

import contextlib
import hashlib
import json
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from xai_utils import __version__
from xai_utils.attribution import parse
from xai_utils.engine import written_whole

FORMAT = 3  # raised when a metric's definition changes: older results are then not gone on with
ABOUT = "_evaluation.json"  # readers of Parquet pass over names that begin with _ or .
DIGESTS = ("manifest", "weights")  # of what is too long to be said
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
        about: what the results depend on, JSON values by name. The `techniques` of its `plan`, and
            what was `left_out` of them, may be others than before: what is there already is kept.

    Raises:
        ValueError: the folder holds something else, or results made with other values; the message
            says which.
        OSError: it cannot be written.
    """

    def __init__(self, folder, about: dict):
        self.folder = Path(folder).expanduser()
        about = json.loads(json.dumps({"format": FORMAT, "version": __version__, **about}))
        self.about, self.measured = about, defaultdict(set)
        others = (
            [path for path in self.folder.iterdir() if ABOUT not in path.name]
            if self.folder.is_dir()
            else []
        )
        parts = _parts(self.folder)
        if parts:
            self._check()
        elif others or (self.folder.exists() and not self.folder.is_dir()):
            raise ValueError(
                f"{self.folder.name} is there already and holds no evaluation: give another name"
            )
        for part in parts:
            self.measured[int(part.name.split("-")[1])].update(_techniques_of(part))
        self.added = False
        if not parts:  # else what is there keeps its note until this call has succeeded
            self._say()

    def _say(self) -> None:
        with self._written(self.folder / ABOUT) as temporary:
            temporary.write_text(json.dumps(self.about, indent=1) + "\n", encoding="utf-8")

    def finish(self) -> None:
        """Say that the techniques of this call are those that were asked for last.

        Where nothing was added, a folder that cannot be written stays as it is.
        """
        if read_about(self.folder) == self.about:
            return
        try:
            self._say()
        except OSError:
            if self.added:
                raise

    def _check(self) -> None:
        """Refuse to add to results of other values, by an earlier evaluation or one beside this."""
        _same(_fixed(read_about(self.folder)), _fixed(self.about), self.folder.name)

    def missing(self, number: int, techniques: Iterable[str]) -> list[str]:
        """Those of the techniques that no part with this number has."""
        return [technique for technique in techniques if technique not in self.measured[number]]

    def write(self, number: int, techniques: Iterable[str], rows: list[dict]) -> None:
        """Write a part, some techniques on the pictures of a chunk, whole or not at all."""
        import pyarrow as pa
        from pyarrow import parquet

        self._check()
        said = json.dumps(sorted(techniques))
        schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
        table = pa.table(
            {name: [_plain(row.get(name)) for row in rows] for name in COLUMNS},
            schema=schema.with_metadata({"techniques": said}),
        )
        name = f"part-{number:06}-{hashlib.sha256(said.encode()).hexdigest()[:8]}.parquet"
        with self._written(self.folder / name) as temporary:
            parquet.write_table(table, temporary)
        self.measured[number].update(techniques)
        self.added = True

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


def read(folder, techniques: str | Sequence[str] | None = None):
    """All rows of an evaluation so far, a `pyarrow.Table`.

    They are in the order of the manifest, and of the techniques; what is kept of others is passed
    over. A picture that could not be read or measured has one row, with its `error`; if it could
    when other techniques were measured, each that lacks it has one.

    Args:
        folder: as `evaluate` returns it.
        techniques: as `evaluate` takes them; default those of its last call that succeeded.

    Raises:
        FileNotFoundError: no evaluation there.
        ValueError: no such technique.
    """
    folder = Path(folder).expanduser()
    about = read_about(folder)
    asked = [*(about["plan"]["techniques"] if techniques is None else parse(techniques))]
    parts = _parts(folder)
    if not parts:
        raise FileNotFoundError(f"{folder.name} holds no results yet")
    import pyarrow as pa
    from pyarrow import parquet

    tables = [parquet.read_table(part) for part in parts]
    of_part = [
        names
        for part, table in zip(parts, tables)
        for names in [_techniques_of(part)] * table.num_rows
    ]
    table = pa.concat_tables(tables).replace_schema_metadata()
    found, measured = {}, set()
    for row, (number, technique) in enumerate(
        zip(*(table[name].to_pylist() for name in ("number", "technique")))
    ):
        if technique in asked:
            measured.add(number)
        for name in [technique] if technique else of_part[row]:
            if name in asked:
                found[number, asked.index(name)] = row
    places = {}  # -1 stands for all techniques
    for (number, place), row in sorted(found.items()):
        places.setdefault((number, place if number in measured else -1), row)
    names = [None if place < 0 else asked[place] for _, place in places]
    return table.take([*places.values()]).set_column(
        table.column_names.index("technique"),
        table.schema.field("technique"),
        pa.array(names, pa.string()),
    )


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _techniques_of(part: Path) -> list[str]:
    from pyarrow import parquet

    return json.loads(parquet.read_schema(part).metadata[b"techniques"])


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


def _fixed(about: dict) -> dict:
    """What all results of a folder have in common."""
    varies = ("techniques", "left_out")
    plan = {name: value for name, value in about.get("plan", {}).items() if name not in varies}
    return {**about, "plan": plan}


def _same(there: dict, now: dict, name: str) -> None:
    """`ValueError` naming the first value that differs."""
    for key in {**there, **now}:
        old, new = there.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            _same(old, new, name)
        elif old != new:
            what = f"another {key}"
            if key not in DIGESTS:
                what = f"{key} {_words(old)}, not {_words(new)}"
            raise ValueError(f"{name} holds results of {what}; give another place, or delete it")


def _words(value) -> str:
    """A value in words, never cut in the middle of one."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        text = " ".join(value)
    else:
        text = "none" if value is None else json.dumps(value)
    return textwrap.shorten(text, 200, placeholder=" ...")
