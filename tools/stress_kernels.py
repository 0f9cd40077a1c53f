"""Many tiny notebooks through the real runner, many at a time: nothing may fail, hang or complain.

    python tools/stress_kernels.py [--count 200] [--jobs 8]

Kernels that start at the same time can be given the same ports
(xai_suite.reports.kernel_start_lock says why they are not). Prints what went wrong and
the figures; the exit code is 1 if anything did.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
import nbformat.v4 as v4

ROOT = Path(__file__).resolve().parent.parent
HANG = 300  # seconds; a run takes about two, and waits for the others' kernels to start
STRAY = re.compile(
    r"Traceback|Invalid|Control Message|died|KeyboardInterrupt|Address already in use|ERROR|trying"
    r" once more"
)


def make_project(folder: Path, count: int) -> None:
    for name in ("notebooks", "reports/runs"):
        (folder / name).mkdir(parents=True)
    cells = [
        v4.new_markdown_cell("# Do a little"),
        v4.new_code_cell("number = 0", metadata={"tags": ["parameters"]}),
    ]
    cells += [
        v4.new_code_cell(code)
        for code in ("print(number)", "import time; time.sleep(0.3)", "number * 2")
    ]
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    (folder / "notebooks" / "10_tiny.ipynb").write_text(nbformat.writes(notebook))
    for number in range(count):
        (folder / "reports" / "runs" / f"10_tiny--{number}.yaml").write_text(f"number: {number}\n")


def run_one(folder: Path, number: int) -> tuple[str | None, str]:
    """Returns what went wrong (or None), and what the runner said."""
    name = f"10_tiny--{number}"
    out = folder / "reports" / "build" / f"{name}.ipynb"
    command = [sys.executable, "-m", "xai_suite.reports.runner", "reports/build", name]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=HANG
        )
    except subprocess.TimeoutExpired:
        return f"{name}: hangs (more than {HANG} s)", ""
    if done.returncode:
        return (done.stdout + done.stderr).strip(), ""
    results = [
        output
        for cell in nbformat.read(out, as_version=4).cells
        for output in cell.get("outputs", [])
    ]
    if [results[0].text, results[1].data["text/plain"]] != [f"{number}\n", str(number * 2)]:
        return f"{name}: wrong outputs: {results}", ""
    return None, done.stdout + done.stderr


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--count", type=int, default=200, help="notebooks (200)")
    options.add_argument("--jobs", type=int, default=8, help="at a time (8)")
    asked = options.parse_args()
    wrong, stray, clock = [], [], time.monotonic()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(asked.jobs) as pool:
        folder = Path(place)
        make_project(folder, asked.count)
        running = [pool.submit(run_one, folder, number) for number in range(asked.count)]
        for done, future in enumerate(as_completed(running), 1):
            problem, log = future.result()
            lines = [line for line in log.splitlines() if STRAY.search(line)]
            for line in [problem, *lines] if problem else lines:
                print(line, flush=True)
            wrong += [problem] if problem else []
            stray += lines
            if done % 20 == 0:
                print(f"{done}/{asked.count}  {time.monotonic() - clock:.0f} s", flush=True)
    hangs = sum("hangs" in problem for problem in wrong)
    print(
        f"{asked.count} notebooks, {asked.jobs} at a time, {time.monotonic() - clock:.0f} s: "
        f"{len(wrong) - hangs} failures, {hangs} hangs, {len(stray)} stray errors told"
    )
    return 1 if wrong or stray else 0


if __name__ == "__main__":
    sys.exit(main())
