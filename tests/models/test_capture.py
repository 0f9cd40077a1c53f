"""Layers are found, recorded and left alone."""

import numpy as np
import pytest
from nets import SHAPES, batch, gap_net, nested

from xai_utils import keras, models, tf
from xai_utils.models import capture


@pytest.mark.parametrize("shape", SHAPES)
def test_capture_records_what_the_layer_returns(shape):
    model, images = SHAPES[shape](), batch()
    expected = model(images).numpy()
    with capture(model, ["features", "logits"]) as found:
        outputs = model(images)
    np.testing.assert_array_equal(outputs, expected)
    np.testing.assert_array_equal(found["logits"], expected)
    assert found["features"].shape.rank == 4


def test_the_model_is_restored_after_an_exception():
    model, images = gap_net(), batch()
    before = {layer.name: dict(vars(layer)) for layer in model.layers}
    with pytest.raises(RuntimeError, match="inside"), capture(model, ["features"]):
        model(images)
        raise RuntimeError("inside")
    with pytest.raises(ValueError, match="incompatible|expected"), capture(model, ["features"]):
        model(images[..., :1])
    assert {layer.name: dict(vars(layer)) for layer in model.layers} == before


def test_a_call_that_was_replaced_before_comes_back():
    model = gap_net()
    layer = model.get_layer("features")
    mine = layer.call
    vars(layer)["call"] = mine
    with capture(model, ["features"]):
        model(batch())
    assert vars(layer)["call"] is mine


def test_the_tape_watches_only_from_the_captured_layer_on():
    model, images = gap_net(), tf.constant(batch())
    tape = tf.GradientTape(watch_accessed_variables=False, persistent=True)
    with tape, capture(model, ["features"], tape) as found:
        score = model(images)[:, 0]
    assert tape.gradient(score, found["features"]) is not None
    assert tape.gradient(score, images) is None
    assert tape.gradient(score, model.trainable_variables[0]) is None


def test_a_layer_that_does_not_run_is_named():
    model = gap_net()
    part = keras.Model(model.input, model.get_layer("early").output, name="part")
    with pytest.raises(ValueError, match="no layer 'features'"), capture(part, ["features"]):
        part(batch())
    with pytest.raises(ValueError, match="'features' did not run"), capture(model, ["features"]):
        part(batch())


def test_names_nearest_names_and_paths():
    model = nested()
    assert models.find_layer(model, "body/features") is models.find_layer(model, "features")
    with pytest.raises(ValueError, match="nearest: .*body/features"):
        models.find_layer(model, "body/featuers")
    inputs = keras.Input((12, 12, 3))
    two = [
        keras.Sequential([keras.layers.Conv2D(3, 1, name="conv")], name=name)
        for name in ("left", "right")
    ]
    twins = keras.Model(inputs, two[1](two[0](inputs)))
    with pytest.raises(ValueError, match="left/conv, right/conv"):
        models.find_layer(twins, "conv")


def test_default_layer_is_the_last_that_computes_features():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="first")(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="last")(x)
    x = keras.layers.Dropout(0.5)(keras.layers.MaxPooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    assert models.default_layer(model, (None, 16, 16, 3)) == "last"
    assert models.default_layer(nested(), (None, 12, 12, 3)) == "body/features"
    assert models.default_layer(SHAPES["subclassed"](), (None, 12, 12, 3)) == "block/features_relu"
    flat = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="no layer returns a map.*rise.* need only scores"):
        models.default_layer(flat, (None, 4, 4, 3))


def test_stages_are_the_ends_of_blocks_and_the_last_code():
    lite = models.efficientnet_lite.build("efficientnet_lite0", 64)
    expected = [
        "block1a_project_conv",
        "block2b_add",
        "block3b_add",
        "block4c_add",
        "block5c_add",
        "block6d_add",
        "block7a_project_conv",
        "avg_pool",
    ]
    assert models.stages(lite, (1, 64, 64, 3)) == expected
    vgg = keras.applications.VGG19(weights=None, input_shape=(64, 64, 3))
    assert models.stages(vgg, (1, 64, 64, 3)) == [*(f"block{i}_pool" for i in range(1, 6)), "fc2"]
    assert models.stages(gap_net(), (1, 12, 12, 3)) == ["early", "features", "pool"]
