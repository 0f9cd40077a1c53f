"""Jupyter servers on this machine for browser tests, each with settings and kernels of its own."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
NO_NEWS = "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def running(folder: Path, *command, path: str):
    """Start a server and give its address; afterwards it is gone, and so are its kernels."""
    port = free_port()
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        **{name: str(folder / name.lower()) for name in names},
    }
    log = (folder / "server.log").open("w")
    words = [word.format(port=port) for word in command]
    process = psutil.Popen(
        [sys.executable, "-m", *words], env=env, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/{path}", process, folder / "server.log")
        yield address
    finally:
        children = [process, *process.children(recursive=True)] if process.is_running() else []
        for each in children:
            each.terminate()
        for each in psutil.wait_procs(children, timeout=10)[1]:
            each.kill()
        log.close()


def wait_for(address: str, process, log: Path, seconds: float = 90):
    for _ in range(int(4 * seconds)):
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.25)
    raise AssertionError(f"no answer at {address}:\n{log.read_text()}")


@contextmanager
def lab(folder: Path, *notebooks: str):
    """JupyterLab on copies of notebooks, all cells drawn, as `make lab` starts it but without a
    password.
    """
    work = folder / "notebooks"
    work.mkdir()
    for name in notebooks:
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", work)
    settings = {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }
    for name, values in settings.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    options = [
        "--ServerApp.port={port}",
        f"--ServerApp.root_dir={work}",
        "--no-browser",
        "--allow-root",
        NO_NEWS,
        "--IdentityProvider.token=",
    ]
    with running(folder, "jupyterlab", *options, path="api/status") as address:
        yield address


@contextmanager
def app(folder: Path):
    """The explorer as `make app` serves it."""
    with running(
        folder, "xai_suite.explorer.app", "--port", "{port}", path="voila/static/voila.js"
    ) as address:
        yield address
