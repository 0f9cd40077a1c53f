"""Gradient techniques against answers known beforehand."""

import numpy as np
import pytest
from nets import SHAPES, batch, captum_net, divided_by_spread, gap_net, with_a_black_one

from xai_utils import attribution, keras, tf
from xai_utils.engine import forward

layers = keras.layers
SETTINGS = {
    "gradient_x_input": {},
    "smooth_grad": {"samples": 5, "input_range": 2.0},
    "var_grad": {"samples": 5, "input_range": 2.0},
    "integrated_gradients": {"steps": 5},
    "gradient_shap": {"samples": 5},
    "xrai": {"steps": 3},
    "deep_lift": {},
    "full_grad": {},
    "guided_backprop": {},
    "deconvnet": {},
    "guided_grad_cam": {},
    "lrp": {},
}


def bias_free_net():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, use_bias=False, activation="relu", name="features"),
            layers.Flatten(),
            layers.Dense(10, use_bias=False, activation="relu"),
            layers.Dense(4, use_bias=False),
        ]
    )


def quadratic(matrix):
    """x'Qx / 2 of a 2 x 2 picture of one channel, as a model."""

    class Quadratic(keras.layers.Layer):
        def call(self, x):
            flat = tf.reshape(x, (-1, 4))
            return tf.reduce_sum(flat @ matrix * flat, axis=1, keepdims=True) / 2

    inputs = keras.Input((2, 2, 1))
    return keras.Model(inputs, Quadratic()(inputs))


def test_on_a_bias_free_relu_net_gradient_x_input_adds_up_and_is_integrated_gradients():
    model, images = bias_free_net(), batch(8)
    maps = attribution.gradient_x_input(model, images, 2)
    np.testing.assert_allclose(maps.sum((1, 2)), forward(model, images).numpy()[:, 2], rtol=1e-4)
    settings = {"steps": 7, "baseline": 0.0, "return_gap": True}
    integrated, gap = attribution.integrated_gradients(model, images, 2, **settings)
    np.testing.assert_allclose(integrated, maps, atol=1e-6)
    np.testing.assert_allclose(gap, 0, atol=1e-5)


def sharp_softmax():
    """A softmax that saturates half-way along the path from black."""
    inputs = keras.Input((2, 2, 1))
    head = layers.Dense(2, activation="softmax")
    model = keras.Model(inputs, head(layers.Flatten()(inputs)))
    head.set_weights([np.array([[10.0, 0]] * 4), np.array([-20.0, 0])])
    return model


def test_the_midpoint_rule_is_complete_where_the_left_rule_is_not():
    model, images = sharp_softmax(), np.full((1, 2, 2, 1), 1.0, np.float32)
    _, gap = attribution.integrated_gradients(model, images, 0, steps=50, return_gap=True)
    ends = forward(model, np.concatenate([images, images * 0])).numpy()[:, 0]
    assert abs(gap[0]) / (ends[0] - ends[1]) < 0.004
    _, rough = attribution.integrated_gradients(model, images, 0, steps=3, return_gap=True)
    assert abs(rough[0]) > 10 * abs(gap[0])


def test_baselines():
    model, images = gap_net(), batch()
    scores = forward(model, images).numpy()[:, 1]
    for baseline in ("black", "mean", "blur", "random", np.float32(0.5), images[:1] * 0):
        maps, gap = attribution.integrated_gradients(
            model, images, 1, 64, baseline, return_gap=True
        )
        assert np.abs(gap).max() < 0.05 * np.abs(scores).max(), baseline
    mean = images.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(
        attribution.integrated_gradients(model, images, 1, baseline="mean"),
        attribution.integrated_gradients(model, images, 1, baseline=mean),
        atol=1e-6,
    )
    maps = [
        attribution.integrated_gradients(model, images, 1, baseline="random", seed=seed)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).max() > 1e-4
    with pytest.raises(ValueError, match="no filling is called 'grey'"):
        attribution.integrated_gradients(model, images, baseline="grey")
    with pytest.raises(ValueError, match="at least 1 step"):
        attribution.integrated_gradients(model, images, steps=0)


def test_smooth_grad_without_noise_is_saliency():
    model, images = gap_net(), batch()
    np.testing.assert_allclose(
        attribution.smooth_grad(model, images, noise=0.0, samples=3),
        attribution.saliency(model, images),
        atol=1e-6,
    )


def test_smooth_grad_and_var_grad_of_a_quadratic():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(4, 4)).astype(np.float32)
    matrix = matrix + matrix.T
    model, image = quadratic(matrix), rng.normal(size=(1, 2, 2, 1)).astype(np.float32)
    settings = {"samples": 4000, "noise": 0.25, "input_range": 2.0}
    sigma = 0.5
    mean = attribution.smooth_grad(model, image, 0, **settings).ravel()
    np.testing.assert_allclose(
        mean, np.abs(matrix @ image.ravel()), atol=5 * sigma * np.abs(matrix).max() / 4000**0.5
    )
    variance = attribution.var_grad(model, image, 0, **settings).ravel()
    np.testing.assert_allclose(variance, sigma**2 * np.diag(matrix @ matrix.T), rtol=0.12)


def test_the_seed_decides_the_noise():
    model, images = gap_net(), batch()
    one, again, other = (
        attribution.smooth_grad(model, images, samples=4, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0


def test_gradient_shap_with_one_baseline_has_the_mean_of_integrated_gradients():
    model, images = sharp_softmax(), np.array([0.2, 0.4, 0.6, 1.0], np.float32).reshape(1, 2, 2, 1)
    settings = {"samples": 400, "baseline": 0.0}
    draws = [attribution.gradient_shap(model, images, 0, seed=k, **settings) for k in range(12)]
    assert np.std(draws, axis=0).min() > 0
    error = np.std(draws, axis=0, ddof=1) / len(draws) ** 0.5
    exact = attribution.integrated_gradients(model, images, 0, steps=500, baseline=0.0)
    assert (
        np.abs(np.mean(draws, axis=0) - exact) < 4.5 * error
    ).all()  # Student's t, 11: 1 in 1000
    assert error.max() < 0.05 * exact.max()


def test_gradient_shap_of_a_linear_network_is_the_difference_from_the_mean_baseline():
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(inputs)))
    weights = model.layers[-1].get_weights()[0].reshape(1, 2, 2)
    images = np.random.default_rng(0).normal(size=(2, 2, 2, 1)).astype(np.float32)
    few = attribution.gradient_shap(model, images, 0, 8, baseline=[[0.0], [3.0]])
    shares = images[..., 0] * weights - few  # weights times the mean of the baselines drawn
    drawn = shares / weights / 3 * 8
    np.testing.assert_allclose(drawn, np.full_like(drawn, round(float(drawn.flat[0]))), atol=1e-4)
    assert 0 < drawn.flat[0] < 8
    noisy = attribution.gradient_shap(model, images, 0, 4000, 0.0, noise=0.001)
    spread = 0.001 * 255 * np.abs(weights) / 4000**0.5
    gap = np.abs(noisy - images[..., 0] * weights) / spread
    assert gap.max() < 5 and gap.min() > 0
    np.testing.assert_array_equal(  # one seed, one map
        few, attribution.gradient_shap(model, images, 0, 8, baseline=[[0.0], [3.0]])
    )
    other = attribution.gradient_shap(model, images, 0, 9, baseline=[[0.0], [3.0]], seed=1)
    assert np.abs(other - few).max() > 1e-4


def test_guided_backprop_on_captums_net():
    model, images = captum_net()
    expected = [[[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]]
    np.testing.assert_allclose(attribution.guided_backprop(model, images, 0), expected, atol=1e-6)


RELUS = {
    "layer": lambda: layers.ReLU(),
    "relu6 layer": lambda: layers.ReLU(6.0),
    "activation": lambda: layers.Activation("relu"),
    "argument": None,
    "called": lambda: CalledRelu(),
}


class CalledRelu(keras.layers.Layer):
    def call(self, x):
        return tf.nn.relu6(x)


def relu_net(kind):
    inputs = keras.Input((4, 4, 1))
    make = RELUS[kind]
    x = layers.Conv2D(3, 3, activation=None if make else "relu", name="conv")(inputs)
    x = make()(x) if make else x
    head = layers.Dense(1, use_bias=False, name="head")
    model = keras.Model(inputs, head(layers.Flatten()(x)))
    rng = np.random.default_rng(3)
    model.get_layer("conv").set_weights([rng.normal(size=(3, 3, 1, 3)), rng.normal(size=3)])
    head.set_weights([rng.normal(size=(12, 1))])
    return model, rng.normal(size=(1, 4, 4, 1)).astype(np.float32)


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("kind", RELUS)
def test_the_relu_rules_reach_every_kind_of_relu(kind, rule):
    model, image = relu_net(kind)
    kernel, bias = model.get_layer("conv").get_weights()
    above = model.get_layer("head").get_weights()[0].reshape(2, 2, 3)
    expected = np.zeros((4, 4))
    for i, j, k in np.ndindex(2, 2, 3):
        before = (image[0, i : i + 3, j : j + 3, 0] * kernel[:, :, 0, k]).sum() + bias[k]
        if above[i, j, k] > 0 and (rule == "deconvnet" or before > 0):
            expected[i : i + 3, j : j + 3] += above[i, j, k] * kernel[:, :, 0, k]
    method = {"guided": attribution.guided_backprop, "deconvnet": attribution.deconvnet}[rule]
    np.testing.assert_allclose(method(model, image, 0)[0], expected, atol=1e-5)
    plain = attribution.pixel_gradient(model, image, 0)[0, ..., 0]
    assert np.abs(plain - expected).max() > 0.01, (
        "the example must tell the rule from the plain gradient"
    )


def test_guided_backprop_leaves_the_gradient_of_the_model_alone_and_needs_a_relu():
    model, images = gap_net(), batch()
    before = attribution.pixel_gradient(model, images, 0)
    attribution.guided_backprop(model, images, 0)
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        score = model(x)[:, 0]
    np.testing.assert_allclose(tape.gradient(score, x), before, atol=1e-6)
    smooth = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2, activation="tanh")]
    )
    with pytest.raises(ValueError, match="has no ReLU"):
        attribution.guided_backprop(smooth, np.zeros((1, 4, 4, 1)))


def test_guided_grad_cam_is_the_product():
    model, images = gap_net(), batch()
    coarse = tf.image.resize(attribution.grad_cam(model, images, 1)[..., None], (12, 12))[..., 0]
    expected = attribution.guided_backprop(model, images, 1) * coarse
    np.testing.assert_allclose(attribution.guided_grad_cam(model, images, 1), expected, atol=1e-7)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_model_shape_and_batch_as_singles(name, shape):
    model, images = SHAPES[shape](), batch()
    method, settings = getattr(attribution, name), SETTINGS[name]
    maps = method(model, images, **settings)
    singles = np.concatenate([method(model, image[None], **settings) for image in images])
    np.testing.assert_allclose(maps, singles, atol=1e-6)
    assert maps.shape == (3, 12, 12) and maps.dtype == np.float32 and np.abs(maps).max() > 0


NOT_FINITE = {
    **{name: {} for name in ("saliency", "gradient_x_input", "pixel_gradient", "full_grad")},
    **{name: {"layer": "features"} for name in ("grad_cam", "layer_cam", "hires_cam")},
    "guided_backprop": {},
    "guided_grad_cam": {"layer": "features"},
    "smooth_grad": {"samples": 2, "noise": 0},
    "var_grad": {"samples": 2, "noise": 0},
    "integrated_gradients": {"steps": 2, "baseline": 0},
    "gradient_shap": {"samples": 2, "baseline": 0},
    "xrai": {"steps": 2, "baseline": 0},
    "deep_lift": {"baseline": 0},
    "lrp": {},
    "channel_relevance": {"layer": "features"},
    "extremal_perturbation": {"steps": 1, "grid": 4, "fill": 0},
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_a_map_that_is_not_finite_is_refused(name):
    """The slope of a root at 0 has no end, nor has the logarithm, of which relevance is a share."""
    inputs = keras.Input((4, 4, 1))
    x = layers.Activation("relu", name="features")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    bent = keras.ops.log if name in ("lrp", "channel_relevance") else keras.ops.sqrt
    model = keras.Model(inputs, bent(x), name="rooted")
    images = np.stack([np.full((4, 4, 1), value, np.float32) for value in (4, 0, 9, 0)])
    told = r"^images \[1, 3\] have no finite map: rooted computes .*"
    with pytest.raises(ValueError, match=told + "use occlusion, [^\n]*$") as error:
        getattr(attribution, name)(model, images, 0, **NOT_FINITE[name])
    assert ("baseline" in str(error.value)) == ("baseline" in NOT_FINITE[name])
    maps = getattr(attribution, name)(model, images[::2], 0, **NOT_FINITE[name])
    assert np.isfinite(maps).all()


WITHOUT_GRADIENT = {
    **{name: {"layer": "features"} for name in ("cam", "eigen_cam")},
    **{name: {"layer": "features", "relu": False} for name in ("score_cam", "ablation_cam")},
    "occlusion": {"patch": 4},
    "rise": {"masks": 8},
    "sobol": {"grid": 2, "samples": 4},
    "lime": {"segments": 4, "samples": 16},
    "kernel_shap": {"segments": 4, "samples": 32},
}


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_a_score_that_is_not_finite_is_refused_without_gradients_too(name):
    """Zeros of `sobol` would say that the score never changes, and NaN is drawn as nothing."""
    model, images = divided_by_spread(), with_a_black_one()
    with pytest.raises(ValueError, match=r"^images \[1\] have no finite map: spread [^\n]*$"):
        getattr(attribution, name)(model, images, 0, **WITHOUT_GRADIENT[name])
    maps = getattr(attribution, name)(model, images[2:], 0, **WITHOUT_GRADIENT[name])
    assert np.isfinite(maps).all() and maps.any()


def test_bad_settings():
    model, images = gap_net(), batch()
    with pytest.raises(ValueError, match="samples must be at least 1"):
        attribution.smooth_grad(model, images, samples=0)
    with pytest.raises(ValueError, match="at least 1 and noise not negative, got 0 and 0"):
        attribution.gradient_shap(model, images, samples=0)
    with pytest.raises(ValueError, match="at least 1 and noise not negative, got 32 and -1"):
        attribution.gradient_shap(model, images, noise=-1)
    with pytest.raises(ValueError, match="noise and input_range not negative"):
        attribution.smooth_grad(model, images, noise=-1)
    with pytest.raises(ValueError, match="noise and input_range not negative"):
        attribution.smooth_grad(model, images, input_range=-1)
    with pytest.raises(ValueError, match="at least 2 samples"):
        attribution.var_grad(model, images, samples=1)
