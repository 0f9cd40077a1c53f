"""Extremal perturbation: the part of a given area that keeps the score highest, found by gradient.

The function has the signature `method(model, images, target=None, **settings) -> maps`; see
`attribution`.
"""

import numpy as np

from xai_utils.attribution.gradients import existing, finite
from xai_utils.engine import check_images, compiled, in_parts, keras, tf
from xai_utils.models import fixed_target, scores
from xai_utils.pictures import covers_for, masked

MASKS_AT_ONCE = 16  # masks that are optimised together
COLDNESS = 20.0  # of the smooth maximum: the larger, the nearer to the maximum
REACH = 2.0  # of the kernel, in its own radius; beyond that it is below 0.02
FIRST_WEIGHT, LAST_WEIGHT = 1.0, 1000.0  # of the area, against the share of the score that is kept
RATE = 0.05  # step of a cell in 0..1, by Adam
TIE = 0.01  # below this difference of a mask the score's gradient says which place is higher
MOMENTUM, SECOND, TINY = 0.9, 0.999, 1e-12


def extremal_perturbation(
    model: keras.Model,
    images,
    target=None,
    area=0.1,
    steps: int = 150,
    grid: int = 28,
    radius: float = 2.5,
    fill="blur",
    return_masks: bool = False,
):
    """Extremal perturbation: the smooth mask of a given area that keeps the score highest.

    A mask m in 0..1 shows the picture where it is 1, and its cover where it is 0. It is optimised
    for `(S(x, m) - S(cover)) / |S(x) - S(cover)| - weight |sort(m) - r|^2`, with r the mask of that
    area whose values are 0 and 1, sorted, and a weight that grows from step to step: so the area is
    given, and only the place is free. Masks are smooth by construction: each cell of a coarse grid
    spreads over a disc, and a smooth maximum is taken of all discs.
    Source: Fong, Patrick & Vedaldi, "Understanding deep networks via extremal perturbations and
    smooth masks" (ICCV 2019), equations 2 to 8. The paper optimises by momentum for 800 steps; here
    it is Adam, and the score is scaled by what there is to win, so that the weights hold for any
    network. The cover is one blurred picture, where the paper blurs by degrees.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        area: share of the picture that is shown, in 0..1, or several.
        steps: updates of the masks.
        grid: cells along each side of the coarse grid.
        radius: of a cell's disc, in cells.
        fill: what is shown in place of the picture: a pixel value, a colour, pictures, or a word;
            see `pictures.filling`.
        return_masks: also return the masks of all areas and the scores that they keep.

    Returns:
        float32 maps `(N, H, W)` in 0..1: the mask; of several areas their mean, highest where the
        smallest mask is. Rounding differs a little with the size of the batch, and the steps
        enlarge that to some thousandths. With `return_masks` a tuple of the maps, the masks
        `(A, N, H, W)` and the scores that they keep, `(A, N)`.

    Raises:
        ValueError: bad images, target or fill; an area not between 0 and 1; steps or grid below 1,
            more cells than pixels, a radius that is not above 0, a score that does not depend on
            the pixels, or a map that is not finite.
    """
    batch = check_images(model, images)
    areas, most = np.atleast_1d(np.asarray(area, np.float32)), min(batch.shape[1:3])
    if areas.ndim != 1 or not len(areas) or not ((areas > 0) & (areas < 1)).all():
        raise ValueError(f"extremal_perturbation: an area is a share between 0 and 1, not {area!r}")
    if not 1 <= grid <= most or steps < 1 or not 0 < radius < np.inf:
        raise ValueError(
            f"extremal_perturbation: grid 1 to {most}, steps >= 1 and radius > 0 are needed, got"
            f" {grid}, {steps}, {radius}"
        )
    cover = covers_for(model, batch, fill)
    indices, function = fixed_target(model, batch, target)
    ends = compiled(model, scores, function=function)
    bare, whole = ends(cover, indices), ends(batch, indices)
    gain = tf.maximum(tf.abs(whole - bare), 1e-6)
    settings = {"function": function, "grid": grid, "radius": radius}
    step = compiled(model, _step, **settings)
    weights = np.geomspace(FIRST_WEIGHT, LAST_WEIGHT, steps)
    masks, kept = [], []
    for rows in in_parts(np.arange(len(areas) * len(batch)), MASKS_AT_ONCE):
        owners = rows % len(batch)
        about = [tf.gather(values, owners) for values in (batch, cover, indices, gain)]
        about.append(tf.constant(areas[rows // len(batch)], batch.dtype))
        cells = tf.ones((len(rows), grid, grid), batch.dtype)
        first = second = tf.zeros_like(cells)
        for number, weight in enumerate(weights, 1):
            now = tf.constant([weight, number], batch.dtype)
            cells, first, second = step(*about, now, cells, first, second)
        found, score = compiled(model, _shown, **settings)(*about[:3], cells)
        masks.append(found)
        kept.append(score)
    shape = (len(areas), len(batch), *batch.shape[1:3])
    masks = tf.cast(tf.reshape(tf.concat(masks, 0), shape), tf.float32).numpy()
    maps = finite(masks.mean(axis=0), model)
    return (maps, masks, tf.concat(kept, 0).numpy().reshape(shape[:2])) if return_masks else maps


def smooth_mask(cells: tf.Tensor, radius: float) -> tf.Tensor:
    """Cells spread over discs, and the smooth maximum of the discs that reach a cell.

    `sum_v k(u - v) c(v) e(u, v) / sum_v e(u, v)` with `e = exp(20 k(u - v) c(v))`. The kernel k is
    1 within half the radius and falls off as a Gaussian beyond.
    Source: Fong, Patrick & Vedaldi (ICCV 2019), equation 8.

    Args:
        cells: c, `(F, h, w)` in 0..1.
        radius: of the kernel, in cells.

    Returns:
        `(F, h, w)` in 0..1.
    """
    reach = int(np.ceil(REACH * radius))
    steps = np.arange(-reach, reach + 1)
    distance = np.hypot(steps[:, None], steps) / radius
    kernel = np.exp(-2 * np.maximum(distance - 0.5, 0) ** 2).ravel()
    size = 2 * reach + 1
    # the border goes on beyond the picture: its cells are smoothed as others are
    rows, columns = (
        np.clip(np.arange(-reach, extent + reach), 0, extent - 1) for extent in cells.shape[1:]
    )
    wide = tf.gather(tf.gather(cells, rows, axis=1), columns, axis=2)[..., None]
    one = (1, 1, 1, 1)
    near = tf.image.extract_patches(wide, (1, size, size, 1), one, one, "VALID")
    spread = near * tf.constant(kernel, cells.dtype)
    return tf.reduce_sum(spread * tf.nn.softmax(COLDNESS * spread), axis=-1)


def _step(
    model, images, cover, indices, gain, areas, now, cells, first, second, function, grid, radius
):
    """One step of Adam on the cells of each mask; `now`: the area's weight, the step's number."""
    with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
        tape.watch(cells)
        mask = _smooth(cells, grid, radius)
        shown = masked(images, _enlarged(mask, images), cover)
        kept = scores(model, shown, indices, function) / gain
    rising = existing(tape.gradient(kept, mask), model)
    # of the squared distance, averaged over the places
    of_area = 2 * (mask - _wanted(mask, rising, areas)) / (mask.shape[1] * mask.shape[2])
    gradient = tape.gradient(mask, cells, output_gradients=now[0] * of_area - rising)
    first = MOMENTUM * first + (1 - MOMENTUM) * gradient
    second = SECOND * second + (1 - SECOND) * gradient**2
    move = first / (1 - MOMENTUM ** now[1])
    size = tf.sqrt(second / (1 - SECOND ** now[1])) + TINY
    return tf.clip_by_value(cells - RATE * move / size, 0, 1), first, second


def _wanted(mask, rising, areas):
    """The mask of 0 and 1 of each area that is nearest: 1 where a mask is highest, `(F, h, w)`.

    Of places that are equally high those are taken that raise the score most.
    """
    count = mask.shape[1] * mask.shape[2]
    largest = tf.reduce_max(tf.abs(rising), axis=(1, 2), keepdims=True)
    height = tf.reshape(mask + TIE * tf.math.divide_no_nan(rising, largest), (-1, count))
    order = tf.argsort(height, direction="DESCENDING", stable=True)
    ranks = tf.cast(tf.argsort(order), mask.dtype)
    # the place on the border is between 0 and 1, so that any area can be met
    wanted = tf.clip_by_value(areas[:, None] * count - ranks, 0, 1)
    return tf.reshape(wanted, tf.shape(mask))


def _shown(model, images, cover, indices, cells, function, grid, radius):
    mask = _enlarged(_smooth(cells, grid, radius), images)
    return mask, scores(model, masked(images, mask, cover), indices, function)


def _smooth(cells, grid, radius):
    # another grid than the one traced first would have a size that is known only when it runs
    return smooth_mask(tf.ensure_shape(cells, (None, grid, grid)), radius)


def _enlarged(mask, images):
    large = tf.image.resize(mask[..., None], tf.shape(images)[1:3])[..., 0]
    return tf.cast(large, images.dtype)
