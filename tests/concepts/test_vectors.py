"""Concept vectors: directions that are known, and a test that is right about chance."""

import nets
import numpy as np
import pytest
from scipy import stats

from xai_utils import concepts, keras, models
from xai_utils.concepts import vectors

layers = keras.layers


@pytest.fixture(scope="module")
def colours():
    """A network whose channels are a picture's red, green and blue, pooled into two classes."""
    return nets.colour_net([[2, 0], [0, 1], [-1, 0]], scale=100)


def of_colour(channel, count=12, seed=0):
    rng = np.random.default_rng(seed)
    pictures = rng.uniform(0, 100, (count, 8, 8, 3)).astype(np.float32)
    if channel is not None:
        pictures[..., channel] += 150
    return pictures


@pytest.mark.parametrize("channel", range(3))
def test_the_vector_of_a_channel_is_that_channel(colours, channel):
    found = concepts.concept_vector(colours, of_colour(channel), of_colour(None, 20, 1))
    assert found.vector[channel] > 0.99 and np.isclose(np.linalg.norm(found.vector), 1)
    assert found.accuracy == 1 and found.layer == "seen" and found.vector.dtype == np.float32


def test_pictures_like_the_others_are_not_told_from_them(colours):
    accuracies = [
        concepts.concept_vector(colours, of_colour(None, 40, s), of_colour(None, 40, 50 + s))
        for s in range(8)
    ]
    assert abs(np.mean([found.accuracy for found in accuracies]) - 0.5) < 0.1


def test_a_linear_head_has_its_weight_along_the_vector_everywhere(colours):
    found = concepts.concept_vector(colours, of_colour(0), of_colour(None, 20, 1))
    maps = concepts.concept_map(colours, of_colour(None, 3, 2), 0, found)
    assert maps.shape == (3, 8, 8) and maps.dtype == np.float32
    np.testing.assert_allclose(maps, [2, 0, -1] @ found.vector / 64, rtol=1e-5)


def test_the_map_is_the_derivative_along_the_vector_at_a_place():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    seen = layers.Conv2D(4, 3, activation="relu", name="seen")(inputs)
    hidden = layers.Dense(5, activation="tanh")(layers.Flatten()(seen))
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    head = keras.Model(seen, model.output)
    pictures = of_colour(None, 2)
    vector = concepts.ConceptVector(np.float32([0.5, -0.5, 0.5, 0.5]), 1.0, "seen")
    found = concepts.concept_map(model, pictures, 1, vector)
    code = concepts.codes(model, pictures, "seen", places=True).astype(np.float64)
    step = np.zeros_like(code)
    step[:, 2, 3] = 0.01 * vector.vector
    higher, lower = (head(code + sign * step).numpy()[:, 1] for sign in (1, -1))
    np.testing.assert_allclose(found[:, 2, 3], (higher - lower) / 0.02, rtol=0.05, atol=1e-4)


def test_tcav_of_a_linear_head_is_all_or_nothing(colours):
    told = concepts.tcav(
        colours,
        of_colour(None, 10, 5),
        0,
        {"red": of_colour(0), "blue": of_colour(2)},
        of_colour(None, 240, 1),
        sets=99,
        against=1,
    )
    red, blue = told
    assert (red.concept, red.score, blue.concept, blue.score) == ("red", 1, "blue", 0)
    assert red.layer == "seen" and red.chance.shape == (99,) and red.accuracy == 1
    assert set(red.chance) == {0, 1}, "a linear head says all or nothing of every direction"
    assert red.p == 0.01 and red.p_corrected == 0.02 and np.isclose(red.slope, 2, atol=0.05)
    assert np.isclose(blue.slope, -1, atol=0.05) and blue.p_corrected > 0.05, "chance reaches it"


def test_chance_is_found_as_often_as_it_says(monkeypatch):
    """The p of concepts that are like the others is uniform: Kolmogorov-Smirnov over 200 draws."""
    monkeypatch.setattr(vectors, "_accuracy", lambda *_: 0.5)
    rng = np.random.default_rng(0)
    sets, found = 19, []
    of_class = rng.normal(size=(25, 6))
    for _ in range(200):
        concept, others = rng.normal(size=(10, 6)), rng.normal(size=(400, 6))
        chance = vectors._chance(10, others, of_class, sets, 1, rng)
        tested = vectors._tested(concept, of_class, *chance)
        found.append(concepts.TestedConcept("", "", *tested).p)
    spread = np.array(found) - rng.uniform(0, 1 / (sets + 1), 200)  # p comes in steps
    assert stats.kstest(spread, "uniform").pvalue > 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: concepts.concept_vector(m, of_colour(0, 4), of_colour(1)), "at least 5 pict"),
        (lambda m: concepts.concept_vector(m, of_colour(0), of_colour(1, 3)), "not 3"),
        (
            lambda m: concepts.concept_vector(m, 0 * of_colour(0), 0 * of_colour(1)),
            "same mean code",
        ),
        (
            lambda m: concepts.concept_vector(m, of_colour(1), of_colour(1)),
            "are they the same pict",
        ),
        (lambda m: concepts.tcav(m, of_colour(0), 0, [of_colour(0)], of_colour(1)), "no list"),
        (
            lambda m: concepts.tcav(m, [], 0, {"red": of_colour(0)}, of_colour(1, 240)),
            "images is empty: give pictures of the class",
        ),
        (
            lambda m: concepts.tcav(
                m, of_colour(0), 0, {"red": of_colour(0)}, np.tile(of_colour(1, 30), (8, 1, 1, 1))
            ),
            "240 pictures, but only 30 different codes",
        ),
        (
            lambda m: concepts.concept_map(
                m, of_colour(0), 0, concepts.concept_vector(m, of_colour(0), of_colour(1), "head")
            ),
            "'head' returns .*, not maps",
        ),
        (lambda m: concepts.concept_map(m, of_colour(0), 0), "what concept_vector returns"),
        (lambda m: concepts.tcav(m, of_colour(0), 0, {}, of_colour(1)), "given none"),
        (
            lambda m: concepts.tcav(m, of_colour(0), 0, {"red": of_colour(0)}, of_colour(1, 20)),
            "at least 240, or fewer",
        ),
        (
            lambda m: concepts.tcav(
                m, of_colour(0), 0, {"red": of_colour(0)}, of_colour(1, 240), sets=18
            ),
            "sets must be at least 19",
        ),
        (
            lambda m: concepts.tcav(m, of_colour(0), 0, {"red": of_colour(0, 3)}, of_colour(1, 60)),
            "red needs at least 5 pictures, not 3",
        ),
        (lambda m: concepts.codes(m, of_colour(0), "nowhere"), "nowhere"),
        (lambda m: concepts.codes(m, of_colour(0), "head", places=True), "not maps"),
        (lambda m: concepts.codes(m, np.nan * of_colour(0)), "finite|nan"),
    ],
)
def test_what_cannot_be_done_says_so(colours, call, message):
    with pytest.raises(ValueError, match=message) as told:
        call(colours)
    assert "\n" not in str(told.value)


def test_codes_that_are_not_finite_are_named(colours):
    huge = of_colour(None, 6)
    huge[4] = 3e38
    large = layers.Rescaling(1e3, name="large")(colours.get_layer("seen").output)
    model = keras.Model(colours.input, large)
    with pytest.raises(ValueError, match="1 of 6 pictures, the first of them picture 4"):
        concepts.codes(model, huge, "large")


def test_slopes_that_are_not_finite_are_named(colours):
    root = keras.layers.Lambda(lambda x: keras.ops.sqrt(x), name="root")
    seen = colours.get_layer("seen").output
    model = keras.Model(colours.input, layers.GlobalAveragePooling2D()(root(seen)))
    pictures = of_colour(None, 3)
    pictures[1, 0, 0, 2] = 0  # the root is steep there
    with pytest.raises(ValueError, match="slopes at layer 'seen' are not finite for 1 of 3.*e 1"):
        concepts.slopes(model, pictures, 2, "seen")


def test_concepts_tested_together_are_tested_as_each_alone(colours):
    named = {"red": of_colour(0), "five": of_colour(1, 5), "blue": of_colour(2)}
    asked = {"others": of_colour(None, 240, 1), "sets": 59, "against": 1}
    images = of_colour(None, 10, 5)
    together = concepts.tcav(colours, images, 0, named, **asked)
    for tested in together:
        (alone,) = concepts.tcav(colours, images, 0, {"it": named[tested.concept]}, **asked)
        assert (alone.p, alone.slope, alone.score) == (tested.p, tested.slope, tested.score)
        np.testing.assert_array_equal(alone.chance_slopes, tested.chance_slopes)


def test_a_concept_that_is_nothing_is_reported_as_nothing(colours):
    named = {"nothing": of_colour(None, 12, 7), "red": of_colour(0)}
    nothing, red = concepts.tcav(
        colours, of_colour(None, 10, 5), 0, named, of_colour(None, 240, 1), sets=99, against=1
    )
    assert (nothing.verdict, red.verdict) == ("nothing", "counts for")
    assert nothing.p_corrected > 0.05 and nothing.accuracy < 0.8
    (against,) = concepts.tcav(
        colours,
        of_colour(None, 10, 5),
        1,
        {"red": red_and_dark()},
        of_colour(None, 240, 1),
        sets=99,
    )
    assert against.verdict == "counts against"


def red_and_dark():
    """Pictures that have more red than others, and much less green, which class 1 goes by."""
    pictures = of_colour(0)
    pictures[..., 1] /= 10
    return pictures - np.float32([0, 40, 0])


def test_codes_are_means_over_places(colours):
    pictures = of_colour(None, 3)
    everywhere = concepts.codes(colours, pictures, "seen", places=True)
    np.testing.assert_allclose(everywhere, pictures / 100, rtol=1e-5)
    mean = concepts.codes(colours, pictures, "seen")
    np.testing.assert_allclose(mean, pictures.mean(axis=(1, 2)) / 100, rtol=1e-5)


def test_codes_of_a_dense_layer_are_its_outputs(colours):
    pictures = of_colour(None, 3)
    np.testing.assert_allclose(
        concepts.codes(colours, pictures, "head"), models.logits_of(colours, pictures), rtol=1e-5
    )
