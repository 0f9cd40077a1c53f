"""Attribution from the attention of a transformer.

`attention` returns what the heads attend to; the others make a map of it, with the signature
`method(model, images, target=None, **settings) -> maps`; see `attribution`. In the formulas A are
the attention probabilities of a layer `(N, heads, T, T)`, a row for every token that asks, T the
number of tokens, and I the identity. A map holds the places of the row of the class token where the
network's head reads that alone, and of the mean of the rows of all tokens that the head reads where
it pools them; which it does is measured.
"""

from collections.abc import Sequence

import numpy as np

from xai_utils.engine import check_images, compiled, keras, tf, widened
from xai_utils.models import capture_attention, check_target, read_tokens, score

HEADS = {"mean": tf.reduce_mean, "max": tf.reduce_max, "min": tf.reduce_min}


def attention(
    model: keras.Model,
    images,
    target=None,
    layers: Sequence[str] | None = None,
    gradient: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """The attention probabilities of every layer and head, and their gradient if it is asked for.

    They are recorded while the model runs, without fused attention.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: whose gradient: None (top class), a class index or name, N of them, or a callable
            `outputs -> (N,)`.
        layers: names or paths of attention layers, or of the layers or operations that return
            probabilities `(N, heads, T, T)`; default every Keras attention layer of heads, in the
            order in which they run.
        gradient: return `dS/dA` too.

    Returns:
        float32 `(N, layers, heads, T, T)`, whose rows add up to 1; with `gradient` a pair of that
        and the gradients, of the same shape, in logits.

    Raises:
        ValueError: bad images or target, no attention, one that is not from a picture's tokens to
            themselves, or layers of different numbers of heads or tokens.
    """
    _, found = _prepared(model, images, target, _recorded, layers, gradient=gradient)
    return tuple(part.numpy() for part in found) if gradient else found[0].numpy()


def raw_attention(
    model: keras.Model,
    images,
    target=None,
    heads: str = "mean",
    layers: Sequence[str] | None = None,
) -> np.ndarray:
    """What the last layer attends to.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: is checked and has no effect: attention is the same for every class.
        heads: how heads are made one: `mean`, `max` or `min`.
        layers: names or paths of attention layers, or of the layers or operations that return
            probabilities `(N, heads, T, T)`; the last of them is shown. Default every Keras
            attention layer of heads.

    Returns:
        float32 maps `(N, rows, columns)`, not negative; with the other tokens' shares, where heads
        are averaged, they add up to 1.

    Raises:
        ValueError: bad images or target, no attention, one that is not from a picture's tokens to
            themselves, layers of different numbers of heads or tokens, or tokens that are no grid
            of places; unknown `heads`.
    """
    return _map(model, images, target, _raw_attention, layers, fuse=_fused(heads))


def attention_rollout(
    model: keras.Model,
    images,
    target=None,
    heads: str = "mean",
    residual: float = 0.5,
    discard: float = 0.0,
    layers: Sequence[str] | None = None,
) -> np.ndarray:
    """Attention rollout: the product of all layers' attention, each mixed with the identity.

    `(1 - residual) A + residual I` with rows that add up to 1, last layer times ... times first.
    Source: Abnar & Zuidema, "Quantifying attention flow in transformers" (ACL 2020), section 3,
    where `residual` is 0.5 and heads are averaged.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: is checked and has no effect: attention is the same for every class.
        heads: how heads are made one: `mean`, `max` or `min`.
        residual: share of the identity, 0 to 1, for what passes by the attention.
        discard: share of each picture's smallest entries of A that are set to 0, 0 to below 1.
        layers: names or paths of attention layers, or of the layers or operations that return
            probabilities `(N, heads, T, T)`, in the order in which they run; default every Keras
            attention layer of heads.

    Returns:
        float32 maps `(N, rows, columns)`, not negative; with the other tokens' shares they add up
        to 1, but for rows of which `discard` leaves nothing where `residual` is 0.

    Raises:
        ValueError: bad images or target, no attention, one that is not from a picture's tokens to
            themselves, layers of different numbers of heads or tokens, or tokens that are no grid
            of places; unknown `heads`; `residual` or `discard` out of
            range.
    """
    for name, value, high in (("residual", residual, 1), ("discard", discard, 0.999)):
        if not 0 <= value <= high:
            raise ValueError(f"{name} is a share, 0 to {high}, not {value!r}")
    settings = {"fuse": _fused(heads), "residual": float(residual), "discard": float(discard)}
    return _map(model, images, target, _rollout, layers, **settings)


def gradient_attention(
    model: keras.Model, images, target=None, layers: Sequence[str] | None = None
) -> np.ndarray:
    """The last layer's attention where it speaks for the target, `mean_heads (dS/dA * A)+`.

    Source: Chefer, Gur & Wolf, "Generic attention-model explainability" (ICCV 2021), equation 5,
    of the last layer alone.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layers: names or paths of attention layers, or of the layers or operations that return
            probabilities `(N, heads, T, T)`; the last of them is shown. Default every Keras
            attention layer of heads.

    Returns:
        float32 maps `(N, rows, columns)`, not negative, in logits.

    Raises:
        ValueError: bad images or target, no attention, one that is not from a picture's tokens to
            themselves, layers of different numbers of heads or tokens, or tokens that are no grid
            of places.
    """
    return _map(model, images, target, _gradient_attention, layers)


def attention_relevance(
    model: keras.Model, images, target=None, layers: Sequence[str] | None = None
) -> np.ndarray:
    """Attention that speaks for the target, gathered over the layers: `R <- R + (dS/dA * A)+ R`.

    From `R = I` and the first layer on, averaged over the heads; the identity is taken off at the
    end.
    Source: Chefer, Gur & Wolf, "Generic attention-model explainability" (ICCV 2021), equations 5
    and 6.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layers: names or paths of attention layers, or of the layers or operations that return
            probabilities `(N, heads, T, T)`, in the order in which they run; default every Keras
            attention layer of heads.

    Returns:
        float32 maps `(N, rows, columns)`, not negative.

    Raises:
        ValueError: bad images or target, no attention, one that is not from a picture's tokens to
            themselves, layers of different numbers of heads or tokens, or tokens that are no grid
            of places.
    """
    return _map(model, images, target, _relevance, layers)


def _prepared(model, images, target, function, layers, **settings):
    """The checked batch, and what the compiled function returns of it.

    Raises:
        ValueError: as `_recorded`, or what was recorded is no attention of these pictures.
    """
    batch = check_images(model, images)
    indices, of_outputs = check_target(model, batch, target)
    names = None if layers is None else tuple(layers)
    run = compiled(model, function, names=names, function=of_outputs, **settings)
    try:
        return batch, run(batch, indices)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(_NO_ATTENTION.format(model.name)) from error


_NO_ATTENTION = (
    "{} attends within windows of a picture, or a layer that was named returns no attention, whose"
    " rows add up to 1: name by layers= those that return (N, heads, tokens, tokens)"
)


def _map(model, images, target, function, layers, **settings) -> np.ndarray:
    batch, found = _prepared(model, images, target, function, layers, **settings)  # (N, T, T)
    grid, read = read_tokens(model, batch.shape, found.shape[-1])
    row = tf.einsum("t,ntu->nu", tf.constant(read, found.dtype), found)
    return grid.as_map(row[..., None])[..., 0].numpy()


def _fused(heads: str) -> str:
    if heads not in HEADS:
        raise ValueError(f"heads are made one by {', '.join(HEADS)}, not {heads!r}")
    return heads


def _recorded(model, images, indices, names, function, gradient):
    """Attention `(N, layers, heads, T, T)`, and its gradient or None.

    Raises:
        ValueError: no attention from tokens to themselves, layers that are not alike, or a score
            that does not depend on the attention.
    """
    tape = tf.GradientTape(watch_accessed_variables=False)
    with tape, capture_attention(model, names, tape if gradient else None) as recorded:
        outputs = model(images, training=False)
        asked = score(outputs, indices, function) if gradient else None
    for found in recorded:
        _check(model, found, recorded[0])
        tf.debugging.assert_equal(tf.shape(found)[0], tf.shape(images)[0])
        tf.debugging.assert_near(tf.reduce_sum(widened(found), -1), 1.0, atol=0.02)
    stacked, gradients = widened(tf.stack(recorded, axis=1)), None
    if gradient:
        gradients = tape.gradient(asked, recorded)
        if all(each is None for each in gradients):
            raise ValueError(f"the score does not depend on the attention of {model.name}")
        zero = tf.zeros_like(recorded[0])
        gradients = [zero if each is None else each for each in gradients]
        gradients = widened(tf.stack(gradients, axis=1))
    return stacked, gradients


def _check(model, found, first) -> None:
    if len(found.shape) != 4 or found.shape[2] != found.shape[3]:  # unknown ones are told later
        raise ValueError(
            f"{model.name} attends from other tokens than to, {tuple(found.shape)}: name by layers="
            " those whose attention is (N, heads, tokens, tokens)"
        )
    if found.shape[1:] != first.shape[1:]:
        raise ValueError(
            f"{model.name} has attention of {first.shape[1]} heads over {first.shape[2]} tokens and"
            f" of {found.shape[1]} over {found.shape[2]}: name by layers= those that are alike"
        )


def _raw_attention(model, images, indices, names, function, fuse):
    found, _ = _recorded(model, images, indices, names, function, False)
    return HEADS[fuse](found[:, -1], axis=1)


def _rollout(model, images, indices, names, function, fuse, residual, discard):
    found, _ = _recorded(model, images, indices, names, function, False)
    layers = tf.unstack(HEADS[fuse](found, axis=2), axis=1)
    return _product([_mixed(layer, residual, discard) for layer in layers])


def _mixed(attended, residual: float, discard: float):
    """Attention `(N, T, T)` without its smallest entries, mixed with the identity."""
    tokens = tf.shape(attended)[-1]
    if discard:
        flat = tf.sort(tf.reshape(attended, (-1, tokens * tokens)), axis=1)
        least = flat[:, tf.cast(discard * tf.cast(tokens * tokens, tf.float64), tf.int32)]
        attended = tf.where(attended < least[:, None, None], 0.0, attended)
    mixed = (1 - residual) * attended + residual * tf.eye(tokens, dtype=attended.dtype)
    return tf.math.divide_no_nan(mixed, tf.reduce_sum(mixed, axis=-1, keepdims=True))


def _product(layers):
    """Last layer times ... times first."""
    result = layers[0]
    for layer in layers[1:]:
        result = tf.matmul(layer, result)
    return result


def _speaking_for(model, images, indices, names, function):
    """`mean_heads (dS/dA * A)+`, `(N, layers, T, T)`."""
    found, gradients = _recorded(model, images, indices, names, function, True)
    return tf.reduce_mean(tf.nn.relu(found * gradients), axis=2)


def _gradient_attention(model, images, indices, names, function):
    return _speaking_for(model, images, indices, names, function)[:, -1]


def _relevance(model, images, indices, names, function):
    layers = tf.unstack(_speaking_for(model, images, indices, names, function), axis=1)
    identity = tf.eye(tf.shape(layers[0])[-1], dtype=layers[0].dtype)
    return _product([identity + layer for layer in layers]) - identity
