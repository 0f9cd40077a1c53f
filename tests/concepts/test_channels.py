"""Channels whose relevance and places are known: red, green and blue of a picture."""

import nets
import numpy as np
import pytest

from xai_utils import attribution, concepts, keras

layers = keras.layers


@pytest.fixture(scope="module")
def colours():
    """Channels are red, green and blue; class 0 is 1 red - 2 blue, pooled."""
    return nets.colour_net([[1, 0], [0, 1], [-2, 0]])


def spotted():
    """Four pictures, all 10, with a spot of each colour at a place of its own, ever brighter."""
    images, rng = np.full((4, 8, 8, 3), 10, np.float32), np.random.default_rng(0)
    spots = rng.integers(0, 8, (4, 3, 2))
    for n in range(4):
        for colour, (row, column) in enumerate(spots[n]):
            images[n, row, column, colour] = 100 + 20 * n
    return images, spots


def test_the_relevance_of_a_channel_is_its_part_of_a_linear_score(colours):
    images, _ = spotted()
    got = concepts.channels(colours, images, 0, count=3, composite="epsilon")
    means = images.mean(axis=(1, 2))
    assert got.layer == "seen" and got.numbers.tolist() == [[2, 0, 1]] * 4
    expected = np.stack([-2 * means[:, 2], means[:, 0], 0 * means[:, 1]], axis=1)
    np.testing.assert_allclose(got.relevance, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(got.activation, means[:, [2, 0, 1]], rtol=1e-5)


def test_the_best_crops_are_around_the_brightest_spots(colours):
    images, spots = spotted()
    got = concepts.channels(colours, images[:1], 0, images, count=2, best=3, crop=1)
    for rank, colour in enumerate(got.numbers[0]):
        expected = [(n, *spots[n, colour]) for n in (3, 2, 1)]
        assert [tuple(place) for place in got.places[0, rank]] == expected
        assert got.crops[0, rank, :, 0, 0, colour].tolist() == [160, 140, 120]


@pytest.mark.filterwarnings("ignore:.* is taken for a network of pixels")
@pytest.mark.parametrize("shape", nets.SHAPES)
def test_every_model_shape_and_batch_as_singles(shape):
    model, images = nets.SHAPES[shape](), nets.batch()
    got = concepts.channels(model, images, 1, count=2, best=2)
    assert got.crops.shape == (3, 2, 2, 3, 3, 3) and got.relevance.dtype == np.float32
    whole = attribution.channel_relevance(model, images, 1, layer=got.layer)
    np.testing.assert_allclose(np.abs(whole).max(axis=1), np.abs(got.relevance[:, 0]), rtol=1e-5)
    for n in range(3):
        one = concepts.channels(model, images[n : n + 1], 1, images, count=2, best=2)
        np.testing.assert_array_equal(one.numbers[0], got.numbers[n])
        np.testing.assert_array_equal(one.crops[0], got.crops[n])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 4}, "count must be 1 to 3, got 4"),
        ({"best": 5}, "best must be 1 to 4, got 5"),
        ({"crop": 9}, "crop must be 1 to 8, got 9"),
        ({"layer": "head"}, "not maps"),
        ({"among": np.zeros((0, 8, 8, 3))}, "images must be numbers of shape"),
    ],
)
def test_what_cannot_be_done_says_so(colours, settings, message):
    with pytest.raises(ValueError, match=message) as told:
        concepts.channels(colours, spotted()[0], 0, **({"count": 3} | settings))
    assert "\n" not in str(told.value)


def test_highest_crops_are_around_the_highest_place_of_each_picture():
    maps = np.zeros((3, 4, 4))
    maps[0, 1, 2], maps[2, 3, 3] = 1, 2
    images = np.arange(3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8, 1)
    cut, places = concepts.highest_crops(maps, images, 2, 4)
    assert places.tolist() == [[2, 4, 4], [0, 1, 3]]  # the first was moved inside
    np.testing.assert_array_equal(cut[1], images[0, 1:5, 3:7])
