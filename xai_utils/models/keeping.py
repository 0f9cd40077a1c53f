"""Weights of small networks, kept on disk once they are trained."""

import contextlib
import hashlib
import inspect
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock

from xai_utils.engine import DATA_FOLDER, keras, tf, written_whole

FOLDER = DATA_FOLDER.parent / "reports" / "build" / "small_networks"


def key(parameters: Sequence, code: Sequence) -> str:
    """A name for everything that weights depend on.

    Args:
        parameters: what can be written as JSON.
        code: modules or functions whose files draw the pictures or train.

    Returns:
        24 hexadecimal digits.
    """
    text = b"".join(Path(inspect.getfile(part)).read_bytes() for part in code)
    given = json.dumps([*parameters, tf.__version__, keras.__version__]).encode()
    return hashlib.sha256(text + given).hexdigest()[:24]


def kept(
    name: str, states: int, train: Callable[[], list[list[np.ndarray]]], folder: Path | None = None
) -> list[list[np.ndarray]]:
    """Weights from disk, or those that `train` returns, which are then kept.

    Args:
        name: of the file, see `key`.
        states: how many sets of weights there are.
        train: called if there is no whole file; returns as many sets of weights.
        folder: where they are kept; default `reports/build/small_networks`.

    Returns:
        The sets of weights, each for `model.set_weights`.
    """
    path = (folder or FOLDER) / f"{name}.npz"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a folder nobody can write to: train, and keep nothing
            path.parent.mkdir(parents=True, exist_ok=True)
            # of two runs that need one network, one trains it
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        weights = _read(path, states)
        if weights is None:
            weights = train()
            with contextlib.suppress(OSError):
                _write(path, weights)
        return weights


def _read(path: Path, states: int) -> list[list[np.ndarray]] | None:
    """The weights of every state, or None if there is no whole file."""
    bad = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
    with contextlib.suppress(*bad), np.load(path, allow_pickle=False) as arrays:
        count = len(arrays.files) // states
        return [[arrays[f"{state}_{i}"] for i in range(count)] for state in range(states)]
    return None


def _write(path: Path, weights: list[list[np.ndarray]]) -> None:
    arrays = {
        f"{state}_{i}": array
        for state, arrays in enumerate(weights)
        for i, array in enumerate(arrays)
    }
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
