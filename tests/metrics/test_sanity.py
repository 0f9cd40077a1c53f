"""Weights that are shuffled and come back, and similarities known beforehand."""

import nets
import numpy as np
import pytest

from xai_utils import keras, metrics
from xai_utils.attribution import cam, eigen_cam, guided_backprop, saliency


def weights(model):
    return [each.copy() for each in model.get_weights()]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def biased(build):
    """A model whose biases are not all equal, so that shuffling them does something."""
    model = build()
    model(nets.batch())
    rng = np.random.default_rng(0)
    model.set_weights(
        [each + 0.1 * rng.standard_normal(each.shape) for each in model.get_weights()]
    )
    return model


@pytest.mark.parametrize("build", nets.SHAPES.values(), ids=nets.SHAPES)
def test_the_cascade_goes_from_the_logits_down_through_every_weight(build):
    model = biased(build)
    paths = metrics.cascade(model)
    assert paths[0] == "logits" and len(paths) == len(set(paths))
    before = weights(model)
    with metrics.randomised(model, paths):
        changed = [
            not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)
        ]
        assert all(changed)
    assert same(before, weights(model))


def test_a_block_with_weights_of_its_own_and_of_layers_inside():
    class Scaled(nets.Block):
        def build(self, shape):
            self.scale = self.add_weight(shape=(6,), initializer="random_normal", name="scale")

        def call(self, x):
            return super().call(x) * self.scale

    inputs = keras.Input((12, 12, 3))
    x = keras.layers.GlobalAveragePooling2D()(Scaled(name="block")(inputs))
    model = biased(lambda: keras.Model(inputs, keras.layers.Dense(5, name="logits")(x)))
    assert metrics.cascade(model) == ["logits", "block/features", "block"]
    before = weights(model)
    with metrics.randomised(model, ["block", "block/features"]):
        both = weights(model)
        assert sum(not np.array_equal(a, b) for a, b in zip(before, both, strict=True)) == 3
    with metrics.randomised(model, ["block/features"]):
        kernel = [each.shape for each in both].index((3, 3, 3, 6))
        assert np.array_equal(weights(model)[kernel], both[kernel])
    assert same(before, weights(model))


def test_shuffling_keeps_the_values_of_each_tensor():
    model = biased(nets.gap_net)
    before = weights(model)
    with metrics.randomised(model, metrics.cascade(model)) as shuffled:
        assert shuffled is model
        for a, b in zip(before, weights(model), strict=True):
            assert np.array_equal(np.sort(a, axis=None), np.sort(b, axis=None))


def test_only_the_named_layer_changes_and_a_longer_cascade_contains_a_shorter_one():
    model = biased(nets.gap_net)
    one = model.get_layer("logits")
    before = weights(model)
    with metrics.randomised(model, ["logits"], seed=3):
        alone = one.get_weights()
        assert same(before[:-2], weights(model)[:-2]) and not same(before[-2:], alone)
    with metrics.randomised(model, ["features", "logits"], seed=3):
        assert same(alone, one.get_weights())
    with metrics.randomised(model, ["logits"], seed=4):
        assert not same(alone, one.get_weights())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_weights_come_back_after_an_error_too(error):
    model = biased(nets.gap_net)
    before = weights(model)
    with pytest.raises(error), metrics.randomised(model, ["early", "logits"]):
        raise error
    assert same(before, weights(model))


def test_a_layer_without_weights_or_without_existence_is_refused_before_anything_happens():
    model = biased(nets.gap_net)
    before = weights(model)
    with pytest.raises(
        ValueError, match="'pool' has no weights to randomise; .* logits, features, early"
    ):
        metrics.randomised(model, ["logits", "pool"]).__enter__()
    with pytest.raises(ValueError, match="no layer 'feature'; nearest: features"):
        metrics.randomised(model, ["feature"]).__enter__()
    assert same(before, weights(model))


def test_compiled_techniques_see_the_shuffled_weights_and_the_old_ones_again():
    """CAM with shuffled class weights is the activations times the shuffled column."""
    model, images = biased(nets.gap_net), nets.batch()
    maps = cam(model, images, 2)
    activations = keras.Model(model.input, model.get_layer("features").output)(images).numpy()
    with metrics.randomised(model, ["logits"]):
        assert np.allclose(
            cam(model, images, 2),
            activations @ model.get_layer("logits").get_weights()[0][:, 2],
            atol=1e-5,
        )
        assert np.array_equal(eigen_cam(model, images), eigen_cam(model, images, 1))
    assert np.array_equal(cam(model, images, 2), maps)


def test_what_cannot_depend_on_the_head_does_not():
    """Eigen-CAM reads no class: the cascade's first step leaves it alone, and changes saliency."""
    model, images = biased(nets.gap_net), nets.batch()
    before = eigen_cam(model, images), saliency(model, images, 0)
    with metrics.randomised(model, ["logits"]):
        assert np.array_equal(eigen_cam(model, images), before[0])
        assert not np.allclose(saliency(model, images, 0), before[1])
    with metrics.randomised(model, metrics.cascade(model)):
        assert not np.allclose(eigen_cam(model, images), before[0])
        assert guided_backprop(model, images, 0).shape == (3, 12, 12)


def test_similarity_of_maps_that_are_known():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((32, 32))
    assert metrics.similarity(values, values) == pytest.approx(
        {"rank": 1, "rank of sizes": 1, "SSIM": 1}
    )
    assert metrics.similarity(values, 5 * values) == pytest.approx(
        {"rank": 1, "rank of sizes": 1, "SSIM": 1}
    )
    # The opposite map says the opposite, and only the signed measure notices.
    assert metrics.similarity(values, -values) == pytest.approx(
        {"rank": -1, "rank of sizes": 1, "SSIM": 1}
    )
    other = rng.standard_normal((32, 32))
    assert all(abs(value) < 0.15 for value in metrics.similarity(values, other).values())
    assert set(metrics.similarity(values, np.ones((32, 32))).values()) == {0.0}
    assert metrics.similarity(values[:4, :4], values[:4, :4])["SSIM"] == pytest.approx(1)


def test_a_factor_that_two_maps_share_makes_their_sizes_alike_and_leaves_the_signs_unlike():
    """The criticism in numbers: two random gradients times the same picture."""
    rng = np.random.default_rng(1)
    picture = np.exp(2 * rng.standard_normal((64, 64)))
    found = metrics.similarity(
        picture * rng.standard_normal((64, 64)), picture * rng.standard_normal((64, 64))
    )
    assert found["rank of sizes"] > 0.6 and abs(found["rank"]) < 0.1


@pytest.mark.parametrize(("one", "other"), [((4, 4), (4, 5)), ((2, 2), (2, 2))])
def test_maps_that_cannot_be_compared(one, other):
    with pytest.raises(ValueError, match="maps of one shape, 3 x 3 at least"):
        metrics.similarity(np.zeros(one), np.zeros(other))


def test_signs_alone_have_ranks_and_no_sizes():
    signs = np.sign(np.random.default_rng(0).standard_normal((8, 8)))
    found = metrics.similarity(signs, signs)
    assert found["rank"] == pytest.approx(1) and found["rank of sizes"] == found["SSIM"] == 0
