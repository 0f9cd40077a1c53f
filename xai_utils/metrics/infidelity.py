"""Infidelity and max-sensitivity: does a map add up, and does it hold still?

Source: Yeh et al., "On the (in)fidelity and sensitivity of explanations" (NeurIPS 2019).
"""

from collections.abc import Callable

import numpy as np

from xai_utils.engine import check_images, compiled, keras, pixel_range, tf
from xai_utils.metrics.faithfulness import checked, in_batches, masked_scores, whole_scores
from xai_utils.models import fixed_target
from xai_utils.pictures import covers_for


def infidelity(
    model: keras.Model,
    images,
    maps,
    target=None,
    samples=64,
    fill="black",
    scaled=False,
    seed=0,
    whole=None,
) -> np.ndarray:
    """Infidelity: does a map's sum over a square say what covering it costs?

    `E[(sum_removed map - (f(x) - f(x with that removed)))^2]` over random squares, f a logit.

    The map is taken as contributions to the score: its sum over a square should be what covering
    the square costs. For a gradient g that is `(x - fill) g`, added up over the channels, which
    makes it Yeh's `I^T g` with `I = x - fill` on the square. Squares are the same for every picture
    and technique.
    Source: Yeh et al., "On the (in)fidelity and sensitivity of explanations" (NeurIPS 2019),
    definition 2.1.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch `(N, H, W, C)`, any number type, in the model's pixel range.
        maps: of one technique `(N, h, w)` or of M of them `(M, N, h, w)`, raw, in logits per pixel;
            they are enlarged to the pictures.
        target: None (top class of the whole picture), a class index or name, N of them, or a
            callable `outputs -> (N,)`, whose scores are taken as they are.
        samples: squares, with sides of an eighth to half of the picture's shorter side; at least 2.
        fill: what covered pixels show: a pixel value, a colour, pictures, or a word: `black`,
            `white`, `mean`, `blur` or `random`, see `pictures.filling`.
        scaled: multiply each map by the number that suits it best, none below 0, and divide by
            `E[(f(x) - f(x covered))^2]`: 0 is a perfect map in any unit, 1 one that says nothing,
            or the opposite.
        seed: of the squares.
        whole: logits of the whole pictures `(N,)`, if they are known.

    Returns:
        float64 `(N,)` or `(M, N)`, in squared logits; 0..1 with `scaled`.

    Raises:
        ValueError: bad images, target or fill; maps or scores that are not finite; not one map for
            each image; fewer than 2 samples.
    """
    if samples < 2:
        raise ValueError(f"infidelity needs at least 2 samples, not {samples}")
    batch, maps, indices, function, lead = checked(model, images, maps, target)
    covers = covers_for(model, batch, fill)
    squares = random_squares(samples, batch.shape[1:3], seed)
    run, count = compiled(model, masked_scores, function=function, probability=False), len(batch)
    kept = tf.constant(~squares, batch.dtype)

    def parts(part):
        i = part // samples
        return (
            tf.gather(batch, i),
            tf.gather(indices, i),
            tf.gather(kept, part % samples),
            tf.gather(covers, i),
        )

    whole = (
        whole_scores(model, batch, indices, function, probability=False) if whole is None else whole
    )
    left = in_batches(model, run, count * samples, parts).reshape(count, samples)
    cost = whole[:, None] - left.astype(np.float64)
    said = (
        maps.reshape(-1, count, squares[0].size).astype(np.float64) @ squares.reshape(samples, -1).T
    )
    if not scaled:
        return ((said - cost) ** 2).mean(axis=-1).reshape(lead)
    power, total = (said**2).sum(axis=-1), np.maximum((cost**2).sum(axis=-1), 1e-30)
    fit = np.maximum((said * cost).sum(axis=-1), 0) ** 2 / np.where(power > 0, power, 1)
    return (1 - fit / total).clip(0, 1).reshape(lead)


def random_squares(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Squares at random places inside a picture, bool `(count, H, W)`.

    Their sides are an eighth to half of the picture's shorter side.
    """
    rng, shorter = np.random.default_rng(seed), min(size)
    sides = rng.integers(max(1, shorter // 8), max(1, shorter // 2) + 1, count)
    squares = np.zeros((count, *size), bool)
    for square, side in zip(squares, sides):
        row, column = (rng.integers(0, extent - side + 1) for extent in size)
        square[row : row + side, column : column + side] = True
    return squares


def max_sensitivity(
    method: Callable,
    model: keras.Model,
    images,
    target=None,
    radius: float = 0.02,
    samples: int = 8,
    seed: int = 0,
    maps=None,
) -> np.ndarray:
    """Max-sensitivity: the largest change of a map under small noise.

    `max ||map(x + d) - map(x)|| / ||map(x)||`.
    Source: Yeh et al., "On the (in)fidelity and sensitivity of explanations" (NeurIPS 2019),
    definition 3.1, relative to the map's norm so that techniques compare.

    Args:
        method: a technique, `(model, images, target) -> maps`; `functools.partial` gives it
            settings.
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch `(N, H, W, C)`, any number type, in the model's pixel range.
        target: None (top class of the picture without noise), a class index or name, N of them, or
            a callable `outputs -> (N,)`; the noisy pictures are asked for the same class.
        radius: largest change of a pixel value, as a fraction of the model's pixel range; uniform
            noise.
        samples: noisy copies of each picture; more can only raise the maximum.
        seed: of the noise.
        maps: `(N, h, w)`, what the method gives for the pictures themselves, if that is there
            already.

    Returns:
        float64 `(N,)`: 0 is a map that noise does not change; nan for a map of zeros.

    Raises:
        ValueError: bad images or target, no samples.
    """
    if samples < 1:
        raise ValueError(f"max_sensitivity needs at least 1 sample, not {samples}")
    batch = check_images(model, images)
    indices, function = fixed_target(model, batch, target)
    asked = function or indices.numpy()
    low, high = pixel_range(model, batch)
    before = np.asarray(method(model, batch.numpy(), asked) if maps is None else maps, np.float64)
    rng, largest = np.random.default_rng(seed), 0
    for _ in range(samples):
        noise = (high - low) * radius * rng.uniform(-1, 1, batch.shape[1:]).astype(np.float32)
        change = np.asarray(method(model, batch.numpy() + noise, asked)) - before
        largest = np.maximum(largest, np.linalg.norm(change.reshape(len(batch), -1), axis=1))
    norm = np.linalg.norm(before.reshape(len(batch), -1), axis=1)
    return np.where(norm > 0, largest / np.where(norm > 0, norm, 1), np.nan)
