"""XRAI against a slow loop over its algorithm, and where the answer is known beforehand."""

import numpy as np
import pytest
from nets import batch, gap_net

from xai_utils import attribution, keras, pictures, tf
from xai_utils.engine import forward


def test_regions_by_hand():
    """Means 3, 1 and 5/2: after the first region two pixels are left of the others."""
    regions = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]], [[0, 1, 0, 1]]], bool)
    ranked = attribution.ranked_regions(np.array([[4.0, 2, 0, 3]]), regions)
    np.testing.assert_allclose(ranked, [[3, 3, 0, 3]])
    ranked = attribution.ranked_regions(np.array([[4.0, 2, 0, 9]]), regions)
    np.testing.assert_allclose(ranked, [[4, 5.5, 0, 5.5]])


def test_regions_by_a_slow_loop():
    rng = np.random.default_rng(0)
    pixels, regions = rng.normal(size=(20, 24)), rng.random((30, 20, 24)) < 0.1
    expected, free = np.full(pixels.shape, np.nan), np.ones(pixels.shape, bool)
    while (free & regions.any(axis=0)).any():
        new = max(
            (region & free for region in regions), key=lambda r: pixels[r].mean() if r.any() else -9
        )
        expected[new], free = pixels[new].mean(), free & ~new
    expected[free] = pixels[free].mean()
    ranked = attribution.ranked_regions(pixels, regions)
    np.testing.assert_allclose(ranked, expected)
    assert abs(ranked.sum() - pixels.sum()) < 1e-9


def test_a_few_pixels_make_no_region():
    """Of 64 x 64 pixels less than four, which are left with all others in no region."""
    pixels, regions = np.zeros((64, 64)), np.zeros((2, 64, 64), bool)
    pixels[0, :3], pixels[1, :4] = 7, 5
    regions[0, 0, :3] = regions[1, 1, :4] = True
    ranked = attribution.ranked_regions(pixels, regions)
    assert (ranked[1, :4] == 5).all()
    np.testing.assert_allclose(np.delete(ranked.ravel(), np.s_[64:68]), 21 / (64 * 64 - 4))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_regions_of_a_picture_of_two_colours(channels):
    """Each half is one, up to the soft edge between them, and has a margin of 5 pixels."""
    image = np.zeros((224, 224, channels), np.float32)
    image[:, 100:] = 200
    for scale in (50, 1200):
        regions = attribution.colour_regions(image, (scale,))
        assert regions.any(axis=0).all()
        left, right = (regions[regions[:, 50, column]] for column in (80, 120))
        assert len(left) == len(right) == 1
        for [half], soft, far in ((left, 100 + 5, 0), (right, 99 - 5, 223)):
            ends = np.flatnonzero(half.all(axis=0))[[0, -1]]
            assert far in ends and np.abs(ends - soft).min() <= 4
            assert half.sum() == half.all(axis=0).sum() * 224


def test_the_score_comes_from_the_region_that_the_network_reads():
    """A linear network that adds up the red of one quarter, which is of another colour."""
    side, quarter = 32, np.s_[:16, 16:]
    weights = np.zeros((side, side, 3), np.float32)
    weights[quarter] = 1 / 256, 0, 0
    inputs = keras.Input((side, side, 3))
    dense = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    dense.set_weights([weights.reshape(-1, 1)])
    image = np.full((1, side, side, 3), 60, np.float32)
    image[(0, *quarter)] = 250, 20, 20
    [ranked] = attribution.xrai(model, image, 0, baseline="black")
    assert abs(ranked.sum() - 250) < 0.01  # of the score, all of it
    np.testing.assert_allclose(ranked[4:12, 20:28], 250 / 256, rtol=1e-4)
    outside = np.ones((side, side), bool)
    outside[:18, 14:] = False  # the quarter, and the margin around it
    assert np.abs(ranked[outside]).max() < 1e-4


def test_the_map_adds_up_to_the_score_above_that_of_both_baselines():
    model, images = gap_net(), batch(12)
    low, high = (np.full_like(images, value) for value in (-1, 1))
    ours = attribution.xrai(model, images, 2, steps=512)
    here, black, white = (forward(model, x).numpy()[:, 2] for x in (images, low, high))
    np.testing.assert_allclose(ours.sum((1, 2)), here - (black + white) / 2, rtol=2e-3)
    one = attribution.xrai(model, images, 2, steps=8, baseline="mean", scales=100)
    paths = attribution.integrated_gradients(model, images, 2, 8, "mean")
    for found, pixels, image in zip(one, paths, images, strict=True):
        expected = attribution.ranked_regions(pixels, attribution.colour_regions(image, [100]))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_white_is_the_largest_value():
    cover = pictures.covers_for(gap_net(), tf.constant(batch()), "white")
    assert (cover.numpy() == 1).all() and (pictures.filling(batch(), "white") == 255).all()


@pytest.mark.parametrize("scales", [(), 0, (50, -1), np.nan])
def test_scales_are_above_zero(scales):
    with pytest.raises(
        ValueError, match="^xrai: scales must be above 0, one or several, got [^\n]*$"
    ):
        attribution.xrai(gap_net(), batch(), scales=scales)
