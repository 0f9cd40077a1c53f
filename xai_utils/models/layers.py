"""Find layers by name, on flat, nested, Sequential and subclassed Keras 3 models alike.

A layer here is also an operation of a functional graph, such as the `Add` of `x + shortcut`: it has
a name, a path and an output as layers have, and no weights.
"""

import contextlib
import difflib
import functools
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from xai_utils.engine import cached, keras, tf

# What explains a network that has neither a gradient nor layers to read.
NEED_ONLY_SCORES = ("occlusion", "rise", "lime", "kernel_shap")

# Layers that only pool, pad, drop or reshape: never what Grad-CAM should read by default.
_NO_FEATURES = (
    "Pooling",
    "MaxPool",
    "AveragePool",
    "Padding",
    "Dropout",
    "Noise",
    "Reshape",
    "Resizing",
    "Cropping",
    "UpSampling",
    "Permute",
    "Preprocess",
    "Rescaling",
    "Identity",
    "Cast",
    "InputLayer",
)
_ATTENTION = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)
# Operations that an attention is written with: what they return is never a map.
_MIXING = ("Matmul", "Einsum", "DotProductAttention")


def walk(model: keras.layers.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Operation]]:
    """Yield `(path, layer)` for every layer and operation inside a model.

    Nested ones are `outer/inner`.
    """
    for layer in _children(model):
        path = prefix + layer.name
        yield path, layer
        yield from walk(layer, path + "/")


def _children(layer: keras.Operation) -> list[keras.Operation]:
    if isinstance(layer, keras.Model):
        # only a functional model lists the operations between its layers
        return getattr(layer, "operations", None) or layer.layers
    if not isinstance(layer, keras.layers.Layer):
        return []
    children = {}
    for value in vars(layer).values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, keras.layers.Layer):
                children[id(item)] = item
    return list(children.values())


def find_layer(model: keras.Model, name: str) -> keras.Operation:
    """Return the layer or operation of that name, or at that path (`outer/inner`).

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
    """The path of the layer whose map is pooled or flattened before the head.

    It is found in the model's graph, from the output back: the first tensor with spatial extent,
    whether a layer or an operation made it. What only pools in part, pads or drops is passed: for
    VGG19, which flattens a pooling, that is `block5_conv4`. Where there is no graph (subclassed
    models), it is the last layer with spatial extent that computes features. A default that the
    user has chosen, kept as `cached(model, "layer", ...)`, comes first.

    Raises:
        ValueError: no layer of the model has spatial extent, or what it pools is a grid of tokens.
    """
    return cached(model, "layer", lambda: None) or _pooled_layer(model, shape)


def check_layer(model: keras.Model, shape: tuple, layer: str | None) -> str:
    """The layer a technique reads: that name, seen to have spatial extent, or `default_layer`.

    Warns where the network cuts or pads its picture before its first convolution: the map of a
    layer is then not one of the whole picture.

    Raises:
        ValueError: as `find_layer` and `default_layer`; a layer without spatial extent, or inside
            an attention layer.
    """
    path = cached(model, ("layer", layer, *shape[1:]), lambda: _check_layer(model, shape, layer))
    if part := cached(model, ("part", *shape[1:]), lambda: _part_seen(model, shape)):
        warnings.warn(f"{model.name} {part}", stacklevel=5)
    return path


def _check_layer(model: keras.Model, shape: tuple, layer: str | None) -> str:
    layer = default_layer(model, shape) if layer is None else layer
    returned = layer_shape(model, shape, layer)
    inside = id(find_layer(model, layer)) in _inside_attention(model)
    if is_spatial(returned) and not inside:
        return layer
    try:
        usable = _pooled_layer(model, shape)
    except ValueError:
        usable = _last_convolution(model, shape)
    only = f", which this needs; {', '.join(NEED_ONLY_SCORES)} need only scores"
    hint = f"; {usable!r} would do" if usable else only
    where = "inside an attention layer, " if inside else ""
    raise ValueError(
        f"layer {layer!r} returns {returned}, {where}not maps (N, h, w, channels){hint}"
    )


def _inside_attention(model) -> set[int]:
    """The ids of all layers that are part of an attention layer: what they return is no map."""
    return {
        id(part)
        for _, attention in walk(model)
        if isinstance(attention, _ATTENTION)
        for _, part in walk(attention)
    }


def _pooled_layer(model: keras.Model, shape: tuple) -> str:
    """`default_layer` without what the user has chosen."""
    if not getattr(model, "outputs", None):  # subclassed, or Sequential without an input
        return _last_map(model, shape)
    paths, tokens = _pooled_maps(model, shape)
    if tokens:
        raise ValueError(_tokens(model, shape))
    if not paths:
        raise ValueError(_NO_MAP.format(model.name))
    # Where several tensors are pooled (a pyramid), the deepest.
    order = {path: number for number, (path, _) in enumerate(walk(model))}
    path = max(paths, key=order.__getitem__)
    # A network of free size may have made one position of a picture as small as this.
    of_free_size = None in model.inputs[0].shape[1:3]
    if of_free_size and not is_spatial(layer_shape(model, shape, path)):
        return _last_map(model, shape)
    return path


_NO_MAP = (
    "{}: no layer returns a map (N, h, w, channels) larger than 1 x 1, which this needs;"
    f" {', '.join(NEED_ONLY_SCORES)} need only scores"
)


def _tokens(model: keras.Model, shape: tuple) -> str:
    layer = _last_convolution(model, shape)
    return (
        f"{model.name} pools a grid of tokens (N, tokens, width), which is not read as a map yet; "
        + (f"layer={layer!r}, its last convolution, can be given" if layer else "give layer=")
    )


def _last_convolution(model: keras.Model, shape: tuple) -> str | None:
    """The path of the last convolution that returns a map."""
    layers, inside = dict(walk(model)), _inside_attention(model)
    paths = [
        path
        for path, extent in output_shapes(model, shape)[0].items()
        if is_spatial(extent)
        and "Conv" in type(layers[path]).__name__
        and id(layers[path]) not in inside
    ]
    return paths[-1] if paths else None


class _Place(NamedTuple):
    """A model whose graph is followed, and where it was called if it is inside another."""

    model: keras.Model
    prefix: str = ""
    call: object = None
    outer: "_Place | None" = None


class _Made(NamedTuple):
    """What made a tensor: a layer or operation, its call, and the model that it is part of."""

    step: keras.Operation
    call: object
    place: _Place

    @property
    def path(self) -> str:
        return self.place.prefix + self.step.name


def _maker(tensor, place: _Place) -> _Made | None:
    """What made a tensor, inside nested models too; None for the picture itself."""
    while True:
        step, node, index = tensor._keras_history
        if any(tensor is given for given in place.model.inputs):
            if place.outer is None:
                return None
            number = next(i for i, given in enumerate(place.model.inputs) if given is tensor)
            tensor, place = place.call.input_tensors[number], place.outer
            continue
        call = step._inbound_nodes[node]
        if not isinstance(step, keras.Model) or not getattr(step, "outputs", None):
            return _Made(step, call, place)
        tensor = step.outputs[index]
        place = _Place(step, f"{place.prefix}{step.name}/", call, place)


def _pooled_maps(model: keras.Model, shape: tuple) -> tuple[list[str], bool]:
    """Paths of the first maps on all ways from the output back, and whether tokens are passed."""
    todo = [(tensor, _Place(model)) for tensor in model.outputs]
    paths, tokens, seen = [], False, set()
    while todo:
        tensor, place = todo.pop()
        made = _maker(tensor, place)
        if made is None or (id(tensor), id(made.call)) in seen:
            continue
        seen.add((id(tensor), id(made.call)))
        below = [given for given in made.call.input_tensors if is_spatial(given.shape)]
        if is_spatial(tensor.shape):
            made = _with_features(made)
            if made and _is_learned(made):
                paths.append(made.path)
                tokens |= type(made.step).__name__ in _MIXING
            continue
        tokens |= _mixes_tokens(made)
        # A layer of layers has no graph: its map is inside, or what it is given.
        inside = below and _children(made.step) and _last_map(model, shape, made.path + "/")
        if inside:
            paths.append(inside)
        else:
            todo += [(given, made.place) for given in made.call.input_tensors]
    return paths, tokens


def _with_features(made: _Made | None) -> _Made | None:
    """Before what pools in part, pads or drops: the layer that computes the features."""
    while made:
        below = [given for given in made.call.input_tensors if is_spatial(given.shape)]
        if not below or not _has_no_features(made.step):
            return made
        made = _maker(below[0], made.place)
    return None


def _is_learned(made: _Made) -> bool:
    """Whether anything up to this is learned: a picture that was only prepared is no map."""
    todo, seen = [made], set()
    while todo:
        made = todo.pop()
        if made is None or id(made.call) in seen:
            continue
        seen.add(id(made.call))
        if _learns(made.step):
            return True
        todo += [_maker(given, made.place) for given in made.call.input_tensors]
    return False


def _learns(step) -> bool:
    return bool(getattr(step, "weights", None)) and type(step).__name__ != "Normalization"


def _has_no_features(step) -> bool:
    kind = type(step).__name__
    return kind in ("Normalization", "CenterCrop") or (
        any(word in kind for word in _NO_FEATURES) and not getattr(step, "weights", None)
    )


def _mixes_tokens(made: _Made) -> bool:
    """Whether a step is or holds an attention, or computes tokens from tokens."""
    if any(isinstance(part, _ATTENTION) for part in [made.step, *dict(walk(made.step)).values()]):
        return True
    tensors = [*made.call.input_tensors, *made.call.output_tensors]
    return {len(tensor.shape) for tensor in tensors} == {3} and _computes_tokens(made.step)


def _computes_tokens(step) -> bool:
    return _learns(step) and "Normalization" not in type(step).__name__


def _last_map(model: keras.Model, shape: tuple, under: str = "") -> str | None:
    """The path of the last layer that computes features with spatial extent, in running order.

    Args:
        under: look only at paths that begin so, and return None if there is no such layer.

    Raises:
        ValueError: tokens are computed after it; or no such layer, without `under`.
    """
    layers, shapes = dict(walk(model)), output_shapes(model, shape)[0]
    tokens, inside = False, _inside_attention(model)
    for path, extent in reversed(shapes.items()):
        step = layers[path]
        if not path.startswith(under):
            continue
        if id(step) in inside:
            tokens |= not is_spatial(shapes.get(path.rpartition("/")[0], ()))
        elif not is_spatial(extent):
            tokens |= len(extent) == 3 and not _children(step) and _computes_tokens(step)
        elif not _has_no_features(step) and (not _children(step) or isinstance(step, _ATTENTION)):
            if tokens:
                break
            return path
    if tokens:
        raise ValueError(_tokens(model, shape))
    if not under:
        raise ValueError(_NO_MAP.format(model.name))
    return None


class _Reached(BaseException):
    """Ends a run at the first layer with weights. No Exception, for Keras rewrites those."""


def _part_seen(model: keras.Model, shape: tuple) -> str | None:
    """What a network does to the place of its pixels before its first weights, if anything.

    Measured: each pixel of two pictures holds its own row, or its own column, in 0..255. Steps that
    change the size are run on them, all others passed, and what the first layer with weights gets
    tells where it comes from.
    """
    height, width = shape[1:3]
    rows, columns = ((np.arange(size) + 0.5) * 255 / size for size in (height, width))
    places = np.stack(
        [np.broadcast_to(rows[:, None], (height, width)), np.broadcast_to(columns, (height, width))]
    )
    places = tf.cast(np.repeat(places[..., None], shape[3], axis=3), model.compute_dtype)
    steps = [step for _, step in walk(model) if not (_children(step) and _learns(step))]
    try:
        with replaced_calls({step: _placing(step) for step in steps}):
            model(places, training=False)
    except _Reached as reached:
        seen = reached.args[0]
        return _said(np.asarray(tf.cast(seen, tf.float32)), height, width)
    return None


def _placing(step):
    """A stand-in for a step's call that only moves pixels; the first with weights ends the run."""

    def wrap(call):
        def placed(*args, **kwargs):
            given = next(filter(tf.is_tensor, tf.nest.flatten((args, kwargs))), None)
            if given is not None and _learns(step):
                raise _Reached(given)
            returned = call(*args, **kwargs)
            # The zeros before a convolution that pads nothing itself are a part of it.
            is_same = tf.is_tensor(returned) and returned.shape == getattr(given, "shape", None)
            return given if is_same or "ZeroPadding" in type(step).__name__ else returned

        return placed

    return wrap


def _said(seen: np.ndarray, height: int, width: int) -> str | None:
    """In words: which part of a picture `_part_seen` found, None if it is all of it."""
    if seen.ndim != 4 or not is_spatial(seen.shape):
        return None
    middle = seen.shape[1] // 2, seen.shape[2] // 2
    lines = seen[0, :, middle[1], 0] * height / 255, seen[1, middle[0], :, 0] * width / 255
    (top, bottom), (left, right) = map(_edges, lines)
    if any((line == 0).mean() > 0.02 for line in lines):
        return (
            f"pads its {height} x {width} pixels to another shape before it looks at them: a map"
            " covers the borders too"
        )
    if bottom - top > 0.98 * height and right - left > 0.98 * width:
        return None
    if abs(top - (height - bottom)) <= 1 and abs(left - (width - right)) <= 1:
        part = f"the middle {bottom - top:.0f} x {right - left:.0f}"
    else:
        part = f"rows {top:.0f} to {bottom:.0f} and columns {left:.0f} to {right:.0f}"
    return f"cuts its picture before it looks at it: a map covers {part} of {height} x {width}"


def _edges(line: np.ndarray) -> tuple[float, float]:
    """Where a row of sampled places begins and ends, half a step beyond the outer ones."""
    line = line[line > 0]
    half = np.ptp(line) / max(len(line) - 1, 1) / 2
    return line.min() - half, line.max() + half


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

    The last code is that before the head: the last layer with weights, which gives the scores.
    Blocks are told by the names of their layers (`block3b_add`, `conv4_block6_out`); a network
    whose names do not tell is cut after the last layer of each resolution, from its first weights
    on.
    """
    layers, inside = dict(walk(model)), _inside_attention(model)
    shapes = {
        path: extent
        for path, extent in output_shapes(model, shape)[0].items()
        if len(extent) in (2, 4) and id(layers[path]) not in inside
    }
    weighted = [path for path in shapes if getattr(layers[path], "weights", None)]
    # What comes after the head are scores: its networks around it, or both of one unit.
    flat = [path for path, extent in shapes.items() if len(extent) == 2]
    heads = [path for path in flat if path in weighted and not _children(layers[path])]
    flat = flat[: flat.index(heads[-1])] if heads else flat[:-1]
    paths = list(shapes)
    paths = paths[paths.index(weighted[0]) :] if weighted else paths  # before: only pixels
    spatial = {path: shapes[path] for path in paths if is_spatial(shapes[path])}
    blocks, block = {}, None
    for path in spatial:
        match = re.search(r"(block|conv|stage)_?\d+", path)
        # An operation that has no name of its own ends the block that it stands in.
        operation = not isinstance(layers[path], keras.layers.Layer)
        block = match[0] if match else block if operation else None
        if block:
            blocks[block] = path
    if len(blocks) < 3:
        blocks = {extent[1:3]: path for path, extent in spatial.items()}
    return [*blocks.values(), *flat[-1:]]


def is_spatial(shape: tuple) -> bool:
    """Whether a shape is a batch of maps, `(N, h, w, channels)` with more than one position."""
    return len(shape) == 4 and (shape[1] or 2) * (shape[2] or 2) > 1
