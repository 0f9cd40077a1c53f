"""Holes filled so that they do not show: a removed pixel becomes a mean of its neighbours.

With unknown pixels among the neighbours that is one sparse linear system a picture, a discrete
Laplace equation. All pictures of a batch are solved together by conjugate gradients, which need
about ten steps because each is prepared by a multigrid cycle: what is smooth in the error is
corrected on grids of half, a quarter, ... the size.
Source of the imputation: Rong et al., "A consistent and efficient evaluation strategy for
attribution methods" (ICML 2022), section 4; of the multigrid: Briggs, Henson & McCormick, "A
multigrid tutorial" (SIAM 2000), chapter 3; as a preconditioner: Tatebe, "The multigrid
preconditioned conjugate gradient method" (Copper Mountain 1993).
"""

import functools

import numpy as np

from xai_utils.engine import tf

TOLERANCE = 1e-3 / 255  # of a pixel, as a fraction of the range of pixels
GAIN = 1e-4  # a round ends when the error is this share of what it was; float32 reaches 1e-5
MOST_ROUNDS, MOST_STEPS = 8, 50  # of a round; usual are 2, and 10 steps in all

# Sixteenths, so that float32 holds them and their sums: a hole's middle is far from what is known,
# and a weight that is 6e-8 off shows there.
NEIGHBOURS = np.float32([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 16
BILINEAR = np.float32(np.outer([1, 3, 3, 1], [1, 3, 3, 1])) / 16


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
        float32 `(H, W, C)`; before the noise within 1/1000 of 1/255 of `extent` of the solution.

    Raises:
        ValueError: nothing is left to impute from, masks and picture of different sizes, or pixels
            that are not finite.

    Example:
        >>> ramp = np.arange(5, dtype=float).reshape(1, 5, 1).repeat(5, axis=0)
        >>> hidden = np.zeros((5, 5), bool)
        >>> hidden[1:4, 1:4] = True
        >>> (impute(ramp, hidden, noise=0)[2, :, 0].round(2) + 0).tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    image, hidden = np.asarray(image, np.float32), np.asarray(hidden, bool)
    if hidden.shape != image.shape[:2]:
        raise ValueError(
            f"impute: a bool mask {image.shape[:2]} that leaves something is needed, not"
            f" {hidden.shape}"
        )
    return imputed(image[None], hidden[None], noise, seed, extent).numpy()[0]


def imputed(images, hidden, noise: float, seed: int, extent: tuple[float, float]) -> tf.Tensor:
    """`impute` of many pictures at once, float32 `(N, H, W, C)`.

    Args:
        images: `(N, H, W, C)`.
        hidden: bool `(N, H, W)`, an array.
        noise, seed, extent: as for `impute`; the noise is the same for every picture.

    Raises:
        ValueError: a mask that hides everything, or pixels that are not finite and not hidden.
        ArithmeticError: the solution was not found.
    """
    if hidden.all(axis=(1, 2)).any():
        raise ValueError(f"impute: a bool mask {hidden.shape[1:]} that leaves something is needed")
    images, low, high = tf.cast(images, tf.float32), *extent
    mask = tf.constant(hidden[..., None], tf.float32)
    if not tf.reduce_all(tf.math.is_finite(tf.where(mask > 0, 0.0, images))):
        raise ValueError("impute: pixels that are not hidden must be finite; some are nan or inf")
    filled = tf.cast(solution(images, mask, TOLERANCE * (high - low)), tf.float32)
    if noise:
        grain = np.random.default_rng(seed).standard_normal(images.shape[1:], np.float32)
        filled = tf.clip_by_value(filled + (high - low) * noise * grain, low, high)
    return tf.where(mask > 0, filled, images)


def solution(images, mask, tolerance: float) -> tf.Tensor:
    """Pictures whose hidden pixels are the weighted means of their neighbours, `(N, H, W, C)`.

    Args:
        images: float32 `(N, H, W, C)`.
        mask: float32 `(N, H, W, 1)`, 1 where a pixel is hidden, else 0; it leaves some.
        tolerance: the largest error that a pixel may have.

    Returns:
        float64; pixels that are not hidden are as they were.

    Raises:
        ArithmeticError: it was not found.
    """
    height, width, channels = images.shape[1:]
    # No error is larger than its energy times the square root of the resistance between a pixel and
    # what is known, in the network whose conductances are the weights: at most some dozens, unless
    # the picture is a strip.
    energy = tolerance / 10 * (min(height, width) / max(height, width)) ** 0.5
    found, left = _solver(height, width, channels)(images, mask, energy)
    if not left <= energy:
        raise ArithmeticError(f"impute: an error of {left:.2g} is left, above {energy:.2g}")
    return found


@functools.lru_cache(8)
def _solver(height: int, width: int, channels: int):
    """`_solved`, compiled for any number of pictures of a size."""
    shapes = (None, height, width, channels), (None, height, width, 1), ()
    return tf.function(_solved, [tf.TensorSpec(shape) for shape in shapes], autograph=False)


def _solved(images, mask, energy):
    """The solution, and the energy of the largest error that is left.

    Each round solves for what is missing in float32; the residual that it begins with is float64,
    so that rounding does not add up.
    """
    hidden = _side_by_side(mask)
    grids = [
        [tf.repeat(each, images.shape[-1], axis=-1) for each in grid] for grid in _grids(hidden)
    ]
    hidden = tf.repeat(hidden, images.shape[-1], axis=-1)
    pixels = tf.where(hidden > 0, 0.0, _side_by_side(images))
    mean = _sum(pixels) / _sum(1 - hidden)
    start = tf.cast(tf.where(hidden > 0, mean, pixels), tf.float64)

    def inaccurate(count, found, left):
        return (count < MOST_ROUNDS) & (left > energy)

    def corrected(count, found, left):
        change, left = _correction(hidden, grids, found, energy)
        return count + 1, found + tf.cast(change, tf.float64), left

    _, found, left = tf.while_loop(inaccurate, corrected, (0, start, np.float32(np.inf)))
    return _one_by_one(found, images.shape), left


def _correction(hidden, grids, found, energy):
    """What to add to `found`, float32, and the energy of the largest error that it leaves."""
    residual = -tf.cast(_excess(found, hidden), tf.float32)
    better = _cycle(grids, residual)
    product = _sum(residual * better)  # as good as the squared energy of the error
    aim = tf.maximum(energy**2, GAIN**2 * product)

    def unfinished(step, change, residual, direction, product):
        return (step < MOST_STEPS) & tf.reduce_any(product > aim)

    def conjugate(step, change, residual, direction, product):
        moved = _excess(direction, hidden)
        length = tf.math.divide_no_nan(product, _sum(direction * moved))
        change, residual = change + length * direction, residual - length * moved
        better = _cycle(grids, residual)
        after = _sum(residual * better)
        direction = better + tf.math.divide_no_nan(after, product) * direction
        return step + 1, change, residual, direction, after

    start = 0, tf.zeros_like(residual), residual, better, product
    _, change, _, _, after = tf.while_loop(unfinished, conjugate, start)
    # What rounding has left is no part of `after`; ten times as much as it is taken for granted.
    return change, tf.sqrt(tf.reduce_max(tf.maximum(after, GAIN**2 * product)))


def _cycle(grids, residual):
    """About what solves for a residual: a multigrid V-cycle, one Jacobi step on each side."""
    (inverse, shares), *coarser = grids
    found = inverse * residual
    if coarser:
        left = shares * _around(found)
        found += shares * _finer(_cycle(coarser, _coarser(left)), left)
    else:
        for _ in range(4):
            found = inverse * (residual + _around(found))
    return inverse * (residual + _around(found))


def _grids(hidden) -> list[tuple]:
    """`(1 / diagonal, shares in the interpolation)` of each grid, zero where nothing is hidden.

    A cell of a coarser grid is hidden where any of its four is; what ties these to known pixels, it
    is tied to zero by, for there the error is zero.
    """
    grids, ties = [], tf.zeros_like(hidden)
    while True:
        height, width = hidden.shape[1:3]
        ones = tf.ones((1, height, width, 1))
        reached = _finer(_coarser(ones) * 0 + 1, ones)
        grids.append((tf.math.divide_no_nan(hidden, _around(ones) + ties), hidden / reached))
        if max(height, width) <= 2:
            return grids
        ties = ties if len(grids) > 1 else hidden * _around(1 - hidden)
        even = [(0, 0), (0, height % 2), (0, width % 2), (0, 0)]
        ties = 4 * tf.nn.avg_pool2d(tf.pad(ties, even), 2, 2, "VALID")
        hidden = tf.nn.max_pool2d(hidden, 2, 2, "SAME")


def _excess(pixels, hidden):
    """By how much hidden pixels are above their neighbours' means, times the weights' sum."""
    weights = _around(tf.ones((1, *pixels.shape[1:3], 1), pixels.dtype))
    return tf.cast(hidden, pixels.dtype) * (weights * pixels - _around(pixels))


def _around(pixels):
    """The weighted sum of each pixel's neighbours."""
    return tf.nn.depthwise_conv2d(pixels, _each(NEIGHBOURS, pixels), (1, 1, 1, 1), "SAME")


def _coarser(pixels):
    """Sums on a grid of half the size, the transpose of `_finer`."""
    return tf.nn.depthwise_conv2d(pixels, _each(BILINEAR, pixels), (1, 2, 2, 1), "SAME")


def _finer(pixels, like):
    """Values of a grid of half the size, interpolated; at the rim they are a share of that."""
    return tf.nn.depthwise_conv2d_backprop_input(
        tf.shape(like), _each(BILINEAR, pixels), pixels, (1, 2, 2, 1), "SAME"
    )


def _each(kernel, pixels):
    """A kernel for every channel."""
    kernel = tf.constant(kernel[..., None, None], pixels.dtype)
    return tf.repeat(kernel, tf.shape(pixels)[-1], axis=2)


def _sum(pixels):
    """Of each channel, `(1, 1, 1, K)`."""
    return tf.reduce_sum(pixels, (1, 2), keepdims=True)


def _side_by_side(pictures):
    """`(N, H, W, C)` as `(1, H, W, N C)`: operations on single channels are fastest with many."""
    height, width = pictures.shape[1:3]
    return tf.reshape(tf.transpose(pictures, (1, 2, 0, 3)), (1, height, width, -1))


def _one_by_one(pixels, shape):
    """`_side_by_side` undone."""
    return tf.transpose(tf.reshape(pixels, (*shape[1:3], -1, shape[3])), (2, 0, 1, 3))
