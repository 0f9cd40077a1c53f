"""The smallest change that turns an answer into a given other one."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from xai_utils import synthesis
from xai_utils.concepts.codes import codes
from xai_utils.engine import (
    check_images,
    compiled,
    in_parts,
    keras,
    no_gradient,
    pixel_range,
    tf,
    widened,
)
from xai_utils.models import (
    check_layer,
    fixed_target,
    is_dense,
    outputs_from,
    outputs_of,
    score,
    task_of,
)

MAPS_AT_ONCE = 64
GREY_LEVELS = 10.0  # unit of the distance that `counterfactual` weighs


class Exchange(NamedTuple):
    """What `exchange` found for one pair of pictures.

    Attributes:
        places: int `(S, 2)`, row and column of the places of the layer that were exchanged, in
            their order.
        taken: int `(S, 2)`, the place of the other picture that each came from.
        margins: float64 `(S + 1,)`: how far the wanted class is ahead, in logits, before the first
            exchange and after each; above 0 the answer is that class.
        changed: whether the answer became that class.
        layer: where places were exchanged.
        extent: rows and columns of its map.
    """

    places: np.ndarray
    taken: np.ndarray
    margins: np.ndarray
    changed: bool
    layer: str
    extent: tuple[int, int]


class Counterfactual(NamedTuple):
    """What `counterfactual` found.

    Attributes:
        images: `(N, H, W, C)`, the changed pictures, in the model's pixel range.
        margins: float64 `(N,)`: how far the wanted class is ahead in them, in logits.
        changed: bool `(N,)`: whether the answer is that class.
        distances: float64 `(N,)`, root mean square difference from the pictures given, in grey
            levels, of which a pixel range has 255.
        found: the `synthesis.Synthesis` they come from, with losses and frames.
    """

    images: np.ndarray
    margins: np.ndarray
    changed: np.ndarray
    distances: np.ndarray
    found: synthesis.Synthesis


def exchange(
    model: keras.Model,
    images,
    others,
    target=None,
    layer: str | None = None,
    most: int | None = None,
    tried: int | None = 32,
) -> list[Exchange]:
    """Exchange places of a layer's map with places of another picture's until the answer changes.

    Greedily: of all pairs of a place here and a place there that were not used, the one after
    whose exchange the wanted class is furthest ahead, until it is the answer, or no exchange brings
    it further ahead. What is above the layer answers.
    Source: Goyal et al., "Counterfactual visual explanations" (ICML 2019); there with
    all pairs tried and the class's log-probability for the margin.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        others: as many pictures of another class, of the same shape.
        target: the class that the answer should become: None (the top class of each of `others`), a
            class index or name, N of them, or a callable `outputs -> (N,)` that is above 0 when the
            answer is as wanted.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`, or tokens that are
            a grid of places; default the one whose map is pooled or flattened before the head.
        most: the most exchanges; default as many as there are places.
        tried: so many pairs are tried at each step, those that the gradient of the margin expects
            most of; None tries all. Under a network that only pools and weighs the layer, the two
            are nearly the same.

    Returns:
        An `Exchange` for each pair.

    Raises:
        ValueError: bad images or target, another number or shape of others, a layer without space,
            `most` or `tried` below 1, a network whose answer is no class, without a callable.
    """
    batch, beside = check_images(model, images), check_images(model, others)
    if batch.shape != beside.shape:
        raise ValueError(
            f"images and others are pairs of one shape, not {batch.shape} and {beside.shape}"
        )
    for name, number in (("most", most), ("tried", tried)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1 or None, not {number}")
    indices, function = _asked(model, beside, target)
    layer = check_layer(model, batch.shape, layer)
    here, there = (codes(model, of, layer, places=True) for of in (batch, beside))
    found = []
    for n in range(len(here)):
        ask = _Asked(model, batch[n : n + 1], indices[n : n + 1], layer, function)
        found.append(_exchanged(ask, here[n], there[n], most, tried))
    return found


def counterfactual(
    model: keras.Model,
    images,
    target,
    probability: float = 0.9,
    weight: float = 0.1,
    steps: int = 100,
    parameterisation: str = "fourier",
    rate: float = 0.01,
    tv_weight: float = 0.0,
    every: int = 0,
    progress: Callable | None = None,
) -> Counterfactual:
    """Change pictures as little as it takes for the answer to become another.

    Minimises `log(1 + exp(m - ahead)) + weight |x - x0|^2`, from the picture `x0` itself: `ahead`
    is how far the wanted class is before the others in logits, `m` the same at the probability
    asked for if there were two classes, and the distance a mean square, in units of 10 grey levels.
    Source: Wachter, Mittelstadt & Russell, "Counterfactual explanations without opening the black
    box" (Harvard Journal of Law & Technology 2017), equation 2, with another loss.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: the class that the answer should become: an index or name, N of them, or a callable
            `outputs -> (N,)` that is above 0 when the answer is as wanted.
        probability: of the class against the next, that the search goes for; 0.5 to 1, default 0.9.
        weight: of the distance; default 0.1. With a large one the answer may stay as it was.
        steps: updates of the picture, by Adam.
        parameterisation: `fourier`, where a small step is a smooth change, or `pixels`.
        rate: length of a step, of which 1 is half the pixel range (`pixels`) or the natural size of
            a coefficient (`fourier`); default 0.01.
        tv_weight: weight of the total variation of the whole picture; default 0.
        every: keep a frame every so many steps; 0 keeps only the first and the last.
        progress: called as `progress(step, steps, losses)`.

    Returns:
        A `Counterfactual`.

    Raises:
        ValueError: bad images, no target or a bad one, a setting out of its range, a network whose
            answer is no class, without a callable.
    """
    batch = check_images(model, images)
    if target is None:
        raise ValueError("counterfactual needs a target: the class that the answer should become")
    if not 0.5 <= probability < 1:
        raise ValueError(f"probability is from 0.5 to below 1, not {probability}")
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight must be at least 0 and finite, not {weight}")
    indices, function = _asked(model, batch, target)
    low, high = pixels = pixel_range(model, batch)
    unit = GREY_LEVELS * (high - low) / 255
    wanted = math.log(probability / (1 - probability))
    found = synthesis.optimise(
        model,
        (_change, function, wanted, weight, unit),
        (batch, indices),
        tuple(batch.shape[1:]),
        begin=batch,
        steps=steps,
        parameterisation=parameterisation,
        rate=rate,
        tv_weight=tv_weight,
        every=every,
        pixels=pixels,
        progress=progress,
    )
    run = compiled(model, _ahead_in, function=function)
    margins = run(tf.constant(found.images, batch.dtype), indices).numpy().astype(np.float64)
    apart = (found.images - batch.numpy()).astype(np.float64) * (255 / (high - low))
    distances = np.sqrt((apart**2).mean(axis=(1, 2, 3)))
    return Counterfactual(found.images, margins, margins > 0, distances, found)


class _Asked(NamedTuple):
    """Who answers about maps, in one picture's place, and what is wanted."""

    model: keras.Model
    image: tf.Tensor
    index: tf.Tensor
    layer: str
    function: Callable | None

    def margins(self, maps) -> np.ndarray:
        settings = {"layer": self.layer, "function": self.function}
        run = compiled(self.model, _ahead_behind, **settings)
        parts = in_parts(maps, MAPS_AT_ONCE)
        return np.concatenate([run(self.image, self.index, of).numpy() for of in parts])

    def slope(self, maps) -> np.ndarray:
        settings = {"layer": self.layer, "function": self.function}
        return compiled(self.model, _slope_behind, **settings)(self.image, self.index, maps).numpy()


def _exchanged(ask: _Asked, here: np.ndarray, there: np.ndarray, most, tried) -> Exchange:
    """Exchange places of two maps `(h, w, K)`, one after another."""
    rows, columns, channels = here.shape
    now, source = here.reshape(-1, channels).copy(), there.reshape(-1, channels)
    steps = min(most or len(now), len(now))
    free = np.ones((len(now), len(source)), bool)
    pairs, margins = [], [float(ask.margins(here[None])[0])]
    while margins[-1] <= 0 and len(pairs) < steps:
        slope = ask.slope(now.reshape(1, rows, columns, channels)).reshape(now.shape)
        expected = slope @ source.T - (slope * now).sum(axis=1, keepdims=True)
        expected = np.where(free, expected, -np.inf).ravel()
        likely = np.argsort(-expected, kind="stable")[: min(tried or free.sum(), free.sum())]
        best, ahead = None, -np.inf
        for part in in_parts(likely, MAPS_AT_ONCE):
            to, of = np.divmod(np.asarray(part), len(source))
            maps = np.repeat(now[None], len(to), axis=0)
            maps[np.arange(len(to)), to] = source[of]
            after = ask.margins(maps.reshape(-1, rows, columns, channels))
            if best is None or after.max() > ahead:
                best, ahead = (to[after.argmax()], of[after.argmax()]), float(after.max())
        if ahead <= margins[-1]:
            break
        now[best[0]] = source[best[1]]
        free[best[0]], free[:, best[1]] = False, False
        pairs.append(best)
        margins.append(ahead)
    at = [np.column_stack(np.divmod(np.array(ends, int), columns)) for ends in zip(*pairs)]
    nowhere = np.zeros((0, 2), int)
    places, taken = at or (nowhere, nowhere)
    return Exchange(places, taken, np.array(margins), margins[-1] > 0, ask.layer, (rows, columns))


def _asked(model, images, target) -> tuple[tf.Tensor, Callable | None]:
    """What is wanted, as class indices or a callable; or a ValueError if no answer could change."""
    indices, function = fixed_target(model, images, target)
    if function is None and (is_dense(model) or task_of(model) == "regression"):
        raise ValueError(
            f"{model.name} has no one class that its answer could become: give target= as a"
            " callable that is above 0 when the answer is as wanted"
        )
    return indices, function


def _ahead(model, outputs, indices, function):
    """How far what is wanted is ahead, `(N,)`: above 0 it is the answer, see `still_says`."""
    wanted = score(outputs, indices, function)
    if function is not None or task_of(model) == "multilabel":
        return widened(wanted)
    itself = tf.one_hot(indices, outputs.shape[-1], on_value=True, off_value=False)
    others = tf.where(itself, outputs.dtype.min, outputs)
    return widened(wanted - tf.reduce_max(others, axis=1))


def _ahead_in(model, images, indices, function):
    return _ahead(model, outputs_of(model, images), indices, function)


def _ahead_behind(model, image, index, maps, layer, function):
    count = tf.shape(maps)[0]
    outputs = outputs_from(model, tf.repeat(image, count, axis=0), layer, maps)
    return _ahead(model, outputs, tf.repeat(index, count), function)


def _slope_behind(model, image, index, maps, layer, function):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(maps)
        ahead = _ahead_behind(model, image, index, maps, layer, function)
    slope = tape.gradient(ahead, maps)
    if slope is None:
        raise ValueError(no_gradient(model, f"layer {layer!r}"))
    return slope


def _change(model, images, constants, function, wanted, weight, unit):
    """The loss of `counterfactual`, `(N,)`."""
    first, indices = constants
    missing = tf.nn.softplus(wanted - _ahead_in(model, images, indices, function))
    apart = tf.reduce_mean(((images - first) / unit) ** 2, axis=(1, 2, 3))
    return missing + weight * apart
