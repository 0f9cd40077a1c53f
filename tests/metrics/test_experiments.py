"""Experiments on networks whose answer is known: one that reads a single corner."""

import numpy as np
import pytest

from xai_utils import attribution, keras, metrics, models
from xai_utils.metrics import middle, peak_distance, rank_correlation

SIZE, CELL = 16, 4


def corner_net():
    """Class 1 while the mean of the upper left 4 x 4 pixels is above 64, else class 0."""
    pixels = keras.Input((SIZE, SIZE, 3))
    corner = keras.layers.Cropping2D(((0, SIZE - CELL), (0, SIZE - CELL)))(pixels)
    mean = keras.layers.GlobalAveragePooling2D()(corner)
    model = keras.Model(pixels, keras.layers.Dense(2)(mean))
    model.layers[-1].set_weights(
        [np.array([[0, 1], [0, 1], [0, 1]], np.float32) / 3, np.array([64, 0], np.float32)]
    )
    return model


def picture():
    return np.full((SIZE, SIZE, 3), 128, np.float32)


def test_the_first_rectangle_lands_on_the_corner_and_flips_the_label():
    model, image = corner_net(), picture()
    saliency = attribution.saliency(model, image[None])
    (flip,) = metrics.cover_until_flip(model, image, saliency, side=CELL)
    assert flip.count == 1 and flip.label == 0 and flip.area == pytest.approx((CELL / SIZE) ** 2)
    np.testing.assert_array_equal(flip.corners, [[0, 0]])


def test_random_rectangles_need_the_expected_number():
    cells = (
        SIZE // CELL
    ) ** 2  # a random order of 16 cells reaches the corner after (16 + 1) / 2 on average
    maps = attribution.random_maps(400, (SIZE, SIZE), seed=1)
    flips = metrics.cover_until_flip(
        corner_net(), picture(), maps, CELL, most=cells, stride=CELL, at_once=16
    )
    counts = [flip.count for flip in flips]
    error = np.std(counts) / np.sqrt(len(counts))
    assert abs(np.mean(counts) - (cells + 1) / 2) < 3 * error and set(counts) <= set(
        range(1, cells + 1)
    )
    one_by_one = metrics.cover_until_flip(
        corner_net(), picture(), maps[:5], CELL, cells, stride=CELL, at_once=1
    )
    assert [flip.count for flip in one_by_one] == counts[:5]


def test_a_label_that_never_falls_is_said_to():
    far = np.zeros((1, SIZE, SIZE), np.float32)
    far[:, -6:, -6:] = 1
    (flip,) = metrics.cover_until_flip(corner_net(), picture(), far, CELL, most=50)
    assert flip.count is None and flip.label == 1 and 0 < flip.area < 0.4
    white = metrics.cover_until_flip(
        corner_net(), picture(), far[:, ::-1, ::-1], CELL, most=2, fill=255.0
    )
    assert white[0].count is None, "white squares make the corner brighter"


def corner_network(task, other):
    """`corner` of the corner's mean brightness; `other` is the bias of a second unit."""
    pixels = keras.Input((SIZE, SIZE, 3))
    corner = keras.layers.Cropping2D(((0, SIZE - CELL), (0, SIZE - CELL)))(pixels)
    mean = keras.layers.GlobalAveragePooling2D()(corner)
    ending = None if task == "regression" else "sigmoid"
    model = keras.Model(pixels, keras.layers.Dense(2, ending)(mean), name="corner")
    weights, bias = np.array([[1, 0]] * 3, np.float32) / 48, np.array([-4, other], np.float32)
    model.layers[-1].set_weights([weights, bias])
    names = ["corner", "other"]
    return models.load_model(model, preprocessing="none", labels=names, task=task)


@pytest.mark.parametrize(("other", "then"), [(-9.0, 0), (1.0, 1)])
def test_a_multilabel_answer_falls_when_its_own_probability_does(other, then):
    network = corner_network("multilabel", other).model
    saliency = attribution.saliency(network, picture()[None], 0)
    (flip,) = metrics.cover_until_flip(network, picture(), saliency, CELL)
    assert (flip.count, flip.label) == (1, then)
    elsewhere = saliency[:, ::-1, ::-1]
    assert metrics.cover_until_flip(network, picture(), elsewhere, CELL)[0].count is None
    with pytest.raises(ValueError, match="no class of the picture more than 50 %"):
        metrics.cover_until_flip(
            corner_network("multilabel", -9.0).model, 0 * picture(), saliency, CELL
        )


def test_the_values_of_a_regression_have_no_label_that_could_fall():
    network = corner_network("regression", 1.0).model
    with pytest.raises(ValueError, match="is a regression: its values have no label"):
        metrics.cover_until_flip(network, picture(), np.ones((1, SIZE, SIZE)), CELL)


@pytest.mark.parametrize(
    ("task", "other", "brightness", "told"),
    [
        ("multilabel", 1.0, 128, "finds 'corner' (98 %) and 'other' (73 %) in it.png"),
        ("multilabel", -9.0, 128, "finds 'corner' (98 %) in it.png"),
        ("multilabel", -9.0, 32, "finds nothing above 50 %, most of all 'corner' (12 %), in it"),
        ("regression", 0.5, 128, "says corner 4, other 0.5 for it.png"),
    ],
)
def test_an_answer_is_told_as_the_task_has_it(task, other, brightness, told):
    classifier, image = corner_network(task, other), np.full((SIZE, SIZE, 3), brightness, "f")
    said = metrics.answer(classifier, image, "some/folder/it.png")
    assert told in said and said.endswith("whether that is right is not known here")
    assert ("%" in said) == (task == "multilabel") and "folder" not in said
    assert metrics.accepted(classifier, image, "cat") == (0,)
    assert metrics.accepted(classifier, image, "cat", ["corner", "other"]) == (0, 1)
    no_label = task == "regression" or brightness == 32
    assert bool(metrics.no_label(classifier, image)) == no_label


def test_rectangles_cover_the_brightest_place_that_is_left():
    values = np.zeros((12, 12))
    values[1:4, 2:5], values[8:11, 7:10] = 2, 1
    np.testing.assert_array_equal(metrics.brightest_rectangles(values, 3, 5), [[1, 2], [8, 7]])
    pictures, covered = metrics.cover_in_turn(
        np.ones((12, 12, 3), np.float32), [[1, 2], [8, 7]], 3, fill=5.0
    )
    np.testing.assert_array_equal(covered.sum((1, 2)), [9, 18])
    assert pictures[0, 9, 8, 0] == 1 and pictures[1, 9, 8, 0] == 5


def test_keep_shows_exactly_the_share_that_was_asked_for():
    maps = np.arange(100, dtype=np.float32).reshape(1, 10, 10)
    kept = metrics.top_share(maps, 0.07)
    assert kept.sum() == 7 and kept[0, 9, 3:].all()
    assert metrics.top_share(np.zeros((1, 10, 10)), 0.5).sum() == 50
    shown = metrics.keep(np.ones((1, 10, 10, 3)), kept, fill=9.0)
    assert (shown == 1).sum() == 21 and (shown == 9).sum() == 279
    moved = metrics.moved_at_random(kept, 20, seed=2)
    assert moved.shape == (20, 1, 10, 10) and (moved.sum((2, 3)) == 7).all() and moved.std(0).any()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint64, np.int8, bool, np.float16])
def test_what_type_a_map_has_does_not_matter(kind):
    maps = np.array([[[0, 100, 3], [1, 0, 2], [0, 1, 0]]]).astype(kind)
    floats = maps.astype(np.float64)
    np.testing.assert_array_equal(metrics.ranks(maps), metrics.ranks(floats))
    for share in (0.1, 0.3, 0.6):
        chosen = metrics.top_share(maps, share)
        np.testing.assert_array_equal(chosen, metrics.top_share(floats, share))
        assert chosen.flat[1], "the highest value is among the highest"
    other = np.arange(9.0).reshape(3, 3)
    assert rank_correlation(maps[0], other) == rank_correlation(floats[0], other)


def test_a_picture_of_bytes_is_covered_as_one_of_floats():
    image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    mask = np.eye(4, dtype=bool)[None]
    for fill in (-20, 300, 127.5, "mean", "blur", "random", np.full(3, -1)):
        np.testing.assert_array_equal(
            metrics.keep(image, mask, fill), metrics.keep(image.astype(np.float32), mask, fill)
        )


def test_a_pasted_object_keeps_its_place_and_size():
    cutout, mask = np.full((40, 40, 3), 200, np.float32), np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    changed, there = metrics.paste(
        np.zeros((40, 40, 3), np.float32), cutout, mask, (0.5, 0.75), 1.0
    )
    assert there.sum() == pytest.approx(100, abs=21) and abs(middle(there) - [30, 20]).max() <= 0.5
    assert changed[30, 20, 0] == 200 and changed[5, 5, 0] == 0
    larger = metrics.paste(np.zeros((40, 40, 3), np.float32), cutout, mask, (0.5, 0.5), 2.0)[1]
    assert larger.sum() == pytest.approx(400, abs=41)


def test_metrics():
    one = np.arange(12.0).reshape(3, 4)
    assert rank_correlation(one, one**3) == pytest.approx(1) and rank_correlation(
        one, -one
    ) == pytest.approx(-1)
    assert np.isnan(rank_correlation(one, np.ones_like(one)))
    half = one < 6
    assert rank_correlation(one, np.where(half, one, -one), half) == pytest.approx(1)
    peak = np.zeros((9, 9))
    peak[1, 4] = 1
    mask = np.zeros((9, 9), bool)
    mask[4:7, 4:7] = True
    assert peak_distance(peak, mask) == pytest.approx(np.hypot(4, 1))
    assert attribution.centre_map((5, 5)).argmax() == 12


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: metrics.top_share(np.ones((1, 4, 4)), 0), "got 0"),
        (lambda: metrics.top_share(np.ones((1, 4, 4)), 1.0), "both excluded; got 1.0"),
        (lambda: metrics.keep(np.ones((1, 4, 4, 3)), np.zeros((1, 4, 4))), "mask 0 keeps nothing"),
        (
            lambda: metrics.keep(np.ones((1, 4, 4, 3)), np.ones((1, 4, 4))),
            "mask 0 keeps everything",
        ),
        (lambda: metrics.brightest_rectangles(np.ones((4, 4)), 5, 1), "side must be 1 to 4"),
        (lambda: metrics.brightest_rectangles(np.ones((4, 4)), 2, 0), "count at least 1; got 2, 0"),
        (
            lambda: metrics.paste(
                np.ones((4, 4, 3)), np.ones((4, 4, 3)), np.zeros((4, 4), bool), (0, 0)
            ),
            "nothing",
        ),
        (lambda: rank_correlation(np.ones((2, 2)), np.ones((3, 3))), r"not \(2, 2\) and \(3, 3\)"),
        (lambda: middle(np.zeros((3, 3))), "covers nothing"),
    ],
)
def test_bad_input_is_one_clear_line(call, told):
    with pytest.raises(ValueError, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)
