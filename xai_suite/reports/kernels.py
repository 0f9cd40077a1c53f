"""Runs notebooks through papermill, a runner's all in one kernel; kernels start one at a time."""

import ast
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import tempfile
import traceback
from html import escape
from pathlib import Path

import papermill
from filelock import FileLock
from jupyter_core.paths import jupyter_runtime_dir
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat.v4 import new_markdown_cell
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.execute import remove_error_markers

from xai_suite.reports import provenance
from xai_suite.reports.runs import Run, limit

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
    folder = Path(jupyter_runtime_dir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
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


class Client(PapermillNotebookClient):
    idle = None  # the client whose kernel, emptied, waits for the next run
    # a nameless file with what kernels write past Jupyter, such as the last words of a crash
    said = None
    loaded: list[str] = []  # files of the project's modules, after a good run

    @contextlib.contextmanager
    def setup_kernel(self, **kwargs):
        try:
            if Client.idle:
                self.km, self.kc, Client.idle = Client.idle.km, Client.idle.kc, None
            else:
                with kernel_start_lock():
                    self.km = self.create_kernel_manager()
                    self.start_new_kernel(preexec_fn=die_with_parent(), **kwargs)
                    self.start_new_kernel_client()
            yield
            asked = {"loaded": LOADED}
            reply = self.wait_for_reply(self.kc.execute(EMPTY, silent=True, user_expressions=asked))
            answer = reply["content"]["user_expressions"]["loaded"]["data"]["text/plain"]
            Client.loaded, Client.idle = ast.literal_eval(answer), self
        except BaseException:  # Ctrl-C while it started: nbclient would leave it running
            if self.km and self.km.has_kernel:
                self._cleanup_kernel()
            raise

    def set_widgets_metadata(self):
        """Nothing: saved widget state needs a CDN to be shown."""


def stop_kernel() -> None:
    if Client.idle:
        Client.idle._cleanup_kernel()
        Client.idle = None


class OneAtATime(Engine):
    notebook = None  # what there is of it, also when the execution fails

    @classmethod
    def execute_managed_notebook(
        cls, nb_man, kernel_name, start_timeout, execution_timeout, log_file, **_
    ):
        cls.notebook = nb_man.nb
        client = Client(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            timeout=execution_timeout,
            iopub_timeout=60,  # figures of a busy machine may come later than the default 4 s
            # a polite one interrupts the kernel, and that gets logged as an error
            shutdown_kernel="immediate",
            store_widget_state=False,
            log=logging.getLogger("papermill"),
        )
        # open as long as the kernel is
        said = Client.said = Client.said or tempfile.TemporaryFile()  # noqa: SIM115
        before = os.fstat(said.fileno()).st_size
        try:
            client.execute(stdout=said, stderr=said)
        finally:
            # reads past the kernel's place in the file, which stays where it is
            log_file.write(os.pread(said.fileno(), 1 << 20, before))


papermill_engines.register("one-at-a-time", OneAtATime)


def started(cell) -> bool:
    return cell.cell_type == "code" and bool(cell.metadata.get("papermill", {}).get("start_time"))


def code_number(cells, index: int) -> int:
    """The number a code cell has in its `In [ ]`."""
    return sum(
        cell.cell_type == "code" and bool(cell.source.strip()) for cell in cells[: index + 1]
    )


def one_line(text: str) -> str:
    text = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return text if len(text) <= 300 else f"{text[:300]}…"


def what_happened(problem: Exception, cells, limit: float, start_limit: float) -> str:
    """One line about a failed execution."""
    running = [index for index, cell in enumerate(cells) if started(cell)]
    cell = f"cell {code_number(cells, running[-1])}" if running else "before the first cell"
    if isinstance(problem, PapermillExecutionError):
        cell = f"cell {code_number(cells, problem.cell_index)}"
        return f"{cell}: {problem.ename}: {one_line(problem.evalue)}".removesuffix(": ")
    if isinstance(problem, CellTimeoutError):
        return (
            f"{cell}: stopped because it took more than {limit:g} s (CELL_LIMIT= sets another"
            " limit)"
        )
    if isinstance(problem, DeadKernelError) or "died" in str(problem):
        return f"{cell}: kernel died (killed, out of memory, or crashed)"
    if not running and isinstance(problem, RuntimeError):
        return f"kernel did not answer within {start_limit:g} s: {one_line(str(problem))}"
    return f"{cell}: {type(problem).__name__}: {one_line(str(problem))}"


def execute(run: Run, log: Path):
    """Execute a run: the notebook, whole or partial, and what failed in one line, or None."""
    cell_limit = limit("CELL_LIMIT", run.settings.get("cell_limit", CELL_LIMIT))
    start_limit = limit("START_LIMIT", START_LIMIT)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # The kernel python3 is this environment's, not one in the user's home.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.pop("MPLBACKEND", None)  # figures belong in the notebook
    layout = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(filename=log, level=logging.INFO, format=layout, force=True)
    logging.captureWarnings(True)
    with log.open("ab") as log_file:
        try:
            notebook, problem = once(run, log_file, cell_limit, start_limit)
            if isinstance(problem, RuntimeError) and not any(map(started, notebook.cells)):
                logging.warning("the kernel died before any cell had run: trying once more")
                notebook, problem = once(run, log_file, cell_limit, start_limit)
        finally:
            logging.basicConfig(force=True)  # the log is closed and moved
    if problem is None:
        return notebook, None
    return notebook, what_happened(problem, notebook.cells, cell_limit, start_limit)


def once(run: Run, log_file, cell_limit: float, start_limit: float):
    """The notebook as far as it went, and what ended it, or None."""
    OneAtATime.notebook = None
    try:
        papermill.execute_notebook(
            str(run.notebook),
            None,  # written once, by the runner, when all is done
            parameters=run.given,
            engine_name="one-at-a-time",
            kernel_name="python3",
            progress_bar=False,
            cwd=str(run.notebook.parent),
            start_timeout=start_limit,
            execution_timeout=cell_limit,
            log_file=log_file,
        )
        return OneAtATime.notebook, None
    except Exception as problem:
        if OneAtATime.notebook and is_end(problem):
            return ended(remove_error_markers(OneAtATime.notebook), problem), None
        stop_kernel()  # nobody knows in what state the notebook left it
        log_file.write(traceback.format_exc().encode())
        if OneAtATime.notebook is None:
            raise
        return remove_error_markers(OneAtATime.notebook), problem  # the page has better markers


def is_end(problem: Exception) -> bool:
    """Whether the notebook called `show.end`, which leaves one line for a traceback."""
    return (
        isinstance(problem, PapermillExecutionError)
        and problem.ename == "Ended"
        and problem.traceback == [problem.evalue]
    )


def ended(notebook, problem: PapermillExecutionError):
    """The notebook as far as the cell that called `show.end`; then, instead of an error, why."""
    why = provenance.without_machine(problem.evalue)
    last = notebook.cells[problem.cell_index]
    last.outputs = [output for output in last.outputs if output.output_type != "error"]
    # a cell of its own: visible also where the last one is folded or hidden
    note = new_markdown_cell(f'<p class="note">{escape(why)}</p>')
    notebook.cells[problem.cell_index + 1 :] = [note]
    notebook.metadata["report"] = {**notebook.metadata.get("report", {}), "ended": why}
    return notebook
