"""What layers return: shapes, and which tokens are the places of a picture.

A layer of tokens, `(N, tokens, width)`, is a map `(N, rows, columns, width)` where its tokens are a
grid of places. Which token lies where is measured, so that it does not matter how a network cuts
its picture, nor how many class and register tokens it adds.
"""

import functools
from typing import NamedTuple

import numpy as np

from xai_utils.engine import cached, keras, pixel_range, tf
from xai_utils.models.layers import children, find_layer, replaced_calls, walk

_SEEN = 1e-4  # of the largest change: below it a token does not depend on the picture
_AGREES = 0.7  # correlation of what was measured with what a grid's tokens must show


class Grid(NamedTuple):
    """Which tokens of a layer are the places of a picture: row by row, between others.

    Attributes:
        rows, columns: of the grid.
        before, after: tokens that are no places (class, registers), before and after the grid's.
    """

    rows: int
    columns: int
    before: int = 0
    after: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens there are in all."""
        return self.before + self.rows * self.columns + self.after

    def places(self, of_tokens):
        """What `(tokens, ...)` says of the tokens that are places."""
        return of_tokens[self.before : self.tokens - self.after]

    def as_map(self, tokens):
        """The map `(N, rows, columns, width)` of tokens `(N, tokens, width)`."""
        places = tokens[:, self.before : self.tokens - self.after]
        return tf.reshape(places, (-1, self.rows, self.columns, tokens.shape[-1]))

    def as_tokens(self, maps, tokens):
        """`tokens` with a map put in the place of its grid."""
        places = tf.reshape(maps, (-1, self.rows * self.columns, tokens.shape[-1]))
        end = self.tokens - self.after
        return tf.concat([tokens[:, : self.before], places, tokens[:, end:]], axis=1)


def output_shapes(model: keras.Model, shape: tuple) -> tuple[dict[str, tuple], object]:
    """What every layer of a model returns.

    Most networks are one flat graph that knows its shapes. Others (nested, subclassed, of any size,
    with a layer used twice) are traced once. Networks of tokens compute four pictures, which tell
    the tokens' places.

    Args:
        model: a built Keras model.
        shape: shape of a batch, `(N, H, W, C)`; N does not matter.

    Returns:
        `{path: shape}` for every layer that returns one tensor, in an order in which they run (a
        layer that runs twice counts where it ran last), and the shapes of the model's outputs, in
        their structure. Batch sizes are None. Tokens that are a grid have the shape of their map,
        `(None, rows, columns, width)`.
    """
    return cached(model, ("shapes", *shape[1:]), lambda: _shapes(model, shape))


def traced_shapes(model: keras.Model, shape: tuple) -> tuple[dict[str, tuple], object]:
    """As `output_shapes`, without asking which tokens are a grid: nothing is computed."""
    key = ("traced shapes", *shape[1:])
    return cached(model, key, lambda: _graph_shapes(model, shape) or _trace_shapes(model, shape))


def _shapes(model: keras.Model, shape: tuple) -> tuple[dict[str, tuple], object]:
    shapes, returned = traced_shapes(model, shape)
    if any(len(extent) == 3 and extent[1] != 1 for extent in shapes.values()):
        with tf.init_scope():  # on real pictures, also while a function is traced
            shapes = shapes | _maps_of_tokens(model, shape)
    return shapes, returned


def _graph_shapes(model: keras.Model, shape: tuple) -> tuple[dict[str, tuple], object] | None:
    """`output_shapes` of a flat Functional or Sequential model of one image size, else None."""
    layers = [layer for layer in children(model) if not isinstance(layer, keras.layers.InputLayer)]
    if getattr(model, "input_shape", None) != (None, *shape[1:]) or any(map(children, layers)):
        return None
    try:
        outputs, returned = {layer.name: layer.output for layer in layers}, model.output
    except (AttributeError, ValueError):  # not one output: used twice, or not part of a graph
        return None
    shapes = {
        name: tuple(output.shape)
        for name, output in outputs.items()
        if isinstance(output, keras.KerasTensor)
    }
    return shapes, keras.tree.map_structure(lambda output: tuple(output.shape), returned)


def _trace_shapes(model: keras.Model, shape: tuple) -> tuple[dict[str, tuple], object]:
    shapes: dict[str, tuple] = {}

    def recorder(path, call):
        def recorded(*args, **kwargs):
            output = call(*args, **kwargs)
            if tf.is_tensor(output):
                shapes.pop(path, None)
                shapes[path] = tuple(output.shape)
            return output

        return recorded

    wrappers = {layer: functools.partial(recorder, path) for path, layer in walk(model)}
    spec = tf.TensorSpec((None, *shape[1:]), model.compute_dtype)
    with replaced_calls(wrappers):
        run = tf.function(lambda x: model(x, training=False), autograph=False)
        outputs = run.get_concrete_function(spec).structured_outputs
    return shapes, tf.nest.map_structure(lambda t: tuple(t.shape), outputs)


def layer_shape(model: keras.Model, shape: tuple, layer: str) -> tuple:
    """The shape of what a layer returns for a batch.

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        shape: shape of a batch, `(N, H, W, C)`; N does not matter.
        layer: name or path (`outer/inner`) of a layer or operation.

    Returns:
        `(None, ...)`; empty if it is not one tensor.

    Raises:
        ValueError: no such layer (the nearest names are given), or several of that name (their
            paths are given).
    """
    wanted = find_layer(model, layer)
    shapes = output_shapes(model, shape)[0]
    return next(
        (shapes[path] for path, part in walk(model) if part is wanted and path in shapes), ()
    )


def is_spatial(shape: tuple) -> bool:
    """Whether a shape is a batch of maps with more than one position.

    Args:
        shape: of a tensor, None where any extent fits.

    Returns:
        True for `(N, h, w, channels)` with h w above 1; an open extent counts as 2.

    Example:
        >>> is_spatial((None, 7, 7, 1280)), is_spatial((None, 1, 1, 1280)), is_spatial((None, 1280))
        (True, False, False)
    """
    return len(shape) == 4 and (shape[1] or 2) * (shape[2] or 2) > 1


def grid_of(model: keras.Model, layer: keras.Operation, shape: tuple) -> Grid | None:
    """Which tokens of a layer are the places of pictures `(N, H, W, C)`; None if it has none.

    Known once `output_shapes` was asked for pictures of that size.
    """
    return _grids(model).get((layer, *shape[1:3]))


def layers_of_tokens(model: keras.Model) -> set[keras.Operation]:
    """The layers whose tokens are known to be a grid, for pictures of any size."""
    return {layer for layer, *_ in _grids(model)}


def _grids(model: keras.Model) -> dict[tuple[keras.Operation, int, int], Grid]:
    """The grids that are known of a model: by layer and the pictures' height and width."""
    return cached(model, "grids", dict)


def say_grid(model: keras.Model, shape: tuple, tokens) -> None:
    """Let `tokens`, `(rows, columns, before, after)`, be the grid of a model's tokens.

    The last two may be left out. Layers that return the grid alone are maps too.

    Raises:
        ValueError: not two to four whole numbers, or no layer returns so many tokens.
    """
    numbers = tuple(tokens) if isinstance(tokens, (list, tuple)) else ()
    whole = all(isinstance(n, int) and n >= 0 for n in numbers)
    if not 2 <= len(numbers) <= 4 or not whole or min(numbers[:2]) < 1:
        raise ValueError(
            "tokens are rows and columns of their grid, and how many are before and after it, such"
            f" as [14, 14, 1]; not {tokens!r:.60}"
        )
    cached(model, "tokens", lambda: numbers)
    output_shapes(model, shape)
    if Grid(*numbers) not in _grids(model).values():
        raise ValueError(
            f"{model.name} has no layer of {Grid(*numbers).tokens} tokens, as {[*numbers]} says"
        )


def _maps_of_tokens(model: keras.Model, shape: tuple) -> dict[str, tuple]:
    """The shapes of all layers whose tokens are a grid, `{path: (None, rows, columns, width)}`.

    The model runs on four pictures: the second is another one than the first, the third has its
    upper half, the fourth its left half.
    """
    found, shapes = {}, {}

    def recorder(path, layer, call):
        def recorded(*args, **kwargs):
            given = next(filter(tf.is_tensor, tf.nest.flatten((args, kwargs))), None)
            if _are_tokens(given):
                grid(given)
            output = call(*args, **kwargs)
            if _are_tokens(output) and (known := grid(output)):
                _grids(model)[layer, *shape[1:3]] = known
                shapes[path] = (None, known.rows, known.columns, output.shape[-1])
            return output

        return recorded

    def grid(tokens):
        count = tokens.shape[1]
        # The first that has so many tokens tells: later ones are mixed with each other.
        if count not in found:
            found[count] = _grid_said(model, count) or _measured(tokens, shape)
        return found[count]

    low, high = pixel_range(model)
    one, other = np.random.default_rng(0).uniform(low, high, (2, *shape[1:]))
    upper, left, (height, width) = one.copy(), one.copy(), shape[1:3]
    upper[: height // 2] = other[: height // 2]
    left[:, : width // 2] = other[:, : width // 2]
    pictures = tf.cast(np.stack([one, other, upper, left]), model.compute_dtype)
    wrappers = {layer: functools.partial(recorder, path, layer) for path, layer in walk(model)}
    with replaced_calls(wrappers):
        model(pictures, training=False)
    return shapes


def _are_tokens(tensor) -> bool:
    """Whether it is `(N, tokens, width)` of four pictures: windows of them stand in the batch."""
    return tf.is_tensor(tensor) and len(tensor.shape) == 3 and len(tensor) == 4


def _grid_said(model: keras.Model, count: int) -> Grid | None:
    """The grid that the user gave, `tokens=`, if a layer has so many tokens."""
    said = cached(model, "tokens", lambda: None)
    if said is None:
        return None
    return next((grid for grid in (Grid(*said), Grid(*said[:2])) if grid.tokens == count), None)


def _measured(tokens, shape: tuple) -> Grid | None:
    """The grid that answers to the halves of a picture as its places must, if there is one.

    Args:
        tokens: `(4, tokens, width)`, of the pictures of `_maps_of_tokens`.
        shape: of the batch, for the shape of the picture.
    """
    first, *others = np.asarray(tf.cast(tokens, tf.float64))
    changed, upper, left = (np.linalg.norm(other - first, axis=-1) for other in others)
    places = np.flatnonzero(changed > _SEEN * changed.max())
    count = len(places)
    if count < 4 or np.ptp(places) != count - 1:
        return None
    shares = [change[places] / changed[places] for change in (upper, left)]
    best, agrees = None, _AGREES
    for rows in (rows for rows in range(2, count // 2 + 1) if count % rows == 0):
        columns = count // rows
        agree = min(
            _correlation(shares[0], np.repeat(_half(rows, shape[1]), columns)),
            _correlation(shares[1], np.tile(_half(columns, shape[2]), rows)),
        )
        if agree > agrees:
            best, agrees = (rows, columns), agree
    if best is None:
        return None
    before = int(places[0])
    return Grid(*best, before, len(changed) - before - count)


def _half(places: int, pixels: int) -> np.ndarray:
    """How much of each of so many places in a line lies in the first half of its pixels, 0..1."""
    return np.clip((pixels // 2) / pixels * places - np.arange(places), 0, 1)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / size) if size > 0 else 0.0
