"""Techniques against answers known beforehand: GAP networks, Captum's, finite differences."""

import gc
import weakref

import numpy as np
import pytest
from nets import SHAPES, batch, captum_net, gap_net, nested, two_outputs

from xai_utils import attribution, keras, tf
from xai_utils.engine import forward

layers = keras.layers
METHODS = {
    "saliency": attribution.saliency,
    "grad_cam": attribution.grad_cam,
    "cam": attribution.cam,
}


def parts(model, images, layer="features"):
    """Activations and logits by Keras' own means, for the flat network."""
    return [
        t.numpy()
        for t in keras.Model(model.input, [model.get_layer(layer).output, model.output])(images)
    ]


def test_cam_is_the_weighted_sum_and_its_mean_is_the_logit():
    model, images = gap_net(), batch()
    activations, logits = parts(model, images)
    kernel, bias = model.get_layer("logits").get_weights()
    maps = attribution.cam(model, images, target=2)
    np.testing.assert_allclose(maps, activations @ kernel[:, 2], atol=1e-6)
    np.testing.assert_allclose(maps.mean((1, 2)) + bias[2], logits[:, 2], atol=1e-6)


def test_cam_is_z_times_grad_cam_before_relu():
    model, images = gap_net(), batch()
    maps = attribution.cam(model, images, target=[0, 1, 4])
    grad = attribution.grad_cam(model, images, target=[0, 1, 4], relu=False)
    np.testing.assert_allclose(maps, grad * maps[0].size, atol=1e-6)
    assert maps.min() < 0
    np.testing.assert_array_equal(
        attribution.grad_cam(model, images, [0, 1, 4]), np.maximum(grad, 0)
    )


def test_grad_cam_on_captums_net():
    model, images = captum_net()
    expected = [[[11.25, 13.5], [20.25, 22.5]]]
    np.testing.assert_allclose(
        attribution.grad_cam(model, images, 0, layer="conv"), expected, rtol=1e-6
    )


def test_saliency_of_a_linear_model_is_its_largest_weight():
    weights = np.random.default_rng(0).normal(size=(48, 2)).astype(np.float32)
    inputs = keras.Input((4, 4, 3))
    head = keras.layers.Dense(2, use_bias=False)
    model = keras.Model(inputs, head(keras.layers.Flatten()(inputs)))
    head.set_weights([weights])
    images = batch(4, 2)
    gradient = weights[:, 1].reshape(4, 4, 3)
    np.testing.assert_allclose(
        attribution.pixel_gradient(model, images, 1), [gradient, gradient], rtol=1e-6
    )
    np.testing.assert_allclose(
        attribution.saliency(model, images, 1)[0], np.abs(gradient).max(-1), rtol=1e-6
    )


def test_gradient_agrees_with_finite_differences_in_float64():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        model, images = gap_net(seed=3), batch(count=1).astype(np.float64)
        assert model.compute_dtype == "float64"
        gradient = attribution.pixel_gradient(model, images, 1)
        for position in [(0, 2, 3, 0), (0, 7, 7, 1), (0, 11, 0, 2)]:
            step = np.zeros_like(images)
            step[position] = 1e-6
            high, low = (forward(model, images + sign * step).numpy()[0, 1] for sign in (1, -1))
            assert gradient[position] == pytest.approx((high - low) / 2e-6, rel=1e-6, abs=1e-9)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("method", ["saliency", "grad_cam"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_model_shape_is_explained_batch_as_singles_and_left_untouched(method, shape):
    model, images = SHAPES[shape](), batch()
    maps = METHODS[method](model, images)
    singles = np.concatenate([METHODS[method](model, image[None]) for image in images])
    np.testing.assert_allclose(maps, singles, atol=1e-6)
    assert maps.dtype == np.float32 and maps.shape[0] == 3 and maps.max() > 0
    assert not any("call" in vars(layer) for layer in model.layers)
    top = forward(model, images).numpy().argmax(1)
    np.testing.assert_allclose(maps, METHODS[method](model, images, top), atol=1e-7)


def test_nested_grad_cam_equals_the_formula():
    model, images = nested(), batch()
    activations = model.get_layer("body")(images).numpy()
    kernel = model.get_layer("logits").get_weights()[0][:, 3]
    expected = np.maximum(activations @ kernel, 0) / activations[0, ..., 0].size
    np.testing.assert_allclose(attribution.grad_cam(model, images, 3), expected, atol=1e-6)
    np.testing.assert_allclose(
        attribution.grad_cam(model, images, 3, layer="body/features"), expected, atol=1e-6
    )


def test_a_constant_shift_of_the_logits_changes_nothing():
    model, images = gap_net(), batch()
    before = {name: method(model, images, 1) for name, method in METHODS.items()}
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel, bias + 100])
    for name, method in METHODS.items():
        np.testing.assert_allclose(method(model, images, 1), before[name], atol=1e-5, err_msg=name)


def test_flipping_the_image_flips_the_map():
    model, images = gap_net(size=11), batch(11)
    for weights in (layer.kernel for layer in model.layers if layer.name in ("early", "features")):
        weights.assign((weights + weights[:, ::-1]) / 2)  # a network that is itself symmetric
    for name, method in METHODS.items():
        flipped = method(model, images[:, :, ::-1], 1)[:, :, ::-1]
        np.testing.assert_allclose(flipped, method(model, images, 1), atol=1e-6, err_msg=name)


def test_a_map_negative_everywhere_becomes_zeros():
    model, images = gap_net(), batch()
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([-np.abs(kernel), bias])
    np.testing.assert_array_equal(attribution.grad_cam(model, images, 0), 0)


def test_a_callable_sees_the_batch_and_another_one_traces_no_network_anew():
    model, images = gap_net(), batch(count=3)
    layer, traced, seen = model.get_layer("features"), [], []
    call = layer.call
    vars(layer)["call"] = lambda *args, **kwargs: traced.append(1) or call(*args, **kwargs)

    def first_class(outputs):
        seen.append(tuple(outputs.shape))
        return outputs[:, 0]

    of_first = attribution.saliency(model, images, first_class)
    before = len(traced)
    of_second = attribution.saliency(model, images, lambda outputs: outputs[:, 1])
    assert before and len(traced) == before and seen == [(3, 5)]
    np.testing.assert_allclose(of_first, attribution.saliency(model, images, 0), rtol=1e-5)
    np.testing.assert_allclose(of_second, attribution.saliency(model, images, 1), rtol=1e-5)


def test_a_callable_target_explains_a_difference_and_a_second_output():
    model, images = gap_net(), batch()
    both = [attribution.pixel_gradient(model, images, k) for k in (0, 1)]
    contrast = attribution.pixel_gradient(model, images, lambda logits: logits[:, 0] - logits[:, 1])
    np.testing.assert_allclose(contrast, both[0] - both[1], atol=1e-6)
    detector = two_outputs()
    edge = attribution.grad_cam(
        detector, images, lambda outputs: outputs["box"][:, 0], layer="features"
    )
    assert edge.shape == (3, 6, 6)
    with pytest.raises(ValueError, match="callable"):
        attribution.grad_cam(detector, images, 0)


def test_compiled_once_and_the_model_is_not_kept_alive():
    traces = []

    def target(logits):
        traces.append(1)
        return logits[:, 0]

    model, images = gap_net(), batch()
    for _ in range(4):
        attribution.grad_cam(model, images, target)
    assert len(traces) == 1
    reference = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": batch()[0]}, r"pass image\[None\]"),
        ({"images": np.full((1, 12, 12, 3), np.nan)}, "432 values that are NaN"),
        ({"images": np.zeros((2, 12, 12, 4))}, r"\(2, 12, 12, 4\), but gap takes \(N, 12, 12, 3\)"),
        ({"images": np.zeros((0, 12, 12, 3))}, "images must be numbers of shape"),
        ({"images": np.array([["cat"]])}, "images are numbers, not 'cat': give classifier"),
        ({"target": 5}, "target 5 is out of range: gap has classes 0 to 4"),
        ({"target": -1}, "out of range"),
        ({"target": [0, 1]}, "3 classes"),
        ({"target": "cat"}, "gap have no names here"),
        ({"target": 1.5}, "target must be None"),
        ({"target": lambda logits: logits}, r"one score for each image, shape \(3,\); got \(3, "),
        ({"target": lambda logits: tf.stop_gradient(logits[:, 0])}, "does not depend on"),
        ({"layer": "featurs"}, "nearest: features"),
        ({"layer": "pool"}, "not maps .* 'features' would do"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    arguments = {"images": batch(), **arguments}
    with pytest.raises(ValueError, match=message) as caught:
        attribution.grad_cam(gap_net(), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_cam_is_exact_for_one_logit_of_one_picture(count, bias):
    model, images = gap_net(classes=1, bias=bias), batch(count=count)
    maps = attribution.cam(model, images)
    kernel, *added = model.layers[-1].get_weights()
    np.testing.assert_allclose(
        maps.mean((1, 2)) + sum(added), forward(model, images)[:, 0], rtol=1e-5
    )
    assert kernel.shape == (6, 1) and maps.shape == (count, 6, 6)
    model.layers[-1].set_weights([0 * kernel, *added])  # a logit that nothing adds up to
    assert not attribution.cam(model, images).any()


def test_cam_refuses_one_logit_of_another_ending():
    net = gap_net(classes=1)
    features, head = net.get_layer("features").output, net.layers[-1]
    for ending in (
        layers.GlobalMaxPooling2D(),
        lambda x: layers.GlobalAveragePooling2D()(x * 1.01),
    ):
        model = keras.Model(net.input, head(ending(features)))
        with pytest.raises(ValueError, match="global average pooling"):
            attribution.cam(model, batch(count=1), layer="features")


def test_cam_refuses_a_network_where_it_would_be_wrong():
    model = SHAPES["sequential"]()
    with pytest.raises(ValueError, match="global average pooling"):
        attribution.cam(model, batch())
    with pytest.raises(ValueError, match="global average pooling"):
        attribution.cam(gap_net(), batch(), layer="early")
    with pytest.raises(ValueError, match="classes only"):
        attribution.cam(gap_net(), batch(), lambda logits: logits[:, 0])


def test_every_technique_is_described_and_callable_by_its_name():
    assert [*attribution.ABOUT] == [*attribution.TECHNIQUES]
    for name, about in attribution.ABOUT.items():
        assert getattr(attribution, name) is about.method is attribution.TECHNIQUES[name]
        assert about.pace in ("quick", "slow", "long") and "{" not in about.unit.format("logits")


@pytest.mark.parametrize("name", ["saliency", "gradient_x_input", "var_grad", "grad_cam", "cam"])
def test_the_unit_of_a_map_is_what_its_values_follow(name):
    """Pixels in other steps, and a score in another unit, change a map as its unit says."""
    settings = {"samples": 4, "input_range": 8.0} if name == "var_grad" else {}
    model, images = gap_net(), batch()
    before = attribution.TECHNIQUES[name](model, images, 1, **settings)
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([3 * kernel, 3 * bias])  # scores in thirds
    after = attribution.TECHNIQUES[name](model, images, 1, **settings)
    unit = attribution.ABOUT[name].unit
    squared = unit.endswith("²")
    assert "{}" in unit
    np.testing.assert_allclose(after, before * (9 if squared else 3), rtol=1e-4, atol=1e-7)
