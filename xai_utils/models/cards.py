"""A card says in YAML what must be known to ask a network; it lies beside the weights.

`mine.yaml` beside `mine.keras` holds the keywords of `load_model`; so `model=` in a notebook,
`MODEL=` of make, the explorer and a worker all take the network by the name of its file.

    labels: [healthy, pneumonia]
    preprocessing: unit
    resizing: pad
"""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from xai_utils.engine import DATA_FOLDER, nearest, written_whole

MODELS_FOLDER = DATA_FOLDER / "models"
KEYWORDS = (
    "preprocessing",
    "labels",
    "task",
    "resizing",
    "size",
    "layer",
    "tokens",
    "output",
    "custom_objects",
    "weights",
)
TYPED = ("preprocessing", "labels", "task", "resizing", "size", "layer", "tokens", "output")
# of cards alone: the file of the weights, what is built for it, and the digest it must have
KEYS = ("file", "architecture", "sha256", *KEYWORDS)
SUFFIXES = (".yaml", ".yml")
WEIGHTS = (".keras", ".h5", ".hdf5", ".onnx")


def read_card(path) -> dict:
    """What a card says.

    Args:
        path: of the YAML file; `~` is the home folder.

    Returns:
        Values by key, of `KEYS`; paths of files in it are made whole, from the card's own folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, not `key: value` lines, or an unknown key (the nearest is named).
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no card at {path}")
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name} is not a card in YAML: {reason}") from None
    if not isinstance(said, Mapping):
        raise ValueError(f"{path.name} is not a card: it holds no `key: value` lines")
    for key in said:
        if key not in KEYS:
            raise ValueError(f"{path.name} has an unknown key {key!r}; {nearest(key, KEYS, 1)}")
    said = {key: value for key, value in said.items() if value is not None}
    for key in ("file", "labels", "weights"):
        if isinstance(said.get(key), str) and (key == "file" or said[key] != "imagenet"):
            said[key] = str(path.parent / Path(said[key]).expanduser())
    return said


def find_card(weights: Path) -> Path | None:
    """The card beside a file or folder of weights: the same name, ending in `.yaml` or `.yml`."""
    if not weights.name:
        return None
    plain = [weights.with_suffix(end) for end in SUFFIXES]
    longer = [weights.with_name(weights.name + end) for end in SUFFIXES]
    return next((card for card in (*plain, *longer) if card.is_file()), None)


def weights_of(card: Path, said: Mapping) -> Path:
    """The file a card speaks of: its `file`, or the one that lies beside it under its name.

    Raises:
        FileNotFoundError: neither says which.
        ValueError: several lie beside it.
    """
    if "file" in said:
        return Path(said["file"])
    beside = [card.with_suffix(end) for end in WEIGHTS if card.with_suffix(end).is_file()]
    if not beside and card.with_suffix("").is_dir():
        return card.with_suffix("")
    if len(beside) != 1:
        found = ", ".join(path.name for path in beside)
        if found:
            raise ValueError(f"{card.name}: say which is meant by file:, one of {found}")
        raise FileNotFoundError(
            f"{card.name} says no file:, and there is no {card.stem}.keras or .h5 beside it"
        )
    return beside[0]


def typed(values: Mapping[str, str]) -> dict:
    """Keywords of `load_model` as they are typed in a command or the environment.

    Args:
        values: text by keyword; an empty one was not given. Lists and mappings are written as in a
            card, `[a, b]` and `{to: [0, 1]}`; a size is `224`, or height and width, `48x96`.

    Returns:
        The keywords that were given, with their values.

    Raises:
        ValueError: text that begins as a list or mapping and is none, or a size that is none.

    Example:
        >>> typed({"size": "48x96", "labels": "[healthy, pneumonia]", "task": ""})
        {'size': [48, 96], 'labels': ['healthy', 'pneumonia']}
    """
    read = {}
    for key, text in values.items():
        text = text.strip()
        if key == "size" and text:
            read[key] = _size(text)
        elif text[:1] in ("[", "{"):
            try:
                read[key] = yaml.safe_load(text)
            except yaml.YAMLError:
                raise ValueError(f"{key.upper()}: {text!r} is no list or mapping in YAML") from None
        elif text:
            read[key] = text
    return read


def _size(text: str) -> int | list[int]:
    sides = re.findall(r"\d+", text)
    if not re.fullmatch(r"\d+( ?x ?\d+)?|\[ *\d+ *, *\d+ *\]", text):
        raise ValueError(f"SIZE is a side, or height and width, such as 224 or 48x96, not {text!r}")
    return int(sides[0]) if len(sides) == 1 else [*map(int, sides)]


def placed(source) -> Path:
    """Where a network's file, folder or card is: at its path, or in `data/models/`."""
    path = Path(source).expanduser()
    for place in (path, MODELS_FOLDER / path):
        if place.exists():
            return place
        if not place.suffix and (card := find_card(place)):
            return card
    return path


def files_of(source) -> list[Path]:
    """Every file that a network asked for by file, card or name is made from.

    Weights, card and labels; empty for what is not there and for embedded networks' names.

    Args:
        source: a file of weights, a card, or the name of a card in `data/models/`.

    Returns:
        Paths.
    """
    path = placed(source)
    card = path if path.suffix in SUFFIXES else find_card(path)
    if card is None:
        return [path] if path.exists() else []
    said = read_card(card)
    named = [said[key] for key in ("labels", "weights") if isinstance(said.get(key), str)]
    files = [card, weights_of(card, said), *map(Path, named)]
    return [file for file in dict.fromkeys(files) if file.exists()]


def extended(source, said: Mapping) -> dict:
    """What a card of a network says if more is said of it; its file by its whole path.

    Args:
        source: a file of weights, its card, or the name of a card in `data/models/`.
        said: keywords of `load_model`, which go before what the card says.

    Returns:
        Values by key, of a card's keys.

    Raises:
        FileNotFoundError, ValueError: no such file, or a bad card.
    """
    path = placed(source)
    card = path if path.suffix in SUFFIXES else find_card(path)
    own = read_card(card) if card else {}
    file = weights_of(path, own) if path == card else path
    if not file.exists():
        raise FileNotFoundError(f"no model file at {file}")
    return {**own, **said, "file": str(file.resolve())}


def write_card(path, **said) -> Path:
    """Write a card, whole or not at all; what is None is left out.

    Args:
        path: of the card, `mine.yaml` beside `mine.keras`.
        said: values of `KEYS`.

    Returns:
        The card's path.

    Raises:
        ValueError: an unknown key, a value that YAML cannot hold as plain data, or a preprocessing,
            task or resizing that `load_model` would refuse.
    """
    from xai_utils.models.own import check_said  # it starts Keras, which who reads cards needs not

    for key in said:
        if key not in KEYS:
            raise ValueError(f"a card has no key {key!r}; {nearest(key, KEYS, 1)}")
    kept = {key: value for key, value in said.items() if value is not None}
    try:  # a line for each key, whatever it holds
        text = "".join(f"{key}: {_on_a_line(value)}\n" for key, value in kept.items())
    except yaml.YAMLError as error:
        raise ValueError(f"not for a card: {' '.join(str(error).split())}") from None
    path = Path(path).expanduser()
    check_said(kept, path.name)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _on_a_line(value) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("...\n").strip()


def own_cards() -> list[str]:
    """Names of the user's own networks in `data/models/`, which `load_model` takes."""
    cards = (p for end in SUFFIXES for p in MODELS_FOLDER.glob(f"*{end}"))
    return sorted(card.stem for card in cards if card.stem not in embedded())


def embedded() -> dict[str, dict]:
    """Cards of the networks that come with the suite, by name."""
    cards = {path.stem: read_card(path) for path in sorted(MODELS_FOLDER.glob("*.yaml"))}
    return {name: said for name, said in cards.items() if "architecture" in said}
