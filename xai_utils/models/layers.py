"""Find layers by name, on flat, nested, Sequential and subclassed Keras 3 models alike."""

import contextlib
import difflib
import functools
import re
from collections.abc import Iterator

from xai_utils.engine import cached, keras, tf

# Layers that only pool, pad, drop or reshape: never what Grad-CAM should read by default.
_NO_FEATURES = (
    "Pooling",
    "Padding",
    "Dropout",
    "Reshape",
    "Cropping",
    "UpSampling",
    "Permute",
    "Preprocess",
    "Rescaling",
    "Normalization",
    "InputLayer",
)


def walk(model: keras.layers.Layer, prefix: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield `(path, layer)` for every layer inside a model, nested ones as `outer/inner`."""
    for layer in _children(model):
        path = prefix + layer.name
        yield path, layer
        yield from walk(layer, path + "/")


def _children(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    if isinstance(layer, keras.Model):
        return layer.layers
    children = {}
    for value in vars(layer).values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, keras.layers.Layer):
                children[id(item)] = item
    return list(children.values())


def find_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """Return the layer of that name, or at that path (`outer/inner`).

    Raises:
        ValueError: no such layer (the nearest names are given), or several of that name (their
            paths are given).
    """
    layers = dict(walk(model))
    if name in layers:
        return layers[name]
    named = {path: layer for path, layer in layers.items() if layer.name == name}
    if len(set(map(id, named.values()))) > 1:
        raise ValueError(
            f"{len(named)} layers are called {name!r}: say which by its path, one of"
            f" {', '.join(named)}"
        )
    if not named:
        near = difflib.get_close_matches(str(name), layers, n=3, cutoff=0.3)
        hint = f"nearest: {', '.join(near)}" if near else f"it has {', '.join(list(layers)[-5:])}"
        raise ValueError(f"{model.name} has no layer {name!r}; {hint}")
    return next(iter(named.values()))


@contextlib.contextmanager
def replaced_calls(wrappers: dict):
    """Let `wrappers[layer](call)` stand in for each layer's `call` in a `with` block.

    Every layer is put back, whatever happens. The instance's own `__dict__` is used, past Keras'
    attribute tracking, so that nothing of it stays behind.
    """
    before = [(layer, "call" in vars(layer), vars(layer).get("call")) for layer in wrappers]
    try:
        for layer, wrap in wrappers.items():
            vars(layer)["call"] = wrap(layer.call)
        yield
    finally:
        for layer, had, call in before:
            if had:
                vars(layer)["call"] = call
            else:
                vars(layer).pop("call", None)


def up_to(model: keras.Model, layer: str) -> keras.Model:
    """The part of a model that ends with a layer; it shares all layers.

    So nothing above the layer is built. Only a flat graph has such parts; another model is returned
    as it is.

    Raises:
        ValueError: as `find_layer`.
    """
    last = find_layer(model, layer)

    def make():
        try:
            return keras.Model(model.input, last.output)
        except (AttributeError, ValueError):  # no graph, used twice, or inside another model
            return None

    return cached(model, ("up to", layer), make) or model


def output_shapes(model: keras.Model, shape: tuple) -> tuple[dict[str, tuple], object]:
    """What every layer of a model returns.

    Most networks are one flat graph that knows its shapes. Others (nested, subclassed, of any size,
    with a layer used twice) are traced once, without computing anything.

    Args:
        model: a built Keras model.
        shape: shape of a batch, `(N, H, W, C)`; N does not matter.

    Returns:
        `{path: shape}` for every layer that returns one tensor, in an order in which they run (a
        layer that runs twice counts where it ran last), and the shapes of the model's outputs, in
        their structure. Batch sizes are None.
    """
    return cached(
        model,
        ("shapes", *shape[1:]),
        lambda: _graph_shapes(model, shape) or _trace_shapes(model, shape),
    )


def _graph_shapes(model: keras.Model, shape: tuple) -> tuple[dict[str, tuple], object] | None:
    """`output_shapes` of a flat Functional or Sequential model of one image size, else None."""
    layers = [layer for layer in _children(model) if not isinstance(layer, keras.layers.InputLayer)]
    if getattr(model, "input_shape", None) != (None, *shape[1:]) or any(map(_children, layers)):
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


def default_layer(model: keras.Model, shape: tuple) -> str:
    """The path of the last layer with spatial extent that computes features.

    Poolings, paddings and the like compute none. For VGG19 that is `block5_conv4`, for a network
    that ends in global pooling the layer before the pooling.

    Raises:
        ValueError: no layer of the model has spatial extent.
    """
    layers = dict(walk(model))
    for path, extent in reversed(output_shapes(model, shape)[0].items()):
        skipped = any(word in type(layers[path]).__name__ for word in _NO_FEATURES)
        if is_spatial(extent) and not skipped and not _children(layers[path]):
            return path
    raise ValueError(
        f"{model.name}: no layer returns a map (N, h, w, channels) larger than 1 x 1; give layer="
    )


def check_layer(model: keras.Model, shape: tuple, layer: str | None) -> str:
    """The layer a technique reads: that name, seen to have spatial extent, or `default_layer`.

    Raises:
        ValueError: as `find_layer` and `default_layer`; a layer without spatial extent.
    """
    return cached(model, ("layer", layer, *shape[1:]), lambda: _check_layer(model, shape, layer))


def _check_layer(model: keras.Model, shape: tuple, layer: str | None) -> str:
    if layer is None:
        return default_layer(model, shape)
    returned = layer_shape(model, shape, layer)
    if not is_spatial(returned):
        usable = default_layer(model, shape)
        raise ValueError(
            f"layer {layer!r} returns {returned}, not maps (N, h, w, channels); {usable!r} would do"
        )
    return layer


def layer_shape(model: keras.Model, shape: tuple, layer: str) -> tuple:
    """The shape of what a layer returns for a batch, `(None, ...)`; empty if not one tensor.

    Raises:
        ValueError: as `find_layer`.
    """
    wanted = find_layer(model, layer)
    shapes = output_shapes(model, shape)[0]
    return next(
        (shapes[path] for path, part in walk(model) if part is wanted and path in shapes), ()
    )


def stages(model: keras.Model, shape: tuple) -> list[str]:
    """Where to cut a network, shallow to deep: the last layer of each block, and the last code.

    The last code is that before the logits. Blocks are told by the names of their layers
    (`block3b_add`, `conv4_block6_out`); a network whose names do not tell is cut after the last
    layer of each resolution.
    """
    shapes = {
        path: extent
        for path, extent in output_shapes(model, shape)[0].items()
        if len(extent) in (2, 4)
    }
    flat = [path for path, extent in shapes.items() if len(extent) == 2][:-1]
    spatial = {path: extent for path, extent in shapes.items() if is_spatial(extent)}
    blocks = {
        match[0]: path for path in spatial if (match := re.search(r"(block|conv|stage)_?\d+", path))
    }
    if len(blocks) < 3:
        blocks = {extent[1:3]: path for path, extent in spatial.items()}
    return [*blocks.values(), *flat[-1:]]


def is_spatial(shape: tuple) -> bool:
    """Whether a shape is a batch of maps, `(N, h, w, channels)` with more than one position."""
    return len(shape) == 4 and (shape[1] or 2) * (shape[2] or 2) > 1
