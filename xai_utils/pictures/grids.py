"""Pictures of several classes in one: what speaks for a class should come from its own cell."""

import numpy as np
from skimage.measure import block_reduce
from skimage.util import montage


def tile(pictures, columns: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Put pictures side by side, row by row.

    Args:
        pictures: `(N, H, W, C)`, N a multiple of `columns`.
        columns: pictures in a row.

    Returns:
        The grid `(1, rows H, columns W, C)` and where each picture is, bool
        `(N, rows H, columns W)`.

    Raises:
        ValueError: a number of pictures that leaves a hole.
    """
    pictures = np.asarray(pictures)
    count, height, width = pictures.shape[:3]
    if columns < 1 or not count or count % columns:
        raise ValueError(
            f"a grid of {columns} columns needs a multiple of {columns} pictures, not {count}"
        )
    grid = montage(pictures, grid_shape=(count // columns, columns), channel_axis=-1)[None]
    number = np.arange(count).reshape(-1, columns).repeat(height, axis=0).repeat(width, axis=1)
    return grid, number == np.arange(count)[:, None, None]


def shrink(pictures, factor: int = 2) -> np.ndarray:
    """Make pictures smaller by a whole factor, each pixel the mean of a square.

    What does not fill one is cut off.

    Args:
        pictures: `(N, H, W, C)`, any number type.
        factor: pixels of a square's side; default 2.

    Returns:
        float32 `(N, H // factor, W // factor, C)`.

    Example:
        >>> shrink(np.arange(4).reshape(1, 2, 2, 1)).tolist()
        [[[[1.5]]]]
    """
    pictures = np.asarray(pictures, np.float32)
    rows, columns = (extent // factor * factor for extent in pictures.shape[1:3])
    return block_reduce(pictures[:, :rows, :columns], (1, factor, factor, 1), np.mean)
