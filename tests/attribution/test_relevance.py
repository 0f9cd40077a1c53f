"""Layer-wise relevance propagation: hand-computed numbers, and sums that come out."""

import numpy as np
import pytest
from nets import SHAPES, batch, gap_net, nested, subclassed, two_outputs

from xai_utils import attribution, keras, models, tf
from xai_utils.attribution.rules import COMPOSITES, RULES, AlphaBeta, Box, Epsilon, Gamma

layers, ops = keras.layers, keras.ops
pytestmark = pytest.mark.filterwarnings("ignore:.* is taken for a network of pixels")


def two_layers():
    """A picture (2, 1); units 2 + 1 + 1 = 4 and -2 + 3 = 1; score 2 * 4 - 2 * 1 = 6."""
    model = keras.Sequential(
        [
            keras.Input((1, 2, 1)),
            layers.Flatten(),
            layers.Dense(2, activation="relu"),
            layers.Dense(1, use_bias=False),
        ]
    )
    model.set_weights([np.array([[1.0, -1], [1, 3]]), np.array([1.0, 0]), np.array([[2.0], [-2]])])
    return model, np.array([2.0, 1]).reshape(1, 1, 2, 1)


@pytest.mark.parametrize(
    ("composite", "expected"),
    [
        # (8, -2) above; 8 (2, 1) / 4 and -2 (-2, 3) / 1
        ("zero", [8, -4]),
        # 6 / 7 (8, -2) above, then 1 beside 4 and beside 1
        (Epsilon(1.0), [156 / 35, -42 / 35]),
        # 6 (16, -2) / 14 above; (4, 2) of 8 with the bias, and (-2, 6) of 4
        (Gamma(1.0), [27 / 7, 3 / 7]),
        # all 6 for the first unit; (2, 1) of 4 with the bias
        ("z_plus", [3, 1.5]),
        # 2 (6, 0) - (0, 6) above; 24 (2, 1) / 4, and -12 (0, 1) + 6 (1, 0)
        ("alpha_beta", [18, -6]),
        ("flat", [3, 3]),
        # (3, 3) above; halves, and (1, 9) of 10
        ("w_square", [1.8, 4.2]),
        # (8, -2) above; (2, 1) of 3, and (-2 + 4, 3) of 5
        ({"first": Box(0.0, 4.0), "dense": "zero"}, [16 / 3 - 0.8, 8 / 3 - 1.2]),
    ],
)
def test_two_layers_by_hand(composite, expected):
    model, picture = two_layers()
    maps = attribution.lrp(model, picture, 0, composite)
    np.testing.assert_allclose(maps.ravel(), expected, rtol=1e-5)


def bias_free(kind="operations"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(6, 3, use_bias=False, activation="relu")(inputs)
    y = layers.Conv2D(6, 3, padding="same", use_bias=False)(x)
    if kind == "operations":
        x = ops.relu(x + y)
    elif kind == "layers":
        x = layers.ReLU()(layers.Add()([x, y]))
    else:
        x = ByHand()([x, y])
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(8, 3, use_bias=False, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x) if kind == "layers" else ops.mean(x, (1, 2))
    return keras.Model(inputs, layers.Dense(4, use_bias=False)(x), name="bias_free")


class ByHand(layers.Layer):
    """What a user may write in a layer of their own."""

    def call(self, both):
        return tf.nn.relu(both[0] + both[1])


@pytest.mark.parametrize("kind", ["operations", "layers", "by hand"])
def test_lrp_0_without_biases_is_gradient_x_input(kind):
    model, images = bias_free(kind), batch()
    for target in (None, [0, 1, 3], lambda s: s[:, 2] - s[:, 0]):
        maps = attribution.lrp(model, images, target, "zero")
        expected = attribution.gradient_x_input(model, images, target)
        np.testing.assert_allclose(maps, expected, atol=1e-5 * np.abs(expected).max())


def many_kinds():
    """Of most kinds of layers one, with numbers in its biases and normalisation."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = shortcut = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = ops.relu(layers.BatchNormalization()(x))
    x = layers.Activation("silu")(layers.Conv2D(8, 3, padding="same", groups=4)(x))
    x = x + shortcut
    gate = layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, gate])
    x = layers.SeparableConv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.LeakyReLU()(layers.Conv2D(8, 3, dilation_rate=2, padding="same")(x))
    x = layers.Conv2DTranspose(6, 3, strides=2, padding="same")(x)
    x = layers.ELU()(layers.BatchNormalization()(x))
    x = layers.Concatenate()([layers.MaxPooling2D()(x), layers.AveragePooling2D(2)(x)])
    x = layers.Dropout(0.2)(layers.UpSampling2D()(layers.ZeroPadding2D()(x)))
    x = layers.PReLU()(layers.BatchNormalization()(x))
    x = layers.Permute((2, 1, 3))(layers.Cropping2D(1)(x))
    x = layers.Flatten()(layers.GlobalMaxPooling2D()(layers.GroupNormalization(4)(x)))
    model = keras.Model(inputs, layers.Dense(5)(x), name="many_kinds")
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        elif getattr(layer, "use_bias", False):
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
    return model


def transformer(style="layer", bias=True):
    """Two blocks of a small vision transformer, its attention a layer or written in operations."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, strides=3, use_bias=bias)(inputs)
    x = layers.Reshape((16, 16))(x)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        if style == "layer":
            y = layers.MultiHeadAttention(2, 8, use_bias=bias)(y, y)
        else:
            q, k, v = (layers.Dense(16, use_bias=bias)(y) for _ in range(3))
            weights = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 2, 1))) / 4)
            y = ops.matmul(weights, v)
        x = x + y
        y = layers.LayerNormalization()(x)
        y = layers.Dense(32, activation="gelu", use_bias=bias)(y)
        x = layers.Add()([x, layers.Dense(16, use_bias=bias)(y)])
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(5, use_bias=bias)(x), name="transformer")


def pictures(count=2):
    return np.random.default_rng(0).uniform(0, 255, (count, 12, 12, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("build", "composites"),
    [
        (many_kinds, ["epsilon_gamma_box", "epsilon_alpha2_beta1"]),
        (gap_net, [*RULES]),
        (transformer, ["epsilon_plus_flat"]),
    ],
)
def test_what_is_missing_is_what_was_absorbed(build, composites):
    model, images = build(), pictures()
    scores = models.logits_of(model, images).max(axis=1)
    for composite in composites:
        if composite == "box":  # is for layers that read pixels
            composite = {"first": "box", "conv": "gamma", "dense": "zero"}
        maps = attribution.lrp(model, images, composite=composite)
        accounts = attribution.conservation(model, images, composite=composite)
        size = np.abs(maps).sum(axis=(1, 2)).max() + np.abs(scores).max()
        for score, values, steps in zip(scores, maps, accounts, strict=True):
            absorbed = sum(step.absorbed for step in steps)
            assert abs(score - absorbed - values.sum()) < 2e-5 * size, composite
            for step in steps:
                missing = step.received - step.passed
                assert abs(missing - step.absorbed) < 2e-5 * size, (composite, step)


def one_sigmoid(folder):
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(6, 3, activation="relu", bias_initializer="normal"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid", bias_initializer="ones"),
        ]
    )
    network.save(folder / "mine.keras")
    card = "task: classification\npreprocessing: unit\nlabels: [healthy, ill]\n"
    (folder / "mine.yaml").write_text(card)
    return models.load_model(folder / "mine.keras").model


def a_head_for_each_class(_):
    """Some hidden units and an output for each class, side by side."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    flat = layers.Flatten()(inputs)
    heads = [
        layers.Dense(1, name=f"out_{k}")(layers.Dense(4, "leaky_relu", name=f"hidden_{k}")(flat))
        for k in "ab"
    ]
    return keras.Model(inputs, layers.Concatenate()(heads))


@pytest.mark.parametrize("build", [one_sigmoid, a_head_for_each_class])
@pytest.mark.parametrize("target", [0, 1])
def test_the_first_step_receives_the_score_whichever_class_is_asked_for(build, target, tmp_path):
    model, images = build(tmp_path), pictures()
    scores = models.logits_of(model, images)[:, target]
    maps = attribution.lrp(model, images, target)
    for score, values, steps in zip(
        scores, maps, attribution.conservation(model, images, target), strict=True
    ):
        size = np.abs(values).sum() + abs(score)
        assert abs(score) > 0.01 and abs(score - steps[0].received) < 2e-5 * size
        absorbed = sum(step.absorbed for step in steps)
        assert abs(score - absorbed - values.sum()) < 2e-5 * size
        for step in steps:
            assert abs(step.received - step.passed - step.absorbed) < 2e-5 * size, step
        told = " ".join(step.layer for step in steps)
        if build is a_head_for_each_class:  # the other has nothing to do with this score
            assert f"out_{'ab'[target]}" in told and f"out_{'ba'[target]}" not in told
            assert f"hidden_{'ba'[target]}" not in told
        else:  # of s and -s only the first class has the minus
            assert ("Neg" in [step.rule for step in steps]) == (target == 0)


def test_two_dense_layers_that_read_the_pixels_have_each_its_box():
    inputs = keras.Input((1, 2, 1))
    flat = layers.Flatten()(inputs)
    heads = [layers.Dense(1, use_bias=False)(flat) for _ in range(2)]
    model = keras.Model(inputs, layers.Concatenate()(heads))
    model.set_weights([np.array([[1.0], [1]]), np.array([[-1.0], [2]])])
    rules = {"first": Box(), "dense": "zero"}  # of 0 to 255
    maps = attribution.lrp(model, np.array([100.0, 55]).reshape(1, 1, 2, 1), 1, rules)
    # a w - high w- is 155 and 110, which adds up to 265 for a score of 10
    np.testing.assert_allclose(maps.ravel(), [1550 / 265, 1100 / 265], rtol=1e-5)


def test_a_score_of_zero_keeps_its_steps():
    model, picture = two_layers()
    (steps,) = attribution.conservation(model, np.zeros_like(picture), lambda s: 0 * s[:, 0])
    assert steps and all(step.received == step.passed == step.absorbed == 0 for step in steps)


@pytest.mark.parametrize("composite", ["z_plus", "epsilon_plus_flat", "epsilon_gamma_box"])
def test_without_biases_nothing_is_missing(composite):
    model, images = bias_free(), pictures()
    scores = models.logits_of(model, images).max(axis=1)
    maps = attribution.lrp(model, images, composite=composite)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), scores, rtol=1e-4)


def test_a_transformer_without_biases_loses_only_what_softmax_keeps():
    model, images = transformer(bias=False), pictures()
    scores = models.logits_of(model, images).max(axis=1)
    for maps, score, steps in zip(
        attribution.lrp(model, images, composite="zero"),
        scores,
        attribution.conservation(model, images, composite="zero"),
        strict=True,
    ):
        kept = sum(step.absorbed for step in steps if step.rule == "Softmax")
        assert maps.sum() == pytest.approx(score - kept, rel=1e-3)
        others = [abs(step.absorbed) for step in steps if step.rule != "Softmax"]
        assert max(others) < 1e-4 * abs(score)


def test_softmax_by_its_taylor_form():
    x = np.array([[0.5, -1.0, 2.0]], np.float32)
    inputs = keras.Input((1, 3, 1))
    flat = layers.Flatten()(inputs)
    head = layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, head(layers.Softmax()(flat)))
    weights = np.array([1.0, 2.0, -1.0])
    head.set_weights([weights[:, None]])
    shares = np.exp(x[0]) / np.exp(x[0]).sum()
    relevance = shares * weights
    expected = x[0] * (relevance - shares * relevance.sum())
    maps = attribution.lrp(model, x.reshape(1, 1, 3, 1), 0, "zero")
    np.testing.assert_allclose(maps.ravel(), expected, rtol=1e-5)


def test_gamma_without_end_is_z_plus():
    model, images = gap_net(), batch()
    endless = attribution.lrp(model, images, composite=Gamma(1e5))
    plus = attribution.lrp(model, images, composite="z_plus")
    np.testing.assert_allclose(endless, plus, atol=2e-3 * np.abs(plus).max())
    none = attribution.lrp(model, images, composite=Gamma(0.0))
    zero = attribution.lrp(model, images, composite="zero")
    np.testing.assert_allclose(none, zero, atol=1e-3 * np.abs(zero).max())


def test_flat_is_uniform():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Flatten(), layers.Dense(4)])
    maps = attribution.lrp(model, batch(6), 1, "flat")
    scores = models.logits_of(model, batch(6))[:, 1]
    np.testing.assert_allclose(maps, np.tile(scores[:, None, None] / 36, (1, 6, 6)), rtol=1e-4)


def test_padding_gets_no_relevance_from_a_rule_that_ignores_the_inputs():
    def build(layer):
        keras.utils.set_random_seed(0)
        inputs = x = keras.Input((6, 6, 3))
        x = layers.ZeroPadding2D(1)(x) if layer else x
        x = layers.Conv2D(4, 3, padding="valid" if layer else "same", activation="relu")(x)
        return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))

    one, two = build(True), build(False)
    two.set_weights(one.get_weights())
    for rule in ("flat", "w_square", "box"):
        rules = {"first": rule, "dense": "zero"}
        expected = attribution.lrp(two, batch(6), 0, rules)
        np.testing.assert_allclose(attribution.lrp(one, batch(6), 0, rules), expected, atol=1e-6)


def test_z_plus_of_a_positive_score_is_not_negative():
    model, images = gap_net(), pictures()
    top = models.logits_of(model, images).max(axis=1)
    assert (top > 0).all() and attribution.lrp(model, images, composite="z_plus").min() >= 0


def test_the_box_is_what_black_and_white_become():
    keras.utils.set_random_seed(0)
    net = gap_net()
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, net(layers.Rescaling(1 / 50, offset=-1.5)(inputs)))
    given = {"first": Box(-1.5, 255 / 50 - 1.5), "conv": "z_plus", "dense": "zero"}
    found = attribution.lrp(model, pictures(), composite=given | {"first": "box"})
    np.testing.assert_allclose(
        found, attribution.lrp(model, pictures(), composite=given), rtol=1e-3, atol=1e-7
    )


@pytest.mark.parametrize("composite", ["zero", "epsilon_plus_flat", "epsilon_gamma_box"])
def test_batch_normalisation_is_folded_into_the_layer_before_it(composite):
    rng = np.random.default_rng(0)

    def build(normalised):
        keras.utils.set_random_seed(0)
        inputs = x = keras.Input((12, 12, 3))
        kinds = [
            layers.Conv2D(6, 3, use_bias=not normalised),
            layers.DepthwiseConv2D(3, use_bias=not normalised),
            layers.Conv2DTranspose(4, 3, use_bias=not normalised),
        ]
        for layer in kinds:
            x = layer(x)
            x = layers.BatchNormalization()(x) if normalised else x
            x = layers.ReLU()(x)
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x))), kinds

    (model, convolutions), (folded, theirs) = build(True), build(False)
    norms = [part for part in model.layers if isinstance(part, layers.BatchNormalization)]
    for conv, norm, other in zip(convolutions, norms, theirs, strict=True):
        values = [rng.uniform(0.5, 1.5, w.shape) for w in norm.get_weights()]
        norm.set_weights(values)
        gamma, beta, mean, variance = values
        factor = gamma / np.sqrt(variance + norm.epsilon)
        kernel = conv.get_weights()[0]
        if isinstance(conv, layers.DepthwiseConv2D):
            shaped = factor[:, None]
        else:
            shaped = factor[:, None] if isinstance(conv, layers.Conv2DTranspose) else factor
        other.set_weights([kernel * shaped, beta - mean * factor])
    folded.layers[-1].set_weights(model.layers[-1].get_weights())
    maps = attribution.lrp(model, pictures(), 1, composite)
    expected = attribution.lrp(folded, pictures(), 1, composite)
    np.testing.assert_allclose(maps, expected, atol=2e-4 * np.abs(expected).max())
    told = {step.rule for step in attribution.conservation(model, pictures(1), 1, composite)[0]}
    assert "folded" in told


def test_a_separable_convolution_is_its_two_parts():
    def build(separable):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((12, 12, 3))
        if separable:
            x = layers.SeparableConv2D(5, 3, strides=2, padding="same")(inputs)
        else:
            x = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)(inputs)
            x = layers.Conv2D(5, 1)(x)
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.ReLU()(x))))

    one, two = build(True), build(False)
    two.set_weights(one.get_weights())
    for composite in ("zero", "epsilon_plus_flat", "epsilon_gamma_box"):
        expected = attribution.lrp(two, pictures(), 0, composite)
        found = attribution.lrp(one, pictures(), 0, composite)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@tf.custom_gradient
def own_sigmoid(x):
    """A sigmoid with a gradient of its own, which has nothing to do with relevance."""
    return tf.sigmoid(x), lambda incoming: -incoming


OPENED = {
    "of Keras": lambda x: layers.Dense(3, activation="sigmoid")(x),
    "a user's": lambda x: layers.Dense(3, activation=own_sigmoid)(x),
    "a user's, in a call": lambda x: Bent(own_sigmoid)(layers.Dense(3)(x)),
}


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("gate", ["signal", "half"])
def test_a_gate_takes_nothing_or_half(gate, opened):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 2))
    body = layers.Dense(3, name="signal")(inputs)
    gated = layers.Multiply(name="product")([body, OPENED[opened](inputs)])
    x = layers.GlobalAveragePooling2D()(gated)
    model = keras.Model(inputs, layers.Dense(2, use_bias=False)(x))
    signal, whole = (
        attribution.lrp(model, batch(4)[..., :2], 0, "zero", gate, layer=name).sum((1, 2))
        for name in ("signal", "product")
    )
    share = 1 if gate == "signal" else 0.5
    np.testing.assert_allclose(signal, share * whole, rtol=1e-4)


@pytest.mark.parametrize("build", [gap_net, nested, subclassed])
def test_a_layer_and_its_channels_add_up(build):
    model, images = build(), batch()
    name = "body/features" if build is nested else "features"
    whole = attribution.lrp(model, images, 1, "zero")
    at_layer = attribution.lrp(model, images, 1, "zero", layer=name)
    channels = attribution.channel_relevance(model, images, 1, layer=name, composite="zero")
    alone = [
        attribution.lrp(model, images, 1, "zero", layer=name, channel=k)
        for k in range(channels.shape[1])
    ]
    assert at_layer.shape[0] == 3 and at_layer.ndim == 3
    np.testing.assert_allclose(channels.sum(axis=1), at_layer.sum(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(sum(alone), whole, atol=1e-6)


def test_the_relevance_of_a_layer_before_a_dense_one_is_its_share():
    model, images = gap_net(), batch()
    features = keras.Model(model.input, model.get_layer("features").output)(images).numpy()
    kernel = model.get_layer("logits").get_weights()[0][:, 2]
    expected = (features * kernel).sum(axis=-1) / features[0, ..., 0].size
    found = attribution.lrp(model, images, 2, "zero", layer="features")
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("composite", [*COMPOSITES, "zero"])
@pytest.mark.parametrize("shape", SHAPES)
def test_batches_as_singles_and_the_model_untouched(shape, composite):
    model, images = SHAPES[shape](), batch()
    models.logits_of(model, images)
    before = [sorted(vars(layer)) for _, layer in models.walk(model)]
    maps = attribution.lrp(model, images, composite=composite)
    singles = [attribution.lrp(model, image[None], composite=composite)[0] for image in images]
    np.testing.assert_allclose(maps, singles, atol=1e-6)
    assert maps.shape == (3, 12, 12) and maps.dtype == np.float32 and np.abs(maps).max() > 0
    assert [sorted(vars(layer)) for _, layer in models.walk(model)] == before


class Own(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4))

    def call(self, x):
        return tf.matmul(x, self.kernel)


class Rounded(layers.Layer):
    def call(self, x):
        return tf.math.cumsum(x, axis=1)


@pytest.mark.parametrize(
    ("layer", "named"), [(Own(name="own"), "MatMul with weights"), (Rounded(name="own"), "Cumsum")]
)
def test_what_has_no_rule_is_named_and_the_model_left_as_it_was(layer, named):
    inputs = keras.Input((4, 4, 3))
    x = layer(layers.Flatten()(layers.Conv2D(2, 3, activation="relu")(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(x), name="strange")
    before = [sorted(vars(part)) for _, part in models.walk(model)]
    with pytest.raises(ValueError, match=f"strange computes in '.*own.*': {named}") as error:
        attribution.lrp(model, batch(4))
    assert "\n" not in str(error.value)
    assert [sorted(vars(part)) for _, part in models.walk(model)] == before
    assert models.find_layer(model, model.layers[1].name).activation


def test_settings_that_do_not_fit():
    model, images = gap_net(), batch()

    def told(match, **settings):
        with pytest.raises(ValueError, match=match):
            attribution.lrp(model, images, **settings)

    told("composite is one of epsilon_plus_flat, .* not 'plus'", composite="plus")
    told("there is no rule 'plus'", composite={"conv": "plus", "dense": "zero"})
    told("layer 'early' .Conv2D. of gap has no rule", composite={"dense": "zero"})
    told("no layer 'convs'", composite={"convs": "zero", "dense": "zero"})
    told("layer 'features' does not read the pixels", composite={"conv": "box", "dense": "zero"})
    told("composite is one of .* not .'zero'.", composite=["zero"])
    told("there is no rule .'zero'.", composite={"conv": ["zero"], "dense": "zero"})
    told("Box holds .* an array", composite={"first": Box(np.zeros(3), np.ones(3)), "conv": "zero"})
    told("sums have the rule zero or epsilon, not flat", composite={"conv": "zero", "sum": "flat"})
    told("gate is one of signal, half, not 'all'", gate="all")
    told("channel 3 of which layer", channel=3)
    for channel in (6, 1.5, "two"):
        told(f"'features' has channels 0 to 5, not {channel!r}", channel=channel, layer="features")
    with pytest.raises(ValueError, match="alpha - beta is 1 .* not with 2 and 0"):
        AlphaBeta(2.0, 0.0)


def test_a_rule_for_one_layer_by_its_name():
    model, images = gap_net(), batch()
    named = {"conv": "zero", "dense": "zero", "early": "flat"}
    first = {"conv": "zero", "dense": "zero", "first": "flat"}
    np.testing.assert_array_equal(
        attribution.lrp(model, images, composite=named),
        attribution.lrp(model, images, composite=first),
    )


def test_half_precision_says_what_single_says():
    build, images = gap_net, batch()
    before = keras.config.dtype_policy()
    single = build()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = build()
    finally:
        keras.config.set_dtype_policy(before)
    half.set_weights(single.get_weights())
    for composite in ("epsilon_plus_flat", "epsilon_gamma_box"):
        expected = attribution.lrp(single, images, 1, composite)
        found = attribution.lrp(half, images, 1, composite)
        assert found.dtype == np.float32
        assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_one_sigmoid_unit_and_an_output_of_several():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    assert attribution.lrp(model, batch()).shape == (3, 12, 12)
    chosen = attribution.lrp(two_outputs(), batch(), lambda said: said["logits"][:, 1], "zero")
    expected = attribution.lrp(gap_net(), batch(), 1, "zero")
    np.testing.assert_allclose(chosen, expected, atol=1e-6)


def test_outputs_that_are_made_of_each_other():
    """What passes between two outputs is relevance, and is counted once."""
    model, images = gap_net(), batch()
    features = models.find_layer(model, "features").output
    both = keras.Model(model.inputs, [features, model.output])
    for composite in ("zero", "epsilon_gamma_box"):
        expected = attribution.lrp(model, images, 1, composite)
        found = attribution.lrp(both, images, lambda said: said[1][:, 1], composite)
        np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_a_first_layer_that_runs_twice_has_the_bounds_of_each_run():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    shared = layers.SeparableConv2D(4, 3, use_bias=False)
    twice = shared(inputs) + shared(layers.Rescaling(-1)(inputs))
    head = layers.Dense(2, use_bias=False)
    model = keras.Model(inputs, head(layers.GlobalAveragePooling2D()(layers.ReLU()(twice))))
    # the pixels less the pixels are nothing, layer by layer
    images = batch(8)
    np.testing.assert_array_equal(model(images), 0)
    assert not attribution.lrp(model, images, 0).any()
    alone = keras.Model(inputs, head(layers.GlobalAveragePooling2D()(shared(inputs))))
    again = keras.Model(
        inputs, head(layers.GlobalAveragePooling2D()(shared(layers.Rescaling(1)(inputs))))
    )
    np.testing.assert_allclose(
        attribution.lrp(again, images, 0), attribution.lrp(alone, images, 0), rtol=1e-4, atol=1e-7
    )


class Bent(layers.Layer):
    """An activation that a user's own layer calls."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


@tf.custom_gradient
def reversed_gradient(x):
    """What has a gradient of its own, which has nothing to do with relevance."""
    return tf.nn.elu(x), lambda incoming: -incoming


BENDS = {
    "silu": tf.nn.silu,
    "silu of two": lambda x: tf.nn.silu(x, beta=2.0),
    "silu of Keras": keras.ops.silu,
    "gelu": tf.nn.gelu,
    "gelu, approximate": keras.ops.gelu,
    "hard_silu": keras.ops.hard_silu,
    "hard_sigmoid": keras.ops.hard_sigmoid,
    "leaky_relu": tf.nn.leaky_relu,
    "elu": tf.nn.elu,
    "softplus": tf.nn.softplus,
    "by hand": lambda x: x * tf.sigmoid(x),
    "own gradient": reversed_gradient,
}


@pytest.mark.parametrize("gate", ["signal", "half"])
@pytest.mark.parametrize("bend", BENDS)
def test_an_activation_in_a_users_call_is_that_of_its_layer(bend, gate):
    found = []
    for make in (layers.Activation, Bent):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6, 6, 3))
        x = make(BENDS[bend])(layers.Conv2D(4, 3, bias_initializer="random_normal")(inputs))
        model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
        found.append(attribution.lrp(model, batch(6), 1, "epsilon", gate))
    # GELU's x + 0.04 x³ is a sum, whose epsilon absorbs a little where x is nearly 0
    np.testing.assert_allclose(*found, rtol=1e-4, atol=5e-3 * np.abs(found[0]).max())


def test_a_gradient_of_its_own_is_refused_where_tensorflow_does_not_let_it_go(monkeypatch):
    inputs = keras.Input((6, 6, 3))
    x = layers.GlobalAveragePooling2D()(Bent(tf.nn.silu)(layers.Conv2D(2, 3)(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(x), name="bent")
    whole = tf.Operation._set_attr

    def only_once(operation, name, value):
        if name in operation.node_def.attr:
            raise AttributeError(name)
        whole(operation, name, value)

    monkeypatch.setattr(tf.Operation, "_set_attr", only_once)
    with pytest.raises(ValueError, match="no rule for .*: an operation with a gradient of its own"):
        attribution.lrp(model, batch(6), 1)


def test_several_tensors_passed_on_together_have_their_relevance():
    """`tf.identity_n` has no gradient of its own: it moves values, as two identities do."""
    found = []
    for both in (lambda x: tf.identity_n([x, 2 * x])[0], tf.identity):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6, 6, 3))
        x = layers.GlobalAveragePooling2D()(Bent(both)(layers.Conv2D(2, 3)(inputs)))
        found.append(attribution.lrp(keras.Model(inputs, layers.Dense(2)(x)), batch(6), 1))
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert np.abs(found[0]).max() > 0
