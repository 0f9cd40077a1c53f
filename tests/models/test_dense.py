"""Networks that answer at every pixel: what they are taken for, and what a target means."""

import numpy as np
import pytest

from xai_utils import attribution, keras, metrics, models, tf
from xai_utils.models.labels import name_classes

layers = keras.layers


def pixelwise(units=3, activation=None, size=(6, 8), seed=0, name="net") -> keras.Model:
    """One convolution of 1 x 1: every place of the output sees its own pixel alone."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((*size, 3))
    outputs = layers.Conv2D(units, 1, activation=activation, name="head")(inputs)
    return keras.Model(inputs, outputs, name=name)


def halving(name="half") -> keras.Model:
    """Its output has half the picture's side; the class of a place is its brightest channel."""
    inputs = keras.Input((8, 8, 3))
    x = layers.AveragePooling2D(2)(inputs)
    head = layers.Conv2D(3, 1, use_bias=False, name="head")
    model = keras.Model(inputs, head(x), name=name)
    head.set_weights([np.eye(3)[None, None]])
    return model


def blobs() -> np.ndarray:
    """Two pictures of 8 x 8 for `halving`: red, with blue pieces of 1 and 3 places, and one of 2.

    Pieces that touch at a corner are apart.
    """
    classes = np.zeros((2, 4, 4), int)
    classes[0, 0, 0] = classes[0, 1, 1] = classes[0, 2, 1] = classes[0, 2, 2] = 2
    classes[1, 3, 2:] = 2
    return np.eye(3, dtype=np.float32)[classes].repeat(2, 1).repeat(2, 2)


def noise(shape=(2, 6, 8, 3), seed=1):
    return np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)


# --- what a network is taken for ------------------------------------------------------------------


def test_a_softmax_at_every_pixel_is_a_segmentation_and_comes_off():
    net, bare = pixelwise(activation="softmax"), pixelwise()
    bare.set_weights(net.get_weights())
    mine = models.load_model(net, preprocessing="unit", labels=["road", "sky", "tree"])
    images = 255 * noise()
    assert (mine.task, mine.function, mine.dense) == ("segmentation", "softmax", True)
    np.testing.assert_allclose(mine.model(images), bare(noise()), atol=1e-5)
    np.testing.assert_allclose(mine.predict_pixels(images), net(noise()), atol=1e-6)
    shares = np.stack([(np.argmax(net(noise()), -1) == c).mean((1, 2)) for c in range(3)], 1)
    np.testing.assert_allclose(mine.predict(images), shares, atol=1e-6)
    assert mine.top(images, 1)[0][0] == (mine.labels[shares[0].argmax()], shares[0].max())


def test_one_sigmoid_at_every_pixel_is_two_classes():
    net, bare = pixelwise(1, "sigmoid"), pixelwise(1)
    bare.set_weights(net.get_weights())
    mine = models.load_model(net, preprocessing="unit", task="segmentation", labels=["cell"])
    score = bare(noise()).numpy()
    assert mine.labels == ("not cell", "cell")
    np.testing.assert_allclose(mine.model(255 * noise()), np.concatenate([-score, score], -1), 1e-4)
    p = mine.predict_pixels(255 * noise())
    np.testing.assert_allclose(p[..., 1:], net(noise()), atol=1e-6)
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(mine.predict(255 * noise()).sum(-1), 1)


def test_of_several_sigmoids_each_class_is_for_itself():
    net = pixelwise(3, "sigmoid")
    mine = models.load_model(net, preprocessing="unit", task="segmentation")
    images = 255 * noise()
    np.testing.assert_allclose(
        mine.predict(images), (net(noise()).numpy() > 0.5).mean((1, 2)), atol=1e-6
    )
    where = models.places(mine.model, images, 1)
    np.testing.assert_array_equal(where, net(noise()).numpy()[..., 1] > 0.5)


@pytest.mark.parametrize("with_channel", [True, False])
def test_values_at_every_pixel_are_a_regression(with_channel):
    net = pixelwise(1)
    whole = net if with_channel else keras.Model(net.input, layers.Reshape((6, 8))(net.output))
    mine = models.load_model(whole, preprocessing="unit", task="regression", labels=["depth"])
    assert mine.dense and mine.unit == "units" and mine.model.output_shape == (None, 6, 8, 1)
    depth = net(noise()).numpy()
    np.testing.assert_allclose(mine.predict_pixels(255 * noise()), depth, atol=1e-6)
    np.testing.assert_allclose(mine.predict(255 * noise()), depth.mean((1, 2)), atol=1e-6)
    total = attribution.gradient_x_input(mine.model, 255 * noise()).sum((1, 2))
    np.testing.assert_allclose(total, depth.mean((1, 2, 3)), rtol=1e-4)  # linear, without a bias


@pytest.mark.parametrize(
    ("net", "said", "message"),
    [
        (pixelwise(1, "sigmoid"), {}, "1 sigmoid channel at every pixel: say task=segmentation or"),
        (pixelwise(3), {"labels": ["a", "b", "c"]}, "3 linear channels at every pixel: say task="),
        (pixelwise(3, "softmax"), {"task": "regression"}, "its task is segmentation, not regr"),
        (pixelwise(3), {"task": "multilabel"}, "is segmentation or regression, not multilabel"),
        (
            keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(2)]),
            {"task": "segmentation"},
            "one answer a picture; a segmentation returns",
        ),
    ],
)
def test_what_is_not_certain_is_asked_in_one_line(net, said, message):
    with pytest.raises(ValueError, match=message) as error:
        models.load_model(net, preprocessing="unit", **said)
    assert "\n" not in str(error.value)


def test_a_card_says_it(tmp_path):
    pixelwise(1, "sigmoid").save(tmp_path / "mine.keras")
    models.write_card(tmp_path / "mine.yaml", task="segmentation", preprocessing="unit")
    mine = models.load_model(tmp_path / "mine.keras")
    assert mine.task == "segmentation" and mine.model.output_shape == (None, 6, 8, 2)


# --- what a target means --------------------------------------------------------------------------


def test_the_gradient_of_a_pixel_is_its_column_of_the_kernel_and_zero_elsewhere():
    net = pixelwise()
    kernel = net.get_layer("head").get_weights()[0][0, 0]
    gradient = attribution.pixel_gradient(net, noise(), models.pixel(2, 5, 1))
    expected = np.zeros((2, 6, 8, 3))
    expected[:, 2, 5] = kernel[:, 1]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert not gradient[expected == 0].any()


def test_a_region_is_the_mean_over_its_places_and_against_is_subtracted():
    net = pixelwise()
    outputs = net(noise()).numpy()
    everywhere, some = np.ones((6, 8), bool), np.zeros((2, 6, 8), bool)
    some[0, 1:3, 4], some[1, 5, :2] = True, True
    for mask in (everywhere, some):
        masks = np.broadcast_to(mask, (2, 6, 8))
        expected = [o[m].mean(axis=0) for o, m in zip(outputs, masks)]
        for target, score in (
            (models.region(mask, 1), [e[1] for e in expected]),
            (models.region(mask, 1, against=2), [e[1] - e[2] for e in expected]),
        ):
            indices, function = models.check_target(net, noise(), target)
            scores = models.scores(net, tf.constant(noise()), indices, function)
            np.testing.assert_allclose(scores, score, rtol=1e-5)
            np.testing.assert_allclose(target(outputs), score, rtol=1e-5)  # as a callable


def test_a_mask_of_the_pictures_size_covers_a_place_by_half():
    mask = np.zeros((8, 8), bool)
    mask[0, :2] = mask[3, 3] = True  # half of the first place, a quarter of another
    found = models.places(halving(), blobs(), models.region(mask, 0))
    assert np.argwhere(found[0]).tolist() == [[0, 0]]
    pixel = models.places(halving(), blobs(), models.pixel(5, 2, 0))
    assert np.argwhere(pixel[1]).tolist() == [[2, 1]]


def test_a_component_is_what_the_network_found_for_each_image():
    largest = models.places(halving(), blobs(), models.component(2))
    assert np.argwhere(largest[0]).tolist() == [[1, 1], [2, 1], [2, 2]]
    assert np.argwhere(largest[1]).tolist() == [[3, 2], [3, 3]]
    single = models.component(at=(1, 0))  # the class is what is found there
    assert np.argwhere(models.places(halving(), blobs()[:1], single)[0]).tolist() == [[0, 0]]


def test_a_component_is_held_while_the_picture_changes():
    """Of a covered picture the network finds other components; the score stays that of the first.

    The score is the mean of blue over three places: a cover on one of them takes a third.
    """
    net, target = halving(), models.component(2)
    maps = attribution.occlusion(net, blobs()[:1], target, patch=2, stride=2, fill=0)
    expected = np.zeros((4, 4))
    expected[1, 1] = expected[2, 1] = expected[2, 2] = 1 / 3
    np.testing.assert_allclose(maps[0], expected, atol=1e-6)


def test_a_class_is_all_places_that_have_it_and_none_the_class_of_most():
    net = halving()
    assert models.places(net, blobs(), 2).sum(axis=(1, 2)).tolist() == [4, 2]
    np.testing.assert_array_equal(
        models.places(net, blobs(), None), models.places(net, blobs(), [0, 0])
    )
    name_classes(net, ("red", "green", "blue"))
    np.testing.assert_array_equal(
        models.places(net, blobs(), "blue"), models.places(net, blobs(), 2)
    )


def test_another_mask_is_not_traced_anew_and_a_changed_one_does_not_matter():
    net, traced = pixelwise(), []
    before = np.ones((6, 8), bool)
    target = models.region(before, 0)
    first = attribution.saliency(net, noise(), target)
    kept = net._xai_utils_kept.compiled.cache_info().misses
    head = net.get_layer("head")
    call = head.call

    def counted(*args, **kwargs):
        traced.append(args)
        return call(*args, **kwargs)

    head.call = counted
    before[:] = False  # the caller's own array
    np.testing.assert_array_equal(attribution.saliency(net, noise(), target), first)
    for row in range(5):
        mask = np.zeros((6, 8), bool)
        mask[row] = True
        found = attribution.saliency(net, noise(), models.region(mask, row % 3))
        assert np.flatnonzero(found[0].any(axis=1)).tolist() == [row]
    assert not traced and net._xai_utils_kept.compiled.cache_info().misses == kept


EVERY = {
    "occlusion": {"patch": 3, "stride": 2},
    "rise": {"masks": 12, "grid": 3},
    "lime": {"segments": 4, "samples": 12},
    "kernel_shap": {"segments": 4, "samples": 12},
    "smooth_grad": {"samples": 3},
    "var_grad": {"samples": 3},
    "integrated_gradients": {"steps": 4},
    "gradient_shap": {"samples": 4},
    "xrai": {"steps": 2},
    "extremal_perturbation": {"grid": 4, "steps": 5},
}
WITHOUT = {"cam", "raw_attention", "attention_rollout", "gradient_attention", "attention_relevance"}


@pytest.fixture(scope="module")
def deeper() -> models.Classifier:
    """A segmentation with a map to read."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="map")(inputs)
    x = layers.Conv2D(3, 3, padding="same", activation="softmax", name="head")(x)
    return models.load_model(keras.Model(inputs, x, name="deeper"), preprocessing="unit")


@pytest.mark.parametrize("name", sorted(set(attribution.TECHNIQUES) - WITHOUT))
def test_every_technique_explains_a_region_and_batches_are_single_pictures(name, deeper):
    images = 255 * noise((2, 12, 12, 3))
    masks = np.zeros((2, 12, 12), bool)
    masks[0, 2:5, 3:9], masks[1, 7:, 1:4] = True, True
    method, settings = attribution.TECHNIQUES[name], EVERY.get(name, {})
    for each in (
        lambda at: models.region(masks[at], 0, against=1),
        lambda at: models.component(at=(4, 4)),
        lambda at: None,
    ):
        maps = method(deeper.model, images, each(slice(None)), **settings)
        assert maps.dtype == np.float32 and len(maps) == 2 and maps.ndim == 3
        alone = [method(deeper.model, images[i : i + 1], each(i), **settings)[0] for i in (0, 1)]
        np.testing.assert_allclose(maps, alone, atol=2e-4 * np.abs(maps).max())


def test_cam_and_labels_that_fall_are_refused_in_one_line(deeper):
    images = 255 * noise((1, 12, 12, 3))
    with pytest.raises(ValueError, match="cam needs one answer a picture"):
        attribution.cam(deeper.model, images)
    with pytest.raises(ValueError, match="answers at every pixel: it has no one label"):
        models.still_says(deeper.model, np.zeros((1, 12, 12, 3)), 0)
    assert "no one label that could fall" in metrics.no_label(deeper, images[0])


def test_deletion_ends_at_the_covered_pictures_probability(deeper):
    """Of a region: the mean probability over its places, of the whole and of the black picture."""
    images, mask = 255 * noise((1, 12, 12, 3)), np.zeros((12, 12), bool)
    mask[3:6, 2:9] = True
    target = models.region(mask, 2)
    maps = attribution.saliency(deeper.model, images, target)
    curve = metrics.deletion(deeper.model, images, maps, target, step=0.25)
    for picture, score in ((images, curve.scores[0, 0]), (0 * images, curve.scores[0, -1])):
        share = deeper.predict_pixels(picture)[0][mask][:, 2].mean()
        np.testing.assert_allclose(score, share, rtol=1e-4)
    drawn = metrics.max_sensitivity(attribution.saliency, deeper.model, images, target, samples=2)
    assert np.isfinite(drawn).all()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            lambda: models.region(np.ones((3, 3), bool), 0),
            "3 x 3 places; the output has 4 x 4, the",
        ),
        (lambda: models.region(np.ones((4, 4)), 0), "takes a bool mask"),
        (lambda: models.region(np.zeros((4, 4), bool), 0), "a mask is empty"),
        (lambda: models.region(np.ones((3, 4, 4), bool), 0), "3 masks for 2 images"),
        (
            lambda: models.region(np.ones((4, 4), bool), 7),
            "class 7 is out of range: half has classes",
        ),
        (lambda: models.region(np.ones((4, 4), bool), "red"), "no names here, so 'red'"),
        (lambda: models.pixel(8, 0, 0), "row 8, column 0 is outside of 8 x 8 pixels"),
        (lambda: models.component(1), "finds no 'class 1' in image 0"),
        (
            lambda: models.component(2, at=(7, 0)),
            "finds no 'class 2' in image 0 at row 7, column 0",
        ),
        (lambda: models.pixel(7, 7, against=0), "'class 0' is asked against itself"),
        (lambda: models.pixel(1.5, 0, 0), "pixel: a row and a column are needed, not .1.5, 0."),
        (lambda: models.pixel("a", 0, 0), "pixel: a row and a column are needed, not .'a', 0."),
        (lambda: models.component(1, at=3), "component at: a row and a column are needed, not 3"),
        (lambda: models.component(1, at=(3,)), "a row and a column are needed, not .3,."),
        (lambda: models.component(), "needs a class, or the row and column"),
        (lambda: 1, "finds no 'class 1' in image 0: give a class that it finds"),
        (lambda: [0, 0, 0], "target must be None, a class, 2 classes, region"),
    ],
)
def test_what_no_target_can_mean_is_one_line(target, message):
    with pytest.raises(ValueError, match=message) as error:
        attribution.saliency(halving(), blobs(), target())
    assert "\n" not in str(error.value)


def test_a_mask_that_vanishes_at_the_outputs_size_is_said():
    mask = np.zeros((8, 8), bool)
    mask[3, 3] = True
    with pytest.raises(
        ValueError, match="at the output's 4 x 4 places the mask of image 0 is empty"
    ):
        models.places(halving(), blobs(), models.region(mask, 0))


def test_networks_of_one_answer_a_picture_refuse_regions():
    flat = keras.Sequential(
        [keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(2)], name="flat"
    )
    with pytest.raises(
        ValueError, match="one answer a picture: pixel\\(1, 1, ...\\) is for a model"
    ):
        attribution.saliency(flat, noise((1, 4, 4, 3)), models.pixel(1, 1, 0))


# --- the map that is read, and the small U-Net ----------------------------------------------------


class Plain(keras.Model):
    """A segmentation without a graph."""

    def __init__(self):
        super().__init__(name="plain")
        self.first = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")
        self.second = layers.Conv2D(5, 3, padding="same", activation="relu", name="second")
        self.head = layers.Conv2D(3, 1, activation="softmax", name="head")

    def call(self, x):
        return self.head(self.second(self.first(x)))


def test_the_default_map_is_what_the_head_reads(deeper):
    assert deeper.conv_layer == "deeper/map"
    plain = Plain()
    plain(noise())
    assert models.default_layer(plain, (None, 6, 8, 3)) == "second"
    mine = models.load_model(plain, preprocessing="unit")
    assert mine.task == "segmentation" and mine.conv_layer.endswith("/second")
    coarse = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, 2, "same", activation="relu", name="map"),
            layers.Conv2D(3, 1, name="head"),
            layers.UpSampling2D(interpolation="bilinear"),
            layers.Softmax(),
        ]
    )
    assert models.load_model(coarse, preprocessing="unit").conv_layer.endswith("/map")


@pytest.mark.parametrize("place", [(0, 0), (7, 41), (24, 24), (47, 30)])
def test_the_u_net_sees_exactly_its_receptive_field(place):
    """No gradient outside, and some at its first and last row and column.

    With positive weights nothing cancels; maxima would hide pixels, so they are averaged here.
    """
    unet = models.small_segmentation.build()

    def linear(layer):
        if isinstance(layer, layers.MaxPooling2D):
            return layers.AveragePooling2D(2)
        without = {"activation": None} if hasattr(layer, "activation") else {}
        return type(layer).from_config(layer.get_config() | without)

    averaged = keras.models.clone_model(unet, clone_function=linear)
    averaged.set_weights([np.abs(weights) + 0.01 for weights in unet.get_weights()])
    rows, columns = models.small_segmentation.seen_from(*place)
    gradient = attribution.saliency(averaged, noise((1, 48, 48, 3)), models.pixel(*place, 1))[0]
    inside = np.zeros((48, 48), bool)
    inside[rows, columns] = True
    assert not gradient[~inside].any()
    seen = np.argwhere(gradient)
    assert (seen.min(0) == (rows.start, columns.start)).all()
    assert (seen.max(0) == (rows.stop - 1, columns.stop - 1)).all()


def test_trained_weights_are_kept(tmp_path):
    steps = []
    once = models.small_segmentation.trained(
        2, count=48, folder=tmp_path, progress=lambda *told: steps.append(told)
    )
    again = models.small_segmentation.trained(2, count=48, folder=tmp_path, progress=None)
    assert len(steps) == 1 and once.task == "segmentation"
    for one, other in zip(once.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="at least 1 step"):
        models.small_segmentation.trained(0, folder=tmp_path)
