"""Guided backpropagation and deconvnet: gradients with another rule at every ReLU.

TensorFlow's own gradient override is used inside a traced function: it reaches every `Relu` and
`Relu6` operation, in a layer of its own, as an argument `activation=` or called by hand, and the
user's model is not touched. The rules say what a rectifier does, and nothing of other activations:
a network that makes its features with one is refused. A gate (sigmoid, hard sigmoid) only weighs
features, as the softmax of an attention does, and keeps its own gradient.
"""

import numpy as np

from xai_utils.attribution.activations import (
    RELUS,
    is_hard_sigmoid,
    noted_calls,
    other_than_relu,
)
from xai_utils.attribution.class_activation import grad_cam
from xai_utils.attribution.gradients import existing, finite
from xai_utils.engine import check_images, compiled, keras, tf, widened
from xai_utils.models import check_target, score

_SPOKEN = {"guided": "guided backpropagation", "deconvnet": "deconvnet"}


def guided_backprop(model: keras.Model, images, target=None) -> np.ndarray:
    """Guided backpropagation: a ReLU passes a gradient only where it and the input are positive.

    At every ReLU of input a the gradient R becomes `[a > 0] [R > 0] R`.
    Source: Springenberg et al., "Striving for simplicity" (2015), section 3.4. It draws the
    picture's edges whatever the network has learnt (Adebayo et al. 2018): read it with care.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs, whose features are made with ReLU or
            ReLU6. Gates (a sigmoid or hard sigmoid that other features are multiplied with),
            softmax and what no weights follow keep their own gradient.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.

    Returns:
        float32 maps `(N, H, W)`, signed: per pixel the channel of the largest magnitude, in logits
        per grey level.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, a model
            without ReLU, or with an activation for which there is no rule (GELU, SiLU, hard-swish,
            ELU, leaky ReLU, ...), which is named with a layer that has it, or a map that is not
            finite.
    """
    return _strongest_channel(modified_gradient(model, images, target, "guided"))


def deconvnet(model: keras.Model, images, target=None) -> np.ndarray:
    """Deconvnet: at every ReLU pass a gradient only where it is positive, whatever the input was.

    The gradient R becomes `[R > 0] R`.
    Source: Zeiler & Fergus, "Visualizing and understanding convolutional networks" (ECCV 2014), in
    the form given by Springenberg et al. (2015), section 3.4.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs, whose features are made with ReLU or
            ReLU6. Gates (a sigmoid or hard sigmoid that other features are multiplied with),
            softmax and what no weights follow keep their own gradient.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.

    Returns:
        float32 maps `(N, H, W)`, signed: per pixel the channel of the largest magnitude, in logits
        per grey level.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, a model
            without ReLU, or with an activation for which there is no rule (GELU, SiLU, hard-swish,
            ELU, leaky ReLU, ...), which is named with a layer that has it, or a map that is not
            finite.
    """
    return _strongest_channel(modified_gradient(model, images, target, "deconvnet"))


def guided_grad_cam(
    model: keras.Model, images, target=None, layer: str | None = None
) -> np.ndarray:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM enlarged to the picture, bilinear.

    `guided_backprop * up(grad_cam)`.
    Source: Selvaraju et al., "Grad-CAM" (ICCV 2017), section 3.3.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs, whose features are made with ReLU or
            ReLU6. Gates (a sigmoid or hard sigmoid that other features are multiplied with),
            softmax and what no weights follow keep their own gradient.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.

    Returns:
        float32 maps `(N, H, W)`, signed: the product of logits per grey level and logits per
        position.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels or the layer,
            an unknown layer, one without spatial extent, a model without ReLU, or with an
            activation for which there is no rule (GELU, SiLU, hard-swish, ELU, leaky ReLU, ...),
            which is named with a layer that has it, or a map that is not finite.
    """
    guided = guided_backprop(model, images, target)
    coarse = grad_cam(model, images, target, layer)
    return guided * tf.image.resize(coarse[..., None], guided.shape[1:])[..., 0].numpy()


def modified_gradient(model: keras.Model, images, target, rule: str) -> np.ndarray:
    """The pixel gradient `(N, H, W, C)` under a ReLU rule, `guided` or `deconvnet`."""
    batch = check_images(model, images)
    indices, function = check_target(model, batch, target)
    run = compiled(model, _modified_gradient, rule=rule, function=function)
    return finite(run(batch, indices), model)


def _strongest_channel(gradient: np.ndarray) -> np.ndarray:
    index = np.abs(gradient).argmax(axis=-1)
    return np.take_along_axis(gradient, index[..., None], axis=-1)[..., 0]


def _rule_name(rule: str, kind: str) -> str:
    return f"XaiUtils_{rule}_{kind}"


def _register(rule: str, kind: str) -> None:
    @tf.RegisterGradient(_rule_name(rule, kind))
    def gradient(operation, incoming):
        if is_hard_sigmoid(operation):
            return tf.raw_ops.Relu6Grad(gradients=incoming, features=operation.inputs[0])
        passed = tf.cast(incoming > 0, incoming.dtype) * incoming
        if rule == "deconvnet":
            return passed
        return passed * tf.cast(operation.outputs[0] > 0, incoming.dtype)


for _rule in ("guided", "deconvnet"):
    for _kind in RELUS:
        _register(_rule, _kind)


def _modified_gradient(model, images, indices, rule, function):
    graph = tf.compat.v1.get_default_graph()
    overridden = graph.gradient_override_map({kind: _rule_name(rule, kind) for kind in RELUS})
    with overridden, noted_calls(model, graph) as calls:
        scores = score(widened(model(images, training=False)), indices, function)
    gradient = existing(tf.gradients(scores, images)[0], model)
    _check_activations(model, graph, images, scores, calls, _SPOKEN[rule])
    return gradient


def _check_activations(model, graph, images, scores, calls, rule) -> None:
    kinds = {operation.type for operation in graph.get_operations()}
    if other := other_than_relu(graph, images, scores, calls):
        instead = "" if kinds & {*RELUS} else "no ReLU or ReLU6 but "
        name, path = other
        where = f"layer {path!r}" if path else "in its own call"
        raise ValueError(
            f"{model.name} has {instead}{name} ({where}), and {rule} is defined for ReLU and ReLU6"
            " alone: use saliency"
        )
    if not kinds & {*RELUS}:
        raise ValueError(
            f"{model.name} has no ReLU or ReLU6, so {rule} is its plain gradient: use saliency"
        )
