"""Which runs are out of date, and which of them share a kernel, as rules for make.

    python -I -S xai_utils/dependencies.py BUILD_DIR [--all] [--alone] NAME...

writes BUILD_DIR/depends.mk, and BUILD_DIR/progress where the runner counts finished runs. `--all`
takes every run for out of date, `--alone` gives each a kernel of its own. Make calls it before
every `make reports`, maybe before there is an environment: standard library only, and a few
milliseconds.
"""

import ast
import json
import math
import os
import re
import sys
import time
from fnmatch import fnmatch
from functools import cache
from itertools import groupby
from pathlib import Path

NOTEBOOKS, RUNS, TEMPLATE = Path("notebooks"), Path("reports/runs"), Path("reports/template")
PACKAGE = Path("xai_utils")


def imported(source: str) -> set[str]:
    """Names of the xai_utils modules that this Python source imports; `__init__` when it imports
    any.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(filter(None, ["xai_utils" if node.level else "", node.module]))
            dotted = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        for parts in (name.split(".") for name in dotted):
            if parts[0] == "xai_utils":
                found |= {"__init__", *parts[1:2]}
    return {name for name in found if (PACKAGE / f"{name}.py").is_file()}


@cache
def imports_of(module: str) -> frozenset[str]:
    try:
        return frozenset(imported((PACKAGE / f"{module}.py").read_text(encoding="utf-8")))
    except SyntaxError:  # the run will say what is wrong with it
        return frozenset()


def modules(first: set[str]) -> list[str]:
    """Files of these modules and of all they import, directly or not."""
    seen, todo = set(), set(first)
    while todo:
        seen |= todo
        todo = set().union(*map(imports_of, todo)) - seen
    return [f"{PACKAGE}/{name}.py" for name in sorted(seen)]


@cache
def notebook_facts(path: Path) -> tuple[list[str], str]:
    """The files a notebook depends on, and the glob of runs whose records it needs (metadata
    `report.needs`).
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [
            "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"
        ]
        needs = notebook["metadata"].get("report", {}).get("needs", "")
        first = set().union(*map(imported, cells))
    except (
        SyntaxError
    ):  # one cell is not plain Python: depend on everything rather than on too little
        first = {file.stem for file in PACKAGE.glob("*.py")}
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ):  # missing, or no notebook: the run will say
        return ([str(path)] if path.is_file() else []), ""
    return [str(path), *modules(first)], needs


def prerequisites(name: str, build: Path, names: list[str]) -> list[str]:
    files, needs = notebook_facts(NOTEBOOKS / f"{name.split('--')[0]}.ipynb")
    others = [
        f"{build}/{other}.ipynb"
        for other in names
        if needs and other != name and fnmatch(other, needs)
    ]
    return [*files, *others]


def mtime(file: Path) -> int:
    return file.stat().st_mtime_ns


def out_of_date(selected: list[str], build: Path, rules: dict[str, list[str]]) -> set[str]:
    """The runs that make will execute for these names: the same comparison of file times."""
    stale, fresh = set(), set()

    def is_stale(name: str) -> bool:
        if name not in stale | fresh:
            fresh.add(name)  # so that runs which need each other do not go round for ever
            target, needed = (
                build / f"{name}.ipynb",
                [RUNS / f"{name}.yaml", *map(Path, rules[name])],
            )
            older = [
                is_stale(file.stem) for file in needed if file.parent == build
            ]  # a list: look at every one
            if (
                any(older)
                or not target.exists()
                or any(mtime(file) > mtime(target) for file in needed)
            ):
                stale.add(name)
        return name in stale

    return {name for name in rules if name in selected and is_stale(name)} | stale


def kernels(stale: set[str], alone: bool, waiting: set[str] = frozenset()) -> list[list[str]]:
    """Which runs one kernel executes: a notebook's, and those of notebooks before it while they are
    few together.

    Kernels start from the last to the first, and take fewer runs the fewer are left, so that no
    processor idles at the end. Runs that wait for others share with no other notebook.
    """

    def share(count, parts):
        return 1 if alone else math.ceil(count / parts / (os.cpu_count() or 1))

    most, fewest, left = share(len(stale), 2), share(len(stale), 8), len(stale)
    notebooks = [
        list(names) for _, names in groupby(sorted(stale), key=lambda name: name.split("--")[0])
    ]
    found, room = [], 0
    for names in reversed(notebooks):
        for start in reversed(range(0, len(names), most)):
            part = names[start : start + most]
            if found and len(part + found[0]) <= room and waiting.isdisjoint(part + found[0]):
                found[0] = part + found[0]
            else:
                room = max(share(left, 2), fewest)
                found.insert(0, part)
            left -= len(part)
    return found


def rules_for_make(
    stale: set[str], alone: bool, build: Path, needed: dict[str, list[str]]
) -> list[str]:
    """For each kernel: the runs it executes, what it waits for, what it makes.

    Kernels others wait for come first, then the last notebooks, which take longest: no processor
    idles at the end. Those that wait stand in the middle: what cannot start when make comes to it
    is left until it has gone through all.
    """
    waiting = {name for name in stale if any(file.startswith(f"{build}/") for file in needed[name])}
    runs = {f"kernel-{names[0]}": names for names in kernels(stale, alone, waiting)}
    makes = {kernel: {f"{build}/{name}.ipynb" for name in names} for kernel, names in runs.items()}
    waits = {
        kernel: (
            set().union(*[needed[name] for name in names])
            & set().union(*makes.values()) - makes[kernel]
        )
        for kernel, names in runs.items()
    }
    waited_for = set().union(*waits.values())
    early = [kernel for kernel in reversed(runs) if makes[kernel] & waited_for]
    wait = [kernel for kernel in reversed(runs) if waits[kernel] and kernel not in early]
    others = [kernel for kernel in reversed(runs) if kernel not in early + wait]
    middle = len(others) // 2
    order = early + others[:middle] + wait + others[middle:]
    lines = [f"STALE = {' '.join(sorted(stale))}", f"KERNELS = {' '.join(order)}"]
    for kernel, names in runs.items():
        pages = [f"$(SITE)/{name}.html" for name in names]
        lines += [
            f"{kernel}: NAMES = {' '.join(names)}",
            f"{kernel}: {' '.join(sorted(waits[kernel]))}",
            f"{' '.join(sorted(makes[kernel]) + pages)}: {kernel} ;",
        ]
    return lines


def main(build: Path, *words: str) -> str | None:
    selected = [word for word in words if not word.startswith("--")]
    for file in RUNS.iterdir():
        if file.suffix == ".yml" or (
            file.suffix == ".yaml" and not re.fullmatch(r"[\w.-]+", file.name, re.ASCII)
        ):
            return (
                f"{file}: a run file is named <notebook>--<run>.yaml, with letters, digits, '_',"
                " '-' and '.' only"
            )
    names = sorted(file.stem for file in RUNS.glob("*.yaml"))
    rules = {name: prerequisites(name, build, names) for name in names}
    build.mkdir(parents=True, exist_ok=True)
    stale = out_of_date(selected, build, rules) | set(selected if "--all" in words else ())
    lines = [
        f"PUBLISH = {' '.join(modules({'publish'}))}"
        f" {' '.join(map(str, sorted(TEMPLATE.rglob('*.*'))))}"
    ]
    lines += rules_for_make(stale, "--alone" in words, build, rules)
    (build / "depends.mk").write_text("\n".join(lines) + "\n")
    (build / "progress").write_text(f"{len(stale)} {time.time():.0f}\n")
    return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
