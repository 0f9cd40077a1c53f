"""Class activation against formulas in NumPy, and against what holds on networks with GAP."""

import warnings
from functools import partial

import numpy as np
import pytest
from nets import SHAPES, batch, gap_net, two_outputs

from xai_utils import attribution, keras, tf
from xai_utils.attribution import CAMS, class_activation
from xai_utils.engine import forward

layers = keras.layers
WITH_GRADIENT = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "xgrad_cam")


def flat_net(seed: int = 0) -> keras.Model:
    """A network without GAP, so that its gradient differs from place to place."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="early")(inputs)
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="features")(x)
    x = layers.Dense(8, activation="tanh")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(5, name="logits")(x), name="flat")


def values(model, images, target, layer="features"):
    """Activations, their gradients and logits by Keras' own means."""
    body = keras.Model(model.input, model.get_layer(layer).output)
    a = body(images)
    head = keras.Model(model.get_layer(layer).output, model.output)
    with tf.GradientTape() as tape:
        tape.watch(a)
        logits = head(a)
        score = logits[:, target]
    return a.numpy().astype(float), tape.gradient(score, a).numpy().astype(float), logits.numpy()


def kill_channels(model, channels, value=0.0, layer="features"):
    """Make channels of a layer constant: 0 (dead), or a positive value."""
    kernel, bias = model.get_layer(layer).get_weights()
    kernel[..., channels], bias[channels] = 0, value if value else -1
    model.get_layer(layer).set_weights([kernel, bias])


# --- networks with global average pooling ---------------------------------------------------------


def test_on_a_gap_network_the_weights_of_grad_cam_are_those_of_the_last_layer():
    model, images = gap_net(), batch()
    a, g, logits = values(model, images, 2)
    kernel, bias = model.get_layer("logits").get_weights()
    places = a[0, ..., 0].size
    np.testing.assert_allclose(places * g.mean((1, 2)), np.tile(kernel[:, 2], (3, 1)), rtol=1e-5)
    expected = a @ kernel[:, 2] / places
    for method in (attribution.grad_cam, attribution.hires_cam, attribution.xgrad_cam):
        maps = method(model, images, 2, relu=False)
        np.testing.assert_allclose(maps, expected, atol=1e-6, err_msg=method.__name__)
        np.testing.assert_allclose(maps.sum((1, 2)), logits[:, 2] - bias[2], atol=1e-5)


def test_on_a_gap_network_the_papers_plus_plus_weight_has_a_closed_form():
    model, images = gap_net(), batch()
    a, _, _ = values(model, images, 3)
    w = model.get_layer("logits").get_weights()[0][:, 3]
    # g = w / Z everywhere: alpha = 1 / (2 + w mean(A)), summed over Z places times relu(w) / Z.
    weights = np.maximum(w, 0) / (2 + w * a.mean((1, 2)))
    expected = np.einsum("nhwk,nk->nhw", a, weights)
    assert (w < 0).any() and (w > 0).any()
    np.testing.assert_allclose(
        attribution.grad_cam_plus_plus(model, images, 3), expected, atol=1e-6
    )


def test_on_a_gap_network_the_authors_variant_is_the_positive_weights():
    model, images = gap_net(), batch()
    a, _, _ = values(model, images, 3)
    w = model.get_layer("logits").get_weights()[0][:, 3]
    # alpha is the same everywhere and divided by its sum: 1 / Z.
    expected = a @ np.maximum(w, 0) / a[0, ..., 0].size
    rescaled = attribution.grad_cam_plus_plus(model, images, 3, rescaled=True)
    np.testing.assert_allclose(rescaled, expected, atol=1e-6)
    assert np.abs(rescaled - attribution.grad_cam_plus_plus(model, images, 3)).max() > 1e-3


def test_hires_cam_is_complete_wherever_the_ending_is_linear():
    model, images = SHAPES["sequential"](), batch()
    logits = forward(model, images).numpy()
    maps = attribution.hires_cam(model, images, 1)
    np.testing.assert_allclose(
        maps.sum((1, 2)), logits[:, 1] - model.get_layer("logits").bias.numpy()[1], atol=1e-5
    )
    grad_cam = attribution.grad_cam(model, images, 1, relu=False).sum((1, 2))
    assert np.abs(grad_cam - maps.sum((1, 2))).max() > 0.01, "averaging loses something without GAP"


# --- the formulas, where the gradient differs from place to place ---------------------------------


def formula(name, a, g):
    """One map `(h, w)` of one image, slowly."""
    h, w, channels = a.shape
    total = np.zeros((h, w))
    for k in range(channels):
        ak, gk = a[..., k], g[..., k]
        if name == "grad_cam":
            total += gk.mean() * ak
        elif name.startswith("grad_cam_plus_plus"):
            below = 2 * gk**2 + ak.sum() * gk**3
            alpha = np.divide(gk**2, below, out=np.zeros_like(gk), where=below != 0)
            if name.endswith("rescaled"):
                alpha = alpha / alpha.sum() if alpha.sum() else alpha
            total += (alpha * np.maximum(gk, 0)).sum() * ak
        elif name == "layer_cam":
            total += np.maximum(gk, 0) * ak
        elif name == "hires_cam":
            total += gk * ak
        elif name == "xgrad_cam":
            total += ((gk * ak).sum() / ak.sum() if ak.sum() else 0) * ak
    return total


@pytest.mark.parametrize("layer", ["early", "features"])
def test_every_formula(layer):
    model, images = flat_net(), batch()
    if layer == "features":
        kill_channels(model, [1])
    a, g, _ = values(model, images, 2, layer)
    raw, cut, default = (
        attribution.cams(model, images, (2,), layer_names=(layer,), relu=relu)[layer]
        for relu in (False, True, None)
    )
    for name in CAMS:
        expected = np.stack([formula(name, *each) for each in zip(a, g)])
        np.testing.assert_allclose(
            raw[name][0], expected, atol=2e-5 * np.abs(expected).max(), err_msg=name
        )
        np.testing.assert_array_equal(cut[name], np.maximum(raw[name], 0))
        papers = raw if name in ("hires_cam", "xgrad_cam") else cut
        np.testing.assert_array_equal(default[name], papers[name])


def test_the_formulas_differ_where_they_should():
    model, images = flat_net(), batch()
    maps = attribution.cams(model, images, (2,), relu=False)[None]
    for one in CAMS:
        for two in CAMS:
            if one < two:
                assert np.abs(maps[one] - maps[two]).max() > 1e-4, (one, two)


def test_a_dead_channel_gives_no_nan():
    model, images = flat_net(), batch()
    before = attribution.xgrad_cam(model, images, 0)
    kill_channels(model, [0, 3])
    for name, maps in attribution.cams(model, images, (0,))[None].items():
        assert np.isfinite(maps).all() and np.abs(maps).max() > 0, name
    assert np.abs(attribution.xgrad_cam(model, images, 0) - before).max() > 0


# --- a map that is zero everywhere says why -------------------------------------------------------


def reasons(method, *args, **kwargs) -> tuple[np.ndarray, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maps = method(*args, **kwargs)
    said = [str(warning.message) for warning in caught]
    assert not any("\n" in line for line in said)
    return maps, said


EVERY = [getattr(attribution, name) for name in (*WITH_GRADIENT, "score_cam", "eigen_cam")]


@pytest.mark.parametrize("method", EVERY)
def test_a_dead_layer_is_named(method):
    model, images = flat_net(), batch()
    assert reasons(method, model, images, 0)[1] == []
    kill_channels(model, list(range(6)))
    maps, said = reasons(method, model, images, 0)
    np.testing.assert_array_equal(maps, 0)
    assert said == [
        f"{method.__name__} is zero everywhere on images 0, 1, 2:"
        " 'features' returns only zeros, it is dead"
    ]


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_gradients_that_are_all_zero_are_told_from_a_dead_layer(name):
    model, images = gap_net(), batch()
    kernel, bias = model.get_layer("logits").get_weights()
    kernel[:, 1] = 0
    model.get_layer("logits").set_weights([kernel, bias])
    maps, said = reasons(getattr(attribution, name), model, images[:1], 1)
    np.testing.assert_array_equal(maps, 0)
    assert len(said) == 1 and "image 0: the score does not change with 'features'" in said[0]
    # only the image that it happens to, in the only target that it happens to
    model.get_layer("features").set_weights(
        [0 * w for w in model.get_layer("features").get_weights()]
    )
    assert "is dead" in reasons(getattr(attribution, name), model, images[:1], 1)[1][0]


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_a_map_whose_evidence_speaks_against_the_class_says_so(name):
    model, images = gap_net(), batch()
    kernel, bias = model.get_layer("logits").get_weights()
    kernel[:, 0] = -np.abs(kernel[:, 0])
    model.get_layer("logits").set_weights([kernel, bias])
    method = getattr(attribution, name)
    maps, said = reasons(method, model, images, 0, relu=True)
    np.testing.assert_array_equal(maps, 0)
    assert len(said) == 1
    assert "at 'features' nothing speaks for the class, only against it" in said[0]
    if name in ("grad_cam", "hires_cam", "xgrad_cam"):
        maps, said = reasons(method, model, images, 0, relu=False)
        assert maps.max(axis=(1, 2)).max() <= 0 and maps.min() < 0 and said == []


def test_only_the_image_whose_map_is_zero_is_named():
    model = gap_net()
    model.get_layer("early").bias.assign([-0.1] * 4)  # a black picture leaves nothing behind it
    images = batch()
    images[1] = 0
    maps, said = reasons(attribution.layer_cam, model, images, 2)
    assert maps[[0, 2]].any(axis=(1, 2)).all() and not maps[1].any()
    assert len(said) == 1 and "on image 1: 'features' returns only zeros" in said[0]


# --- half precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_maps_of_a_network_of_half_precision_are_float32_and_near(policy):
    images, exact = batch(), gap_net()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = gap_net()
    finally:
        keras.config.set_dtype_policy(before)
    model.set_weights(exact.get_weights())
    assert model.compute_dtype == policy.removeprefix("mixed_")
    for method in (*EVERY, attribution.cam):
        maps, expected = method(model, images, 1), method(exact, images, 1)
        assert maps.dtype == np.float32
        np.testing.assert_allclose(
            maps, expected, atol=0.05 * np.abs(expected).max(), err_msg=method.__name__
        )


# --- many maps from one pass ----------------------------------------------------------------------


def test_several_targets_layers_and_methods_in_one_call_equal_single_calls():
    model, images = flat_net(), batch()
    targets = (None, 1, [0, 2, 4], lambda s: s[:, 0] - s[:, 1])
    together = attribution.cams(model, images, targets, WITH_GRADIENT, ("early", "features", None))
    assert list(together) == ["early", "features", None]
    for layer, name in [
        ("early", "grad_cam"),
        ("features", "layer_cam"),
        (None, "hires_cam"),
        ("early", "xgrad_cam"),
    ]:
        maps = together[layer][name]
        assert (
            maps.shape == ((4, 3, 12, 12) if layer == "early" else (4, 3, 6, 6))
            and maps.dtype == np.float32
        )
        for target, each in zip(targets, maps):
            single = getattr(attribution, name)(model, images, target, layer=layer)
            np.testing.assert_allclose(each, single, atol=1e-6, err_msg=f"{layer} {name}")
    np.testing.assert_array_equal(together["features"]["grad_cam"], together[None]["grad_cam"])


def test_one_call_runs_the_network_once():
    model, images = gap_net(), batch()
    runs, early = [], model.get_layer("early")
    call = early.call
    early.call = lambda *args, **kwargs: (runs.append(1), call(*args, **kwargs))[1]
    attribution.grad_cam(model, images, 0)  # shapes are looked up, and this one is compiled
    runs.clear()
    attribution.cams(model, images, (0, 1, 2), WITH_GRADIENT, ("features",))
    assert len(runs) == 1


def test_an_unknown_method_is_named():
    with pytest.raises(
        ValueError, match="no class activation method is called 'gradcam'; nearest: grad_cam"
    ):
        attribution.cams(gap_net(), batch(), methods=("grad_cam", "gradcam"))


# --- without gradients ----------------------------------------------------------------------------


def slow_score_cam(model, images, target, baseline=0.0):
    """The formula, one channel of one image at a time; a constant one leaves a black picture."""
    a, _, _ = values(model, images, target)

    def f(picture):
        return forward(model, picture[None]).numpy()[0, target].astype(float)

    maps = []
    for image, one in zip(images, a):
        rises = []
        for channel in np.moveaxis(one, -1, 0):
            low, high = channel.min(), channel.max()
            mask = (channel - low) / (high - low) if high > low else np.zeros_like(channel)
            large = tf.image.resize(mask[..., None].astype(np.float32), image.shape[:2]).numpy()
            rises.append(f(image * large) - f(np.full_like(image, baseline)))
        alpha = np.exp(rises) / np.exp(rises).sum()
        maps.append(one @ alpha)
    return np.stack(maps)


@pytest.mark.parametrize("dead", [(), (0, 4), (1,)])
@pytest.mark.parametrize("constant", [0.0, 0.5])
def test_score_cam_is_its_formula(dead, constant):
    model, images = flat_net(), batch()
    kill_channels(model, list(dead), constant)
    expected = slow_score_cam(model, images, 2)
    np.testing.assert_allclose(attribution.score_cam(model, images, 2), expected, atol=1e-5)


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_score_cam_with_signed_activations_whatever_the_papers_baseline(baseline):
    model, images = flat_net(), batch()
    model.get_layer("features").activation = keras.activations.linear
    expected = slow_score_cam(model, images, 1, baseline)
    assert expected.min() < 0
    np.testing.assert_allclose(
        attribution.score_cam(model, images, 1, relu=False), expected, atol=1e-5
    )
    np.testing.assert_allclose(
        attribution.score_cam(model, images, 1), np.maximum(expected, 0), atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "scored"),
    [("score_cam", "_masked_by_channel"), ("ablation_cam", "_without_channel")],
)
def test_the_size_of_a_chunk_changes_nothing_and_dead_channels_cost_nothing(
    name, scored, monkeypatch
):
    model, images = flat_net(), batch()
    kill_channels(model, [2, 5])
    pictures, compiled = [], class_activation.compiled

    def counting(model, function, /, **settings):
        run = compiled(model, function, **settings)
        if function is not getattr(class_activation, scored):
            return run
        return lambda *tensors: (pictures.append(len(tensors[-1])), run(*tensors))[1]

    monkeypatch.setattr(class_activation, "compiled", counting)
    maps = []
    for at_once in (32, 5, 1):
        monkeypatch.setattr(class_activation, "IMAGES_AT_ONCE", at_once)
        pictures.clear()
        maps.append(getattr(attribution, name)(model, images, 1))
        assert sum(pictures) == 3 * 4 and max(pictures) <= at_once
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-6)
    np.testing.assert_allclose(maps[2], maps[0], atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_ablation_cam_on_a_gap_network_has_a_closed_form(sign):
    model, images = gap_net(), batch()
    a, _, logits = values(model, images, 2)
    kernel, bias = model.get_layer("logits").get_weights()
    # the score far from 0, on either side, and what speaks for the class unchanged
    logits = logits + 10 * sign
    model.get_layer("logits").set_weights([kernel, bias + 10 * sign])
    assert (np.sign(logits[:, 2]) == sign).all()
    weights = kernel[:, 2] * a.mean((1, 2)) / np.abs(logits[:, 2:3])
    expected = np.einsum("nhwk,nk->nhw", a, weights)
    maps = attribution.ablation_cam(model, images, 2, relu=False)
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(
        attribution.ablation_cam(model, images, 2),
        np.maximum(expected, 0),
        atol=1e-3 * np.abs(expected).max(),
    )


@pytest.mark.parametrize("dead", [(), (0, 4)])
@pytest.mark.parametrize("layer", ["early", "features"])
def test_ablation_cam_is_its_formula(layer, dead):
    model, images = flat_net(), batch()
    kill_channels(model, list(dead)) if layer == "features" else None
    a, _, logits = values(model, images, 1, layer)
    head = keras.Model(model.get_layer(layer).output, model.output)
    expected = np.zeros(a.shape[:3])
    for k in range(a.shape[-1]):
        without = a * (np.arange(a.shape[-1]) != k)
        weight = (logits[:, 1] - head(without).numpy()[:, 1]) / np.abs(logits[:, 1])
        expected += weight[:, None, None] * a[..., k]
    maps = attribution.ablation_cam(model, images, 1, layer, relu=False)
    np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())


def test_a_score_of_zero_gives_a_finite_ablation_cam():
    model, images = gap_net(), batch()
    maps = attribution.ablation_cam(model, images, lambda s: s[:, 1] - tf.stop_gradient(s[:, 1]))
    assert not maps.any()
    whole = forward(model, images).numpy()[:, 1]
    maps = attribution.ablation_cam(model, images[:1], lambda s: s[:, 1] - whole[0], relu=False)
    plain = attribution.ablation_cam(model, images[:1], 1, relu=False) * abs(whole[0])
    assert np.isfinite(maps).all()
    np.testing.assert_allclose(maps / np.abs(maps).max(), plain / np.abs(plain).max(), atol=1e-2)


def test_ablation_cam_computes_only_what_is_behind_the_layer():
    model, images = flat_net(), tf.constant(batch())
    for layer, convolutions in (("features", 0), ("early", 1)):
        maps = tf.constant(values(model, images, 0, layer)[0], tf.float32)
        pairs = tf.constant([[0, 1], [2, 3]])
        without = partial(class_activation._without_channel, model, layer=layer, function=None)
        run = tf.function(without, autograph=False)
        graph = run.get_concrete_function(images, maps, tf.constant([1, 1, 1]), pairs)
        needed = tf.compat.v1.graph_util.extract_sub_graph(
            graph.graph.as_graph_def(), [graph.outputs[0].op.name]
        )
        assert sum(node.op == "Conv2D" for node in needed.node) == convolutions
        assert sum(node.op == "MatMul" for node in needed.node) == 2


def test_eigen_cam_is_the_projection_on_the_first_direction():
    model, images = flat_net(), batch()
    a, _, _ = values(model, images, 0)
    maps = attribution.eigen_cam(model, images)
    for one, found in zip(a, maps):
        _, _, directions = np.linalg.svd(one.reshape(-1, one.shape[-1]), full_matrices=False)
        expected = one @ directions[0]
        expected *= np.sign(expected.sum())
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(maps, attribution.eigen_cam(model, images, 3))
    with pytest.raises(ValueError, match="out of range"):
        attribution.eigen_cam(model, images, 99)


# --- all of them ----------------------------------------------------------------------------------


def all_cams(model, images, target=None):
    """The methods that share activations and gradients, side by side, one row an image."""
    maps = attribution.cams(model, images, (target,))[None].values()
    return np.stack([each[0] for each in maps], axis=1)


@pytest.mark.parametrize(
    "method", [all_cams, attribution.score_cam, attribution.ablation_cam, attribution.eigen_cam]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_model_shape_batch_as_singles_and_left_untouched(method, shape):
    model, images = SHAPES[shape](), batch()
    maps = method(model, images)
    singles = np.concatenate([method(model, image[None]) for image in images])
    np.testing.assert_allclose(maps, singles, atol=1e-5)
    assert maps.dtype == np.float32 and len(maps) == 3 and np.abs(maps).max() > 0
    assert not any("call" in vars(layer) for layer in model.layers)
    top = forward(model, images).numpy().argmax(1)
    np.testing.assert_allclose(maps, method(model, images, top), atol=1e-6)


def test_every_function_is_its_key_of_cams():
    model, images = flat_net(), batch()
    maps = attribution.cams(model, images, (1,))[None]
    for name in WITH_GRADIENT:
        np.testing.assert_allclose(
            getattr(attribution, name)(model, images, 1), maps[name][0], atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("method", [all_cams, attribution.score_cam, attribution.eigen_cam])
def test_a_constant_shift_of_the_logits_changes_nothing(method):
    model, images = gap_net(), batch()
    before = method(model, images, 1)
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel, bias + 10])
    np.testing.assert_allclose(method(model, images, 1), before, atol=1e-5)


@pytest.mark.parametrize("name", ["score_cam", "ablation_cam", "layer_cam"])
def test_a_second_output_is_explained_with_a_callable(name):
    maps = getattr(attribution, name)(
        two_outputs(), batch(), lambda o: o["box"][:, 0], layer="features"
    )
    assert maps.shape == (3, 6, 6) and np.abs(maps).max() > 0


@pytest.mark.parametrize("name", ["layer_cam", "score_cam", "ablation_cam", "eigen_cam"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": batch()[0]}, r"pass image\[None\]"),
        ({"images": np.full((1, 12, 12, 3), np.inf)}, "432 values that are NaN or infinite"),
        ({"images": np.zeros((2, 12, 12, 4))}, r"\(2, 12, 12, 4\), but gap takes \(N, 12, 12, 3\)"),
        ({"target": 5}, "target 5 is out of range: gap has classes 0 to 4"),
        ({"target": [0, 1]}, "3 classes"),
        ({"layer": "featurs"}, "nearest: features"),
        ({"layer": "pool"}, "not maps .* 'features' would do"),
    ],
)
def test_bad_input_is_one_clear_line(name, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        getattr(attribution, name)(gap_net(), **{"images": batch(), **arguments})
    assert "\n" not in str(caught.value)


def test_a_score_without_gradient_is_refused():
    with pytest.raises(ValueError, match="does not depend on layer 'features'"):
        attribution.xgrad_cam(
            gap_net(), batch(), lambda s: tf.stop_gradient(s[:, 0]), layer="features"
        )
