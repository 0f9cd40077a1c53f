"""DeepLIFT against hand-computed numbers, its own law on every kind of operation, and loops."""

import numpy as np
import pytest
from nets import batch, gap_net

from xai_utils import attribution, keras, tf
from xai_utils.engine import forward

layers, ops = keras.layers, keras.ops


def assert_complete(model, images, baseline, target=1, rtol=1e-4):
    """The map adds up to the difference of the scores, and is not zero."""
    maps = attribution.deep_lift(model, images, target, baseline)
    start = np.broadcast_to(baseline, images.shape).astype(np.float32)
    both = (forward(model, images) - forward(model, start)).numpy()[:, target]
    assert np.abs(both).min() > 1e-3
    np.testing.assert_allclose(maps.sum((1, 2)), both, rtol=rtol, atol=1e-6)


def network(*middle):
    keras.utils.set_random_seed(1)
    first = layers.Conv2D(6, 3, bias_initializer="random_normal")
    stack = [keras.Input((12, 12, 3)), first, *middle, layers.Flatten(), layers.Dense(3)]
    return keras.Sequential(stack)


IMAGES = 2 * batch()
BASELINE = np.random.default_rng(0).normal(size=(12, 12, 3)).astype(np.float32)


# --- answers known beforehand ---------------------------------------------------------------------


def of_numbers(make, size):
    """A model of a row of so many numbers."""
    inputs = keras.Input((1, size, 1))
    return keras.Model(inputs, make(layers.Flatten()(inputs)))


def row(*values):
    return np.array(values, np.float32).reshape(1, 1, -1, 1)


def test_captums_sum_of_two_relus():
    """2 relu(x1) + 2 relu(x2 - 1.5) at (1, 2) from (0, 0): 2 and 1."""
    model = of_numbers(
        lambda x: 2 * keras.ops.relu(x[:, :1]) + 2 * keras.ops.relu(x[:, 1:] - 1.5), size=2
    )
    maps = attribution.deep_lift(model, row(1, 2), 0)
    np.testing.assert_allclose(maps.ravel(), [2, 1], rtol=1e-6)
    np.testing.assert_allclose(attribution.gradient_x_input(model, row(1, 2), 0).ravel(), [2, 4])


def test_captums_largest_of_four():
    model = of_numbers(lambda x: keras.ops.max(x, axis=1, keepdims=True), size=4)
    images = np.ones((2, 1, 4, 1), np.float32)
    baselines = np.concatenate([row(1, 2, 3, 9), row(4, 8, 6, 7)])
    maps = attribution.deep_lift(model, images, 0, baselines)
    np.testing.assert_allclose(maps[:, 0], [[0, 0, 0, -8], [0, -7, 0, 0]])


def test_a_saturated_unit_has_the_whole_difference_where_the_gradient_has_none():
    """1 - relu(1 - x1 - x2) at (1, 1) from (0, 0), the paper's figure 1: a half each."""
    model = of_numbers(
        lambda x: 1 - keras.ops.relu(1 - x[:, :1] - x[:, 1:]), size=2
    )  # fmt: skip
    np.testing.assert_allclose(attribution.deep_lift(model, row(1, 1), 0).ravel(), [0.5, 0.5])
    np.testing.assert_array_equal(attribution.saliency(model, row(1, 1), 0).ravel(), [0, 0])


def test_products_take_the_mean_of_both_orders():
    """x1 x2 from (1, 2) to (3, 5): 2 (2 + 5) / 2 and 3 (1 + 3) / 2; their quotient by its parts."""
    product = of_numbers(lambda x: x[:, :1] * x[:, 1:], size=2)
    maps = attribution.deep_lift(product, row(3, 5), 0, row(1, 2))
    np.testing.assert_allclose(maps.ravel(), [7, 6], rtol=1e-6)
    quotient = of_numbers(lambda x: x[:, :1] / x[:, 1:], size=2)
    maps = attribution.deep_lift(quotient, row(3, 5), 0, row(1, 2))
    np.testing.assert_allclose(maps.ravel(), [2 * 0.35, -0.3 * 2], rtol=1e-6)


def test_softmax_by_logarithmic_means():
    """Of two classes, p = sigmoid(z1 - z2): each logit has the share of its own change."""
    model = of_numbers(layers.Softmax(), size=2)
    before, after = 1 / (1 + np.exp(1)), 1 / (1 + np.exp(-4))  # z1 - z2 from -1 to 4
    maps = attribution.deep_lift(model, row(3, -1), 0, row(0, 1))
    np.testing.assert_allclose(maps.ravel(), np.array([3, 2]) / 5 * (after - before), rtol=1e-5)


def test_linear_networks_are_exact():
    model = network(layers.BatchNormalization(), layers.AveragePooling2D(2))
    weights = [
        np.random.default_rng(k).uniform(0.5, 2, w.shape) for k, w in enumerate(model.weights)
    ]
    model.set_weights(weights)
    expected = ((IMAGES - BASELINE) * attribution.pixel_gradient(model, IMAGES, 2)).sum(-1)
    maps = attribution.deep_lift(model, IMAGES, 2, BASELINE)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_a_dense_network_against_a_loop_over_its_units():
    keras.utils.set_random_seed(2)
    dense = [layers.Dense(5, "relu"), layers.Dense(4, "sigmoid"), layers.Dense(3)]
    model = keras.Sequential([keras.Input((1, 4, 1)), layers.Flatten(), *dense])
    images, start = row(1.0, -2.0, 0.5, 3.0), row(0.2, 0.1, -1.0, 1.0)
    here, there, steps = images.ravel(), start.ravel(), []
    for layer, function in zip(dense, (lambda z: np.maximum(z, 0), lambda z: 1 / (1 + np.exp(-z)))):
        kernel, bias = (np.asarray(w, float) for w in layer.get_weights())
        z_here, z_there = here @ kernel + bias, there @ kernel + bias
        here, there = function(z_here), function(z_there)
        steps.append((kernel, (here - there) / (z_here - z_there)))
    multiplier = dense[2].get_weights()[0][:, 1]
    for kernel, slope in reversed(steps):
        multiplier = kernel @ (slope * multiplier)
    expected = multiplier * (images - start).ravel()
    maps = attribution.deep_lift(model, images, 1, start)
    np.testing.assert_allclose(maps.ravel(), expected, rtol=1e-4)


def test_where_nothing_changes_a_multiplier_is_the_derivative():
    model, image = network(layers.Activation("sigmoid"), layers.MaxPool2D(2)), IMAGES[:1]
    start = image.copy()
    start[0, 5, 5] += 1e-3
    maps = attribution.deep_lift(model, image, 1, start)
    slope = ((image - start) * attribution.pixel_gradient(model, image, 1)).sum(-1)
    np.testing.assert_allclose(maps[0, 5, 5], slope[0, 5, 5], rtol=0.01)
    assert not attribution.deep_lift(model, image, 1, image).any()


def test_ties_in_max_pooling():
    model = network(layers.ReLU(), layers.MaxPool2D(3, 1))
    assert_complete(model, np.ones((1, 12, 12, 3), np.float32) * 2, 0.0)


# --- completeness ---------------------------------------------------------------------------------

ACTIVATIONS = (
    "relu relu6 leaky_relu elu selu celu sigmoid hard_sigmoid tanh softplus softsign silu gelu"
    " hard_silu mish exponential squareplus log_sigmoid softmax log_softmax"
)
MIDDLES = {
    "max pooling": lambda: [layers.MaxPool2D(2)],
    "overlapping max pooling": lambda: [layers.MaxPool2D(3, 2, "same")],
    "global max pooling": lambda: [layers.GlobalMaxPooling2D(keepdims=True)],
    "depthwise": lambda: [layers.DepthwiseConv2D(3), layers.ReLU(6)],
    "transposed": lambda: [layers.Conv2DTranspose(4, 3, strides=2), layers.ReLU()],
    "grouped": lambda: [layers.Conv2D(4, 3, groups=2), layers.ReLU()],
    "dilated": lambda: [layers.ReLU(), layers.Conv2D(4, 3, dilation_rate=2)],
    "batch normalisation": lambda: [layers.BatchNormalization(), layers.ReLU()],
    "layer normalisation": lambda: [layers.LayerNormalization(), layers.ReLU()],
    "group normalisation": lambda: [layers.GroupNormalization(3), layers.ReLU()],
    "unit normalisation": lambda: [layers.UnitNormalization(), layers.ReLU()],
    "PReLU": lambda: [layers.PReLU("random_normal")],
    "resized": lambda: [layers.ReLU(), layers.UpSampling2D(2, interpolation="bilinear")],
    "a gate": lambda: [Gated()],
    "attention": lambda: [layers.Reshape((100, 6)), Attended()],
}


class Gated(layers.Layer):
    """As squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(6, "sigmoid")

    def call(self, x):
        return x * self.dense(keras.ops.mean(x, (1, 2), keepdims=True))


class Attended(layers.Layer):
    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 4)

    def call(self, x):
        return x + self.attention(x, x)


@pytest.mark.parametrize("activation", ACTIVATIONS.split())
def test_completeness_of_activations(activation):
    assert_complete(network(layers.Activation(activation)), IMAGES, BASELINE)


@pytest.mark.parametrize("kind", MIDDLES)
def test_completeness_of_layers(kind):
    assert_complete(network(*MIDDLES[kind]()), IMAGES, BASELINE)


def test_completeness_where_a_norm_is_zero_of_one_picture_or_of_both():
    keras.utils.set_random_seed(1)
    first = layers.Conv2D(6, 3, use_bias=False, activation="relu")
    stack = [first, layers.UnitNormalization(), layers.Flatten(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((12, 12, 3)), *stack])
    images, baseline = IMAGES.copy(), BASELINE.copy()
    images[:, :6], baseline[:, :6] = 0, 0
    assert_complete(model, images, baseline)
    assert_complete(model, IMAGES, np.zeros_like(baseline))


def test_a_slope_without_end_is_said():
    model = of_numbers(lambda x: keras.ops.sqrt(x), size=2)
    np.testing.assert_allclose(attribution.deep_lift(model, row(4, 9), 1).ravel(), [0, 3])
    with pytest.raises(ValueError, match=r"images \[1\] have no finite map: .* another baseline"):
        attribution.deep_lift(model, np.concatenate([row(4, 9), row(4, 0)]), 1)


def test_a_capped_root_of_zero_is_left_out_only_of_what_normalises_zeros():
    def times(offset):
        return of_numbers(
            lambda x: (x[:, 1:] + offset) * ops.minimum(ops.rsqrt(x[:, :1]), 10.0), size=2
        )

    # 4 / 2 less 1 / 1: -0.5 (1 + 4) / 2 of the root, and 3 (1 + 0.5) / 2
    maps = attribution.deep_lift(times(1), row(4, 3), 0, row(1, 0))
    np.testing.assert_allclose(maps.ravel(), [-1.25, 2.25], rtol=1e-6)
    # the root is 10 in both
    maps = attribution.deep_lift(times(1), row(0, 3), 0)
    np.testing.assert_allclose(maps.ravel(), [0, 30], rtol=1e-6)
    # 3 / 2 less 0 * 10: all of it is that of 3
    maps = attribution.deep_lift(times(0), row(4, 3), 0)
    np.testing.assert_allclose(maps.ravel(), [0, 1.5], rtol=1e-6)
    # 4 / 2 less 1 * 10: the root's -9.5 comes from an infinite change
    with pytest.raises(ValueError, match=r"images \[0\] have no finite map"):
        attribution.deep_lift(times(1), row(4, 3), 0)


def test_a_bounded_function_of_something_infinite_is_no_zero():
    for bounded in (lambda x: 5 * ops.minimum(x, 10.0), lambda x: ops.exp(-x), ops.tanh):
        model = of_numbers(lambda x, bounded=bounded: bounded(ops.rsqrt(x)), size=1)
        assert_complete(model, row(4), row(1), target=0)
        with pytest.raises(ValueError, match="no finite map"):
            attribution.deep_lift(model, row(4), 0)


@pytest.mark.parametrize("merge", ["Multiply", "Maximum", "Minimum", "Add", "Subtract"])
def test_completeness_of_merges(merge):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12, 12, 3))
    both = [layers.Conv2D(4, 3, activation="tanh")(inputs) for _ in range(2)]
    outputs = layers.Dense(3)(layers.Flatten()(getattr(layers, merge)()(both)))
    assert_complete(keras.Model(inputs, outputs), IMAGES, BASELINE)


def test_a_silu_is_rescaled_as_one_function():
    """x sigmoid(x) has one input, so its multiplier is its change over that of x."""
    model = of_numbers(lambda x: keras.ops.silu(x), size=1)
    silu = lambda x: x / (1 + np.exp(-x))  # noqa: E731
    maps = attribution.deep_lift(model, row(2), 0, row(-3))
    np.testing.assert_allclose(maps.ravel(), silu(2) - silu(-3), rtol=1e-6)


# --- baselines, targets, errors -------------------------------------------------------------------


def test_several_baselines_are_the_mean_of_their_maps():
    model, images = gap_net(), batch()
    one = [attribution.deep_lift(model, images, 1, start) for start in (0.1, "mean", 0.3)]
    together = attribution.deep_lift(model, images, 1, [0.1, "mean", 0.3])
    np.testing.assert_allclose(together, np.mean(one, axis=0), atol=1e-7)
    colour = [0.1, 0.2, 0.3]  # one baseline, not three
    np.testing.assert_allclose(
        attribution.deep_lift(model, images, 1, colour),
        attribution.deep_lift(model, images, 1, np.array(colour)),
    )
    references = list(batch(seed=5))  # pictures, each of them for every image
    one = [attribution.deep_lift(model, images, 1, picture) for picture in references]
    together = attribution.deep_lift(model, images, 1, references)
    np.testing.assert_allclose(together, np.mean(one, axis=0), atol=1e-7)
    with pytest.raises(ValueError, match="no filling is called 'grey'"):
        attribution.deep_lift(model, images, 1, [0.1, "grey"])
    with pytest.raises(ValueError, match=r"fill must be a number, .*; got shape \(0,\)$"):
        attribution.deep_lift(model, images, 1, [])


def test_a_callable_target_and_the_top_class():
    model, images = gap_net(), batch()
    difference = attribution.deep_lift(model, images, lambda out: out[:, 0] - out[:, 3])
    one, other = (attribution.deep_lift(model, images, k) for k in (0, 3))
    np.testing.assert_allclose(difference, one - other, atol=1e-6)
    top = forward(model, images).numpy().argmax(axis=1)
    np.testing.assert_array_equal(
        attribution.deep_lift(model, images), attribution.deep_lift(model, images, top)
    )


def test_a_choice_by_the_pixels_is_named():
    model = network(layers.ELU(0.5, name="bent"))
    with pytest.raises(
        ValueError, match="deep_lift has no rule for SelectV2 .*, in bent; occlusion"
    ):
        attribution.deep_lift(model, IMAGES, 1)
    counting = network(layers.Lambda(lambda x: x * tf.cast(x > 0, x.dtype), name="counts"))
    with pytest.raises(ValueError, match="deep_lift has no rule for Cast, in counts; "):
        attribution.deep_lift(counting, IMAGES, 1)
