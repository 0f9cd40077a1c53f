"""Which pixels a network takes: their range, their dtype, and whole numbers."""

import warnings

import numpy as np
import pytest
from nets import batch, gap_net

from xai_utils import attribution, keras, tf
from xai_utils.engine import (
    cached,
    check_images,
    float_type,
    forward,
    pixel_range,
    widened,
    with_float_input,
)

layers = keras.layers


@pytest.fixture
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def within(low, high, seed=0):
    values = np.random.default_rng(seed).uniform(low, high, (2, 12, 12, 3)).astype(np.float32)
    values[0, 0, 0, 0], values[1, 0, 0, 0] = low, high
    return values


def test_the_range_that_a_model_knows_counts_whatever_the_pixels_are(no_warning):
    model = gap_net()
    cached(model, "pixels", lambda: (0.0, 255.0))
    for images in (within(0, 1), within(-1, 1), within(0, 255), None):
        assert pixel_range(model, images) == (0, 255)


@pytest.mark.parametrize("low", [0, -1])
def test_another_range_is_read_off_the_pixels_said_once_and_kept_for_noisy_copies(low):
    model, images = gap_net(), within(low, 1)
    with pytest.warns(UserWarning, match=rf"pixels in {low}\.\.1, as these are") as said:
        assert pixel_range(model, images) == (low, 1)
    assert "\n" not in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixel_range(model, images) == pixel_range(model) == (low, 1)
        assert pixel_range(model, images + 0.2) == pixel_range(model, images - 0.2) == (low, 1)
    with pytest.warns(UserWarning, match=r"pixels in 0\.\.255"):
        assert pixel_range(model, within(0, 255)) == (0, 255)


def test_nothing_is_said_of_0_to_255_nor_learnt_from_black(no_warning):
    model = gap_net()
    for images in (0 * within(0, 1), within(0, 255), within(-9, 262), within(0, 2)):
        assert pixel_range(model, images) == (0, 255)


def test_pixels_in_no_known_range_are_warned_of_once():
    model = gap_net()
    with pytest.warns(UserWarning, match=r"-2\.12\.\.2\.64 are neither 0\.\.255 nor 0\.\.1 nor"):
        assert pixel_range(model, within(-2.12, 2.64)) == (0, 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixel_range(model, within(-2, 2)) == (0, 255)


def test_pixels_that_cannot_be_meant_are_warned_of():
    model = gap_net()
    cached(model, "pixels", lambda: (0.0, 255.0))
    for low, high in ((0, 1), (-1, 1), (-2.12, 2.64)):
        told = rf"all pixels lie in {low}\.\.{high}, but gap takes 0\.\.255"
        with pytest.warns(UserWarning, match=told):
            attribution.saliency(model, within(low, high))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for images in (0 * within(0, 1), within(0, 255), within(0, 1.5), within(-400, 700)):
            attribution.saliency(model, images)


@pytest.fixture
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16", "float32", "float64"], indirect=True
)
def test_pixels_and_scores_are_float32_or_float64_whatever_the_model_computes_in(policy):
    model, expected = gap_net(), "float64" if policy == "float64" else "float32"
    assert float_type(model) == expected
    images = check_images(model, batch())
    assert images.dtype == expected and forward(model, images).dtype == expected
    assert model(images).dtype == keras.config.dtype_policy().compute_dtype


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_pixels_reach_a_model_of_half_precision_as_they_are(policy):
    inputs = keras.Input((1, 1, 2))
    model = keras.Model(inputs, layers.Flatten(dtype="float32")(inputs))
    assert model.compute_dtype == "float16"
    assert forward(model, [[[[200.3, 0.1]]]]).numpy().tolist() == [
        [np.float32(200.3), np.float32(0.1)]
    ]


def test_half_precision_inside_a_structure_is_widened():
    given = {"a": tf.constant(1, tf.float16), "b": [tf.constant(2, tf.bfloat16), tf.constant(3)]}
    found = tf.nest.map_structure(lambda value: value.dtype.name, widened(given))
    assert found == {"a": "float32", "b": ["float32", "int32"]}


# --- whole numbers --------------------------------------------------------------------------------


def functional(dtype="uint8", name="whole"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3), dtype=dtype)
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(4, 3, activation="relu", name="features")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name=name)


def operations():
    inputs = keras.Input((12, 12, 3), dtype="int32")
    x = keras.ops.cast(inputs, "float32") / 255
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def sequential():
    body = [layers.Rescaling(1 / 255), layers.Conv2D(4, 3, activation="relu"), layers.Flatten()]
    return keras.Sequential([keras.Input((12, 12, 3), dtype="uint8"), *body, layers.Dense(3)])


def in_sequential():
    return keras.Sequential(
        [keras.Input((12, 12, 3), dtype="uint8"), functional(), layers.Dense(2)]
    )


def in_functional():
    inputs = keras.Input((12, 12, 3), dtype="uint8")
    return keras.Model(inputs, layers.Dense(2)(in_sequential()(inputs)))


def under_floats():
    """A model of floats that hands them to one of whole numbers."""
    inputs = keras.Input((12, 12, 3))
    return keras.Model(inputs, layers.Dense(2)(functional()(inputs)))


WHOLE = [functional, operations, sequential, in_sequential, in_functional, under_floats]


def whole_pictures():
    return np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3)).astype(np.uint8)


@pytest.mark.parametrize("make", WHOLE)
def test_a_model_of_whole_numbers_gets_gradients_and_the_same_weights_by_a_float_input(make):
    model, images = make(), whole_pictures()
    before = model(images).numpy()
    model.compile("adam", loss=lambda y, z: tf.reduce_mean((y - z) ** 2))  # cannot be made anew
    with pytest.raises(ValueError, match=r"takes whole numbers.*explain models\.load_model\(model"):
        attribution.saliency(model, images)
    with_floats = with_float_input(model)
    assert with_floats.inputs[0].dtype == "float32" and with_floats.name == model.name
    np.testing.assert_allclose(with_floats(images.astype(np.float32)), before, atol=1e-6)
    assert [id(weight) for weight in with_floats.weights] == [id(w) for w in model.weights]
    gradient = attribution.pixel_gradient(with_floats, images, 0)
    step = np.zeros(images.shape, np.float32)
    step[:, 5, 5, 1] = 64
    high, low = (forward(with_floats, images + sign * step).numpy()[:, 0] for sign in (1, -1))
    assert np.abs(gradient).max() > 0
    if make is operations:  # linear: the slope is the difference
        np.testing.assert_allclose(gradient[:, 5, 5, 1], (high - low) / 128, rtol=1e-3)
    np.testing.assert_array_equal(model(images), before)
    assert with_float_input(model) is with_floats and with_float_input(with_floats) is with_floats


def test_a_model_of_floats_is_its_own():
    model = gap_net()
    assert with_float_input(model) is model


def test_guided_backpropagation_says_what_a_model_of_whole_numbers_needs():
    with pytest.raises(ValueError, match=r"takes whole numbers"):
        attribution.guided_backprop(functional(), whole_pictures())
    assert attribution.guided_backprop(with_float_input(functional()), whole_pictures()).any()
