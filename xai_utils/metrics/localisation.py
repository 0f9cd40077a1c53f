"""How much of a map lies on an object of known place, and whether its peak does.

The object is a mask, of the map's size (`pictures.resize_map` enlarges maps), or a box. On a mask
only what is above zero counts as mass: evidence against the target, or a zero, places nothing. A
map points to its highest value, signed maps too, and a constant map points nowhere.
"""

import numpy as np


def mass_share(values, mask) -> float:
    """Share of the positive mass of a map that lies on an object; the energy-based pointing game.

    Source: Wang et al., "Score-CAM" (CVPR workshops 2020), section 4.3.

    Args:
        values: one map `(H, W)`.
        mask: bool `(H, W)`, True on the object.

    Returns:
        0..1; nan where nothing of the map is positive.

    Raises:
        ValueError: a mask that covers nothing, or not of the map's shape.

    Example:
        >>> mass_share([[3.0, 1.0], [0.0, -5.0]], [[True, False], [False, False]])
        0.75
    """
    values, mask = _checked(values, mask)
    positive = np.maximum(values, 0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else float("nan")


def enrichment(values, mask) -> float:
    """Share of positive mass on an object over its share of the area: 1 is no better than chance.

    Args:
        values: one map `(H, W)`.
        mask: bool `(H, W)`, True on the object.

    Returns:
        0 to `1 / mask.mean()`; nan where nothing of the map is positive.

    Raises:
        ValueError: a mask that covers nothing, or not of the map's shape.

    Example:
        >>> enrichment([[3.0, 1.0], [0.0, -5.0]], [[True, False], [False, False]])
        3.0
    """
    return mass_share(values, mask) / float(np.mean(mask))


def pointing(values, mask, tolerance: float = 0) -> bool:
    """The pointing game: whether a map's highest place lies on the object, or near enough.

    The highest value counts, not the largest size: evidence against the target points nowhere. Of
    several highest places the first in reading order counts; a constant map points nowhere.
    Source: Zhang et al., "Top-down neural attention by excitation backprop" (ECCV 2016), section
    4.1, where the tolerance is 15 pixels.

    Args:
        values: one map `(H, W)`.
        mask: bool `(H, W)`, True on the object.
        tolerance: how far from the object the peak may lie, in pixels; default 0.

    Returns:
        True or False.

    Raises:
        ValueError: a mask that covers nothing, or not of the map's shape; a negative tolerance.
    """
    values, mask = _checked(values, mask)
    if not tolerance >= 0:
        raise ValueError(f"pointing: tolerance must not be negative, got {tolerance}")
    peak = _peak(values)
    if peak is None:
        return False
    return bool(np.hypot(*(np.argwhere(mask) - peak).T).min() <= tolerance)


def grid_share(values, rows: int, columns: int, cell: tuple[int, int]) -> float:
    """The grid pointing game: the share of positive mass that lies in one cell of a grid.

    Source: Boehle, Fritz & Schiele, "Convolutional dynamic alignment networks" (CVPR 2021), section
    4.

    Args:
        values: one map `(H, W)` of the whole grid.
        rows, columns: of the grid; they divide the map into equal cells.
        cell: (row, column) of the right cell, from 0.

    Returns:
        0..1, `1 / (rows * columns)` by chance; nan where nothing of the map is positive.

    Raises:
        ValueError: cells that are not equal, or no such cell.
    """
    height, width = np.shape(values)
    if rows < 1 or columns < 1 or height % rows or width % columns:
        raise ValueError(
            f"a map of {height} x {width} cannot be cut into {rows} x {columns} equal cells"
        )
    if cell[0] not in range(rows) or cell[1] not in range(columns):
        raise ValueError(f"cell {tuple(cell)} is not in a grid of {rows} x {columns}")
    mask = np.zeros((rows, columns), bool)
    mask[tuple(cell)] = True
    return mass_share(values, mask.repeat(height // rows, 0).repeat(width // columns, 1))


def peak_distance(values, mask) -> float:
    """Distance of a map's highest place from the middle of an object.

    Args:
        values: one map `(H, W)`.
        mask: bool `(H, W)`, True on the object.

    Returns:
        Pixels, not negative; nan for a constant map, which points nowhere.

    Raises:
        ValueError: a mask that covers nothing, so that it has no middle.
    """
    peak, place = _peak(values), middle(mask)
    return float("nan") if peak is None else float(np.hypot(*(peak - place)))


def middle(mask) -> np.ndarray:
    """The centre of mass of a mask.

    Args:
        mask: bool `(H, W)`, True on the object.

    Returns:
        float64 `(2,)`: row and column in pixels, from 0.

    Raises:
        ValueError: a mask that covers nothing.

    Example:
        >>> middle([[False, True, True]]).tolist()
        [0.0, 1.5]
    """
    places = np.argwhere(mask)
    if not len(places):
        raise ValueError("the mask covers nothing, so it has no middle")
    return places.mean(axis=0)


def _peak(values) -> np.ndarray | None:
    """(row, column) of a map's first highest value in reading order; None of a constant map."""
    values = np.asarray(values)
    if values.min() == values.max():
        return None
    return np.array(np.unravel_index(values.argmax(), values.shape))


def _checked(values, mask) -> tuple[np.ndarray, np.ndarray]:
    values, mask = np.asarray(values, np.float64), np.asarray(mask, bool)
    if values.shape != mask.shape or values.ndim != 2:
        raise ValueError(
            f"the map is {values.shape} and the mask {mask.shape}: both must be one (H, W)"
        )
    if not mask.any():
        raise ValueError("the mask covers nothing, so no share of a map lies on it")
    return values, mask


def coverage(box, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """How much of each cell of a map lies in a box, exact for cells that it cuts.

    Args:
        box: `(x_min, y_min, x_max, y_max)` in pixels of the picture.
        size: height and width of the picture in pixels.
        shape: height and width of the map in cells.

    Returns:
        float64 `(h, w)` in 0..1.

    Example:
        >>> coverage((0, 0, 3, 4), (4, 4), (2, 2)).tolist()
        [[1.0, 0.5], [1.0, 0.5]]
    """
    shares = []
    for low, high, extent, cells in (
        (box[1], box[3], size[0], shape[0]),
        (box[0], box[2], size[1], shape[1]),
    ):
        edges = np.clip(np.linspace(0, extent, cells + 1), low, high)
        shares.append(np.diff(edges) * cells / extent)
    return np.outer(*shares)


def share_inside(values: np.ndarray, box, size: tuple[int, int]) -> tuple[float, float]:
    """How much of a map lies in a box, and how much of the picture does.

    Args:
        values: one map `(h, w)` of any resolution; signed values count by their magnitude.
        box: `(x_min, y_min, x_max, y_max)` in pixels of the picture.
        size: height and width of the picture in pixels.

    Returns:
        Share of the map's mass and share of the area, each in 0..1. A map that is zero everywhere
        has 0 inside.
    """
    inside = coverage(box, size, values.shape)
    mass = np.abs(np.asarray(values, np.float64))
    return float((mass * inside).sum() / (mass.sum() or 1)), float(inside.mean())


def peak_inside(values: np.ndarray, box, size: tuple[int, int]) -> bool:
    """The pointing game for a box: whether the middle of the map's highest cell lies in it.

    The highest value counts, not the largest size. Of several highest cells the first in reading
    order counts; a constant map points nowhere.
    Source: Zhang et al., "Top-down neural attention by excitation backprop" (ECCV 2016), section
    4.2.

    Args:
        values: one map `(h, w)` of any resolution.
        box: `(x_min, y_min, x_max, y_max)` in pixels of the picture.
        size: height and width of the picture in pixels.

    Returns:
        True or False.
    """
    peak = _peak(values)
    if peak is None:
        return False
    y, x = (peak + 0.5) * size / np.shape(values)
    return bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])
