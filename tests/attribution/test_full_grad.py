"""FullGrad: its parts add up to the score, and the map against a loop over the layers."""

import numpy as np
import pytest
from nets import SHAPES, batch, captum_net, gap_net

from xai_utils import attribution, keras, tf
from xai_utils.engine import forward

layers = keras.layers
IMAGES = 2 * batch()


def network(*middle):
    keras.utils.set_random_seed(1)
    first = layers.Conv2D(6, 3, bias_initializer="random_normal", name="first")
    last = layers.Dense(3, bias_initializer="random_normal", name="last")
    return keras.Sequential([keras.Input((12, 12, 3)), first, *middle, layers.Flatten(), last])


def parts_of(model, images, target=1):
    """The parts, of which the sum is checked to be the score."""
    _, parts = attribution.full_grad(model, images, target, return_parts=True)
    score = forward(model, images).numpy()[:, target]
    np.testing.assert_allclose(sum(parts.values()), score, rtol=1e-4, atol=1e-6)
    return parts


@tf.function
def risen(x):
    """What a user may have compiled: a function with a constant and a bend of its own."""
    return tf.nn.relu(x) ** 2 + 0.3


def normalised():
    norm = layers.BatchNormalization(name="norm")
    model = network(norm, layers.ReLU())
    rng = np.random.default_rng(4)
    norm.set_weights([rng.uniform(0.5, 2, 6) for _ in range(4)])
    return model


NETWORKS = {
    **{name: (make, None) for name, make in SHAPES.items()},
    "relu": (lambda: network(layers.ReLU(name="bent")), {"input", "first", "last"}),
    "relu6": (lambda: network(layers.ReLU(6, name="bent")), {"input", "first", "bent", "last"}),
    "batch normalisation": (normalised, {"input", "first", "norm", "last"}),
    "max pooling": (lambda: network(layers.MaxPool2D(2)), {"input", "first", "last"}),
    "silu": (
        lambda: network(layers.Activation("silu", name="bent")),
        {"input", "first", "bent", "last"},
    ),
    "softsign": (lambda: network(layers.Activation("softsign")), None),
    "softmax": (lambda: network(layers.Softmax()), None),
    "layer normalisation": (lambda: network(layers.LayerNormalization()), None),
    "compiled by hand": (lambda: network(layers.Lambda(risen, name="bent")), None),
    "grouped": (lambda: network(layers.Conv2D(4, 3, groups=2), layers.ReLU()), None),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_parts_add_up_to_the_score(kind):
    make, names = NETWORKS[kind]
    parts = parts_of(make(), IMAGES)
    assert next(iter(parts)) == "input"
    if names:
        assert {*parts} == names
    inputs = attribution.gradient_x_input(make(), IMAGES, 1).sum((1, 2))
    np.testing.assert_allclose(parts["input"], inputs, rtol=1e-4, atol=1e-5)


def test_the_norm_of_zeros_brings_nothing():
    images = IMAGES.copy()
    images[:, :6] = 0
    model = network(layers.ReLU(), layers.UnitNormalization(name="unit"))
    bias = model.get_layer("first").bias
    bias.assign(-tf.abs(bias))  # where pixels are 0 nothing is left to normalise
    parts = parts_of(model, images)
    assert {*parts} == {"input", "first", "unit", "last"}
    inputs = attribution.gradient_x_input(model, images, 1).sum((1, 2))
    np.testing.assert_allclose(parts["input"], inputs, rtol=1e-4, atol=1e-6)


def test_captums_net_by_hand():
    """Sums of nine pixels less 50 and 75: at which units are on, counted by hand."""
    model, images = captum_net()
    parts = parts_of(model, images, 0)
    # sums 45, 54, 81, 90; on are 54 - 50, 81 - 50, 90 - 50 (weights 1) and 81 - 75, 90 - 75 (-1)
    assert parts["conv"].tolist() == [3 * -50 + 2 * 75]
    assert parts["input"].tolist() == [54 + 81 + 90 - 81 - 90]


def test_the_bias_of_a_saturated_relu6_is_six():
    model = keras.Sequential(
        [keras.Input((1, 3, 1)), layers.ReLU(6, name="bent"), layers.Flatten()]
    )
    image = np.array([-1.0, 2.0, 9.0], np.float32).reshape(1, 1, 3, 1)
    for k, expected in enumerate((0.0, 0.0, 6.0)):
        assert parts_of(model, image, k)["bent"].tolist() == [expected]


def test_the_map_against_a_loop_over_the_layers():
    model, images = gap_net(), IMAGES
    first, second = (model.get_layer(name) for name in ("early", "features"))
    for layer in (first, second):
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, np.linspace(-0.2, 0.3, bias.size)])
    pixels = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        before = [tf.nn.conv2d(pixels, first.kernel, 1, "SAME") + first.bias]
        tape.watch(before[0])
        hidden = tf.nn.conv2d(tf.nn.relu(before[0]), second.kernel, 2, "SAME") + second.bias
        tape.watch(hidden)
        score = model.get_layer("logits")(tf.reduce_mean(tf.nn.relu(hidden), (1, 2)))[:, 1]
    gradients = tape.gradient(score, [pixels, before[0], hidden])
    products = [
        images * gradients[0],
        first.bias.numpy() * gradients[1],
        second.bias.numpy() * gradients[2],
    ]
    expected = np.zeros((3, 12, 12))
    for product in map(np.abs, products):
        for k, one in enumerate(product):
            scaled = (one - one.min()) / (one.max() - one.min())
            expected[k] += tf.image.resize(scaled, (12, 12)).numpy().sum(-1)
    maps = attribution.full_grad(model, images, 1)
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-3)


@tf.function
def halves(x):
    return tf.nn.relu(x), x + 1


def test_a_step_is_named():
    model = network(layers.Lambda(lambda x: tf.add(*halves(x)), name="halves"))
    with pytest.raises(ValueError, match="full_grad has no rule for PartitionedCall, in halves; "):
        attribution.full_grad(model, IMAGES, 1)
    model = network(layers.Lambda(lambda x: x * tf.cast(x > 0, x.dtype), name="counts"))
    with pytest.raises(ValueError, match="full_grad has no rule for Cast, in counts; "):
        attribution.full_grad(model, IMAGES, 1)
