"""Pictures that have a given code (pre-images), or excite a class, channel or direction.

Both are found from noise by `optimise`, whose settings they share. The method as
published for VGG-like networks, untested here on VGG19's real weights, which could not be
downloaded: `optimiser="sgd"`, `parameterisation="pixels"`, codes such as `block5_pool` or `fc2`,
`alpha_weight=1`; `tv_weight` .024 for blocks 1 and 2, .24 for blocks 3 and 4, 2.4 for block 5 and
the dense layers (published as 1, 10, 100 in units of a whole picture's length); `jitter` a quarter
of the layer's stride, 8 pixels at block 5 and beyond. They end with a seventh of the steps at a
tenth of the rate, without jitter; here `settle` of them have half the rate.
"""

import numpy as np

from xai_utils import models
from xai_utils.engine import (
    check_images,
    check_model,
    compiled,
    float_type,
    keras,
    pixel_range,
    tf,
    widened,
)
from xai_utils.models import code_at
from xai_utils.synthesis.optimisation import Synthesis, optimise


def invert(
    model: keras.Model,
    images,
    layer: str,
    *,
    codes=None,
    before_activation: bool = False,
    shape=None,
    **settings,
) -> Synthesis:
    """Pre-images: pictures whose code at a layer is that of given pictures.

    Minimises the normalised error `|Phi(x) - Phi_0|^2 / |Phi_0|^2` plus regularisers; `losses` are
    normalised errors.
    Source: Mahendran & Vedaldi, "Understanding deep image representations by inverting them" (CVPR
    2015), equation 1.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range; None with `codes`.
        layer: name of the layer whose output is the code.
        codes: match these, `(N, ...)`, instead of those of images.
        before_activation: the code is what goes into the layer's activation (ReLU), not what comes
            out.
        shape: with `codes`, `(H, W, C)` of the pictures; default the model's own input.
        settings: see `optimise`; `pixels` is read off the images if the model does not know it.
            With restarts, those of one code come one after the
            other.

    Returns:
        A `Synthesis`, pictures `(N * restarts, H, W, C)` in the model's pixel range.

    Raises:
        ValueError: no such layer, or none with an activation; no gradient from it to the pixels; a
            code that is all zeros, not finite or does not fit; bad settings.
    """
    if codes is None:
        batch = check_images(model, images)
        shape, codes = tuple(batch.shape[1:]), code(model, batch, layer, before_activation)
        settings["pixels"] = settings.get("pixels") or pixel_range(model, batch)
    else:
        shape, codes = _picture_shape(model, shape), np.asarray(codes)
        expected = _code_shape(model, shape, layer)
        if codes.shape[1:] != expected or not len(codes):
            raise ValueError(
                f"layer {layer!r} has codes (N, {', '.join(map(str, expected))}), not {codes.shape}"
            )
    lengths = np.sqrt((codes.astype(np.float64) ** 2).sum(axis=tuple(range(1, codes.ndim))))
    for wrong, why in (
        (~np.isfinite(lengths), "is not finite"),
        (lengths == 0, "is all zeros: nothing to match"),
    ):
        if wrong.any():
            raise ValueError(f"code {int(wrong.argmax())} at layer {layer!r} {why}")
    constants = tf.constant(codes, float_type(model))
    return optimise(model, (_code_error, layer, before_activation), constants, shape, **settings)


def activation_maximization(
    model: keras.Model,
    target,
    layer: str | None = None,
    *,
    before_activation: bool = False,
    shape=None,
    **settings,
) -> Synthesis:
    """Pictures that make a score large: of a class, a channel, a neuron or a direction.

    `losses` are minus the scores.
    Source: Simonyan, Vedaldi & Zisserman, "Deep inside convolutional networks" (2014), equation 1.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        target: without `layer`, a class index or name (of a network that answers at every pixel,
            its mean over all), a `models.region` or a callable `outputs -> (N,)`. With it, a
            channel or unit (its mean over the positions), a neuron `(row, column, channel)`, or a
            direction, an array of one number a channel (mean over the positions of the product with
            it). A list makes one picture of each.
        layer: name of the layer that holds the unit.
        before_activation: the unit before its activation (ReLU), where it has a gradient also when
            it is off.
        shape: `(H, W, C)` of the pictures; default the model's own input.
        settings: see `optimise`. With restarts, those of one target come one after the
            other.

    Returns:
        A `Synthesis`, pictures `(T * restarts, H, W, C)` in the model's pixel range.

    Raises:
        ValueError: a class, layer or unit that does not exist; no gradient from it to the pixels;
            bad settings.
    """
    shape = _picture_shape(model, shape)
    if layer is None:
        if target is None:
            raise ValueError(
                "activation_maximization needs a target: a class, a callable, or layer= and a unit"
                " of it"
            )
        count = 1 if callable(target) else np.size(target)
        black = tf.zeros((count, *shape))
        if models.is_dense(model) and not callable(target) and count == 1:
            target = models.region(np.ones(shape[:2], bool), np.ravel(target)[0])
        indices, function = models.check_target(model, black, target)
        return optimise(model, (_minus_target, function), indices, shape, **settings)
    extent = _code_shape(model, shape, layer)
    wanted = target if isinstance(target, list) else [target]
    weights = np.stack([_unit_weights(unit, extent, layer) for unit in wanted])
    objective = (_minus_unit, layer, before_activation)
    return optimise(model, objective, tf.constant(weights, float_type(model)), shape, **settings)


def code(model: keras.Model, images, layer: str, before_activation: bool = False) -> np.ndarray:
    """The code of images at a layer.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch `(N, H, W, C)`, any number type, in the model's pixel range.
        layer: name of the layer whose output is the code.
        before_activation: what goes into the layer's activation (ReLU), not what comes out.

    Returns:
        `(N, ...)`, float32 or wider.

    Raises:
        ValueError: bad images, no such layer, or none with an activation.
    """
    run = compiled(model, _code, layer=layer, before=before_activation)
    return run(check_images(model, images)).numpy()


def _code(model, images, layer, before):
    return widened(code_at(model, images, layer, before))


def _code_error(model, images, codes, layer, before):
    axes = tuple(range(1, codes.shape.rank))
    return tf.reduce_sum((_code(model, images, layer, before) - codes) ** 2, axes) / tf.reduce_sum(
        codes**2, axes
    )


def _minus_unit(model, images, weights, layer, before):
    return -tf.reduce_sum(
        _code(model, images, layer, before) * weights, tuple(range(1, weights.shape.rank))
    )


def _minus_target(model, images, indices, function):
    return -models.scores(model, images, indices, function)


def _picture_shape(model, shape) -> tuple:
    check_model(model)
    if shape is None:
        shape = tuple(getattr(model, "input_shape", None) or (None,))[1:]
    if len(shape) != 3 or None in shape:
        raise ValueError(
            f"{model.name} takes pictures of any size or shape {shape}: say which, shape=(H, W, C)"
        )
    return tuple(shape)


def _code_shape(model, shape, layer) -> tuple:
    """Shape of a layer's output without the batch, or a ValueError."""
    if not model.built:
        model(tf.zeros((1, *shape), float_type(model)), training=False)
    return models.layer_shape(model, (1, *shape), layer)[1:]


def _unit_weights(unit, extent: tuple, layer: str) -> np.ndarray:
    """A unit as weights of a code, of its shape `extent`; the score is the sum of products."""
    weights, channels = np.zeros(extent), extent[-1]
    positions = np.prod(extent[:-1])
    if isinstance(unit, tuple):
        if len(unit) != len(extent) or any(not 0 <= i < most for i, most in zip(unit, extent)):
            raise ValueError(
                f"neuron {unit} is not in layer {layer!r}, whose code has shape {extent}"
            )
        weights[unit] = 1
    elif np.ndim(unit) == 0 and isinstance(unit, (int, np.integer)):
        if not 0 <= unit < channels:
            raise ValueError(
                f"channel {unit} is out of range: layer {layer!r} has channels 0 to {channels - 1}"
            )
        weights[..., unit] = 1 / positions
    elif (
        isinstance(unit, np.ndarray)
        and unit.shape == (channels,)
        and np.isfinite(unit).all()
        and unit.any()
    ):
        weights[...] = unit / positions
    else:
        raise ValueError(
            f"a unit of layer {layer!r} is a channel 0 to {channels - 1}, a neuron of {extent} or"
            f" an array of {channels} finite numbers, not all 0; got {unit!r:.60}"
        )
    return weights
