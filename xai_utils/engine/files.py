"""Files are written whole or not at all; and where the suite keeps its data."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

DATA_FOLDER = Path(__file__).resolve().parents[2] / "data"


@contextlib.contextmanager
def written_whole(path: Path, replace: bool = True) -> Iterator[Path]:
    """A place beside `path` to write to, renamed at the end: nobody ever sees half a file.

    Args:
        path: where the file will be; its folder is made.
        replace: whether a file that is there already gives way.

    Yields:
        A path `.<name>.<process>.tmp`; after an error in the block nothing is left of it.

    Raises:
        FileExistsError: there is a file and it is not to be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        (os.replace if replace else os.link)(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
