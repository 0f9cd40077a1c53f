"""The library's public names say all that their callers must know, each by itself."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap

import pytest

import xai_utils
from xai_suite.reference.names import WINGS, names_of

# "as `grad_cam`", "as for `deletion`", "Args, Raises: as ..."; not "such as `block5_conv4`", nor
# what another function does: "called as `f(x)`", "as `cross_validate` takes it"
REFERENCE = re.compile(
    r"(?<!such )(?<!called )\bas (?:for )?`[\w.]+`(?! \w+s\b)|\bas\s+for\b"
    r"|^(?:Args|Returns|Raises|Source)(?:, \w+)*: (?:as|see) ",
    re.I | re.M,
)
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")


def public():
    """(name, object) of what the wings offer: functions, classes, and their public methods."""
    for wing in WINGS:
        for name in names_of(wing):
            code = inspect.isfunction(name.thing) or inspect.isclass(name.thing)
            if code and name.thing.__module__.startswith("xai_utils."):
                yield f"{wing}.{name.name}", name.thing


def sections(docstring):
    """{heading: text} of a docstring, its beginning under ''."""
    found, heading = {"": []}, ""
    for line in docstring.splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            heading = line[:-1]
        found.setdefault(heading, []).append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}


def described(text):
    """Names before the colons of a section's entries: `a, b: ...` are two."""
    heads = re.findall(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*):", text, re.M)
    return {name.lstrip("*") for head in heads for name in head.split(", ")}


def returns(function):
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    inner = (ast.FunctionDef, ast.Lambda, ast.ClassDef)
    waiting, values = [*tree.body], False
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return) and node.value is not None:
            empty = isinstance(node.value, ast.Constant) and node.value.value is None
            values = values or not empty
        values = values or (isinstance(node, ast.Yield) and node.value is not None)
        if not isinstance(node, inner):
            waiting.extend(ast.iter_child_nodes(node))
    return values


def lacking(name, offered):
    """What a docstring leaves to be said, in words."""
    text = inspect.getdoc(offered) or ""
    parts, lacks = sections(text), []
    if not text.splitlines() or not text.splitlines()[0].endswith((".", "?", ":")):
        lacks.append("no summary in one line")
    if reference := REFERENCE.search(text):
        lacks.append(f"it does not stand alone: {' '.join(reference[0].split())!r}")
    if inspect.isclass(offered):
        fields = getattr(offered, "_fields", None) or getattr(offered, "__dataclass_fields__", ())
        named = described(parts.get("Attributes", "") + parts.get("Args", ""))
        return lacks + [f"no attribute {field}" for field in fields if field not in named]
    given = [n for n in inspect.signature(offered).parameters if n not in ("self", "cls")]
    given = [n for n in given if n[0] != "_"]
    lacks += [f"no argument {n}" for n in given if n not in described(parts.get("Args", ""))]
    if given and returns(offered) and not {"Returns", "Yields"} & {*parts}:
        lacks.append("no Returns")
    return lacks


@pytest.mark.parametrize("wing", WINGS)
def test_docstrings_stand_alone(wing):
    names = [(name, part) for name, part in public() if name.split(".")[0] == wing]
    assert len(names) > 2
    lacks = {name: found for name, part in names if (found := lacking(name, part))}
    assert not lacks, "\n".join(f"{name}: {', '.join(found)}" for name, found in lacks.items())


def test_examples_in_docstrings_come_true():
    names = [m.name for m in pkgutil.walk_packages(xai_utils.__path__, "xai_utils.") if not m.ispkg]
    tried = [doctest.testmod(importlib.import_module(name)) for name in names]
    assert sum(result.attempted for result in tried) > 20
    assert {name: result.failed for name, result in zip(names, tried) if result.failed} == {}
