"""make: what is out of date and nothing else, failures kept apart; the next call finishes what a
killed one left.
"""

import os
import re
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import miniature
import nbformat
import pytest
from miniature import ROOT, Project, finish, make_project, processes, wait_for

from xai_suite.reports.dependencies import kernels, rules_for_make

GOOD = "from xai_utils import {module}\nprint(steps)"


def add_two_notebooks(project) -> None:
    """10_runs imports xai_utils.runs; 20_report imports xai_utils.report, and has a model."""
    project.notebook("10_runs", GOOD.format(module="runs"))
    project.notebook(
        "20_report",
        GOOD.format(module="report"),
        parameters="steps = 3\nmodel = 'lite0'\nimage = 'cat'",
    )
    project.run_file("10_runs--a")
    project.run_file("10_runs--b", "steps: 4")
    project.run_file("20_report--a")


@pytest.fixture(scope="module")
def once_built(tmp_path_factory):
    """A project after its first `make -j2 reports`, and what that printed. Tests take a copy of it
    (`built`).
    """
    project = make_project(tmp_path_factory.mktemp("once"))
    add_two_notebooks(project)
    output = finish(project.make("-j2", "reports"))
    return project, output


@pytest.fixture
def built(once_built, tmp_path) -> Project:
    shutil.copytree(once_built[0].folder, tmp_path / "project")  # with the files' times
    return Project(tmp_path / "project")


def planned(output: str) -> list[str]:
    """The runs a dry run of make would execute."""
    commands = re.findall(r"runner run [\w/]+((?: reports/runs/[\w-]+\.yaml)+)", output)
    return sorted(re.findall(r"([\w-]+)\.yaml", " ".join(commands)))


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


def test_a_dry_run_builds_no_environment(project):
    add_two_notebooks(project)
    output = finish(project.start("make", "-n", "reports", f"PYTHON={sys.executable}"))
    assert "-m venv" in output and planned(output) == ["10_runs--a", "10_runs--b", "20_report--a"]
    assert not (project.folder / ".venv").exists() and not list(project.build.glob("*.ipynb"))


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
    os.utime(project.folder / "requirements.lock")
    finish(project.start("make", "env", f"PYTHON={python}", env=env))
    assert log.read_text().count("--clear") == 3


# --- what is out of date --------------------------------------------------------------------------


def test_the_first_reports(once_built):
    project, output = once_built
    assert executed(output) == ["10_runs--a", "10_runs--b", "20_report--a"]
    lines = [line for line in output.splitlines() if line.startswith("[")]
    for count, line in enumerate(lines, 1):  # also with -j
        assert re.fullmatch(
            rf"\[{count}/3\] [\w-]+ +\d+ s   \({3 - count} left, \d+:\d\d elapsed\)", line
        ), line
    pages = ["10_runs--a.html", "10_runs--b.html", "20_report--a.html", "index.html"]
    assert sorted(os.listdir(project.site)) == pages
    index = (project.site / "index.html").read_text()
    assert all(page in index for page in pages[:-1])
    assert nbformat.read(project.build / "10_runs--b.ipynb", 4).cells[-1].outputs[0].text == "4\n"
    assert not miniature.kernels(project)


def test_the_second_reports_do_nothing(built):
    output = finish(built.make("reports"))
    assert output == "nothing to do: 3 reports are up to date (reports/site/index.html)\n"


@pytest.mark.parametrize(
    ("touched", "again"),
    [
        ("reports/runs/10_runs--a.yaml", ["10_runs--a"]),
        ("notebooks/20_report.ipynb", ["20_report--a"]),
        ("xai_utils/runs.py", ["10_runs--a", "10_runs--b"]),
        ("xai_utils/report.py", ["20_report--a"]),
        ("xai_utils/__init__.py", ["10_runs--a", "10_runs--b", "20_report--a"]),
        ("xai_utils/runner.py", []),
    ],
)
def test_touching_a_file_runs_again_what_depends_on_it(built, touched, again):
    os.utime(built.folder / touched)
    output = finish(built.make("reports", "-n"))
    assert planned(output) == again
    counted = (built.build / "progress").read_text().split()[0]
    assert int(counted) == len(again)


def test_touching_one_run_file_executes_that_run(built):
    os.utime(built.folder / "reports/runs/10_runs--b.yaml")
    output = finish(built.make("reports"))
    assert executed(output) == ["10_runs--b"] and "[1/1]" in output
    assert "nothing to do" in finish(built.make("reports"))


def test_imports_of_imports_count(built):
    with (built.folder / "xai_utils" / "report.py").open("a") as file:
        file.write("\nfrom .dependencies import imported\n")
    finish(built.make("reports", "-t"))  # all up to date
    time.sleep(0.1)  # file times tick in milliseconds
    os.utime(built.folder / "xai_utils" / "dependencies.py")
    output = finish(built.make("reports", "-n"))
    assert planned(output) == ["20_report--a"]


@pytest.mark.parametrize("touched", ["xai_utils/publish.py", "reports/template/style.css"])
def test_touching_what_pages_are_made_with_renders_and_executes_nothing(built, touched):
    os.utime(built.folder / touched)
    output = finish(built.make("reports", "-n"))
    assert "runner run" not in output
    assert output.count("publish pages") == 3 and output.count("publish index") == 1


def test_a_report_comes_and_goes_with_its_file(built):
    (built.folder / "reports/runs/10_runs--a.yaml").unlink()
    built.run_file("10_runs--c", "steps: 5")
    assert executed(finish(built.make("reports"))) == ["10_runs--c"]
    assert sorted(os.listdir(built.site)) == [
        "10_runs--b.html",
        "10_runs--c.html",
        "20_report--a.html",
        "index.html",
    ]
    assert "nothing to do: 3" in finish(built.make("reports"))


def test_a_part_of_the_runs(built):
    for path in ("reports/runs/10_runs--a.yaml", "reports/runs/20_report--a.yaml"):
        os.utime(built.folder / path)
    assert executed(finish(built.make("reports", "RUNS=10_* *--b"))) == ["10_runs--a"]
    assert (
        "20_report--a.html" in (built.site / "index.html").read_text()
    )  # the others stay in the gallery
    assert "no file in reports/runs matches RUNS='11_*'" in finish(
        built.make("reports", "RUNS=11_*"), None
    )


def test_a_run_file_with_an_impossible_name(built):
    for name in ("10_runs--my cat.yaml", "10_runs--c.yml"):
        path = built.folder / "reports" / "runs" / name
        path.touch()
        output = finish(built.make("reports"), None)
        assert output.count("\n") == 1 and f"reports/runs/{name}: a run file is named" in output
        path.unlink()


def test_runs_of_a_notebook_share_a_kernel(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    names = ["10_a--x", "10_a--y", "20_b--x", "21_c--x", "21_c--y", "21_c--z"]
    assert kernels({*names}, False) == [names[:2], names[2:3], names[3:5], names[5:]]
    assert kernels({*names[3:]}, False) == [
        [name] for name in names[3:]
    ]  # or a processor would idle
    assert kernels({*names}, True) == [[name] for name in names]


def test_notebooks_of_few_runs_share_a_kernel_too_when_there_are_many(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    many = [f"10_a--{i:02}" for i in range(60)]
    names = ["20_b--x", "21_c--x", "21_c--y", "22_d--x", "66_all--x"]
    found = kernels({*many, *names}, False, {"66_all--x"})
    assert found == [many[:17], many[17:34], many[34:51], many[51:] + names[:4], names[4:]]
    single = {f"{i:02}_a--x" for i in range(40)}
    assert [*map(len, kernels(single, False))] == [3, 3, 3, 3, 4, 6, 8, 10]  # the last start first
    assert len(kernels(single, True)) == 40


def test_kernels_that_others_wait_for_come_first_then_the_last_and_in_the_middle_what_waits():
    build = Path("build")
    waits = ["build/61_b--x.ipynb", "build/61_b--y.ipynb"]
    needed = {
        "10_a--x": [],
        "66_all--x": waits,
        "61_b--x": ["notebooks/61_b.ipynb"],
        "70_d--x": [],
        "71_e--x": [],
    }
    lines = rules_for_make({*needed}, True, build, needed)
    order = [f"kernel-{name}--x" for name in ("61_b", "71_e", "66_all", "70_d", "10_a")]
    assert lines[1].split(" = ")[1].split() == order
    assert "kernel-66_all--x: build/61_b--x.ipynb" in lines  # and not what is up to date
    assert "build/61_b--x.ipynb $(SITE)/61_b--x.html: kernel-61_b--x ;" in lines


def test_a_run_that_needs_others_comes_after_them(built):
    code = (
        "from pathlib import"
        " Path\nprint(len(list(Path('../reports/build/default').glob('10_*.ipynb'))))"
    )
    built.notebook("66_summary", code, report={"needs": "10_runs--*"})
    built.run_file("66_summary--all")
    for name in "ab":
        os.utime(built.folder / f"reports/runs/10_runs--{name}.yaml")
    output = finish(built.make("-j2", "reports", "RUNS=66_*"))
    assert (
        executed(output) == ["10_runs--a", "10_runs--b", "66_summary--all"]
        and "[3/3] 66_summary--all" in output
    )
    assert (
        nbformat.read(built.build / "66_summary--all.ipynb", 4).cells[-1].outputs[0].text == "2\n"
    )


# --- failures -------------------------------------------------------------------------------------


def test_a_failing_run_does_not_stop_the_others_and_is_tried_again(built):
    built.notebook("15_bad", "raise ValueError('no <b>luck</b>')")
    built.run_file("15_bad--x")
    built.run_file("16_none--x")
    os.utime(built.folder / "reports/runs/20_report--a.yaml")
    output = finish(built.make("reports"), 2)
    assert executed(output) == ["15_bad--x", "16_none--x", "20_report--a"]
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


# --- other models, other pictures, other machines -------------------------------------------------


def test_another_model_has_a_folder_of_its_own(built):
    before = {path: path.stat().st_mtime_ns for path in built.build.glob("*.ipynb")}
    for model, folder, value in (
        ("vgg19", "vgg19", "vgg19"),
        ("weights/own.keras", "own", "../weights/own.keras"),
    ):
        (built.folder / "weights").mkdir(exist_ok=True)
        (built.folder / "weights" / "own.keras").touch()
        output = finish(built.make("reports", f"MODEL={model}", "RUNS=20_*"))
        assert executed(output) == ["20_report--a"]
        notebook = nbformat.read(built.folder / "reports/build" / folder / "20_report--a.ipynb", 4)
        assert notebook.metadata["report"]["model"] == value
        assert sorted(os.listdir(built.site / folder)) == ["20_report--a.html", "index.html"]
    assert {path: path.stat().st_mtime_ns for path in built.build.glob("*.ipynb")} == before
    assert (built.site / "10_runs--a.html").exists()


def test_a_launcher_is_put_before_each_run(built):
    launcher = built.folder / "launcher"
    launcher.write_text('#!/bin/sh\necho "$@" >> launched\nshift\nexec "$@"\n')
    launcher.chmod(0o755)
    os.utime(built.folder / "reports/runs/10_runs--b.yaml")
    finish(built.make("reports", "LAUNCH=./launcher -c4"))
    [line] = (built.folder / "launched").read_text().splitlines()
    assert (
        line.startswith("-c4 ")
        and "xai_utils.runner run reports/build/default reports/runs/10_runs--b.yaml" in line
    )


NASTY = "my $HOME 'cat' \"1\" $(touch x) <script>alert(1)<.png"


def test_runs_side_by_side_share_the_processors(project):
    project.env.pop("TF_NUM_INTRAOP_THREADS", None)
    project.notebook(
        "10_a", "import os; print('threads:', os.environ.get('TF_NUM_INTRAOP_THREADS'))"
    )
    for name in ("10_a--one", "10_a--two"):
        project.run_file(name)
    half = max(1, os.cpu_count() // 2)  # two at a time is what make does of itself
    for options, threads in (
        (["-j2"], half),
        ([], half),
        (["-j"], half),
        (["-j1"], None),
        (["-j2", "LAUNCH=env"], None),
        (["help"], None),
        (["MAKEFLAGS=-j1"], None),
        (["RUNS=10_a--one"], None),  # nothing beside it
    ):
        outside = {"MAKEFLAGS": "-j1"} if "MAKEFLAGS=-j1" in options else {}
        options = [option for option in options if "MAKEFLAGS" not in option]
        finish(project.make("reports", "-B", *options, env=project.env | outside))
        assert f"threads: {threads}\\n" in (project.build / "10_a--one.ipynb").read_text(), options


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
        "NOTEBOOK=20_report",
        f"IMAGE={NASTY}",
    ]
    shell = f"cd {shlex.quote(str(elsewhere))} && exec {shlex.join([*command, 'PARAMS=steps=8'])}"
    output = finish(built.start("sh", "-c", shell))
    [page] = (built.site / "one-off").glob("*--*.html")
    assert (
        f'href="{page.name}' in (built.site / "one-off" / "index.html").read_text()
    )  # where its "All reports" leads
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
        (["NOTEBOOK=20_reprot"], "there is no notebook '20_reprot'; did you mean 20_report?"),
        (
            ["NOTEBOOK=20_report", "PARAMS=stps=8"],
            "'stps' is not a parameter of 20_report; did you mean steps?",
        ),
        (["NOTEBOOK=20_report", "PARAMS=steps"], "PARAMS: 'steps' is not like steps=8"),
        (["NOTEBOOK=20_report", "PARAMS=steps='8"], "PARAMS: No closing quotation"),
        (["NOTEBOOK=10_runs", "IMAGE=cat"], "'image' is not a parameter of 10_runs; it has steps"),
    ],
)
def test_one_report_asked_for_in_a_wrong_way(built, arguments, message):
    output = finish(built.make("report", *arguments), 2)
    assert message in output and output.count("\n") == 2  # and make's own line
    assert not (built.folder / "reports/build/one-off").exists()


# --- death ----------------------------------------------------------------------------------------

SLOW = (
    "open('started', 'w').close()\nimport time, os\nwhile not os.path.exists('go on'):"
    " time.sleep(0.1)"
)


@pytest.fixture
def waiting(built):
    """A `make -j2 reports` of two runs, the first in the middle of a cell."""
    built.notebook("15_slow", SLOW)
    built.run_file("15_slow--x")
    built.run_file("10_runs--a", "steps: 9")
    process = built.make("-j2", "reports", start_new_session=True)
    wait_for((built.folder / "notebooks" / "started").exists)
    wait_for(
        lambda: (
            (built.site / "10_runs--a.html").stat().st_mtime
            > (built.build / "progress").stat().st_mtime
        )
    )
    yield built, process
    if process.poll() is None:
        process.kill()


def finishes(project, *again):
    """No kernel is left, and the next call runs what was not finished."""
    wait_for(lambda: not miniature.kernels(project) and not processes(project, "xai_utils"), 30)
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
        for process in processes(project, "xai_utils.runner")
        if "15_slow" in " ".join(process.cmdline())
    ]
    runner.kill()
    output = finish(make, 2)
    assert "FAILED 15_slow--x" in output and "Traceback" not in output
    assert "15_slow" in (project.site / "index.html").read_text()
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
    os.killpg(
        make.pid, signal.SIGINT
    )  # as a terminal does: make and its runners, but not the kernels
    output = finish(make, None)
    assert "Traceback" not in output
    finishes(project, "15_slow--x")


# --- the notebooks' own tests ---------------------------------------------------------------------


def test_nbval_runs_kernels_one_at_a_time_and_finds_errors(project):
    shutil.copy2(ROOT / "notebooks" / "conftest.py", project.folder / "notebooks")
    for name in ("10_a", "11_b"):
        project.notebook(name, GOOD.format(module="runs"))
    recipe = finish(project.make("-n", "test")).splitlines()[-1]
    finish(project.start("sh", "-c", recipe))
    runtime = Path(project.env["JUPYTER_RUNTIME_DIR"])
    assert list(runtime.glob("kernel-start-*.lock"))
    project.notebook("11_b", "1/0")
    assert "11_b.ipynb" in finish(project.start("sh", "-c", recipe), 1)
