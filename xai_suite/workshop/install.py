"""Set up the workshop on this laptop, without network: `python install.py`.

Compares every file with SHA256SUMS, builds `.venv` beside this file from the packages in `wheels/`,
and asks the network on the disk what it sees in a picture. Nothing outside this folder is changed:
delete it, and all is gone.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
MACHINES = {
    "linux": ("linux", "x86_64"),
    "linux-arm": ("linux", "aarch64"),
    "mac": ("darwin", "arm64"),
    "windows": ("win32", "amd64"),
}
# JupyterLab would ask whether to fetch news, and look for a newer version.
NO_NEWS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}
}
TRY = """from xai_utils import models
network = models.load_model()
print("the network sees:", network.top(network.prepare("cat"), 1)[0][0][0])"""


def check_machine(bundle: dict) -> None:
    """End with one line if these packages are for another machine or another Python."""
    here = (sys.platform, platform.machine().lower())
    if here != MACHINES[bundle["platform"]]:
        sys.exit(
            f"these packages are for {bundle['platform']}, but this machine is {' '.join(here)}: "
            "ask for the archive made with another PLATFORM="
        )
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if version != bundle["python"]:
        wanted = f"py -{bundle['python']}" if os.name == "nt" else f"python{bundle['python']}"
        sys.exit(
            f"these packages are for Python {bundle['python']}, but this is {version}: try"
            f" `{wanted} install.py`"
        )


def check_files() -> None:
    """End with one line if a file is missing or is not as it was packed."""
    for line in (HERE / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ", 1)
        path = HERE / name
        if not path.is_file():
            sys.exit(f"{name} is missing: unpack the archive again")
        # Notebooks are there to be changed.
        if path.suffix != ".ipynb" and hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            sys.exit(f"{name} is damaged (SHA-256 differs): copy and unpack the archive again")


def install() -> Path:
    """Build the environment; the path of its Python."""
    print("building .venv from wheels/ (some minutes) ...", flush=True)
    try:
        venv.create(HERE / ".venv", clear=True, with_pip=True)
    except subprocess.CalledProcessError:
        sys.exit(
            "this Python cannot make environments: install its venv and ensurepip (Debian:"
            " python3-venv)"
        )
    python = HERE / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = [
        str(python),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-deps",
        "-r",
        "requirements.txt",
    ]
    if subprocess.run(command, cwd=HERE).returncode:  # every requirement is a file in wheels/
        sys.exit("the packages could not be installed: pip says why above")
    settings = HERE / ".venv" / "share" / "jupyter" / "lab" / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "overrides.json").write_text(json.dumps(NO_NEWS))
    return python


def main() -> None:
    check_machine(json.loads((HERE / "bundle.json").read_text(encoding="utf-8")))
    check_files()
    python = install()
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if subprocess.run([str(python), "-c", TRY], cwd=HERE / "student", env=quiet).returncode:
        sys.exit("installed, but the network does not answer: see above")
    print(f'ready; start with: "{python}" -m jupyterlab "{HERE / "student"}"')


if __name__ == "__main__":
    main()
