"""ROAD: remove what a map calls relevant so that the hole does not show, and watch the probability.

A black hole is a shape of its own, and networks react to shapes. Here a removed pixel becomes a
weighted mean of its eight neighbours, known or removed (see `impute`); a little noise keeps the
holes from being told by their smoothness.
Source: Rong et al., "A consistent and efficient evaluation strategy for attribution methods" (ICML
2022), section 4.
"""

from typing import NamedTuple

import numpy as np

from xai_utils.engine import compiled, keras, pixel_range, tf
from xai_utils.metrics.faithfulness import checked, in_batches, ranks
from xai_utils.metrics.imputation import imputed
from xai_utils.models import scores

PICTURES_AT_ONCE = 16  # imputed together, and run


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
        ValueError: bad images or target; maps or scores that are not finite; not one map for each
            image; a share out of range, or one that leaves no pixel.
    """
    shares = np.asarray(shares, float)
    if not (shares.size and np.all((shares > 0) & (shares < 1))):
        raise ValueError(
            f"road: shares must lie between 0 and 1, both excluded; got {shares.tolist()}"
        )
    batch, maps, indices, function, lead = checked(model, images, maps, target)
    ordered = ranks(maps)
    pixels, count, extent = ordered[0].size, len(batch), pixel_range(model, batch)
    run = compiled(model, scores, function=function, probability=probability)
    jobs = [
        (m, round(share * pixels), least)
        for m in range(len(ordered))
        for least in (False, True)
        for share in shares
    ]

    def imputed_pictures(part):
        asked = [jobs[i] for i in part]
        hidden = np.stack(
            [ordered[m] >= pixels - n if least else ordered[m] < n for m, n, least in asked]
        )
        owners = [m % count for m, *_ in asked]
        changed = imputed(tf.gather(batch, owners), hidden, noise, seed, extent)
        return tf.cast(changed, batch.dtype), tf.gather(indices, owners)

    found = in_batches(model, run, len(jobs), imputed_pictures, PICTURES_AT_ONCE)
    found = found.reshape(*lead, 2, len(shares))
    return Road(shares, found[..., 0, :], found[..., 1, :])
