"""Scores before the probabilities, wherever the softmax or sigmoid stands, and what they mean."""

import numpy as np
import pytest

from xai_utils import attribution, keras, metrics, models, tf

layers, ops = keras.layers, keras.ops
SIDE = 12


def body():
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(5, 3, activation="relu", name="conv")(inputs)
    return inputs, layers.GlobalAveragePooling2D()(x)


def ends_in(head):
    inputs, x = body()
    return keras.Model(inputs, head(x))


def augmented():
    return keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.RandomFlip(), ends_in(layers.Dense(4, "softmax"))]
    )


def base_and_head():
    inputs = keras.Input((SIDE, SIDE, 3))
    base = keras.Model(inputs, layers.Conv2D(5, 3, activation="relu")(inputs))
    head = keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax")])
    return keras.Sequential([base, head])


def last_is_a_network():
    inputs = keras.Input((SIDE, SIDE, 3))
    return keras.Model(inputs, ends_in(layers.Dense(4, "softmax"))(layers.Rescaling(0.5)(inputs)))


def convolution_flattened():
    inputs = keras.Input((SIDE, SIDE, 3))
    maps = layers.Conv2D(5, 3, activation="relu")(inputs)
    maps = layers.Conv2D(4, SIDE - 2, activation="softmax")(maps)
    return keras.Model(inputs, layers.Flatten()(maps))


def passed_on(x):
    x = layers.Dropout(0.3)(layers.Dense(4, "softmax")(x))
    return layers.Activation("linear", dtype="float32")(x)


ENDINGS = {
    "Dense(softmax)": (lambda: ends_in(layers.Dense(4, "softmax")), "softmax"),
    "tf.nn.softmax": (lambda: ends_in(layers.Dense(4, tf.nn.softmax)), "softmax"),
    "Softmax()": (lambda: ends_in(lambda x: layers.Softmax()(layers.Dense(4)(x))), "softmax"),
    "activation=Softmax()": (
        lambda: ends_in(layers.Dense(4, activation=layers.Softmax())),
        "softmax",
    ),
    "ops.softmax": (lambda: ends_in(lambda x: ops.softmax(layers.Dense(4)(x))), "softmax"),
    "ops.sigmoid": (lambda: ends_in(lambda x: ops.sigmoid(layers.Dense(4)(x))), "sigmoid"),
    "Dense(sigmoid)": (lambda: ends_in(layers.Dense(4, "sigmoid")), "sigmoid"),
    "then Dropout and a cast": (lambda: ends_in(passed_on), "softmax"),
    "augmentation, then a network": (augmented, "softmax"),
    "base, then a head": (base_and_head, "softmax"),
    "the last layer is a network": (last_is_a_network, "softmax"),
    "a convolution, then Flatten": (convolution_flattened, "softmax"),
}


@pytest.fixture
def pixels():
    return np.random.default_rng(0).uniform(0, 255, (3, SIDE, SIDE, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ENDINGS)
def test_scores_are_those_before_the_probabilities(pixels, name):
    make, function = ENDINGS[name]
    keras.utils.set_random_seed(1)
    model = make()
    # Far apart, so that computing back from probabilities would not do.
    model.set_weights([40 * weights for weights in model.get_weights()])
    expected = model.predict(pixels / 255, verbose=0)
    mine = models.load_model(model, preprocessing="unit")
    scores = models.logits_of(mine.model, pixels)
    assert {"softmax": "classification", "sigmoid": "multilabel"}[function] == mine.task
    np.testing.assert_allclose(mine.predict(pixels), expected, atol=1e-6)
    spread = np.abs(scores - scores.mean(axis=-1, keepdims=True)).max()
    assert spread > 5 and np.isfinite(scores).all()
    np.testing.assert_array_equal(model.predict(pixels / 255, verbose=0), expected)
    assert np.abs(attribution.saliency(mine.model, pixels)).max() > 0


class Subclassed(keras.Model):
    def __init__(self, *ends):
        super().__init__()
        self.conv, self.pool = layers.Conv2D(5, 3), layers.GlobalAveragePooling2D()
        self.ends = ends

    def call(self, x):
        x = self.pool(self.conv(x))
        for end in self.ends:
            x = end(x)
        return x


class Hidden(layers.Layer):
    """A softmax that no layer's name tells."""

    def call(self, x):
        return ops.exp(x) / ops.sum(ops.exp(x), axis=-1, keepdims=True)


@pytest.mark.parametrize(
    "ends",
    [
        lambda: (layers.Dense(4, "softmax"),),
        lambda: (layers.Dense(4), layers.Softmax()),
        lambda: (layers.Dense(4), layers.Activation("softmax")),
    ],
)
def test_a_model_without_a_graph_is_left_without_the_softmax_that_ran_last(pixels, ends):
    keras.utils.set_random_seed(1)
    model = Subclassed(*ends())
    model(pixels)
    model.set_weights([60 * weights for weights in model.get_weights()])
    expected = model.predict(pixels / 255, verbose=0)
    assert expected.max() == 1  # nothing could be computed back from it
    mine = models.load_model(model, preprocessing="unit")
    np.testing.assert_allclose(mine.predict(pixels), expected, atol=1e-6)
    assert models.logits_of(mine.model, pixels).max() > 20
    assert np.abs(attribution.grad_cam(mine.model, pixels, relu=False)).max() > 0
    np.testing.assert_array_equal(model.predict(pixels / 255, verbose=0), expected)


def test_what_cannot_be_followed_is_computed_back(pixels):
    model = Subclassed(layers.Dense(4), Hidden())
    model(pixels)
    with pytest.warns(UserWarning, match="computed back from its probabilities.*softmax"):
        mine = models.load_model(model, preprocessing="unit")
    np.testing.assert_allclose(mine.predict(pixels), model.predict(pixels / 255, verbose=0), 1e-5)
    assert (models.logits_of(mine.model, pixels) < 0).all()  # logarithms, not probabilities


@pytest.mark.parametrize(
    ("units", "activation", "task"),
    [
        (2, "softmax", None),
        (2, "sigmoid", None),
        (1, "sigmoid", "multilabel"),
        (1, None, "regression"),
    ],
)
def test_whose_classes_have_units_of_their_own(units, activation, task):
    model = ends_in(layers.Dense(units, activation))
    assert not models.load_model(model, preprocessing="unit", task=task).one_unit


def test_one_sigmoid_unit_is_two_classes(pixels):
    keras.utils.set_random_seed(2)
    model = ends_in(layers.Dense(1, "sigmoid", bias_initializer="ones"))
    mine = models.load_model(model, preprocessing="unit")
    p = model.predict(pixels / 255, verbose=0)[:, 0]
    np.testing.assert_allclose(mine.predict(pixels), np.stack([1 - p, p], -1), atol=1e-6)
    scores = models.logits_of(mine.model, pixels)
    np.testing.assert_allclose(scores[:, 1], np.log(p / (1 - p)), atol=1e-4)
    np.testing.assert_allclose(scores[:, 0], -scores[:, 1])
    assert mine.task == "classification" and mine.labels == ("class 0", "class 1")
    assert mine.one_unit
    (first, chance), *_ = mine.top(pixels, 2)[0]
    assert first == "class 1" and chance == pytest.approx(p[0], abs=1e-6) and chance < 1
    for_one, for_other = (attribution.grad_cam(mine.model, pixels, k, relu=False) for k in (0, 1))
    np.testing.assert_allclose(for_one, -for_other, atol=1e-6)
    maps = attribution.cam(mine.model, pixels, 1)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), scores[:, 1] - 1, atol=1e-4)


def test_metrics_take_the_tasks_own_function(pixels):
    keras.utils.set_random_seed(2)
    model = ends_in(layers.Dense(1, "sigmoid"))
    mine = models.load_model(model, preprocessing="unit")
    curve = metrics.deletion(mine.model, pixels, pixels[..., 0], 1, step=0.5)
    black = model.predict(np.zeros_like(pixels), verbose=0)[:, 0]
    np.testing.assert_allclose(
        curve.scores[:, 0], model.predict(pixels / 255, verbose=0)[:, 0], 1e-5
    )
    np.testing.assert_allclose(curve.scores[:, -1], black, rtol=1e-5)
    many = ends_in(layers.Dense(3, "sigmoid"))
    several = models.load_model(many, preprocessing="unit")
    curve = metrics.deletion(several.model, pixels, pixels[..., 0], 2, step=0.5)
    np.testing.assert_allclose(
        curve.scores[:, 0], many.predict(pixels / 255, verbose=0)[:, 2], 1e-5
    )


def test_linear_units_need_names_or_a_task(pixels, tmp_path):
    many, one = ends_in(layers.Dense(3)), ends_in(layers.Dense(1))
    with pytest.raises(
        ValueError,
        match="3 linear units without names: say task=classification or multilabel or regression",
    ):
        models.load_model(many, preprocessing="unit")
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\n")
    named = models.load_model(many, preprocessing="unit", labels=names)
    expected = tf.nn.softmax(many(pixels / 255)).numpy()
    np.testing.assert_allclose(named.predict(pixels), expected, atol=1e-6)
    said = models.load_model(many, preprocessing="unit", task="multilabel")
    np.testing.assert_allclose(said.predict(pixels), tf.sigmoid(many(pixels / 255)), atol=1e-6)
    with pytest.raises(ValueError, match="1 linear unit: say task=.*regression"):
        models.load_model(one, preprocessing="unit")
    two = models.load_model(one, preprocessing="unit", task="classification")
    np.testing.assert_allclose(two.predict(pixels)[:, 1:], tf.sigmoid(one(pixels / 255)), atol=1e-6)


@pytest.mark.parametrize(
    ("units", "task", "message"),
    [
        (3, "classes", "multilabel, regression, segmentation, not 'classes'"),
        (3, "classification", "ends in a sigmoid of 3 units: multilabel, not classification"),
    ],
)
def test_a_task_that_contradicts_the_network_is_refused(units, task, message):
    with pytest.raises(ValueError, match=message):
        models.load_model(ends_in(layers.Dense(units, "sigmoid")), preprocessing="unit", task=task)


def test_a_network_that_returns_nonsense_is_refused():
    model = ends_in(layers.Dense(3, "softmax", bias_initializer=lambda *_, **__: [np.nan] * 3))
    with pytest.raises(ValueError, match="returns values that are NaN or infinite"):
        models.load_model(model, preprocessing="unit")


def test_what_counts_as_the_same_answer_is_the_tasks(pixels):
    scores = np.array([[2.0, 1, -1], [0.5, 3, -2]])
    many = models.load_model(ends_in(layers.Dense(3, "sigmoid")), preprocessing="unit").model
    one = models.load_model(ends_in(layers.Dense(3, "softmax")), preprocessing="unit").model
    value = models.load_model(
        ends_in(layers.Dense(1)), preprocessing="unit", task="regression"
    ).model
    assert models.still_says(one, scores, [0, 2]).tolist() == [True, False]
    assert models.still_says(many, scores, 0).tolist() == [True, True]
    assert models.still_says(many, scores, 2).tolist() == [False, False]
    with pytest.raises(ValueError, match="is a regression: its values have no label"):
        models.still_says(value, scores[:, :1], 0)
    with pytest.raises(ValueError, match="is a regression: the average drop"):
        metrics.average_drop(value, pixels, pixels[..., 0])
    curve = metrics.deletion(value, pixels, pixels[..., 0], 0, step=0.5)
    np.testing.assert_allclose(curve.scores[:, 0], models.logits_of(value, pixels)[:, 0], rtol=1e-5)


@pytest.mark.parametrize("units, activation", [(1, "sigmoid"), (3, "softmax"), (1, "linear")])
def test_a_network_can_be_cloned_without_its_probabilities(pixels, units, activation):
    inputs = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    outputs = keras.layers.Dense(units, activation)(pooled)
    own = keras.Model(inputs, outputs)
    task = "regression" if activation == "linear" else None
    network = models.load_model(own, preprocessing="unit", task=task).model
    images = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    copy = keras.models.clone_model(network)
    assert not np.allclose(copy(images), network(images))
    copy.set_weights(network.get_weights())
    np.testing.assert_allclose(copy(images), network(images), rtol=1e-6)


def test_what_scores_are_counted_in():
    def asked(units, activation, task=None):
        own = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
        own.add(keras.layers.Dense(units, activation))
        found = models.load_model(own, preprocessing="none", task=task)
        return found.function, found.unit

    assert asked(3, "softmax") == ("softmax", "logits")
    assert asked(1, "sigmoid") == asked(3, "sigmoid") == ("sigmoid", "logits")
    assert asked(1, "linear", "regression") == ("linear", "units")
