"""Whether one technique is ahead of another: differences on the same pictures, all of them counted.

Pictures differ more than techniques do, so what is tested is the difference on each picture, by
Student's t; and who makes many comparisons finds some by chance, so Holm's correction counts them.
"""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

FEWEST = 8  # pictures; the spread of fewer differences is itself a guess
CHANCE = 0.05  # that a verdict is wrong, over all comparisons that were made together


class Comparison(NamedTuple):
    """What the differences on some pictures say.

    Attributes:
        difference: mean over the pictures, in the unit of what was compared.
        low, high: its confidence interval of 95 %, of this comparison alone; nan where there are
            too few pictures.
        p: probability of a difference as large if there were none, in 0..1, by Holm over all
            comparisons made together; nan where there are too few pictures.
        pictures: how many.
    """

    difference: float
    low: float
    high: float
    p: float
    pictures: int

    @property
    def verdict(self) -> str:
        """`ahead of`, `behind`, or one line that says why neither can be said."""
        if self.pictures < FEWEST:
            return f"no verdict: {_pictures(self.pictures)}, {FEWEST} are the fewest"
        if not self.p <= CHANCE:  # nor if p is nan
            return f"no difference can be told with {_pictures(self.pictures)}"
        return "ahead of" if self.difference > 0 else "behind"


def compare(differences: Mapping[Hashable, np.ndarray]) -> dict[Hashable, Comparison]:
    """Compare techniques by their differences on the same pictures, as many at once as are shown.

    By Student's t of paired differences. Where there is no difference, one comparison finds one in
    5 % of all cases, with 8 pictures as with 1000, if differences spread evenly around their mean;
    if they are as skewed as an exponential distribution, in 10 % with 8 pictures, 7 % with 30 and
    6 % with 100. Where all are the same, as may be with metrics that are 0 or 1, t has no meaning
    and the sign test takes its place.

    The best of several controls is no fair opponent if it was chosen on these numbers. Compare with
    each control instead, in one call: who is ahead of all is ahead of the best.

    Args:
        differences: by any name, one number a picture: the first technique's value minus the
            other's, so that a positive one speaks for the first (where low is good, turn the sign).
            nan where a picture has no number.

    Returns:
        A `Comparison` for each name. With fewer than 8 pictures it gives no verdict and does not
        count among the comparisons.

    Raises:
        ValueError: an infinite difference.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    for name, values in differences.items():
        if np.isinf(np.asarray(values, np.float64)).any():
            raise ValueError(
                f"differences are finite numbers or nan, but those of {name!r} hold inf"
            )
    alone = {name: _student(values) for name, values in differences.items()}
    corrected = holm([found.p for found in alone.values()])
    return {name: found._replace(p=p) for (name, found), p in zip(alone.items(), corrected)}


def holm(p_values) -> np.ndarray:
    """Holm's correction: each p as large as it counts among all.

    The smallest of m is multiplied by m, the next by m - 1, and so on, none above 1 or below one
    before it. Whoever calls those at most .05 found is wrong about any with a probability of at
    most .05.

    Args:
        p_values: in 0..1; nan are not counted and stay.

    Returns:
        float64 of the same length, in 0..1.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    p_values = np.array(p_values, np.float64)
    order = np.argsort(p_values)  # nan come last
    order = order[: np.isfinite(p_values).sum()]
    factors = np.arange(len(order), 0, -1)
    p_values[order] = np.maximum.accumulate(np.minimum(factors * p_values[order], 1))
    return p_values


def _student(values) -> Comparison:
    """One comparison that nothing is corrected in yet."""
    values = np.asarray(values, np.float64).ravel()
    values = values[~np.isnan(values)]
    count = len(values)
    mean = float(values.mean()) if count else np.nan
    if count < FEWEST:
        return Comparison(mean, np.nan, np.nan, np.nan, count)
    if np.ptp(values) <= 1e-9 * np.abs(values).max():
        return Comparison(mean, mean, mean, 2 * 0.5**count if mean else 1.0, count)
    tested = stats.ttest_1samp(values, 0)
    low, high = tested.confidence_interval(0.95)
    return Comparison(mean, float(low), float(high), float(tested.pvalue), count)


def _pictures(count: int) -> str:
    return f"{count} picture{'s' * (count != 1)}"
