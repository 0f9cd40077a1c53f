"""Record what layers and operations return while a model runs, and let a gradient tape watch it.

The model is left as it was. No cloning, no surgery: for the time of one `with` block the chosen
layers' `call` is replaced on the instance. Inside a `tf.function` that happens while it is traced,
so that later runs cost nothing.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence

from xai_utils.engine import keras, tf, widened
from xai_utils.models import layers, shapes

ACTIVATIONS = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
)


@contextlib.contextmanager
def capture(
    model: keras.Model,
    names: Sequence[str],
    tape: tf.GradientTape | None = None,
    instead: dict | None = None,
) -> Iterator[dict]:
    """Record the activations of named layers while the model runs inside the block.

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        names: names or paths (`outer/inner`) of its layers, and of the operations of its graph.
        tape: watches each activation from the moment it exists. With
            `watch_accessed_variables=False` nothing before the first captured layer is recorded, so
            a gradient costs only the part of the network above it.
        instead: name to what the layer returns in place of its own output, in the shape that would
            be recorded; see `outputs_from`.

    Yields:
        A dict, filled as the model runs: name to the layer's output `(N, ...)`. Tokens that are a
        grid of places are their map `(N, rows, columns, width)`, without class and register tokens.
        A layer that runs twice counts once, with its last output.

    Raises:
        ValueError: no such layer, or it did not run by the end of the block; a layer of tokens in
            one compiled function for pictures of several sizes.
    """
    activations: dict = {}
    targets: dict = {}
    for name in names:
        targets.setdefault(layers.find_layer(model, name), []).append(name)

    size, measuring = (), False

    def recorder(layer, names_of_layer):
        def wrap(call):
            def run(*args, **kwargs):
                output = call(*args, **kwargs)
                if measuring:
                    return output
                grid = _grid_of(model, layer, output, size)
                if grid is None:
                    recorded = output
                else:
                    output = tf.ensure_shape(output, (None, grid.tokens, None))
                    recorded = grid.as_map(output)
                for name in {*names_of_layer} & {*(instead or {})}:
                    recorded = tf.cast(instead[name], recorded.dtype)
                if tape is not None:
                    tape.watch(recorded)
                activations.update(dict.fromkeys(names_of_layer, recorded))
                return recorded if grid is None else grid.as_tokens(recorded, output)

            return run

        return wrap

    def sized(call):
        """The model's own call: which tokens are places depends on the size of its pictures."""

        def run(*args, **kwargs):
            nonlocal size, measuring
            if not measuring:
                given = tf.nest.flatten((args, kwargs))
                size = tuple(next(part.shape for part in given if hasattr(part, "shape")))
                measuring = True
                try:
                    _know_grids(model, targets, size)
                finally:
                    measuring = False
            return call(*args, **kwargs)

        return run

    wrappers = {layer: recorder(layer, of_layer) for layer, of_layer in targets.items()}
    with layers.replaced_calls({model: sized} | wrappers):
        yield activations
    missing = [name for name in names if name not in activations]
    if missing:
        _did_not_run(model, missing[0])


def _grid_of(model, layer, output, size) -> shapes.Grid | None:
    """The grid of what a layer returned, if that is tokens with one."""
    if not (size and tf.is_tensor(output) and len(output.shape) == 3):
        return None
    if None in size[1:] and layer in shapes.layers_of_tokens(model):
        raise ValueError(
            f"{model.name} was asked about pictures of several sizes, and which of its tokens are"
            " places depends on the size: explain load_model(model, size=...).model, one for each"
        )
    grid = shapes.grid_of(model, layer, size)
    return grid if grid and output.shape[1] in (None, grid.tokens) else None


def _know_grids(model: keras.Model, targets, size: tuple) -> None:
    """Have it measured which tokens are a grid, if one of the layers may return tokens."""
    unknown = (layer for layer in targets if shapes.grid_of(model, layer, size) is None)
    if None not in size[1:] and any(map(_may_return_tokens, unknown)):
        shapes.output_shapes(model, size)


def _may_return_tokens(layer: keras.Operation) -> bool:
    try:
        return len(layer.output.shape) == 3
    except (AttributeError, ValueError):  # no graph, or used twice
        return True


@contextlib.contextmanager
def capture_before_activation(model: keras.Model, name: str) -> Iterator[dict]:
    """Record what goes into a layer's activation while the model runs inside the block.

    That is a ReLU layer's or operation's own, or its `activation=`.

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        name: name or path (`outer/inner`) of the layer or operation.

    Yields:
        A dict, filled as the model runs: the name to the tensor `(N, ...)`.

    Raises:
        ValueError: no such layer (the nearest names are given), or several of that name (their
            paths are given); a layer without an activation, or one that did not run by the end of
            the block.
    """
    codes: dict = {}
    layer = layers.find_layer(model, name)

    def noting(function):
        def noted(inputs, *args, **kwargs):
            codes[name] = inputs
            return function(inputs, *args, **kwargs)

        return noted

    if isinstance(layer, ACTIVATIONS) or _is_activating(layer):
        with layers.replaced_calls({layer: noting}):
            yield codes
    elif getattr(layer, "activation", keras.activations.linear) is keras.activations.linear:
        raise ValueError(
            f"layer {name!r} has no activation, so its output is the code before it: leave it as"
            " it is"
        )
    else:
        activation = vars(layer)["activation"]
        vars(layer)["activation"] = noting(activation)  # past Keras' tracking
        try:
            yield codes
        finally:
            vars(layer)["activation"] = activation
    if name not in codes:
        _did_not_run(model, name)


def activates(layer: keras.Operation) -> bool:
    """Whether a layer or operation is an activation and nothing else.

    Args:
        layer: any, such as `keras.layers.ReLU()` or the operation of `keras.ops.gelu(x)`.

    Returns:
        True for layers and operations of a function of `keras.activations`.
    """
    known = (*ACTIVATIONS, keras.layers.Activation)
    return isinstance(layer, known) or _is_activating(layer)


def _is_activating(layer: keras.Operation) -> bool:
    """Whether it is an operation such as `keras.ops.relu` that is an activation."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(layer).__name__).lower()
    return not isinstance(layer, keras.layers.Layer) and hasattr(keras.activations, name)


def code_at(model: keras.Model, images, layer: str, before_activation: bool = False):
    """What a layer returns for a batch, or what goes into its activation; for compiled code.

    Nothing above it is computed.

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        images: `(N, H, W, C)` in the model's pixel range.
        layer: name or path (`outer/inner`) of a layer or operation.
        before_activation: what goes into the layer's activation (ReLU), not what comes out.

    Returns:
        Tensor `(N, ...)`.

    Raises:
        ValueError: no such layer (the nearest names are given), or several of that name (their
            paths are given); a layer without an activation, where that is asked for, or one that
            did not run.
    """
    part = layers.up_to(model, layer)
    with (
        capture_before_activation(part, layer) if before_activation else capture(part, [layer])
    ) as codes:
        part(images, training=False)
    return codes[layer]


def outputs_from(model: keras.Model, images, layer: str, maps):
    """What a model returns where a layer's maps are others; for compiled code.

    In a compiled function only what is behind the layer is computed, and what goes past it from the
    pictures: class tokens, or a shortcut around the layer.

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        images: `(N, H, W, C)` in the model's pixel range.
        layer: name or path (`outer/inner`) of a layer or operation; one that runs twice returns
            the maps both times.
        maps: what it returns, `(N, ...)` as of `capture`.

    Returns:
        The outputs in their structure, such as logits `(N, classes)`, float32 or wider.

    Raises:
        ValueError: no such layer (the nearest names are given), or several of that name (their
            paths are given); one that did not run.
    """
    with capture(model, [layer], instead={layer: maps}):
        return widened(model(images, training=False))


def _did_not_run(model, name):
    raise ValueError(
        f"layer {name!r} did not run: {model.name} does not use it between input and output"
    )
