"""Find layers by name, on flat, nested, Sequential and subclassed Keras 3 models alike.

A layer here is also an operation of a functional graph, such as the `Add` of `x + shortcut`: it has
a name, a path and an output as layers have, and no weights.
"""

import contextlib
from collections.abc import Iterator

from xai_utils.engine import cached, check_model, keras, nearest

ATTENTION = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)


def walk(model: keras.layers.Layer, prefix: str = "") -> Iterator[tuple[str, keras.Operation]]:
    """Every layer and operation inside a model, with its path.

    Nested ones are `outer/inner`.

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        prefix: what all paths begin with; default nothing.

    Yields:
        `(path, layer)`, an outer layer before those inside it.

    Raises:
        ValueError: neither a model nor a layer.
    """
    if not isinstance(model, keras.Operation):
        check_model(model)
    for layer in children(model):
        path = prefix + layer.name
        yield path, layer
        yield from walk(layer, path + "/")


def children(layer: keras.Operation) -> list[keras.Operation]:
    """The layers and operations that a layer or model is directly made of."""
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

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        name: of the layer or operation, or its path (`outer/inner`).

    Returns:
        The layer or operation.

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
        raise ValueError(f"{model.name} has no layer {name!r}; {nearest(name, [*layers][::-1])}")
    return next(iter(named.values()))


@contextlib.contextmanager
def replaced_calls(wrappers: dict):
    """Let `wrappers[layer](call)` stand in for each layer's `call` in a `with` block.

    Every layer is put back, whatever happens. The instance's own `__dict__` is used, past Keras'
    attribute tracking, so that nothing of it stays behind.

    Args:
        wrappers: `{layer: wrap}`; `wrap(call)` returns a function of the same arguments.
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

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        layer: name or path (`outer/inner`) of a layer or operation.

    Returns:
        A Keras model, pixels to what the layer returns; it is kept with the model.

    Raises:
        ValueError: no such layer (the nearest names are given), or several of that name (their
            paths are given).
    """
    last = find_layer(model, layer)

    def make():
        try:
            part = keras.Model(model.input, last.output)
        except (AttributeError, ValueError):  # no graph, used twice, or inside another model
            return None
        # what is known, or will be, of the tokens of its layers
        cached(part, "tokens", lambda: cached(model, "tokens", lambda: None))
        cached(part, "grids", lambda: cached(model, "grids", dict))
        return part

    return cached(model, ("up to", layer), make) or model


def inside_attention(model: keras.Model) -> set[int]:
    """The ids of all layers that are part of an attention layer: what they return is no map."""
    return {
        id(part)
        for _, attention in walk(model)
        if isinstance(attention, ATTENTION)
        for _, part in walk(attention)
    }


def learns(step: keras.Operation) -> bool:
    """Whether a step has weights that were learned from answers."""
    return bool(getattr(step, "weights", None)) and type(step).__name__ != "Normalization"
