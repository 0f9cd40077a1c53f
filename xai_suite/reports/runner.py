"""Executes a notebook's runs: strictly checked, atomically written, no kernel left whatever dies.

    python -m xai_suite.reports.runner BUILD_DIR 21_grad_cam--cat... [--model vgg19]

Runs go one after the other through one kernel, emptied in between: TensorFlow starts once. A good
run leaves BUILD_DIR/<run>.ipynb; a failed one none, and what there is of it goes to failed/ there,
with its log. Each ends with a line: `<run>  12 s`, or `FAILED <run>: why`.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from xai_suite.reports import provenance, reading, runs, staleness

stopping = threading.Event()  # set when we were told to


def watch_parent() -> None:
    """When whoever started us dies, even by kill -9, stop like after Ctrl-C."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)  # a real signal wakes the main thread from waiting
        time.sleep(10)
        os._exit(1)  # the kernel dies with us

    threading.Thread(target=watch, daemon=True).start()


def stop_once(*_) -> None:
    if not stopping.is_set():  # a second Ctrl-C must not disturb the cleaning up
        stopping.set()
        raise KeyboardInterrupt


def stop_when_told() -> None:
    """On Ctrl-C, a termination or the death of the parent: one KeyboardInterrupt."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop_once)
    watch_parent()


def remove_left_over(build: Path) -> None:
    """Delete temporary files whose process is gone."""
    for file in build.rglob(".*.tmp"):
        try:
            os.kill(int(file.suffixes[-2][1:]), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except (ValueError, LookupError, OSError):
            continue


def execute(make, name: str, build: Path) -> str | None:
    """Make the run, execute it, write its notebook and say so in a line.

    Args:
        make: returns the `Run`, or raises `runs.RunError`.

    Returns:
        One line about what failed, or None.
    """
    out, clock, started = build / f"{name}.ipynb", time.monotonic(), datetime.now(UTC)
    failed, log = build / "failed" / out.name, build / f".{name}.log.{os.getpid()}.tmp"
    out.unlink(missing_ok=True)  # out of date: whatever happens now, nobody may take it for good
    layout = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(filename=log, level=logging.INFO, format=layout, force=True)
    logging.captureWarnings(True)
    run, notebook, parts, computed_on = None, None, {}, None
    try:
        try:
            run = make()
            parts = staleness.made_from(run, build)
            from xai_suite.reports import kernels

            notebook, error = kernels.execute(run)
            parts |= staleness.modules(kernels.Kernel.loaded)
            computed_on = kernels.Kernel.computed_on
        except Exception as problem:  # even if not the notebook's fault: one red card
            ours = not isinstance(problem, runs.RunError)
            logging.error("%s", problem, exc_info=ours)
            error = reading.one_line(f"{type(problem).__name__}: {problem}" if ours else problem)
        if stopping.is_set():  # cleaning up may have put an error of its own in place of this
            raise KeyboardInterrupt
        error = error and provenance.without_machine(error)
        seconds = time.monotonic() - clock
        record = provenance.record(run, name, started, seconds, error, computed_on)
        provenance.write(notebook, failed if error else out, record | {"made_from": parts})
        failed_log = failed.with_suffix(".log")
        if error:
            words = provenance.without_machine(log.read_text(errors="replace"))
            failed_log.write_text(words)  # the page shows its end
            error += f" (partial notebook: {failed}, log: {failed_log})"
        else:
            failed.unlink(missing_ok=True)
            failed_log.unlink(missing_ok=True)
    finally:
        logging.basicConfig(force=True)  # the log is closed
        log.unlink(missing_ok=True)
    seconds = time.monotonic() - clock
    print(f"FAILED {name}: {error}" if error else f"{name}  {seconds:4.0f} s", flush=True)
    return error


def stop_kernel() -> None:
    if kernels := sys.modules.get("xai_suite.reports.kernels"):  # a wrong run did not need it
        kernels.stop_kernel()


def main() -> int:
    command = argparse.ArgumentParser(
        prog="python -m xai_suite.reports.runner", description=__doc__.splitlines()[0]
    )
    command.add_argument("build", type=Path)
    command.add_argument("names", nargs="+", help="of run files")
    command.add_argument("--model", help="name or file, for notebooks with that parameter")
    asked = command.parse_args()
    asked.build.mkdir(parents=True, exist_ok=True)
    stop_when_told()
    remove_left_over(asked.build)
    staleness.modules()  # as they are now, before the kernel loads any
    try:
        errors = [
            execute(partial(runs.of_file, name, asked.model), name, asked.build)
            for name in asked.names
        ]
        return 1 if any(errors) else 0
    finally:
        stop_kernel()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        os._exit(130)  # no wall of text about what asyncio was doing
