"""Counterfactuals: exchanges that are known, and the shortest way of a linear network."""

import numpy as np
import pytest
from nets import SHAPES, gap_net

from xai_utils import concepts, keras, models, tf

layers = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 255, (2, 12, 12, 3)).astype(np.float32)
OTHERS = RNG.uniform(0, 255, (2, 12, 12, 3)).astype(np.float32)


def margin_of(logits, target):
    return logits[target] - np.delete(logits, target).max()


def runner_up(model, images):
    """Classes that are not the answer, but near it."""
    return models.logits_of(model, images).argsort(axis=1)[:, -2]


def by_hand(model, image, other, target):
    """Goyal et al.'s exhaustive search, on `gap_net`, one exchange after another."""
    kernel, bias = model.get_layer("logits").get_weights()
    now, source = concepts.codes(model, np.stack([image, other]), places=True).reshape(2, -1, 6)
    now, pairs, margins = now.astype(float), [], []
    while True:
        margins.append(margin_of(now.mean(axis=0) @ kernel + bias, target))
        if margins[-1] > 0 or len(pairs) == len(now):
            return pairs, margins, source[[j for _, j in pairs]]
        best = (-np.inf, None)
        for i in set(range(len(now))) - {i for i, _ in pairs}:
            for j in set(range(len(source))) - {j for _, j in pairs}:
                mean = now.mean(axis=0) + (source[j] - now[i]) / len(now)
                best = max(best, (margin_of(mean @ kernel + bias, target), (i, j)))
        if best[0] <= margins[-1]:
            return pairs, margins, source[[j for _, j in pairs]]
        pairs.append(best[1])
        now[best[1][0]] = source[best[1][1]]


@pytest.mark.parametrize("tried", [None, 400])
def test_exchanges_are_those_of_a_search_by_hand(tried):
    model = gap_net()
    targets = runner_up(model, IMAGES)
    for n, found in enumerate(concepts.exchange(model, IMAGES, OTHERS, targets, tried=tried)):
        pairs, margins, codes = by_hand(model, IMAGES[n], OTHERS[n], targets[n])
        assert pairs and [tuple(at) for at in found.places] == [divmod(i, 6) for i, _ in pairs]
        rows, columns = found.taken.T  # of two places with equal codes either will do
        seen = concepts.codes(model, OTHERS[n : n + 1], places=True)[0, rows, columns]
        np.testing.assert_allclose(seen, codes, atol=1e-3)
        np.testing.assert_allclose(found.margins, margins, atol=1e-4)
        assert found.changed == (margins[-1] > 0) and found.extent == (6, 6)


@pytest.fixture(scope="module")
def colours():
    """Red against green: what is pooled is the mean of each colour."""
    inputs = keras.Input((8, 8, 3))
    seen = layers.Conv2D(3, 1, use_bias=False, name="seen")(inputs)
    head = layers.Dense(2, use_bias=False, name="head")
    model = keras.Model(inputs, head(layers.GlobalAveragePooling2D()(seen)))
    model.get_layer("seen").set_weights([np.eye(3, dtype=np.float32)[None, None] / 255])
    head.set_weights([np.float32([[1, 0], [0, 1], [0, 0]])])
    return model


def of_colour(channel, places):
    """A grey picture, with some places in one colour."""
    picture = np.full((1, 8, 8, 3), 100, np.float32)
    for row, column in places:
        picture[0, row, column] = np.eye(3)[channel] * 255
    return picture


def test_the_places_are_those_that_make_the_answer(colours):
    red, green = [(1, 1), (1, 2), (2, 2)], [(6, 3), (6, 4), (5, 3), (5, 4)]
    (found,) = concepts.exchange(colours, of_colour(0, red), of_colour(1, green), 1)
    assert found.changed and len(found.places) == 2
    assert {tuple(at) for at in found.places} < set(red)
    assert {tuple(at) for at in found.taken} < set(green)
    # Each exchange takes a red place away and brings a green one.
    np.testing.assert_allclose(found.margins, [-3 / 64, -1 / 64, 1 / 64], atol=1e-6)


def test_the_answer_that_is_there_needs_no_exchange_and_most_ends_the_search(colours):
    red, green = of_colour(0, [(1, 1), (1, 2), (2, 2)]), of_colour(1, [(6, 3), (5, 3)])
    (found,) = concepts.exchange(colours, green, green)
    assert found.changed and found.places.shape == found.taken.shape == (0, 2)
    (found,) = concepts.exchange(colours, red, green, most=1)
    assert not found.changed and len(found.places) == 1
    bluish = np.full((1, 8, 8, 3), (100, 90, 200), np.float32)  # nothing green there
    (found,) = concepts.exchange(colours, red, bluish, 1)
    # Three exchanges bring grey for red, and nothing is gained by more.
    assert not found.changed and {tuple(at) for at in found.places} == {(1, 1), (1, 2), (2, 2)}


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_network_and_a_batch_is_its_pictures(shape, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = SHAPES[shape]()
        model(IMAGES)
    finally:
        keras.config.set_dtype_policy("float32")
    layer = {"sequential": "features", "subclassed": "block"}.get(shape)
    targets = runner_up(model, IMAGES)
    found = concepts.exchange(model, IMAGES, OTHERS, targets, layer, most=3)
    logits = models.logits_of(model, IMAGES)
    for n in range(2):
        assert np.isclose(found[n].margins[0], margin_of(logits[n], targets[n]), atol=0.05)
        assert len(found[n].margins) == len(found[n].places) + 1
        assert (np.diff(found[n].margins) > 0).all()
        here = slice(n, n + 1)
        (alone,) = concepts.exchange(
            model, IMAGES[here], OTHERS[here], targets[here], layer, most=3
        )
        np.testing.assert_array_equal(alone.places, found[n].places)


def test_a_callable_says_what_is_wanted():
    model = gap_net()
    target = int(runner_up(model, IMAGES[:1])[0])
    by_class = concepts.exchange(model, IMAGES[:1], OTHERS[:1], target)[0]

    def ahead(outputs):
        others = tf.where(tf.range(5) == target, outputs.dtype.min, outputs)
        return outputs[:, target] - tf.reduce_max(others, axis=1)

    by_call = concepts.exchange(model, IMAGES[:1], OTHERS[:1], ahead)[0]
    np.testing.assert_array_equal(by_class.places, by_call.places)


def linear(channels=3):
    inputs = keras.Input((6, 6, channels))
    head = layers.Dense(2, use_bias=False, name="head")
    model = keras.Model(inputs, head(layers.Flatten()(inputs)), name="linear")
    weights = np.random.default_rng(3).normal(size=(36 * channels, 1)).astype(np.float32) / 1000
    head.set_weights([np.concatenate([weights, -weights], axis=1)])
    return model, 2 * weights.ravel()


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_shortest_way_of_a_linear_network_is_along_its_weights(channels):
    model, weights = linear(channels)
    rng = np.random.default_rng(1)
    images = np.repeat(rng.uniform(100, 150, (1, 6, 6, channels)), 2, axis=0).astype(np.float32)
    images[1] -= (20 * weights / np.abs(weights).mean()).reshape(images[1].shape)  # class 1
    images[0] = images[1] + 1
    found = concepts.counterfactual(
        model, images, 0, 0.6, steps=400, parameterisation="pixels", rate=0.003
    )
    assert found.changed.all() and (found.margins > 0).all()
    for n in range(2):
        way = (found.images[n] - images[n]).astype(float).ravel()
        assert way @ weights / np.linalg.norm(way) / np.linalg.norm(weights) > 0.97
        assert np.isclose(found.distances[n], np.sqrt((way**2).mean()))
        logits = models.logits_of(model, found.images)[n]
        assert np.isclose(found.margins[n], logits[0] - logits[1], atol=1e-4)


def test_a_large_weight_keeps_the_picture_and_the_answer():
    model, weights = linear()
    images = np.full((1, 6, 6, 3), 127.5, np.float32) - 20 * np.sign(weights).reshape(1, 6, 6, 3)
    free, held = (
        concepts.counterfactual(model, images, 0, weight=weight, steps=200, rate=0.03)
        for weight in (0.01, 1e4)
    )
    assert free.changed[0] and not held.changed[0]
    assert held.distances[0] < 1 < free.distances[0]
    np.testing.assert_allclose(free.found.frames[0], images, atol=1e-2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"others": OTHERS[:1]}, "pairs of one shape"),
        ({"target": 5}, "out of range"),
        ({"layer": "logits"}, "not maps"),
        ({"most": 0}, "most must be at least 1 or None, not 0"),
        ({"tried": 0}, "tried must be at least 1 or None, not 0"),
        ({"images": np.full_like(IMAGES, np.nan)}, "finite"),
    ],
)
def test_exchanges_that_cannot_be_asked_for(changed, message):
    given = {"images": IMAGES, "others": OTHERS} | changed
    with pytest.raises(ValueError, match=message) as error:
        concepts.exchange(gap_net(), **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": None}, "needs a target"),
        ({"probability": 1}, "probability is from 0.5 to below 1, not 1"),
        ({"weight": -1}, "weight must be at least 0 and finite, not -1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"parameterisation": "wavelets"}, "parameterisation must be one of"),
    ],
)
def test_counterfactuals_that_cannot_be_asked_for(changed, message):
    given = {"images": IMAGES, "target": 1} | changed
    with pytest.raises(ValueError, match=message) as error:
        concepts.counterfactual(gap_net(), **given)
    assert "\n" not in str(error.value)
