"""The pictures of an evaluation: a CSV file with `path`, `label` and boxes, or class folders."""

import csv
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from xai_utils import models, pictures

REQUIRED, BOX = ("path", "label"), ("x_min", "y_min", "x_max", "y_max")
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class Row(NamedTuple):
    """One picture.

    Attributes:
        number: place in the manifest, from 0.
        path: as it stands in the manifest.
        file: where the picture is, or a name that `pictures.load_image` knows.
        label: class index.
        boxes: where the object is, several if there are several of it: each `(x_min, y_min, x_max,
            y_max)` in pixels of the whole picture; none where nobody said.
    """

    number: int
    path: str
    file: str
    label: int
    boxes: tuple[tuple[float, float, float, float], ...]


def read_manifest(path, class_index: Callable[[str | int], int]) -> list[Row]:
    """Read and check a manifest; pictures are opened only where a box must fit them.

    Args:
        path: CSV file with a header: `path` (from the manifest's folder, absolute, or a name of
            `pictures.image_names()`), `label` (name, WordNet id or index) and, optionally, `x_min`,
            `y_min`, `x_max`, `y_max` in pixels; rows may leave the four empty. Where classes are
            called by digits, digits are a name, as everywhere: see `models.class_index`. A picture
            with several boxes has a line for each.
            Or a folder of class folders, as for `keras.utils.image_dataset_from_directory`: each
            has the name of a class, or, where the network's classes have no names and there are as
            many folders, its place in sorted order. Pictures (`pictures.SUFFIXES`) may lie deeper;
            what is hidden is passed over.
        class_index: from such a text, or an index, to an index: `classifier.class_index`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a CSV file, a missing column, no pictures, an unknown label, a picture that
            is listed twice with the same box or another label, or a box that is not one or does not
            lie in its picture; the message names the line. Of a folder: no class folders, or one of
            no class.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _rows_of_folder(path.resolve(), class_index)
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
    rows, listed = {}, {}
    for at, line in lines:
        where = f"{path.name}, line {at}"
        if None in line or None in line.values():
            raise ValueError(
                f"{where}: {len(columns)} columns are needed, one for each of {', '.join(columns)}"
            )
        name = line["path"].strip()
        if not name:
            raise ValueError(f"{where}: the path is empty")
        file = _file(path.parent, name)
        label = _label(line["label"], class_index, where)
        boxes = _boxes(line, file, where)
        if file not in rows:
            rows[file], listed[file] = Row(len(rows), name, file, label, boxes), at
            continue
        first = rows[file]
        if label != first.label or not boxes or not first.boxes or boxes[0] in first.boxes:
            raise ValueError(
                f"{where}: {name} is listed already, in line {listed[file]}; a second line gives"
                " another box with the same label"
            )
        rows[file] = first._replace(boxes=first.boxes + boxes)
    return [*rows.values()]


def _rows_of_folder(folder: Path, class_index) -> list[Row]:
    rows = []
    for name, label in _classes_of_folders(folder, class_index).items():
        for file in _pictures_in(folder / name):
            shown = file.relative_to(folder).as_posix()
            rows.append(Row(len(rows), shown, str(file), label, ()))
    if not rows:
        raise ValueError(
            f"the class folders of {folder.name} hold no pictures ({' '.join(pictures.SUFFIXES)})"
        )
    return rows


def _classes_of_folders(folder: Path, class_index) -> dict[str, int]:
    """Class indices by the names of class folders, which are sorted as Keras sorts them.

    A network that was trained on the folders without keeping their names has classes 0 to n - 1 in
    sorted order; there, folders called by numbers are only taken where both agree.
    """
    names = models.read_labels(folder)
    count = _classes_without_names(class_index)
    labels = {}
    for place, name in enumerate(names):
        where = f"{folder.name}/{name}"
        try:
            labels[name] = class_index(name)
        except ValueError as error:
            if count is None:
                raise ValueError(f"{where}: {error}") from None
            if count != len(names):
                raise ValueError(
                    f"{folder.name} has {len(names)} class folders, but the network has {count}"
                    " classes without names: say how they are called, LABELS= of make evaluate"
                ) from None
            labels[name] = place
        if count == len(names) and labels[name] != place:
            raise ValueError(
                f"{where}: is it class {labels[name]}, as it is called, or {place}, as Keras sorts"
                f" folders? say LABELS=, a file of names for the former, {folder} for the latter"
            )
    return labels


def _classes_without_names(class_index) -> int | None:
    """How many classes there are if they are called `class 0`, `class 1`, ..., else None."""
    count = 0
    try:
        while class_index(f"class {count}") == count:
            count += 1
    except ValueError:
        pass
    try:
        class_index(count)
    except ValueError:
        return count or None
    return None


def _pictures_in(folder: Path) -> list[Path]:
    """Files that are called as pictures, in the order in which Keras finds them."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            (root, name)
            for name in files
            if name.lower().endswith(pictures.SUFFIXES) and not name.startswith(".")
        ]
    return [Path(root, name) for root, name in sorted(found)]


def digest(rows: list[Row]) -> str:
    """Of what the rows say; where the pictures lie does not matter."""
    text = "\n".join(repr((row.path, row.label, *(row.boxes or (None,)))) for row in rows)
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


def _boxes(line: dict, file: str, where: str) -> tuple[tuple[float, float, float, float], ...]:
    """The box of a line, or none."""
    texts = [(line.get(column) or "").strip() for column in BOX]
    if not any(texts):
        return ()
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
    return (box,)


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
