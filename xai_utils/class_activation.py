"""Attribution from the activations of a convolutional layer, weighted for the score.

Every function has the signature `method(model, images, target=None, **settings) -> maps`; see `attribution`. In the
formulas A are the layer's activations `(N, h, w, K)`, S the score, g = dS/dA, Z = h w the number of positions.
"""

import numpy as np

from xai_utils import layers
from xai_utils.backend import check_images, compiled, keras, tf
from xai_utils.capture import capture
from xai_utils.targets import check_target, classes, score


def grad_cam(model: keras.Model, images, target=None, layer: str | None = None, relu: bool = True) -> np.ndarray:
    """Grad-CAM: activations weighted by their average gradient, `ReLU(sum_k mean(g_k) A_k)`.

    Source: Selvaraju et al., "Grad-CAM" (ICCV 2017), equations 1 and 2.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), class index, N indices, or a callable `outputs -> (N,)`.
        layer: name or path of a layer that returns `(N, h, w, K)`; default the last one that computes features.
        relu: keep only evidence for the target, as the paper does; False also shows evidence against it.

    Returns:
        float32 maps `(N, h, w)`, in logits per position: on a network that ends in global average pooling and one
        Dense layer the sum over the positions, without ReLU, is the logit minus its bias.

    Raises:
        ValueError: bad images or target, unknown layer, a layer without spatial extent, or one the score does not
            depend on.
    """
    batch = check_images(model, images)
    indices, function = check_target(model, batch, target)
    layer = _check_layer(model, batch, layer)
    run = compiled(model, _grad_cam, layer=layer, relu=relu, function=function)
    return run(batch, indices).numpy()


def cam(model: keras.Model, images, target=None, layer: str | None = None) -> np.ndarray:
    """CAM: activations weighted by the target's column of the last Dense layer, `sum_k w_k A_k`; no gradient needed.

    Exact where the network ends in global average pooling and one Dense layer; that is checked on the batch itself.
    Source: Zhou et al., "Learning deep features for discriminative localization" (CVPR 2016), equation 2.

    Args:
        model, images, layer: as for `grad_cam`.
        target: None (top class), class index or N indices; a callable has no column of weights.

    Returns:
        float32 maps `(N, h, w)`, signed, in logits: their mean over the positions is the logit minus its bias.

    Raises:
        ValueError: as `grad_cam`, and where the network does not end in global average pooling and one Dense layer.
    """
    batch = check_images(model, images)
    indices, function = check_target(model, batch, target)
    if function is not None:
        raise ValueError(
            "cam explains classes only: its weights are a class's column of the last Dense layer; use grad_cam"
        )
    layer = _check_layer(model, batch, layer)
    maps, gap = compiled(model, _cam, layer=layer, head=_dense_head(model, layer))(batch, indices)
    if not gap.numpy() < 1e-3:
        raise ValueError(_NOT_GAP.format(model.name, layer))
    return maps.numpy()


_NOT_GAP = (
    "cam is exact only where global average pooling and one Dense layer follow the layer; {0} does something else "
    "after {1!r}: use grad_cam, or another layer"
)


def _check_layer(model, images, layer: str | None) -> str:
    """The layer to read, checked to have spatial extent."""
    if layer is None:
        return layers.default_layer(model, images.shape)
    found = layers.find_layer(model, layer)
    shapes = layers.output_shapes(model, images.shape)[0]
    shape = next((shapes[path] for path, each in layers.walk(model) if each is found and path in shapes), ())
    if not layers.is_spatial(shape):
        usable = layers.default_layer(model, images.shape)
        raise ValueError(f"layer {layer!r} returns {shape}, not maps (N, h, w, channels); {usable!r} would do")
    return layer


def _activations_and_gradients(model, images, indices, layer, function):
    """A and g from one pass; nothing below the layer is differentiated."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        with capture(model, [layer], tape) as activations:
            outputs = model(images, training=False)
        scores = score(outputs, indices, function)
    gradient = tape.gradient(scores, activations[layer])
    if gradient is None:
        raise ValueError(f"the score does not depend on layer {layer!r} through anything with a gradient")
    return activations[layer], gradient


def _grad_cam(model, images, indices, layer, relu, function):
    activations, gradient = _activations_and_gradients(model, images, indices, layer, function)
    maps = tf.einsum("nhwk,nk->nhw", activations, tf.reduce_mean(gradient, axis=(1, 2)))
    return tf.nn.relu(maps) if relu else maps


def _dense_head(model, layer: str) -> str:
    """Path of the last Dense layer, whose weights CAM reads."""
    dense = [path for path, each in layers.walk(model) if isinstance(each, keras.layers.Dense)]
    if not dense:
        raise ValueError(_NOT_GAP.format(model.name, layer))
    return dense[-1]


def _cam(model, images, indices, layer, head):
    """Maps, and how far the largest mean over positions is from its logit, relative to the spread of the logits."""
    with capture(model, [layer]) as activations:
        logits = model(images, training=False)
    dense, maps = layers.find_layer(model, head), activations[layer]
    if dense.kernel.shape != (maps.shape[-1], logits.shape[-1]):
        return maps[..., 0], tf.constant(np.inf)
    pooled = tf.reduce_mean(maps, axis=(1, 2)) @ dense.kernel
    pooled = pooled + dense.bias if dense.use_bias else pooled
    gap = tf.reduce_max(tf.abs(pooled - logits)) / (tf.math.reduce_std(logits) + 1e-12)
    columns = tf.gather(tf.transpose(dense.kernel), classes(logits, indices))
    return tf.einsum("nhwk,nk->nhw", maps, columns), gap
