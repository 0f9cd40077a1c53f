"""Sobol indices: which factors does a function's variance come from?

Nothing here knows of pictures or networks: whoever can evaluate a function at points in 0..1 can
ask. `sobol` makes a map of it.
"""

import numpy as np
from scipy.stats import qmc


def sobol_design(factors: int, samples: int, seed: int = 0) -> np.ndarray:
    """The points at which a function is evaluated for `total_indices`.

    Two sets A and B of quasi-random points that fill the cube evenly (Sobol's sequence, scrambled),
    and for each factor i the set A with column i taken from B.

    Args:
        factors: d, how many columns a point has; at most 10600.
        samples: n, points in each set; a power of two fills the cube best.
        seed: of the scrambling.

    Returns:
        float64 `(d + 2, n, d)` in 0..1: A, B, then A with one column of B, for each factor.

    Raises:
        ValueError: no factor, too many, or fewer than 2 samples.

    Example:
        >>> sobol_design(3, 8).shape
        (5, 8, 3)
    """
    most = qmc.Sobol.MAXDIM // 2
    if not 1 <= factors <= most or samples < 2:
        raise ValueError(
            f"1 to {most} factors and at least 2 samples are needed, got {factors} and {samples}"
        )
    drawn = qmc.Sobol(2 * factors, rng=seed)
    power = int(np.ceil(np.log2(samples)))  # the whole net, of which the first points are taken
    first, second = np.split(drawn.random_base2(power)[:samples], 2, axis=1)
    swapped = np.repeat(first[None], factors, axis=0)
    each = np.arange(factors)
    swapped[each, :, each] = second.T
    return np.concatenate([first[None], second[None], swapped])


def total_indices(scores, return_error: bool = False):
    """Total Sobol indices: the share of the variance that is left when all other factors are known.

    So they count what a factor does alone and together with others. Jansen's estimator,
    `mean((f(A_i) - f(A))^2) / (2 Var f)`, A_i being A with column i of B. Of a function that is a
    sum over its factors they are each one's share of the variance; with interactions they add up to
    more than 1.
    Source: Jansen, "Analysis of variance designs for model output" (1999); Saltelli et al.,
    "Variance based sensitivity analysis of model output" (2010), table 2 (f).

    Args:
        scores: f at the points of `sobol_design`, `(..., d + 2, n)`.
        return_error: also return the standard error.

    Returns:
        float64 `(..., d)`, not negative; zeros of a function that is constant. With `return_error`
        a tuple of them and their standard errors, as if the points were independent; those of
        quasi-random points are mostly smaller.

    Raises:
        ValueError: fewer than 3 sets of scores, or than 2 scores in each.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim < 2 or scores.shape[-2] < 3 or scores.shape[-1] < 2:
        raise ValueError(
            "scores are those of sobol_design, (..., factors + 2, samples) with 2 samples or more,"
            f" not {scores.shape}"
        )
    first, swapped = scores[..., :1, :], scores[..., 2:, :]
    both = scores[..., :2, :]
    spread = (both - both.mean(axis=(-2, -1), keepdims=True)) ** 2
    each = spread.mean(axis=-2, keepdims=True)  # of a point in A and its partner in B
    variance = each.mean(axis=-1, keepdims=True)
    halves = (swapped - first) ** 2 / 2
    safe = np.where(variance > 0, variance, 1)
    indices = np.where(variance > 0, halves.mean(axis=-1, keepdims=True) / safe, 0)
    if not return_error:
        return indices[..., 0]
    # a ratio of two means: what a point adds to it, to first order
    parts = (halves - indices * each) / safe
    return indices[..., 0], parts.std(axis=-1, ddof=1) / np.sqrt(scores.shape[-1])
