"""What a report is found by: words, the techniques it uses, its pictures and its networks.

Light on purpose: the index asks it about every run.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from xai_suite.reports import reading
from xai_suite.reports.staleness import texts
from xai_utils.attribution import NAMES, spoken
from xai_utils.pictures import PICTURES, SUFFIXES

CONTROLS = {"random", "edges", "centre"}  # compared with everywhere, looked for by nobody
TECHNIQUES = [name for name in NAMES if name not in CONTROLS]
OF_PICTURES = [name for name in TECHNIQUES if name != "d_rise"]  # `attribution.TECHNIQUES`
IMAGES, NETWORKS = {"image", "images"}, {"model", "models", "detector"}  # parameters that name them
NO_NETWORK = {None, "", "default"}  # a summary's: the default set of reports
IN_CAPITALS = {"cam": "CAM"}

_USED = re.compile(r"""attribution\.(\w+)|["'](\w+)(?::[^"']*)?["']|^from .* import (.*)$""", re.M)
_LEFT_OUT = re.compile(r"(?:^left out: |; )([\w, ]+) \(")  # as `attribution.left_out` says it
_IN_A_TABLE = re.compile(r"^ *(\w+)(?::\S+)?  ", re.M)


def topic(notebook: str) -> str:
    """What a notebook is about, for people: `21_grad_cam` is about Grad-CAM, `25_gallery` Gallery.

    Args:
        notebook: its name; a number before it is left out.
    """
    name = re.sub(r"^\d+_", "", notebook)
    words = [IN_CAPITALS.get(word, word) for word in spoken(name).split()]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def techniques(name: str, notebook: dict) -> list[str]:
    """Techniques, by their names in code, that a run is about, calls, is given or prints a row of.

    Args:
        name: of the run; its notebook may be called after a technique.
        notebook: executed, as `reading.read_notebook` gives it.
    """
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    source = "\n".join(cell["source"] for cell in code)
    outputs = [output for cell in code for output in cell.get("outputs", [])]
    printed = "\n".join(output.get("text", "") for output in outputs)
    if "TECHNIQUES.items()" in source:
        lines = [line for line in printed.splitlines() if line.startswith("left out: ")]
        without = {
            name
            for line in lines
            for names in _LEFT_OUT.findall(line)
            for name in names.split(", ")
        }
        return [name for name in OF_PICTURES if name not in without]
    given = texts(reading.about(notebook).get("parameters") or {})
    found = {re.sub(r"^\d+_", "", name.partition("--")[0])}
    found |= {text.partition(":")[0] for text in given}
    for match in _USED.findall(source):
        found.update(re.findall(r"\w+", " ".join(match)))
    found |= set(_IN_A_TABLE.findall(printed))
    return [technique for technique in TECHNIQUES if technique in found]


def pictures(notebook: dict) -> list[str]:
    """Pictures that a run was given, by their names or, of a path, by their file's name."""
    given = reading.about(notebook).get("parameters") or {}
    found = [text for key, text in named(given) if key in IMAGES or is_picture(text)]
    return [*dict.fromkeys(map(file_name, found))]


def files(given: dict) -> list[str]:
    """Pictures and networks among a run's parameters that are files or folders, as they are given.

    What `pictures` has no picture of that name for is a file; a network is one by its path.
    """
    return [
        text
        for key, text in named(given)
        if (key in IMAGES and text not in PICTURES)
        or (key in NETWORKS and (Path(text).suffix or "/" in text))
    ]


def is_picture(text: str) -> bool:
    return text in PICTURES or Path(text).suffix.lower() in SUFFIXES


def named(given: dict) -> list[tuple[str, str]]:
    """(name, text) of all texts among parameters, as they stand there."""
    return [(key, text) for key, value in given.items() for text in in_order(value) if text]


def network(notebook: dict) -> str:
    """The network that a run asked, by its name or its file's, or nothing.

    A run that reads results says whose they are, see `show.used`: that counts, not its parameter.
    """
    found = reading.used(notebook).get("model") or reading.about(notebook).get("model")
    return file_name(str(found or ""))


def networks(notebook: dict) -> list[str]:
    """All networks that a run asked, as `network` names them."""
    given = reading.about(notebook).get("parameters") or {}
    first, other = network(notebook), file_name(str(reading.about(notebook).get("model") or ""))
    found = [file_name(text) for key, text in named(given) if key in NETWORKS]
    instead = {other} - {first}  # a parameter that the results of another network took no part in
    return [*dict.fromkeys(name for name in [first, *found] if name not in NO_NETWORK | instead)]


def in_order(value) -> list[str]:
    """The texts in a parameter's value, as they stand there."""
    inside = value if isinstance(value, (list, tuple)) else [value]
    return [text for text in inside if isinstance(text, str)]


def file_name(text: str) -> str:
    """Of a path its last part, as people call a file; any other text stays."""
    last = text.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return last or text


def searchable(parts: Iterable[str]) -> str:
    """Words to look for in: `Grad-CAM++` as `grad cam plus plus`.

    Lower case, without accents, with a space for whatever is neither letter nor digit: `grad_cam`,
    `grad cam` and `Grad-CAM` are the same. The page's script does the same to what is typed.
    """
    text = " ".join(parts).replace("++", " plus plus ").replace("×", " x ")
    plain = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return re.sub(r"[\W_]+", " ", plain).strip()


def words(name: str, notebook: dict) -> list[str]:
    """What a run is called and was given, techniques also as people write them: `SmoothGrad`."""
    given = texts(reading.about(notebook).get("parameters") or {})
    known = [re.sub(r"^\d+_", "", name.partition("--")[0])]
    known = [text for text in [*known, *(text.partition(":")[0] for text in sorted(given))]]
    spelled = [spoken(text) for text in known if text in NAMES]
    spelled += [text.replace("_", "") for text in known if text in NAMES]  # as some type it
    return [name, *spelled, *map(file_name, sorted(given)), *networks(notebook)]
