"""Attribution by covering parts of the picture and watching the score: occlusion, RISE, Sobol.

No gradient is needed: any model with a score can be explained. Every function has the signature
`method(model, images, target=None, **settings) -> maps`; see `attribution`. Changed pictures are
made in the compiled function, chunk by chunk, so that memory does not grow with their number. LIME
and Kernel SHAP, which cover superpixels, are in `superpixels`.
"""

import math

import numpy as np

from xai_utils.attribution.gradients import finite_without_gradient
from xai_utils.attribution.sensitivity import sobol_design, total_indices
from xai_utils.engine import check_images, compiled, in_float32, in_parts, keras, pixel_range, tf
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
    section 4.2. The paper covers with grey and follows the probability of the class; here it is
    black and the logit, which does not saturate. For the paper's, give `fill="mean"` and a target
    such as `lambda logits: tf.nn.softmax(logits)[:, 285]`.

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
        ValueError: bad images or target; a patch larger than the picture, a stride below 1, a fill
            that is not finite or does not fit the images, or a map that is not finite.
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
    lost = finite_without_gradient(whole[:, None] - tf.concat(left, axis=1), model)
    return lost.reshape(len(batch), len(rows), len(columns))


def rise(
    model: keras.Model,
    images,
    target=None,
    masks: int = 4000,
    grid: int = 7,
    keep: float = 0.5,
    seed: int = 0,
    tolerance: float = 0.0,
    centred: bool = True,
    probability: bool = False,
    return_error: bool = False,
):
    """RISE: the average of random soft masks, weighted by the score the picture keeps under each.

    `sum_i (f(x * m_i) - mean f) m_i / (N keep)`, with masks of random cells on a coarse grid,
    enlarged and shifted; `x * m` is black where m is 0, also in a network whose black is not 0. All
    images share the masks; a chunk of them is made, used in one matrix product, and forgotten.
    Source: Petsiuk, Das & Saenko, "RISE" (BMVC 2018), section 3. The paper's sum is that of
    `centred=False, probability=True`. Without the mean every mask brings the mean score along
    wherever it happens to be open: a constant, which says nothing of places, and most of the noise
    of logits. A logit does not know of the other classes; where the class is lost under most masks,
    a few masks make the whole map of probabilities.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`,
            whose scores are taken as they are.
        masks: number of masks N.
        grid: cells along each side of the coarse grid.
        keep: probability that a cell is kept.
        seed: of the masks, a 32-bit whole number; mask i depends on the seed and i alone.
        tolerance: stop early, after a chunk, when the standard error, averaged over the picture, is
            below this fraction of the map's range for every image; 0 never stops. A batch may so
            use more masks than its images alone.
        centred: weigh with the score minus its mean over the masks; False, with the score itself.
        probability: weigh with the probability of the class instead of its logit.
        return_error: also return the standard error and the number of masks used.

    Returns:
        float32 maps `(N, H, W)`, signed, in logits: how far the mean score under masks that show a
        place is above the mean under all; or, not `centred`, that mean itself. With `return_error`
        a tuple of the maps, their standard errors, of the same shape, and the number of masks used.

    Raises:
        ValueError: bad images or target; fewer than 2 masks, `keep` not between 0 and 1, `grid`
            below 1, more cells than pixels, or a map that is not finite.
    """
    batch = check_images(model, images)
    if masks < 2 or not 1 <= grid <= min(batch.shape[1:3]) or not 0 < keep < 1:
        most = min(batch.shape[1:3])
        raise ValueError(
            f"rise: masks >= 2, grid 1 to {most} and 0 < keep < 1 are needed; got {masks}, {grid},"
            f" {keep}"
        )
    indices, function = fixed_target(model, batch, target)
    settings = {
        "size": tuple(batch.shape[1:3]),
        "grid": grid,
        "black": pixel_range(model, batch)[0],
        "probability": probability,
        "centred": centred,
        "errors": return_error or tolerance > 0,
    }
    run = compiled(model, _rise_sums, function=function, **settings)
    sums, done = (0.0, 0.0, 0.0), 0
    for part in in_parts(np.arange(masks, dtype=np.int32), IMAGES_AT_ONCE // len(batch)):
        added = run(
            batch, indices, tf.constant(keep, batch.dtype), tf.constant(seed), tf.constant(part)
        )
        sums, done = [one + more for one, more in zip(sums, added)], done + len(part)
        if tolerance and done > 1 and _settled(*mask_average(*sums, done, centred), tolerance):
            break
    maps, errors = mask_average(*sums, done, centred)
    shape = (len(batch), *batch.shape[1:3])
    maps = finite_without_gradient(maps, model).reshape(shape)
    return (maps, in_float32(errors).reshape(shape), done) if return_error else maps


def sobol(
    model: keras.Model,
    images,
    target=None,
    grid: int = 8,
    samples: int = 32,
    fill="black",
    seed: int = 0,
    return_error: bool = False,
):
    """Sobol indices: which share of the score's variance hangs on a cell, all cells being dimmed.

    Each cell of a grid shows the picture by a random share in 0..1, the rest being its cover. The
    total index of a cell is the share of the score's variance that is left when all others are
    known: what the cell does alone and together with others. It has no sign. All images share the
    masks.
    Source: Fel et al., "Look at the variance!" (NeurIPS 2021), section 3; the estimator is
    `total_indices`, on the points of `sobol_design`. The paper takes 11 x 11 cells and 32 samples,
    3936 passes; here it is `(grid^2 + 2) samples`.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        grid: cells along each side.
        samples: quasi-random points in each of the `grid^2 + 2` sets; best a power of two.
        fill: what a cell shows where it is dimmed: a pixel value, a colour, pictures, or a word;
            see `pictures.filling`.
        seed: of the points.
        return_error: also return the standard error.

    Returns:
        float32 maps `(N, grid, grid)`, one value a cell, not negative, shares of the variance that
        add up to 1 or more; zeros where the score never changes. With `return_error` a tuple of
        them and their standard errors, of the same shape.

    Raises:
        ValueError: bad images, target or fill; fewer than 2 samples, `grid` below 1 or with more
            cells than pixels, or a score that is not finite.
    """
    batch = check_images(model, images)
    most = min(batch.shape[1:3])
    if not 1 <= grid <= most or samples < 2:
        raise ValueError(
            f"sobol: grid 1 to {most} and samples >= 2 are needed, got {grid} and {samples}"
        )
    cover = covers_for(model, batch, fill)
    indices, function = fixed_target(model, batch, target)
    points = sobol_design(grid**2, samples, seed).reshape(-1, grid, grid).astype(batch.dtype.name)
    run = compiled(model, _dimmed_scores, function=function)
    left = np.concatenate(
        [
            run(batch, indices, cover, tf.constant(part)).numpy()
            for part in in_parts(points, IMAGES_AT_ONCE // len(batch))
        ],
        axis=1,
    )
    shape = (len(batch), grid, grid)
    left = finite_without_gradient(left, model)
    scores_of_sets = left.reshape(len(batch), grid**2 + 2, samples)
    maps, errors = (
        values.reshape(shape).astype(np.float32) for values in total_indices(scores_of_sets, True)
    )
    return (maps, errors) if return_error else maps


def _starts(extent: int, patch: int, stride: int) -> np.ndarray:
    """First pixels of patches around the middles of cells; below 0 where a patch hangs over."""
    cells = math.ceil(extent / stride)
    return np.floor((np.arange(cells) + 0.5) * extent / cells - patch / 2 + 0.5).astype(np.int32)


def _masked_scores(
    model, images, masks, indices, function, cover=None, black=0.0, probability=False
):
    """Scores `(N, F)` of N images under F masks `(F, H, W)`: 1 keeps a pixel, 0 covers it."""
    covers = None if cover is None else cover[:, None]
    changed = masked(images[:, None], masks[None], covers, black)
    # pictures of several sizes have a shape that is known only when it runs
    flat = tf.reshape(changed, tf.concat([[-1], tf.shape(images)[1:]], axis=0))
    flat, copies = tf.ensure_shape(flat, (None, *images.shape[1:])), tf.shape(masks)[0]
    left = scores(model, flat, tf.repeat(indices, copies, axis=0), function, probability)
    return tf.reshape(left, (-1, copies))


def _occluded_scores(model, images, indices, cover, corners, patch, function):
    rows, columns = tf.range(tf.shape(images)[1]), tf.range(tf.shape(images)[2])
    in_rows = (rows >= corners[:, :1]) & (rows < corners[:, :1] + patch)
    in_columns = (columns >= corners[:, 1:]) & (columns < corners[:, 1:] + patch)
    kept = ~(in_rows[:, :, None] & in_columns[:, None, :])
    return _masked_scores(model, images, tf.cast(kept, images.dtype), indices, function, cover)


def _dimmed_scores(model, images, indices, cover, cells, function):
    size = tf.shape(images)[1:3]
    masks = tf.image.resize(cells[..., None], size, "nearest")[..., 0]
    return _masked_scores(model, images, masks, indices, function, cover)


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


def _rise_sums(
    model,
    images,
    indices,
    keep,
    seed,
    numbers,
    size,
    grid,
    function,
    black,
    probability,
    centred,
    errors,
):
    masks = rise_masks(numbers, size, grid, keep, seed, images.dtype)
    left = _masked_scores(
        model, images, masks, indices, function, black=black, probability=probability
    )
    return mask_sums(masks, tf.transpose(left), keep, centred, errors)


def mask_sums(masks, weights, keep, centred: bool, errors: bool):
    """Sums over some of the masks of RISE and D-RISE, which make `mask_average` when added up.

    Args:
        masks: m, `(F, H, W)`.
        weights: w of each mask for T maps, `(F, T)`.
        keep: probability that a cell is kept, the mean of m.
        centred: use `(m - keep) / keep` instead of `m / keep`. With weights that sum to 0 that
            gives the same sums, and their true spread.
        errors: whether the standard error is wanted.

    Returns:
        With m so scaled, sums of `w m` and `m`, `(T + 1, H W)`; of `w^2 m^2`, `w m^2` and `m^2`,
        `(2 T + 1, H W)`, or 0 without `errors`; and of w, `(T,)`.
    """
    ones = tf.ones_like(weights[:, :1])
    flat = tf.reshape(masks, (-1, masks.shape[1] * masks.shape[2])) / keep - float(centred)
    first = tf.matmul(tf.concat([weights, ones], 1), flat, transpose_a=True)
    second = tf.zeros((), weights.dtype)
    if errors:
        powers = tf.concat([weights**2, weights, ones], 1)
        second = tf.matmul(powers, flat**2, transpose_a=True)
    return first, second, tf.reduce_sum(weights, axis=0)


def mask_average(first, second, weights, done: int, centred: bool):
    """What the masks bring on average, and the standard error of that.

    Args:
        first, second, weights: the added up `mask_sums` of all masks.
        done: how many masks.
        centred: as given to `mask_sums`: subtract the mean weight from the weights.

    Returns:
        Averages `(T, H W)` and their standard errors, of the same shape; None for those if
        `mask_sums` was asked for none.
    """
    many = weights.shape[0]
    mean = (weights / done)[:, None] * float(centred)
    average = (first[:many] - mean * first[many:]) / done
    if not second.shape.rank:
        return average, None
    square = second[:many] - 2 * mean * second[many:-1] + mean**2 * second[-1:]
    return average, tf.sqrt(tf.nn.relu(square / done - average**2) / (done - 1))


def _settled(average, errors, tolerance: float) -> bool:
    extent = tf.reduce_max(average, axis=1) - tf.reduce_min(average, axis=1)
    return bool(tf.reduce_all(tf.reduce_mean(errors, axis=1) < tolerance * extent))
