"""ROAD: remove what a map calls relevant so that the hole does not show, and watch the probability.

A black hole is a shape of its own, and networks react to shapes. Here a removed pixel becomes a
weighted mean of its eight neighbours, known or removed, which is one sparse linear system a
picture; a little noise keeps the holes from being told by their smoothness.
Source: Rong et al., "A consistent and efficient evaluation strategy for attribution methods" (ICML
2022), section 4.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array, diags_array, kron
from scipy.sparse.linalg import splu

from xai_utils.engine import compiled, in_parts, keras, pixel_range, tf
from xai_utils.metrics.faithfulness import checked, picture_scores, ranks

PICTURES_AT_ONCE = 32


class Road(NamedTuple):
    """Scores while pixels are removed, `(..., S)`.

    Attributes:
        shares: of the pixels that were removed, `(S,)`.
        most: with the most relevant removed first; low is good.
        least: with the least relevant removed first; high is good.
    """

    shares: np.ndarray
    most: np.ndarray
    least: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """Mean over the shares of `least - most`: 0 for a map that knows nothing."""
        return (self.least - self.most).mean(axis=-1)


def road(
    model: keras.Model,
    images,
    maps,
    target=None,
    shares=(0.1, 0.3, 0.5, 0.7, 0.9),
    noise: float = 0.01,
    seed: int = 0,
    probability: bool = True,
) -> Road:
    """ROAD: scores after the most and the least relevant pixels were imputed.

    Source: Rong et al., "A consistent and efficient evaluation strategy for attribution methods"
    (ICML 2022), section 4.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch `(N, H, W, C)`, any number type, in the model's pixel range.
        maps: of one technique `(N, h, w)` or of M of them `(M, N, h, w)`, raw; they are enlarged to
            the pictures, ties are taken in reading order.
        target: None (top class of the whole picture), a class index or name, N of them, or a
            callable `outputs -> (N,)`, whose scores are taken as they are.
        shares: of the pixels to remove, each above 0 and below 1.
        noise: standard deviation of what is added to imputed pixels, as a fraction of the model's
            pixel range.
        seed: of the noise, the same for every picture.
        probability: of the target's class, instead of its logit.

    Returns:
        `Road`, scores `(N, S)` or `(M, N, S)`: probabilities, logits or what the target returns.

    Raises:
        ValueError: bad images or target; maps that are not finite or not one for each image; a
            share out of range.
    """
    shares = np.asarray(shares, float)
    if not (shares.size and np.all((shares > 0) & (shares < 1))):
        raise ValueError(
            f"road: shares must lie between 0 and 1, both excluded; got {shares.tolist()}"
        )
    batch, maps, indices, function, lead = checked(model, images, maps, target)
    ordered = ranks(maps)
    pixels, count = ordered[0].size, len(batch)
    pictures, extent = batch.numpy(), pixel_range(model, batch)
    run = compiled(model, picture_scores, function=function, probability=probability)
    jobs = [
        (m, round(share * pixels), least)
        for m in range(len(ordered))
        for least in (0, 1)
        for share in shares
    ]
    scores = []

    def imputed(job):
        m, n, least = job
        hidden = ordered[m] >= pixels - n if least else ordered[m] < n
        return impute(pictures[m % count], hidden, noise, seed, extent)

    # Solving lets other threads run; as many as TensorFlow may use.
    with ThreadPoolExecutor(
        int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or os.cpu_count()
    ) as pool:
        for part in in_parts(jobs, PICTURES_AT_ONCE):
            changed = np.stack([*pool.map(imputed, part)])
            scores.append(
                run(tf.constant(changed), tf.gather(indices, [m % count for m, *_ in part]))
            )
    scores = np.concatenate(scores).reshape(*lead, 2, len(shares))
    return Road(shares, scores[..., 0, :], scores[..., 1, :])


def impute(
    image, hidden, noise: float = 0.01, seed: int = 0, extent: tuple[float, float] = (0.0, 255.0)
) -> np.ndarray:
    """One picture with hidden pixels replaced by the weighted mean of their neighbours.

    All are replaced at once. Weights are 1/6 for direct and 1/12 for diagonal neighbours; at the
    border those that exist are scaled to one. What is linear around a hole stays linear across it.

    Args:
        image: `(H, W, C)`, any number type.
        hidden: bool `(H, W)`, the pixels to replace.
        noise: standard deviation of what is added to them, as a fraction of `extent`; 0 adds none.
        seed: of the noise.
        extent: the smallest and the largest pixel value; noise is clipped to it.

    Returns:
        float32 `(H, W, C)`.

    Raises:
        ValueError: nothing is left to impute from, or masks and picture of different sizes.

    Example:
        >>> ramp = np.arange(5, dtype=float).reshape(1, 5, 1).repeat(5, axis=0)
        >>> hidden = np.zeros((5, 5), bool)
        >>> hidden[1:4, 1:4] = True
        >>> impute(ramp, hidden, noise=0)[2, :, 0].round(3).tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    image, hidden = np.asarray(image, np.float32), np.asarray(hidden, bool)
    if hidden.shape != image.shape[:2] or hidden.all():
        raise ValueError(
            f"impute: a bool mask {image.shape[:2]} that leaves something is needed, not"
            f" {hidden.shape}"
        )
    if not hidden.any():
        return image.copy()
    here = np.flatnonzero(hidden)
    filled = np.where(hidden[..., None], 0, image)
    rows = _system(*hidden.shape)[here]
    known = -(rows @ filled.reshape(-1, image.shape[2]))
    # Symmetric, so rows may be read as columns, and need no pivoting: without being told so SuperLU
    # takes up to a thousand times as long, and a third longer in panels of more than one column.
    solver = splu(
        rows[:, here].T,
        permc_spec="MMD_AT_PLUS_A",
        panel_size=1,
        options={"SymmetricMode": True},
    )
    filled[hidden] = solver.solve(known)
    if noise:
        grain = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
        low, high = extent
        filled[hidden] = np.clip(filled + (high - low) * noise * grain, low, high)[hidden]
    return filled


@functools.lru_cache(4)
def _system(height: int, width: int) -> csr_array:
    """One row a pixel: the sum of its neighbours' weights on the diagonal, minus these weights."""
    lines = [
        diags_array([1.0, 2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n)) for n in (height, width)
    ]
    weights = kron(*lines, format="csr") / 12  # 1/6 for direct, 1/12 for diagonal neighbours
    weights.setdiag(0)
    return csr_array(diags_array(weights.sum(axis=1)) - weights)
