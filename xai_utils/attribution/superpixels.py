"""LIME and Kernel SHAP: superpixels are covered, and a linear model is fitted to the scores.

Every function has the signature `method(model, images, target=None, **settings) -> maps`; see
`attribution`. Both make samples in which each superpixel is kept or covered; they differ in which
samples they draw and how they weigh them.
"""

import numpy as np
from skimage.segmentation import slic
from sklearn.linear_model import Ridge

from xai_utils.attribution import perturbation
from xai_utils.attribution.gradients import finite_without_gradient
from xai_utils.engine import check_images, compiled, float_type, in_parts, keras, tf
from xai_utils.models import fixed_target, scores
from xai_utils.pictures import covers_for, masked


def lime(
    model: keras.Model,
    images,
    target=None,
    segments: int = 50,
    samples: int = 500,
    fill=None,
    penalty: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """LIME: the weights of a linear model of the score in superpixels that are kept or covered.

    The weights w minimise `sum_i pi_i (S(x_i) - w z_i - b)^2 + penalty |w|^2`, where z_i says which
    superpixels sample i keeps. Samples near the picture count more, `pi = exp(-d^2 / 0.25^2)` with
    d the cosine distance of the kept superpixels.
    Source: Ribeiro, Singh & Guestrin, "Why should I trust you?" (KDD 2016), section 3.4. The paper
    explains the probability of the class and keeps the few largest weights; here it is the logit,
    and all weights. For the probability, give a callable target.
    Superpixels: SLIC of scikit-image; linear model: ridge regression of scikit-learn.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        segments: superpixels wished for; SLIC may return fewer or more.
        samples: covered pictures for each image.
        fill: what covers a superpixel: None is its own mean colour; else a pixel value, a colour,
            pictures, or a word, see `pictures.filling`.
        penalty: of the ridge regression; it pulls the weights towards 0, the less the more samples
            there are.
        seed: of the samples.

    Returns:
        float32 maps `(N, H, W)`, constant on each superpixel, signed, in logits.

    Raises:
        ValueError: bad images, target or fill; fewer than 2 segments or 10 samples; a negative
            penalty; a score that is not finite.
    """

    def draw(rng, features):
        kept = rng.integers(0, 2, (samples, features)).astype(bool)
        kept[0] = True
        return kept

    def fit(kept, left):
        weights = np.exp(-((1 - np.sqrt(kept.mean(axis=1))) ** 2) / 0.25**2)
        return Ridge(alpha=penalty).fit(kept.astype(float), left, sample_weight=weights).coef_

    if not penalty >= 0:
        raise ValueError(f"lime: penalty must not be negative, got {penalty}")
    return _regression(model, images, target, segments, samples, fill, seed, draw, fit)


def kernel_shap(
    model: keras.Model,
    images,
    target=None,
    segments: int = 30,
    samples: int = 1000,
    fill=None,
    seed: int = 0,
) -> np.ndarray:
    """Kernel SHAP: Shapley values of superpixels, by regression.

    The sizes s of subsets of the M superpixels are drawn from the Shapley kernel, as `(M - 1) / (s
    (M - s))`. The values of the superpixels add up to `S(picture) - S(everything covered)`,
    exactly. Each subset is drawn with its complement, which makes the result steadier. A pair is
    one equation, so at least twice as many samples as superpixels are needed, and some more, for
    draws may repeat.
    Source: Lundberg & Lee, "A unified approach to interpreting model predictions" (NeurIPS 2017),
    theorem 2. The paper leaves open which output is explained, and fills in what is absent from
    other examples; here it is the logit, and one cover.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        segments: superpixels wished for; SLIC may return fewer or more.
        samples: covered pictures for each image.
        fill: what covers a superpixel: None is its own mean colour; else a pixel value, a colour,
            pictures, or a word, see `pictures.filling`.
        seed: of the samples.

    Returns:
        float32 maps `(N, H, W)`, constant on each superpixel, signed, in logits.

    Raises:
        ValueError: bad images, target or fill; fewer than 2 segments or 10 samples; samples that do
            not determine the values; a score that is not finite.
    """

    def draw(rng, features):
        sizes = np.arange(1, features)
        kernel = (features - 1) / (sizes * (features - sizes))
        pairs = (samples - 1) // 2
        chosen = rng.choice(sizes, pairs, p=kernel / kernel.sum())
        ranks = rng.random((pairs, features)).argsort(axis=1).argsort(axis=1)
        kept = ranks < chosen[:, None]
        if (rank := np.linalg.matrix_rank(against_last(kept))) < features - 1:
            raise ValueError(
                f"kernel_shap: {samples} samples leave the values of {features} superpixels open"
                f" (rank {rank} of {features - 1}): take about {max(6 * features, 2 * samples)}, or"
                " fewer segments"
            )
        return np.concatenate(
            [np.ones((1, features), bool), np.zeros((1, features), bool), kept, ~kept]
        )[:samples]

    def against_last(kept):
        # The last value is what the others leave of the whole difference: that solves the sum rule.
        return kept[:, :-1] - kept[:, -1:].astype(float)

    def fit(kept, left):
        whole, nothing = left[:2]
        unexplained = left[2:] - nothing - kept[2:, -1] * (whole - nothing)
        values = np.linalg.lstsq(against_last(kept[2:]), unexplained, rcond=None)[0]
        return np.append(values, whole - nothing - values.sum())

    return _regression(model, images, target, segments, samples, fill, seed, draw, fit)


def superpixels(image: np.ndarray, segments: int) -> np.ndarray:
    """Regions of like colour: whole numbers `(H, W)` from 0, one for each region, by SLIC.

    In a picture that is mostly grain few regions are connected, and most would be joined; where
    less than a third of those wished for is left, nearness counts more against colour.

    Args:
        image: `(H, W, C)` in any range; three channels are compared as colours, others as numbers.
        segments: regions wished for; SLIC may return fewer or more.

    Returns:
        int `(H, W)`: the number of each pixel's region, from 0.
    """
    pixels = np.asarray(image, np.float64)
    pixels = pixels / max(np.abs(pixels).max(), 1e-9)
    channels = pixels.shape[-1]
    # Lightness goes from 0 to 100; other channels SLIC brings to 0..1, and adds them up.
    compactness = 10 if channels == 3 else 0.1 * channels**0.5
    for nearness in (1, 4, 16):
        regions = slic(
            pixels,
            segments,
            compactness=nearness * compactness,
            start_label=0,
            channel_axis=-1,
            convert2lab=channels == 3,
        )
        if regions.max() + 1 >= max(2, segments / 3):
            break
    return regions


def mean_colours(image: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """The picture `(H, W, C)` with every superpixel in its own mean colour.

    Args:
        image: `(H, W, C)`, any number type.
        regions: int `(H, W)` from 0, of `superpixels`.

    Returns:
        `(H, W, C)` of floats, in the picture's own range.
    """
    return np.stack([image[regions == r].mean(axis=0) for r in range(regions.max() + 1)])[regions]


def kept_scores(
    model: keras.Model, image, cover, regions, kept, index, function=None
) -> np.ndarray:
    """Scores `(F,)` of one image with those superpixels kept that each row of `kept` names.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        image, cover: `(H, W, C)` in the model's pixel range; a covered superpixel shows `cover`.
        regions: int `(H, W)`, of `superpixels`.
        kept: bool `(F, R)`, one column a superpixel.
        index: class index.
        function: a callable target `outputs -> (N,)` instead of a class index.

    Returns:
        float32 `(F,)`, in logits.
    """
    run = compiled(model, _kept_scores, function=function)
    # batches of one: the first axis is of any length in compiled code, a picture's height is not
    image, cover = (tf.cast(picture, float_type(model))[None] for picture in (image, cover))
    regions, index = (tf.cast(given, tf.int32)[None] for given in (regions, index))
    parts = in_parts(kept, perturbation.IMAGES_AT_ONCE)
    return np.concatenate([run(image, cover, regions, index, tf.constant(part)) for part in parts])


def _regression(model, images, target, segments, samples, fill, seed, draw, fit) -> np.ndarray:
    batch = check_images(model, images)
    if segments < 2 or samples < 10:
        raise ValueError(
            f"at least 2 segments and 10 samples are needed, got {segments} and {samples}"
        )
    covers = None if fill is None else covers_for(model, batch, fill).numpy()
    indices, function = fixed_target(model, batch, target)
    maps = []
    for i, image in enumerate(batch.numpy()):
        regions = superpixels(image, segments)
        features = regions.max() + 1
        if features < 2:
            raise ValueError(
                f"SLIC finds 1 superpixel in image {i} when asked for {segments}: ask for more"
                " segments"
            )
        kept = draw(np.random.default_rng(seed), features)
        cover = mean_colours(image, regions) if covers is None else covers[i]
        left = kept_scores(model, image, cover, regions, kept, indices[i], function)
        left = finite_without_gradient(left[None], model, first=i)[0]
        maps.append(fit(kept, left.astype(float))[regions])
    return np.stack(maps).astype(np.float32)


def _kept_scores(model, image, cover, regions, index, kept, function):
    masks = tf.cast(tf.gather(kept, regions[0], axis=1), image.dtype)
    indices = tf.repeat(index, tf.shape(kept)[0], axis=0)
    return scores(model, masked(image, masks, cover), indices, function)
