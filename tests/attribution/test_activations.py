"""Guided backpropagation and deconvnet refuse by name the activations that have no rule."""

import numpy as np
import pytest
from nets import batch

from xai_utils import attribution, keras, tf

layers, ops = keras.layers, keras.ops


class By(layers.Layer):
    """A function called inside a layer of the user's own."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


class Own(keras.Model):
    """A subclassed model whose own `call` calls the function."""

    def __init__(self, function):
        super().__init__(name="mine")
        self.function = function
        self.first = layers.Conv2D(4, 3, activation="relu")
        self.second, self.head = layers.Conv2D(4, 3), layers.Dense(5)

    def call(self, x):
        return self.head(tf.reduce_mean(self.second(self.function(self.first(x))), (1, 2)))


def net(function, how: str) -> keras.Model:
    """One ReLU, then the function in one of the ways a network is written, then weights."""
    keras.utils.set_random_seed(0)
    if how == "own call":
        return Own(function)
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    if how == "activation=":
        x = layers.Conv2D(4, 3, activation=function, name="here")(x)
    elif how == "layer":
        x = layers.Activation(function, name="here")(layers.Conv2D(4, 3)(x))
    elif how == "operation":
        x = function(layers.Conv2D(4, 3)(x))
    elif how == "a layer's":
        x = By(function, name="here")(layers.Conv2D(4, 3)(x))
    else:
        x = function(layers.Conv2D(4, 3)(x))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(x))
    model = keras.Model(inputs, layers.Dense(5)(x), name="mine")
    if how != "nested":
        return model
    pixels = keras.Input((12, 12, 3))
    return keras.Model(pixels, model(pixels), name="outer")


REFUSED = {
    "gelu": ("GELU", tf.nn.gelu),
    "silu": ("SiLU", tf.nn.silu),
    "hard_silu": ("hard-swish", lambda x: x * tf.nn.relu6(x + 3) / 6),
    "elu": ("ELU", tf.nn.elu),
    "selu": ("SELU", tf.nn.selu),
    "leaky_relu": ("leaky ReLU", lambda x: tf.maximum(0.1 * x, x)),
    "softplus": ("softplus", tf.nn.softplus),
    "tanh": ("tanh", tf.nn.tanh),
    "sigmoid": ("sigmoid", tf.nn.sigmoid),
    "hard_sigmoid": ("hard sigmoid", lambda x: tf.nn.relu6(x + 3) / 6),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_activation_without_a_rule_is_refused_by_name_however_it_is_written(name):
    spoken, by_hand = REFUSED[name]
    functions = {
        "activation=": getattr(keras.activations, name),
        "layer": name,
        "operation": getattr(ops, name),
        "a layer's": by_hand,
        "own call": by_hand,
    }
    for how, function in functions.items():
        with pytest.raises(ValueError) as told:
            attribution.guided_backprop(net(function, how), batch(), 0)
        said = str(told.value)
        where = r"\(in its own call\)" if how == "own call" else r"\(layer '(here|\w+)'\)"
        assert "\n" not in said and "defined for ReLU and ReLU6 alone: use saliency" in said
        assert told.match(f"mine has {spoken} {where}, and guided backpropagation"), how
    with pytest.raises(ValueError, match=f"mine has {spoken} .*, and deconvnet is defined for"):
        attribution.deconvnet(net(name, "layer"), batch(), 0)


@pytest.mark.parametrize(
    "layer, spoken",
    [(layers.PReLU, "PReLU"), (layers.LeakyReLU, "leaky ReLU"), (layers.ELU, "ELU")],
)
def test_layers_of_their_own_are_refused_inside_a_nested_network_too(layer, spoken):
    with pytest.raises(ValueError, match=rf"outer has {spoken} \(layer 'mine/here'\)"):
        attribution.guided_backprop(net(layer(name="here"), "nested"), batch(), 0)


@pytest.mark.parametrize(
    "name", ["celu", "hard_tanh", "soft_shrink", "exponential", "squareplus", "mish", "tanh_shrink"]
)
def test_what_keras_knows_by_name_is_refused_by_that_name(name):
    spoken = {"celu": "CELU"}.get(name, name.replace("_", " "))
    with pytest.raises(ValueError, match=rf"mine has {spoken} \(layer 'here'\)"):
        attribution.guided_backprop(net(name, "activation="), batch(), 0)


def test_a_network_of_other_activations_alone_is_refused_by_their_name():
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, activation="gelu", name="smooth")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)), name="mine")
    with pytest.raises(ValueError, match=r"has no ReLU or ReLU6 but GELU \(layer 'smooth'\)"):
        attribution.guided_backprop(model, batch(), 0)


@pytest.mark.parametrize(
    "function",
    [
        tf.nn.relu,
        tf.nn.relu6,
        lambda x: keras.activations.relu(x, max_value=4),
        lambda x: tf.concat([tf.nn.relu(x), tf.nn.relu(-x)], -1)[..., 2:6],
        lambda x: tf.nn.relu(x[..., :1] * tf.nn.sigmoid(x)),  # a gate of one half of the channels
        lambda x: tf.nn.softmax(tf.nn.relu(x)),
    ],
)
def test_rectifiers_gates_and_softmax_are_not_refused(function):
    assert attribution.guided_backprop(net(function, "a layer's"), batch(), 0).any()


def test_what_is_not_between_pixels_and_score_or_has_no_weights_after_it_does_not_matter():
    inputs = keras.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    other = layers.Dense(3)(layers.Dense(4, activation="gelu")(x))
    for ending in ("sigmoid", "tanh", "softplus", "softmax"):
        head = layers.Dense(2, activation=ending)(x)
        model = keras.Model(inputs, {"head": head, "other": other})
        maps = attribution.guided_backprop(model, batch(), lambda outputs: outputs["head"][:, 0])
        assert maps.any()
        with pytest.raises(ValueError, match="has GELU"):
            attribution.guided_backprop(model, batch(), lambda outputs: outputs["other"][:, 0])


def excited(gate) -> keras.Model:
    """Squeeze-and-excitation of features made with ReLU."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(6, 3, activation="relu", name="features")(inputs)
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    squeezed = layers.Conv2D(3, 1, activation="relu", name="squeeze")(squeezed)
    weights = gate(layers.Conv2D(6, 1, name="excite")(squeezed))
    x = layers.GlobalAveragePooling2D()(layers.Multiply()([x, weights]))
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


GATES = {
    "sigmoid": (layers.Activation("sigmoid"), tf.nn.sigmoid),
    "hard": (layers.Activation("hard_sigmoid"), lambda x: tf.nn.relu6(x + 3) / 6),
    "of keras.applications": (
        lambda x: layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0),
        lambda x: tf.nn.relu6(x + 3) / 6,
    ),
}


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("gate", GATES)
def test_a_gate_keeps_its_own_gradient(gate, rule):
    model, images = excited(GATES[gate][0]), batch()

    @tf.custom_gradient
    def relu(x):
        active = tf.ones_like(x) if rule == "deconvnet" else tf.cast(x > 0, x.dtype)
        return tf.nn.relu(x), lambda incoming: tf.nn.relu(incoming) * active

    conv, squeeze, excite, head = map(model.get_layer, ("features", "squeeze", "excite", "head"))
    pixels = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        x = relu(tf.nn.conv2d(pixels, conv.kernel, 1, "VALID") + conv.bias)
        pooled = tf.reduce_mean(x, (1, 2), keepdims=True)
        small = relu(tf.nn.conv2d(pooled, squeeze.kernel, 1, "VALID") + squeeze.bias)
        weights = GATES[gate][1](tf.nn.conv2d(small, excite.kernel, 1, "VALID") + excite.bias)
        outputs = tf.reduce_mean(x * weights, (1, 2)) @ head.kernel + head.bias
        score = outputs[:, 2]
    np.testing.assert_allclose(outputs, model(images), atol=1e-5)
    expected = tape.gradient(score, pixels).numpy()
    where = np.abs(expected).argmax(-1)[..., None]
    method = {"guided": attribution.guided_backprop, "deconvnet": attribution.deconvnet}[rule]
    found = method(model, images, 2)
    np.testing.assert_allclose(found, np.take_along_axis(expected, where, -1)[..., 0], atol=1e-6)
    assert found.any()
