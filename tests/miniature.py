"""A project in miniature: Makefile and packages around notebooks that take a second."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import nbformat.v4 as v4
import psutil

ROOT = Path(__file__).resolve().parent.parent


class Project:
    def __init__(self, folder: Path):
        self.folder = folder
        # Kernels of its own: connection files, and the lock that lets them start one at a time.
        self.env = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PWD": str(folder),
            "JUPYTER_RUNTIME_DIR": str(folder.parent / "runtime"),
        }
        for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "NOTEBOOK", "IMAGE", "MODEL", "PARAMS"):
            self.env.pop(name, None)

    @property
    def build(self) -> Path:
        return self.folder / "reports" / "build" / "default"

    @property
    def site(self) -> Path:
        return self.folder / "reports" / "site"

    def notebook(
        self, name: str, *cells: str, parameters: str | None = "steps = 3  # how many", **metadata
    ) -> Path:
        first = [v4.new_markdown_cell(f"# Test {name}")]
        if parameters is not None:
            first.append(v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        found = v4.new_notebook(cells=first + [v4.new_code_cell(cell) for cell in cells])
        found.metadata.update(
            {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        )
        found.metadata.update(metadata)
        path = self.folder / "notebooks" / f"{name}.ipynb"
        path.write_text(nbformat.writes(found))
        return path

    def run_file(self, name: str, text: str = "") -> Path:
        path = self.folder / "reports" / "runs" / f"{name}.yaml"
        path.write_text(text)
        return path

    def start(self, *command, **kwargs) -> subprocess.Popen:
        pipes = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
            "cwd": self.folder,
        }
        return subprocess.Popen([*map(str, command)], **{**pipes, "env": self.env, **kwargs})

    def make(self, *arguments, **kwargs) -> subprocess.Popen:
        return self.start("make", f"PY={sys.executable}", *arguments, **kwargs)

    def run(self, names: str, **kwargs) -> subprocess.Popen:
        """Runs, named in one text, through one runner."""
        command = [sys.executable, "-m", "xai_suite.reports.runner", "reports/build/default"]
        return self.start(*command, *names.split(), **kwargs)


def make_project(place: Path) -> Project:
    folder = place / "project"
    for name in ("notebooks", "reports/runs"):
        (folder / name).mkdir(parents=True)
    for package in ("xai_utils", "xai_suite"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    shutil.copytree(ROOT / "reports" / "template", folder / "reports" / "template")
    for name in ("Makefile", "requirements.lock", "requirements-gpu.lock", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder)
    return Project(folder)


def finish(process: subprocess.Popen, code: int | None = 0, timeout: float = 120) -> str:
    """What it printed, once it has ended with this exit code (None: any but 0)."""
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == code or (code is None and process.returncode), output
    return output


def wait_for(what, timeout: float = 60):
    """The first true value of `what()`."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout} s in vain")


def processes(project: Project, word: str) -> list[psutil.Process]:
    """Processes of this project (and of no other) whose command line has this word."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = (
                process.environ().get("JUPYTER_RUNTIME_DIR") == project.env["JUPYTER_RUNTIME_DIR"]
            )
            if (
                mine
                and process.status() != psutil.STATUS_ZOMBIE
                and any(word in part for part in process.cmdline())
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kernels(project: Project) -> list[psutil.Process]:
    return processes(project, "ipykernel_launcher")
