"""The archive for laptops without network: what it brings; its installer needs nothing else."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from miniature import ROOT

from xai_suite.workshop import bundle
from xai_suite.workshop.bundle import BundleError

LOCK = """a==1
b==2 ; sys_platform == 'win32'
n==1 ; python_full_version < '3.12'
n==2 ; python_full_version >= '3.12'
p==5 ; os_name != 'nt' or (sys_platform != 'emscripten' and sys_platform != 'win32')
s==1 ; python_full_version < '3.11.5'
s==4 ; python_full_version >= '3.11.5'
"""
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.mark.parametrize(
    ("target", "version", "expected"),
    [
        ("windows", "3.11", [["a==1", "b==2", "n==1", "s==4"], ["s==1"]]),
        ("linux", "3.11", [["a==1", "n==1", "p==5", "s==4"], ["s==1"]]),
        ("mac", "3.13", [["a==1", "n==2", "p==5", "s==4"]]),
    ],
)
def test_what_a_laptop_needs_is_known_whatever_this_machine_is(target, version, expected):
    assert bundle.rounds(LOCK, target, version) == expected


@pytest.mark.parametrize("target", bundle.PLATFORMS)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_suites_lock_gives_one_version_of_a_package_in_each_round(target, version):
    for names in bundle.rounds((ROOT / "requirements.lock").read_text(), target, version):
        packages = [name.partition("==")[0] for name in names]
        assert len(set(packages)) == len(packages)


def test_pip_is_told_files(tmp_path):
    wheels = [tmp_path / f"{name}-py3-none-any.whl" for name in ("a-1", "s-1", "s-4")]
    assert (
        bundle.with_wheels(LOCK, wheels)
        == """./wheels/a-1-py3-none-any.whl
./wheels/s-1-py3-none-any.whl ; python_full_version < "3.11.5"
./wheels/s-4-py3-none-any.whl ; python_full_version >= "3.11.5"
"""
    )


@pytest.mark.parametrize(
    ("target", "version", "says"),
    [
        ("amiga", "3.12", "PLATFORM is one of linux"),
        ("linux", "3.12.1", "PYTHON_VERSION is like 3.12"),
    ],
)
def test_an_unknown_laptop_is_refused(target, version, says):
    with pytest.raises(BundleError, match=says):
        bundle.rounds(LOCK, target, version)


def wheel(folder, name: str, version: str, source: str):
    """A package of one module, as pip takes it."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"{name}.py", source)
        packed.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        packed.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        packed.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    """A workshop whose network needs a package of the archive, packed and unpacked."""
    source, laptop = tmp_path / "reports" / "suite", tmp_path / "a laptop"
    student = source / "workshop" / "student"
    for package in ("xai_utils", "xai_suite/reports"):
        (student / package).mkdir(parents=True)
    (source / "requirements.lock").write_text("tiny_net==1\nnot_here==3 ; os_name == 'amiga'\n")
    (source / "workshop" / "README.md").write_text("# The workshop\n")
    (student / "00_start.ipynb").write_text("{}")
    (student / "xai_utils" / "__init__.py").touch()
    (student / "xai_suite" / "reports" / "site.py").touch()
    (student / "xai_utils" / "models.py").write_text("from tiny_net import load_model\n")
    for junk in (
        "__pycache__/x.pyc",
        ".ipynb_checkpoints/00_start.ipynb",
        "reports/build/cache.npz",
    ):
        (student / junk).parent.mkdir(parents=True)
        (student / junk).touch()
    monkeypatch.chdir(source)
    answer = (
        "class load_model:\n    prepare = str\n    def top(self, picture, k): return [[('tabby',"
        " 1.0)]]\n"
    )
    archive = bundle.pack(
        source / "workshop", [wheel(source, "tiny_net", "1", answer)], bundle.this_platform(), HERE
    )
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(laptop)
    return laptop / archive.stem


def install(folder) -> subprocess.CompletedProcess:
    nowhere = "http://127.0.0.1:9"
    env = {
        **os.environ,
        "PIP_INDEX_URL": nowhere,
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "PYTHONPATH": "",
    }
    return subprocess.run(
        [sys.executable, folder / "install.py"],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_archive_installs_without_network(unpacked):
    files = [
        "README.md",
        "SHA256SUMS",
        "bundle.json",
        "install.py",
        "requirements.txt",
        "student/00_start.ipynb",
        "student/xai_suite/reports/site.py",
        "student/xai_utils/__init__.py",
        "student/xai_utils/models.py",
        "wheels/tiny_net-1-py3-none-any.whl",
    ]
    assert (
        sorted(
            path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()
        )
        == files
    )
    (unpacked / "student" / "00_start.ipynb").write_text("a student's own work")
    done = install(unpacked)
    assert done.returncode == 0, done.stderr
    assert (
        "the network sees: tabby" in done.stdout and "-m jupyterlab" in done.stdout.splitlines()[-1]
    )
    again = install(unpacked)
    assert (
        again.returncode == 0
        and (unpacked / "student" / "00_start.ipynb").read_text() == "a student's own work"
    )


@pytest.mark.parametrize(
    "fault", ["damaged", "missing", "other python", "other machine", "incomplete"]
)
def test_what_is_wrong_with_an_archive_is_said_in_one_line(unpacked, fault):
    package, about = next((unpacked / "wheels").iterdir()), unpacked / "bundle.json"
    if fault == "damaged":
        package.write_bytes(package.read_bytes()[:-1])
    elif fault == "missing":
        package.unlink()
    elif fault == "other python":
        about.write_text(json.dumps({**json.loads(about.read_text()), "python": "3.9"}))
    elif fault == "other machine":
        other = next(name for name in bundle.PLATFORMS if name != bundle.this_platform())
        about.write_text(json.dumps({**json.loads(about.read_text()), "platform": other}))
    else:
        package.unlink()
        sums = (unpacked / "SHA256SUMS").read_text().splitlines()
        (unpacked / "SHA256SUMS").write_text("\n".join(line for line in sums if ".whl" not in line))
    done = install(unpacked)
    says = {
        "damaged": "is damaged",
        "missing": "is missing: unpack",
        "other python": "packages are for Python 3.9",
        "other machine": "this machine is",
        "incomplete": "could not be installed",
    }[fault]
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and says in last and "Traceback" not in done.stderr
    assert fault == "incomplete" or not (unpacked / ".venv").exists()
