"""Keep a part of a picture, cover it square by square, paste it elsewhere; and controls.

Maps here have the size of their pictures (`pictures.resize_map` enlarges them), and every changed
picture goes through the network in a batch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter

from xai_utils.engine import check_images, in_parts, keras
from xai_utils.metrics.faithfulness import ranks
from xai_utils.models import imagenet_labels, is_dense, logits_of, still_says, task_of
from xai_utils.pictures import PICTURES, covers_for, filling

PICTURES_AT_ONCE = 16  # in one call of a technique


def explain(method: Callable, model: keras.Model, images, target=None) -> np.ndarray:
    """Raw maps of any number of pictures by a technique, a few at a time.

    Args:
        method: a technique, `(model, images, target) -> maps`.
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: `(N, H, W, C)` in the model's pixel range.
        target: one for all: None (each picture's top class), a class index or name, or a callable
            `outputs -> (N,)`.

    Returns:
        float32 `(N, h, w)`.
    """
    return np.concatenate(
        [method(model, part, target) for part in in_parts(images, PICTURES_AT_ONCE)]
    )


def accepted(classifier, image: np.ndarray, name: str, also=()) -> tuple[int, ...]:
    """Classes that count as one answer about a prepared picture, the top class first.

    A named picture may be several things (a cat may be a tabby or a tiger cat); any of them is as
    good as the top class, if that is one of them and the network knows ImageNet's classes. Of any
    other picture nothing is known, and from an Egyptian cat to a tabby is a change unless `also`
    names the tabby. Of a regression it is the largest value.

    Args:
        classifier: a `models.Classifier`.
        image: one prepared picture `(H, W, C)` in 0..255.
        name: of the picture, such as `cat`, or its path.
        also: further classes that count as the same answer, by index, name or WordNet id.

    Returns:
        Class indices, one at least.

    Raises:
        ValueError: there is no such class in `also`.
    """
    top = int(classifier.predict(image[None])[0].argmax())
    same, truth = [classifier.class_index(each) for each in also], _truth(classifier, name)
    return tuple(dict.fromkeys([top, *(truth if top in truth else ()), *same]))


def answer(classifier, image: np.ndarray, name: str) -> str:
    """What a network says about a prepared picture, and whether it is right, if that is known.

    A classification names its top class, a multilabel network all whose probability is above one
    half, a regression its values, a segmentation what it finds and on how much of the picture.

    Args:
        classifier: a `models.Classifier`.
        image: one prepared picture `(H, W, C)` in 0..255.
        name: of the picture, or its path, of which the last part is shown.

    Returns:
        A sentence without its full stop.
    """
    network, picture = Path(classifier.name).name, Path(name).name
    values, truth = classifier.predict(image[None])[0], _truth(classifier, name)
    told = [f"{label!r} ({classifier.written(v)})" for label, v in zip(classifier.labels, values)]
    top, unknown = int(values.argmax()), "; whether that is right is not known here"
    if classifier.task == "regression":
        pairs = zip(classifier.labels, values)
        amounts = ", ".join(f"{label} {classifier.written(value)}" for label, value in pairs)
        return f"{network} says {amounts} for {picture}{unknown}"
    if classifier.task == "segmentation":
        shares = " and ".join(told[i] for i in np.argsort(-values) if values[i] > 0)
        return f"{network} finds {shares} of {picture}{unknown}"
    if classifier.task == "multilabel":
        found = " and ".join(told[i] for i in np.flatnonzero(values > 0.5))
        found = found or f"nothing above 50 %, most of all {told[top]},"
        return f"{network} finds {found} in {picture}{unknown}"
    text = f"{network} calls {picture} {told[top]}"
    if not truth:
        return text + unknown
    if top in truth:
        return text + ", which is right"
    right = " or ".join(classifier.labels[i] for i in truth)
    return text + f", which is wrong: it shows {right}. What follows is about the wrong answer"


def no_label(classifier, image: np.ndarray) -> str:
    """Why a prepared picture has no label that could fall.

    A regression has values in place of labels, and a multilabel network may find nothing.

    Args:
        classifier: a `models.Classifier`.
        image: one prepared picture `(H, W, C)` in 0..255.

    Returns:
        One line; empty if there is a label.
    """
    return _no_label(classifier.model, image, Path(classifier.name).name)


def _no_label(model, image, name: str) -> str:
    if is_dense(model):
        return f"{name} answers at every pixel: it has no one label that could fall"
    if task_of(model) == "regression":
        return f"{name} is a regression: its values have no label that could fall"
    scores = logits_of(model, image[None])
    if still_says(model, scores, scores[0].argmax())[0]:
        return ""
    return f"{name} gives no class of the picture more than 50 %: there is no label that could fall"


def _truth(classifier, name: str) -> tuple[int, ...]:
    """The classes of a named picture, if the network's classes are those of ImageNet."""
    known = name in PICTURES and classifier.labels == imagenet_labels()
    return PICTURES[name].classes if known else ()


def top_share(maps, share: float) -> np.ndarray:
    """The share of pixels where maps are largest, exactly that many, ties in reading order.

    Args:
        maps: `(N, H, W)`, any number type.
        share: above 0 and below 1; at least one pixel is taken.

    Returns:
        bool `(N, H, W)`, True where a map is among its largest.

    Raises:
        ValueError: another share.

    Example:
        >>> top_share([[[0.1, 0.9], [0.4, 0.0]]], 0.5).tolist()
        [[[False, True], [True, False]]]
    """
    if not 0 < share < 1:
        raise ValueError(
            f"share must lie between 0 (nothing) and 1 (everything), both excluded; got {share}"
        )
    places = ranks(maps)
    return places < max(1, round(share * places[0].size))


def keep(images, masks, fill="black") -> np.ndarray:
    """Pictures that show only what their masks keep.

    Args:
        images: `(N, H, W, C)`, or one picture `(1, H, W, C)` for all masks.
        masks: bool `(N, H, W)`, True where the picture stays.
        fill: what is shown elsewhere: a pixel value, a colour, pictures, or a word: `black`,
            `white`, `mean`, `blur` or `random`, see `pictures.filling`. Black is 0 and white is
            255: for a network of another range give its value.

    Returns:
        float32 `(N, H, W, C)`, in the pictures' range.

    Raises:
        ValueError: a mask that keeps nothing or everything, so that nothing is tested.
    """
    masks = np.asarray(masks, bool)
    for what, bad in (("nothing", ~masks.any(axis=(1, 2))), ("everything", masks.all(axis=(1, 2)))):
        if bad.any():
            raise ValueError(
                f"mask {int(np.argmax(bad))} keeps {what} of the picture: there is nothing to"
                " compare"
            )
    return np.where(masks[..., None], images, filling(images, fill)).astype(np.float32)


def moved_at_random(masks, count: int, seed: int = 0) -> np.ndarray:
    """Controls: each mask at random places; what leaves on one side comes back on the other.

    Args:
        masks: `(N, H, W)`, any type.
        count: places for each mask.
        seed: of the places; default 0.

    Returns:
        `(count, N, H, W)`, of the masks' type.
    """
    masks, rng = np.asarray(masks), np.random.default_rng(seed)
    return np.stack(
        [np.roll(masks, rng.integers(0, masks.shape[1:]), axis=(1, 2)) for _ in range(count)]
    )


def brightest_rectangles(values, side: int, count: int, stride: int = 1) -> np.ndarray:
    """Places of rectangles, each where most of the map is left that those before it do not cover.

    Args:
        values: one map `(H, W)`; only what is above its lowest value counts.
        side: of the square rectangles, in pixels.
        count: how many.
        stride: corners lie on multiples of it; `side` gives the cells of a grid.

    Returns:
        int `(count, 2)`, row and column of each upper left corner; fewer where nothing of the map
        is left.

    Raises:
        ValueError: a side that does not fit, or no rectangle at all.
    """
    left = np.array(values, np.float64)
    if not 1 <= side <= min(left.shape) or count < 1:
        raise ValueError(
            f"rectangles: side must be 1 to {min(left.shape)} and count at least 1; got {side},"
            f" {count}"
        )
    left -= left.min()
    nothing = 1e-9 * left.max()  # the running sums of the filter leave some rounding
    corners = []
    for _ in range(count):
        # The mean over a window whose upper left corner is the pixel, for windows inside the
        # picture.
        means = uniform_filter(left, side, mode="constant", origin=-(side // 2))
        means = means[: left.shape[0] - side + 1 : stride, : left.shape[1] - side + 1 : stride]
        row, column = np.unravel_index(means.argmax(), means.shape)
        if means[row, column] <= nothing:
            break
        corners.append((row * stride, column * stride))
        left[row * stride :, column * stride :][:side, :side] = 0
    return np.array(corners, int).reshape(-1, 2)


def cover_in_turn(
    image, corners, side: int, fill="black", which=slice(None)
) -> tuple[np.ndarray, np.ndarray]:
    """One picture with its first, first two, ... squares covered.

    Args:
        image: `(H, W, C)`, any number type.
        corners: int `(count, 2)`, row and column of each square's upper left corner.
        side: of the squares, in pixels.
        fill: what squares show: a pixel value, a colour, pictures, or a word: `black`, `white`,
            `mean`, `blur` or `random`, see `pictures.filling`.
        which: a slice of these pictures that are made; default all.

    Returns:
        float32 `(count, H, W, C)`, and what is covered, bool `(count, H, W)`.
    """
    counts = np.arange(1, len(corners) + 1)[which]
    covered = np.zeros((len(counts), *image.shape[:2]), bool)
    for i, (row, column) in enumerate(corners):
        covered[counts > i, row : row + side, column : column + side] = True
    image = np.asarray(image, np.float32)
    return (
        np.where(covered[..., None], filling(image[None], fill).astype(np.float32), image),
        covered,
    )


class Flip(NamedTuple):
    """How a label fell.

    Attributes:
        count: rectangles until the answer no longer stood; None if none of them did it.
        area: share of the picture they cover, in 0..1; of all of them if the answer always stood.
        label: index of the class on top then; of a multilabel network it may be the one that fell,
            if no other is likelier.
        corners: the rectangles, int `(count, 2)`.
    """

    count: int | None
    area: float
    label: int
    corners: np.ndarray


def cover_until_flip(
    model: keras.Model,
    image,
    maps,
    side: int = 24,
    most: int = 40,
    fill="black",
    stride: int = 1,
    same=(),
    at_once=8,
) -> list[Flip]:
    """Cover a picture where a map is brightest, square by square, until its label falls.

    A classification's label falls when another class is on top, a multilabel network's when its
    probability is no longer above one half (`models.still_says`).

    Args:
        model: Keras model, images `(N, H, W, C)` to scores `(N, classes)`.
        image: one picture `(H, W, C)` in the model's pixel range.
        maps: `(M, H, W)`; each says for itself where to cover, so twenty random maps are twenty
            controls.
        side: of the squares, in pixels.
        most: squares to try at most.
        fill: what squares show: a pixel value, a colour, pictures, or a word: `black`, `white`,
            `mean`, `blur` or `random`, see `pictures.filling`.
        stride: corners lie on multiples of it; `side` gives the cells of a grid.
        same: indices of classes that do not count as a change; the top class never does. A
            multilabel network is asked for its top class alone.
        at_once: squares tried before it is asked whether a label has changed: more of them make
            larger batches.

    Returns:
        One `Flip` for each map.

    Raises:
        ValueError: bad images or fill; a side that does not fit, or no square at all; a regression,
            or a multilabel network that finds nothing: no label could fall.
    """
    batch = check_images(model, image[None])
    if why := _no_label(model, image, model.name):
        raise ValueError(why)
    before = int(logits_of(model, image[None])[0].argmax())
    same = [before, *same]
    fill = covers_for(model, batch, fill).numpy()
    orders = [brightest_rectangles(values, side, most, stride) for values in maps]
    flips: list[Flip | None] = [None] * len(orders)
    for start in range(0, most, at_once):
        open_ = [i for i, flip in enumerate(flips) if flip is None]
        now = slice(start, start + at_once)
        parts = {i: cover_in_turn(image, orders[i], side, fill, now) for i in open_}
        parts = {i: part for i, part in parts.items() if len(part[0])}
        if not parts:
            break
        scores = logits_of(model, np.concatenate([pictures for pictures, _ in parts.values()]))
        for i, (pictures, covered) in parts.items():
            mine, scores = scores[: len(pictures)], scores[len(pictures) :]
            fallen = ~still_says(model, mine, same)
            if fallen.any():
                last = int(np.argmax(fallen))
                count = start + last + 1
                label = int(mine[last].argmax())
                flips[i] = Flip(count, float(covered[last].mean()), label, orders[i][:count])
    return [flip or _never(image, order, side, before) for flip, order in zip(flips, orders)]


def _never(image, corners, side, label) -> Flip:
    covered = (
        cover_in_turn(image, corners, side, which=slice(-1, None))[1].mean()
        if len(corners)
        else 0.0
    )
    return Flip(None, float(covered), label, corners)


def paste(
    background, cutout, mask, centre: tuple[float, float], scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Put a cut-out object into a picture.

    Args:
        background: one picture `(H, W, C)`.
        cutout, mask: the picture the object is cut from, `(H, W, C)`, and where it is, bool
            `(H, W)`.
        centre: (x, y) where the middle of the object goes, as fractions of the picture.
        scale: size relative to the size it had.

    Returns:
        float32 `(H, W, C)`, and the object's mask there, bool `(H, W)`; it may hang over the
        border.

    Raises:
        ValueError: a mask that covers nothing or everything.
    """
    if not mask.any() or mask.all():
        raise ValueError(
            f"the mask covers {'everything' if mask.all() else 'nothing'}: there is no object to"
            " cut out"
        )
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    middle = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    # Where each pixel of the new picture comes from.
    row = (np.arange(height) - centre[1] * height) / scale + middle[0]
    column = (np.arange(width) - centre[0] * width) / scale + middle[1]
    places = np.stack(np.meshgrid(row, column, indexing="ij"))
    cover = map_coordinates(mask.astype(np.float32), places, order=1, mode="constant")[..., None]
    colour = np.stack(
        [map_coordinates(c, places, order=1, mode="nearest") for c in np.moveaxis(cutout, -1, 0)],
        -1,
    )
    return (cover * colour + (1 - cover) * background).astype(np.float32), cover[..., 0] > 0.5
