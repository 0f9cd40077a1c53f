"""Concept extraction: the parts a layer's codes are sums of, and how much a class rests on each."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls
from sklearn.decomposition import NMF

from xai_utils.attribution import sobol_design, total_indices
from xai_utils.concepts.codes import PICTURES_AT_ONCE, checked_layer, codes
from xai_utils.engine import check_images, compiled, in_parts, keras, tf
from xai_utils.models import fixed_target, outputs_from, score

ROUNDS, TOLERANCE = 2000, 1e-3  # of the factorisation: most steps, and when it has settled


class Factors(NamedTuple):
    """What `craft` found at a layer; R factors, the most important first.

    Attributes:
        vectors: float32 `(R, K)`, not negative, of length 1: a factor's share in each channel.
        importance: float64 `(R,)`, total Sobol index of the score, the mean over the pictures.
        errors: float64 `(R,)`, the standard error of the points, the mean over the pictures.
        each: float64 `(N, R)`, total Sobol index of each picture's score.
        crops: float32 `(R, best, H, W, C)`, the crops with most of each factor, most first, brought
            to the pictures' size: pictures for a `craft` of one factor at an earlier layer.
        places: int `(R, best, 3)`, whence they are: picture, top row, left column.
        crop: side of a crop in the pictures' pixels.
        explained: share of the squares of the crops' codes that the factors make up, 0 to 1.
        layer: whose codes they are.
    """

    vectors: np.ndarray
    importance: np.ndarray
    errors: np.ndarray
    each: np.ndarray
    crops: np.ndarray
    places: np.ndarray
    crop: int
    explained: float
    layer: str


def craft(
    model: keras.Model,
    images,
    target=None,
    factors: int = 6,
    layer: str | None = None,
    crop: int | None = None,
    grid: int = 6,
    samples: int = 32,
    best: int = 6,
    seed: int = 0,
    progress: Callable | None = None,
) -> Factors:
    """CRAFT: factors whose sums the codes of a class's crops are, and how the score rests on them.

    Crops of the pictures, enlarged to their size, have codes `A`, means over the layer's places,
    that are factorised without negative numbers, `A = U W`; rows of `W` are the factors. Importance
    is the total Sobol index of the score when each factor in a picture's map is scaled by a random
    share in 0..1: `S(head((u * m) W))`, `u` of `factor_maps`. What no factor holds is left out. One
    factor is divided further by `craft(model, found.crops[r], target, layer=an_earlier_one)`.
    Source: Fel et al., "CRAFT: concept recursive activation factorization for explainability"
    (CVPR 2023), sections 3.1 to 3.3; places of crops are drawn there, and form a grid here.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: pictures of one class, any number type, in the model's pixel range.
        target: None (top class of each), a class index or name, N of them, or a callable `outputs
            -> (N,)`.
        factors: R, how many; at most as many as channels and crops.
        layer: name or path of a layer or operation that returns `(N, h, w, K)` without negative
            values, behind a ReLU for example; default the one whose map is pooled or flattened
            before the head.
        crop: side of a crop in pixels; default two sevenths of the pictures' shorter side.
        grid: crops along each side, evenly spread; they overlap where they must.
        samples: quasi-random points in each of the `R + 2` sets; best a power of two.
        best: how many crops to keep of each factor.
        seed: of the factorisation and of the points.
        progress: called as `(done, all)`, a step for each picture's crops.

    Returns:
        `Factors`.

    Raises:
        ValueError: bad images or target, an unknown layer, one without places or with negative or
            only zero values; a crop that is larger than the pictures; fewer crops or channels than
            factors, or a number below 1 (2 `samples`).
    """
    batch = check_images(model, images)
    layer = checked_layer(model, batch.shape, layer)
    indices, function = fixed_target(model, batch, target)
    crop = crop or max(round(2 / 7 * min(batch.shape[1:3])), 1)
    corners = _corners(batch.shape, crop, grid)
    of_crops = []
    for number, image in enumerate(batch.numpy(), 1):
        of_crops.append(codes(model, _cut(image, corners, crop), layer))
        if progress:
            progress(number, len(batch))
    of_crops = np.concatenate(of_crops)
    _check_factorable(model, of_crops, layer, factors, best)
    amounts, vectors, explained = _factorised(of_crops, factors, seed)
    each, errors = _importance(model, batch, indices, function, layer, vectors, samples, seed)
    order = np.argsort(-each.mean(axis=0), kind="stable")
    most = np.argsort(-amounts[:, order], axis=0, kind="stable")[:best].T
    places = np.concatenate([most[..., None] // len(corners), corners[most % len(corners)]], -1)
    cut = [[_cut(batch[n].numpy(), [at], crop)[0] for n, *at in row] for row in places]
    return Factors(
        vectors[order],
        each.mean(axis=0)[order],
        errors.mean(axis=0)[order],
        each[:, order],
        np.array(cut, np.float32),
        places,
        crop,
        explained,
        layer,
    )


def factor_maps(model: keras.Model, images, factors: Factors) -> np.ndarray:
    """How much of each factor is at each place: the sum of factors that is nearest to its code.

    `min |a - u W|` over `u >= 0`, `a` the layer's code at a place.
    Source: Fel et al. (CVPR 2023), section 3.4.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        factors: of `craft`, for this network.

    Returns:
        float32 `(N, h, w, R)`, not negative, in units of the layer.

    Raises:
        ValueError: bad images; not what `craft` returns, or factors of a layer with other channels.
    """
    if not isinstance(factors, Factors):
        raise ValueError(f"factors is what craft returns, not {type(factors).__name__}")
    found = codes(model, images, factors.layer, places=True)
    if found.shape[-1] != factors.vectors.shape[1]:
        raise ValueError(
            f"the factors have {factors.vectors.shape[1]} channels, but layer {factors.layer!r} of"
            f" {model.name} has {found.shape[-1]}: they are another network's"
        )
    return factor_amounts(found, factors.vectors)


def factor_amounts(found, vectors) -> np.ndarray:
    """How much of each factor is in codes: the sum of factors that is nearest to each code.

    `min |a - u W|` over `u >= 0`, `a` a code. `factor_maps` does the same from pictures; this is
    for codes that are there already.
    Source: Fel et al. (CVPR 2023), section 3.4.

    Args:
        found: codes `(..., K)`, with places or without.
        vectors: factors `(R, K)`, of `craft` at the layer of the codes.

    Returns:
        float32 `(..., R)`, not negative, in units of the layer.

    Raises:
        ValueError: codes with other channels than the factors.
    """
    if found.shape[-1] != vectors.shape[1]:
        raise ValueError(
            f"the factors have {vectors.shape[1]} channels, but the codes {found.shape[-1]}: they"
            " are another layer's"
        )
    basis, triangle = np.linalg.qr(vectors.T.astype(np.float64))  # the same distances, few numbers
    turned = found.reshape(-1, found.shape[-1]) @ basis
    amounts = np.array([nnls(triangle, code)[0] for code in turned], np.float32)
    return amounts.reshape(*found.shape[:-1], len(vectors))


def _corners(shape, crop: int, grid: int) -> np.ndarray:
    """Top rows and left columns of the crops, `(crops, 2)`, none of them twice."""
    height, width = shape[1:3]
    if not 1 <= crop <= min(height, width) or grid < 1:
        raise ValueError(
            f"crop must be 1 to {min(height, width)} pixels and grid at least 1, got {crop} and"
            f" {grid}"
        )
    starts = (
        np.unique(np.linspace(0, extent - crop, grid).round().astype(int))
        if grid > 1
        else np.array([(extent - crop) // 2])
        for extent in (height, width)
    )
    return np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 2)


def _cut(image: np.ndarray, corners, crop: int) -> np.ndarray:
    """Crops of one picture, brought to its size."""
    cut = np.stack([image[row : row + crop, left : left + crop] for row, left in corners])
    return tf.image.resize(cut, image.shape[:2]).numpy()


def _check_factorable(model, of_crops, layer, factors, best):
    crops, channels = of_crops.shape
    if (low := of_crops.min()) < 0:
        raise ValueError(
            f"layer {layer!r} of {model.name} has negative values, down to {low:.3g}, which cannot"
            " be factorised without negative numbers: choose one behind a ReLU"
        )
    if not of_crops.any():
        raise ValueError(f"layer {layer!r} of {model.name} is zero for all {crops} crops")
    if not 1 <= factors <= min(crops, channels) or not 1 <= best <= crops:
        raise ValueError(
            f"{crops} crops of {channels} channels have 1 to {min(crops, channels)} factors and 1"
            f" to {crops} best crops, not {factors} and {best}"
        )


def _factorised(of_crops: np.ndarray, factors: int, seed: int):
    """Amounts `(crops, R)`, factors `(R, K)` and the share of the squares that they make up."""
    found = NMF(factors, init="nndsvda", random_state=seed, max_iter=ROUNDS, tol=TOLERANCE)
    found.fit(of_crops.astype(np.float64))
    lengths = np.linalg.norm(found.components_, axis=1, keepdims=True)
    vectors = (found.components_ / np.where(lengths, lengths, 1)).astype(np.float32)
    amounts = factor_amounts(of_crops, vectors)
    left = np.square(of_crops - amounts @ vectors).sum() / np.square(of_crops).sum()
    return amounts, vectors, float(1 - left)


def _importance(model, batch, indices, function, layer, vectors, samples, seed):
    """Total indices and their errors, `(N, R)` each."""
    points = sobol_design(len(vectors), samples, seed)
    shares = points.reshape(-1, len(vectors)).astype(np.float32)
    run = compiled(model, _scaled_scores, layer=layer, function=function)
    amounts = factor_amounts(codes(model, batch, layer, places=True), vectors)
    found = []
    for n, of_picture in enumerate(amounts):
        one = batch[n : n + 1], indices[n : n + 1]
        parts = in_parts(shares, PICTURES_AT_ONCE)
        scores = [run(*one, of_picture[None], part, vectors).numpy() for part in parts]
        found.append(np.concatenate(scores).reshape(points.shape[:2]))
    return total_indices(np.array(found), return_error=True)


def _scaled_scores(model, image, index, amounts, shares, vectors, layer, function):
    """Scores `(F,)` of one picture whose factors are there by these shares `(F, R)`."""
    maps = tf.linalg.matmul(amounts * shares[:, None, None], vectors)
    count = tf.shape(shares)[0]
    copies = tf.repeat(image, count, axis=0)
    outputs = outputs_from(model, copies, layer, maps)
    return score(outputs, tf.repeat(index, count, axis=0), function)
