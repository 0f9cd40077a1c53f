"""A run is a notebook and a YAML file with some of its parameters, checked before it starts."""

import contextlib
import difflib
import hashlib
import os
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from xai_suite.reports.reading import declared, one_line
from xai_utils import models

# Commands run in the project's folder.
NOTEBOOKS, RUNS = Path("notebooks"), Path("reports/runs")

KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    type(None): "null",
}


class RunError(Exception):
    """What is wrong with a run, in one line for whoever asked for it."""


@dataclass(frozen=True)
class Run:
    name: str  # 21_grad_cam--umbrella
    notebook: Path
    title: str
    defaults: dict[str, Any]  # the notebook's own
    given: dict[str, Any]  # what the run file (or the command) sets, MODEL among it
    written: dict[str, Any]  # what the run file (or the command for one report) says
    settings: dict[str, Any]  # the notebook's metadata "report", such as {"cell_limit": 1200}

    @property
    def parameters(self) -> dict[str, Any]:
        return {**self.defaults, **self.given}

    @property
    def changed(self) -> dict[str, Any]:
        return {key: value for key, value in self.given.items() if value != self.defaults[key]}


def nearest(word: str, known) -> str:
    """'; did you mean x?', or nothing when nothing is near."""
    known = list(known)
    inside = [name for name in known if word and word in name]
    close = difflib.get_close_matches(word, known, n=1) or inside[:3]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def read_run_file(path: Path) -> dict[str, Any]:
    """The parameters in a run file: one flat YAML mapping, no key twice."""

    try:
        text = path.read_text(encoding="utf-8")
        keys, found = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1 if mark else '?'}"
        raise RunError(f"{path}: {where}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not YAML text: {one_line(error)}") from None
    except OSError as error:
        raise RunError(f"{path}: {error.strerror.lower()}") from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise RunError(f"{path}: a run file is a mapping like 'steps: 32', one parameter a line")
    seen = set()
    for key, _ in keys.value:
        if key.value in seen:
            line = key.start_mark.line + 1
            raise RunError(f"{path}: line {line}: '{key.value}' is given twice")
        seen.add(key.value)
    return found


def find_notebook(name: str, asked_by: str) -> Path:
    path = NOTEBOOKS / f"{name}.ipynb"
    if not path.is_file():
        near = nearest(name, sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb")))
        raise RunError(f"{asked_by}: there is no notebook '{name}'{near or f'; see {NOTEBOOKS}/'}")
    return path


def read_notebook(path: Path):
    import nbformat  # takes longer than all else here

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise RunError(f"{path}: not a notebook: {one_line(error)}") from None


def default_parameters(notebook, path: Path) -> dict[str, Any]:
    """Names and values of the cell tagged `parameters`.

    Literals only, so that nothing has to be run to know them.
    """
    try:
        return {name: default for name, (default, _) in declared(notebook).items()}
    except (SyntaxError, ValueError, AttributeError, TypeError):
        text = "may only set names to literals, like 'steps = 32  # path points'"
        raise RunError(f"{path}: the cell tagged 'parameters' {text}") from None


def check_value(where: str, key: str, value: Any, default: Any) -> Any:
    """The value, if it is of the kind of the default; else an error says what would be."""
    if not isinstance(value, tuple(KINDS)):
        raise RunError(
            f"{where}: {key}: {value} is a {type(value).__name__}; put it in quotes to make it text"
        )
    wanted, got = type(default), type(value)
    if default is None or got is wanted or (wanted, got) in {(float, int), (tuple, list)}:
        return value
    hint = ""
    if wanted is float and got is str:
        with contextlib.suppress(ValueError):
            hint = f" (YAML reads '{value}' as text: write {float(value)!r})"
    raise RunError(
        f"{where}: {key} must be {KINDS[wanted]} like {default!r}, not {value!r}"
        f" ({KINDS[got]}){hint}"
    )


def make_run(name: str, given: dict[str, Any], where: str) -> Run:
    """Check the given parameters against the notebook's own and return the run."""
    notebook, _, variant = name.partition("--")
    if not (notebook and variant):
        raise RunError(f"{where}: a run file is named <notebook>--<run>.yaml")
    path = find_notebook(notebook, where)
    source = read_notebook(path)
    defaults = default_parameters(source, path)
    for key, value in given.items():
        if key not in defaults:
            has = f"it has {', '.join(defaults)}" if defaults else "it has none"
            raise RunError(
                f"{where}: '{key}' is not a parameter of"
                f" {notebook}{nearest(key, defaults) or f'; {has}'}"
            )
        check_value(where, key, value, defaults[key])
    text = "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
    titles = [line[2:].strip() for line in text.splitlines() if line.startswith("# ")]
    return Run(
        name,
        path,
        (titles or [notebook])[0],
        defaults,
        given,
        given,
        dict(source.metadata.get("report", {})),
    )


def of_file(name: str, model: str | None = None) -> Run:
    """The run of a run file in `reports/runs`, with another model if its notebook takes one."""
    path = RUNS / f"{name}.yaml"
    run = make_run(name, read_run_file(path), str(path))
    if model and "model" in run.defaults:
        return replace(run, given={**run.given, "model": model})
    return run


def from_notebooks(value: str) -> str:
    """A file's path as seen from notebooks/, where kernels run; any other text stays."""
    for base in (typed_in(), Path()):
        path = (base / Path(value).expanduser()).resolve()
        if value and (path.is_file() or (path / "saved_model.pb").is_file()):
            return Path(os.path.relpath(path, NOTEBOOKS.resolve())).as_posix()
    return value


def asked_model() -> str:
    """`MODEL`; with what else is said of it (`PREPROCESSING`, `LABELS`, ...) a card that says so.

    The card lies in the build folder, under the digest of what it says.

    Raises:
        RunError: such words without a model, or a network that cannot have them.
    """
    model = os.environ.get("MODEL") or ""
    try:
        said = models.typed({key: os.environ.get(key.upper(), "") for key in models.TYPED})
        if not said:
            return model
        if not model:
            raise RunError(f"{next(iter(said)).upper()} describes your own network: say MODEL= too")
        if isinstance(said.get("labels"), str):
            said["labels"] = where_typed(said["labels"])
        card = models.extended(where_typed(model), said)
        folder = place() / "build" / "models" / digest_of(repr(card))
        return str(models.write_card(folder / f"{Path(model).stem}.yaml", **card).resolve())
    except (ValueError, OSError) as error:
        raise RunError(str(error)) from None


def where_typed(value: str) -> str:
    """The whole path of what lies where the command was typed; any other text stays."""
    path = typed_in() / Path(value).expanduser()
    return str(path.resolve()) if value and path.exists() else value


def typed_in() -> Path:
    """Where the user typed the command, which `make -C` makes another place than ours."""
    return Path(os.environ.get("PWD", "."))


def in_a_name(words: str) -> str:
    """These words as part of a file's name; if they are more than it can say, with their digest.

    A path is told by its last part and the digest of the whole: two pictures called `001.png` are
    two reports.
    """
    seen = from_notebooks(words)
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", words if seen == words else Path(words).stem)
    plain = plain.strip("-.")
    whole = plain == seen or re.fullmatch(r"\w+=[\w.]+", seen, re.ASCII)
    return (
        plain if whole and len(plain) <= 40 else f"{plain[:31]}-{digest_of(seen)[:8]}".strip("-.")
    )


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def place() -> Path:
    """Where reports are made: `OUT` or `reports`."""
    asked = os.environ.get("OUT")
    return typed_in() / Path(asked).expanduser() if asked else Path("reports")


def folders(subject: str) -> tuple[Path, Path]:
    """Where executed notebooks and where pages go, in `OUT` or `reports`; both are made.

    Args:
        subject: what they are about, `default`, a model or `one-off`; the default's pages lie at
            the top of the site.

    Raises:
        RunError: they cannot be written.
    """
    pages = Path() if subject == "default" else Path(subject)
    try:
        return writable(place() / "build" / subject), writable(place() / "site" / pages)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        where = os.environ.get("OUT") or place()
        problem = f"{where} cannot be written ({why}): say OUT=, a folder that can"
        raise RunError(problem) from None


def writable(folder: Path) -> Path:
    """The folder, made and tried.

    Raises:
        OSError: nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder


def limit(name: str, default: float) -> float:
    """Seconds that the user set in the environment, `CELL_LIMIT` or `START_LIMIT`."""
    text = os.environ.get(name) or str(default)
    try:
        return float(text)
    except ValueError:
        raise RunError(f"{name} is a number of seconds, not {text!r}") from None


def parse_setting(text: str, defaults: dict[str, Any]) -> tuple[str, Any]:
    """`steps=8` typed in a command, as the kind of value the notebook has for it."""
    key, equals, raw = text.partition("=")
    if not (key and equals):
        raise RunError(f"PARAMS: '{text}' is not like steps=8")
    if isinstance(defaults.get(key), str):
        return key, raw
    try:
        value = yaml.safe_load(raw)
        return key, (
            float(value)
            if isinstance(defaults.get(key), float) and isinstance(value, str)
            else value
        )
    except (yaml.YAMLError, ValueError):
        return key, raw  # of the wrong kind: the check says so
