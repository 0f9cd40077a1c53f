"""Attribution by covering parts of the picture and watching the score: occlusion and RISE.

No gradient is needed: any model with a score can be explained. Every function has the signature
`method(model, images, target=None, **settings) -> maps`; see `attribution`. Changed pictures are
made in the compiled function, chunk by chunk, so that memory does not grow with their number. LIME
and Kernel SHAP, which cover superpixels, are in `superpixels`.
"""

import math

import numpy as np

from xai_utils.engine import check_images, compiled, in_parts, keras, pixel_range, tf
from xai_utils.models import fixed_target, scores
from xai_utils.pictures import covers_for, masked

IMAGES_AT_ONCE = 64  # changed pictures in one forward pass


def occlusion(
    model: keras.Model, images, target=None, patch: int = 32, stride: int = 16, fill="black"
) -> np.ndarray:
    """Occlusion: how far the score falls when a square patch is covered, for patches on a grid.

    `S(x) - S(x with the patch covered)`. The picture is divided into equal cells, about `stride`
    pixels wide; each has a patch around its middle. So the map, enlarged, lies where the patches
    were. Patches near the border hang over it.
    Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks" (ECCV 2014),
    section 4.2.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        patch: side of the patch in pixels.
        stride: side of a cell, at most: how far patches are apart.
        fill: what the patch shows: a pixel value, a colour, pictures, or a word; see
            `pictures.filling`.

    Returns:
        float32 maps `(N, h, w)`, one value a patch, signed, in logits: large where covering takes
        most of the score.

    Raises:
        ValueError: bad images or target; a patch larger than the picture, a stride below 1, or a
            fill that is not finite or does not fit the images.
    """
    batch = check_images(model, images)
    height, width = batch.shape[1:3]
    if not 1 <= patch <= min(height, width) or stride < 1:
        raise ValueError(
            f"occlusion: patch must be 1 to {min(height, width)} and stride at least 1, got"
            f" {patch}, {stride}"
        )
    cover = covers_for(model, batch, fill)
    indices, function = fixed_target(model, batch, target)
    rows, columns = (_starts(extent, patch, stride) for extent in (height, width))
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    run = compiled(model, _occluded_scores, function=function, patch=patch)
    left = [
        run(batch, indices, cover, tf.constant(part))
        for part in in_parts(corners, IMAGES_AT_ONCE // len(batch))
    ]
    whole = compiled(model, scores, function=function)(batch, indices)
    return (
        (whole[:, None] - tf.concat(left, axis=1))
        .numpy()
        .reshape(len(batch), len(rows), len(columns))
    )


def rise(
    model: keras.Model,
    images,
    target=None,
    masks: int = 4000,
    grid: int = 7,
    keep: float = 0.5,
    seed: int = 0,
    tolerance: float = 0.0,
    return_error: bool = False,
):
    """RISE: the average of random soft masks, weighted by the score the picture keeps under each.

    `sum_i f(x * m_i) m_i / (N keep)`, with masks of random cells on a coarse grid, enlarged and
    shifted; `x * m` is black where m is 0, also in a network whose black is not 0. All images share
    the masks; a chunk of them is made, used in one matrix product, and forgotten.
    Source: Petsiuk, Das & Saenko, "RISE" (BMVC 2018), section 3. The paper weighs with
    probabilities: for that, give a target such as `lambda logits: tf.nn.softmax(logits)[:, 285]`.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        masks: number of masks N.
        grid: cells along each side of the coarse grid.
        keep: probability that a cell is kept.
        seed: of the masks, a 32-bit whole number; mask i depends on the seed and i alone.
        tolerance: stop early, after a chunk, when the standard error, averaged over the picture, is
            below this fraction of the map's range for every image; 0 never stops. A batch may so
            use more masks than its images alone.
        return_error: also return the standard error and the number of masks used.

    Returns:
        float32 maps `(N, H, W)`, in logits; with `return_error` a tuple of the maps, their standard
        errors, of the same shape, and the number of masks used.

    Raises:
        ValueError: bad images or target; fewer than 2 masks, `keep` not between 0 and 1, `grid`
            below 1, or more cells than pixels.
    """
    batch = check_images(model, images)
    if masks < 2 or not 1 <= grid <= min(batch.shape[1:3]) or not 0 < keep < 1:
        most = min(batch.shape[1:3])
        raise ValueError(
            f"rise: masks >= 2, grid 1 to {most} and 0 < keep < 1 are needed; got {masks}, {grid},"
            f" {keep}"
        )
    indices, function = fixed_target(model, batch, target)
    black = pixel_range(model, batch)[0]
    run = compiled(model, _rise_sums, function=function, grid=grid, black=black)
    total = squares = 0.0
    done = 0
    for part in in_parts(np.arange(masks, dtype=np.int32), IMAGES_AT_ONCE // len(batch)):
        one, two = run(
            batch, indices, tf.constant(keep, batch.dtype), tf.constant(seed), tf.constant(part)
        )
        total, squares, done = total + one, squares + two, done + len(part)
        if tolerance and done > 1 and _settled(total, squares, done, tolerance):
            break
    shape = (len(batch), *batch.shape[1:3])
    maps = (total / done).numpy().reshape(shape)
    if not return_error:
        return maps
    return maps, standard_error(total, squares, done).numpy().reshape(shape), done


def _starts(extent: int, patch: int, stride: int) -> np.ndarray:
    """First pixels of patches around the middles of cells; below 0 where a patch hangs over."""
    cells = math.ceil(extent / stride)
    return np.floor((np.arange(cells) + 0.5) * extent / cells - patch / 2 + 0.5).astype(np.int32)


def _masked_scores(model, images, masks, indices, function, cover=None, black=0.0):
    """Scores `(N, F)` of N images under F masks `(F, H, W)`: 1 keeps a pixel, 0 covers it."""
    covers = None if cover is None else cover[:, None]
    changed = masked(images[:, None], masks[None], covers, black)
    # pictures of several sizes have a shape that is known only when it runs
    flat = tf.reshape(changed, tf.concat([[-1], tf.shape(images)[1:]], axis=0))
    flat, copies = tf.ensure_shape(flat, (None, *images.shape[1:])), tf.shape(masks)[0]
    return tf.reshape(
        scores(model, flat, tf.repeat(indices, copies, axis=0), function), (-1, copies)
    )


def _occluded_scores(model, images, indices, cover, corners, patch, function):
    rows, columns = tf.range(tf.shape(images)[1]), tf.range(tf.shape(images)[2])
    in_rows = (rows >= corners[:, :1]) & (rows < corners[:, :1] + patch)
    in_columns = (columns >= corners[:, 1:]) & (columns < corners[:, 1:] + patch)
    kept = ~(in_rows[:, :, None] & in_columns[:, None, :])
    return _masked_scores(model, images, tf.cast(kept, images.dtype), indices, function, cover)


def rise_masks(
    numbers: tf.Tensor, size: tuple[int, int], grid: int, keep, seed, dtype=tf.float32
) -> tf.Tensor:
    """The soft masks of RISE and D-RISE with these numbers: `(F, H, W)` in 0..1.

    Each pixel's mean is `keep`. A grid of `(grid + 1)^2` random cells is enlarged, bilinear, and
    cut out at a random place within one cell.

    Args:
        numbers: int32 `(F,)`, which masks of the seed's series.
        size: height and width of the picture in pixels.
        grid: cells along each side of the coarse grid, at most as many as pixels.
        keep: probability that a cell is kept, in 0..1.
        seed: of the series, a 32-bit whole number.
        dtype: of the masks; default float32.

    Returns:
        Masks `(F, H, W)` in 0..1.
    """
    cell = [math.ceil(extent / grid) for extent in size]
    large = [(grid + 1) * extent for extent in cell]

    def draw(number):
        # One draw for cells and shift: two seeds next to each other share nothing.
        random = tf.random.stateless_uniform(((grid + 1) ** 2 + 2,), tf.stack([seed, number]))
        offset = tf.cast(random[-2:] * tf.constant(cell, tf.float32), tf.int32)
        cells = tf.reshape(random[:-2] < tf.cast(keep, tf.float32), (grid + 1, grid + 1, 1))
        mask = tf.image.resize(tf.cast(cells, dtype), large)[..., 0]
        return tf.slice(tf.cast(mask, dtype), offset, size)

    return tf.map_fn(draw, numbers, fn_output_signature=dtype)


def _rise_sums(model, images, indices, keep, seed, numbers, grid, function, black):
    """Sums over masks of what each adds to the map, and of its square; `(N, H W)` each."""
    masks = rise_masks(numbers, images.shape[1:3], grid, keep, seed, images.dtype)
    left = _masked_scores(model, images, masks, indices, function, black=black)
    flat = tf.reshape(masks, (-1, images.shape[1] * images.shape[2])) / keep
    return left @ flat, left**2 @ flat**2


def standard_error(total, squares, done: int):
    return tf.sqrt(tf.nn.relu(squares / done - (total / done) ** 2) / (done - 1))


def _settled(total, squares, done: int, tolerance: float) -> bool:
    error = tf.reduce_mean(standard_error(total, squares, done), axis=1)
    extent = (tf.reduce_max(total, axis=1) - tf.reduce_min(total, axis=1)) / done
    return bool(tf.reduce_all(error < tolerance * extent))
