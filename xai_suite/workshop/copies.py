"""The workshop: what a student gets of a notebook, what the teacher gets, and how long it takes.

    python -m xai_suite.workshop.copies notebook NOTEBOOK STUDENT_COPY TEACHER_COPY
    python -m xai_suite.workshop.copies readme README_OF_THE_SUITE OUT NOTEBOOK...

An exercise is three code cells, tagged `exercise` (a stub: `margin = None`), `solution` and
`check`.
"""

import argparse
import copy
import re
import sys
import textwrap
from pathlib import Path

from xai_suite.reports import RunError, read_notebook
from xai_utils.engine import written_whole

STEPS = ("exercise", "solution", "check")
FRAMES = {  # JupyterLab shows the first line of a folded cell
    "exercise": "# Your answer; then run the check below.\n{}",
    "solution": "# A solution\n{}",
    "check": (
        """# The check
try:
{}
except Exception as _problem:
    print("Not yet:", _problem if isinstance(_problem, AssertionError) else repr(_problem))
else:
    print("Right.")"""
    ),
}

WORDS, LINES, EXERCISE = (
    120,
    12,
    5,
)  # assumed: words and lines of code read in a minute, minutes an exercise takes

PATHS = {  # title: minutes there are, and the notebooks in their order
    "90 minutes": (90, ["00_start_here", "10_saliency", "20_cam", "21_grad_cam"]),
    "Half a day": (
        240,
        [
            "00_start_here",
            "10_saliency",
            "20_cam",
            "21_grad_cam",
            "13_integrated_gradients",
            "30_occlusion",
            "71_sanity_checks",
            "70_bird_or_tree",
        ],
    ),
}

CLOUD_CELL = """# On Colab this fetches the suite; elsewhere it does nothing.
import importlib.util, subprocess, sys

if importlib.util.find_spec("xai_utils") is None:
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", {repository!r}, "suite"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--editable", "suite"], check=True)
    sys.path.insert(0, "suite")"""


class WorkshopError(RunError):
    """What is wrong with a notebook of the workshop, in one line."""


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def exercises(notebook, where: str = "this notebook") -> list[tuple[int, int, int]]:
    """The places (indices of cells) of stub, solution and check of each exercise, in order.

    Raises:
        WorkshopError: no exercise, a cell with two of the tags, or cells in another order than
            stub, solution, check.
    """
    found = []
    for index, cell in enumerate(notebook.cells):
        steps = [step for step in STEPS if step in tags(cell)]
        if len(steps) > 1:
            raise WorkshopError(
                f"{where}: cell {index} is tagged {' and '.join(map(repr, steps))}; it can be one"
                " only"
            )
        if not steps:
            continue
        if cell.cell_type != "code":
            raise WorkshopError(
                f"{where}: cell {index} is tagged {steps[0]!r} but is not a code cell"
            )
        if steps[0] != STEPS[len(found) % 3]:
            wanted = (
                f"where {STEPS[len(found) % 3]!r} should come (an exercise is a stub, its solution"
                " and its check)"
            )
            raise WorkshopError(f"{where}: cell {index} is tagged {steps[0]!r} {wanted}")
        found.append(index)
    if left := len(found) % 3:
        raise WorkshopError(f"{where}: the exercise in cell {found[-left]} has no {STEPS[left]}")
    if found:
        return list(zip(found[::3], found[1::3], found[2::3]))
    raise WorkshopError(
        f"{where}: no cell is tagged 'exercise': a notebook of the workshop has exercises"
    )


def student_copy(notebook, where: str = "this notebook", repository: str = ""):
    """A notebook for students: no solutions, no outputs; what was kept to compare with is told in
    words.

    Checks are folded and say in one line what is wrong: many compute the answer, and a traceback
    would show how. So a *Run All* goes on to the end, wherever it is run.

    Args:
        notebook: the source, as nbformat reads it; left as it is.
        where: what to call it in an error (`WorkshopError`, as `exercises`).
        repository: public address of the suite; with one, the notebook starts with a cell that
            fetches it on Colab.
    """
    from nbformat import v4

    exercises(notebook, where)
    cells = []
    for cell in copy.deepcopy(notebook.cells):
        if "solution" in tags(cell):
            continue
        cells.append(cell)
        kept = printed(cell)
        _dress(cell)
        if kept:
            cells.append(
                v4.new_markdown_cell(
                    f"Where the suite is tested, it printed:\n\n```text\n{kept}\n```"
                )
            )
            cells[-1]["id"] = f"{cell.get('id', len(cells))}-kept"
    if repository:
        cells.insert(
            1, v4.new_code_cell(CLOUD_CELL.format(repository=repository), id="fetch-the-suite")
        )
    return _with_cells(notebook, cells)


def teacher_copy(notebook, where: str = "this notebook"):
    """A notebook for the teacher: everything, with the solutions folded."""
    exercises(notebook, where)
    cells = copy.deepcopy(notebook.cells)
    for cell in cells:
        _dress(cell)
    return _with_cells(notebook, cells)


def printed(cell) -> str:
    """The text of a code cell's stored outputs."""
    texts = [
        out.get("text") or out.get("data", {}).get("text/plain", "")
        for out in cell.get("outputs", [])
    ]
    return "".join(texts).strip()


def _dress(cell) -> None:
    """As it is handed out: no outputs and none of the marks that compare them; solutions and checks
    folded.
    """
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
    cell.metadata.pop("keep_output", None)
    for tag in tags(cell)[:]:
        if tag.startswith("nbval"):
            tags(cell).remove(tag)
        if tag == "check":
            cell.source = textwrap.indent(cell.source, "    ")
        if tag in STEPS:
            cell.source = FRAMES[tag].format(cell.source)
        if tag in STEPS[1:]:
            cell.metadata["jupyter"] = {"source_hidden": True}


def _with_cells(notebook, cells):
    from nbformat import v4

    metadata = {
        key: copy.copy(value) for key, value in notebook.metadata.items() if key != "report"
    }
    return v4.new_notebook(cells=cells, metadata=metadata)


# --- how long it takes ----------------------------------------------------------------------------


def minutes(notebook, run: float, where: str = "this notebook") -> int:
    """Minutes a room needs for a notebook: its run (as measured), reading its prose and code, and
    its exercises.
    """
    tasks = EXERCISE * len(exercises(notebook, where))
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    read = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and not {"solution", "check"} & set(tags(cell))
    ]
    return round(
        run + words / WORDS + sum(len(cell.source.splitlines()) for cell in read) / LINES + tasks
    )


def measured(readme: str) -> dict[str, float]:
    """Name of a notebook to the minutes of its run, from the table in the suite's README."""
    rows = re.findall(r"^\| \[`(\w+)`\]\(notebooks/\1\.ipynb\) \|.*\| *([\d.]+) *\|$", readme, re.M)
    return {name: float(run) for name, run in rows}


def plan(title: str, needed: dict[str, int]) -> list[str]:
    """Lines of Markdown: when each notebook of a path begins and ends, and the minutes left."""
    available, names = PATHS[title]
    for name in set(names) - set(needed):
        raise WorkshopError(f"the path {title!r} names {name}, which is not among the notebooks")
    left = available - sum(needed[name] for name in names)
    if left < 0:
        raise WorkshopError(
            f"the path {title!r} takes {available - left} minutes: leave a notebook out of PATHS"
        )
    lines, clock = [f"### {title}", "", "| from | to | notebook |", "|---|---|---|"], 0
    for name in names:
        start, clock = clock, clock + needed[name]
        lines.append(
            f"| {start // 60}:{start % 60:02} | {clock // 60}:{clock % 60:02} | `{name}` |"
        )
    return [*lines, "", f"{left} minutes are left for welcome, breaks and talk.", ""]


def guide(notebooks: dict, runs: dict[str, float]) -> str:
    """The workshop's README: the paths, and the minutes of each notebook; `runs` are those
    measured.
    """
    for name in set(notebooks) - set(runs):
        raise WorkshopError(f"README.md: its table has no minutes for {name}")
    needed = {name: minutes(notebook, runs[name], name) for name, notebook in notebooks.items()}
    rows = [f"| `{name}` | {runs[name]:g} | {needed[name]} |" for name in sorted(notebooks)]
    paths = [line for title in PATHS for line in plan(title, needed)]
    return "\n".join(
        [
            GUIDE,
            "",
            *paths,
            MINUTES,
            "",
            "| notebook | run | in a room |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


GUIDE = """# The workshop

Generated by `make workshop` from the notebooks; change those, not these.

- `student/`: the notebooks without solutions, with module and data. The folder stands alone: copy it to any machine
  with the packages of `requirements.lock` (`make workshop-bundle` packs them too), and `python -m jupyterlab student`.
- `teacher/`: the same with solutions, folded: a click on the three dots shows one.

## How a notebook goes

1. *Run All*, go back to the top and walk through the cells: everything but the exercises works as it is.
2. At **Before you look**, stop the room. Everybody writes down an answer before the next cell is shown.
3. At the end are exercises. A cell such as `margin = None` waits for an answer; the check below it
   (JupyterLab folds it) says what is missing, or `Right.` *Where it fails* is the part to talk about.
   (`66_study_summary` needs the suite's reports.)

## Paths"""

MINUTES = f"""## Minutes

*Run* is measured, from a cold start on two cores. *In a room* adds assumptions: {WORDS} words of prose or {LINES} lines
of code read in a minute, {EXERCISE} minutes for an exercise."""


# --- the command ----------------------------------------------------------------------------------


def write(notebook, path: Path) -> None:
    import nbformat

    with written_whole(path) as temporary:
        nbformat.write(notebook, temporary)


def main() -> int:
    command = argparse.ArgumentParser(
        prog="python -m xai_suite.workshop.copies", description=__doc__.splitlines()[0]
    )
    kinds = command.add_subparsers(dest="kind", required=True)
    one, every = kinds.add_parser("notebook"), kinds.add_parser("readme")
    for parser, name in (
        (one, "source"),
        (one, "student"),
        (one, "teacher"),
        (every, "readme"),
        (every, "out"),
    ):
        parser.add_argument(name, type=Path)
    one.add_argument("--repository", default="", help="public address of the suite, for Colab")
    every.add_argument("notebooks", type=Path, nargs="+")
    asked = command.parse_args()
    sys.modules["rfc3987_syntax"] = (
        None  # as the runner: jsonschema would load it for nothing, for two seconds
    )
    try:
        if asked.kind == "notebook":
            source = read_notebook(asked.source)
            write(student_copy(source, str(asked.source), asked.repository), asked.student)
            write(teacher_copy(source, str(asked.source)), asked.teacher)
        else:
            notebooks = {path.stem: read_notebook(path) for path in asked.notebooks}
            asked.out.write_text(
                guide(notebooks, measured(asked.readme.read_text(encoding="utf-8"))),
                encoding="utf-8",
            )
    except (RunError, OSError) as error:
        print(f"make workshop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
