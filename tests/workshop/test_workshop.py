"""The workshop: copies of notebooks, their minutes, and what the suite's exercises rest on."""

import ast
import builtins
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from miniature import ROOT, finish
from nbformat import v4

from xai_suite import workshop
from xai_suite.workshop import copies, guide, making, table
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


def test_copies_of_a_notebook_without_ids_are_the_same_each_time():
    source = notebook(kept("print(2)", "2\n"), *exercise())
    source.nbformat_minor = 4
    for cell in source.cells:
        del cell["id"]
    for make in (workshop.student_copy, workshop.teacher_copy):
        first, second = make(source), make(source)
        assert nbformat.writes(first) == nbformat.writes(second)
        nbformat.validate(first)


# --- minutes and paths ----------------------------------------------------------------------------


def test_minutes_are_the_run_and_what_is_read_and_done():
    words = v4.new_markdown_cell(" ".join(["word"] * 231))  # 240 with the title and the exercise
    lines = code("\n".join(["x = 1"] * 59))  # 60 with the stub; solution and check are not read
    assert (guide.WORDS, guide.LINES, guide.EXERCISE) == (120, 12, 5)
    made = notebook(words, lines, *exercise(), report={"minutes": 1.4})
    assert guide.minutes(made) == 13  # 1.4 + 2 + 5 + 5


def test_the_minutes_of_a_run_stand_in_the_notebook():
    assert guide.measured(notebook(report={"minutes": 0.3})) == 0.3
    with pytest.raises(WorkshopError, match="^no minutes for n: its metadata needs report.minutes"):
        guide.measured(notebook(report={"needs": "6*"}), "n")
    for wrong in ("0.3", True, -1, 0, [1], float("nan")):
        with pytest.raises(WorkshopError, match="^n: report.minutes in its metadata are .* not"):
            guide.measured(notebook(report={"minutes": wrong}), "n")


def test_all_notebooks_say_their_minutes():
    for path in NOTEBOOKS:
        assert guide.measured(nbformat.read(path, 4), path.stem)


def test_a_path_that_is_too_long_or_names_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(guide, "PATHS", {"an hour": (60, ["a", "b"])})
    assert "| 0:25 | 0:55 | `b` |" in guide.plan("an hour", {"a": 25, "b": 30})
    assert "5 minutes are left" in "".join(guide.plan("an hour", {"a": 25, "b": 30}))
    with pytest.raises(WorkshopError, match="takes 70 minutes"):
        guide.plan("an hour", {"a": 30, "b": 40})
    with pytest.raises(WorkshopError, match="names b, which is not"):
        guide.plan("an hour", {"a": 25})
    with pytest.raises(WorkshopError, match="no minutes for a"):
        guide.guide({Path("a.ipynb"): notebook(*exercise())})


# --- README's table -------------------------------------------------------------------------------

MARKED = "# Suite\n\n<!-- notebooks -->\nold\n<!-- /notebooks -->\n\nMore.\n"
TABLE = """# Suite

<!-- notebooks -->

| notebook | the question it answers | minutes |
|---|---|---|
| [`10_saliency`](notebooks/10_saliency.ipynb) | What if one pixel changed \\| a little? | 0.4 |
| [`20_cam`](notebooks/20_cam.ipynb) | Which place gave how much? | 12 |

<!-- /notebooks -->

More.
"""


def asking(text: str, minutes: float):
    return v4.new_notebook(
        cells=[v4.new_markdown_cell(text)], metadata={"report": {"minutes": minutes}}
    )


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A project of two notebooks and a README, where the process now is."""
    (tmp_path / "notebooks").mkdir()
    for name, text, minutes in (
        ("20_cam", "# Add up evidence\n\n**Which place gave how much?**\n\n**No.**", 12.0),
        ("10_saliency", "# Ask\n**What if one pixel\nchanged | a little?** Or two?", 0.4),
    ):
        nbformat.write(asking(text, minutes), tmp_path / "notebooks" / f"{name}.ipynb")
    (tmp_path / "README.md").write_text(MARKED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_is_written_from_the_notebooks(listed, capsys):
    assert table.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("README.md: its table of the notebooks is not what they say; write it")
    assert said.count("\n") == 1 and (listed / "README.md").read_text() == MARKED
    assert table.main([]) == 0 and (listed / "README.md").read_text() == TABLE
    assert table.main(["--check"]) == 0
    before = (listed / "README.md").stat().st_mtime_ns
    assert table.main([]) == 0 and (listed / "README.md").stat().st_mtime_ns == before
    assert not capsys.readouterr().err and len(os.listdir(listed)) == 2


@pytest.mark.parametrize(
    ("readme", "text", "minutes", "says"),
    [
        ("no marks\n", "# A\n\n**B?**", 1, "README.md: its table of the notebooks stands between"),
        (MARKED + MARKED, "# A\n\n**B?**", 1, "README.md: its table of the notebooks stands"),
        (
            MARKED,
            "# A\n\nB?\n\n**C?**",
            1,
            "notebooks/10_saliency.ipynb: below its title stands no",
        ),
        (MARKED, "# A\n\n**B?**", None, "no minutes for notebooks/10_saliency.ipynb: its metadata"),
    ],
)
def test_a_table_that_cannot_be_made_is_one_line(listed, capsys, readme, text, minutes, says):
    (listed / "README.md").write_text(readme)
    nbformat.write(asking(text, minutes), listed / "notebooks" / "10_saliency.ipynb")
    assert table.main([]) == 1 and (listed / "README.md").read_text() == readme
    said = capsys.readouterr().err
    assert said.startswith(says) and said.count("\n") == 1


def test_the_readme_lists_the_suites_notebooks_as_they_are(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert table.main(["--check"]) == 0, capsys.readouterr().err


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
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def used(source: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)} - bound(
        source
    )


def test_names_are_told_apart():
    assert used("b = [a + c for c in d]\ndef f(x): return x + y") == {"a", "d", "y"}


def test_an_exercise_can_be_left_out(own):
    """Nothing may rest on names of a solution or an earlier check: students leave exercises out."""
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
    needed = {path.stem: guide.minutes(nbformat.read(path, 4), path.stem) for path in NOTEBOOKS}
    for title, (available, names) in guide.PATHS.items():
        taken = sum(needed[name] for name in names)
        assert 0.8 * available <= taken <= 0.95 * available, (
            f"{title}: {taken} of {available} minutes"
        )


# --- make workshop --------------------------------------------------------------------------------


def cell_of(path: Path, place: int = 1) -> str:
    return nbformat.read(path, 4).cells[place].source


def change(path: Path, source: str) -> None:
    """Another first cell of code, as an author or a student types it."""
    changed = nbformat.read(path, 4)
    changed.cells[1].source = source
    nbformat.write(changed, path)


@pytest.fixture
def taught(project):
    """The miniature project with the notebooks of the paths."""
    for name in {name for _, names in guide.PATHS.values() for name in names}:
        cells = code("import xai_utils\nprint(xai_utils.__file__)"), *exercise()
        nbformat.write(
            notebook(*cells, report={"minutes": 1}), project.folder / "notebooks" / f"{name}.ipynb"
        )
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
    return project


def making_in(project, *options):
    return project.start(sys.executable, "-m", "xai_suite.workshop", *options)


def test_the_workshop_makes_what_is_out_of_date_and_both_folders_stand_alone(taught):
    notebooks = taught.folder / "notebooks"
    said = finish(making_in(taught))
    assert re.fullmatch(
        r"the workshop is in workshop/README.md \(\d+ files written, 0 .*\)\n", said
    )
    for folder in ("student", "teacher"):
        made = taught.folder / "workshop" / folder
        assert sorted(path.name for path in made.rglob("*.*") if path.suffix != ".py") == sorted(
            [
                *(p.name for p in notebooks.iterdir()),
                "README.md",
                "names.json",
                "net.npz",
                "requirements.lock",
            ]
        )
        assert (made / "xai_utils" / "__init__.py").is_file()
        assert (made / "xai_utils" / "models" / "load.py").is_file()
        assert (made / "xai_suite" / "reports" / "runs.py").is_file()
        assert (made / "LICENSE").read_text() == "LICENSE"
    student, teacher = (
        taught.folder / "workshop" / folder / "20_cam.ipynb" for folder in ("student", "teacher")
    )
    assert "half = 0.5" not in student.read_text() and "half = 0.5" in teacher.read_text()
    assert "| `20_cam` | 1 |" in (taught.folder / "workshop" / "README.md").read_text()
    before = student.stat().st_mtime_ns
    (notebooks / "20_cam.ipynb").touch()
    assert finish(making_in(taught)) == "the workshop is in workshop/README.md (nothing to do)\n"
    assert student.stat().st_mtime_ns == before
    change(notebooks / "20_cam.ipynb", "print('changed')")
    (taught.folder / "workshop" / "student" / "99_gone.ipynb").touch()
    (taught.folder / "workshop" / "teacher" / "my notes.ipynb").touch()
    (taught.folder / "xai_utils" / "models" / "boxes.py").unlink()
    assert "(2 files written, 3 removed)" in finish(making_in(taught))
    assert student.stat().st_mtime_ns > before and not (student.parent / "99_gone.ipynb").exists()
    assert "changed" in student.read_text() and "changed" in teacher.read_text()
    assert (teacher.parent / "my notes.ipynb").exists()
    assert not (student.parent / "xai_utils" / "models" / "boxes.py").exists()
    finish(making_in(taught, "--repository", "https://example.org/suite"))
    assert "https://example.org/suite" in student.read_text()
    assert "https://example.org/suite" not in teacher.read_text()


def test_a_copy_that_somebody_works_in_lasts_until_its_notebook_changes(taught):
    finish(making_in(taught))
    copy = taught.folder / "workshop" / "student" / "20_cam.ipynb"
    change(copy, "print('my own work')")
    change(taught.folder / "notebooks" / "21_grad_cam.ipynb", "print('changed')")
    assert "(2 files written, 0 removed)" in finish(making_in(taught))
    assert cell_of(copy) == "print('my own work')"
    assert cell_of(copy.with_name("21_grad_cam.ipynb")) == "print('changed')"
    copy.with_name("30_occlusion.ipynb").unlink()
    change(taught.folder / "notebooks" / "20_cam.ipynb", "print('changed')")
    assert "(3 files written, 0 removed)" in finish(making_in(taught))
    assert cell_of(copy) == "print('changed')"


def test_a_notebook_that_cannot_be_handed_out_is_one_line_and_nothing_is_written(taught):
    bad = taught.folder / "notebooks" / "10_saliency.ipynb"
    good = bad.read_text()
    bad.write_text("{")
    assert finish(making_in(taught), code=1).startswith("make workshop: notebooks/10_saliency")
    assert not (taught.folder / "workshop").exists()
    bad.write_text(good)
    finish(making_in(taught))
    before = {path: path.read_bytes() for path in taught.folder.rglob("workshop/**/*.*")}
    change(taught.folder / "notebooks" / "20_cam.ipynb", "print('changed')")
    for text, says in (
        ("{", r"make workshop: notebooks/10_saliency.ipynb: not a notebook: .+\n"),
        (
            nbformat.writes(notebook()),
            r"make workshop: notebooks/10_saliency.ipynb: no cell is .+\n",
        ),
    ):
        bad.write_text(text)
        assert re.fullmatch(says, finish(making_in(taught), code=1))
        assert {path: path.read_bytes() for path in before} == before
    assert not list(taught.folder.rglob("*.tmp"))
    for path in (taught.folder / "notebooks").iterdir():
        path.unlink()
    said = "make workshop: no notebooks in notebooks/: run this in the project's folder\n"
    assert finish(making_in(taught), code=1) == said


def test_a_folder_that_cannot_be_written_is_one_line(taught):
    (taught.folder / "workshop").write_text("where the folder should be")
    assert finish(making_in(taught), code=1) == (
        "make workshop: workshop cannot be written (File exists): say OUT=, a folder that can\n"
    )
    said = finish(taught.make("workshop", f"OUT={taught.folder / 'else where'}"))
    assert f"{taught.folder}/else where/README.md" in said
    assert (taught.folder / "else where" / "student" / "20_cam.ipynb").is_file()
    finish(making_in(taught, "--out", taught.folder / "third"))
    assert (taught.folder / "third" / "student" / "20_cam.ipynb").is_file()
    recipe = finish(taught.make("-n", "workshop-bundle")).splitlines()[-1]
    assert 'workshop.bundle "${OUT:-workshop}"' in recipe


def test_a_workshop_that_was_killed_is_made_whole_the_next_time(tmp_path, monkeypatch):
    texts = {"a.txt": b"first", "b.txt": b"first"}
    monkeypatch.setattr(making, "contents", lambda repository: texts)
    assert making.make(tmp_path) == (2, 0)

    def stopping(path, write=making.written_whole):
        if path.name == "b.txt":
            raise KeyboardInterrupt
        return write(path)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(making, "written_whole", stopping)
        texts.update({"a.txt": b"second", "b.txt": b"second"})
        making.make(tmp_path)
    assert (tmp_path / "a.txt").read_bytes() == b"second"
    texts.update({"a.txt": b"first", "b.txt": b"first"})
    assert making.make(tmp_path) == (2, 0) and making.make(tmp_path) == (0, 0)
    assert (tmp_path / "a.txt").read_bytes() == b"first"


def test_a_record_that_is_damaged_makes_all_again(tmp_path):
    for text in ("[1, 2]", "{", ""):
        (tmp_path / making.RECORD).write_text(text)
        assert making.recorded(tmp_path) == {}


def test_make_workshop(taught):
    said = finish(taught.make("workshop", "-j2", "REPOSITORY=https://example.org/suite"))
    assert "the workshop is in workshop/README.md" in said
    student = taught.folder / "workshop" / "student" / "20_cam.ipynb"
    assert "https://example.org/suite" in student.read_text()
