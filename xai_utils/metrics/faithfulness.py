"""Faithfulness: does a map say which pixels the score hangs on? Measured by changing the picture.

Every function takes maps of one technique `(N, h, w)` or of several `(M, N, h, w)`, raw, and
enlarges them, bilinear, to the pictures. Pictures that several techniques need are run once. Scores
are probabilities, as in the papers, or what the target returns; `probability=False` gives logits.
Imputation instead of a fill is in `road`, sums in `infidelity`.
"""

from typing import NamedTuple

import numpy as np

from xai_utils.engine import check_images, compiled, in_parts, keras, tf
from xai_utils.models import fixed_target, scores, task_of
from xai_utils.pictures import covers_for, masked, resize_map

PICTURES_AT_ONCE = 64  # changed pictures in one forward pass


class NoScoreError(ValueError):
    """A network answers a picture, or a changed copy of it, with NaN or infinity."""


class Curves(NamedTuple):
    """Scores while a picture is covered or uncovered.

    Attributes:
        shares: of the pixels that have changed, `(S,)`, from 0 to 1.
        scores: `(..., S)`.
    """

    shares: np.ndarray
    scores: np.ndarray

    @property
    def area(self) -> np.ndarray:
        """Area under each curve, by the trapezoid rule: the mean score along the way."""
        return np.trapezoid(self.scores, self.shares, axis=-1)


def deletion(
    model: keras.Model,
    images,
    maps,
    target=None,
    step: float = 0.05,
    fill="black",
    probability: bool = True,
) -> Curves:
    """Scores while pixels are covered, those where the map is highest first. A low area is good.

    Source: Petsiuk, Das & Saenko, "RISE" (BMVC 2018), section 4.2, algorithm 1.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch `(N, H, W, C)`, any number type, in the model's pixel range.
        maps: of one technique `(N, h, w)` or of M of them `(M, N, h, w)`, raw; they are enlarged to
            the pictures, ties are taken in reading order.
        target: None (top class of the whole picture), a class index or name, N of them, or a
            callable `outputs -> (N,)`, whose scores are taken as they are.
        step: pixels changed at a time if a whole number, their share of the picture if below 1.
        fill: what covered pixels show: a pixel value, a colour, pictures, or a word: `black`,
            `white`, `mean`, `blur` or `random`, see `pictures.filling`.
        probability: of the target's class, instead of its logit.

    Returns:
        `Curves`, scores `(N, S)` or `(M, N, S)`: probabilities, logits or what the target returns.

    Raises:
        ValueError: bad images, target or fill; maps or scores that are not finite; not one map for
            each image; a bad step.
    """
    return _curves(model, images, maps, target, [(0, fill)], step, probability)[0]


def insertion(
    model: keras.Model,
    images,
    maps,
    target=None,
    step: float = 0.05,
    fill="blur",
    probability: bool = True,
) -> Curves:
    """Scores while pixels are put on `fill`, those where the map is highest first.

    A high area is good.

    Source: Petsiuk, Das & Saenko, "RISE" (BMVC 2018), section 4.2, algorithm 1.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch `(N, H, W, C)`, any number type, in the model's pixel range.
        maps: of one technique `(N, h, w)` or of M of them `(M, N, h, w)`, raw; they are enlarged to
            the pictures, ties are taken in reading order.
        target: None (top class of the whole picture), a class index or name, N of them, or a
            callable `outputs -> (N,)`, whose scores are taken as they are.
        step: pixels changed at a time if a whole number, their share of the picture if below 1.
        fill: what is there before: a pixel value, a colour, pictures, or a word: `black`, `white`,
            `mean`, `blur` or `random`, see `pictures.filling`.
        probability: of the target's class, instead of its logit.

    Returns:
        `Curves`, scores `(N, S)` or `(M, N, S)`: probabilities, logits or what the target returns.

    Raises:
        ValueError: bad images, target or fill; maps or scores that are not finite; not one map for
            each image; a bad step.
    """
    return _curves(model, images, maps, target, [(1, fill)], step, probability)[0]


def deletion_and_insertion(
    model: keras.Model,
    images,
    maps,
    target=None,
    step=0.05,
    fills=("black", "blur"),
    probability=True,
    whole=None,
) -> tuple[Curves, Curves]:
    """The curves of `deletion` and of `insertion`, in shared batches.

    Source: Petsiuk, Das & Saenko, "RISE" (BMVC 2018), section 4.2, algorithm 1.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch `(N, H, W, C)`, any number type, in the model's pixel range.
        maps: of one technique `(N, h, w)` or of M of them `(M, N, h, w)`, raw; they are enlarged to
            the pictures, ties are taken in reading order.
        target: None (top class of the whole picture), a class index or name, N of them, or a
            callable `outputs -> (N,)`, whose scores are taken as they are.
        step: pixels changed at a time if a whole number, their share of the picture if below 1.
        fills: what covered pixels show for `deletion`, and what is there before for `insertion`;
            each a pixel value, a colour, pictures, or a word: `black`, `white`, `mean`, `blur`
            or `random`, see `pictures.filling`.
        probability: of the target's class, instead of its logit.
        whole: scores of the whole pictures `(N,)`, if they are known.

    Returns:
        `Curves` of `deletion` and of `insertion`, scores `(N, S)` or `(M, N, S)`.

    Raises:
        ValueError: bad images, target or fill; maps or scores that are not finite; not one map for
            each image; a bad step.
    """
    return _curves(
        model, images, maps, target, [(0, fills[0]), (1, fills[1])], step, probability, whole
    )


class Drop(NamedTuple):
    """What is left of a score when only what the map shows is kept, `(N,)` or `(M, N)` each.

    Attributes:
        drop: share of the score that is lost, 0..1; its mean is the average drop. Low is good.
        increase: 1 where the score rose instead, else 0; its mean is the increase in confidence.
            High is good.
    """

    drop: np.ndarray
    increase: np.ndarray


def average_drop(model: keras.Model, images, maps, target=None, whole=None) -> Drop:
    """The drop in probability when the picture is multiplied by its map, black being 0.

    The map's positive part is scaled to a maximum of one; a map without any leaves a black picture.
    Where black is itself an answer of the network, the drop says more about black than about maps.
    Source: Chattopadhay et al., "Grad-CAM++" (WACV 2018), section 4.1.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch `(N, H, W, C)`, any number type, in the model's pixel range.
        maps: of one technique `(N, h, w)` or of M of them `(M, N, h, w)`, raw; they are enlarged to
            the pictures, ties are taken in reading order.
        target: None (top class of the whole picture), a class index or name, N of them, or a
            callable `outputs -> (N,)`, whose scores are taken as they are; these should be
            positive.
        whole: probabilities of the whole pictures `(N,)`, if they are known.

    Returns:
        `Drop`, `(N,)` or `(M, N)` each.

    Raises:
        ValueError: bad images or target; maps or scores that are not finite; not one map for each
            image; a regression, whose values are no shares of anything.
    """
    batch, maps, indices, function, lead = checked(model, images, maps, target)
    if task_of(model) == "regression":
        raise ValueError(
            f"{model.name} is a regression: the average drop is a share of a probability, and its"
            " values are none; deletion and insertion follow the value itself"
        )
    positive = np.maximum(maps, 0)
    masks = tf.constant(
        positive / np.maximum(positive.max(axis=(1, 2), keepdims=True), 1e-30), batch.dtype
    )
    owners, black = np.arange(len(maps)) % len(batch), covers_for(model, batch, "black")
    whole = whole_scores(model, batch, indices, function) if whole is None else whole
    run = compiled(model, masked_scores, function=function, probability=True)
    shown = in_batches(
        model,
        run,
        len(maps),
        lambda part: (
            tf.gather(batch, owners[part]),
            tf.gather(indices, owners[part]),
            tf.gather(masks, part),
            tf.gather(black, owners[part]),
        ),
    )
    lost = 1 - shown.reshape(-1, len(batch)) / np.maximum(whole, 1e-12)
    return Drop(np.maximum(lost, 0).reshape(lead), (lost < 0).astype(float).reshape(lead))


def ranks(maps) -> np.ndarray:
    """The place of each pixel in its map's order: 0 is the highest value.

    Equal values are taken in reading order.

    Args:
        maps: `(N, H, W)`, any number type, or bool.

    Returns:
        int32 `(N, H, W)`, from 0 to H W - 1 in each map.

    Example:
        >>> ranks([[[0.1, 0.9], [0.9, 0.0]]]).tolist()
        [[[2, 0], [1, 3]]]
    """
    maps = np.asarray(maps)
    # Floats of enough digits: minus an unsigned number is a large one.
    flat = maps.astype(np.result_type(maps, np.float32)).reshape(len(maps), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    places = np.empty(order.shape, np.int32)
    np.put_along_axis(places, order, np.arange(order.shape[1], dtype=np.int32)[None], axis=1)
    return places.reshape(maps.shape)


def picture_sized(maps, shape) -> np.ndarray:
    """Maps enlarged, bilinear, to the size of a batch of pictures.

    Args:
        maps: `(N, h, w)` or `(M, N, h, w)`, any number type.
        shape: of the batch, `(N, H, W, C)`.

    Returns:
        float32 `(N, H, W)` or `(M, N, H, W)`.

    Raises:
        ValueError: maps that are not finite, or not one for each image.
    """
    maps = np.asarray(maps, np.float32)
    if maps.ndim not in (3, 4) or maps.shape[-3] != shape[0]:
        raise ValueError(
            f"maps has shape {maps.shape}: {shape[0]} images take ({shape[0]}, h, w), or M such"
        )
    if not np.isfinite(maps).all():
        raise ValueError(
            f"maps holds {np.count_nonzero(~np.isfinite(maps))} values that are NaN or infinite"
        )
    return resize_map(maps, tuple(shape[1:3]))


def checked(model, images, maps, target) -> tuple:
    """What every metric here begins with.

    The batch; its maps in one row `(M N, H, W)`; class indices and function of the target; the
    shape of the answer.
    """
    batch = check_images(model, images)
    maps = picture_sized(maps, batch.shape)
    return (
        batch,
        maps.reshape(-1, *maps.shape[-2:]),
        *fixed_target(model, batch, target),
        maps.shape[:-2],
    )


def in_batches(model, run, count: int, arguments, at_once=PICTURES_AT_ONCE) -> np.ndarray:
    """Scores `(count,)`, some dozens at a time, all of them finite.

    `arguments` makes the tensors of a part from its numbers.
    """
    parts = in_parts(np.arange(count), at_once)
    found = np.concatenate([run(*arguments(part)).numpy() for part in parts])
    if not np.isfinite(found).all():
        raise NoScoreError(
            f"{model.name} answers a whole, partly covered or black picture with NaN or infinity:"
            " see what it does to its pixels, such as dividing by their spread"
        )
    return found


def whole_scores(model, images, indices, function, probability: bool = True) -> np.ndarray:
    """Scores `(F,)` of any number of pictures as they are."""
    run = compiled(model, scores, function=function, probability=probability)
    return in_batches(
        model, run, len(images), lambda part: (tf.gather(images, part), tf.gather(indices, part))
    )


def masked_scores(model, images, indices, masks, covers, function, probability):
    """Scores of pictures under masks `(F, H, W)`; for `compiled`.

    1 shows the picture, 0 its cover.
    """
    return scores(model, masked(images, masks, covers), indices, function, probability)


def _curves(model, images, maps, target, kinds, step, probability, whole=None) -> list[Curves]:
    """One `Curves` for each kind: (whether what is covered is what ranks low, the fill)."""
    batch, maps, indices, function, lead = checked(model, images, maps, target)
    counts, count = _counts(maps[0].size, step), len(batch)
    covers = tf.concat([covers_for(model, batch, fill) for _, fill in kinds], axis=0)
    ends = covers if whole is not None else tf.concat([covers, batch], axis=0)
    at_ends = whole_scores(
        model, ends, tf.concat([indices] * (len(ends) // count), axis=0), function, probability
    ).reshape(-1, count)
    nothing, whole = at_ends[: len(kinds)], at_ends[-1] if whole is None else whole
    run = compiled(model, _partly_covered, function=function, probability=probability)
    ordered, inner = tf.constant(ranks(maps)), len(counts) - 2
    changed = tf.constant(counts[1:-1], tf.int32)

    def arguments(part):
        row, at = np.divmod(part, inner)  # of all kinds and maps
        kind, row = np.divmod(row, len(maps))
        late = tf.gather(tf.constant([late for late, _ in kinds], tf.int32), kind)
        owner = row % count
        return (
            tf.gather(batch, owner),
            tf.gather(covers, kind * count + owner),
            tf.gather(indices, owner),
            tf.gather(ordered, row),
            tf.gather(changed, at),
            late,
        )

    between = (
        in_batches(model, run, len(kinds) * len(maps) * inner, arguments)
        if inner
        else np.zeros(0, np.float32)
    )
    between = between.reshape(len(kinds), len(maps) // count, count, inner)
    result = []
    for (late, _), bare, middle in zip(kinds, nothing, between):
        start, end = (bare, whole) if late else (whole, bare)
        sides = [np.broadcast_to(side[:, None], (*middle.shape[:2], 1)) for side in (start, end)]
        line = np.concatenate([sides[0], middle, sides[1]], axis=-1)
        result.append(Curves(counts / counts[-1], line.reshape(*lead, len(counts))))
    return result


def _partly_covered(model, images, covers, indices, ordered, changed, late, function, probability):
    """The `changed` highest pixels of each picture covered; or, where `late`, all but those."""
    shown = (ordered >= changed[:, None, None]) != (late[:, None, None] > 0)
    return masked_scores(
        model, images, indices, tf.cast(shown, images.dtype), covers, function, probability
    )


def _counts(pixels: int, step) -> np.ndarray:
    """Numbers of changed pixels, from none to all."""
    if not (0 < step < 1 or (step >= 1 and step == int(step))):
        raise ValueError(f"step must be a share below 1 or a whole number of pixels, not {step}")
    at_a_time = max(1, step * pixels if step < 1 else step)
    return np.unique(np.round(np.append(np.arange(0, pixels, at_a_time), pixels)).astype(int))
