"""What a student gets of a notebook, and what the teacher gets.

An exercise is three code cells, tagged `exercise` (a stub: `margin = None`), `solution` and
`check`.
"""

import copy
import textwrap
from pathlib import Path

from xai_suite.reports import RunError, read_notebook

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

CLOUD_CELL = """# On Colab this fetches the suite; elsewhere it does nothing.
import importlib.util, subprocess, sys

if importlib.util.find_spec("xai_utils") is None:
    clone, pip = ["git", "clone", "--quiet", "--depth", "1"], [sys.executable, "-m", "pip"]
    subprocess.run([*clone, {repository!r}, "suite"], check=True)
    subprocess.run([*pip, "install", "--quiet", "--editable", "suite"], check=True)
    sys.path.insert(0, "suite")"""


class WorkshopError(RunError):
    """What is wrong with a notebook of the workshop, in one line."""


def read_notebooks(folder: Path) -> dict[Path, object]:
    """The suite's notebooks by their paths, in order.

    Raises:
        WorkshopError: there are none.
        RunError: one that is not a notebook.
    """
    paths = sorted(folder.glob("[0-9]*.ipynb"))
    if not paths:
        raise WorkshopError(f"no notebooks in {folder}/: run this in the project's folder")
    return {path: read_notebook(path) for path in paths}


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def exercises(notebook, where: str = "this notebook") -> list[tuple[int, int, int]]:
    """The places (indices of cells) of stub, solution and check of each exercise, in order.

    Raises:
        WorkshopError: no exercise, a cell with two of the tags, or cells in another order than
            stub, solution, check.
    """
    places = []
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
        wanted = STEPS[len(places) % 3]
        if steps[0] != wanted:
            raise WorkshopError(
                f"{where}: cell {index} is tagged {steps[0]!r} where {wanted!r} should come (an"
                " exercise is a stub, its solution and its check)"
            )
        places.append(index)
    if left := len(places) % 3:
        raise WorkshopError(f"{where}: the exercise in cell {places[-left]} has no {STEPS[left]}")
    if places:
        return list(zip(places[::3], places[1::3], places[2::3]))
    raise WorkshopError(
        f"{where}: no cell is tagged 'exercise': a notebook of the workshop has exercises"
    )


def student_copy(notebook, where: str = "this notebook", repository: str = ""):
    """A notebook for students: no solutions, no outputs; what was kept of them is told in words.

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
    for cell in _cells(notebook):
        if "solution" in tags(cell):
            continue
        cells.append(cell)
        kept = printed(cell)
        _dress(cell)
        if kept:
            said = f"Where the suite is tested, it printed:\n\n```text\n{kept}\n```"
            cells.append(v4.new_markdown_cell(said, id=f"{cell.id}-kept"))
    if repository:
        fetching = CLOUD_CELL.format(repository=repository)
        cells.insert(1, v4.new_code_cell(fetching, id="fetch-the-suite"))
    return _with_cells(notebook, cells)


def teacher_copy(notebook, where: str = "this notebook"):
    """A notebook for the teacher: everything, with the solutions folded."""
    exercises(notebook, where)
    cells = _cells(notebook)
    for cell in cells:
        _dress(cell)
    return _with_cells(notebook, cells)


def printed(cell) -> str:
    """The text of a code cell's stored outputs."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell.get("outputs", [])
    ]
    return "".join(texts).strip()


def _cells(notebook) -> list:
    """Copies of the cells. Old formats have no ids; random ones would change with every copy."""
    cells = copy.deepcopy(notebook.cells)
    for place, cell in enumerate(cells):
        cell.setdefault("id", f"cell-{place}")
    return cells


def _dress(cell) -> None:
    """As it is handed out: solutions and checks folded, no outputs and no marks to compare them."""
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
