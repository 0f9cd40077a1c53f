"""Where a network's map lies: the layer that is read by default, and the layers worth reading.

What is shown over a picture is a map of that picture: the tensor that the network pools, found in
its graph, never a head's inner product, a residual branch or a crop taken for the whole.
"""

import functools
import re
import warnings
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from xai_utils.engine import cached, keras, pixel_range, tf
from xai_utils.models.layers import (
    ATTENTION,
    children,
    find_layer,
    inside_attention,
    learns,
    replaced_calls,
    walk,
)
from xai_utils.models.shapes import Grid, grid_of, is_spatial, layer_shape, output_shapes

# What explains a network that has neither a gradient nor layers to read.
NEED_ONLY_SCORES = ("occlusion", "rise", "sobol", "lime", "kernel_shap")

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
# Operations that an attention is written with: what they return is never a map.
_MIXING = ("Matmul", "Einsum", "DotProductAttention")
_MOVES = ("Reshape", "Transpose", "Permute", "Dropout", "Cast", "Identity")
_WHOLE = ("Normalization", "Add", "Concatenate", "Conv", "Embedding")


def default_layer(model: keras.Model, shape: tuple) -> str:
    """The path of the layer whose map is pooled or flattened before the head.

    It is found in the model's graph, from the output back: the first tensor with spatial extent,
    whether a layer or an operation made it. What only pools in part, pads or drops is passed: for
    VGG19, which flattens a pooling, that is `block5_conv4`. A network that answers at every pixel
    pools nothing: it is the map that its last layer with weights, the head, reads. Where there is
    no graph (subclassed models), it is the last layer with spatial extent that computes features,
    before the head. A default that the user has chosen, kept as `cached(model, "layer", ...)`,
    comes first.

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        shape: shape of a batch, `(N, H, W, C)`; N does not matter.

    Returns:
        The path, such as `block5_conv4` or `outer/inner`.

    Raises:
        ValueError: no layer of the model has spatial extent, or what it pools is tokens that are
            no grid of places.
    """
    return cached(model, "layer", lambda: None) or _pooled_layer(model, shape)


def check_layer(model: keras.Model, shape: tuple, layer: str | None) -> str:
    """The layer a technique reads: that name, seen to have spatial extent, or `default_layer`.

    Warns where the network cuts or pads its picture before its first convolution: the map of a
    layer is then not one of the whole picture.

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        shape: shape of a batch, `(N, H, W, C)`; N does not matter.
        layer: name or path (`outer/inner`) of a layer or operation; None is `default_layer`.

    Returns:
        The layer's name or path.

    Raises:
        ValueError: no such layer (the nearest names are given), or several of that name (their
            paths are given); a layer without spatial extent, or inside an attention layer; without
            a name, no layer of the model has spatial extent, or what it pools is tokens that are
            no grid of places.
    """
    path = cached(model, ("layer", layer, *shape[1:]), lambda: _check_layer(model, shape, layer))
    if part := cached(model, ("part", *shape[1:]), lambda: _part_seen(model, shape)):
        warnings.warn(f"{model.name} {part}", stacklevel=5)
    return path


def _check_layer(model: keras.Model, shape: tuple, layer: str | None) -> str:
    layer = default_layer(model, shape) if layer is None else layer
    returned = layer_shape(model, shape, layer)
    inside = id(find_layer(model, layer)) in inside_attention(model)
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


def _pooled_layer(model: keras.Model, shape: tuple) -> str:
    """`default_layer` without what the user has chosen."""
    if not getattr(model, "outputs", None):  # subclassed, or Sequential without an input
        outputs = output_shapes(model, shape)[1]
        dense = isinstance(outputs, tuple) and is_spatial(outputs)
        return _that_is_read(model, shape, _last_map(model, shape, below_head=dense))
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
        path = _last_map(model, shape)
    return _that_is_read(model, shape, path)


def _that_is_read(model: keras.Model, shape: tuple, path: str) -> str:
    """That layer, or if its tokens are not read, the last below it whose tokens are.

    A head that reads the class token alone has no gradient at the other tokens of the last layer.
    What its last attention was given is the map: normalised tokens, as a rule.
    """
    grids = _grids(model, shape)
    if path not in grids:
        return path
    influence = _influence(model, shape, grids)
    read = [name for name, grid in grids.items() if grid.places(influence[name]).any()]
    if path in read or not read:
        return path
    layers = dict(walk(model))
    whole = [name for name in read if _is_whole(layers[name])]
    return (whole or read)[-1]


def _grids(model: keras.Model, shape: tuple) -> dict[str, Grid]:
    """The grids of all layers of tokens that are not part of an attention layer, by path."""
    layers, inside = dict(walk(model)), inside_attention(model)
    return {
        path: grid
        for path in output_shapes(model, shape)[0]
        if (grid := grid_of(model, layers[path], shape)) and id(layers[path]) not in inside
    }


def read_tokens(model: keras.Model, shape: tuple, tokens: int) -> tuple[Grid, np.ndarray]:
    """Which of a transformer's tokens are places, and which its head reads, measured.

    Args:
        model: a built Keras model.
        shape: shape of a batch, `(N, H, W, C)`; N does not matter.
        tokens: how many tokens it has.

    Returns:
        The grid, and float32 `(tokens,)`: equal weights, which add up to 1, of the tokens at the
        end of the network that have an influence on its outputs.

    Raises:
        ValueError: so many tokens are no grid of places.
    """
    key = ("read tokens", tokens, *shape[1:])
    return cached(model, key, lambda: _read_tokens(model, shape, tokens))


def _read_tokens(model: keras.Model, shape: tuple, tokens: int) -> tuple[Grid, np.ndarray]:
    grids = {path: grid for path, grid in _grids(model, shape).items() if grid.tokens == tokens}
    if not grids:
        raise ValueError(
            f"{model.name} attends to {tokens} tokens, and which are places of the picture is not"
            " plain: give load_model tokens=(rows, columns, before)"
        )
    influence = _influence(model, shape, grids)
    read = [path for path in grids if influence[path].any()]
    if not read:
        raise ValueError(f"{model.name} answers without any of the {tokens} tokens it attends to")
    weights = influence[read[-1]].astype(np.float32)
    return grids[read[-1]], weights / weights.sum()


def _influence(model: keras.Model, shape: tuple, paths: Iterable[str]) -> dict[str, np.ndarray]:
    """Which tokens of layers have any influence on the outputs, measured on one picture.

    Returns:
        `{path: bool (tokens,)}`.
    """
    known = dict(walk(model))
    layers = {path: known[path] for path in paths}
    ran, tape = {}, tf.GradientTape(watch_accessed_variables=False)

    def watched(layer, call):
        def run(*args, **kwargs):
            ran[layer] = call(*args, **kwargs)
            tape.watch(ran[layer])
            return ran[layer]

        return run

    steps = {layer: functools.partial(watched, layer) for layer in layers.values()}
    with tape, replaced_calls(steps):
        answer = _any_answer(model, shape)
    found = tape.gradient(answer, [*ran.values()], unconnected_gradients="zero")
    any_of = {
        layer: np.any(np.asarray(tf.cast(gradient, tf.float32)), axis=(0, 2))
        for layer, gradient in zip(ran, found, strict=True)
    }
    return {path: any_of[layer] for path, layer in layers.items()}


def _any_answer(model: keras.Model, shape: tuple):
    """One number of a model's outputs on a picture, both at random: it depends on all they read."""
    rng = np.random.default_rng(0)
    picture = tf.cast(rng.uniform(*pixel_range(model), (1, *shape[1:])), model.compute_dtype)
    outputs = tf.nest.flatten(model(picture, training=False))
    # weighted, for the sum of a softmax does not change at all
    return tf.add_n(
        [
            tf.reduce_sum(tf.cast(output, tf.float32) * rng.normal(size=output.shape))
            for output in outputs
        ]
    )


_NO_MAP = (
    "{}: no layer returns a map (N, h, w, channels) larger than 1 x 1, which this needs;"
    f" {', '.join(NEED_ONLY_SCORES)} need only scores"
)


def _tokens(model: keras.Model, shape: tuple) -> str:
    layer = _last_convolution(model, shape)
    return (
        f"{model.name} pools tokens (N, tokens, width), and which are places of the picture is not"
        " plain: give load_model tokens=(rows, columns, before)"
        + (f", or layer={layer!r}, its last convolution" if layer else ", or layer=")
    )


def _last_convolution(model: keras.Model, shape: tuple) -> str | None:
    """The path of the last convolution that returns a map."""
    layers, inside = dict(walk(model)), inside_attention(model)
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

    @property
    def given(self) -> list:
        return self.call.input_tensors


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
    """Paths of the first maps on all ways from the output back, and whether tokens are passed.

    What attention returns tells which place asked, not which one it looked at: it is passed, and
    what it was made from is the map, whole: normalised, a sum, or a convolution.
    """
    shapes = output_shapes(model, shape)[0]
    todo, paths, tokens, seen = [], [], False, set()
    for output in model.outputs:
        if is_spatial(output.shape):  # an answer at every pixel
            inside, given = _read_by_head(output, model, shape)
            paths += inside
            todo += given
        else:
            todo.append((output, _Place(model), False))
    while todo:
        tensor, place, mixed = todo.pop()
        made = _maker(tensor, place)
        if made is None or (id(tensor), id(made.call)) in seen:
            continue
        seen.add((id(tensor), id(made.call)))
        mixing = _mixes(made)
        if _is_map(made, tensor, shapes) and not mixing and (not mixed or _is_whole(made.step)):
            made = _with_features(made, shapes)
            if made and _is_learned(made):
                paths.append(made.path)
            continue
        below = any(_is_map(_maker(given, made.place), given, shapes) for given in made.given)
        # A layer of layers has no graph: its map is inside, or what it is given.
        inside = below and not mixing and children(made.step)
        inside = inside and _last_map(model, shape, made.path + "/")
        if inside:
            paths.append(inside)
        else:
            tokens |= _mixes_tokens(made) and not _is_map(made, tensor, shapes)
            todo += [(given, made.place, mixed or mixing) for given in made.given]
    return paths, tokens


def _read_by_head(output, model: keras.Model, shape: tuple) -> tuple[list[str], list[tuple]]:
    """What is read by the last steps with weights before an answer at every pixel.

    Returns:
        Paths of layers inside a last step that is a layer of layers; and what the others are given,
        as `_pooled_maps` goes on from there.
    """
    todo, paths, found = [(output, _Place(model), False)], [], []
    while todo:
        tensor, place, _ = todo.pop()
        made = _maker(tensor, place)
        if made is None:
            continue
        learned = learns(made.step)
        inside = learned and children(made.step)
        inside = inside and _last_map(model, shape, made.path + "/", below_head=True)
        if inside:
            paths.append(inside)
        else:
            (found if learned else todo).extend((given, made.place, False) for given in made.given)
    return paths, found


def _mixes(made: _Made) -> bool:
    """Whether a tensor is what attention returns, in another order or shape maybe."""
    while made and type(made.step).__name__ in _MOVES:
        made = _maker(made.given[0], made.place)
    kind = made and type(made.step).__name__
    return kind in _MIXING or (made is not None and isinstance(made.step, ATTENTION))


def _is_map(made: _Made | None, tensor, shapes: dict) -> bool:
    """Whether a tensor of a graph is a map, its tokens may be one."""
    return is_spatial(tensor.shape) or (
        made is not None and is_spatial(shapes.get(made.path, ())) and len(tensor.shape) == 3
    )


def _is_whole(step) -> bool:
    """Whether it returns tokens or maps as attention is given them, not a projection of them."""
    return bool(children(step)) or any(word in type(step).__name__ for word in _WHOLE)


def _with_features(made: _Made | None, shapes: dict) -> _Made | None:
    """Before what pools in part, pads or drops: the layer that computes the features."""
    while made:
        makers = [(_maker(given, made.place), given) for given in made.given]
        below = [maker for maker, given in makers if _is_map(maker, given, shapes)]
        if not below or not _has_no_features(made.step):
            return made
        made = below[0]
    return None


def _is_learned(made: _Made) -> bool:
    """Whether anything up to this is learned: a picture that was only prepared is no map."""
    todo, seen = [made], set()
    while todo:
        made = todo.pop()
        if made is None or id(made.call) in seen:
            continue
        seen.add(id(made.call))
        if learns(made.step):
            return True
        todo += [_maker(given, made.place) for given in made.given]
    return False


def _has_no_features(step) -> bool:
    kind = type(step).__name__
    return kind in ("Normalization", "CenterCrop") or (
        any(word in kind for word in _NO_FEATURES) and not getattr(step, "weights", None)
    )


def _mixes_tokens(made: _Made) -> bool:
    """Whether a step is or holds an attention, or computes tokens from tokens."""
    if any(isinstance(part, ATTENTION) for part in [made.step, *dict(walk(made.step)).values()]):
        return True
    tensors = [*made.given, *made.call.output_tensors]
    return {len(tensor.shape) for tensor in tensors} == {3} and _computes_tokens(made.step)


def _computes_tokens(step) -> bool:
    return learns(step) and "Normalization" not in type(step).__name__


def _last_map(
    model: keras.Model, shape: tuple, under: str = "", below_head: bool = False
) -> str | None:
    """The path of the last layer that computes features with spatial extent, in running order.

    Args:
        under: look only at paths that begin so, and return None if there is no such layer.
        below_head: look only at what ran before the last layer with weights.

    Raises:
        ValueError: tokens that are no grid are computed after it; or no such layer, without
            `under`.
    """
    layers, shapes = dict(walk(model)), output_shapes(model, shape)[0]
    tokens, inside = False, inside_attention(model)
    for path, extent in reversed(shapes.items()):
        step = layers[path]
        if not path.startswith(under):
            continue
        if below_head:
            below_head = children(step) or not learns(step)
            continue
        if id(step) in inside:
            tokens |= not is_spatial(shapes.get(path.rpartition("/")[0], ()))
        elif not is_spatial(extent):
            tokens |= len(extent) == 3 and not children(step) and _computes_tokens(step)
        elif not _has_no_features(step) and not isinstance(step, ATTENTION):
            # a block of tokens returns their sum, its last layer a branch
            if children(step) and grid_of(model, step, shape) is None:
                continue
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
    steps = [step for _, step in walk(model) if not (children(step) and learns(step))]
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
            if given is not None and learns(step):
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


def map_layers(model: keras.Model, shape: tuple) -> dict[str, tuple]:
    """The layers that have a map to read, in the order in which they run.

    Those before the first weights hold pixels, and those inside an attention layer no map.

    Args:
        model: a built Keras model.
        shape: shape of a batch, `(N, H, W, C)`; N does not matter.

    Returns:
        `{path: (None, h, w, channels)}`.
    """
    layers, inside = dict(walk(model)), inside_attention(model)
    shapes = output_shapes(model, shape)[0]
    paths = [path for path in shapes if id(layers[path]) not in inside]
    learned = [path for path in paths if learns(layers[path])]
    paths = paths[paths.index(learned[0]) :] if learned else paths
    return {path: shapes[path] for path in paths if is_spatial(shapes[path])}


def stages(model: keras.Model, shape: tuple) -> list[str]:
    """Where to cut a network, shallow to deep: the last layer of each block, and the last code.

    The last code is that before the head: the last layer with weights, which gives the scores.
    Blocks are told by the names of their layers (`block3b_add`, `conv4_block6_out`); a network
    whose names do not tell is cut after the last layer of each resolution, from its first weights
    on.

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        shape: shape of a batch, `(N, H, W, C)`; N does not matter.

    Returns:
        Paths of layers.
    """
    layers, spatial = dict(walk(model)), map_layers(model, shape)
    shapes = output_shapes(model, shape)[0]
    # What comes after the head are scores: its networks around it, or both of one unit.
    flat = [path for path, extent in shapes.items() if len(extent) == 2]
    heads = [
        path
        for path in flat
        if getattr(layers[path], "weights", None) and not children(layers[path])
    ]
    flat = flat[: flat.index(heads[-1])] if heads else flat[:-1]
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
