"""Decoding, suppression, targets of one box and D-RISE against answers worked out by hand."""

import dataclasses
import functools
import json
import re

import numpy as np
import pytest

from xai_utils import attribution, keras, metrics, models, pictures, show, tf
from xai_utils.attribution import d_rise
from xai_utils.engine import DATA_FOLDER, backend
from xai_utils.models import Detection, Detector, box_class, box_edge, box_objectness, box_size

SIZE = 12
PATCH = (slice(2, 5), slice(6, 9))  # rows and columns that the score reads
COLUMN = 4  # the column of pixels that the left edge reads
ANCHORS = np.array([[0.2, 0.2, 0.6, 0.4], [0.5, 0.1, 0.7, 0.9]], np.float32)


def by_hand(weights: dict, classes: int = 3) -> Detector:
    """A linear detector of two anchors.

    `weights[(output, anchor, column)]` is a picture `(H, W, 3)` of weights.
    """
    inputs = keras.Input((SIZE, SIZE, 3), dtype=keras.config.dtype_policy().compute_dtype)
    flat = keras.layers.Flatten()(inputs)
    outputs = {}
    for name, width in (("boxes", 4), ("logits", classes)):
        dense = keras.layers.Dense(2 * width, name=f"{name}_dense")
        outputs[name] = keras.layers.Reshape((2, width), name=name)(dense(flat))
        kernel = np.zeros((2, width, SIZE, SIZE, 3))
        for (output, anchor, column), values in weights.items():
            if output == name:
                kernel[anchor, column] = values
        dense.set_weights([kernel.reshape(2 * width, -1).T, np.zeros(2 * width)])
    model = keras.Model(inputs, outputs, name="by_hand")
    return Detector(
        "by_hand", model, ("background", *"abcdefgh"[: classes - 1]), ANCHORS, (("flat", 1, 2),)
    )


def patch_weights(value=1.0):
    weights = np.zeros((SIZE, SIZE, 3))
    weights[PATCH] = value
    return weights


@pytest.fixture(scope="module")
def patchy():
    column = np.zeros((SIZE, SIZE, 3))
    column[:, COLUMN] = 0.01
    return by_hand({("logits", 0, 1): patch_weights(), ("boxes", 0, 1): column})


@pytest.fixture(scope="module")
def ssd():
    return models.load_model("ssd_mobilenet_v2")


def some_pictures(count=1, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (count, SIZE, SIZE, 3)).astype(np.float32)


# --- boxes ----------------------------------------------------------------------------------------


def test_decoding_equals_a_box_worked_out_by_hand():
    # 0.4 wide and 0.2 high around (0.4, 0.3): moved by 2/10 of the width and 1/10 of the height,
    # twice as high
    encoding = [1.0, 2.0, 5 * np.log(2), 0.0]
    assert np.allclose(
        models.decode(np.float32([encoding]), ANCHORS[:1])[0], [0.28, 0.12, 0.68, 0.52]
    )
    assert np.allclose(models.decode(np.zeros((2, 4), np.float32), ANCHORS), ANCHORS)


def test_overlaps():
    one = [0.0, 0.0, 2.0, 2.0]
    others = np.float32([one, [1, 0, 3, 2], [2, 0, 4, 2], [5, 5, 6, 6], [0, 0, 1, 1], [1, 1, 1, 1]])
    assert np.allclose(models.overlaps(others, one), [1, 1 / 3, 0, 0, 1 / 4, 0])
    assert models.overlaps(np.zeros(4, np.float32), np.zeros(4)) == 0


def test_share_inside_cuts_cells_exactly():
    values = np.array([[1.0, -2.0], [3.0, 4.0]])
    assert np.allclose(metrics.coverage((0, 0, 3, 2), (4, 4), (2, 2)), [[1, 0.5], [0, 0]])
    assert np.allclose(metrics.share_inside(values, (0, 0, 3, 2), (4, 4)), (2 / 10, 6 / 16))
    assert metrics.share_inside(np.zeros((2, 2)), (0, 0, 3, 2), (4, 4)) == (0, 6 / 16)
    assert metrics.peak_inside(values, (2, 2, 4, 4), (4, 4)) and not metrics.peak_inside(
        values, (0, 0, 2, 4), (4, 4)
    )


def test_suppression_is_class_by_class_and_the_likelier_stays():
    second = [0.1, 0, 0.6, 0.5]
    anchors = np.float32([[0, 0, 0.5, 0.5], second, second, [0.25, 0, 0.75, 0.5], [0.9, 0, 1.4, 1]])
    # The second overlaps the first by 2/3, the fourth by 1/3; the third is of another class.
    scores = np.float32([[0.9, 0], [0.8, 0], [0, 0.7], [0.6, 0], [0.55, 0]])
    logits = np.log(np.maximum(scores, 1e-6)) - np.log1p(-scores)
    logits = np.concatenate([np.zeros((5, 1)), logits], axis=1).astype(np.float32)
    inputs = keras.Input((SIZE, SIZE, 3))

    def constant(value):
        flat = keras.layers.Dense(value.size, kernel_initializer="zeros")
        found = keras.layers.Reshape(value.shape)(flat(keras.layers.Flatten()(inputs)))
        flat.set_weights([np.zeros((SIZE * SIZE * 3, value.size)), value.ravel()])
        return found

    model = keras.Model(inputs, {"boxes": constant(np.zeros((5, 4))), "logits": constant(logits)})
    detector = Detector("five", model, ("background", "a", "b"), anchors)
    found = detector.detect(some_pictures(2))
    for each in found:  # a batch gives what its pictures give
        assert [(d.anchor, d.label) for d in each] == [(0, "a"), (2, "b"), (3, "a"), (4, "a")]
        assert np.allclose([d.score for d in each], [0.9, 0.7, 0.6, 0.55])
        assert np.allclose(each[0].box, (0, 0, 6, 6)) and np.allclose(each[2].box, (3, 0, 9, 6))
        assert np.allclose(each[3].box, (10.8, 0, 12, 12)), "cut off at the border"
        assert each[0].objectness == pytest.approx(0.5) and np.allclose(
            each[0].probabilities, [0.9, 0], atol=1e-5
        )
    assert [d.anchor for d in detector.detect(some_pictures(), overlap=0.7)[0]] == [0, 1, 2, 3, 4]
    assert [d.anchor for d in detector.detect(some_pictures(), threshold=0.65)[0]] == [0, 2]
    large = detector.detect(np.zeros((1, 30, 60, 3), np.uint8))[0]
    assert np.allclose(large[0].box, (0, 0, 30, 15)), "pixels of the picture it was given"
    assert large[0].size == (30, 60)


# --- targets --------------------------------------------------------------------------------------


def test_occlusion_of_the_class_finds_the_patch_that_it_reads(patchy):
    image = some_pictures()
    found = patchy.best(image[0], "a")
    assert found.anchor == 0
    lost = attribution.occlusion(patchy.model, image, box_class(found), patch=3, stride=3)[0]
    expected = np.zeros((4, 4))
    for row in range(4):
        for column in range(4):
            cell = patch_weights()[3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
            expected[row, column] = (
                cell * image[0, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
            ).sum()
    assert np.allclose(lost, expected, atol=1e-4) and expected.any()
    assert np.array_equal(
        attribution.saliency(patchy.model, image, box_class(found))[0], patch_weights()[..., 0]
    )


def test_an_edge_depends_on_its_column_alone(patchy):
    image = some_pictures()
    found = patchy.best(image[0], "a")
    left = attribution.pixel_gradient(patchy.model, image, box_edge(found, "x_min"))[0]
    # The encoding moves the box by a tenth of the anchor's width, .4 of 12 pixels.
    expected = np.zeros((SIZE, SIZE, 3))
    expected[:, COLUMN] = 0.01 / 10 * 0.4 * SIZE
    assert np.allclose(left, expected, atol=1e-9)
    assert not attribution.pixel_gradient(patchy.model, image, box_edge(found, "y_min")).any()
    assert not attribution.pixel_gradient(patchy.model, image, box_size(found)).any()


def test_targets_measure_the_box_that_was_found(patchy):
    image = some_pictures()
    found = patchy.best(image[0], "a")
    outputs = patchy.model(image)
    box = [float(box_edge(found, edge)(outputs)[0]) for edge in models.EDGES]
    assert np.allclose(box, found.box, atol=1e-4)
    width, height = box[2] - box[0], box[3] - box[1]
    sizes = [box_size(found, quantity)(outputs)[0] for quantity in models.SIZES]
    assert np.allclose(sizes, [width, height, width * height], rtol=1e-4)
    assert np.isclose(tf.sigmoid(box_class(found)(outputs)[0]), found.score)
    assert np.isclose(tf.sigmoid(box_objectness(found)(outputs)[0]), found.objectness)
    assert np.isclose(box_class(found, 2)(outputs)[0], outputs["logits"][0, 0, 2])


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("quantity", [*models.EDGES, *models.SIZES, "class", "objectness"])
def test_gradients_equal_finite_differences(quantity, follow):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        rng = np.random.default_rng(3)
        keys = [
            (o, a, c)
            for o, width in (("boxes", 4), ("logits", 3))
            for a in range(2)
            for c in range(width)
        ]
        detector = by_hand({key: rng.normal(0, 0.05, (SIZE, SIZE, 3)) for key in keys})
        assert detector.model.compute_dtype == "float64"
        image = some_pictures(seed=1).astype(np.float64)
        found = detector.best(image[0], "a")
        make = {"class": box_class, "objectness": box_objectness}.get(quantity)
        if make is None:
            of_box = box_edge if quantity in models.EDGES else box_size
            make = functools.partial(of_box, **{of_box.__code__.co_varnames[1]: quantity})
        target = make(found, follow=follow)
        gradient = attribution.pixel_gradient(detector.model, image, target)[0]
        for place in [(0, 0, 0), (5, 7, 1), (11, 3, 2)]:
            step = np.zeros_like(image)
            step[0][place] = 1e-6
            up, down = (float(target(detector.model(image + sign * step))[0]) for sign in (1, -1))
            assert np.isclose(gradient[place], (up - down) / 2e-6, rtol=1e-6, atol=1e-8)
        assert gradient.any()
    finally:
        keras.config.set_dtype_policy(before)


def test_following_takes_the_box_that_overlaps_and_is_likely():
    # The first anchor loses its class with the patch; the second has it where the rest of the
    # picture is bright.
    rest = 0.02 * (1 - patch_weights())
    detector = by_hand({("logits", 0, 1): patch_weights(), ("logits", 1, 1): rest})
    image = np.ones((1, SIZE, SIZE, 3), np.float32)
    found = detector.best(image[0], "a")
    assert found.anchor == 0
    for shared, dark in ((0, 1.0), (1, -2.0)):
        picture = image.copy()
        picture[0][PATCH] = dark
        outputs = detector.model(picture)
        kept, followed = box_class(found)(outputs)[0], box_class(found, follow=True)(outputs)[0]
        assert np.isclose(kept, outputs["logits"][0, 0, 1]) and np.isclose(
            followed, outputs["logits"][0, shared, 1]
        )
    other = models.follow(found, detector.detect(picture, 0.6)[0])
    assert other[0].anchor == 1 and other[1] == pytest.approx(0.02 / 0.22)
    assert models.follow(found, []) == (None, 0.0)


def test_equal_questions_are_compiled_once(patchy):
    image = some_pictures()
    first, second = (patchy.best(image[0], "a") for _ in range(2))
    assert first == second and box_edge(first, "x_min") == box_edge(second, "x_min")
    assert hash(box_class(first, follow=True)) == hash(box_class(second, follow=True))
    assert box_class(first) not in (
        box_class(first, 2),
        box_objectness(first),
        box_class(first, follow=True),
    )
    attribution.saliency(patchy.model, image, box_class(first))
    before = backend._kept(patchy.model).compiled.cache_info().misses
    attribution.saliency(patchy.model, image, box_class(second))
    assert backend._kept(patchy.model).compiled.cache_info().misses == before


# --- D-RISE ---------------------------------------------------------------------------------------


def one_box(picture):
    """A detector from elsewhere: one box whose score is the mean of a patch."""
    return [Detection((5.0, 1.0, 10.0, 6.0), "thing", float(picture[PATCH].mean()))]


def test_d_rise_of_a_known_score():
    image = some_pictures(seed=4)[0]
    asked = []

    def detect(batch):
        asked.append(batch.shape)
        return [one_box(picture) for picture in batch]

    # Cells of one pixel: masks are 0 or 1, the score is linear, and the expectation can be worked
    # out.
    shares = np.zeros((SIZE, SIZE))
    shares[PATCH] = image[PATCH].mean(-1) / 9
    settings = {"grid": SIZE, "return_error": True}
    for centred, level in ((True, 0), (False, 0.5 * shares.sum())):
        maps, errors = d_rise(detect, image, one_box(image), 4000, centred=centred, **settings)
        assert np.abs((maps[0] - level - 0.5 * shares) / errors[0]).max() < 5
    inside = maps[0][PATCH].mean()
    assert inside > maps[0].max(initial=0, where=shares == 0), "it points at the patch"
    assert maps.shape == errors.shape == (1, SIZE, SIZE) and maps.dtype == np.float32
    assert {shape[1:] for shape in asked} == {(SIZE, SIZE, 3)}


def test_d_rise_equals_a_slow_loop_over_its_formula(patchy):
    from xai_utils.attribution import rise_masks

    image = some_pictures(seed=5)[0]
    found = [patchy.best(image, "a"), patchy.best(image, "b")]
    maps, errors = d_rise(patchy, image, found, 40, grid=4, keep=0.3, seed=7, return_error=True)
    masks = rise_masks(tf.range(40), (SIZE, SIZE), 4, 0.3, 7).numpy()
    level_kept = d_rise(
        patchy, image, found, 40, grid=4, keep=0.3, seed=7, centred=False, return_error=True
    )
    for aimed, centred, plain in zip(found, zip(maps, errors), zip(*level_kept)):
        weights = []
        for mask in masks:
            places, classes, sure = (
                part[0].numpy() for part in patchy.proposals((image * mask[..., None])[None])
            )
            alike = []
            for place, vector, objectness in zip(places, classes, sure):
                cosine = (
                    vector
                    @ aimed.probabilities
                    / np.linalg.norm(vector)
                    / np.linalg.norm(aimed.probabilities)
                )
                alike.append(float(models.overlaps(place, aimed.box)) * cosine * objectness)
            weights.append(max(alike))
        for (map_, error), level, own in ((plain, 0, 0), (centred, np.mean(weights), 1)):
            terms = (np.array(weights) - level)[:, None, None] * (masks / 0.3 - own)
            assert np.allclose(map_, terms.mean(axis=0), rtol=1e-4, atol=1e-6)
            assert np.allclose(error, terms.std(axis=0) / np.sqrt(39), rtol=1e-3, atol=1e-5)
    again = d_rise(patchy, image, found, 40, grid=4, keep=0.3, seed=7)
    assert np.allclose(maps, again, atol=1e-6), "same seed, same maps"
    assert not np.allclose(maps, d_rise(patchy, image, found, 40, grid=4, keep=0.3, seed=8))
    alone = d_rise(patchy, image, found[1:], 40, grid=4, keep=0.3, seed=7)
    assert np.allclose(maps[1:], alone, atol=1e-6), "detections do not change each other's maps"
    from_outside = d_rise(
        lambda batch: patchy.detect(batch, 0.0, 1.0), image, found, 40, grid=4, keep=0.3, seed=7
    )
    assert np.allclose(maps, from_outside, atol=1e-5), "the same boxes through a callable"


def test_d_rise_on_a_picture_of_another_size_than_the_network(patchy):
    image = np.random.default_rng(6).integers(0, 2, (20, 30, 3)).astype(np.float32)
    found = patchy.best(image, "a")
    maps = d_rise(patchy, image, [found], 8, grid=4)
    assert (
        maps.shape == (1, 20, 30)
        and found.size == (20, 30)
        and 0 < maps.max() <= 2
        and maps.min() < 0
    )


def test_d_rise_where_nothing_is_found_is_zero():
    found = one_box(some_pictures()[0])
    maps, errors = d_rise(
        lambda batch: [[] for _ in batch], some_pictures()[0], found, 4, grid=2, return_error=True
    )
    assert not maps.any() and not errors.any()


def test_d_rise_refuses_what_it_cannot_explain(patchy):
    image = some_pictures()[0]
    found = one_box(image)
    for message, change in {
        "one picture": {"image": image[None]},
        "finite": {"image": image * np.nan},
        "no detections to explain": {"detections": []},
        "masks >= 2": {"masks": 1},
        "grid 1 to 12": {"grid": 13},
        "0 < keep < 1": {"keep": 1.0},
        "one sequence a picture, 2 in all; it returned 1": {"detect": lambda batch: [[]]},
        "infinite or NaN from detect": {
            "detect": lambda batch: [[dataclasses.replace(found[0], score=np.nan)] for _ in batch]
        },
        r"vectors of lengths \[1, 2\]": {
            "detect": lambda batch: [[patchy.best(one, "a")] for one in batch]
        },
    }.items():
        given = {
            "detect": lambda batch: [[] for _ in batch],
            "image": image,
            "detections": found,
            "masks": 2,
        }
        with pytest.raises(ValueError, match=message):
            d_rise(**{**given, "grid": 4, **change})


# --- show -----------------------------------------------------------------------------------------


def test_boxes_are_drawn_where_they_are_in_colours_of_their_own():
    found = [
        Detection((1.0, 2.0, 4.0, 6.0), "cat", 0.934),
        Detection((0.0, 0.0, 3.0, 3.0), "dog", 0.5),
    ]
    marks = show.boxes(found)
    assert [mark.label for mark in marks] == ["cat 0.93", "dog 0.50"] and marks[0].colour != marks[
        1
    ].colour
    fig = show.tiles([[show.Tile(np.zeros((8, 8, 3)), np.ones((2, 2)), boxes=marks)]])
    drawn = fig.axes[0].patches
    # A pixel's middle is a whole number in a figure, its border half a pixel before it.
    assert [(r.get_x(), r.get_y(), r.get_width(), r.get_height()) for r in drawn] == [
        (0.5, 1.5, 3, 4),
        (-0.5, -0.5, 3, 3),
    ]
    assert [text.get_text() for text in fig.axes[0].texts] == ["cat 0.93", "dog 0.50"]


# --- bad input ------------------------------------------------------------------------------------


def test_no_detection_at_the_threshold_is_said_with_the_best_score(patchy):
    dark = np.zeros((SIZE, SIZE, 3), np.float32)
    assert patchy.detect(dark[None], 0.6) == [[]]
    with pytest.raises(
        ValueError, match="no detection scores 0.6 or more; the best is a 0.50: lower the threshold"
    ):
        patchy.find(dark, 0.6)
    assert patchy.find(dark, 0.5)


def test_detections_and_their_numbers(patchy):
    found = [Detection((0, 0, 1, 1), "cat", 0.934), Detection((0, 0, 1, 1), "dog", 0.5)]
    assert models.choose(found, 1) is found[1]
    for index in (2, -1, True, 0.5):
        with pytest.raises(
            ValueError,
            match=re.escape(f"no detection {index!r}; there are 0: cat 0.93, 1: dog 0.50"),
        ):
            models.choose(found, index)
    with pytest.raises(ValueError, match="there are none at all"):
        models.choose([], 0)
    with pytest.raises(ValueError, match="cat 0.93 has no anchor"):
        box_class(found[0])
    mine = patchy.best(some_pictures()[0])
    with pytest.raises(ValueError, match="edges x_min, y_min, x_max, y_max, not 'left'"):
        box_edge(mine, "left")
    with pytest.raises(ValueError, match="sizes width, height, area, not 'x_min'"):
        box_size(mine, "x_min")
    with pytest.raises(ValueError, match="called 'zebra'; there are background, a, b$"):
        patchy.best(some_pictures()[0], "zebra")
    for background in ("background", 0):
        with pytest.raises(ValueError, match="^'background' is what is in no box"):
            patchy.best(some_pictures()[0], background)
    with pytest.raises(ValueError, match="anchor 9 is on none of the 1 feature maps"):
        patchy.level(dataclasses.replace(mine, anchor=9))


def test_a_technique_without_a_target_asks_for_one(patchy):
    with pytest.raises(ValueError, match="give target= as a callable"):
        attribution.saliency(patchy.model, some_pictures())


def test_pictures_of_every_size_are_squeezed():
    small = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    huge = small.repeat(4, axis=0).repeat(3, axis=1)  # 2400 x 1800
    expected = tf.image.resize(small, (300, 300)).numpy()
    assert np.allclose(pictures.squeeze(huge, 300), expected, atol=1e-3), (
        "blocks of 4 x 3 are averaged first"
    )
    assert np.allclose(pictures.squeeze(small, 300), expected)
    for shape in ((1, 1), (5, 7), (601, 1999)):
        grey = pictures.squeeze(np.full((*shape, 3), 77, np.uint8), 300)
        assert grey.shape == (300, 300, 3) and np.allclose(grey, 77)
    for bad in (
        np.zeros((5, 5)),
        np.zeros((0, 5, 3)),
        np.zeros((5, 5, 4)),
        np.full((2, 2, 3), "x"),
    ):
        with pytest.raises(pictures.PictureError, match="prepare takes a picture"):
            pictures.squeeze(bad, 300)


def test_an_object_larger_than_the_picture():
    wide = np.full((SIZE, SIZE, 3), 1.0)
    detector = by_hand({("boxes", 0, 2): wide, ("boxes", 0, 3): wide, ("logits", 0, 1): wide})
    image = np.full((SIZE, SIZE, 3), 0.05, np.float32)
    found = detector.best(image, "a")
    assert found.box == (0, 0, SIZE, SIZE)
    assert metrics.share_inside(np.ones((3, 3)), found.box, found.size) == (1, 1)
    assert box_edge(found, "x_min")(detector.model(image[None]))[0] < 0, (
        "the target is not cut off: it has a gradient"
    )


# --- the real detector ----------------------------------------------------------------------------

# Measured with the original graph; see data/README.md.
KNOWN = {
    "cat": {"cat": 0.93},
    "coffee": {"cup": 0.96, "dining table": 0.78},
    "motorcycle": {"motorcycle": 0.98},
    "hound": {"dog": 0.87, "person": 0.56},
}


@pytest.mark.parametrize("name", KNOWN)
def test_it_finds_what_is_known_to_be_there(ssd, name):
    found = ssd.find(ssd.prepare(name)[0])
    assert [each.label for each in found] == list(KNOWN[name])
    for each in found:
        assert each.score == pytest.approx(KNOWN[name][each.label], abs=0.02)
    own = pictures.load_image(name)
    for each, full in zip(found, ssd.find(own)):  # boxes in the picture's own pixels
        scale = np.tile(own.shape[1::-1], 2) / 300
        assert (
            np.allclose(np.array(each.box) * scale, full.box, atol=0.5)
            and full.size == own.shape[:2]
        )


def test_the_drawn_umbrella_and_its_maps(ssd):
    images = ssd.prepare("umbrella")
    mask = (
        pictures.squeeze(
            pictures.load_mask("umbrella")[..., None].repeat(3, -1).astype(np.float32), 300
        )[..., 0]
        > 0.5
    )
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    truth = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    (found,) = ssd.find(images[0])
    assert found.label == "umbrella" and models.overlaps(np.float32(found.box), truth) > 0.9
    smooth = attribution.smooth_grad(ssd.model, images, box_class(found), 8)[0]
    share, area = metrics.share_inside(smooth, truth, (300, 300))
    assert share > 1.4 * area


def test_every_technique_explains_a_box(ssd):
    images = ssd.prepare("coffee")
    cup = ssd.find(images[0])[0]
    target = box_class(cup)
    settings = {
        "smooth_grad": {"samples": 2},
        "var_grad": {"samples": 2},
        "integrated_gradients": {"steps": 2},
        "gradient_shap": {"samples": 2},
        "xrai": {"steps": 2},
        "occlusion": {"patch": 100, "stride": 100},
        "rise": {"masks": 4},
        "sobol": {"grid": 2, "samples": 4},
        "extremal_perturbation": {"steps": 3},
        "lime": {"samples": 12},
        "kernel_shap": {"samples": 16, "segments": 4},
    }
    layer, side = ssd.level(cup)[0], 5
    for name, technique in attribution.TECHNIQUES.items():
        # cam is for another ending, the other two take a pass for each channel
        if name in ("cam", "score_cam", "ablation_cam") or "attention" in name:
            continue
        options = settings.get(
            name, {"layer": layer} if name.endswith("cam") or "cam_" in name else {}
        )
        maps = technique(ssd.model, images, target, **options)
        assert np.isfinite(maps).all() and maps.any(), name
        if options.get("layer") and "guided" not in name:
            assert maps.shape == (1, side, side), name


def test_levels_name_the_layer_that_made_the_box(ssd):
    for name, side, each in ssd.levels:
        assert ssd.model.get_layer(name).output.shape[1:3] == (side, side)
        assert each in (3, 6)
    assert sum(side * side * each for _, side, each in ssd.levels) == len(ssd.anchors) == 1917
    cup = ssd.find(ssd.prepare("coffee")[0])[0]
    layer, row, column = ssd.level(cup)
    heat = attribution.hires_cam(ssd.model, ssd.prepare("coffee"), box_class(cup), layer)[0]
    near = np.zeros(heat.shape, bool)
    near[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    assert heat[near].any() and not heat[~near].any(), "the predictor reads 3 x 3 positions"


def test_coco_names():
    names = json.loads((DATA_FOLDER / "coco_classes.json").read_text(encoding="utf-8"))
    assert len(names) == 80 and len(models.coco_labels()) == 91
    some = [models.coco_labels()[i] for i in (0, 1, 12, 17, 90)]
    assert some == ["background", "person", "unused 12", "cat", "toothbrush"]
