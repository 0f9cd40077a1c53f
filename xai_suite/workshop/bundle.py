"""The workshop on a stick: one archive with student copies, weights and every package it takes.

    python -m xai_suite.workshop.bundle WORKSHOP [--platform windows] [--python-version 3.12]

makes WORKSHOP/xai-workshop-<platform>-py<version>.zip. Unpacked, `python install.py` sets it up
without network.
"""

import argparse
import hashlib
import json
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from xai_utils.engine import written_whole

INSTALLER = Path(__file__).with_name("install.py")
LOCK = Path("requirements.lock")  # commands run in the project's folder
MADE_HERE = {"__pycache__", ".ipynb_checkpoints"}  # by whoever opened a student copy

# What environment markers ask for, and the tags of wheels that pip may take (most say `any`).
_LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
_GLIBC = [f"manylinux_2_{minor}" for minor in range(5, 36)] + [
    "manylinux1",
    "manylinux2010",
    "manylinux2014",
]
PLATFORMS = {
    "linux": ({**_LINUX, "platform_machine": "x86_64"}, [f"{tag}_x86_64" for tag in _GLIBC]),
    "linux-arm": ({**_LINUX, "platform_machine": "aarch64"}, [f"{tag}_aarch64" for tag in _GLIBC]),
    "mac": (
        {
            "sys_platform": "darwin",
            "platform_system": "Darwin",
            "os_name": "posix",
            "platform_machine": "arm64",
        },
        ["macosx_14_0_arm64"],
    ),
    "windows": (
        {
            "sys_platform": "win32",
            "platform_system": "Windows",
            "os_name": "nt",
            "platform_machine": "AMD64",
        },
        ["win_amd64"],
    ),
}


class BundleError(Exception):
    """Why there is no archive, in one line."""


def this_platform() -> str:
    """Which of PLATFORMS this machine is."""
    here = (sys.platform, platform.machine())
    for name, (markers, _) in PLATFORMS.items():
        if here == (markers["sys_platform"], markers["platform_machine"]):
            return name
    raise BundleError(
        f"this machine ({' '.join(here)}) is none of {', '.join(PLATFORMS)}: choose one with"
        " PLATFORM="
    )


def rounds(lock: str, target: str, version: str) -> list[list[str]]:
    """What to download: lists of `name==version`, each with one version of a package at most.

    A lock may ask for one package on Python 3.11.4 and another on 3.11.5; laptops have either, so
    both come along.

    Raises:
        BundleError: unknown platform, or a version that is not like 3.12.
    """
    if target not in PLATFORMS:
        raise BundleError(f"PLATFORM is one of {', '.join(PLATFORMS)}, not {target!r}")
    if not re.fullmatch(r"3\.\d+", version):
        raise BundleError(f"PYTHON_VERSION is like 3.12, not {version!r}")
    lines = _requirements(lock)
    lists = []
    for patch in (99, 0):
        markers = {
            **default_environment(),
            **PLATFORMS[target][0],
            "implementation_name": "cpython",
            "python_version": version,
            "python_full_version": f"{version}.{patch}",
        }
        wanted = [
            f"{r.name}{r.specifier}"
            for r in lines
            if r.marker is None or r.marker.evaluate(markers)
        ]
        lists.append([text for text in wanted if not lists or text not in lists[0]])
    return [names for names in lists if names]


def download(folder: Path, target: str, version: str) -> list[Path]:
    """Fetch the wheels into `folder`, where some may be; all that belong to this lock."""
    tags = [part for tag in PLATFORMS[target][1] for part in ("--platform", tag)]
    folder.mkdir(parents=True, exist_ok=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        "-qq",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        folder,
        *tags,
    ]
    print(f"fetching packages for {target}, Python {version} ...", flush=True)
    everything = rounds(LOCK.read_text(encoding="utf-8"), target, version)
    for number, names in enumerate(everything):
        patch = 0 if number else 99
        command = [*pip, "--python-version", f"{version}.{patch}", "--implementation", "cp", *names]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise BundleError(
                f"not all packages could be downloaded for {target}, Python {version}: see above"
            )
    pinned = {_pinned(Requirement(text)) for names in everything for text in names}
    return sorted(path for path in folder.glob("*.whl") if _packed(path) in pinned)


def with_wheels(lock: str, wheels: list[Path]) -> str:
    """A lock that names files instead of versions, so that pip looks nowhere else.

    What there is no wheel for is left out.
    """
    files, lines = {_packed(path): path.name for path in wheels}, []
    for requirement in _requirements(lock):
        if name := files.get(_pinned(requirement)):
            marker = f" ; {requirement.marker}" if requirement.marker else ""
            lines.append(f"./wheels/{name}{marker}")
    return "\n".join(lines) + "\n"


def _requirements(lock: str) -> list[Requirement]:
    return [
        Requirement(line) for line in lock.splitlines() if line.strip() and not line.startswith("#")
    ]


def _pinned(requirement: Requirement) -> tuple[str, Version]:
    """Name and version of a line of the lock, which asks for one version."""
    (asked,) = requirement.specifier
    return canonicalize_name(requirement.name), Version(asked.version)


def _packed(wheel: Path) -> tuple[str, Version]:
    """Name and version of a wheel."""
    return parse_wheel_filename(wheel.name)[:2]


def pack(workshop: Path, wheels: list[Path], target: str, version: str) -> Path:
    """Write the archive, whole or not at all, and return its path.

    Weights and data are in `workshop/student`; what a student's copy has computed stays here.
    """
    top = f"xai-workshop-{target}-py{version}"
    files = {}
    for path in sorted((workshop / "student").rglob("*")):
        name = path.relative_to(workshop / "student")
        if path.is_file() and not MADE_HERE & set(name.parts) and name.parts[0] != "reports":
            files[f"student/{name.as_posix()}"] = path
    files |= {f"wheels/{path.name}": path for path in wheels}
    files |= {"README.md": workshop / "README.md", "install.py": INSTALLER}
    texts = {
        "bundle.json": json.dumps({"platform": target, "python": version}) + "\n",
        "requirements.txt": with_wheels(LOCK.read_text(encoding="utf-8"), wheels),
    }
    sums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    sums |= {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    texts["SHA256SUMS"] = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    archive = workshop / f"{top}.zip"
    with (
        written_whole(archive) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name, path in files.items():  # wheels and weights are compressed already
            stored = zipfile.ZIP_STORED if path.suffix in (".whl", ".npz") else zipfile.ZIP_DEFLATED
            packed.write(path, f"{top}/{name}", stored)
        for name, text in texts.items():
            packed.writestr(f"{top}/{name}", text)
    return archive


def main() -> int:
    command = argparse.ArgumentParser(
        prog="python -m xai_suite.workshop.bundle", description=__doc__.splitlines()[0]
    )
    command.add_argument("workshop", type=Path)
    command.add_argument(
        "--platform", default="", help=f"{', '.join(PLATFORMS)}; default: this machine's"
    )
    command.add_argument("--python-version", default="", help="like 3.12; default: this Python's")
    asked = command.parse_args()
    try:
        target = asked.platform or this_platform()
        version = asked.python_version or f"{sys.version_info[0]}.{sys.version_info[1]}"
        wheels = download(asked.workshop / "wheels" / f"{target}-py{version}", target, version)
        archive = pack(asked.workshop, wheels, target, version)
    except BundleError as error:
        print(f"make workshop-bundle: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"make workshop-bundle: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    print(
        f"{archive} ({archive.stat().st_size / 1e6:.0f} MB): unpack it on a laptop and run `python"
        " install.py` there"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
