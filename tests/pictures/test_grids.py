"""Grids whose pixels and scores are known beforehand."""

import nets
import numpy as np
import pytest

from xai_utils import models, pictures
from xai_utils.attribution import cam


def test_every_pixel_of_a_grid_comes_from_its_picture():
    those = np.random.default_rng(0).uniform(0, 255, (6, 4, 5, 3))
    grid, masks = pictures.tile(those, columns=3)
    assert grid.shape == (1, 8, 15, 3) and masks.shape == (6, 8, 15)
    assert np.array_equal(masks.sum(axis=0), np.ones((8, 15)))
    for picture, mask in zip(those, masks, strict=True):
        assert np.array_equal(grid[0][mask].reshape(picture.shape), picture)
    assert masks[1, 0, 5] and masks[3, 4, 0], "row by row"


@pytest.mark.parametrize(("count", "columns"), [(3, 2), (4, 0), (0, 2)])
def test_a_grid_has_no_holes(count, columns):
    with pytest.raises(
        ValueError, match=f"columns needs a multiple of {columns} pictures, not {count}"
    ):
        pictures.tile(np.zeros((count, 4, 4, 3)), columns)


def test_shrinking_takes_means():
    picture = np.arange(25, dtype=float).reshape(1, 5, 5, 1)
    assert np.array_equal(pictures.shrink(picture, 2)[0, ..., 0], [[3, 5], [13, 15]])


def test_a_network_that_looks_at_one_pixel_at_a_time_scores_a_grid_as_the_mean_of_its_cells():
    """With 1 x 1 convolutions a grid's map is the grid of maps: every cell gets what it earned."""
    layers = nets.layers

    def build(size):
        inputs = nets.keras.Input((size, size, 3))
        x = layers.Conv2D(6, 1, activation="relu", name="features")(inputs)
        return nets.keras.Model(
            inputs, layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x))
        )

    small, large = build(8), build(16)
    large.set_weights(small.get_weights())
    those = nets.batch(8, 4)
    grid, masks = pictures.tile(those)
    alone, together = cam(small, those, 1), cam(large, grid, 1)
    assert np.allclose(together[0], pictures.tile(alone[..., None])[0][0, ..., 0], atol=1e-6)
    assert np.allclose(large(grid), small(those).numpy().mean(axis=0), atol=1e-5)
    assert np.allclose(
        [together[0][mask].mean() for mask in masks], alone.mean(axis=(1, 2)), atol=1e-6
    )


def test_the_enlarged_network_is_the_same_network():
    """Four times the same cat are still a cat, though not the same breed."""
    classifier = models.load_model("efficientnet_lite0")
    large = models.enlarged(classifier)
    assert large.input_shape == (None, 448, 448, 3) and not large.trainable
    assert all(
        np.array_equal(a, b)
        for a, b in zip(large.get_weights(), classifier.model.get_weights(), strict=True)
    )
    cat = classifier.prepare("cat")
    grid, _ = pictures.tile(np.repeat(cat, 4, axis=0))
    assert large(grid).numpy().argmax() in pictures.PICTURES["cat"].classes


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="vgg19 is not rebuilt for another size"):
        models.enlarged(models.Classifier("vgg19", None, (224, 224), (), ""))
