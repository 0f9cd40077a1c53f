"""Record the attention of a model while it runs, and let a gradient tape watch it."""

import contextlib
from collections.abc import Iterator, Sequence

from xai_utils.engine import keras, tf
from xai_utils.models.layers import ATTENTION, find_layer, replaced_calls, walk

# these compute in a kernel that never holds the probabilities, unless they are asked for
_FUSED = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


@contextlib.contextmanager
def capture_attention(
    model: keras.Model,
    names: Sequence[str] | None = None,
    tape: tf.GradientTape | None = None,
) -> Iterator[list]:
    """Record the attention probabilities of a model that runs inside the block.

    Fused attention is off for that time; the model is left as it was.

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        names: names or paths of attention layers, or of the layers or operations (a softmax) that
            return probabilities `(N, heads, tokens, tokens)` in a network that writes its attention
            itself. Default: every `MultiHeadAttention` and `GroupQueryAttention`.
        tape: watches the probabilities from the moment they exist.

    Yields:
        A list, filled as the model runs, with a tensor `(N, heads, tokens, tokens)` of every
        attention, in the order in which they run; rows add up to 1.

    Raises:
        ValueError: no such layer, or no attention layer and no names.
    """
    if names is None:
        found = [layer for _, layer in walk(model) if isinstance(layer, _FUSED)]
        chosen = list(dict.fromkeys(found))
    else:
        chosen = [find_layer(model, name) for name in names]
    if not chosen:
        raise ValueError(
            f"{model.name} has no MultiHeadAttention or GroupQueryAttention layer: say by layers="
            " which layers or operations return its attention (N, heads, tokens, tokens)"
        )
    recorded: list = []

    def noting(call):
        def noted(*args, **kwargs):
            probabilities = call(*args, **kwargs)
            if tape is not None:
                tape.watch(probabilities)
            recorded.append(probabilities)
            return probabilities

        return noted

    wrappers, fused = {}, []
    for layer in chosen:
        if isinstance(layer, _FUSED):
            wrappers |= {layer: _unfused, layer._softmax: noting}
            fused.append(layer)
        elif isinstance(layer, ATTENTION):
            raise ValueError(
                f"{layer.name!r} is a {type(layer).__name__}, which has no heads: name the layers"
                " or operations that return attention (N, heads, tokens, tokens)"
            )
        else:
            wrappers[layer] = noting
    before = [vars(layer)["_flash_attention"] for layer in fused]
    try:
        for layer in fused:
            vars(layer)["_flash_attention"] = False  # past Keras' tracking
        with replaced_calls(wrappers):
            yield recorded
    finally:
        for layer, flash in zip(fused, before, strict=True):
            vars(layer)["_flash_attention"] = flash


def _unfused(call):
    """An attention layer's call that computes its probabilities, and returns what it did before."""

    def called(*args, **kwargs):
        if kwargs.get("return_attention_scores"):
            return call(*args, **kwargs)
        return call(*args, **kwargs | {"return_attention_scores": True})[0]

    return called
