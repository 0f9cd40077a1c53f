"""One run: strict, whole or not there at all, and no kernel left behind whatever dies."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock, Timeout
from miniature import ROOT, finish, kernels, processes, wait_for

from xai_suite.reports import RunError, provenance, runner, runs
from xai_utils import engine, models


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    parameters = (
        "steps = 3  # how many\nrate = 0.5\nimage = 'cat'\nsizes = [1, 2]\nloud = True\nlayer ="
        " None\nmodel = 'a'"
    )
    project.notebook("21_grad_cam", parameters=parameters)
    return project


def read(project, text: str, name: str = "21_grad_cam--x"):
    path = project.run_file(name, text).relative_to(project.folder)
    return runs.make_run(name, runs.read_run_file(path), str(path))


# --- strictness -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("stesp: 4", ["'stesp' is not a parameter of 21_grad_cam", "did you mean steps?"]),
        ("zzz: 4", ["'zzz' is not a parameter", "it has steps, rate, image"]),
        ("steps: many", ["steps must be a whole number like 3", "not 'many' (text)"]),
        ("steps: 2.5", ["steps must be a whole number like 3", "not 2.5 (a number)"]),
        ("steps: true", ["steps must be a whole number", "not True (true or false)"]),
        ("loud: 1", ["loud must be true or false", "not 1"]),
        ("steps:", ["steps must be a whole number", "not None (null)"]),
        ("rate: 1e-3", ["rate must be a number", "YAML reads '1e-3' as text: write 0.001"]),
        ("image: 2024-01-01", ["image", "is a date", "put it in quotes"]),
        ("sizes: 3", ["sizes must be a list like [1, 2]"]),
        ("steps: 3\nimage: dog\nsteps: 4", ["line 3: 'steps' is given twice"]),
        ("steps: 3\nsizes: [1, 2\n", ["line 3: not YAML:"]),
        ("- steps", ["a run file is a mapping like 'steps: 32'"]),
        ("3: steps", ["a run file is a mapping like 'steps: 32'"]),
        ("just words", ["a run file is a mapping"]),
        ("? [a, b]\n: 1", ["line 1: not YAML:"]),
        (
            "image: !!python/object/apply:os.system ['true']",
            ["not YAML", "could not determine a constructor"],
        ),
    ],
)
def test_a_wrong_run_file_gets_one_line_that_names_it(here, text, parts):
    with pytest.raises(RunError) as error:
        read(here, text)
    message = str(error.value)
    assert message.startswith("reports/runs/21_grad_cam--x.yaml: ") and "\n" not in message
    assert [part for part in parts if part not in message] == [], message


def test_good_values_are_taken_as_they_are(here):
    text = "steps: 8\nrate: 1\nimage: 'a \"b\".png'\nsizes: []\nlayer: block3\nloud: false"
    run = read(here, text)
    assert run.given == {
        "steps": 8,
        "rate": 1,
        "image": 'a "b".png',
        "sizes": [],
        "layer": "block3",
        "loud": False,
    }
    assert run.parameters["model"] == "a" and run.title == "Test 21_grad_cam"
    assert read(here, "").given == {} and read(here, "# only words\n").given == {}
    assert read(here, "steps: 3\nimage: dog").changed == {"image": "dog"}  # 3 is the default


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("21_gradcam--x", "there is no notebook '21_gradcam'; did you mean 21_grad_cam?"),
        ("zzz--x", "there is no notebook 'zzz'; see notebooks/"),
        ("21_grad_cam", "a run file is named <notebook>--<run>.yaml"),
    ],
)
def test_a_run_of_no_notebook(here, name, message):
    with pytest.raises(RunError, match=".yaml: ") as error:
        read(here, "", name)
    assert str(error.value).endswith(message)


def test_parameters_must_be_literals(here):
    here.notebook("11_calls", parameters="steps = int('3')")
    with pytest.raises(
        RunError,
        match="notebooks/11_calls.ipynb: the cell tagged 'parameters' may only set names to",
    ):
        read(here, "", "11_calls--x")


def test_model_goes_where_there_is_such_a_parameter(here):
    here.notebook("12_none")
    here.run_file("12_none--x")
    here.run_file("21_grad_cam--x")
    here.run_file("21_grad_cam--b", "model: b")
    assert runs.of_file("21_grad_cam--x", "vgg19").given == {"model": "vgg19"}
    assert runs.of_file("21_grad_cam--b", "vgg19").given == {"model": "vgg19"}
    assert runs.of_file("21_grad_cam--b").given == {"model": "b"}
    assert runs.of_file("12_none--x", "vgg19").given == {}


def test_files_are_seen_from_the_notebooks_and_names_stay(here, monkeypatch):
    typed_in = here.folder.parent / "elsewhere"
    typed_in.mkdir()
    (typed_in / "my cat.jpg").touch()
    monkeypatch.setenv("PWD", str(typed_in))
    assert runs.from_notebooks("my cat.jpg") == "../../elsewhere/my cat.jpg"
    assert runs.from_notebooks(str(typed_in / "my cat.jpg")) == "../../elsewhere/my cat.jpg"
    assert runs.from_notebooks("umbrella") == "umbrella"


def test_what_is_said_of_a_network_becomes_a_card(here, monkeypatch):
    typed_in = here.folder.parent / "nets"
    typed_in.mkdir()
    (typed_in / "mine.keras").touch()
    (typed_in / "names.txt").write_text("a\nb\n")
    monkeypatch.setenv("PWD", str(typed_in))
    assert runs.where_typed("") == "" and runs.where_typed("vgg19") == "vgg19"
    assert runs.asked_model() == ""
    monkeypatch.setenv("MODEL", "mine.keras")
    assert runs.asked_model() == "mine.keras"
    for key, value in {
        "PREPROCESSING": "{to: [0, 1]}",
        "LABELS": "names.txt",
        "SIZE": "48x96",
    }.items():
        monkeypatch.setenv(key, value)
    card = Path(runs.asked_model())
    assert card.name == "mine.yaml" and runs.asked_model() == str(card)
    assert models.read_card(card) == {
        "preprocessing": {"to": [0, 1]},
        "labels": str(typed_in / "names.txt"),
        "size": [48, 96],
        "file": str(typed_in / "mine.keras"),
    }
    assert [path.name for path in models.files_of(card)] == ["mine.yaml", "mine.keras", "names.txt"]
    monkeypatch.setenv("SIZE", "large")
    with pytest.raises(RunError, match="SIZE is a side, or height and width"):
        runs.asked_model()
    monkeypatch.delenv("SIZE")
    monkeypatch.setenv("MODEL", "gone.keras")
    with pytest.raises(RunError, match="no model file at .*gone.keras"):
        runs.asked_model()
    monkeypatch.delenv("MODEL")
    with pytest.raises(RunError, match="PREPROCESSING describes your own network: say MODEL= too"):
        runs.asked_model()


def test_settings_typed_in_a_command_take_the_kind_of_the_default():
    defaults = {"steps": 3, "rate": 0.5, "image": "cat", "layer": None}
    typed = ["steps=8", "rate=1e-3", "image=3", "layer=block3", "image=a=b", "steps=x: y: z"]
    found = [runs.parse_setting(text, defaults) for text in typed]
    assert found == [
        ("steps", 8),
        ("rate", 0.001),
        ("image", "3"),
        ("layer", "block3"),
        ("image", "a=b"),
        ("steps", "x: y: z"),
    ]
    with pytest.raises(RunError, match="'steps' is not like steps=8"):
        runs.parse_setting("steps", defaults)


def test_a_name_of_any_words_is_short_and_its_own():
    assert runs.in_a_name("layer=block5c_add") == "layer-block5c_add"
    long = [
        runs.in_a_name(f"results=results/a_rather_long_list--{end}.parquet")
        for end in ("lite0", "lite2")
    ]
    assert long[0] != long[1] and all(
        len(name) <= 40 and name.startswith("results-results-a_rather") for name in long
    )


def test_a_name_that_is_not_the_whole_truth_has_a_digest(tmp_path, monkeypatch):
    monkeypatch.setenv("PWD", str(tmp_path))
    for name in ("a/001.png", "b/001.png", "001.png", "001.jpg", "猫.png", "犬.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    names = [
        "a/001.png",
        "b/001.png",
        "001.png",
        "001.jpg",
        "猫.png",
        "犬.png",
        "猫",
        "犬",
        "a b",
        "a-b",
    ]
    assert len({*map(runs.in_a_name, names)}) == len(names)
    assert re.fullmatch(r"001-[0-9a-f]{8}", runs.in_a_name("a/001.png"))
    assert re.fullmatch(r"[0-9a-f]{8}", runs.in_a_name("猫.png"))
    assert runs.in_a_name("umbrella") == "umbrella" and runs.in_a_name("a-b") == "a-b"


MACHINE = [
    ("open('/app/notebooks/x')", "open('notebooks/x')"),
    ("in /app: /app", "in .: ."),
    ("/application/x and my/app/x", "/application/x and my/app/x"),
    ("QUJD/app/REVG", "QUJD/app/REVG"),
    ("https://example.org/app/REVG", "https://example.org/app/REVG"),
    ("file at /home/me/cat.png", "file at ~/cat.png"),
    ("/opt/env/lib/python3/x.py", "lib/python3/x.py"),
    ("/tmp/ipykernel_12/34.py in f", "cell in f"),
]


@pytest.mark.parametrize(("text", "expected"), MACHINE)
def test_paths_of_this_machine_are_taken_out_where_they_are_paths(monkeypatch, text, expected):
    monkeypatch.setattr(provenance.Path, "cwd", lambda: Path("/app"))
    monkeypatch.setattr(provenance.Path, "home", lambda: Path("/home/me"))
    monkeypatch.setattr(provenance.sys, "prefix", "/opt/env")
    assert provenance.without_machine(text) == expected


def test_what_a_cell_displays_is_left_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance.Path, "cwd", lambda: Path("/app"))
    data = {"image/png": "QUJD/app/REVG", "text/html": '<a href="/app/x">/app/x</a>'}
    cell = nbformat.v4.new_code_cell(
        "open('/app/x')",
        outputs=[
            nbformat.v4.new_output("display_data", data=data),
            nbformat.v4.new_output("stream", text="/app/x\n"),
            nbformat.v4.new_output("error", ename="E", evalue="/app/x", traceback=["at /app/x"]),
        ],
    )
    notebook = nbformat.v4.new_notebook(cells=[cell])
    provenance.write(notebook, tmp_path / "n.ipynb", {})
    shown, said, error = nbformat.read(tmp_path / "n.ipynb", 4).cells[0].outputs
    assert shown.data == data
    assert (cell.source, said.text) == ("open('x')", "x\n")
    assert (error.evalue, error.traceback) == ("x", ["at x"])


# --- execution ------------------------------------------------------------------------------------


def test_a_good_run_says_where_it_came_from_and_names_no_place_of_this_machine(project):
    show_paths = (
        "import os, sys, warnings,"
        " json\nprint(os.getcwd())\nprint(json.__file__)\nwarnings.warn('careful')\nsteps"
    )
    project.notebook(
        "21_grad_cam", show_paths, parameters="steps = 3\nmodel = 'lite0'", report={"level": 2}
    )
    project.run_file("21_grad_cam--x", "steps: 8")
    (project.build).mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left_over = project.build / f".21_grad_cam--x.log.{dead.pid}.tmp"
    left_over.touch()
    output = finish(project.run("21_grad_cam--x"))
    assert output.count("\n") == 1 and output.startswith("21_grad_cam--x ")

    path = project.build / "21_grad_cam--x.ipynb"
    text, notebook = path.read_text(), nbformat.read(path, as_version=4)
    # neither its own temporary files nor a dead run's
    assert os.listdir(project.build) == ["21_grad_cam--x.ipynb"]
    record = notebook.metadata["report"]
    assert record["parameters"] == {"steps": 8, "model": "lite0"} and record["changed"] == {
        "steps": 8
    }
    assert (record["run"], record["notebook"], record["title"]) == (
        "21_grad_cam--x",
        "21_grad_cam",
        "Test 21_grad_cam",
    )
    assert (record["model"], record["error"], record["level"]) == ("lite0", None, 2)
    assert record["commit"] is None  # the copy is no git checkout
    assert record["computed_on"] is None  # TensorFlow was not started
    assert record["seconds"] > 0 and record["started"].endswith("+00:00")
    assert set(record["versions"]) == {"python", "tensorflow", "keras", "xai_utils"}
    assert notebook.cells[-1].outputs[-1].data["text/plain"] == "8"
    # the working directory, without what is above the project
    assert "notebooks\n" in notebook.cells[-1].outputs[0].text
    for place in (
        str(project.folder.parent),
        f"{sys.prefix}/lib",
        f"{sys.base_prefix}/lib",
        "/ipykernel_",
        "papermill",
    ):
        assert place not in text
    assert "papermill" not in text
    assert notebook.cells[1].metadata["tags"] == ["parameters"]


def test_a_record_says_what_computed(project):
    project.notebook("10_a", "from xai_utils import tf")
    project.run_file("10_a--one")
    finish(project.run("10_a--one"))
    notebook = nbformat.read(project.build / "10_a--one.ipynb", as_version=4)
    assert notebook.metadata["report"]["computed_on"] == engine.computed_on()


def test_a_summary_of_the_default_reports_names_no_network(project):
    project.notebook("66_summary", "1", parameters="model = 'default'")
    project.run_file("66_summary--all", "")
    finish(project.run("66_summary--all"))
    assert (
        nbformat.read(project.build / "66_summary--all.ipynb", as_version=4).metadata["report"][
            "model"
        ]
        is None
    )


def test_commit_is_of_this_checkout_and_says_dirty(project, monkeypatch):
    from xai_suite.reports.provenance import commit

    def git(*arguments):
        name = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *name, *arguments], check=True, capture_output=True)

    monkeypatch.chdir(project.folder.parent)
    git("init", ".")
    git("add", "project/Makefile")
    git("commit", "-m", "x")
    monkeypatch.chdir(project.folder)
    assert commit() is None  # that was a repository around us
    git("init", ".")
    git("add", "Makefile")
    git("commit", "-m", "x")
    clean = commit()
    assert clean and len(clean) >= 7 and not clean.endswith("-dirty")
    (project.folder / "Makefile").write_text("changed")
    assert commit() == f"{clean}-dirty"
    monkeypatch.setenv("PATH", str(project.folder))  # no git at all
    assert commit() is None


def test_a_failing_cell(project):
    project.notebook(
        "10_a", "print('before')", "import os\nopen(os.getcwd() + '/none.txt')", "print('after')"
    )
    project.run_file("10_a--x")
    good = project.build / "10_a--x.ipynb"
    good.parent.mkdir(parents=True)
    good.write_text("an older one")
    output = finish(project.run("10_a--x"), 1)
    failed = "reports/build/default/failed/10_a--x"
    error = "cell 3: FileNotFoundError: [Errno 2] No such file or directory: 'notebooks/none.txt'"
    assert (
        output == f"FAILED 10_a--x: {error} (partial notebook: {failed}.ipynb, log: {failed}.log)\n"
    )
    assert not good.exists()
    notebook = nbformat.read(project.folder / f"{failed}.ipynb", as_version=4)
    assert notebook.metadata["report"]["error"] == error
    assert [len(cell.get("outputs", [])) for cell in notebook.cells] == [0, 0, 1, 1, 0]
    log = (project.folder / f"{failed}.log").read_text()
    assert "none.txt" in log and str(project.folder) not in log

    project.notebook("10_a", "print('mended')")
    finish(project.run("10_a--x"))
    assert good.exists() and os.listdir(good.parent / "failed") == []


def test_runs_share_a_kernel_until_one_fails(project):
    code = """import os, sys
os.write(sys.__stderr__.fileno(), f"words of {steps}\\n".encode())
print(os.getpid(), "left" in globals())
left = steps
assert steps < 5, "too many" """
    project.notebook("10_a", code)
    for name, steps in (("a", 3), ("b", 4), ("c", 6), ("d", 2), ("e", 7)):
        project.run_file(f"10_a--{name}", f"steps: {steps}")
    output = finish(project.run("10_a--a 10_a--b 10_a--c 10_a--d 10_a--e"), 1)
    assert re.findall(r"^(?:FAILED )?10_a--\w", output, re.M) == [
        "10_a--a",
        "10_a--b",
        "FAILED 10_a--c",
        "10_a--d",
        "FAILED 10_a--e",
    ]

    def kernel(name):
        notebook = nbformat.read(project.build / f"{name}.ipynb", as_version=4)
        number, left = notebook.cells[-1].outputs[0].text.split()
        assert left == "False" and [cell.execution_count for cell in notebook.cells[1:]] == [
            1,
            2,
            3,
        ]
        return number

    a, b, c, d, e = map(
        kernel, ("10_a--a", "10_a--b", "failed/10_a--c", "10_a--d", "failed/10_a--e")
    )
    assert a == b == c != d == e
    words = re.findall(r"words of \d", (project.build / "failed" / "10_a--e.log").read_text())
    assert words == ["words of 7"]
    assert sorted(os.listdir(project.build)) == [
        "10_a--a.ipynb",
        "10_a--b.ipynb",
        "10_a--d.ipynb",
        "failed",
    ]
    assert not kernels(project) and not list(
        (project.folder.parent / "runtime").glob("kernel-*.json")
    )


def test_runs_of_one_kernel_use_a_network_one_after_the_other(project):
    (project.folder / "data").symlink_to(ROOT / "data")
    code = """from xai_utils import models
network = models.load_model().model
print(getattr(network, "runs", 0))
network.runs = 1"""
    project.notebook("10_a", code)
    for name in "ab":
        project.run_file(f"10_a--{name}")
    finish(project.run("10_a--a 10_a--b"))
    notebooks = [
        nbformat.read(project.build / f"10_a--{name}.ipynb", as_version=4) for name in "ab"
    ]
    assert [notebook.cells[-1].outputs[0].text for notebook in notebooks] == ["0\n", "1\n"]


def test_what_a_dead_process_left_over_is_removed_and_no_other(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = [tmp_path / "failed" / f".x.log.{dead.pid}.tmp", tmp_path / f".a.b.html.{dead.pid}.tmp"]
    kept = [tmp_path / f".y.html.{os.getpid()}.tmp", tmp_path / "x.tmp", tmp_path / ".mine.tmp"]
    (tmp_path / "failed").mkdir()
    for path in gone + kept:
        path.touch()
    runner.remove_left_over(tmp_path)
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)


def test_a_run_that_cannot_start_leaves_a_notebook_that_says_why(project):
    project.notebook("10_a")
    project.run_file("10_a--x", "stepz: 3")
    output = finish(project.run("10_a--x"), 1)
    assert output.startswith(
        "FAILED 10_a--x: reports/runs/10_a--x.yaml: 'stepz' is not a parameter of 10_a"
    )
    (project.folder / "notebooks" / "10_a.ipynb").write_text("{ not json")
    assert "notebooks/10_a.ipynb: not a notebook" in finish(project.run("10_a--x"), 1)
    record = json.loads((project.build / "failed" / "10_a--x.ipynb").read_text())["metadata"][
        "report"
    ]
    assert "not a notebook" in record["error"] and record["run"] == "10_a--x"


def test_limits(project):
    project.notebook("10_a", "import time; time.sleep(60)", report={"cell_limit": 50})
    project.run_file("10_a--x")
    output = finish(project.run("10_a--x", env={**project.env, "CELL_LIMIT": "1"}), 1)
    assert "cell 2: stopped because it took more than 1 s" in output and output.count("\n") == 1
    project.notebook("10_a", "import time; time.sleep(60)", report={"cell_limit": 1})
    assert "more than 1 s" in finish(project.run("10_a--x"), 1)
    assert not kernels(project)


def test_input_does_not_wait_for_anybody(project):
    project.notebook("10_a", "input('name? ')")
    project.run_file("10_a--x")
    assert "cell 2: StdinNotImplementedError" in finish(project.run("10_a--x"), 1)


# --- death ----------------------------------------------------------------------------------------

SLOW = "open('started', 'w').close(); import time; time.sleep(300)"


def slow_run(project):
    """A run that is in the middle of its first cell."""
    project.notebook("10_a", SLOW)
    project.run_file("10_a--x")
    process = project.run("10_a--x")
    wait_for((project.folder / "notebooks" / "started").exists)
    return process


def test_a_killed_kernel_fails_the_run(project):
    process = slow_run(project)
    [kernel] = kernels(project)
    kernel.kill()
    output = finish(process, 1)
    assert output.startswith("FAILED 10_a--x: cell 2: kernel died") and output.count("\n") == 1


def test_a_kernel_that_dies_before_any_cell_is_tried_once_more(project):
    # Python imports sitecustomize before anything else: the first kernel, or every one, dies there.
    code = """
import os, sys, pathlib
if any("ipykernel_launcher" in word for word in sys.orig_argv):
    log = pathlib.Path(os.environ["DEATHS"])
    deaths = len(log.read_text()) if log.exists() else 0
    if deaths < int(os.environ["MOST"]):
        log.write_text("x" * (deaths + 1))
        os._exit(9)
"""
    (project.folder / "sitecustomize.py").write_text(code)
    project.notebook("10_a", "print(1)")
    project.run_file("10_a--x")
    deaths = project.folder / "deaths"
    finish(project.run("10_a--x", env={**project.env, "DEATHS": str(deaths), "MOST": "1"}))
    assert deaths.read_text() == "x"
    deaths.unlink()
    output = finish(
        project.run("10_a--x", env={**project.env, "DEATHS": str(deaths), "MOST": "5"}), 1
    )
    assert "before the first cell: kernel died" in output and deaths.read_text() == "xx"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_the_kernel_dies_with_the_runner(project, number):
    process = slow_run(project)
    process.send_signal(number)
    output = finish(process, -9 if number == signal.SIGKILL else 130)
    wait_for(lambda: not kernels(project), 10)
    assert (
        output == ""
        and not list(project.build.glob("*.ipynb"))
        and not (project.build / "failed").exists()
    )
    if number != signal.SIGKILL:  # then the next run cleans up, see above
        assert os.listdir(project.build) == []


def test_a_kernel_dies_with_the_runner_also_while_it_starts(project):
    # ipykernel's own look at its parent begins later than this, and is not enough where process 1
    # adopts no orphans.
    code = """
import os, sys, time
if any("ipykernel_launcher" in word for word in sys.orig_argv):
    time.sleep(300)
"""
    (project.folder / "sitecustomize.py").write_text(code)
    project.notebook("10_a")
    project.run_file("10_a--x")
    process = project.run("10_a--x")
    wait_for(lambda: kernels(project))
    process.kill()
    finish(process, -9)
    wait_for(lambda: not kernels(project), 10)


def test_the_runner_stops_when_its_parent_is_killed(project):
    project.notebook("10_a", SLOW)
    project.run_file("10_a--x")
    arguments = ["-m", "xai_suite.reports.runner", "reports/build/default", "10_a--x"]
    code = f"import subprocess; subprocess.run({[sys.executable, *arguments]})"
    parent = project.start(sys.executable, "-c", code)
    wait_for((project.folder / "notebooks" / "started").exists)
    assert kernels(project) and processes(project, "xai_suite.reports.runner")
    parent.kill()
    wait_for(
        lambda: not kernels(project) and not processes(project, "xai_suite.reports.runner"), 20
    )
    assert os.listdir(project.build) == []
    parent.communicate()


def test_kernels_start_one_at_a_time(project, monkeypatch):
    from xai_suite.reports import kernel_start_lock

    project.notebook("10_a", "print(1)")
    project.run_file("10_a--x")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", project.env["JUPYTER_RUNTIME_DIR"])
    with kernel_start_lock():
        [file] = Path(project.env["JUPYTER_RUNTIME_DIR"]).glob("*.lock")
        with pytest.raises(Timeout), FileLock(file, timeout=0, is_singleton=False):
            pass
        process = project.run("10_a--x")
        time.sleep(4)
        assert not kernels(project) and process.poll() is None
    finish(process)
