"""Attribution from the activations of a convolutional layer, weighted for the score.

Every function has the signature `method(model, images, target=None, **settings) -> maps`; see `attribution`. In the
formulas A are the layer's activations `(N, h, w, K)`, S the score, g = dS/dA, Z = h w the number of positions, and sums
without an index run over the K channels. `cams` gives any number of these maps from one pass. Maps that need no
gradient are in `activation_only`.
"""

from collections.abc import Sequence

import numpy as np

from xai_utils.backend import check_images, compiled, keras, tf
from xai_utils.capture import capture
from xai_utils.layers import check_layer
from xai_utils.targets import check_target, score


def _weighted(activations, weights):
    return tf.einsum("nhwk,nk->nhw", activations, weights)


def _grad_cam(a, g):
    return _weighted(a, tf.reduce_mean(g, axis=(1, 2)))


def _grad_cam_plus_plus(a, g):
    return _weighted(a, tf.reduce_sum(_plus_plus_alpha(a, g) * tf.nn.relu(g), axis=(1, 2)))


def _grad_cam_plus_plus_rescaled(a, g):
    alpha = _plus_plus_alpha(a, g)
    alpha = tf.math.divide_no_nan(alpha, tf.reduce_sum(alpha, axis=(1, 2), keepdims=True))
    return _weighted(a, tf.reduce_sum(alpha * tf.nn.relu(g), axis=(1, 2)))


def _plus_plus_alpha(a, g):
    # With Y = exp(S) the second and third derivatives are powers of g times Y, and Y cancels (equation 19).
    return tf.math.divide_no_nan(g**2, 2 * g**2 + tf.reduce_sum(a, axis=(1, 2), keepdims=True) * g**3)


def _layer_cam(a, g):
    return tf.reduce_sum(tf.nn.relu(g) * a, axis=-1)


def _hires_cam(a, g):
    return tf.reduce_sum(g * a, axis=-1)


def _xgrad_cam(a, g):
    # A dead channel sums to zero and has no weight, instead of NaN.
    return _weighted(a, tf.math.divide_no_nan(tf.reduce_sum(g * a, axis=(1, 2)), tf.reduce_sum(a, axis=(1, 2))))


# name -> (map of activations and gradients, whether its paper cuts negative evidence off)
CAMS = {
    "grad_cam": (_grad_cam, True),
    "grad_cam_plus_plus": (_grad_cam_plus_plus, True),
    "grad_cam_plus_plus_rescaled": (_grad_cam_plus_plus_rescaled, True),
    "layer_cam": (_layer_cam, True),
    "hires_cam": (_hires_cam, False),
    "xgrad_cam": (_xgrad_cam, False),
}


def cams(
    model: keras.Model,
    images,
    targets: Sequence = (None,),
    methods: Sequence[str] = tuple(CAMS),
    layer_names: Sequence[str | None] = (None,),
    relu: bool | None = None,
) -> dict[str | None, dict[str, np.ndarray]]:
    """Several class activation maps from one forward pass: any methods, for several targets and several layers.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        targets: T targets, each as in every technique: None, an index, N indices or a callable.
        methods: keys of `CAMS`.
        layer_names: layers that return `(N, h, w, K)`; None is the last one that computes features.
        relu: cut negative evidence off; None does what each method's paper does.

    Returns:
        `{layer name as given: {method: float32 (T, N, h, w)}}`.

    Raises:
        ValueError: as `grad_cam`; an unknown method.
    """
    if unknown := [name for name in methods if name not in CAMS]:
        raise ValueError(f"no class activation method is called {unknown[0]!r}; there are {', '.join(CAMS)}")
    batch = check_images(model, images)
    checked = [check_target(model, batch, target) for target in targets]
    names = tuple(check_layer(model, batch.shape, name) for name in layer_names)
    functions = tuple(function for _, function in checked)
    run = compiled(model, _cams, names=names, methods=tuple(methods), relu=relu, functions=functions)
    maps = run(batch, [indices for indices, _ in checked])
    return {
        given: {method: maps[name][method].numpy() for method in methods}
        for given, name in zip(layer_names, names, strict=True)
    }


def _one(method, model, images, target, layer, relu) -> np.ndarray:
    return cams(model, images, (target,), (method,), (layer,), relu)[layer][method][0]


def grad_cam(model: keras.Model, images, target=None, layer: str | None = None, relu: bool = True) -> np.ndarray:
    """Grad-CAM: activations weighted by their average gradient, `ReLU(sum_k mean(g_k) A_k)`.

    Source: Selvaraju et al., "Grad-CAM" (ICCV 2017), equations 1 and 2.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer that returns `(N, h, w, K)`; default the last one that computes features.
        relu: keep only evidence for the target; False also shows evidence against it.

    Returns:
        float32 maps `(N, h, w)`, in logits per position: on a network that ends in global average pooling and one
        Dense layer the sum over the positions, without ReLU, is the logit minus its bias.

    Raises:
        ValueError: bad images or target, unknown layer, a layer without spatial extent, or one the score does not
            depend on.
    """
    return _one("grad_cam", model, images, target, layer, relu)


def grad_cam_plus_plus(
    model: keras.Model, images, target=None, layer: str | None = None, relu: bool = True, rescaled: bool = False
) -> np.ndarray:
    """Grad-CAM++: channels weighted by the positive gradients, each place by `alpha = g^2 / (2 g^2 + sum(A) g^3)`.

    Source: Chattopadhay et al., "Grad-CAM++" (WACV 2018), equations 9 to 19 with Y = exp(S). The authors' program also
    divides alpha by its sum over each channel, which the paper does not say: that variant is `rescaled=True`. Where
    g is negative the denominator can come near zero and below, so that single places dominate; so it is in the paper.

    Args, Returns, Raises: as `grad_cam`.
    """
    return _one("grad_cam_plus_plus" + "_rescaled" * rescaled, model, images, target, layer, relu)


def layer_cam(model: keras.Model, images, target=None, layer: str | None = None, relu: bool = True) -> np.ndarray:
    """LayerCAM: every place has a weight of its own, its positive gradient, `ReLU(sum_k ReLU(g_k) A_k)`.

    Source: Jiang et al., "LayerCAM" (TIP 2021), equations 6 and 7. Usable at early layers too.

    Args, Returns, Raises: as `grad_cam`.
    """
    return _one("layer_cam", model, images, target, layer, relu)


def hires_cam(model: keras.Model, images, target=None, layer: str | None = None, relu: bool = False) -> np.ndarray:
    """HiResCAM: gradient times activation at every place, `sum_k g_k A_k`.

    On a network whose ending is linear its sum is the logit minus the bias.
    Source: Draelos & Carin, "Use HiResCAM instead of Grad-CAM" (2020), equation 5.

    Args, Returns, Raises: as `grad_cam`.
    """
    return _one("hires_cam", model, images, target, layer, relu)


def xgrad_cam(model: keras.Model, images, target=None, layer: str | None = None, relu: bool = False) -> np.ndarray:
    """XGrad-CAM: channel weights `sum(g_k A_k) / sum(A_k)`, the gradient averaged where the channel is active.

    Source: Fu et al., "Axiom-based Grad-CAM" (BMVC 2020), equation 8.

    Args, Returns, Raises: as `grad_cam`.
    """
    return _one("xgrad_cam", model, images, target, layer, relu)


def _cams(model, images, indices, names, methods, relu, functions):
    """One forward pass; nothing below the first layer is differentiated, and each target costs one way back."""
    with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
        with capture(model, names, tape) as activations:
            outputs = model(images, training=False)
        scores = [score(outputs, indices[i], function) for i, function in enumerate(functions)]
    gradients = [tape.gradient(each, activations) for each in scores]
    maps = {name: {} for name in names}
    for name in names:
        if any(gradient[name] is None for gradient in gradients):
            raise ValueError(f"the score does not depend on layer {name!r} through anything with a gradient")
        for method in methods:
            formula, cut = CAMS[method]
            stacked = tf.stack([formula(activations[name], gradient[name]) for gradient in gradients])
            maps[name][method] = tf.nn.relu(stacked) if (cut if relu is None else relu) else stacked
    return maps
