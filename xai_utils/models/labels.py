"""Class names: ImageNet's thousand, and those of a user's own model."""

import functools
import json
import os
import re
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path

from xai_utils.engine import DATA_FOLDER, check_model, nearest

_NAMES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_TABLE = DATA_FOLDER / "imagenet_classes.json"
_INDEXED = re.compile(r"(\d+)(\s*[:,]\s*|\s+)(\S.*)")  # a line such as `0 cat`, `0: cat`, `0,cat`


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

    Args:
        name: what was given.
        labels: one name for each class.
        wnids: one WordNet id for each class, if they are known.

    Returns:
        The index, from 0.

    Raises:
        ValueError: an index out of range, an unknown name (the nearest are given), or one that two
            classes share (their indices are given).

    Example:
        >>> class_index("Tiger Cat", ("tabby", "tiger_cat"))
        1
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
    raise ValueError(f"no class is called {name!r}; {nearest(_plain(name), labels)}")


def name_classes(model, names: tuple[str, ...]) -> None:
    """Remember a model's class names as long as it lives, so that a target can be a name.

    Args:
        model: a Keras model.
        names: one for each class.

    Raises:
        ValueError: not a Keras model.
    """
    check_model(model)
    _NAMES[model] = tuple(names)


def class_names(model) -> tuple[str, ...]:
    """A model's class names, of `load_model` or `name_classes`; empty if it has none.

    Args:
        model: a Keras model.

    Returns:
        One name for each class, in the order of the scores.

    Raises:
        ValueError: not a Keras model.
    """
    check_model(model)
    return _NAMES.get(model, ())


def model_class(model, name: str | int) -> int:
    """The index of a class of a model, given by index, name or WordNet id.

    Args:
        model: one of `load_model`, or one that `name_classes` has seen.
        name: what was given; WordNet ids, such as `n02124075`, for ImageNet's classes.

    Returns:
        The index, from 0.

    Raises:
        ValueError: an index out of range, an unknown name (the nearest are given), one that two
            classes share (their indices are given), or a model whose classes have no names.
    """
    check_model(model)
    if model not in _NAMES:
        raise ValueError(
            f"the classes of {model.name} have no names here, so {name!r} means none: give its"
            " index"
        )
    names = _NAMES[model]
    return class_index(name, names, imagenet_wnids() if names == imagenet_labels() else None)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip()).lower()


def read_labels(source) -> tuple[str, ...]:
    """Class names in the order of the scores, however a user keeps them.

    Args:
        source: one of
            - a list or tuple of names;
            - a mapping `{index: name}` or `{name: index}`, such as Keras' `class_indices`;
            - a text file in UTF-8, one name a line, or lines `0 cat`, `0: cat` or `0,cat` in any
              order, if all begin with a number, 0 to n - 1 each once (Teachable Machine's
              `labels.txt`);
            - a `.json` file with such a list or mapping;
            - a folder of class folders, sorted by name as by
              `keras.utils.image_dataset_from_directory`;
            - `"imagenet"` for ImageNet's 1000.

    Two classes may have one name: ImageNet has `crane` twice.

    Returns:
        One name for each class, without spaces around it.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: not readable as class names: an index that is missing or given twice, a blank
            line, a name that is not text, no names at all.

    Example:
        >>> read_labels({"pneumonia": 1, "healthy": 0})
        ('healthy', 'pneumonia')
    """
    if isinstance(source, list | tuple):
        return _names(source, "labels")
    if isinstance(source, Mapping):
        return _in_order(source.items(), "labels")
    if not isinstance(source, str | os.PathLike):
        raise ValueError(
            "labels are a list of names, a mapping, a file or a folder of class folders, not a"
            f" {type(source).__name__}"
        )
    if source == "imagenet":
        return imagenet_labels()
    path = Path(source).expanduser()
    if path.is_dir():
        return tuple(_class_folders(path))
    if not path.is_file():
        raise FileNotFoundError(f"no label file at {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows begin a file with a mark
        if path.suffix.lower() != ".json":
            return _of_lines(text.rstrip().split("\n"), path.name)
        # A tuple is an object here, so that what is given twice does not get lost; a list a list.
        found = json.loads(text, object_pairs_hook=tuple)
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not a label file: it is not text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not a label file: {error}") from None
    if isinstance(found, tuple):
        return _in_order(found, path.name)
    if not isinstance(found, list):
        raise ValueError(f"{path.name} holds no list of class names, but {found!r}")
    return _names(found, path.name)


def _class_folders(folder: Path) -> list[str]:
    """Names of the class folders in a folder, sorted as Keras sorts them; hidden ones are no class.

    Raises:
        ValueError: there are none.
    """
    found = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not found:
        raise ValueError(f"{folder} has no class folders")
    return found


def _of_lines(lines: list[str], where: str) -> tuple[str, ...]:
    """Class names of the lines of a text file."""
    lines = [line.strip() for line in lines]
    if lines != [""] and "" in lines:
        raise ValueError(
            f"{where}: line {lines.index('') + 1} is blank, which would shift the classes below it"
        )
    found = [_INDEXED.fullmatch(line) for line in lines]
    if all(found):
        numbers = {int(match[1]) for match in found}
        # Names may begin with numbers (`2 doors`, `4 doors`); a list of names that has `0 doors` as
        # well, but not 0 to n - 1, is likelier to be an index gone wrong.
        if 0 in numbers or all(match[2].strip() for match in found):
            hint = "; names that begin with a number can stand in a JSON list"
            return _in_order(((int(match[1]), match[3]) for match in found), where, hint)
    return _names(lines, where)


def _in_order(pairs: Iterable[tuple], where: str, hint: str = "") -> tuple[str, ...]:
    """Class names of pairs `(index, name)`, or of pairs `(name, index)`."""
    pairs = list(pairs)
    if all(_is_index(index) and isinstance(name, str) for name, index in pairs):
        pairs = [(index, name) for name, index in pairs]
    for index, _ in pairs:
        if not _is_index(index) and not (isinstance(index, str) and index.strip().isdecimal()):
            raise ValueError(f"{where}: a class has the index {index!r}; it must be 0, 1, 2, ...")
    indices = [int(index) for index, _ in pairs]
    twice = [index for index, count in Counter(indices).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: two classes have the index {twice[0]}{hint}")
    missing = set(range(len(pairs))) - set(indices)
    if missing:
        raise ValueError(
            f"{where}: class {min(missing)} has no name; {len(pairs)} names need the indices 0 to"
            f" {len(pairs) - 1}{hint}"
        )
    names = dict(zip(indices, (name for _, name in pairs)))
    return _names([names[index] for index in range(len(names))], where)


def _is_index(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _names(found: list | tuple, where: str) -> tuple[str, ...]:
    """What was found as class names, if each is one."""
    for index, name in enumerate(found):
        if not isinstance(name, str):
            raise ValueError(f"{where}: the name of class {index} is not text, but {name!r}")
    if not any(found):
        raise ValueError(f"{where} holds no list of class names: it is empty")
    for index, name in enumerate(found):
        if not name.strip():
            raise ValueError(f"{where}: the name of class {index} is blank")
    return tuple(name.strip() for name in found)
