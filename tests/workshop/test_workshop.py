"""The workshop: the two copies of a notebook, its minutes, and what the exercises of the suite's
notebooks rest on.
"""

import ast
import builtins
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from miniature import ROOT, finish
from nbformat import v4

from xai_suite import workshop
from xai_suite.workshop import copies
from xai_suite.workshop.copies import WorkshopError

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def code(source: str, *tags: str, **metadata):
    return v4.new_code_cell(source, metadata={**({"tags": list(tags)} if tags else {}), **metadata})


def exercise(stub="half = None", solution="half = 0.5", check=None):
    check = check or "assert half is not None, 'half is still None: divide one by two'"
    return [
        v4.new_markdown_cell("## Exercise 1: one half\n\n*Hint:* divide."),
        code(stub, "exercise"),
        code(solution, "solution"),
        code(check, "check"),
    ]


def notebook(*cells, **metadata):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return v4.new_notebook(
        cells=[v4.new_markdown_cell("# Test"), *cells], metadata={**kernel, **metadata}
    )


def kept(source: str, text: str):
    cell = code(source, "nbval-check-output", keep_output=True)
    cell.outputs = [v4.new_output("stream", name="stdout", text=text)]
    return cell


# --- the two copies -------------------------------------------------------------------------------


def test_students_get_everything_but_solutions_and_outputs():
    source = notebook(code("1 + 1"), kept("print(2)", "2\n"), *exercise(), report={"needs": "x"})
    before = nbformat.writes(source)
    copy = workshop.student_copy(source)
    assert [cell.source for cell in copy.cells] == [
        "# Test",
        "1 + 1",
        "print(2)",
        "Where the suite is tested, it printed:\n\n```text\n2\n```",
        "## Exercise 1: one half\n\n*Hint:* divide.",
        "# Your answer; then run the check below.\nhalf = None",
        (
            "# The check\ntry:\n    assert half is not None, 'half is still None: divide one by"
            ' two\'\nexcept Exception as _problem:\n    print("Not yet:", _problem if'
            ' isinstance(_problem, AssertionError) else repr(_problem))\nelse:\n    print("Right.")'
        ),
    ]
    assert [copies.tags(cell) for cell in copy.cells[-2:]] == [["exercise"], ["check"]]
    assert copy.cells[-1].metadata["jupyter"] == {"source_hidden": True}, (
        "a check computes the answer"
    )
    assert not any(cell.get("outputs") for cell in copy.cells) and copy.cells[2].metadata == {
        "tags": []
    }
    assert set(copy.metadata) == {"kernelspec"}
    nbformat.validate(copy)
    assert nbformat.writes(source) == before, "the source was changed"


def test_the_teacher_gets_the_solutions_folded():
    source = notebook(kept("print(2)", "2\n"), *exercise())
    copy = workshop.teacher_copy(source)
    student = workshop.student_copy(source).cells
    assert [cell.source for cell in copy.cells] == [
        "# Test",
        "print(2)",
        *(cell.source for cell in student[3:5]),
        "# A solution\nhalf = 0.5",
        student[5].source,
    ]
    folded = [cell.metadata.get("jupyter") for cell in copy.cells]
    assert folded == [None, None, None, None, {"source_hidden": True}, {"source_hidden": True}]
    assert not any(cell.get("outputs") for cell in copy.cells) and source.cells[1].outputs
    nbformat.validate(copy)


def test_run_all_in_the_students_copy_goes_on_after_a_check_that_fails():
    from nbclient import NotebookClient

    second = exercise(
        "third = None",
        "third = 1 / 3",
        "assert third is not None, 'third is still None: divide by 3'",
    )
    copy = workshop.student_copy(notebook(*exercise(), *second))
    copy.cells[-2].source += "\nthird = 1 / 3  # a student's answer"
    copy.cells += [v4.new_code_cell("del third"), v4.new_code_cell(copy.cells[-1].source)]
    done = NotebookClient(copy, timeout=60, kernel_name="python3").execute()
    said = [output.text for cell in done.cells for output in cell.get("outputs", [])]
    assert said == [
        "Not yet: half is still None: divide one by two\n",
        "Right.\n",
        """Not yet: NameError("name 'third' is not defined")\n""",
    ]


def test_a_cell_for_colab_comes_only_with_an_address_and_does_nothing_where_the_suite_is(tmp_path):
    source = notebook(code("1 + 1"), *exercise())
    assert not any("subprocess" in cell.source for cell in workshop.student_copy(source).cells)
    first, cell, *_ = workshop.student_copy(source, repository="https://example.org/o'suite").cells
    assert first.source == "# Test" and '"https://example.org/o\'suite"' in cell.source
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\nexit 1\n")
    git.chmod(0o755)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = [sys.executable, "-c", cell.source]
    subprocess.run(run, check=True, cwd=tmp_path, env=env)
    assert (
        b"git"
        in subprocess.run(
            [run[0], "-I", "-S", *run[1:]], cwd="/", env=env, capture_output=True
        ).stderr
    )


STUB, SOLUTION, CHECK = exercise()[1:]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([code("1")], "n: no cell is tagged 'exercise': a notebook of the workshop has exercises"),
        ([STUB, CHECK], "n: cell 2 is tagged 'check' where 'solution' should come"),
        ([STUB, SOLUTION], "n: the exercise in cell 1 has no check"),
        (
            [STUB, SOLUTION, CHECK, code("x = None", "exercise")],
            "n: the exercise in cell 4 has no solution",
        ),
        (
            [STUB, SOLUTION, code("x = None", "exercise")],
            "n: cell 3 is tagged 'exercise' where 'check' should come",
        ),
        ([SOLUTION], "n: cell 1 is tagged 'solution' where 'exercise' should come"),
        (
            [code("1", "exercise", "check")],
            "n: cell 1 is tagged 'exercise' and 'check'; it can be one only",
        ),
        (
            [v4.new_markdown_cell("x", metadata={"tags": ["check"]})],
            "n: cell 1 is tagged 'check' but is not a code",
        ),
    ],
)
@pytest.mark.parametrize("make", [workshop.student_copy, workshop.teacher_copy])
def test_a_notebook_with_incomplete_exercises_is_refused_in_one_line(make, cells, says):
    with pytest.raises(WorkshopError) as error:
        make(notebook(*cells), "n")
    assert str(error.value).startswith(says) and "\n" not in str(error.value)


def test_a_file_that_is_no_notebook_is_one_line_and_leaves_no_copy(tmp_path):
    (tmp_path / "10_bad.ipynb").write_text("{")
    command = [
        sys.executable,
        "-m",
        "xai_suite.workshop.copies",
        "notebook",
        "10_bad.ipynb",
        "student.ipynb",
        "teacher.ipynb",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and re.fullmatch(
        r"make workshop: 10_bad.ipynb: not a notebook: .+\n", done.stderr
    )
    assert os.listdir(tmp_path) == ["10_bad.ipynb"]


# --- minutes and paths ----------------------------------------------------------------------------


def test_minutes_are_the_run_and_what_is_read_and_done():
    words = v4.new_markdown_cell(" ".join(["word"] * 231))  # 240 with the title and the exercise
    lines = code("\n".join(["x = 1"] * 59))  # 60 with the stub; solution and check are not read
    assert (copies.WORDS, copies.LINES, copies.EXERCISE) == (120, 12, 5)
    assert copies.minutes(notebook(words, lines, *exercise()), 1.4) == 13  # 1.4 + 2 + 5 + 5


def test_the_minutes_of_a_run_are_read_from_the_readme():
    row = (
        "| [`21_grad_cam`](notebooks/21_grad_cam.ipynb) | How? | 0.3 |\n| [`x`](elsewhere) | no |"
        " 9 |\n"
    )
    assert copies.measured(f"| notebook | question | minutes |\n|---|---|---|\n{row}") == {
        "21_grad_cam": 0.3
    }
    assert set(copies.measured((ROOT / "README.md").read_text())) == {
        path.stem for path in NOTEBOOKS
    }


def test_a_path_that_is_too_long_or_names_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(copies, "PATHS", {"an hour": (60, ["a", "b"])})
    assert "| 0:25 | 0:55 | `b` |" in copies.plan("an hour", {"a": 25, "b": 30})
    assert "5 minutes are left" in "".join(copies.plan("an hour", {"a": 25, "b": 30}))
    with pytest.raises(WorkshopError, match="takes 70 minutes"):
        copies.plan("an hour", {"a": 30, "b": 40})
    with pytest.raises(WorkshopError, match="names b, which is not"):
        copies.plan("an hour", {"a": 25})
    with pytest.raises(WorkshopError, match="no minutes for a"):
        copies.guide({"a": notebook(*exercise())}, {})


# --- checks are run twice (notebooks/conftest.py) -------------------------------------------------


def test_a_check_that_passes_on_the_stub_or_does_not_help_fails_the_notebook(tmp_path):
    shutil.copy2(ROOT / "notebooks" / "conftest.py", tmp_path)
    for name, check in {
        "good": None,
        "todo": (
            "if half is None: raise NotImplementedError('half is still None: divide one by two')"
        ),
        "passes": "assert True, 'this can never fail'",
        "mute": "assert half is not None",
        "wall": "print(quarter)",
        "wrong": "assert half == 1, 'half is one, or so the check believes'",
    }.items():
        nbformat.write(notebook(*exercise(check=check)), tmp_path / f"{name}.ipynb")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rf",
        "--nbval-lax",
        "--nbval-current-env",
        ".",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=240,
    )
    failed = sorted(re.findall(r"^FAILED (\w+).ipynb::(Cell \d[\w ]*?)(?: -|$)", done.stdout, re.M))
    assert failed == [
        ("mute", "Cell 2 on the stub"),
        ("passes", "Cell 2 on the stub"),
        ("wall", "Cell 2"),
        ("wall", "Cell 2 on the stub"),
        ("wrong", "Cell 2"),
    ], done.stdout
    assert "the check passes on the stub" in done.stdout and "it says NameError" in done.stdout


# --- the suite's own notebooks --------------------------------------------------------------------


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def own(request):
    return nbformat.read(request.param, 4)


def bound(source: str) -> set[str]:
    """Names that this code gives a value to, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def used(source: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)} - bound(
        source
    )


def test_names_are_told_apart():
    assert used("b = [a + c for c in d]\ndef f(x): return x + y") == {"a", "d", "y"}


def test_an_exercise_can_be_left_out(own):
    """Nothing may rest on names that only a solution or an earlier check has made: students leave
    exercises out.
    """
    known = set(dir(builtins)) | {"display"}
    for cell in own.cells:
        if cell.cell_type != "code":
            continue
        missing = used(cell.source) - known
        assert not missing, f"{', '.join(sorted(missing))} would not be there:\n{cell.source}"
        if not {"solution", "check"} & set(copies.tags(cell)):
            known |= bound(cell.source)


def test_no_hint_gives_the_answer_away(own):
    said = 0
    for stub, solution, check in copies.exercises(own):
        text, said = (
            "".join(
                cell.source for cell in own.cells[said : stub + 1] if cell.cell_type == "markdown"
            ),
            check,
        )
        text += own.cells[stub].source
        for line in own.cells[solution].source.splitlines():
            answer = line.partition(" = ")[2].strip() or line.strip()
            assert len(answer) < 12 or answer not in text, f"the text says {answer!r}"


def test_the_students_copy_has_no_solution_and_the_same_checks(own):
    handed = {cell.id: cell for cell in workshop.student_copy(own).cells}
    for stub, solution, check in copies.exercises(own):
        assert (
            own.cells[solution].id not in handed
            and own.cells[stub].source in handed[own.cells[stub].id].source
        )
        (wrapped,) = ast.parse(handed[own.cells[check].id].source).body
        assert list(map(ast.dump, wrapped.body)) == list(
            map(ast.dump, ast.parse(own.cells[check].source).body)
        )


def test_the_paths_fit_their_time_and_use_it():
    runs = copies.measured((ROOT / "README.md").read_text())
    needed = {
        path.stem: copies.minutes(nbformat.read(path, 4), runs[path.stem]) for path in NOTEBOOKS
    }
    for title, (available, names) in copies.PATHS.items():
        taken = sum(needed[name] for name in names)
        assert 0.8 * available <= taken <= 0.95 * available, (
            f"{title}: {taken} of {available} minutes"
        )


# --- make workshop --------------------------------------------------------------------------------


def test_make_workshop_makes_what_is_out_of_date_and_both_folders_stand_alone(project):
    for name in {name for _, names in copies.PATHS.values() for name in names}:
        nbformat.write(
            notebook(code("import xai_utils\nprint(xai_utils.__file__)"), *exercise()),
            project.folder / "notebooks" / f"{name}.ipynb",
        )
    rows = "".join(
        f"| [`{p.stem}`](notebooks/{p.name}) | ? | 1 |\n"
        for p in (project.folder / "notebooks").iterdir()
    )
    (project.folder / "README.md").write_text(rows)
    for name in (
        "LICENSE",
        "data/models/net.npz",
        "data/names.json",
        "data/images/README.md",
        "data/images/me.jpg",
        "data/models/mine.keras",
    ):
        path = project.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    finish(project.make("workshop", "-j2"))
    for folder in ("student", "teacher"):
        made = project.folder / "workshop" / folder
        assert sorted(path.name for path in made.rglob("*.*") if path.suffix != ".py") == sorted(
            [
                *(p.name for p in (project.folder / "notebooks").iterdir()),
                "README.md",
                "names.json",
                "net.npz",
                "requirements.lock",
            ]
        )
        assert (made / "xai_utils" / "__init__.py").is_file()
    student, teacher = (
        project.folder / "workshop" / folder / "20_cam.ipynb" for folder in ("student", "teacher")
    )
    assert "half = 0.5" not in student.read_text() and "half = 0.5" in teacher.read_text()
    before = student.stat().st_mtime_ns
    finish(project.make("workshop"))
    assert student.stat().st_mtime_ns == before
    (project.folder / "notebooks" / "20_cam.ipynb").touch()
    (project.folder / "workshop" / "student" / "99_gone.ipynb").touch()
    finish(project.make("workshop"))
    assert student.stat().st_mtime_ns > before and not (student.parent / "99_gone.ipynb").exists()
    finish(project.make("workshop", "REPOSITORY=https://example.org/suite"))
    assert "https://example.org/suite" in student.read_text()
