"""Factors of a layer's codes: planted ones, importance in closed form, parts of known scenes."""

import nets
import numpy as np
import pytest

from xai_utils import concepts, keras, models, pictures

layers = keras.layers
PLANTED = np.array([[4, 0, 0, 1, 0, 1], [0, 3, 0, 0, 2, 0], [1, 0, 2, 0, 0, 3]], float)
PLANTED /= np.linalg.norm(PLANTED, axis=1, keepdims=True)
WEIGHTS = np.array([1.0, -1, 0.5, 2, 1, 0.25])  # of class 0


def planted() -> keras.Model:
    """Six channels, seen as they are, pooled and weighted; layer `signed` has negative values."""
    inputs = keras.Input((12, 12, 6))
    below = layers.ReLU(name="below")(inputs)
    signed = layers.Rescaling(1, offset=-5, name="signed")(below)
    seen = layers.Conv2D(6, 1, activation="relu", name="seen")
    head = layers.Dense(2, name="head")
    model = keras.Model(inputs, head(layers.GlobalAveragePooling2D()(seen(signed))), name="planted")
    seen.set_weights([np.eye(6)[None, None], np.full(6, 5.0)])
    head.set_weights([np.stack([WEIGHTS, -WEIGHTS], axis=1), np.zeros(2)])
    return model


def planted_pictures(count: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of 3 x 3 blocks, and how much of each factor is at each pixel, `(N, 12, 12, 3)`."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(10, 100, (count, 3, 3, 3)) * (rng.random((count, 3, 3, 3)) < 0.6)
    amounts = amounts.repeat(4, axis=1).repeat(4, axis=2)
    return (amounts @ PLANTED).astype(np.float32), amounts


@pytest.fixture(scope="module")
def network():
    return planted()


@pytest.fixture(scope="module")
def found(network):
    return concepts.craft(network, planted_pictures()[0], 0, 3, crop=4, grid=3, samples=512)


def order_of(vectors):
    """Which planted factor each found one is."""
    return (vectors @ PLANTED.T).argmax(axis=1)


def test_planted_factors_come_back_up_to_order_and_scale(found):
    order = order_of(found.vectors)
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(found.vectors, PLANTED[order], atol=0.02)
    assert found.explained > 0.999 and found.layer == "seen" and found.vectors.dtype == np.float32


def test_the_map_of_a_factor_is_its_amount_at_each_place(network, found):
    images, amounts = planted_pictures(seed=1)
    maps = concepts.factor_maps(network, images, found)
    expected = amounts[..., order_of(found.vectors)]
    assert maps.dtype == np.float32 and maps.min() >= 0
    np.testing.assert_allclose(maps, expected, atol=0.05 * amounts.max())
    codes = concepts.codes(network, images, found.layer, places=True)  # which may be there already
    np.testing.assert_array_equal(concepts.factor_amounts(codes, found.vectors), maps)
    np.testing.assert_array_equal(concepts.factor_amounts(codes[0, 1], found.vectors), maps[0, 1])


def test_importance_under_a_linear_head_is_the_square_of_the_part(network, found):
    """A sum of independent parts `c_r m_r`: the index of each is `c_r^2` over the sum of all."""
    _, amounts = planted_pictures()
    parts = (amounts.mean(axis=(1, 2)) * (PLANTED @ WEIGHTS)) ** 2
    shares = parts / parts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.each, shares[:, order_of(found.vectors)], atol=0.03)
    np.testing.assert_allclose(found.importance, found.each.mean(axis=0))
    assert (np.diff(found.importance) <= 0).all() and (found.errors < 0.06).all()


def test_a_factors_best_crops_are_where_most_of_it_is(found):
    images, amounts = planted_pictures()
    for factor, (crops, places) in enumerate(zip(found.crops, found.places, strict=True)):
        of_factor = amounts[..., order_of(found.vectors)[factor]]
        most = np.sort(of_factor[:, ::4, ::4].ravel())[::-1]
        got = [of_factor[tuple(place)] for place in places]
        np.testing.assert_allclose(got, most[: len(got)], rtol=0.05)
        n, row, left = places[0]
        np.testing.assert_allclose(crops[0], images[n, row, left] + 0 * crops[0], rtol=1e-5)


def test_a_factor_is_divided_at_an_earlier_layer(found, network):
    parts = concepts.craft(network, found.crops[0], 0, 1, layer="below", crop=6, grid=2, best=2)
    assert parts.layer == "below" and parts.explained > 0.9
    np.testing.assert_allclose(np.linalg.norm(parts.vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("shape", nets.SHAPES)
@pytest.mark.parametrize("target", [1, None, lambda outputs: outputs[:, 0] - outputs[:, 1]])
def test_every_model_shape_batch_as_singles_and_left_untouched(shape, target):
    model, images = nets.SHAPES[shape](), nets.batch()
    before = model(images).numpy()
    layer = "block/features_relu" if shape == "subclassed" else None
    layer = "body/features" if shape == "nested" else layer
    got = concepts.craft(model, images, target, 2, layer=layer, crop=6, grid=3, samples=4, best=2)
    maps = concepts.factor_maps(model, images, got)
    for n in range(len(images)):
        np.testing.assert_allclose(
            concepts.factor_maps(model, images[n : n + 1], got), maps[n : n + 1], atol=1e-5
        )
    assert maps.shape[-1] == 2 and got.crops.shape == (2, 2, 12, 12, 3) and got.each.shape == (3, 2)
    np.testing.assert_array_equal(model(images).numpy(), before)


def test_a_network_of_half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = nets.gap_net()
    finally:
        keras.config.set_dtype_policy(before)
    got = concepts.craft(model, nets.batch(), 0, 2, crop=6, grid=3, samples=4, best=2)
    assert got.vectors.dtype == np.float32 and np.isfinite(got.importance).all()


def test_one_sigmoid_unit_has_its_score():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    seen = layers.Conv2D(4, 3, activation="relu", name="features")(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling2D()(seen)))
    got = concepts.craft(model, nets.batch(), 0, 2, crop=6, grid=3, samples=64, best=2)
    np.testing.assert_allclose(got.each.sum(axis=1), 1, atol=0.1)  # a linear head


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "signed"}, "negative values, down to -.* choose one behind a ReLU"),
        ({"layer": "head"}, "not maps"),
        ({"layer": "nowhere"}, "nowhere"),
        ({"crop": 13}, "crop must be 1 to 12 pixels"),
        ({"grid": 0}, "grid at least 1"),
        ({"factors": 7}, "6 channels have 1 to 6 factors"),
        ({"factors": 0}, "1 to 6 factors"),
        ({"best": 1000}, "best crops, not 3 and 1000"),
        ({"samples": 1}, "at least 2 samples"),
        ({"target": 9}, "9"),
    ],
)
def test_what_cannot_be_done_says_so(network, settings, message):
    given = {"target": 0, "factors": 3, "crop": 4, "grid": 3, "samples": 4} | settings
    with pytest.raises(ValueError, match=message) as told:
        concepts.craft(network, planted_pictures()[0], **given)
    assert "\n" not in str(told.value)


def test_a_class_without_pictures_and_dead_layers_say_so(network):
    images = planted_pictures()[0]
    with pytest.raises(ValueError, match="images must be numbers of shape"):
        concepts.craft(network, images[:0], 0)
    with pytest.raises(ValueError, match="is zero for all 9 crops"):
        concepts.craft(network, 0 * images[:1], 0, 2, crop=4, grid=3)


def test_factors_of_another_network_are_refused(network, found):
    images = planted_pictures()[0]
    with pytest.raises(ValueError, match="have 5 channels, but layer 'seen' of .* has 6"):
        concepts.factor_maps(network, images, found._replace(vectors=found.vectors[:, :5]))
    with pytest.raises(ValueError, match="factors is what craft returns, not ndarray"):
        concepts.factor_maps(network, images, found.vectors)
    with pytest.raises(ValueError, match="have 6 channels, but the codes 5"):
        concepts.factor_amounts(np.ones((2, 5)), found.vectors)


def shares_on(model, scenes, chosen, factors):
    """Share of each factor's mass on tree and bird, `(2, R)`, and the shares of the area."""
    maps = concepts.factor_maps(model, scenes.images[chosen], factors)
    cells, size = maps.shape[1], pictures.bird_or_tree.SIZE
    masks = np.stack([scenes.tree_mask[chosen], scenes.object_mask[chosen]])
    masks = masks.reshape(2, -1, cells, size // cells, cells, size // cells).mean(axis=(3, 5))
    mass = np.einsum("pnhw,nhwr->pr", masks, maps) / maps.sum(axis=(0, 1, 2)).clip(1e-9)
    return mass, masks.mean(axis=(1, 2, 3))


def test_the_tree_is_a_factor_of_the_network_that_goes_by_it():
    """On pictures that are not those which chose the factor; the floor is the tree's area."""
    model = models.small_networks.build()
    model.set_weights(models.small_networks.trained([(1.0, 0.0, 200)])[-1])
    scenes = pictures.bird_or_tree.sample(60, 1, 1, seed=77)
    birds = np.flatnonzero(scenes.labels == 0)
    found = concepts.craft(model, scenes.images[birds[:15]], "bird", 6, crop=16)
    chosen, _ = shares_on(model, scenes, birds[:15], found)
    held_out, floor = shares_on(model, scenes, birds[15:], found)
    tree = int(chosen[0].argmax())
    assert held_out[0, tree] > 4 * floor[0]
    important = held_out @ found.importance / found.importance.sum()
    assert important[0] > 2.5 * floor[0] > important[1], "what counts lies on the tree, not birds"
