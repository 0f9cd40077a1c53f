"""make reports: what is out of date and nothing else, whatever fails or is killed."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import miniature
import nbformat
import pytest
from bs4 import BeautifulSoup
from miniature import ROOT, Project, finish, make_project, processes, wait_for
from PIL import Image

from xai_suite.reports import __main__ as making
from xai_suite.reports import staleness
from xai_suite.reports.__main__ import by_notebook

GOOD = "import xai_suite.evaluation.cluster\nprint(steps)"


def add_two_notebooks(project) -> None:
    """10_runs loads a room of the suite; 20_record one of the library, with model and picture."""
    project.notebook("10_runs", GOOD)
    code = "from xai_utils import show\nshow.record(steps=steps)\nprint(steps)"
    project.notebook("20_record", code, parameters="steps = 3\nmodel = 'lite0'\nimage = 'cat'")
    project.run_file("10_runs--a")
    project.run_file("10_runs--b", "steps: 4")
    project.run_file("20_record--a")


@pytest.fixture(scope="module")
def once_built(tmp_path_factory):
    """A project after its first `make reports`, and what that printed; `built` is a copy of it."""
    project = make_project(tmp_path_factory.mktemp("once"))
    add_two_notebooks(project)
    output = finish(project.make("reports"))
    return project, output


@pytest.fixture
def built(once_built, tmp_path) -> Project:
    shutil.copytree(once_built[0].folder, tmp_path / "project")
    return Project(tmp_path / "project")


def planned(project, *options) -> dict[str, list[str]]:
    """The runs that the next call would execute, and why."""
    output = finish(project.start(sys.executable, "-m", "xai_suite.reports", "--dry-run", *options))
    return dict(line.split(": ", 1) for line in output.splitlines())


def executed(output: str) -> list[str]:
    return sorted(re.findall(r"^\[ *\d+/\d+\] (?:FAILED )?([\w-]+)", output, re.M))


# --- without an environment -----------------------------------------------------------------------


def test_help_lists_the_targets_and_needs_nothing(project):
    output = finish(project.start("make"))
    for target in (
        "env",
        "lab",
        "reports",
        "report",
        "test",
        "test-browser",
        "bench",
        "lint",
        "lock",
        "clean",
    ):
        assert f"make {target} " in output
    assert not (project.folder / ".venv").exists() and not project.build.exists()


@pytest.mark.parametrize(
    ("version", "says"),
    [("3.10", "is Python 3.10"), ("3.14", "is Python 3.14"), (None, "not there")],
)
@pytest.mark.parametrize("target", ["env", "reports", "test", "report"])
def test_a_wrong_python_gets_one_line_and_makes_nothing(project, target, version, says):
    add_two_notebooks(project)
    python = project.folder.parent / "python"
    if version:
        python.write_text(f"#!/bin/sh\necho {version}\n")
        python.chmod(0o755)
    before = sorted(project.folder.rglob("*"))
    output = finish(project.start("make", target, f"PYTHON={python}"), None)
    assert (
        output.count("\n") == 1
        and "Python 3.11, 3.12 or 3.13 is needed" in output
        and says in output
    )
    assert sorted(project.folder.rglob("*")) == before


def test_an_environment_half_built_is_built_again(project):
    """A Python that builds an environment, but whose pip is killed the first time."""
    python, log = project.folder.parent / "python", project.folder.parent / "log"
    fake = '#!/bin/sh\\necho "$2" >> "$LOG"\\ntest -e "$LOG.good"'
    python.write_text(f"""#!/bin/sh
if [ "$1" = -c ]; then echo 3.12; exit; fi
echo "$*" >> "$LOG"
mkdir -p .venv/bin && printf '{fake}' > .venv/bin/python && chmod +x .venv/bin/python
""")
    python.chmod(0o755)
    env = {**project.env, "LOG": str(log)}
    finish(project.start("make", "env", f"PYTHON={python}", env=env), None)
    assert (project.folder / ".venv").exists()
    Path(f"{log}.good").touch()
    finish(project.start("make", "env", f"PYTHON={python}", env=env))
    venv = "-m venv --clear .venv"
    assert log.read_text().splitlines() == [venv, "pip"] + [venv, "pip", "compileall", "pip"]
    assert "Nothing to be done" in finish(project.start("make", "env", f"PYTHON={python}", env=env))
    later = (project.folder / ".venv/.complete").stat().st_mtime + 1  # whatever the clock does
    os.utime(project.folder / "requirements.lock", (later, later))
    finish(project.start("make", "env", f"PYTHON={python}", env=env))
    assert log.read_text().count("--clear") == 3


def with_cuda(project, machine: str, *options, code: int | None = 0) -> tuple[str, list[str]]:
    """What `make env` prints on such a machine, and the commands of its fake Python."""
    tools, log = project.folder.parent / "tools", project.folder.parent / "log"
    tools.mkdir(exist_ok=True)
    own = """#!/bin/sh
if [ "$1" = -c ]; then echo 3.12; exit; fi
echo "$*" >> "$LOG"
rm -rf .venv; mkdir -p .venv/bin
printf '#!/bin/sh\\necho "$*" >> "$LOG"' > .venv/bin/python; chmod +x .venv/bin/python
"""
    for name, text in (("python", own), ("uname", f"#!/bin/sh\necho {machine}\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    log.write_text("")
    env = {**project.env, "LOG": str(log), "PATH": f"{tools}:{project.env['PATH']}"}
    done = project.start("make", "env", f"PYTHON={tools}/python", *options, env=env)
    return finish(done, code), log.read_text().splitlines()


def installed(commands: list[str]) -> list[str]:
    """The lock files that were installed; the environment that was made before, as `anew`."""
    found = [re.search(r"--clear|[\w-]+\.lock", command) for command in commands]
    return [match[0].replace("--clear", "anew") for match in found if match]


def test_an_environment_gets_cuda_keeps_it_and_is_built_anew_without(project):
    pc, usual, cuda = "Linux x86_64", ["anew", "requirements.lock"], "requirements-gpu.lock"
    assert installed(with_cuda(project, pc)[1]) == usual
    assert installed(with_cuda(project, pc, "GPU=1")[1]) == [cuda]
    for options in ([], ["GPU=1"]):
        output, commands = with_cuda(project, pc, *options)
        assert "Nothing to be done" in output and not commands
    os.utime(project.folder / "requirements.lock")
    assert installed(with_cuda(project, pc)[1]) == [*usual, cuda]
    assert installed(with_cuda(project, pc, "GPU=0")[1]) == usual
    assert not with_cuda(project, pc)[1] and not with_cuda(project, pc, "GPU=0")[1]


@pytest.mark.parametrize("machine", ["Darwin arm64", "Linux aarch64"])
@pytest.mark.parametrize("before", [False, True])
def test_where_there_is_no_cuda_one_line_says_so_and_nothing_is_made(project, machine, before):
    if before:
        with_cuda(project, machine)
    output, commands = with_cuda(project, machine, "GPU=1", code=None)
    assert output.count("\n") == 1 and not commands
    assert f"CUDA for Linux-x86_64 only, not for {machine.replace(' ', '-')}" in output
    assert (project.folder / ".venv").exists() == before


# --- what is out of date --------------------------------------------------------------------------


def test_the_first_reports(once_built):
    project, output = once_built
    assert executed(output) == ["10_runs--a", "10_runs--b", "20_record--a"]
    lines = [line for line in output.splitlines() if line.startswith("[")]
    for count, line in enumerate(lines, 1):
        said = rf"\[{count}/3\] [\w-]+ +\d+ s   \({3 - count} left, \d+:\d\d elapsed\)"
        assert re.fullmatch(said, line), line
    pages = ["10_runs--a.html", "10_runs--b.html", "20_record--a.html", "compare", "index.html"]
    assert sorted(os.listdir(project.site)) == pages
    index = (project.site / "index.html").read_text()
    assert all(page in index for page in pages[:-1]) and "data-left" not in index
    last = nbformat.read(project.build / "10_runs--b.ipynb", 4).cells[-1]
    assert last.outputs[0].text == "4\n"
    assert not miniature.kernels(project)


def test_the_second_reports_do_nothing(built):
    output = finish(built.make("reports"))
    assert output == "nothing to do: 3 reports are up to date (reports/site/index.html)\n"


def test_what_a_report_was_made_from_stands_in_it(built):
    report = nbformat.read(built.build / "20_record--a.ipynb", 4).metadata["report"]
    parts = report["made_from"]
    assert {"notebooks/20_record.ipynb", "requirements.lock", "parameters"} <= {*parts}
    assert {"xai_utils/show/record.py", "xai_utils/show/__init__.py"} <= {*parts}
    assert not [part for part in parts if part.startswith(("xai_suite/", "xai_utils/models"))]


def test_touching_everything_runs_nothing(built):
    for path in built.folder.rglob("*"):
        os.utime(path)
    assert planned(built) == {} and "nothing to do" in finish(built.make("reports"))


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ("reports/runs/10_runs--a.yaml", ["10_runs--a"]),
        ("notebooks/20_record.ipynb", ["20_record--a"]),
        ("xai_suite/evaluation/cluster.py", ["10_runs--a", "10_runs--b"]),
        ("xai_utils/show/record.py", ["20_record--a"]),
        ("xai_utils/__init__.py", ["20_record--a"]),
        ("xai_utils/attribution/gradients.py", []),
        ("requirements.lock", ["10_runs--a", "10_runs--b", "20_record--a"]),
    ],
)
def test_a_change_runs_again_what_was_made_from_it(built, changed, again):
    path = built.folder / changed
    text = path.read_text()
    path.write_text(f"steps: 7\n{text}" if path.suffix == ".yaml" else f"{text}\n")
    reasons = planned(built)
    assert sorted(reasons) == again
    expected = "parameters" if path.suffix == ".yaml" else changed
    assert all(expected in why for why in reasons.values())
    path.write_text(text)
    assert planned(built) == {}


def test_comments_in_a_run_file_are_no_parameters(built):
    built.run_file("10_runs--b", "# four of them\nsteps: 4\n")
    assert planned(built) == {}


@pytest.mark.parametrize("place", ["data/images", "notebooks", "elsewhere"])
def test_a_replaced_picture_or_weights_file_runs_its_reports_again(built, place):
    (built.folder / "elsewhere").mkdir()
    (built.folder / "data" / "images").mkdir(parents=True)
    (built.folder / "data" / "models").mkdir()
    picture, weights = built.folder / place / "my cat.png", built.folder / "data/models/net_w.h5"
    picture.write_text("a cat")
    weights.write_text("numbers")
    name = "../elsewhere/my cat.png" if place == "elsewhere" else "my cat.png"
    built.run_file("20_record--mine", f"image: {name}\nmodel: net")
    built.run_file("20_record--others", "image: dog\nmodel: nets")
    finish(built.make("reports"))
    assert planned(built) == {}
    picture.write_text("another")
    (reason,) = planned(built).items()
    assert reason[0] == "20_record--mine" and reason[1].endswith("my cat.png")
    picture.write_text("a cat")
    weights.write_text("other numbers")
    assert planned(built) == {"20_record--mine": "data/models/net_w.h5"}


def test_what_changes_while_a_run_is_under_way_runs_it_again(built):
    built.notebook("15_slow", f"{GOOD}\n{SLOW}")
    built.run_file("15_slow--x")
    process = built.make("reports", "RUNS=15_*")
    wait_for((built.folder / "notebooks" / "started").exists)
    path = built.folder / "xai_suite" / "evaluation" / "cluster.py"
    path.write_text(path.read_text() + "\n# changed\n")
    (built.folder / "notebooks" / "go on").touch()
    finish(process)
    assert planned(built)["15_slow--x"] == "xai_suite/evaluation/cluster.py"


def test_a_changed_run_alone_is_executed_and_its_page_written(built):
    built.run_file("10_runs--b", "steps: 5")
    output = finish(built.make("reports"))
    assert executed(output) == ["10_runs--b"] and "[1/1]" in output
    assert "nothing to do" in finish(built.make("reports"))


@pytest.mark.parametrize("changed", ["xai_suite/reports/site.py", "reports/template/style.css"])
def test_what_pages_are_made_with_renders_them_again_and_executes_nothing(built, changed):
    path = built.folder / changed
    path.write_text(path.read_text() + "\n")
    before = (built.site / "20_record--a.html").stat().st_mtime_ns
    assert executed(finish(built.make("reports"))) == []
    assert (built.site / "20_record--a.html").stat().st_mtime_ns > before
    assert "nothing to do" in finish(built.make("reports"))


def test_a_page_that_is_gone_comes_back(built):
    (built.site / "10_runs--a.html").unlink()
    assert executed(finish(built.make("reports"))) == []
    assert (built.site / "10_runs--a.html").exists()


def test_a_report_comes_and_goes_with_its_file(built):
    (built.folder / "reports/runs/10_runs--a.yaml").unlink()
    built.run_file("10_runs--c", "steps: 5")
    assert executed(finish(built.make("reports"))) == ["10_runs--c"]
    pages = ["10_runs--b.html", "10_runs--c.html", "20_record--a.html", "compare", "index.html"]
    assert sorted(os.listdir(built.site)) == pages
    assert "nothing to do: 3" in finish(built.make("reports"))


def test_a_part_of_the_runs(built):
    built.run_file("10_runs--a", "steps: 8")
    built.run_file("20_record--a", "steps: 8")
    assert executed(finish(built.make("reports", "RUNS=10_* *--b"))) == ["10_runs--a"]
    index = (built.site / "index.html").read_text()
    assert "20_record--a.html" in index  # the others stay in the gallery


@pytest.mark.parametrize("globs", ["11_runs*", "10_* 11_runs*"])
def test_a_pattern_without_a_run_is_an_error_before_any_work(built, globs):
    built.run_file("10_runs--a", "steps: 8")
    output = finish(built.make("reports", f"RUNS={globs}"), None)
    assert "no run is called '11_runs*'; nearest: 10_runs--" in output
    assert executed(output) == []


def test_pages_alone_are_told_from_runs(built):
    (built.site / "10_runs--a.html").unlink()
    output = finish(built.make("reports", "RUNS=10_runs--a"))
    assert "no run is out of date, of 1: only pages are written anew" in output


def test_a_run_file_with_an_impossible_name(built):
    for name in ("10_runs--my cat.yaml", "10_runs--c.yml"):
        path = built.folder / "reports" / "runs" / name
        path.touch()
        output = finish(built.make("reports"), None)
        assert f"reports/runs/{name}: a run file is named" in output and output.count("\n") == 2
        path.unlink()


@pytest.mark.parametrize("jobs", ["0", "two", "-1"])
def test_an_impossible_number_of_jobs_is_refused(built, jobs):
    output = finish(built.make("reports", f"JOBS={jobs}"), None)
    assert f"not {jobs!r}" in output and "Traceback" not in output


def test_a_notebook_has_one_kernel_and_no_other_has_it(built):
    for name in ("11_a", "12_b"):
        built.notebook(name, "import os; print(os.getpid())")
        for run in "xyz":
            built.run_file(f"{name}--{run}")
    finish(built.make("reports", "RUNS=11_* 12_*", "JOBS=1"))

    def kernels_of(name):
        paths = built.build.glob(f"{name}--*.ipynb")
        return {nbformat.read(path, 4).cells[-1].outputs[0].text for path in paths}

    one, other = kernels_of("11_a"), kernels_of("12_b")
    assert len(one) == len(other) == 1 and one != other


def test_the_longest_notebooks_start_first_after_the_first_of_the_suite(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    for cached in (staleness.run_names, staleness.about, staleness.needed_by):
        cached.cache_clear()
    for name, minutes in (("00_start", 0.2), ("10_a", 0.5), ("20_b", 2), ("61_c", 0.1)):
        project.notebook(name, report={"minutes": minutes})
    project.notebook("66_all", report={"minutes": 9, "needs": "61_*"})
    names = ["00_start--x", "10_a--x", "10_a--y", "20_b--x", "61_c--x", "66_all--x"]
    for name in names:
        project.run_file(name)
    order = by_notebook(names)
    assert [*order] == ["00_start", "61_c", "20_b", "10_a", "66_all"]
    assert order["10_a"] == ["10_a--x", "10_a--y"]
    for cached in (staleness.run_names, staleness.about, staleness.needed_by):
        cached.cache_clear()


def test_a_run_that_needs_others_comes_after_them_and_reads_them(built):
    code = "from xai_suite import reports\nprint(reports.records_of('20_*'))"
    built.notebook("66_summary", code, report={"needs": "20_record--*"})
    built.run_file("66_summary--all")
    built.run_file("20_record--a", "steps: 8")
    output = finish(built.make("reports", "RUNS=66_*"))
    assert executed(output) == ["20_record--a", "66_summary--all"]
    assert "[2/2] 66_summary--all" in output
    last = nbformat.read(built.build / "66_summary--all.ipynb", 4).cells[-1]
    assert last.outputs[0].text == "{'20_record--a': {'steps': 8}}\n"
    assert planned(built) == {}
    built.run_file("20_record--new")
    assert sorted(planned(built)) == ["20_record--new", "66_summary--all"]


def test_runs_that_need_each_other_do_not_wait_for_ever(built):
    for name, needs in (("30_a", "31_*"), ("31_b", "30_*")):
        built.notebook(name, report={"needs": needs})
        built.run_file(f"{name}--x")
    assert executed(finish(built.make("reports", "RUNS=30_*"))) == ["30_a--x", "31_b--x"]


# --- while it works -------------------------------------------------------------------------------


def test_the_index_is_true_while_runs_are_under_way(waiting):
    project, make = waiting
    index = (project.site / "index.html").read_text()
    assert 'data-left="1"' in index and re.search(r"running: <span[^>]*>15_slow--x<", index)
    assert "10_runs--a.html" in index and "has not been run" not in index
    (project.folder / "notebooks" / "go on").touch()
    finish(make)
    index = (project.site / "index.html").read_text()
    assert "data-left" not in index and "15_slow--x.html" in index


def test_a_first_index_is_there_while_the_first_run_is_under_way(project):
    project.notebook("15_slow", SLOW)
    project.run_file("15_slow--x")
    project.run_file("15_slow--y")
    make = project.make("reports")
    wait_for((project.folder / "notebooks" / "started").exists)
    index = (project.site / "index.html").read_text()
    assert 'data-left="2"' in index and re.search(r"running: <span[^>]*>15_slow--x<", index)
    assert index.count('<article class="card') == 2 and "Failed" not in index
    (project.folder / "notebooks" / "go on").touch()
    finish(make)


# --- failures -------------------------------------------------------------------------------------


def test_a_failing_run_does_not_stop_the_others_and_is_tried_again(built):
    built.notebook("15_bad", "raise ValueError('no <b>luck</b>')")
    built.run_file("15_bad--x")
    built.run_file("16_none--x")
    built.run_file("20_record--a", "steps: 8")
    output = finish(built.make("reports"), 2)
    assert executed(output) == ["15_bad--x", "16_none--x", "20_record--a"]
    assert "FAILED 15_bad--x: cell 2: ValueError: no <b>luck</b> (partial" in output
    assert (
        "FAILED 16_none--x: reports/runs/16_none--x.yaml: there is no notebook '16_none'" in output
    )
    assert len(re.findall(r"make: \*\*\*", output)) == 1 and "Traceback" not in output
    index = (built.site / "index.html").read_text()
    assert "no &lt;b&gt;luck&lt;/b&gt;" in index and "<b>luck" not in index
    assert "no &lt;b&gt;luck" in (built.site / "15_bad--x.html").read_text()
    assert not (built.build / "15_bad--x.ipynb").exists()

    (built.folder / "reports/runs/16_none--x.yaml").unlink()
    assert executed(finish(built.make("reports"), 2)) == ["15_bad--x"]
    built.notebook("15_bad", "print('good luck')")
    assert executed(finish(built.make("reports"))) == ["15_bad--x"]
    assert "no &lt;b&gt;luck" not in (built.site / "index.html").read_text()
    assert "nothing to do: 4" in finish(built.make("reports"))


# --- a notebook that ends early -------------------------------------------------------------------

ENDS = """from xai_utils import show
print("looked")
show.record(steps=steps)
if steps > 3: show.end(f"{steps} steps <b>lead</b> nowhere: $x$ is _new_")
"""
WHY = "8 steps <b>lead</b> nowhere: $x$ is _new_"


def test_a_notebook_that_ends_early_is_a_good_report_of_what_came_before(built):
    built.notebook("30_ends", ENDS, "print('not reached')")
    built.run_file("30_ends--early", "steps: 8")
    built.run_file("30_ends--late")
    output = finish(built.make("reports", "RUNS=30_*"))
    assert executed(output) == ["30_ends--early", "30_ends--late"] and "FAILED" not in output
    assert "30_ends--early  " in output and not (built.build / "failed").exists()

    notebook = nbformat.read(built.build / "30_ends--early.ipynb", 4)
    about = notebook.metadata["report"]
    assert about["ended"] == WHY and about["error"] is None
    assert "xai_utils/show/record.py" in about["made_from"]
    kinds = {output.output_type for cell in notebook.cells for output in cell.get("outputs", [])}
    assert kinds == {"stream", "display_data"} and "not reached" not in str(notebook)

    page = BeautifulSoup((built.site / "30_ends--early.html").read_text(), "html.parser")
    *_, note = page.select("main .note")
    assert note.get_text() == WHY
    assert "looked" in page.main.get_text() and "not reached" not in page.main.get_text()
    assert not page.select(".banner, .traceback, .failure")
    index = BeautifulSoup((built.site / "index.html").read_text(), "html.parser")
    early, late = index.select(".card[data-words*='30 ends']")
    assert early.select_one(".note").get_text() == WHY and not late.select(".note, .error")
    assert early.a["href"] == "30_ends--early.html" and not index.select(".failed")
    assert early.select_one(".numbers dd").get_text() == "8"

    assert "not reached" in (built.site / "30_ends--late.html").read_text()
    assert "ended" not in nbformat.read(built.build / "30_ends--late.ipynb", 4).metadata["report"]
    assert "nothing to do" in finish(built.make("reports"))


def test_an_end_in_a_hidden_cell_names_no_place_of_this_machine(built):
    code = "import os\nfrom xai_utils import show\nshow.end('nothing in ' + os.getcwd())"
    path = built.notebook("30_ends", code)
    notebook = nbformat.read(path, 4)
    notebook.cells[-1].metadata["tags"] = ["hide"]
    path.write_text(nbformat.writes(notebook))
    finish(built.make("report", "NOTEBOOK=30_ends"))
    page = (built.site / "one-off" / "30_ends--default.html").read_text()
    index = (built.site / "one-off" / "index.html").read_text()
    for html in (page, index):
        assert '<p class="note">nothing in notebooks</p>' in html
        assert str(built.folder) not in html


def test_an_error_that_is_only_called_like_the_end_is_an_error(built):
    built.notebook("30_ends", "class Ended(Exception): pass\nraise Ended('tired')")
    built.run_file("30_ends--x")
    output = finish(built.make("reports", "RUNS=30_*"), 2)
    assert "FAILED 30_ends--x: cell 2: Ended: tired" in output


# --- other models, other pictures, other machines -------------------------------------------------


@pytest.mark.parametrize(
    ("model", "folder", "value"),
    [
        ("vgg19", "vgg19", "vgg19"),
        ("weights/own.keras", r"own-[0-9a-f]{8}", "../weights/own.keras"),
        ("it's $(touch x).keras", r"it-s-touch-x-[0-9a-f]{8}", "../it's $(touch x).keras"),
    ],
)
def test_another_model_has_a_folder_of_its_own(built, model, folder, value):
    before = {path: path.stat().st_mtime_ns for path in built.build.glob("*.ipynb")}
    if "." in model:
        (built.folder / "weights").mkdir()
        (built.folder / model).touch()
    output = finish(built.make("reports", f"MODEL={model}", "RUNS=20_*"))
    assert executed(output) == ["20_record--a"]
    [made] = [path for path in built.build.parent.iterdir() if path != built.build]
    assert re.fullmatch(folder, made.name)
    notebook = nbformat.read(made / "20_record--a.ipynb", 4)
    assert notebook.metadata["report"]["model"] == value
    pages = ["20_record--a.html", "compare", "index.html"]
    assert sorted(os.listdir(built.site / made.name)) == pages
    assert f'href="{made.name}/index.html"' in (built.site / "index.html").read_text()
    assert {path: path.stat().st_mtime_ns for path in built.build.glob("*.ipynb")} == before
    assert (built.site / "10_runs--a.html").exists() and not (built.folder / "x").exists()


def test_two_models_of_one_name_have_two_folders(built):
    for place in ("one", "other"):
        (built.folder / place).mkdir()
        (built.folder / place / "net.keras").touch()
        finish(built.make("reports", f"MODEL={place}/net.keras", "RUNS=20_*"))
    assert len([*built.build.parent.glob("net-*")]) == 2


def test_a_launcher_is_put_before_each_notebooks_runs(built):
    launcher = built.folder / "launcher"
    launcher.write_text('#!/bin/sh\necho "$@" >> launched\necho hello\nshift\nexec "$@"\n')
    launcher.chmod(0o755)
    built.run_file("10_runs--b", "steps: 7")
    output = finish(built.make("reports", "LAUNCH=./launcher -c4"))
    assert "\nhello\n" in f"\n{output}"  # what it says itself is passed on
    [line] = (built.folder / "launched").read_text().splitlines()
    assert line.startswith("-c4 ")
    assert "xai_suite.reports.runner reports/build/default 10_runs--b" in line


@pytest.mark.parametrize("launch", ["no_such_launcher -c4", "'unfinished"])
def test_a_launcher_that_cannot_be_started_is_told_in_a_line(built, launch):
    built.run_file("10_runs--b", "steps: 7")
    output = finish(built.make("reports", f"LAUNCH={launch}"), None)
    assert "Traceback" not in output and launch.split()[0].strip("'") in output


NASTY = "my $HOME 'cat' \"1\" $(touch x) <script>alert(1)<.png"


SHARES = """
import os
print("threads:", os.environ.get("TF_NUM_INTRAOP_THREADS"))
print("MiB of the GPU:", os.environ.get("XAI_GPU_MEMORY"))
"""


def test_runs_side_by_side_share_the_processors_and_the_gpu(project):
    for name in ("TF_NUM_INTRAOP_THREADS", "XAI_GPU_MEMORY", "CUDA_VISIBLE_DEVICES"):
        project.env.pop(name, None)
    asks = project.folder.parent / "bin" / "nvidia-smi"
    asks.parent.mkdir()
    # two GPUs, of 80,000 and of 100,000 MiB
    asks.write_text("#!/bin/sh\n[ $1 = --query-gpu=memory.total ] && echo 80000 && echo 100000\n")
    asks.chmod(0o755)
    project.env["PATH"] = f"{asks.parent}:{project.env['PATH']}"
    project.notebook("10_a", SHARES)
    project.run_file("10_a--one")
    project.notebook("11_b")
    project.run_file("11_b--one")
    half = max(1, os.cpu_count() // 2)  # two at a time is what it does of itself
    for options, threads in (
        ([], half),
        (["JOBS=2"], half),
        (["JOBS=1"], None),
        (["LAUNCH=env"], None),
        (["RUNS=10_a--one"], None),  # nothing beside it
    ):
        project.run_file("10_a--one", f"steps: {len(options) + 5}")
        shutil.rmtree(project.build, ignore_errors=True)
        finish(project.make("reports", *options))
        text = (project.build / "10_a--one.ipynb").read_text()
        # a tenth is left for what CUDA needs of its own
        share = threads and 36000
        assert f"threads: {threads}\\n" in text and f"GPU: {share}\\n" in text, options


@pytest.mark.parametrize(
    ("said", "memory"),
    [("echo 24564", 24564), ("echo '[N/A]'", 0), ("echo No devices were found; exit 6", 0)],
)
def test_the_memory_of_a_gpu_is_what_nvidia_smi_says(said, memory, tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{said}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert making.gpu_memory.__wrapped__() == memory
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert making.gpu_memory.__wrapped__() == 0


def test_the_gpu_that_was_chosen_is_the_one_that_is_asked(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text('#!/bin/sh\n[ "$3" = --id=3 ] && echo 8000 || echo 4000\n')
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert making.gpu_memory.__wrapped__() == 4000
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert making.gpu_memory.__wrapped__() == 8000


def test_a_report_is_out_of_date_when_gpus_round_otherwise(built):
    built.env["XAI_TF32"] = "1"
    assert {*planned(built).values()} == {"XAI_TF32"}
    built.env["XAI_TF32"] = "0"
    assert planned(built) == {}


def test_one_report_on_a_picture_of_any_name(built):
    elsewhere = built.folder.parent / "else where"
    elsewhere.mkdir()
    (elsewhere / NASTY).touch()
    command = [
        "make",
        f"PY={sys.executable}",
        "-C",
        "../project",
        "report",
        "NOTEBOOK=20_record",
        f"IMAGE={NASTY}",
    ]
    shell = f"cd {shlex.quote(str(elsewhere))} && exec {shlex.join([*command, 'PARAMS=steps=8'])}"
    output = finish(built.start("sh", "-c", shell))
    [page] = (built.site / "one-off").glob("*--*.html")
    assert 'href="one-off/index.html"' in (built.site / "index.html").read_text()
    # where its "All reports" leads
    assert f'href="{page.name}' in (built.site / "one-off" / "index.html").read_text()
    assert f"the report is in reports/site/one-off/{page.name}" in output
    [path] = (built.folder / "reports/build/one-off").glob("*.ipynb")
    changed = nbformat.read(path, 4).metadata["report"]["changed"]
    assert changed == {"steps": 8, "image": f"../../else where/{NASTY}"}
    assert "<script>alert" not in page.read_text() and "alert(1)" in page.read_text()
    assert not (elsewhere / "x").exists() and not (built.folder / "x").exists()
    assert str(built.folder.parent) not in page.read_text() + path.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say which notebook: make report NOTEBOOK="),
        (["NOTEBOOK=20_reprot"], "there is no notebook '20_reprot'; did you mean 20_record?"),
        (
            ["NOTEBOOK=20_record", "PARAMS=stps=8"],
            "'stps' is not a parameter of 20_record; did you mean steps?",
        ),
        (["NOTEBOOK=20_record", "PARAMS=steps"], "PARAMS: 'steps' is not like steps=8"),
        (["NOTEBOOK=20_record", "PARAMS=steps='8"], "PARAMS: No closing quotation"),
        (["NOTEBOOK=10_runs", "IMAGE=cat"], "'image' is not a parameter of 10_runs; it has steps"),
    ],
)
def test_one_report_asked_for_in_a_wrong_way(built, arguments, message):
    output = finish(built.make("report", *arguments), 2)
    assert message in output and output.count("\n") == 2  # and make's own line
    assert not (built.folder / "reports/build/one-off").exists()


def test_reports_of_two_pictures_are_two_reports(built):
    for name in ("a/001.png", "b/001.png"):
        (built.folder / name).parent.mkdir()
        (built.folder / name).touch()
        finish(built.make("report", "NOTEBOOK=20_record", f"IMAGE={name}"))
    pages = [page.stem for page in (built.site / "one-off").glob("20_*.html")]
    assert len(pages) == 2 and all(page.startswith("20_record--001-") for page in pages)


def test_one_report_says_what_it_was_asked_for(built):
    """Also under the name of a run file, which says something else."""
    built.run_file("20_record--steps-8", "steps: 4")
    finish(built.make("report", "NOTEBOOK=20_record", "PARAMS=steps=8"))
    [path] = (built.folder / "reports/build/one-off").glob("*.ipynb")
    parts = nbformat.read(path, 4).metadata["report"]["made_from"]
    assert path.stem == "20_record--steps-8"
    assert parts["parameters"] == staleness.combined({"steps": 8})


def test_a_failed_report_is_listed_until_it_succeeds_or_its_picture_is_no_more(built):
    read = "from xai_utils import pictures\nprint(pictures.load_image(image).shape)"
    built.notebook("30_reads", read, parameters="image = 'cat'")
    damaged = built.folder / "damaged.png"
    damaged.write_text("no picture")

    def report(image, code):
        finish(built.make("report", "NOTEBOOK=30_reads", f"IMAGE={image}"), code)
        html = (built.site / "one-off" / "index.html").read_text()
        cards = BeautifulSoup(html, "html.parser").select(".card")
        return {card.select_one(".run").get_text(): "failed" in card["class"] for card in cards}

    [(label, failed)] = report("damaged.png", 2).items()
    assert label.startswith("damaged-") and failed
    # who mistyped it sees why, once
    assert report("damgaed.png", 2) == {label: True, "damgaed.png": True}
    Image.new("RGB", (9, 9)).save(damaged)
    assert report("damaged.png", 0) == {label: False}
    assert [*(built.folder / "reports/build/one-off/failed").iterdir()] == []
    assert not [*(built.site / "one-off").glob("*damgaed*")]


# --- folders that cannot be written ---------------------------------------------------------------


@pytest.mark.parametrize("target", ["reports", "report"])
def test_a_folder_that_cannot_be_written_is_one_line(built, target):
    (built.folder / "a file").touch()
    arguments = ["OUT=a file", "NOTEBOOK=20_record"]
    output = finish(built.make(target, *arguments), None)
    assert f"make {target}: a file cannot be written (not a directory): say OUT=" in output
    assert output.count("\n") == 2


# Root writes everywhere, unless it gives that right up.
OBEYING = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
OBEYING = OBEYING if os.geteuid() == 0 else ["env"]


@pytest.mark.skipif(
    not shutil.which(OBEYING[0]) or subprocess.call([*OBEYING, "true"]) != 0,
    reason="root cannot give up its rights here",
)
def test_a_checkout_and_a_home_that_cannot_be_written_say_what_to_do(built, tmp_path):
    built.run_file("10_runs--b", "steps: 7")
    home = tmp_path / "home"
    home.mkdir()
    for path in [home, built.folder, *built.folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    env = {**built.env, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("JUPYTER_RUNTIME_DIR")

    def make(*arguments, code):
        command = [*OBEYING, "make", f"PY={sys.executable}", *arguments]
        return finish(built.start(*command, env=env), code)

    for target in ("reports", "report"):
        output = make(target, "NOTEBOOK=20_record", code=2)
        says = f"make {target}: reports cannot be written (permission denied): say OUT="
        assert output.startswith(says) and output.count("\n") == 2  # and make's own line
    output = make("reports", "RUNS=10_*", f"OUT={tmp_path / 'mine'}", code=0)
    assert executed(output) == ["10_runs--a", "10_runs--b"]


def test_reports_go_where_they_are_asked_for(built, tmp_path):
    before = sorted(built.folder.rglob("*"))
    output = finish(built.make("reports", f"OUT={tmp_path / 'my reports'}", "RUNS=10_*"))
    assert executed(output) == ["10_runs--a", "10_runs--b"]
    made = {path.name for path in (tmp_path / "my reports" / "site").iterdir()}
    assert made == {"10_runs--a.html", "10_runs--b.html", "compare", "index.html"}
    finish(built.make("report", f"OUT={tmp_path / 'my reports'}", "NOTEBOOK=10_runs"))
    assert (tmp_path / "my reports" / "site" / "one-off" / "10_runs--default.html").exists()
    after = [path for path in sorted(built.folder.rglob("*")) if "__pycache__" not in path.parts]
    assert after == [path for path in before if "__pycache__" not in path.parts]


def test_a_home_that_cannot_be_written_does_not_matter(built):
    env = {**built.env, "HOME": "/dev/null"}
    env.pop("JUPYTER_RUNTIME_DIR")
    built.run_file("10_runs--b", "steps: 7")
    assert executed(finish(built.make("reports", env=env))) == ["10_runs--b"]


# --- death ----------------------------------------------------------------------------------------

SLOW = (
    "open('started', 'w').close()\nimport time, os\nwhile not os.path.exists('go on'):"
    " time.sleep(0.1)"
)


@pytest.fixture
def waiting(built):
    """A `make reports` of two notebooks, one in the middle of a cell."""
    built.notebook("15_slow", SLOW)
    built.run_file("15_slow--x")
    built.run_file("10_runs--a", "steps: 9")
    before = (built.site / "10_runs--a.html").stat().st_mtime_ns
    process = built.make("reports", start_new_session=True)
    wait_for((built.folder / "notebooks" / "started").exists)
    wait_for(lambda: (built.site / "10_runs--a.html").stat().st_mtime_ns > before)
    wait_for(lambda: 'data-left="1"' in (built.site / "index.html").read_text())
    yield built, process
    if process.poll() is None:
        process.kill()


def finishes(project, *again):
    """No kernel is left, and the next call runs what was not finished."""
    wait_for(lambda: not miniature.kernels(project) and not processes(project, "xai_suite"), 30)
    (project.folder / "notebooks" / "go on").touch()
    assert executed(finish(project.make("reports"))) == sorted(again)
    assert "nothing to do: 4" in finish(project.make("reports"))
    assert not [path for path in (project.folder / "reports").rglob(".*")]


def test_make_killed(waiting):
    project, make = waiting
    make.kill()
    make.communicate()
    finishes(project, "15_slow--x")


def test_runner_killed(waiting):
    project, make = waiting
    [runner] = [
        process
        for process in processes(project, "xai_suite.reports.runner")
        if "15_slow" in " ".join(process.cmdline())
    ]
    runner.kill()
    output = finish(make, 2)
    assert "FAILED 15_slow--x" in output and "Traceback" not in output
    assert "15_slow" in (project.site / "index.html").read_text()
    finishes(project, "15_slow--x")


def test_orchestrator_killed(waiting):
    project, make = waiting
    [mine] = [
        one for one in processes(project, "xai_suite.reports") if "runner" not in str(one.cmdline())
    ]
    mine.kill()
    finish(make, None)
    finishes(project, "15_slow--x")


def test_kernel_killed(waiting):
    project, make = waiting
    wait_for(lambda: len(miniature.kernels(project)) == 1)
    miniature.kernels(project)[0].kill()
    output = finish(make, 2)
    assert "FAILED 15_slow--x: cell 2: kernel died" in output
    finishes(project, "15_slow--x")


def test_ctrl_c(waiting):
    project, make = waiting
    os.killpg(make.pid, signal.SIGINT)  # as a terminal does: make and its runners
    output = finish(make, None)
    assert "Traceback" not in output
    index = (project.site / "index.html").read_text()
    assert 'data-left="1"' in index and "running:" not in index
    finishes(project, "15_slow--x")


# --- the notebooks' own tests ---------------------------------------------------------------------


def test_nbval_runs_kernels_one_at_a_time_and_finds_errors(project):
    shutil.copy2(ROOT / "notebooks" / "conftest.py", project.folder / "notebooks")
    for name in ("10_a", "11_b"):
        project.notebook(name, GOOD)
    recipe = finish(project.make("-n", "test")).splitlines()[-1]
    finish(project.start("sh", "-c", recipe))
    runtime = Path(project.env["JUPYTER_RUNTIME_DIR"])
    assert list(runtime.glob("kernel-start-*.lock"))
    project.notebook("11_b", "1/0")
    assert "11_b.ipynb" in finish(project.start("sh", "-c", recipe), 1)
