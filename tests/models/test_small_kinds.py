"""Networks of modern kinds: where their maps lie, and every technique on each of them."""

import numpy as np
import pytest

from xai_utils import attribution, keras, models, pictures, tf
from xai_utils.models import default_layer, small_kinds, small_networks

layers = keras.layers
SHAPE = (1, 48, 48, 3)
# How many places across what is pooled has, and what guided backpropagation refuses.
ABOUT = {
    "grouped": (12, None),
    "squeezed": (12, "hard-swish"),
    "convnext": (12, "no ReLU or ReLU6 but GELU"),
    "windowed": (6, "no ReLU or ReLU6 but GELU"),
    "hybrid": (12, "no ReLU or ReLU6 but SiLU"),
}
QUICK = {
    "smooth_grad": {"samples": 2},
    "var_grad": {"samples": 2},
    "integrated_gradients": {"steps": 3},
    "occlusion": {"patch": 12, "stride": 12},
    "rise": {"masks": 20},
    "lime": {"samples": 30, "segments": 10},
    "kernel_shap": {"samples": 30, "segments": 10},
    "gradient_shap": {"samples": 4},
    "xrai": {"steps": 2},
    "sobol": {"grid": 3, "samples": 4},
    "extremal_perturbation": {"grid": 6, "steps": 3, "fill": "black"},
}
GUIDED = ("guided_backprop", "deconvnet", "guided_grad_cam")
# These go through a network's layers or operations by what they find there. The others ask any
# network alike, for scores, its gradient or a map: two kinds, of which one has patches that stand
# in the batch, are asked by all techniques.
BY_LAYER = ("saliency", "grad_cam", "guided_backprop", "deep_lift", "full_grad", "lrp")
BY_LAYER += ("raw_attention",)
ASKED_BY_ALL = ("grouped", "hybrid")


@pytest.fixture(scope="module")
def scenes():
    return pictures.bird_or_tree.sample(2, 0.5, 0.5, seed=5).images.astype(np.float32)


@pytest.fixture(scope="module")
def networks(scenes):
    """Networks whose weights tell no left from right, but for those of places that lie still."""
    built = {kind: small_kinds.build(kind, seed=1) for kind in ABOUT}
    rng = np.random.default_rng(0)
    for model in built.values():
        for weights in model.weights:
            values = weights.numpy()
            if values.ndim == 4:
                values = (values + values[:, ::-1]) / 2
            elif values.ndim == 3 and len(values) == 1:  # places of a window
                side = int(values.shape[1] ** 0.5)
                grid = rng.normal(size=(side, side, values.shape[2])) * 0.3
                values = ((grid + grid[:, ::-1]) / 2).reshape(values.shape)
            elif "moving_mean" in weights.path or "bias" in weights.path:
                values = rng.normal(size=values.shape) * 0.1
            elif values.shape[-1] == 2:  # much speaks for a class, so that no map is cut to zero
                values = np.abs(values)
            weights.assign(values)
    return built


def maps_of(name, model, images):
    return attribution.TECHNIQUES[name](model, images, 1, **QUICK.get(name, {}))


@pytest.mark.parametrize("kind", ABOUT)
def test_what_is_pooled_is_the_map_and_it_adds_up_to_the_logit(kind, networks, scenes):
    model, side = networks[kind], ABOUT[kind][0]
    pooled = model.get_layer("pool").input
    path = default_layer(model, SHAPE)
    assert models.find_layer(model, path).output is pooled
    maps = attribution.hires_cam(model, scenes, 1)
    assert maps.shape == (2, side, side)
    logits, bias = model(scenes).numpy()[:, 1], model.get_layer("logits").bias.numpy()[1]
    np.testing.assert_allclose(maps.sum((1, 2)) + bias, logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        attribution.cam(model, scenes, 1), maps * side**2, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("kind", ABOUT)
@pytest.mark.parametrize("name", ["saliency", "five CAMs"])
def test_a_mirrored_picture_has_the_mirrored_map(name, kind, networks, scenes):
    model, both = networks[kind], np.concatenate([scenes, scenes[:, :, ::-1]])
    logits = model(both).numpy()
    np.testing.assert_allclose(logits[:2], logits[2:], rtol=1e-3, atol=1e-4)
    if name == "five CAMs":
        found = attribution.cams(model, both, (1,), relu=False)[None]
        maps = np.stack([of_method[0] for of_method in found.values()], axis=-1)
    else:
        maps = maps_of(name, model, both)[..., None]
    sizes = np.ptp(maps, (0, 1, 2))
    assert (np.abs(maps - maps[:, :, ::-1]).max((0, 1, 2)) > 0.1 * sizes).all()
    np.testing.assert_allclose(maps[2:] / sizes, maps[:2, :, ::-1] / sizes, atol=3e-3)


@pytest.mark.parametrize("kind", ABOUT)
def test_every_technique_explains_or_says_why_not(kind, networks, scenes):
    model, refused = networks[kind], ABOUT[kind][1]
    for name in attribution.TECHNIQUES if kind in ASKED_BY_ALL else BY_LAYER:
        if name in GUIDED and refused:
            with pytest.raises(ValueError, match=f"small_{kind} has {refused} .layer '"):
                maps_of(name, model, scenes)
            continue
        if "attention" in name:
            with pytest.raises(ValueError, match="attention|attends"):
                maps_of(name, model, scenes)
            continue
        maps = maps_of(name, model, scenes)
        assert maps.dtype == np.float32 and np.isfinite(maps).all() and maps.any((1, 2)).all(), name
        if attribution.ABOUT[name].pace == "quick":
            single = maps_of(name, model, scenes[1:2])
            # LRP divides by sums that nearly cancel, random weights being what they are
            most = (3e-2 if name == "lrp" else 5e-3) * np.abs(maps).max()
            np.testing.assert_allclose(single, maps[1:2], atol=most, err_msg=name)


@pytest.mark.parametrize("kind", ["windowed", "hybrid"])
def test_where_windows_stand_in_the_batch_a_score_is_still_taken_apart(kind, networks, scenes):
    model = networks[kind]
    maps, parts = attribution.full_grad(model, scenes, 1, return_parts=True)
    assert maps.shape == scenes.shape[:3]
    np.testing.assert_allclose(sum(parts.values()), model(scenes)[:, 1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["windowed", "hybrid"])
def test_a_network_as_it_is_loaded_is_read_at_the_same_place(kind, networks, scenes, tmp_path):
    networks[kind].save(tmp_path / "mine.keras")
    net = models.load_model(tmp_path / "mine.keras", preprocessing="none", labels=["bird", "fish"])
    assert net.conv_layer == f"small_{kind}/{default_layer(networks[kind], SHAPE)}"
    maps = attribution.grad_cam(networks[kind], scenes, 1)
    np.testing.assert_allclose(
        attribution.grad_cam(net.model, scenes, 1), maps, rtol=1e-3, atol=1e-4 * maps.max()
    )


def test_places_of_one_side_of_a_shifted_picture_see_no_other_side():
    """The right answer by hand: which places of the map each place attends to."""
    x = keras.random.normal((2, 8, 8, 6), seed=3)
    for shift in (0, 2):
        attend = small_kinds.WindowAttention(4, shift, 2)
        attend(x)
        tape = tf.GradientTape()
        with tape:
            tape.watch(x)
            answer = tf.reduce_sum(attend(x)[:, 7, 7] ** 2)
        seen = np.abs(tape.gradient(answer, x).numpy()).sum(-1) > 0
        expected = np.zeros((8, 8), bool)
        expected[4 + shift :, 4 + shift :] = True  # a whole window, or what the roll left of one
        np.testing.assert_array_equal(seen, [expected, expected])


def test_unfolding_and_folding_leaves_every_place_where_it_was():
    x = keras.random.normal((2, 6, 4, 8), seed=3)
    block = small_kinds.Unfolded()
    block(x)
    for weights in block.weights:
        if "kernel" in weights.path:
            weights.assign(tf.zeros_like(weights))  # both branches return zero
    np.testing.assert_array_equal(block(x), x)
    fresh = small_kinds.Unfolded()
    fresh(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        answer = tf.reduce_sum(fresh(x)[:, 3, 2] ** 2)
    seen = np.abs(tape.gradient(answer, x).numpy()).sum((0, -1)) > 0
    expected = np.zeros((6, 4), bool)
    expected[1::2, ::2] = True  # the same place of every patch
    np.testing.assert_array_equal(seen, expected)


def test_a_dropped_branch_is_dropped_in_training_alone():
    depth, ones = small_kinds.StochasticDepth(0.5, seed=1), tf.ones((200, 2, 2, 3))
    np.testing.assert_array_equal(depth(ones), ones)
    trained = depth(ones, training=True).numpy()
    assert {*np.unique(trained)} == {0, 2} and (np.ptp(trained, (1, 2, 3)) == 0).all()
    assert 0.8 < trained.mean() < 1.2


def test_it_learns_what_tells_the_classes_apart_and_is_kept(tmp_path):
    kind, calls = "hybrid", []
    given = {"count": 256, "folder": tmp_path, "progress": lambda *step: calls.append(step)}
    weights = small_kinds.trained(kind, [(1, 0, 40)], **given)
    model = small_kinds.build(kind)
    model.set_weights(weights[-1])
    found = small_networks.behaviour(model, pictures.bird_or_tree.sample(200, 0.5, 0.5, seed=99))
    assert found["auc_tree"] > 0.95
    assert [step for step, *_ in calls] == [20, 40]
    again = small_kinds.trained(kind, [(1, 0, 40)], **given)
    assert len(calls) == 2, "fetched, not trained"
    assert all(np.array_equal(a, b) for a, b in zip(weights[-1], again[-1], strict=True))


def test_an_unknown_kind_is_refused_in_one_line():
    for call in (small_kinds.build, lambda kind: small_kinds.trained(kind, [(1, 0, 9)])):
        with pytest.raises(ValueError, match="one of grouped, .*, hybrid, not 'swin'"):
            call("swin")


def test_networks_of_keras_are_read_where_they_pool():
    """With random weights: what is pooled is the map, and the activations are known by name."""
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype(np.float32)
    given = {"weights": None, "input_shape": (96, 96, 3), "classifier_activation": None}
    for build, refused, ends in (
        (keras.applications.MobileNetV3Small, "has hard-swish .layer 'activation", None),
        (keras.applications.ConvNeXtTiny, "has no ReLU or ReLU6 but GELU", "norm"),
        (keras.applications.Xception, None, "linear"),
    ):
        keras.utils.set_random_seed(0)
        model = build(classes=10, **given)
        path = default_layer(model, pixels.shape)
        pool = [layer for layer in model.layers if "GlobalAverage" in type(layer).__name__][-1]
        assert models.find_layer(model, path).output is pool.input
        maps, logits = attribution.hires_cam(model, pixels, 3), model(pixels).numpy()[:, 3]
        assert maps.shape == (2, 3, 3)
        sums, sizes = maps.sum((1, 2)), np.abs(maps).sum((1, 2))
        if ends == "linear":
            np.testing.assert_allclose(sums + model.layers[-1].bias.numpy()[3], logits, rtol=1e-3)
        elif ends == "norm":  # normalised after the mean: the logit has no degree, the map no sum
            assert (np.abs(sums) < 1e-3 * sizes).all() and (np.abs(logits) > 1e-3).all()
        if refused:
            with pytest.raises(ValueError, match=refused):
                attribution.guided_backprop(model, pixels, 3)
        else:
            assert attribution.guided_backprop(model, pixels, 3).any((1, 2)).all()
