"""Attribution by changing the picture and watching the score: occlusion, RISE, LIME, Kernel SHAP.

No gradient is needed: any model with a score can be explained. Every function has the signature
`method(model, images, target=None, **settings) -> maps`; see `attribution`. Changed pictures are made in the compiled
function, chunk by chunk, so that memory does not grow with their number.
"""

import math

import numpy as np
from skimage.segmentation import slic

from xai_utils.backend import check_images, compiled, keras, tf
from xai_utils.targets import fixed_target, score

IMAGES_AT_ONCE = 64  # changed pictures in one forward pass


def occlusion(
    model: keras.Model, images, target=None, patch: int = 32, stride: int = 16, fill: float = 0.0
) -> np.ndarray:
    """Occlusion: how far the score falls when a square patch is covered, for patches on a grid.

    Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks" (ECCV 2014), section 4.2.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), class index, N indices, or a callable `outputs -> (N,)`.
        patch: side of the patch in pixels.
        stride: distance between patches in pixels.
        fill: pixel value of the cover.

    Returns:
        float32 maps `(N, h, w)`, one value a patch, signed, in logits: large where covering takes most of the score.

    Raises:
        ValueError: bad images or target; a patch larger than the picture, or a stride below 1.
    """
    batch = check_images(model, images)
    height, width = batch.shape[1:3]
    if not 1 <= patch <= min(height, width) or stride < 1:
        raise ValueError(
            f"occlusion: patch must be 1 to {min(height, width)} and stride at least 1, got {patch}, {stride}"
        )
    indices, function = fixed_target(model, batch, target)
    rows, columns = (np.arange(0, extent - patch + 1, stride) for extent in (height, width))
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2).astype(np.int32)
    run = compiled(model, _occluded_scores, function=function, patch=patch)
    fill = tf.constant(fill, batch.dtype)
    scores = [run(batch, indices, fill, tf.constant(part)) for part in _parts(corners, len(batch))]
    whole = compiled(model, _scores, function=function)(batch, indices)
    return (whole[:, None] - tf.concat(scores, axis=1)).numpy().reshape(len(batch), len(rows), len(columns))


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

    `sum_i f(x * m_i) m_i / (N keep)`, with masks of random cells on a coarse grid, enlarged and shifted. All images share
    the masks; a chunk of them is made, used in one matrix product, and forgotten.
    Source: Petsiuk, Das & Saenko, "RISE" (BMVC 2018), section 3. The paper weighs with probabilities: for that, give a
    target such as `lambda logits: tf.nn.softmax(logits)[:, 285]`.

    Args:
        model, images, target: as for `occlusion`.
        masks: number of masks N.
        grid: cells along each side of the coarse grid.
        keep: probability that a cell is kept.
        seed: of the masks; mask i depends on the seed and i alone.
        tolerance: stop early when the standard error, averaged over the picture, is below this fraction of the map's
            range, for every image; 0 never stops.
        return_error: also return the standard error.

    Returns:
        float32 maps `(N, H, W)`, in logits; with `return_error` also their standard errors, of the same shape.

    Raises:
        ValueError: bad images or target; fewer than 2 masks, `keep` not between 0 and 1, `grid` below 1.
    """
    batch = check_images(model, images)
    if masks < 2 or grid < 1 or not 0 < keep < 1:
        raise ValueError(f"rise: masks >= 2, grid >= 1, 0 < keep < 1 are needed; got {masks}, {grid}, {keep}")
    indices, function = fixed_target(model, batch, target)
    run = compiled(model, _rise_sums, function=function, grid=grid)
    total = squares = 0.0
    done = 0
    for part in _parts(np.arange(masks, dtype=np.int32), len(batch)):
        one, two = run(batch, indices, tf.constant(keep, batch.dtype), tf.constant(seed), tf.constant(part))
        total, squares, done = total + one, squares + two, done + len(part)
        if tolerance and done > 1 and _settled(total, squares, done, tolerance):
            break
    shape = (len(batch), *batch.shape[1:3])
    maps = (total / done).numpy().reshape(shape)
    return (maps, _standard_error(total, squares, done).numpy().reshape(shape)) if return_error else maps


def lime(
    model: keras.Model,
    images,
    target=None,
    segments: int = 50,
    samples: int = 500,
    fill: float | None = None,
    seed: int = 0,
) -> np.ndarray:
    """LIME: the weights of a linear model of the score in superpixels that are kept or covered.

    Samples near the picture count more, `exp(-d^2 / 0.25^2)` with d the cosine distance of the kept superpixels.
    Source: Ribeiro, Singh & Guestrin, "Why should I trust you?" (KDD 2016), section 3.4. Superpixels: SLIC of
    scikit-image; linear model: ridge regression of scikit-learn.

    Args:
        model, images, target: as for `occlusion`.
        segments: superpixels wished for; SLIC may return a few less.
        samples: covered pictures for each image.
        fill: pixel value of the cover; None is each superpixel's own mean colour.
        seed: of the samples.

    Returns:
        float32 maps `(N, H, W)`, constant on each superpixel, signed, in logits.

    Raises:
        ValueError: bad images or target; too few segments or samples.
    """

    def weigh(kept):
        return np.exp(-((1 - np.sqrt(kept.mean(axis=1))) ** 2) / 0.25**2)

    def draw(rng, features):
        kept = rng.integers(0, 2, (samples, features)).astype(bool)
        kept[0] = True
        return kept, weigh(np.maximum(kept, 1e-9)), 1.0

    return _superpixel_regression(model, images, target, segments, samples, fill, seed, draw)


def kernel_shap(
    model: keras.Model,
    images,
    target=None,
    segments: int = 30,
    samples: int = 1000,
    fill: float | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Kernel SHAP: Shapley values of superpixels by regression, with subset sizes drawn from the Shapley kernel.

    The map's superpixel values add up to `S(picture) - S(everything covered)`: both are among the samples with a weight
    so large that they are met. Source: Lundberg & Lee, "A unified approach" (NeurIPS 2017), theorem 2.

    Args, Returns, Raises: as `lime`.
    """

    def draw(rng, features):
        sizes = np.arange(1, features)
        kernel = (features - 1) / (sizes * (features - sizes))
        chosen = rng.choice(sizes, samples - 2, p=kernel / kernel.sum())
        ranks = rng.random((samples - 2, features)).argsort(axis=1).argsort(axis=1)
        kept = np.concatenate([np.ones((1, features), bool), np.zeros((1, features), bool), ranks < chosen[:, None]])
        return kept, np.concatenate([[1e6, 1e6], np.ones(samples - 2)]), 1e-6

    return _superpixel_regression(model, images, target, segments, samples, fill, seed, draw)


def _superpixel_regression(model, images, target, segments, samples, fill, seed, draw) -> np.ndarray:
    """Shared by LIME and Kernel SHAP, which differ in the samples they draw and how they weigh them."""
    from sklearn.linear_model import Ridge

    batch = check_images(model, images)
    if segments < 2 or samples < 10:
        raise ValueError(f"at least 2 segments and 10 samples are needed, got {segments} and {samples}")
    indices, function = fixed_target(model, batch, target)
    run = compiled(model, _kept_scores, function=function)
    maps = []
    for i, image in enumerate(batch.numpy()):
        pixels = image / max(np.abs(image).max(), 1e-9)
        regions = slic(
            pixels, segments, compactness=10, start_label=0, channel_axis=-1, convert2lab=image.shape[-1] == 3
        )
        features = regions.max() + 1
        cover = np.full_like(image, fill or 0.0)
        if fill is None:
            cover = np.stack([image[regions == r].mean(axis=0) for r in range(features)])[regions]
        kept, weights, penalty = draw(np.random.default_rng(seed), features)
        arguments = tf.constant(image), tf.constant(cover), tf.constant(regions), indices[i : i + 1]
        scores = np.concatenate([run(*arguments, tf.constant(part)) for part in _parts(kept, 1)])
        line = Ridge(alpha=penalty).fit(kept.astype(float), scores.astype(float), sample_weight=weights)
        maps.append(line.coef_[regions])
    return np.stack(maps).astype(np.float32)


def _parts(values: np.ndarray, images: int) -> list[np.ndarray]:
    """Parts of equal length (but for the last), so that TensorFlow traces one or two shapes."""
    size = max(1, IMAGES_AT_ONCE // images)
    return [values[i : i + size] for i in range(0, len(values), size)]


def _scores(model, images, indices, function):
    return score(model(images, training=False), indices, function)


def _masked_scores(model, images, masks, indices, function, fill=0.0):
    """Scores `(N, F)` of N images under F masks `(F, H, W)`: 1 keeps a pixel, 0 covers it."""
    masks = masks[None, ..., None]
    changed = images[:, None] * masks + fill * (1 - masks)
    flat = tf.reshape(changed, (-1, *images.shape[1:]))
    copies = masks.shape[1]
    flat = tf.ensure_shape(flat, (images.shape[0] * copies, *images.shape[1:]))
    return tf.reshape(_scores(model, flat, tf.repeat(indices, copies), function), (images.shape[0], copies))


def _occluded_scores(model, images, indices, fill, corners, patch, function):
    rows, columns = tf.range(images.shape[1]), tf.range(images.shape[2])
    in_rows = (rows >= corners[:, :1]) & (rows < corners[:, :1] + patch)
    in_columns = (columns >= corners[:, 1:]) & (columns < corners[:, 1:] + patch)
    covered = in_rows[:, :, None] & in_columns[:, None, :]
    return _masked_scores(model, images, tf.cast(~covered, images.dtype), indices, function, fill)


def rise_masks(numbers: tf.Tensor, size: tuple[int, int], grid: int, keep, seed, dtype=tf.float32) -> tf.Tensor:
    """The soft masks of RISE and D-RISE with these numbers: `(F, H, W)` in 0..1, each pixel's mean is `keep`.

    A grid of `(grid + 1)^2` random cells is enlarged, bilinear, and cut out at a random place within one cell.
    """
    cell = [math.ceil(extent / grid) for extent in size]
    large = [(grid + 1) * extent for extent in cell]

    def draw(number):
        cells = tf.random.stateless_uniform((grid + 1, grid + 1), tf.stack([seed, number]), dtype=dtype) < keep
        shift = tf.random.stateless_uniform((2,), tf.stack([seed + 1, number]))
        offset = tf.cast(shift * tf.constant(cell, tf.float32), tf.int32)
        mask = tf.image.resize(tf.cast(cells, dtype)[..., None], large)[..., 0]
        return tf.slice(tf.cast(mask, dtype), offset, size)

    return tf.map_fn(draw, numbers, fn_output_signature=dtype)


def _rise_sums(model, images, indices, keep, seed, numbers, grid, function):
    """Sums over masks of what each adds to the map, and of its square; `(N, H W)` each, one matrix product each."""
    masks = rise_masks(numbers, images.shape[1:3], grid, keep, seed, images.dtype)
    masks = tf.ensure_shape(masks, (numbers.shape[0], *images.shape[1:3]))
    scores = _masked_scores(model, images, masks, indices, function)
    flat = tf.reshape(masks, (numbers.shape[0], -1)) / keep
    return scores @ flat, scores**2 @ flat**2


def _standard_error(total, squares, done: int):
    return tf.sqrt(tf.nn.relu(squares / done - (total / done) ** 2) / (done - 1))


def _settled(total, squares, done: int, tolerance: float) -> bool:
    error = tf.reduce_mean(_standard_error(total, squares, done), axis=1)
    extent = (tf.reduce_max(total, axis=1) - tf.reduce_min(total, axis=1)) / done
    return bool(tf.reduce_all(error < tolerance * extent))


def _kept_scores(model, image, cover, regions, index, kept, function):
    """Scores `(F,)` of one image with the superpixels kept that each row of `kept` names."""
    masks = tf.cast(tf.gather(kept, regions, axis=1), image.dtype)[..., None]
    changed = image * masks + cover * (1 - masks)
    return _scores(model, changed, tf.repeat(index, kept.shape[0]), function)
