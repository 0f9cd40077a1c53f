"""Attribution from the activations of a convolutional layer, weighted for the score.

Every function has the signature `method(model, images, target=None, **settings) -> maps`; see
`attribution`. In the formulas A are the layer's activations `(N, h, w, K)`, S the score, g = dS/dA,
Z = h w the number of positions, and sums without an index run over the K channels. `cams` gives any
number of these maps from one pass. CAM, Score-CAM, Ablation-CAM and Eigen-CAM, further down, need
no gradient.
"""

import warnings
from collections.abc import Sequence

import numpy as np

from xai_utils.attribution.gradients import existing, finite, finite_without_gradient
from xai_utils.engine import (
    check_images,
    compiled,
    in_float32,
    in_parts,
    keras,
    nearest,
    tf,
    widened,
)
from xai_utils.models import (
    capture,
    check_layer,
    check_target,
    code_at,
    fixed_target,
    outputs_from,
    score,
    scores,
    target_classes,
    walk,
)
from xai_utils.pictures import masked

IMAGES_AT_ONCE = 32  # pictures in one pass of Score-CAM, maps in one of Ablation-CAM
SMALLEST_SCORE = 1e-6  # that Ablation-CAM divides by


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
    # With Y = exp(S) the second and third derivatives are powers of g times Y, and Y cancels
    # (equation 19).
    return tf.math.divide_no_nan(
        g**2, 2 * g**2 + tf.reduce_sum(a, axis=(1, 2), keepdims=True) * g**3
    )


def _layer_cam(a, g):
    return tf.reduce_sum(tf.nn.relu(g) * a, axis=-1)


def _hires_cam(a, g):
    return tf.reduce_sum(g * a, axis=-1)


def _xgrad_cam(a, g):
    # A dead channel sums to zero and has no weight, instead of NaN.
    return _weighted(
        a, tf.math.divide_no_nan(tf.reduce_sum(g * a, axis=(1, 2)), tf.reduce_sum(a, axis=(1, 2)))
    )


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
    """Several class activation maps from one forward pass: any methods, targets and layers.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        targets: T targets, each None (top class), a class index or name, N of them, or a callable
            `outputs -> (N,)`.
        methods: keys of `CAMS`; default all.
        layer_names: layers that return `(N, h, w, K)`; None is the one that the network pools.
        relu: cut negative evidence off; None does what each method's paper does.

    Returns:
        `{layer name as given: {method: float32 (T, N, h, w)}}`. A warning says why a map is zero
        everywhere.

    Raises:
        ValueError: an unknown method, bad images or targets, an unknown layer, one without spatial
            extent, one that a score does not depend on, or a map that is not finite.
    """
    if unknown := [name for name in methods if name not in CAMS]:
        raise ValueError(
            f"no class activation method is called {unknown[0]!r}; {nearest(unknown[0], CAMS, 1)}"
        )
    batch = check_images(model, images)
    checked = [check_target(model, batch, target) for target in targets]
    names = tuple(check_layer(model, batch.shape, name) for name in layer_names)
    functions = tuple(function for _, function in checked)
    run = compiled(
        model, _cams, names=names, methods=tuple(methods), relu=relu, functions=functions
    )
    maps, signs = run(batch, [indices for indices, _ in checked])
    maps = {
        name: {method: np.stack(finite([*found], model)) for method, found in of_layer.items()}
        for name, of_layer in maps.items()
    }
    for name, of_layer in maps.items():
        for method, found in of_layer.items():
            _warn_of_zeros(method, name, found, *(sign.numpy() for sign in signs[name][method]))
    return {
        given: {method: maps[name][method] for method in methods}
        for given, name in zip(layer_names, names, strict=True)
    }


def _signs(a, gradients, maps):
    """What tells why a map is zero.

    Returns:
        Whether an image's activations are not all zero, bool `(N,)`; for each target whether its
        gradients are not, and whether evidence speaks against it somewhere, bool `(T, N)`.
    """
    axes = (1, 2, 3)
    against = [tf.reduce_any(g * a < 0, axes) for g in gradients]
    return (
        tf.reduce_any(a != 0, axes),
        tf.stack([tf.reduce_any(g != 0, axes) for g in gradients]),
        tf.stack(against) | tf.reduce_any(maps < 0, axes[1:]),
    )


def _warn_of_zeros(method: str, layer: str, maps: np.ndarray, active, changing, against) -> None:
    """Say why maps `(T, N, h, w)` are zero everywhere, in one line for each reason."""
    zero = ~maps.any(axis=(2, 3))
    if not zero.any():
        return
    reasons = np.select(
        [zero & ~active, zero & ~changing, zero & against, zero],
        [
            f"{layer!r} returns only zeros, it is dead",
            f"the score does not change with {layer!r}, all gradients are zero",
            f"at {layer!r} nothing speaks for the class, only against it",
            f"at {layer!r} no channel that is active has a gradient for the class",
        ],
        "",
    )
    for reason in dict.fromkeys(reasons[zero]):
        images = sorted(set(np.nonzero(reasons == reason)[1].tolist()))
        numbers = f"image{'s' * (len(images) > 1)} {', '.join(map(str, images))}"
        warnings.warn(f"{method} is zero everywhere on {numbers}: {reason}", stacklevel=5)


def _warn_where_dead(method: str, layer: str, maps: np.ndarray, active) -> None:
    """As `_warn_of_zeros`, of maps `(N, h, w)` without gradients: zero if not negative or dead."""
    yes = np.ones((1, len(maps)), bool)
    _warn_of_zeros(method, layer, maps[None], active, yes, yes)


def _one(method, model, images, target, layer, relu) -> np.ndarray:
    return cams(model, images, (target,), (method,), (layer,), relu)[layer][method][0]


def grad_cam(
    model: keras.Model, images, target=None, layer: str | None = None, relu: bool = True
) -> np.ndarray:
    """Grad-CAM: activations weighted by their average gradient, `ReLU(sum_k mean(g_k) A_k)`.

    Source: Selvaraju et al., "Grad-CAM" (ICCV 2017), equations 1 and 2.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.
        relu: keep only evidence for the target; False also shows evidence against it.

    Returns:
        float32 maps `(N, h, w)`, in logits per position: on a network that ends in global average
        pooling and one Dense layer the sum over the positions, without ReLU, is the logit minus its
        bias. Where a map is zero everywhere a warning says why: all evidence speaks against the
        target, or the layer is dead.

    Raises:
        ValueError: bad images or target, unknown layer, a layer without spatial extent, one the
            score does not depend on, or a map that is not finite.
    """
    return _one("grad_cam", model, images, target, layer, relu)


def grad_cam_plus_plus(
    model: keras.Model,
    images,
    target=None,
    layer: str | None = None,
    relu: bool = True,
    rescaled: bool = False,
) -> np.ndarray:
    """Grad-CAM++: channels weighted by their positive gradients, each place by its alpha.

    `alpha = g^2 / (2 g^2 + sum(A) g^3)`.
    Source: Chattopadhay et al., "Grad-CAM++" (WACV 2018), equations 9 to 19 with Y = exp(S). The
    authors' program also divides alpha by its sum over each channel, which the paper does not say:
    that variant is `rescaled=True`. Where g is negative the denominator can come near zero and
    below, so that single places dominate; so it is in the paper.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.
        relu: keep only evidence for the target; False also shows evidence against it.
        rescaled: divide alpha by its sum over each channel.

    Returns:
        float32 maps `(N, h, w)`, in logits. A warning says why a map is zero everywhere.

    Raises:
        ValueError: bad images or target, unknown layer, a layer without spatial extent, one the
            score does not depend on, or a map that is not finite.
    """
    return _one("grad_cam_plus_plus" + "_rescaled" * rescaled, model, images, target, layer, relu)


def layer_cam(
    model: keras.Model, images, target=None, layer: str | None = None, relu: bool = True
) -> np.ndarray:
    """LayerCAM: every place weighted by its own positive gradient, `ReLU(sum_k ReLU(g_k) A_k)`.

    Source: Jiang et al., "LayerCAM" (TIP 2021), equations 6 and 7. Usable at early layers too.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.
        relu: keep only evidence for the target; False also shows evidence against it.

    Returns:
        float32 maps `(N, h, w)`, in logits per position. A warning says why a map is zero
        everywhere.

    Raises:
        ValueError: bad images or target, unknown layer, a layer without spatial extent, one the
            score does not depend on, or a map that is not finite.
    """
    return _one("layer_cam", model, images, target, layer, relu)


def hires_cam(
    model: keras.Model, images, target=None, layer: str | None = None, relu: bool = False
) -> np.ndarray:
    """HiResCAM: gradient times activation at every place, `sum_k g_k A_k`.

    On a network whose ending is linear its sum is the logit minus the bias.
    Source: Draelos & Carin, "Use HiResCAM instead of Grad-CAM" (2020), equation 5.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.
        relu: keep only evidence for the target, which the paper does not.

    Returns:
        float32 maps `(N, h, w)`, signed, in logits per position. A warning says why a map is zero
        everywhere.

    Raises:
        ValueError: bad images or target, unknown layer, a layer without spatial extent, one the
            score does not depend on, or a map that is not finite.
    """
    return _one("hires_cam", model, images, target, layer, relu)


def xgrad_cam(
    model: keras.Model, images, target=None, layer: str | None = None, relu: bool = False
) -> np.ndarray:
    """XGrad-CAM: channels weighted by `sum(g_k A_k) / sum(A_k)`.

    That is the gradient, averaged where the channel is active.
    Source: Fu et al., "Axiom-based Grad-CAM" (BMVC 2020), equation 8.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.
        relu: keep only evidence for the target, which the paper does not.

    Returns:
        float32 maps `(N, h, w)`, signed, in logits per position. A warning says why a map is zero
        everywhere.

    Raises:
        ValueError: bad images or target, unknown layer, a layer without spatial extent, one the
            score does not depend on, or a map that is not finite.
    """
    return _one("xgrad_cam", model, images, target, layer, relu)


def _cams(model, images, indices, names, methods, relu, functions):
    """One forward pass, and for each target one way back, down to the first of the layers."""
    with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
        with capture(model, names, tape) as activations:
            outputs = model(images, training=False)
        asked = [score(outputs, indices[i], function) for i, function in enumerate(functions)]
    gradients = [tape.gradient(of_target, activations) for of_target in asked]
    maps, signs = {name: {} for name in names}, {name: {} for name in names}
    for name in names:
        for gradient in gradients:
            existing(gradient[name], model, f"layer {name!r}")
        a = widened(activations[name])
        of_targets = [widened(gradient[name]) for gradient in gradients]
        for method in methods:
            formula, cut = CAMS[method]
            stacked = tf.stack([formula(a, g) for g in of_targets])
            signs[name][method] = _signs(a, of_targets, stacked)
            maps[name][method] = tf.nn.relu(stacked) if (cut if relu is None else relu) else stacked
    return maps, signs


def cam(model: keras.Model, images, target=None, layer: str | None = None) -> np.ndarray:
    """CAM: activations weighted by the target's column of the last Dense layer, `sum_k w_k A_k`.

    No gradient is needed. Exact where the network ends in global average pooling and one Dense
    layer; that is checked on the batch itself.
    Source: Zhou et al., "Learning deep features for discriminative localization" (CVPR 2016),
    equation 2.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, or N of them; a callable has no column of
            weights.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.

    Returns:
        float32 maps `(N, h, w)`, signed, in logits: their mean over the positions is the logit
        minus its bias.

    Raises:
        ValueError: bad images or target, a callable target, an unknown layer, one without spatial
            extent, a network that does not end in global average pooling and one Dense layer after
            it, or a map that is not finite.
    """
    batch = check_images(model, images)
    indices, function = check_target(model, batch, target)
    if function is not None:
        raise ValueError(
            "cam explains classes only: its weights are a class's column of the last Dense layer"
        )
    if len(indices.shape) > 1:
        raise ValueError(
            f"cam needs one answer a picture, and {model.name} answers at every pixel: use grad_cam"
        )
    layer = check_layer(model, batch.shape, layer)
    maps, gap = compiled(model, _cam, layer=layer)(batch, indices)
    maps = finite_without_gradient(maps, model)
    # what is computed in half precision is exact to its own
    exact = 1e-4 if tf.as_dtype(model.compute_dtype).size > 2 else 1e-2
    if not gap.numpy() < exact:
        raise ValueError(_NOT_GAP.format(model.name, layer))
    return maps


_NOT_GAP = (
    "cam is exact only where global average pooling and one Dense layer follow the layer; {0} does"
    " something else after {1!r}: use grad_cam, or another layer"
)


def score_cam(
    model: keras.Model, images, target=None, layer: str | None = None, relu: bool = True
) -> np.ndarray:
    """Score-CAM: each channel masks the picture; its weight is the score that is left.

    To be a mask a channel is scaled to 0..1 and enlarged. `alpha = softmax_k(f(x * norm(up A_k)))`,
    `ReLU(sum_k alpha_k A_k)`. The paper subtracts f(baseline) from every f; the softmax drops what
    all have in common, so it is left out. Dead channels are skipped: their mask is empty and leaves
    a black picture, which is scored once. Pictures are masked and scored in chunks, so that memory
    does not grow with the channels.
    Source: Wang et al., "Score-CAM" (CVPRW 2020), equations 4 to 7, with the logit as f.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.
        relu: keep only evidence for the target; False also shows evidence against it.

    Returns:
        float32 maps `(N, h, w)`, in units of the activations. A warning says why a map is zero
        everywhere.

    Raises:
        ValueError: bad images or target, unknown layer, a layer without spatial extent, or a map
            that is not finite.
    """
    batch = check_images(model, images)
    indices, function = fixed_target(model, batch, target)
    layer = check_layer(model, batch.shape, layer)
    maps = widened(compiled(model, code_at, layer=layer)(batch))
    low, high = (limit(maps, axis=(1, 2)) for limit in (tf.reduce_min, tf.reduce_max))
    alive = np.argwhere((high > low).numpy()).astype(np.int32)  # (image, channel), image by image
    norm = tf.math.divide_no_nan(maps - low[:, None, None], (high - low)[:, None, None])
    run = compiled(model, _masked_by_channel, function=function)
    kept = [
        run(batch, norm, indices, tf.constant(part)) for part in in_parts(alive, IMAGES_AT_ONCE)
    ]
    left = np.zeros((len(batch), maps.shape[-1]), np.float32)
    if len(alive) < left.size:
        left += compiled(model, scores, function=function)(tf.zeros_like(batch), indices).numpy()[
            :, None
        ]
    left[tuple(alive.T)] = np.concatenate(kept or [np.zeros(0)])
    finite_without_gradient((maps, left), model)
    weights = tf.nn.softmax(tf.cast(left, maps.dtype))
    result = in_float32(tf.einsum("nhwk,nk->nhw", maps, weights))
    result = np.maximum(result, 0) if relu else result
    active = maps.numpy().any(axis=(1, 2, 3))
    _warn_where_dead("score_cam", layer, result, active)
    return result


def ablation_cam(
    model: keras.Model, images, target=None, layer: str | None = None, relu: bool = True
) -> np.ndarray:
    """Ablation-CAM: each channel's weight is the share of the score that is lost without it.

    `w_k = (S - S_k) / S`, `ReLU(sum_k w_k A_k)`, where S_k is the score when channel k is 0
    everywhere. Only the part of the network behind the layer is run, once for each channel that is
    not 0 anyway, in chunks. On a network that ends in global average pooling and one Dense layer
    the weight is the Dense layer's times the channel's mean, over S.
    Source: Desai & Ramaswamy, "Ablation-CAM" (WACV 2020), equations 3 and 4, with the logit as
    score. Logits may be negative, so S is divided by without its sign: a channel that speaks for
    the target then counts for it; and by no less than 1e-6.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.
        relu: keep only evidence for the target; False also shows evidence against it.

    Returns:
        float32 maps `(N, h, w)`, in units of the activations. A warning says why a map is zero
        everywhere.

    Raises:
        ValueError: bad images or target, unknown layer, a layer without spatial extent, or a map
            that is not finite.
    """
    batch = check_images(model, images)
    indices, function = fixed_target(model, batch, target)
    layer = check_layer(model, batch.shape, layer)
    maps = compiled(model, code_at, layer=layer)(batch)
    alive = np.argwhere(maps.numpy().any(axis=(1, 2))).astype(np.int32)  # (image, channel)
    run = compiled(model, _without_channel, layer=layer, function=function)
    left = [
        run(batch, maps, indices, tf.constant(part)) for part in in_parts(alive, IMAGES_AT_ONCE)
    ]
    whole = compiled(model, scores, function=function)(batch, indices).numpy()
    lost = np.zeros((len(batch), maps.shape[-1]), np.float32)
    lost[tuple(alive.T)] = whole[alive[:, 0]] - np.concatenate(left or [np.zeros(0)])
    finite_without_gradient((maps, whole, lost), model)
    weights = lost / np.maximum(np.abs(whole), SMALLEST_SCORE)[:, None]
    result = np.einsum("nhwk,nk->nhw", widened(maps).numpy(), weights).astype(np.float32)
    against = (result < 0).any(axis=(1, 2))
    result = np.maximum(result, 0) if relu else result
    active, changing = maps.numpy().any(axis=(1, 2, 3)), lost.any(axis=1)
    _warn_of_zeros("ablation_cam", layer, result[None], active, changing[None], against[None])
    return result


def eigen_cam(model: keras.Model, images, target=None, layer: str | None = None) -> np.ndarray:
    """Eigen-CAM: the activations projected on their first principal direction.

    No class, no gradient: `A v`, v the first right singular vector of A as a matrix `(h w, K)`. The
    direction's sign is chosen so that the map adds up to something positive.
    Source: Muhammad & Yeasin, "Eigen-CAM" (IJCNN 2020), equation 3.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: checked, and without effect: the map is the same for every class.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`; default the one
            whose map is pooled or flattened before the head.

    Returns:
        float32 maps `(N, h, w)`, signed, in units of the activations. A warning says why a map is
        zero everywhere.

    Raises:
        ValueError: bad images or target, unknown layer, a layer without spatial extent, or a map
            that is not finite.
    """
    batch = check_images(model, images)
    check_target(model, batch, target)
    layer = check_layer(model, batch.shape, layer)
    activations = compiled(model, code_at, layer=layer)(batch)
    finite_without_gradient(activations, model)
    maps = in_float32(compiled(model, _eigen_cam)(activations))
    _warn_where_dead("eigen_cam", layer, maps, maps.any(axis=(1, 2)))
    return maps


def _eigen_cam(_model, activations):
    maps = widened(activations)
    flat = tf.reshape(maps, (tf.shape(maps)[0], -1, maps.shape[-1]))
    # (h w)^2 is far smaller than K^2: the first left singular vector, scaled, is the projection.
    values, vectors = tf.linalg.eigh(tf.matmul(flat, flat, transpose_b=True))
    first = vectors[..., -1] * tf.sqrt(tf.nn.relu(values[..., -1:]))
    first = tf.where(tf.reduce_sum(first, axis=1, keepdims=True) < 0, -first, first)
    return tf.reshape(first, tf.shape(maps)[:3])


def _dense_head(model, layer: str) -> keras.layers.Dense:
    """The last Dense layer, whose weights CAM reads."""
    dense = [part for _, part in walk(model) if isinstance(part, keras.layers.Dense)]
    if not dense:
        raise ValueError(_NOT_GAP.format(model.name, layer))
    return dense[-1]


def _cam(model, images, indices, layer):
    """Maps, and the largest distance of their mean over the positions from the logit.

    The distance is relative to the size of what the logit adds up, its terms taken without signs.
    """
    with capture(model, [layer]) as activations:
        logits = model(images, training=False)
    dense, maps = _dense_head(model, layer), widened(activations[layer])
    logits = widened(logits)
    kernel = widened(dense.kernel.value)
    bias = widened(dense.bias.value) if dense.use_bias else tf.zeros(dense.units, kernel.dtype)
    if dense.units == 1 and logits.shape[-1] == 2:  # one unit for two classes, see `load_model`
        kernel, bias = tf.concat([-kernel, kernel], 1), tf.concat([-bias, bias], 0)
    if kernel.shape != (maps.shape[-1], logits.shape[-1]):
        return maps[..., 0], tf.constant(np.inf)
    indices = target_classes(logits, indices)
    weights, bias = tf.gather(kernel, indices, axis=1), tf.gather(bias, indices)
    cams = tf.einsum("nhwk,kn->nhw", maps, weights)
    size = tf.einsum("nk,kn->n", tf.reduce_mean(tf.abs(maps), axis=(1, 2)), tf.abs(weights))
    mean = tf.reduce_mean(cams, axis=(1, 2)) + bias
    gap = tf.abs(mean - tf.gather(logits, indices, batch_dims=1))
    return cams, tf.reduce_max(gap / (size + abs(bias) + 1e-12))


def _masked_by_channel(model, images, norm, indices, pairs, function):
    """Scores `(F,)` of F pictures, each masked by one channel of its own map."""
    masks = tf.gather_nd(tf.transpose(norm, (0, 3, 1, 2)), pairs)[..., None]
    masks = tf.cast(tf.image.resize(masks, tf.shape(images)[1:3])[..., 0], images.dtype)
    return scores(
        model,
        masked(tf.gather(images, pairs[:, 0]), masks),
        tf.gather(indices, pairs[:, 0]),
        function,
    )


def _without_channel(model, images, maps, indices, pairs, layer, function):
    """Scores `(F,)` of F pictures, each without one channel of its own map."""
    owners, channels = pairs[:, 0], pairs[:, 1]
    kept = tf.one_hot(channels, maps.shape[-1], 0.0, 1.0, dtype=maps.dtype)
    changed = tf.gather(maps, owners) * kept[:, None, None]
    outputs = outputs_from(model, tf.gather(images, owners), layer, changed)
    return score(outputs, tf.gather(indices, owners), function)
