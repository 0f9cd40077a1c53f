"""The list of pictures of an evaluation: a CSV file with `path`, `label` and the object's box."""

import csv
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from xai_utils import pictures

REQUIRED, BOX = ("path", "label"), ("x_min", "y_min", "x_max", "y_max")
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class Row(NamedTuple):
    """One picture.

    Attributes:
        number: place in the manifest, from 0.
        path: as it stands in the manifest.
        file: where the picture is, or a name that `pictures.load_image` knows.
        label: class index.
        box: `(x_min, y_min, x_max, y_max)` in pixels of the whole picture, or None.
    """

    number: int
    path: str
    file: str
    label: int
    box: tuple[float, float, float, float] | None


def read_manifest(path, class_index: Callable[[str], int]) -> list[Row]:
    """Read and check a manifest; pictures are opened only where a box must fit them.

    Args:
        path: CSV file with a header: `path` (from the manifest's folder, absolute, or a name of
            `pictures.image_names()`), `label` (name, WordNet id or index) and, optionally, `x_min`,
            `y_min`, `x_max`, `y_max` in pixels; rows may leave the four empty. Where classes are
            called by digits, digits are a name, as everywhere: see `models.class_index`.
        class_index: from such a text to an index, `classifier.class_index`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a CSV file, a missing column, no pictures, an unknown label, a picture that
            is listed twice, or a box that is not one or does not lie in its picture; the message
            names the line.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no manifest at {path}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = columns = _columns(reader.fieldnames, path.name)
            lines = [(reader.line_num, line) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path.name} is not a CSV file: {error}") from None
    if not lines:
        raise ValueError(f"{path.name} lists no pictures")
    rows, seen = [], {}
    for number, (at, line) in enumerate(lines):
        where = f"{path.name}, line {at}"
        if None in line or None in line.values():
            raise ValueError(
                f"{where}: {len(columns)} columns are needed, one for each of {', '.join(columns)}"
            )
        name = line["path"].strip()
        if not name:
            raise ValueError(f"{where}: the path is empty")
        file = _file(path.parent, name)
        if file in seen:
            raise ValueError(f"{where}: {name} is listed already, in line {seen[file]}")
        seen[file] = at
        rows.append(
            Row(
                number,
                name,
                file,
                _label(line["label"], class_index, where),
                _box(line, file, where),
            )
        )
    return rows


def digest(rows: list[Row]) -> str:
    """Of what the rows say; where the pictures lie does not matter."""
    text = "\n".join(repr((row.path, row.label, row.box)) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _columns(header, name) -> list[str]:
    columns = [column.strip() for column in header or ()]
    partly = any(column in columns for column in BOX)
    for column in (*REQUIRED, *(BOX if partly else ())):
        if column not in columns:
            hint = " (commas separate columns)" if ";" in "".join(columns) else ""
            raise ValueError(
                f"{name} has no column {column!r}; it has: {', '.join(columns) or 'nothing'}{hint}"
            )
    return columns


def _file(folder: Path, name: str) -> str:
    return name if name in pictures.PICTURES else str((folder / Path(name).expanduser()).resolve())


def _label(text: str, class_index, where: str) -> int:
    try:
        return class_index(text.strip())
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _box(line: dict, file: str, where: str):
    texts = [(line.get(column) or "").strip() for column in BOX]
    if not any(texts):
        return None
    try:
        box = tuple(float(text) for text in texts)
    except ValueError:
        box = (math.nan,)
    if not all(map(math.isfinite, box)):
        raise ValueError(
            f"{where}: a box is four numbers or nothing, not {', '.join(map(repr, texts))}"
        )
    size = _size(file)
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        raise ValueError(
            f"{where}: the box {box} is empty: x_min < x_max and y_min < y_max are needed"
        )
    if left < 0 or top < 0 or (size and (right > size[0] or bottom > size[1])):
        shown = f"{size[0]} x {size[1]} pixels" if size else "which begins at 0, 0"
        raise ValueError(f"{where}: the box {box} reaches outside the picture, {shown}")
    return box


def _size(file: str) -> tuple[int, int] | None:
    """Width and height from the file's head; None where it cannot be read: its row will say so."""
    try:
        if file in pictures.PICTURES:
            return pictures.load_image(file).shape[1::-1]
        with Image.open(file) as image:
            turned = image.getexif().get(0x0112) in TURNED
            return image.size[::-1] if turned else image.size
    except Exception:  # decoders raise anything
        return None
