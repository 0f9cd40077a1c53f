"""Executes a runner's notebooks, one after the other in one kernel; kernels start one at a time."""

import ast
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import tempfile
from html import escape
from pathlib import Path

import papermill
from filelock import FileLock
from jupyter_core.paths import jupyter_runtime_dir
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat.v4 import new_markdown_cell, new_notebook

from xai_suite.reports import provenance
from xai_suite.reports.reading import one_line
from xai_suite.reports.runs import NOTEBOOKS, Run, limit, writable

# Seconds; a notebook may set its own: metadata "report": {"cell_limit": 1200}.
CELL_LIMIT, START_LIMIT = 600, 60


@contextlib.contextmanager
def kernel_start_lock():
    """Hold this from before a kernel starts until it has answered.

    A kernel's ports are found by binding and closing them again, so two kernels that start at the
    same time can be given the same one. A kernel that has answered holds its ports. (One lock a
    machine: home folders may be shared.)
    """
    with FileLock(runtime_folder() / f"kernel-start-{socket.gethostname()}.lock"):
        yield


def runtime_folder() -> Path:
    """Where kernels keep their files; if a home cannot be written, a temporary folder."""
    try:
        return writable(Path(jupyter_runtime_dir()))
    except OSError:
        folder = Path(tempfile.gettempdir(), f"xai-kernels-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["JUPYTER_RUNTIME_DIR"] = str(folder)
        return folder


def die_with_parent():
    """For Popen: the kernel is killed when its runner dies, however that was.

    ipykernel looks at its parent once a second, but not before it is ready, and not when something
    else than process 1 adopts orphans (systemd --user does). Elsewhere than on Linux its own look
    has to do.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def in_child():
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return in_child


# Names and numbers of cells begin anew; what modules hold (imports, compiled functions) stays.
EMPTY = """
import sys
if "xai_utils.models.load" in sys.modules:
    sys.modules["xai_utils.models.load"].return_networks()
get_ipython().reset(new_session=True)
"""
LOADED = """[module.__file__ for name, module in [*__import__("sys").modules.items()]
    if name.startswith("xai_") and getattr(module, "__file__", None)]"""
COMPUTED_ON = """(lambda engine: engine and engine.computed_on())(
    __import__("sys").modules.get("xai_utils.engine.backend"))"""


class Kernel(NotebookClient):
    """A runner's kernel, emptied after each run for the next one."""

    current = None  # the one there is, from before it starts
    loaded: list[str] = []  # files of the project's modules, after the last good run
    computed_on: str | None = None  # as `engine.computed_on` says; None before TensorFlow starts
    # What kernels write past Jupyter, such as the last words of a crash; a file without a name.
    said = tempfile.TemporaryFile()  # noqa: SIM115

    def __init__(self, start_limit: float):
        super().__init__(
            new_notebook(),
            kernel_name="python3",
            startup_timeout=start_limit,
            iopub_timeout=60,  # figures of a busy machine may come later than the default 4 s
            raise_on_iopub_timeout=True,
            # a polite one interrupts the kernel, and that gets logged as an error
            shutdown_kernel="immediate",
        )
        Kernel.current = self
        pipes = {"stdout": self.said, "stderr": self.said}
        with kernel_start_lock():
            self.create_kernel_manager()
            self.start_new_kernel(preexec_fn=die_with_parent(), cwd=str(NOTEBOOKS), **pipes)
            self.start_new_kernel_client()

    def run(self, notebook, index: int) -> None:
        """Execute a cell; if it calls `show.end`, the notebook has no more of them."""
        try:
            self.execute_cell(notebook.cells[index], index)
        except CellExecutionError:
            if not ended(notebook, index):
                raise

    def empty(self) -> None:
        """Ask which modules are loaded and what computes, and take all names away."""
        # The first question also waits until a kernel that met an error takes requests again.
        info = self.wait_for_reply(self.kc.kernel_info())
        self.nb.metadata["language_info"] = info["content"]["language_info"]
        asked = {"loaded": LOADED, "computed_on": COMPUTED_ON}
        reply = self.wait_for_reply(self.kc.execute(EMPTY, silent=True, user_expressions=asked))
        answers = reply["content"]["user_expressions"]
        Kernel.loaded, Kernel.computed_on = (
            ast.literal_eval(answers[name]["data"]["text/plain"]) for name in asked
        )


def started(start_limit: float) -> Kernel:
    """The kernel there is, or a new one; if that does not answer, another."""
    try:
        return Kernel.current or Kernel(start_limit)
    except RuntimeError as problem:
        logging.warning("the kernel did not start (%s): trying once more", problem)
        return Kernel(start_limit)


def stop_kernel() -> None:
    kernel, Kernel.current = Kernel.current, None
    if kernel and kernel.km:
        kernel._cleanup_kernel()


def ended(notebook, index: int) -> bool:
    """Whether this cell called `show.end`; then the notebook ends after it, and says why."""
    cell = notebook.cells[index]
    last = cell.outputs[-1] if cell.outputs else {}
    if last.get("ename") != "Ended" or last.traceback != [last.evalue]:
        return False
    why = provenance.without_machine(last.evalue)
    cell.outputs.remove(last)
    # a cell of its own: visible also where this one is folded or hidden
    notebook.cells[index + 1 :] = [new_markdown_cell(f'<p class="note">{escape(why)}</p>')]
    notebook.metadata["report"] = {**notebook.metadata.get("report", {}), "ended": why}
    return True


def what_happened(problem: Exception, number: int, limit: float, start_limit: float) -> str:
    """One line about an execution that failed in the code cell of this number, or before any."""
    cell = f"cell {number}" if number else "before the first cell"
    if isinstance(problem, CellExecutionError):
        return f"{cell}: {problem.ename}: {one_line(problem.evalue)}".removesuffix(": ")
    if isinstance(problem, CellTimeoutError):
        more = "CELL_LIMIT= sets another limit"
        return f"{cell}: stopped because it took more than {limit:g} s ({more})"
    if "died" in str(problem):
        return f"{cell}: kernel died (killed, out of memory, or crashed)"
    if not number and isinstance(problem, RuntimeError):
        return f"kernel did not answer within {start_limit:g} s: {one_line(problem)}"
    return f"{cell}: {type(problem).__name__}: {one_line(problem)}"


def execute(run: Run):
    """Execute a run: the notebook, whole or partial, and what failed in one line, or None."""
    cell_limit = limit("CELL_LIMIT", run.settings.get("cell_limit", CELL_LIMIT))
    start_limit = limit("START_LIMIT", START_LIMIT)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # The kernel python3 is this environment's, not one in the user's home.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.pop("MPLBACKEND", None)  # figures belong in the notebook
    notebook = papermill.execute_notebook(
        run.notebook, None, run.given, prepare_only=True, kernel_name="python3"
    )
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    number, before = 0, os.fstat(Kernel.said.fileno()).st_size
    try:
        kernel = started(start_limit)
        kernel.nb, kernel.timeout = notebook, cell_limit
        kernel.reset_execution_trackers()
        for index, cell in enumerate(notebook.cells):
            number += cell.cell_type == "code" and bool(cell.source.strip())
            kernel.run(notebook, index)
        kernel.empty()
        return notebook, None
    except Exception as problem:
        logging.exception("stopped at cell %d", number)
        stop_kernel()  # nobody knows in what state the notebook left it
        return notebook, what_happened(problem, number, cell_limit, start_limit)
    finally:
        # reads past the kernels' place in the file, which stays where it is
        logging.info(os.pread(Kernel.said.fileno(), 1 << 20, before).decode(errors="replace"))
