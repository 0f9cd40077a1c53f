"""Layer-wise relevance propagation: a score is passed down to the pixels, and adds up on the way.

`lrp` is a technique like the others; `channel_relevance` and `conservation` look inside. The rules
and composites are in `attribution.rules`.
"""

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from xai_utils.attribution.gradients import existing, finite
from xai_utils.attribution.propagation import Propagation
from xai_utils.attribution.rules import read_composite
from xai_utils.engine import check_images, compiled, keras, pixel_range, tf, widened
from xai_utils.models import check_layer, check_target, fixed_target, layer_shape, score

GATES = ("signal", "half")
_LIFTED = 2.0**8  # relevance of half precision is that much larger on its way, lest it vanish


def lrp(
    model: keras.Model,
    images,
    target=None,
    composite="epsilon_gamma_box",
    gate: str = "signal",
    layer: str | None = None,
    channel: int | None = None,
) -> np.ndarray:
    """Layer-wise relevance propagation: the score, shared out among the pixels layer by layer.

    Each layer passes on the relevance R of its outputs to its inputs, with x and v in the place of
    inputs and weights by its rule (`attribution.rules`):
    `R_j = sum_k x_j v_jk / (sum_j x_j v_jk + bias_k) R_k`. So the map adds up to the score but for
    what biases absorb; `conservation` says where. Activations, and the normalisation of layers and
    groups, pass relevance as it is; batch normalisation is folded into the layer before it; the
    larger input takes all in max pooling; sums and means share in proportion; attention has the
    rules of AttnLRP (a softmax by its Taylor form, products halved).
    Source: Bach et al., "On pixel-wise explanations for non-linear classifier decisions by
    layer-wise relevance propagation" (2015), equations 56 to 60; Montavon et al., "Layer-wise
    relevance propagation: an overview" (2019); attention by Achtibat et al., "AttnLRP" (ICML 2024);
    a channel alone by Achtibat et al., "From attribution maps to human-understandable explanations
    through concept relevance propagation" (2023).

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs; subclassed ones as far as they are
            made of Keras layers and of operations that have a rule.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`;
            what is passed down is output times gradient of the callable.
        composite: which layer has which rule: `epsilon_gamma_box`, `epsilon_plus_flat`,
            `epsilon_alpha2_beta1`; a rule or its name for all layers, such as `zero`; or a dict of
            rules with keys `first` (layers that read the pixels), `conv`, `dense`, `normalisation`
            (what cannot be folded), and names or paths of layers.
        gate: where one part of the network multiplies another: `signal` (all for what is gated, as
            in squeeze-and-excitation) or `half`.
        layer: name or path of a layer or operation: its own relevance; default the pixels'.
        channel: of `layer`: only the relevance that passes through this channel, at the pixels.

    Returns:
        float32 maps `(N, H, W)`, signed, in logits: relevance added up over the channels; with
        `layer` alone `(N, h, w)` of that.

    Raises:
        ValueError: bad images, target, composite or layer, a score that does not depend on the
            pixels, a layer or operation without a rule, or a map that is not finite.
    """
    if channel is not None and layer is None:
        raise ValueError(f"channel {channel} of which layer? Say layer= too")
    if layer is not None and channel is None:
        layer = check_layer(model, tuple(np.shape(images)), layer)
    if channel is None:
        return _run(model, images, target, _maps, composite, gate, layer=layer)
    count = layer_shape(model, tuple(np.shape(images)), layer)[-1]
    if not isinstance(channel, Integral) or not 0 <= channel < count:
        raise ValueError(f"{layer!r} has channels 0 to {count - 1}, not {channel!r}")
    chosen = tf.constant(channel)
    return _run(model, images, target, _conditional, composite, gate, chosen, layer=layer)


def channel_relevance(
    model: keras.Model,
    images,
    target=None,
    *,
    layer: str,
    composite="epsilon_gamma_box",
    gate="signal",
) -> np.ndarray:
    """The relevance of every channel of a layer, added up over its places.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer or operation that returns one tensor.
        composite: which layer has which rule: `epsilon_gamma_box`, `epsilon_plus_flat`,
            `epsilon_alpha2_beta1`; a rule or its name for all layers; or a dict of kinds and names
            of layers to rules, see `lrp`.
        gate: where one part of the network multiplies another: `signal` (all for what is gated) or
            `half`.

    Returns:
        float32 `(N, channels)`, signed, in logits.

    Raises:
        ValueError: bad images, target, composite or layer, a score that does not depend on the
            layer, a layer or operation without a rule, or relevance that is not finite.
    """
    return _run(model, images, target, _channels, composite, gate, layer=layer)


@dataclass(frozen=True)
class Conserved:
    """What a step of relevance propagation received and passed on.

    Attributes:
        layer: its path, or that of the operation.
        rule: in words, such as `gamma 0.25`, or the kind of operation.
        received, passed, absorbed: in logits; what was absorbed is computed from bias and epsilon,
            not as a difference, where the step is a layer with weights.
    """

    layer: str
    rule: str
    received: float
    passed: float
    absorbed: float


def conservation(
    model: keras.Model, images, target=None, composite="epsilon_gamma_box", gate: str = "signal"
) -> list[list[Conserved]]:
    """What every step of relevance propagation received, passed and absorbed, for each image.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        composite: which layer has which rule: `epsilon_gamma_box`, `epsilon_plus_flat`,
            `epsilon_alpha2_beta1`; a rule or its name for all layers; or a dict of kinds and names
            of layers to rules, see `lrp`.
        gate: where one part of the network multiplies another: `signal` (all for what is gated) or
            `half`.

    Returns:
        For each image its steps, from the outputs down. The first receives the score, where one
        step makes it; the score less everything absorbed is the sum of the map. Steps that nothing
        of the score reaches, such as the head of another class, are left out, unless it is zero
        and reaches none.

    Raises:
        ValueError: bad images, target or composite, a score that does not depend on the pixels, a
            layer or operation without a rule.
    """
    batch = check_images(model, images)
    indices, function = fixed_target(model, batch, target)
    run = _compiled(model, batch, _steps, composite, gate, function)
    told = []
    for at in range(len(batch)):
        layers, rules, sums, reached = (
            part.numpy() for part in run(batch[at : at + 1], indices[at : at + 1])
        )
        kept = np.flatnonzero(reached) if reached.any() else range(len(reached))
        told.append(
            [Conserved(layers[k].decode(), rules[k].decode(), *sums[k].tolist()) for k in kept]
        )
    return told


def _run(model, images, target, work, composite, gate, *more, **settings):
    batch = check_images(model, images)
    indices, function = check_target(model, batch, target)
    run = _compiled(model, batch, work, composite, gate, function, **settings)
    return finite(run(batch, indices, *more), model)


def _compiled(model, batch, work, composite, gate, function, **settings):
    if gate not in GATES:
        raise ValueError(f"gate is one of {', '.join(GATES)}, not {gate!r}")
    settings |= {"composite": read_composite(composite), "gate": gate}
    pixels = pixel_range(model, batch)
    return compiled(model, work, pixels=pixels, function=function, **settings)


def _begun(model, images, indices, composite, gate, pixels, function, names=(), accounts=False):
    """A propagation whose model has run, its outputs with their relevance, and named layers'."""
    propagation = Propagation(model, composite, gate, accounts)
    outputs, activations = propagation.run(images, pixels, names)
    found = score(widened(outputs), indices, function)
    ends = [output for output in tf.nest.flatten(outputs) if output.dtype.is_floating]
    # one output may be made of another: what passes between them is relevance already
    gradients = tf.gradients(found, ends, stop_gradients=ends)
    seen = [
        (end, _lifted(model) * end * gradient)
        for end, gradient in zip(ends, gradients, strict=True)
        if gradient is not None
    ]
    return propagation, *map(list, zip(*seen, strict=True)), activations


def _relevance(model, ends, started, at, where):
    """The relevance of a tensor, given that of the outputs."""
    return existing(tf.gradients(ends, at, started)[0], model, where)


def _maps(model, images, indices, layer, **settings):
    names = [layer] if layer else []
    _, ends, started, activations = _begun(model, images, indices, names=names, **settings)
    at, where = (activations[layer], f"layer {layer!r}") if layer else (images, "the pixels")
    return _summed(model, _relevance(model, ends, started, at, where))


def _conditional(model, images, indices, channel, layer, **settings):
    _, ends, started, activations = _begun(model, images, indices, names=[layer], **settings)
    at = activations[layer]
    relevance = _relevance(model, ends, started, at, f"layer {layer!r}")
    alone = relevance * tf.one_hot(channel, at.shape[-1], dtype=relevance.dtype)
    return _summed(model, _relevance(model, [at], [alone], images, "the pixels"))


def _summed(model, relevance):
    return tf.reduce_sum(widened(relevance), axis=-1) / _lifted(model)


def _channels(model, images, indices, layer, **settings):
    _, ends, started, activations = _begun(model, images, indices, names=[layer], **settings)
    relevance = widened(_relevance(model, ends, started, activations[layer], f"layer {layer!r}"))
    places = tuple(range(1, len(relevance.shape) - 1))
    return tf.reduce_sum(relevance, axis=places) / _lifted(model)


def _steps(model, images, indices, **settings):
    propagation, ends, started, _ = _begun(model, images, indices, accounts=True, **settings)
    _relevance(model, ends, started, images, "the pixels")
    entries = propagation.entries
    sums = [tf.stack([entry.received, entry.passed, entry.absorbed]) for entry in entries]
    layers, rules, reached = (
        [getattr(entry, key) for entry in entries] for key in ("path", "rule", "reached")
    )
    lowered = tf.stack(sums) / _lifted(model)
    return tf.constant(layers), tf.constant(rules), lowered, tf.stack(reached)


def _lifted(model) -> float:
    """How many times relevance is larger on its way: half precision would lose the smallest."""
    return _LIFTED if model.compute_dtype in ("float16", "bfloat16") else 1.0
