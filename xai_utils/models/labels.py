"""Class names: ImageNet's thousand, and those of a user's own model."""

import difflib
import functools
import json
import re
import weakref
from pathlib import Path

from xai_utils.engine import DATA_FOLDER

_NAMES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_TABLE = DATA_FOLDER / "imagenet_classes.json"


@functools.cache
def _imagenet() -> dict[str, list[str]]:
    return json.loads(_TABLE.read_text(encoding="utf-8"))


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """The 1000 ImageNet names in the order of the logits. `crane` and `maillot` occur twice."""
    return tuple(_imagenet()[str(i)][1] for i in range(1000))


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids, such as `n02124075`, in the order of the logits."""
    return tuple(_imagenet()[str(i)][0] for i in range(1000))


@functools.cache
def coco_labels() -> tuple[str, ...]:
    """COCO's 80 names in the columns of their ids, 1 to 90.

    `background` is in column 0; an id without a name, such as 12, is `unused 12`.
    """
    names = json.loads((DATA_FOLDER / "coco_classes.json").read_text(encoding="utf-8"))
    return ("background", *(names.get(str(i), f"unused {i}") for i in range(1, 91)))


def class_index(
    name: str | int, labels: tuple[str, ...], wnids: tuple[str, ...] | None = None
) -> int:
    """The index of a class given by index, name or WordNet id.

    A number is always an index. A text is a name, in which case, spaces and hyphens do not matter;
    one of digits, `"281"` or the `"281.0"` of a table, is an index where no class is called so.

    Raises:
        ValueError: an index out of range, an unknown name (the nearest are given), or one that two
            classes share (their indices are given).
    """
    if not isinstance(name, str):
        if isinstance(name, bool) or name not in range(len(labels)):
            raise ValueError(
                f"class {name!r} is out of range: there are classes 0 to {len(labels) - 1}"
            )
        return int(name)
    if wnids and name in wnids:
        return wnids.index(name)
    plain = [_plain(label) for label in labels]
    matches = [i for i, label in enumerate(plain) if label == _plain(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        which = ", ".join(f"{i} ({wnids[i]})" if wnids else str(i) for i in matches)
        raise ValueError(
            f"{name!r} is the name of {len(matches)} classes: give an index or WordNet id, one of"
            f" {which}"
        )
    if digits := re.fullmatch(r"(\d+)(\.0*)?", name.strip()):
        # What a table made 3.0 of may be a name as well.
        return class_index(digits[1] if digits[2] else int(digits[1]), labels, wnids)
    near = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.5)
    nearest = ", ".join(labels[plain.index(known)] for known in near) or "none"
    raise ValueError(f"no class is called {name!r}; nearest: {nearest}")


def name_classes(model, names: tuple[str, ...]) -> None:
    """Remember a model's class names as long as it lives, so that a target can be a name."""
    _NAMES[model] = tuple(names)


def model_class(model, name: str | int) -> int:
    """The index of a class of a model; see `class_index`.

    Raises:
        ValueError: as `class_index`, and a model whose classes have no names.
    """
    if model not in _NAMES:
        raise ValueError(
            f"the classes of {model.name} have no names here, so {name!r} means none: give its"
            " index"
        )
    names = _NAMES[model]
    return class_index(name, names, imagenet_wnids() if names == imagenet_labels() else None)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip()).lower()


def read_labels(path) -> tuple[str, ...]:
    """Class names from a user's file: `.json` with a list or `{index: name}`, else one name a line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not readable as class names.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no label file at {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows begin a file with a mark
        if path.suffix.lower() == ".json":
            names = json.loads(text)
            if isinstance(names, dict):
                names = [names[str(i)] for i in range(len(names))]
        else:
            names = [line.strip() for line in text.strip().splitlines()]
            if "" in names:
                blank = names.index("") + 1
                raise ValueError(
                    f"{path.name}: line {blank} is blank, which would shift the classes below it"
                )
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path.name} is not a label file: {error}") from None
    except KeyError as missing:
        raise ValueError(
            f"{path.name}: class {missing} has no name; a JSON object must name 0, 1, 2, ..."
        ) from None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path.name} holds no list of class names")
    return tuple(names)
