"""What is installed agrees with what is asked for, and the house stands as it was planned."""

import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from miniature import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

TOML = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, CONTRACTS = TOML["project"], TOML["tool"]["importlinter"]["contracts"]
PACKAGES = ("xai_utils", "xai_suite")
# Rooms that a wing offers whole.
ROOMS_OFFERED = (
    "bird_or_tree",
    "efficientnet_lite",
    "image_priors",
    "lamp_or_buoy",
    "rules",
    "small_kinds",
    "small_networks",
    "small_segmentation",
    "small_transformer",
    "ssd_mobilenet",
    "textures",
)
PYTHONS = ["3.11.9", "3.12.3", "3.13.1"]


def locked(name: str) -> list[Requirement]:
    return [Requirement(line) for line in (ROOT / name).read_text().splitlines()]


def pinned(name: str, python: str) -> dict[str, Version]:
    """Package → version that the lock gives on Linux with this Python."""
    env = {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
    }
    chosen = [
        r
        for r in locked(name)
        if r.marker is None or r.marker.evaluate({**env, "os_name": "posix"})
    ]
    names = [r.name for r in chosen]
    assert len(names) == len(set(names)), (
        f"{name} has two versions of a package for Python {python}"
    )
    return {r.name: Version(next(iter(r.specifier)).version) for r in chosen}


@pytest.mark.parametrize(
    "name", ["requirements.lock", "requirements-dev.lock", "requirements-gpu.lock"]
)
def test_each_line_of_a_lock_is_one_exact_version_and_no_address(name):
    for line in (ROOT / name).read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", line), line
        assert "://" not in line and "@" not in line, line


def test_lock_keeps_the_markers_of_all_platforms():
    markers = " ".join(str(r.marker) for r in locked("requirements.lock") if r.marker)
    assert "darwin" in markers and "win32" in markers and "python_full_version" in markers


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_satisfies_every_dependency(python):
    pins = pinned("requirements.lock", python)
    for text in PROJECT["dependencies"]:
        wanted = Requirement(text)
        assert wanted.name in pins and pins[wanted.name] in wanted.specifier, (
            f"{text}: locked {pins.get(wanted.name)}"
        )


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", ["dev", "gpu"])
def test_lock_of_an_extra_has_its_packages_and_agrees_with_the_lock(extra, python):
    user, more = pinned("requirements.lock", python), pinned(f"requirements-{extra}.lock", python)
    wanted = {Requirement(text).name for text in PROJECT["optional-dependencies"][extra]}
    assert wanted <= set(more)
    assert not {name for name in set(user) & set(more) if user[name] != more[name]}


def test_lock_of_the_gpu_has_what_tensorflow_asks_for():
    asked = map(Requirement, metadata.requires("tensorflow"))
    wanted = [r for r in asked if r.marker and r.marker.evaluate({"extra": "and-cuda"})]
    pins = pinned("requirements-gpu.lock", PYTHONS[0])
    cuda = [r for r in wanted if r.name.startswith("nvidia")]
    assert cuda and all(pins[r.name] in r.specifier for r in cuda)
    assert not [name for name in pinned("requirements.lock", PYTHONS[0]) if "nvidia" in name]


def test_developer_tools_stay_out_of_the_users_environment():
    pins = pinned("requirements.lock", PYTHONS[0])
    extras = {**PROJECT["optional-dependencies"]}
    extras.pop("gpu")  # the same TensorFlow, with more
    assert not {Requirement(text).name for extra in extras.values() for text in extra} & set(pins)


def test_conda_environment_is_python_and_the_lock():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    *packages, pip = dependencies
    python = next(p.removeprefix("python=") for p in packages if p.startswith("python="))
    assert Version(f"{python}.5") in SpecifierSet(PROJECT["requires-python"])
    assert "pip" in packages and len(packages) == 2
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}


def test_makefile_accepts_exactly_the_pythons_of_pyproject():
    accepted = re.search(r"filter ((?:3\.\d+ ?)+),", (ROOT / "Makefile").read_text())[1].split()
    minors = [
        f"3.{minor}"
        for minor in range(30)
        if Version(f"3.{minor}.5") in SpecifierSet(PROJECT["requires-python"])
    ]
    assert accepted == minors


def test_the_package_has_the_version_of_pyproject_and_starts_without_tensorflow():
    code = (
        "import sys, xai_utils, xai_suite.reports.runner, xai_suite.reports.site;"
        " print(xai_utils.__version__, *sys.modules)"
    )
    version, *modules = subprocess.check_output(
        [sys.executable, "-c", code], cwd=ROOT, text=True
    ).split()
    assert version == PROJECT["version"]
    assert not {"tensorflow", "keras", "matplotlib"} & set(modules)


def test_imports_point_down_and_wings_are_entered_by_their_faces():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in done.stdout


def test_every_wing_is_held_by_a_contract():
    wings = {
        f"{path.parent.parent.name}.{path.parent.name}"
        for package in PACKAGES
        for path in (ROOT / package).glob("*/__init__.py")
    }
    held = {
        contract["allowed_importers"][0]
        for contract in CONTRACTS
        if contract["type"] == "protected"
    }
    assert wings == held


def test_a_room_of_another_wing_is_refused(tmp_path):
    """The contracts can fail: a copy in which show reads a room of pictures does."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    room = tmp_path / "xai_utils" / "show" / "widgets.py"
    room.write_text(room.read_text() + "\nfrom xai_utils.pictures.transforms import grey\n")
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=tmp_path, capture_output=True, text=True)
    assert (
        done.returncode == 1 and "xai_utils.pictures is entered by its face BROKEN" in done.stdout
    )


@pytest.mark.parametrize("wing", ["xai_utils.show", "xai_utils.pictures", "xai_utils.attribution"])
def test_a_wing_that_is_imported_does_not_start_tensorflow(wing):
    code = f"import sys, {wing}; print('tensorflow' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr


def test_faces_offer_what_their_rooms_hold():
    """Every name of every face can be had; no room that was loaded hides a function of its name."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).glob("*/__init__.py")):
            wing = importlib.import_module(f"{package}.{path.parent.name}")
            for room in sorted(path.parent.glob("[a-z]*.py")):
                if room.stem not in ("app", "command", "install", "bundle"):
                    importlib.import_module(f"{wing.__name__}.{room.stem}")
            for name in wing.__all__:
                held, foreign = getattr(wing, name), ("keras", "tf")
                assert not inspect.ismodule(held) or name in ROOMS_OFFERED + foreign, name
