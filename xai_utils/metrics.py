"""Numbers about maps under one name: how alike two are (here), and how much of one lies on an object."""

import numpy as np
from scipy.stats import spearmanr

from xai_utils.localisation import enrichment, grid_share, mass_share, middle, peak_distance, pointing

__all__ = ["enrichment", "grid_share", "mass_share", "middle", "peak_distance", "pointing", "rank_correlation"]


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
