"""Guided backpropagation and deconvnet: gradients with another rule at every ReLU.

TensorFlow's own gradient override is used inside a traced function: it reaches every `Relu` and
`Relu6` operation, in a layer of its own, as an argument `activation=` or called by hand, and the
user's model is not touched.
"""

import numpy as np

from xai_utils.attribution.class_activation import grad_cam
from xai_utils.attribution.gradients import existing
from xai_utils.engine import check_images, compiled, keras, tf, widened
from xai_utils.models import check_target, score

RELUS = ("Relu", "Relu6")


def guided_backprop(model: keras.Model, images, target=None) -> np.ndarray:
    """Guided backpropagation: a ReLU passes a gradient only where it and the input are positive.

    At every ReLU of input a the gradient R becomes `[a > 0] [R > 0] R`.
    Source: Springenberg et al., "Striving for simplicity" (2015), section 3.4. It draws the
    picture's edges whatever the network has learnt (Adebayo et al. 2018): read it with care.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs; ReLU and ReLU6 are handled, other
            activations keep their own gradient.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.

    Returns:
        float32 maps `(N, H, W)`, signed: per pixel the channel of the largest magnitude, in logits
        per grey level.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, a model
            without ReLU.
    """
    return _strongest_channel(modified_gradient(model, images, target, "guided"))


def deconvnet(model: keras.Model, images, target=None) -> np.ndarray:
    """Deconvnet: at every ReLU pass a gradient only where it is positive, whatever the input was.

    The gradient R becomes `[R > 0] R`.
    Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks" (ECCV 2014), in
    the form given by Springenberg et al. (2015), section 3.4.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs; ReLU and ReLU6 are handled, other
            activations keep their own gradient.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.

    Returns:
        float32 maps `(N, H, W)`, signed: per pixel the channel of the largest magnitude, in logits
        per grey level.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, a model
            without ReLU.
    """
    return _strongest_channel(modified_gradient(model, images, target, "deconvnet"))


def guided_grad_cam(
    model: keras.Model, images, target=None, layer: str | None = None
) -> np.ndarray:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM enlarged to the picture, bilinear.

    `guided_backprop * up(grad_cam)`.
    Source: Selvaraju et al., "Grad-CAM" (ICCV 2017), section 3.3.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs; ReLU and ReLU6 are handled, other
            activations keep their own gradient.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.

    Returns:
        float32 maps `(N, H, W)`, signed: the product of logits per grey level and logits per
        position.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels or the layer,
            an unknown layer, one without spatial extent, a model without ReLU.
    """
    guided = guided_backprop(model, images, target)
    coarse = grad_cam(model, images, target, layer)
    return guided * tf.image.resize(coarse[..., None], guided.shape[1:])[..., 0].numpy()


def modified_gradient(model: keras.Model, images, target, rule: str) -> np.ndarray:
    """The pixel gradient `(N, H, W, C)` under a ReLU rule, `guided` or `deconvnet`."""
    batch = check_images(model, images)
    indices, function = check_target(model, batch, target)
    return compiled(model, _modified_gradient, rule=rule, function=function)(batch, indices).numpy()


def _strongest_channel(gradient: np.ndarray) -> np.ndarray:
    index = np.abs(gradient).argmax(axis=-1)
    return np.take_along_axis(gradient, index[..., None], axis=-1)[..., 0]


def _rule_name(rule: str, kind: str) -> str:
    return f"XaiUtils_{rule}_{kind}"


def _register(rule: str, kind: str) -> None:
    @tf.RegisterGradient(_rule_name(rule, kind))
    def gradient(operation, incoming):
        passed = tf.cast(incoming > 0, incoming.dtype) * incoming
        if rule == "deconvnet":
            return passed
        return passed * tf.cast(operation.outputs[0] > 0, incoming.dtype)


for _rule in ("guided", "deconvnet"):
    for _kind in RELUS:
        _register(_rule, _kind)


def _modified_gradient(model, images, indices, rule, function):
    graph = tf.compat.v1.get_default_graph()
    with graph.gradient_override_map({kind: _rule_name(rule, kind) for kind in RELUS}):
        scores = score(widened(model(images, training=False)), indices, function)
    gradient = existing(tf.gradients(scores, images)[0], model)
    if not any(operation.type in RELUS for operation in graph.get_operations()):
        raise ValueError(
            f"{model.name} has no ReLU or ReLU6, so {rule} backpropagation is its plain gradient:"
            " use saliency"
        )
    return gradient
