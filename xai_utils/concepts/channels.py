"""Which channels of a layer answer to a picture, and what else each of them answers to."""

from typing import NamedTuple

import numpy as np

from xai_utils.attribution import channel_relevance
from xai_utils.concepts.codes import checked_layer, codes
from xai_utils.engine import check_images, keras


class Channels(NamedTuple):
    """The channels of a layer that answer to each of N pictures, the most relevant first.

    Attributes:
        numbers: int `(N, count)`, which channels.
        relevance: float32 `(N, count)`, signed, in logits: each channel's part of the score.
        activation: float32 `(N, count)`, its mean over the places, in units of the layer.
        crops: float32 `(N, count, best, crop, crop, C)`, of the pictures that were searched, around
            the place where the channel is highest; one a picture, highest first.
        places: int `(N, count, best, 3)`, whence they are: picture, top row, left column.
        layer: whose channels they are.
    """

    numbers: np.ndarray
    relevance: np.ndarray
    activation: np.ndarray
    crops: np.ndarray
    places: np.ndarray
    layer: str


def channels(
    model: keras.Model,
    images,
    target=None,
    among=None,
    layer: str | None = None,
    count: int = 4,
    best: int = 4,
    crop: int | None = None,
    composite="epsilon_gamma_box",
) -> Channels:
    """The channels a score rests on most, each with the places that it answers to most elsewhere.

    Relevance is that of `attribution.channel_relevance`, ordered by size, whatever its sign. What a
    channel looks for without any picture is drawn by `synthesis.activation_maximization`.
    Source: Achtibat et al., "From attribution maps to human-understandable explanations through
    concept relevance propagation" (Nature Machine Intelligence 2023); the crops here are those
    of highest activation.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        among: pictures `(M, H, W, C)` that are searched for crops; default the images.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.
        count: how many channels of each picture.
        best: how many crops of each channel, at most one a picture.
        crop: side of a crop in pixels; default two sevenths of the pictures' shorter side.
        composite: rules of the relevance, `epsilon_gamma_box` or another that `attribution.lrp`
            takes.

    Returns:
        `Channels`.

    Raises:
        ValueError: bad images, target or composite, an unknown layer, one without places or that
            the score does not depend on; a crop that is larger than the pictures, or more channels
            or crops than there are.
    """
    batch = check_images(model, images)
    searched = check_images(model, batch if among is None else among).numpy()
    layer = checked_layer(model, batch.shape, layer)
    maps = codes(model, searched, layer, places=True)
    crop = crop or max(round(2 / 7 * min(searched.shape[1:3])), 1)
    _check(maps, searched, count, best, crop)
    relevance = channel_relevance(model, batch, target, layer=layer, composite=composite)
    numbers = np.argsort(-np.abs(relevance), axis=1, kind="stable")[:, :count]
    found = {int(k): highest_crops(maps[..., k], searched, best, crop) for k in np.unique(numbers)}
    return Channels(
        numbers,
        np.take_along_axis(relevance, numbers, axis=1),
        np.take_along_axis(codes(model, batch, layer), numbers, axis=1),
        np.array([[found[k][0] for k in row] for row in numbers.tolist()]),
        np.array([[found[k][1] for k in row] for row in numbers.tolist()]),
        layer,
    )


def _check(maps, searched, count, best, crop):
    most = maps.shape[-1], len(maps), min(searched.shape[1:3])
    for name, value, highest in zip(
        ("count", "best", "crop"), (count, best, crop), most, strict=True
    ):
        if not 1 <= value <= highest:
            raise ValueError(f"{name} must be 1 to {highest}, got {value}")


def highest_crops(
    maps: np.ndarray, images: np.ndarray, best: int, crop: int
) -> tuple[np.ndarray, np.ndarray]:
    """Crops of pictures around the places where a map is highest, one a picture, highest first.

    A crop that would reach over the edge is moved inside.

    Args:
        maps: a number at each place of each picture, `(M, h, w)`, such as a channel or a factor.
        images: the pictures, `(M, H, W, C)`.
        best: how many crops, at most M.
        crop: their side in pixels, at most the pictures' shorter side.

    Returns:
        The crops `(best, crop, crop, C)`, and int `(best, 3)`, whence they are: picture, top row,
        left column.
    """
    flat = maps.reshape(len(maps), -1)
    order = np.argsort(-flat.max(axis=1), kind="stable")[:best]
    places = []
    for n in order:
        at = np.unravel_index(flat[n].argmax(), maps.shape[1:])
        corner = (
            int(np.clip(round((place + 0.5) * extent / cells - crop / 2), 0, extent - crop))
            for place, extent, cells in zip(at, images.shape[1:3], maps.shape[1:], strict=True)
        )
        places.append((int(n), *corner))
    cut = [images[n, row : row + crop, left : left + crop] for n, row, left in places]
    return np.stack(cut), np.array(places)
