"""Every metric under one name: of one map, of a technique, of a whole evaluation.

- Where a map lies (`localisation`): `mass_share`, `enrichment`, `pointing`, `grid_share`, `peak_distance`.
- Whether the network agrees (`faithfulness`, `infidelity`, `road`): `deletion`, `insertion`, `average_drop`,
  `infidelity`, `max_sensitivity`, `road`.
- How alike two maps are: `rank_correlation`, here.
- All of it over a list of pictures (`evaluation`): `evaluate`.
"""

import numpy as np
from scipy.stats import spearmanr

from xai_utils.faithfulness import average_drop, deletion, deletion_and_insertion, insertion
from xai_utils.infidelity import infidelity, max_sensitivity
from xai_utils.localisation import enrichment, grid_share, mass_share, middle, peak_distance, pointing
from xai_utils.road import road

__all__ = ["average_drop", "deletion", "deletion_and_insertion", "enrichment", "evaluate", "grid_share", "infidelity",
           "insertion", "mass_share", "max_sensitivity", "middle", "peak_distance", "pointing", "rank_correlation",
           "road"]  # fmt: skip


def evaluate(*args, **settings):
    """Score techniques over a list of pictures; see `evaluation.evaluate`."""
    from xai_utils import evaluation  # it loads all techniques

    return evaluation.evaluate(*args, **settings)


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
