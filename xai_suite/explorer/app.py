"""The explorer as an app: `python -m xai_suite.explorer.app`.

Voilà serves the cells of the notebook `01_explorer` that are tagged `app`, without their code. The
network to begin with is `MODEL` of the environment, described as for `make reports`.
"""

import argparse
import os
import tempfile
from pathlib import Path

import nbformat

from xai_suite.reports import RunError, asked_model, where_typed
from xai_utils.engine import written_whole
from xai_utils.models import files_of

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "reports" / "build" / "app"
IDLE = 900  # seconds after which the kernel of a page nobody looks at is ended
UPLOAD = 100_000_000  # bytes a visitor may send at once


def write_app(folder: Path, model: str = "") -> Path:
    """Write `explorer.ipynb` there: the title and the cells tagged `app` of `01_explorer`.

    Args:
        model: network to begin with; default the notebook's.
    """
    notebook = nbformat.read(ROOT / "notebooks" / "01_explorer.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if "app" in cell.metadata.get("tags", [])]
    notebook.cells = [notebook.cells[0], *cells]
    if model:
        chosen = nbformat.v4.new_code_cell(f"model = {model!r}")
        tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
        place = next(i for i, given in enumerate(tags) if "parameters" in given)
        notebook.cells.insert(place + 1, chosen)
    path = folder / "explorer.ipynb"
    with written_whole(path) as temporary:
        nbformat.write(notebook, temporary)
    return path


def writable(folder: Path, other: Path) -> Path:
    """That folder, or the other one where nothing can be written to it, which is said in a line."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return folder
    except OSError as error:
        print(f"{folder} cannot be written ({error.strerror}); {other} is used instead", flush=True)
        return other


def check_there(model: str) -> None:
    """Check that a network asked for by its file is there, before anything is started.

    Whether it can be used is found out, and said, by the page that loads it.

    Raises:
        FileNotFoundError, ValueError: no such file, or a bad card.
    """
    path = Path(model)
    if (path.suffix or len(path.parts) > 1) and not files_of(model):
        raise FileNotFoundError(f"no model file at {model}")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m xai_suite.explorer.app", description=__doc__)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument(
        "--port", type=int, default=8866, help="port to listen on (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    templates = [str(ROOT / "reports" / "template" / "app"), os.environ.get("JUPYTER_PATH")]
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, templates))
    from jupyter_core.paths import jupyter_data_dir
    from voila.app import Voila

    with tempfile.TemporaryDirectory(prefix="explorer-") as other:
        try:
            model = where_typed(asked_model())
            check_there(model)
        except (RunError, ValueError, OSError) as error:
            parser.error(str(error))
        path = write_app(writable(FOLDER, Path(other, "app")), model)
        # Jupyter would answer every visitor with an error where a home cannot be written.
        data = writable(Path(jupyter_data_dir()), Path(other, "jupyter"))
        os.environ["JUPYTER_DATA_DIR"] = str(data)
        print(f"the explorer is at http://{given.host}:{given.port}/ (Ctrl-C ends it)", flush=True)
        # Tornado would cut the connection, without a word, over an upload of more than 10 MB.
        Voila.launch_instance(
            [
                str(path),
                f"--Voila.ip={given.host}",
                f"--port={given.port}",
                "--no-browser",
                "--template=offline",
                f"--MappingKernelManager.cull_idle_timeout={IDLE}",
                "--MappingKernelManager.cull_interval=60",
            ],
            tornado_settings={"websocket_max_message_size": UPLOAD},
        )


if __name__ == "__main__":
    main()
