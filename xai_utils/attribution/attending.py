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

from xai_utils.attribution.gradients import finite
from xai_utils.engine import check_images, compiled, keras, tf, widened
from xai_utils.models import capture_attention, check_target, read_tokens, score

# of which layers the gradient is sought
ALL, LAST, NONE = (None, None), (-1, None), (0, 0)
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
    sought = ALL if gradient else NONE
    _, found = _prepared(model, images, target, _recorded, layers, sought=sought)
    stacked = [np.stack(finite(part, model), axis=1) for part in found if part]
    return tuple(stacked) if gradient else stacked[0]


def raw_attention(
    model: keras.Model,
    images,
    target=None,
    heads: str = "mean",
    layers: Sequence[str] | None = None,
) -> np.ndarray:
    """Raw attention: what the last layer attends to, `A = softmax(Q K' / sqrt(d))`.

    Source: Vaswani et al., "Attention is all you need" (NeurIPS 2017), equation 1; as a map of what
    the class token looks at Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021).

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
            of places, or a map that is not finite.
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
            of places, or a map that is not finite.
    """
    return _map(model, images, target, _relevance, layers, along=_gathered)


def _prepared(model, images, target, function, layers, **settings):
    """The checked batch, and what the compiled function returns of it.

    Raises:
        ValueError: as `_recorded`, or what was recorded is no attention of these pictures.
    """
    batch = check_images(model, images)
    indices, of_outputs = check_target(model, batch, target)
    if isinstance(layers, str) or (layers is not None and not len(layers)):
        raise ValueError(f"layers is a list of names, such as ['attention'], not {layers!r}")
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


def _map(model, images, target, function, layers, along=None, **settings) -> np.ndarray:
    """The places' share of the row that the head reads, along the layers `(N, T, T)` of a function.

    A row times a matrix, layer by layer: the product of whole matrices would take T times as long.
    """
    batch, found = _prepared(model, images, target, function, layers, **settings)
    grid, read = read_tokens(model, batch.shape, found[0].shape[-1])
    row = tf.repeat(tf.constant(read, found[0].dtype)[None], len(batch), axis=0)
    row = (along or _followed)(row, found)
    return finite(grid.as_map(row[..., None])[..., 0], model)


def _followed(row, layers):
    """`row @ last @ ... @ first`."""
    for layer in reversed(layers):
        row = _times(row, layer)
    return row


def _gathered(row, layers):
    """`row @ ((I + last) @ ... @ (I + first) - I)`, without the rounding that I would bring in."""
    gathered = tf.zeros_like(row)
    for layer in reversed(layers):
        gathered += _times(row + gathered, layer)
    return gathered


def _times(row, matrix):
    return tf.linalg.matvec(matrix, row, transpose_a=True)


def _fused(heads: str) -> str:
    if heads not in HEADS:
        raise ValueError(f"heads are made one by {', '.join(HEADS)}, not {heads!r}")
    return heads


def _recorded(model, images, indices, names, function, sought):
    """Attention `(N, heads, T, T)` of every layer, and the gradients of those `sought`, lists.

    Raises:
        ValueError: no attention from tokens to themselves, layers that are not alike, or a score
            that does not depend on the attention.
    """
    tape = tf.GradientTape(watch_accessed_variables=False)
    with tape, capture_attention(model, names, None if sought == NONE else tape) as recorded:
        outputs = model(images, training=False)
        asked = None if sought == NONE else score(outputs, indices, function)
    for found in recorded:
        _check(model, found, recorded[0])
        tf.debugging.assert_equal(tf.shape(found)[0], tf.shape(images)[0])
        tf.debugging.assert_near(tf.reduce_sum(widened(found), -1), 1.0, atol=0.02)
    gradients = []
    if sources := recorded[slice(*sought)]:
        gradients = tape.gradient(asked, sources)
        if all(each is None for each in gradients):
            raise ValueError(f"the score does not depend on the attention of {model.name}")
        gradients = [tf.zeros_like(sources[0]) if each is None else each for each in gradients]
    return [widened(layer) for layer in recorded], [widened(layer) for layer in gradients]


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
    found, _ = _recorded(model, images, indices, names, function, NONE)
    return [HEADS[fuse](found[-1], axis=1)]


def _rollout(model, images, indices, names, function, fuse, residual, discard):
    found, _ = _recorded(model, images, indices, names, function, NONE)
    return [_mixed(HEADS[fuse](layer, axis=1), residual, discard) for layer in found]


def _mixed(attended, residual: float, discard: float):
    """Attention `(N, T, T)` without its smallest entries, mixed with the identity."""
    tokens = tf.shape(attended)[-1]
    if discard:
        flat = tf.sort(tf.reshape(attended, (-1, tokens * tokens)), axis=1)
        least = flat[:, tf.cast(discard * tf.cast(tokens * tokens, tf.float64), tf.int32)]
        attended = tf.where(attended < least[:, None, None], 0.0, attended)
    mixed = (1 - residual) * attended + residual * tf.eye(tokens, dtype=attended.dtype)
    return tf.math.divide_no_nan(mixed, tf.reduce_sum(mixed, axis=-1, keepdims=True))


def _speaking_for(found, gradients):
    """`mean_heads (dS/dA * A)+` of each layer, `(N, T, T)`."""
    pairs = zip(found, gradients, strict=True)
    return [tf.reduce_mean(tf.nn.relu(layer * gradient), axis=1) for layer, gradient in pairs]


def _gradient_attention(model, images, indices, names, function):
    found, gradients = _recorded(model, images, indices, names, function, LAST)
    return _speaking_for(found[-1:], gradients)


def _relevance(model, images, indices, names, function):
    return _speaking_for(*_recorded(model, images, indices, names, function, ALL))
