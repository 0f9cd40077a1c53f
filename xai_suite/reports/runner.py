"""Executes runs: strictly checked, atomically written, and leaving no kernel behind whatever dies.

    python -m xai_suite.reports.runner run BUILD_DIR reports/runs/21_grad_cam--cat.yaml... [--model
    vgg19] python -m xai_suite.reports.runner one-off        (NOTEBOOK, IMAGE, MODEL, PARAMS come
    from the environment: `make report`)

Runs go one after the other through one kernel, emptied in between: TensorFlow starts once. A good
run leaves BUILD_DIR/<run>.ipynb; a failed one none, and what there is of it goes to failed/ there,
with its log.
"""

import argparse
import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from xai_suite.reports import provenance, runs
from xai_suite.reports.runs import RunError

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def watch_parent() -> None:
    """When make dies, even by kill -9, stop like after Ctrl-C."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)  # a real signal wakes the main thread from waiting
        time.sleep(10)
        os._exit(1)  # the kernel dies with us

    threading.Thread(target=watch, daemon=True).start()


def stop_once(*_) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not disturb the cleaning up
    raise KeyboardInterrupt


def stopped() -> bool:
    """Whether `stop_once` was called."""
    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def remove_left_over(folder: Path, name: str) -> None:
    """Delete temporary files of runs of this name whose process is gone."""
    for file in [*folder.glob(f".{name}.*.tmp"), *folder.glob(f"failed/.{name}.*.tmp")]:
        try:
            os.kill(int(file.suffixes[-2][1:]), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except (ValueError, OSError):
            continue


def execute_and_record(make, name: str, out: Path, limits: dict, keep_log: bool) -> str | None:
    """Make the run, execute it, write the notebook. Returns one line about what failed, or None."""
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_left_over(out.parent, name)
    out.unlink(
        missing_ok=True
    )  # it is out of date: whatever happens now, nobody may take it for good
    log = out.with_name(f".{name}.log.{os.getpid()}.tmp")
    started, clock = datetime.now(UTC), time.monotonic()
    run, notebook = None, None
    try:
        try:
            run = make()
            from xai_suite.reports.execution import execute

            notebook, error = execute(run, log, **limits)
        except RunError as problem:
            error = str(problem)
            log.write_text(f"{error}\n")
        except (
            Exception
        ) as problem:  # not the notebook's fault, but still one red card and not a wall of text
            error = (
                f"{type(problem).__name__}:"
                f" {str(problem).strip().splitlines()[0] if str(problem).strip() else ''}"
            )
            with log.open("a") as file:
                traceback.print_exc(file=file)
        if stopped():  # cleaning up may have put an error of its own in the place of the interrupt
            raise KeyboardInterrupt
        error = provenance.without_machine(ANSI.sub("", error)) if error else None
        model = run.parameters.get("model") if run else None
        record = {
            "run": name,
            "notebook": run.notebook.stem if run else name.split("--")[0],
            "title": run.title if run else name.split("--")[0],
            "parameters": run.parameters if run else {},
            "changed": run.changed if run else {},
            "model": (
                None if model == "default" else model
            ),  # a summary's: the default set of reports, no network
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 1),
            "versions": provenance.versions(),
            "commit": provenance.commit(),
            "error": error,
        }
        failed = out.parent / "failed" / out.name
        provenance.write(
            notebook or provenance.empty_notebook(record["title"]), failed if error else out, record
        )
        if error:
            log.write_text(
                provenance.without_machine(log.read_text(errors="replace"))
            )  # the page shows its end
            os.replace(log, failed.with_suffix(".log"))
            return f"{error} (partial notebook: {failed}, log: {failed.with_suffix('.log')})"
        for file in (failed, failed.with_suffix(".log")):
            file.unlink(missing_ok=True)
        if keep_log:
            os.replace(log, out.with_suffix(".log"))
        return None
    finally:
        log.unlink(missing_ok=True)


def place(progress: Path, name: str) -> tuple[str, str]:
    """`[ 3/16]` and `(13 left, 1:02 elapsed)`: add a line to the file and see which it is; right
    for parallel runs.
    """
    me = f"{name} {os.getpid()}\n"
    with progress.open("a") as file:
        file.write(me)  # one short write in append mode is atomic
    first, *done = progress.read_text().splitlines(keepends=True)
    total, start = (int(word) for word in first.split())
    count, elapsed = done.index(me) + 1, max(0, int(time.time()) - start)
    total = max(total, count)
    return (
        f"[{count:{len(str(total))}}/{total}] ",
        f"({total - count} left, {elapsed // 60}:{elapsed % 60:02} elapsed)",
    )


def report_line(name: str, error: str | None, seconds: float, progress: Path | None) -> None:
    before, after = place(progress, name) if progress and progress.is_file() else ("", "")
    if error:
        red = (
            ("\x1b[31m", "\x1b[0m")
            if sys.stdout.isatty() and "NO_COLOR" not in os.environ
            else ("", "")
        )
        print(f"{red[0]}{before}FAILED {name}: {error}{red[1]}", flush=True)
    else:
        print(f"{before}{name}  {seconds:4.0f} s   {after}".rstrip(), flush=True)


def split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise RunError(f"PARAMS: {error} in {text}") from None


def in_a_name(words: str) -> str:
    """These words as part of a file's name; long ones end in a digest, so that others get another
    name.
    """
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", words).strip("-.")
    return (
        plain
        if len(plain) <= 40
        else f"{plain[:31].strip('-.')}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"
    )


def one_off(limits: dict) -> int:
    """`make report`: any notebook on any picture, to reports/site/one-off/."""
    ask = {key: os.environ.get(key, "") for key in ("NOTEBOOK", "IMAGE", "MODEL", "PARAMS")}
    notebook = Path(ask["NOTEBOOK"]).name.removesuffix(".ipynb")
    try:
        if not notebook:
            raise RunError("say which notebook: make report NOTEBOOK=21_grad_cam IMAGE=my.jpg")
        path = runs.find_notebook(notebook, "NOTEBOOK")
        defaults = runs.default_parameters(runs.read_notebook(path), path)
        given = dict(runs.parse_setting(text, defaults) for text in split(ask["PARAMS"]))
        if ask["IMAGE"]:
            image = runs.from_notebooks(ask["IMAGE"])
            given |= (
                {"images": [image]}
                if "images" in defaults and "image" not in defaults
                else {"image": image}
            )
        if ask["MODEL"]:
            given["model"] = runs.from_notebooks(ask["MODEL"])
        words = [Path(ask["IMAGE"]).stem, Path(ask["MODEL"]).stem, ask["PARAMS"]]
        variant = "--".join(filter(None, map(in_a_name, words)))
        name = f"{notebook}--{variant or 'default'}"
        run = runs.make_run(name, given, "make report", notebook)
    except RunError as error:
        print(f"make report: {str(error).removeprefix('make report: ')}", file=sys.stderr)
        return 1
    build, site = Path("reports/build/one-off"), Path("reports/site/one-off")
    clock = time.monotonic()
    error = execute_and_record(lambda: run, name, build / f"{name}.ipynb", limits, False)
    report_line(name, error, time.monotonic() - clock, None)
    publish = [sys.executable, "-m", "xai_suite.reports.site"]
    code = subprocess.run([*publish, "pages", build, site, name]).returncode
    made = {file.stem for file in (*build.glob("*--*.ipynb"), *build.glob("failed/*--*.ipynb"))}
    subprocess.run(
        [*publish, "index", build, site, *sorted(made)], stderr=subprocess.DEVNULL
    )  # failures were told
    if not code:
        print(f"the report is in {site / name}.html", flush=True)
    return 1 if error else code


def main() -> int:
    command = argparse.ArgumentParser(
        prog="python -m xai_suite.reports.runner", description=__doc__.splitlines()[0]
    )
    limit = os.environ.get
    command.add_argument(
        "--cell-limit", type=float, default=limit("CELL_LIMIT"), help="seconds a cell may take"
    )
    command.add_argument(
        "--start-limit", type=float, default=limit("START_LIMIT", 60), help="and a kernel, to start"
    )
    kinds = command.add_subparsers(dest="kind", required=True)
    kinds.add_parser("one-off")
    run = kinds.add_parser("run")
    run.add_argument("build", type=Path)
    run.add_argument("run_files", type=Path, nargs="+")
    run.add_argument("--model", help="name or file, for notebooks with that parameter")
    run.add_argument(
        "--progress",
        type=Path,
        help="a part of many: count them there, leave failures to the index",
    )
    run.add_argument(
        "--side-by-side",
        type=int,
        default=1,
        help="so many runs share the processors of this machine",
    )
    run.add_argument("--keep-log", action="store_true", help="keep the log of a good run beside it")
    asked = command.parse_args()
    limits = {"cell_limit": asked.cell_limit, "start_limit": asked.start_limit}
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop_once)
    watch_parent()
    # jsonschema would load a grammar of web addresses, papermill a reader of Hadoop's files;
    # nothing here uses either.
    sys.modules.update(rfc3987_syntax=None, pyarrow=None)
    try:
        if asked.kind == "one-off":
            return one_off(limits)
        if (
            asked.side_by_side > 1
        ):  # TensorFlow would take all: too many threads wait for each other
            os.environ.setdefault(
                "TF_NUM_INTRAOP_THREADS", str(max(1, os.cpu_count() // asked.side_by_side))
            )
        failed = [file for file in asked.run_files if not execute_file(file, asked, limits)]
        return 1 if failed and not asked.progress else 0
    finally:
        if execution := sys.modules.get(
            f"{__package__}.execution"
        ):  # a run that was wrong did not need it
            execution.stop_kernel()


def execute_file(file: Path, asked: argparse.Namespace, limits: dict) -> bool:
    """Execute the run of a run file, and say so in a line."""
    name, clock = file.stem, time.monotonic()

    def make():
        return runs.with_model(
            runs.make_run(name, runs.read_run_file(file), str(file)), asked.model
        )

    error = execute_and_record(make, name, asked.build / f"{name}.ipynb", limits, asked.keep_log)
    report_line(name, error, time.monotonic() - clock, asked.progress)
    return not error


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        os._exit(130)  # no wall of text about what asyncio was doing
