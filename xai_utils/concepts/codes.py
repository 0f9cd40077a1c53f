"""What a layer returns for pictures, and how a score changes with it."""

import numpy as np

from xai_utils.engine import check_images, compiled, in_parts, keras, no_gradient, tf, widened
from xai_utils.models import capture, check_layer, check_target, code_at, layer_shape, score

PICTURES_AT_ONCE = 64


def codes(model: keras.Model, images, layer: str | None = None, places: bool = False) -> np.ndarray:
    """The codes of pictures at a layer: a number a channel, the mean over its places.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`, tokens that are a
            grid of places, or `(N, K)`; default the one whose map is pooled or flattened before the
            head.
        places: keep the places apart.

    Returns:
        float32 `(N, K)`, or `(N, h, w, K)` with `places`.

    Raises:
        ValueError: bad images, an unknown layer, one that returns neither a map nor `(N, K)`, or,
            with `places`, no map; codes that are not finite.
    """
    batch = check_images(model, images)
    layer = checked_layer(model, batch.shape, layer, places)
    run = compiled(model, _codes, layer=layer, places=places)
    found = np.concatenate([run(part).numpy() for part in in_parts(batch, PICTURES_AT_ONCE)])
    _all_finite(found, f"{model.name}'s codes at layer {layer!r}")
    return found


def slopes(model: keras.Model, images, target=None, layer: str | None = None) -> np.ndarray:
    """How the score changes with each number of a layer's code, `dS/dA`.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`, tokens that are a
            grid of places, or `(N, K)`; default the one whose map is pooled or flattened before the
            head.

    Returns:
        float32 `(N, h, w, K)` or `(N, K)`, in scores per unit of the layer.

    Raises:
        ValueError: bad images or target, an unknown layer, one that returns neither a map nor
            `(N, K)`, or one that the score does not depend on; slopes that are not finite.
    """
    batch = check_images(model, images)
    indices, function = check_target(model, batch, target)
    layer = checked_layer(model, batch.shape, layer)
    run = compiled(model, _slopes, layer=layer, function=function)
    parts = zip(in_parts(batch, PICTURES_AT_ONCE), in_parts(indices, PICTURES_AT_ONCE), strict=True)
    found = np.concatenate([run(*part).numpy() for part in parts])
    _all_finite(found, f"{model.name}'s slopes at layer {layer!r}")
    return found


def _all_finite(found: np.ndarray, what: str):
    if (bad := ~np.isfinite(found).reshape(len(found), -1).all(axis=1)).any():
        raise ValueError(
            f"{what} are not finite for {bad.sum()} of {len(found)} pictures, the first of them"
            f" picture {bad.argmax()}"
        )


def checked_layer(model: keras.Model, shape, layer: str | None, places: bool = True) -> str:
    """The layer's name, or a ValueError if it has no code; see `codes`."""
    if layer is None or places:
        return check_layer(model, shape, layer)
    found = layer_shape(model, shape, layer)
    if len(found) not in (2, 4):
        raise ValueError(
            f"layer {layer!r} of {model.name} returns {found}, neither a map (N, h, w, K) nor"
            " (N, K): choose another layer"
        )
    return layer


def _codes(model, images, layer, places):
    found = widened(code_at(model, images, layer))
    return found if places or found.shape.rank == 2 else tf.reduce_mean(found, axis=(1, 2))


def _slopes(model, images, indices, layer, function):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        with capture(model, [layer], tape) as activations:
            outputs = model(images, training=False)
        asked = score(outputs, indices, function)
    gradient = tape.gradient(asked, activations[layer])
    if gradient is None:
        raise ValueError(no_gradient(model, f"layer {layer!r}"))
    return widened(gradient)
