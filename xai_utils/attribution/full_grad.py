"""FullGrad: a score taken apart into what the pixels and what each layer's biases bring to it."""

from xai_utils.attribution.gradients import existing, finite
from xai_utils.attribution.operations import (
    CALLS,
    ELEMENTWISE,
    LINEAR,
    PRODUCTS,
    Step,
    again,
    carried_back,
    is_convolution,
    known_scores,
    layer_of,
    no_rule,
)
from xai_utils.engine import check_images, compiled, keras, tf
from xai_utils.models import ATTENTION, fixed_target, walk

# Linear, but for a constant among what they take
_ADDING = (
    "Add",
    "AddN",
    "AddV2",
    "BiasAdd",
    "ConcatV2",
    "Pack",
    "PadV2",
    "Select",
    "SelectV2",
    "Sub",
)
# Twice the input gives twice the output
_SCALING = ("Abs", "LeakyRelu", "Max", "MaxPool", "Min", "Relu")


def full_grad(model: keras.Model, images, target=None, return_parts: bool = False):
    """FullGrad: the input's part of a score and that of the biases of every layer, as one map.

    A score is `S = x dS/dx + sum over the layers of b dS/db`, exactly. A layer's b is what it adds
    that is no multiple of its input: the bias of a Dense layer or a convolution, what a
    normalisation with fixed statistics adds (its offset less its scaled mean), and what a bent
    activation leaves over its tangent, `f(z) - z f'(z)`: 6 of a saturated ReLU6, nothing of a ReLU.
    What a network subtracts of its pixels first is such a bias too. The map is
    `psi(x dS/dx) + sum over the layers of psi(b dS/db)`: psi takes absolute values, brings them to
    0..1 over all positions and channels of the layer, adds up its channels and enlarges the result
    to the picture, bilinear. Layers without positions, the inside of attention layers, and windows
    of a picture, which stand one after another in the batch, are in the score's parts and not in
    the map.
    Source: Srinivas & Fleuret, "Full-gradient representation for neural network visualization"
    (NeurIPS 2019), equations 2, 7 and 8; brought to 0..1 as in the authors' code.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
        return_parts: also return the parts of the score.

    Returns:
        float32 maps `(N, H, W)`, not negative, without a unit; with `return_parts` also
        `{part: float32 (N,)}`, in logits: `input`, then each layer that adds something by its path,
        as they run. They add up to the score.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, an
            operation without a derivative, which is named with its layer, or a map that is not
            finite.
    """
    batch = check_images(model, images)
    indices, function = fixed_target(model, batch, target)
    maps, parts = compiled(model, _full_grad, function=function)(batch, indices)
    maps, parts = finite((maps, parts), model)
    return (maps, parts) if return_parts else maps


def _full_grad(model, images, indices, function):
    found = []

    def rule(step):
        if step.operation.type in CALLS and len(step.incoming) > 1:
            raise no_rule("full_grad", model, step)
        left, came = _left_over(step), step.pulled_back()
        if left is not None:
            brought = tf.math.multiply_no_nan(left, step.incoming[0])
            found.append((layer_of(model, step.operation), brought))
        elif all(value is None for value in came):
            raise no_rule("full_grad", model, step)
        return came

    scores = known_scores(model, images, indices, function)
    gradient = existing(carried_back(images, scores, rule).get(images.ref()), model)
    layers = _by_layer([*found, ("input", images * gradient)])
    attention = [path for path, layer in walk(model) if isinstance(layer, ATTENTION)]
    maps = sum(
        _one_map(product, images)
        for name, products in layers.items()
        for product in products
        if product.shape.rank == 4
        and tuple(product.shape[1:3]) != (1, 1)
        and not any(f"{name}/".startswith(f"{path}/") for path in attention)
    )
    count = tf.shape(images)[0]
    return maps, {
        name: sum(_total(product, count) for product in products)
        for name, products in layers.items()
    }


def _left_over(step: Step):
    """What an operation gives beyond its derivative times its input; None if nothing."""
    operation = step.operation
    whole = [k for k, x in enumerate(step.inputs) if x.dtype.is_floating]
    if operation.type == "FusedBatchNormV3" or operation.type in _ADDING:
        if set(whole) <= set(step.wanted) or _pads_with_nothing(operation):
            return None
        without = [
            tf.zeros_like(x) if k in step.wanted and k in whole else x
            for k, x in enumerate(step.inputs)
        ]
        return again(operation, without)[0]
    both = operation.type in ("Maximum", "Minimum") and len(step.wanted) == 2
    if operation.type in (*LINEAR, *_SCALING) or both or is_convolution(step):
        return None
    if operation.type in PRODUCTS and len(step.wanted) == 1:
        return None
    output = operation.outputs[0]
    direction = tf.ones_like(output)
    came = step.pulled_back(incoming=[direction])
    pairs = [(value, step.inputs[k]) for k, value in zip(step.wanted, came) if value is not None]
    if operation.type in ELEMENTWISE and pairs[0][1].shape.as_list() == output.shape.as_list():
        slope, given = pairs[0]
        return output - tf.math.multiply_no_nan(given, slope)
    # what is pulled back is linear in what came, and its own derivative leads the other way
    linear = tf.gradients([v for v, _ in pairs], direction, [x for _, x in pairs])[0]
    return output - linear


def _pads_with_nothing(operation) -> bool:
    return operation.type == "PadV2" and tf.get_static_value(operation.inputs[2]) == 0


def _by_layer(found) -> dict:
    """What each layer brings, in the order they run; what has one shape is added up."""
    layers = {}
    for name, product in reversed(found):
        shapes = layers.setdefault(name, {})
        key = tuple(product.shape[1:])
        shapes[key] = shapes[key] + product if key in shapes else product
    return {name: list(shapes.values()) for name, shapes in layers.items()}


def _one_map(product, images):
    return tf.cond(
        tf.shape(product)[0] == tf.shape(images)[0],
        lambda: _scaled(product, tf.shape(images)[1:3]),
        lambda: tf.zeros(tf.shape(images)[:3]),  # of windows: not places of a whole picture
    )


def _scaled(product, size):
    sizes = tf.abs(product)
    least, most = (f(sizes, (1, 2, 3), keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
    scaled = tf.math.divide_no_nan(sizes - least, most - least)
    return tf.image.resize(tf.reduce_sum(scaled, -1, keepdims=True), size)[..., 0]


def _total(product, count):
    return tf.reduce_sum(tf.reshape(product, (count, -1)), -1)
