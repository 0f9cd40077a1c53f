"""Numbers about maps: how alike two are, and how much of one lies on an object."""

import numpy as np
from scipy.stats import spearmanr


def rank_correlation(one, other, where=None) -> float:
    """Spearman's rank correlation of two maps `(h, w)` of one shape; nan where one of them is constant.

    Args:
        one, other: maps.
        where: bool `(h, w)`, the places that count; default all.

    Raises:
        ValueError: maps of different shapes, or fewer than two places.
    """
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        raise ValueError(f"rank_correlation compares maps of one shape, not {one.shape} and {other.shape}")
    where = np.ones(one.shape, bool) if where is None else np.asarray(where, bool)
    if where.sum() < 2:
        raise ValueError("rank_correlation needs at least two places to compare")
    a, b = one[where], other[where]
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def peak_distance(values, mask) -> float:
    """Distance of a map's highest place from the middle of an object, in pixels; see `middle`."""
    row, column = np.unravel_index(np.argmax(values), np.shape(values))
    return float(np.hypot(*(np.array([row, column]) - middle(mask))))


def middle(mask) -> np.ndarray:
    """(row, column) of the centre of mass of a mask `(H, W)`.

    Raises:
        ValueError: a mask that covers nothing.
    """
    places = np.argwhere(mask)
    if not len(places):
        raise ValueError("the mask covers nothing, so it has no middle")
    return places.mean(axis=0)
