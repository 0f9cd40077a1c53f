"""XRAI: the regions of a picture that hold most of its integrated gradients for their size."""

import warnings

import numpy as np
from skimage.morphology import isotropic_dilation
from skimage.segmentation import felzenszwalb

from xai_utils.attribution.gradients import integrated_gradients, starts_for
from xai_utils.engine import check_images, keras

SCALES = (50, 100, 150, 250, 500, 1200)  # of the segments, from fine to coarse
# Of a picture of 224 x 224 pixels; in others as large a share of it.
SIDE, SEGMENT, MARGIN, FEWEST = 224, 150, 5, 50


def xrai(
    model: keras.Model,
    images,
    target=None,
    steps: int = 32,
    baseline=("black", "white"),
    scales=SCALES,
    seed=0,
) -> np.ndarray:
    """XRAI: regions of like colour, those first whose pixels hold most of integrated gradients.

    Regions of several sizes overlap. Again and again that one is taken whose pixels, without those
    taken before, have the largest mean; this mean is what they get. What is left in the end, where
    regions would add only a few pixels, gets its own mean. So the map adds up to what integrated
    gradients add up to: `S(x)` minus the mean of `S(x')` over the baselines x'.
    Source: Kapishnikov et al., "XRAI: Better attributions through regions" (ICCV 2019), section 3
    and algorithm 1. Regions are scikit-image's `felzenszwalb` at each of the scales, on values
    stretched to -1..1, smoothed by 0.8 pixels, each with a margin around it: for 224 x 224 pixels
    with the numbers of the authors' program, which brings every picture to that size, begins at
    each picture's own darkest and lightest value, and takes the largest of the channels, where they
    are added up here.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        steps: points on each path of integrated gradients.
        baseline: where the paths begin: `black` and `white` (the model's lowest and highest pixel
            value), `mean` (each image's mean colour), `blur` (the image blurred beyond
            recognition), `random` (uniform noise in the image's range), a value, a colour or
            images; or a list of several of these, in which a colour is a list too.
        scales: of the regions: how unlike pixels may be that are joined; one or several.
        seed: of the baseline `random`.

    Returns:
        float32 maps `(N, H, W)`, signed, in logits per pixel, the same in each region.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, no steps or
            scales, an unknown baseline, or a map that is not finite.
    """
    scales = np.atleast_1d(np.asarray(scales, float))
    if not scales.size or not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError(f"xrai: scales must be above 0, one or several, got {scales.tolist()}")
    batch = check_images(model, images)
    starts = starts_for(model, batch, baseline, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told above, of the same pixels
        paths = [
            integrated_gradients(model, batch, target, steps, start.numpy()) for start in starts
        ]
    maps = np.mean(paths, axis=0)
    shares = [
        ranked_regions(pixels, colour_regions(image, scales))
        for image, pixels in zip(batch.numpy(), maps)
    ]
    return np.stack(shares).astype(np.float32)


def colour_regions(image: np.ndarray, scales=SCALES) -> np.ndarray:
    """Overlapping regions of like colour, of several sizes, which together cover a picture.

    Args:
        image: `(H, W, C)` in any range.
        scales: of scikit-image's `felzenszwalb`; the larger, the larger the regions.

    Returns:
        bool `(R, H, W)`, those of the first scale first.
    """
    image = np.asarray(image, np.float64)
    low, high = image.min(), image.max()
    stretched = 2 * (image - low) / max(high - low, 1e-12) - 1
    stretched *= (3 / image.shape[-1]) ** 0.5  # five equal bands differ as three do
    share = image[..., 0].size / SIDE**2
    margin = round(MARGIN * share**0.5)
    found = []
    for scale in scales:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got image with third dimension")  # of bands
            parts = felzenszwalb(
                stretched, scale, min_size=max(1, round(SEGMENT * share)), channel_axis=-1
            )
        found += [isotropic_dilation(parts == number, margin) for number in range(parts.max() + 1)]
    return np.stack(found)


def ranked_regions(pixels: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """A map whose regions are taken by their mean, the largest first; each pixel gets that mean.

    Args:
        pixels: `(H, W)`, what each pixel holds.
        regions: bool `(R, H, W)`, which may overlap; one that would add fewer than 50 pixels of
            224 x 224 is passed over, and what is left in the end gets its own mean.

    Returns:
        float64 `(H, W)`, of the sum of `pixels`.
    """
    values = pixels.astype(np.float64).ravel()
    members = regions.reshape(len(regions), -1)
    fewest = max(1, round(FEWEST * values.size / SIDE**2))
    counts, sums = members.sum(axis=1), members @ values
    result, free = np.empty_like(values), np.ones(values.size, bool)
    while (large := counts >= fewest).any():
        means = np.where(large, sums / np.maximum(counts, 1), -np.inf)
        best = int(means.argmax())
        new = free & members[best]
        result[new], free[new] = means[best], False
        taken = members[:, new]
        counts, sums = counts - taken.sum(axis=1), sums - taken @ values[new]
    if free.any():
        result[free] = values[free].mean()
    return result.reshape(pixels.shape)
