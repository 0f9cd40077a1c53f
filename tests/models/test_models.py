"""Models: pixels in, logits out; weights found, verified and refused."""

import inspect
import re
import urllib.error
import weakref
from pathlib import Path

import numpy as np
import pytest

from xai_utils import attribution, keras, models, pictures
from xai_utils.models import APPLICATIONS, Preprocess, applications, cards
from xai_utils.models import load as models_room

SUBJECTS = {"cat": {281, 282, 285}, "umbrella": {879}, "mushroom": {947, 992}, "hound": {243}}


@pytest.fixture(scope="module")
def lite0():
    return models.load_model()


@pytest.fixture(scope="module", params=["efficientnet_lite0", "efficientnet_lite2"])
def embedded(request):
    return models.load_model(request.param)


def test_embedded_networks_name_the_subjects(embedded):
    indices = embedded.predict(embedded.prepare(*SUBJECTS)).argmax(1)
    for index, (name, kinds) in zip(indices, SUBJECTS.items(), strict=True):
        if embedded.name == "efficientnet_lite0" or name in pictures.SCENES:
            assert index in kinds, f"{name}: {embedded.labels[index]}"


def test_the_cat_has_the_known_probabilities(lite0):
    top = dict(lite0.top(lite0.prepare("cat"), 3)[0])
    for label, expected in {"tiger_cat": 0.385, "Egyptian_cat": 0.363, "tabby": 0.167}.items():
        assert top[label] == pytest.approx(expected, abs=0.01)


def test_pixels_in_logits_out(lite0):
    images = lite0.prepare("cat", "hound")
    assert images.shape == (2, 224, 224, 3) and images.dtype == np.float32 and images.max() > 200
    logits = lite0.model(images).numpy()
    np.testing.assert_allclose(lite0.predict(images).sum(1), 1, rtol=1e-5)
    assert logits.min() < 0 and logits.shape == (2, 1000)
    assert lite0.conv_layer == "top_relu" and lite0.input_size == (224, 224)
    assert not lite0.model.trainable_variables
    assert lite0.class_index("Egyptian cat") == lite0.class_index("n02124075") == 285


@pytest.mark.parametrize("name", models.EMBEDDED)
def test_folding_the_normalisation_in_leaves_the_function(name):
    network = models.load_model(name)
    trained = (
        models.efficientnet_lite.build(name, normalisation=True)
        if name in models.efficientnet_lite.VARIANTS
        else models.ssd_mobilenet.build(normalisation=True)
    )
    with np.load(cards.MODELS_FOLDER / f"{name}.npz") as arrays:
        for layer in trained.layers:
            if layer.weights:
                layer.set_weights(
                    [arrays[f"{layer.name}/{weight.name}"] for weight in layer.weights]
                )
    images = network.prepare("cat", "coffee")
    pair = (keras.tree.flatten(model(images)) for model in (network.model, trained))
    for ours, stored in zip(*pair, strict=True):
        np.testing.assert_allclose(ours, stored, atol=1e-4)
    assert not [
        layer
        for layer in network.model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def test_a_target_may_be_a_class_name(lite0):
    images = lite0.prepare("cat", "hound")
    by_index = attribution.cam(lite0.model, images, [285, 243])
    np.testing.assert_array_equal(
        attribution.cam(lite0.model, images, ["Egyptian cat", "n02108422"]), by_index
    )
    tabby = attribution.cam(lite0.model, images, "tabby")
    np.testing.assert_array_equal(tabby, attribution.cam(lite0.model, images, 281))
    for bad, told in (
        ("tabbi", "no class is called 'tabbi'; nearest: tabby"),
        ("crane", "the name of 2 classes"),
    ):
        with pytest.raises(ValueError, match=told):
            attribution.cam(lite0.model, images, bad)


def test_networks_returned_between_runs_are_handed_out_again_with_fresh_weights(monkeypatch):
    monkeypatch.setattr(models_room, "_IN_USE", weakref.WeakKeyDictionary())
    monkeypatch.setattr(models_room, "_RETURNED", [])
    first, second = models.load_model(), models.load_model()
    assert first.model is not second.model
    images = first.prepare("cat")
    expected, kernel = first.predict(images), first.model.layers[-1].kernel
    kernel.assign(kernel[:, ::-1])
    first.model.trainable = True
    assert not np.array_equal(first.predict(images), expected)
    models.return_networks()
    assert models.load_model("efficientnet_lite2").model not in (first.model, second.model)
    again = [models.load_model().model for _ in range(3)]
    assert set(again[:2]) == {first.model, second.model} and again[2] not in again[:2]
    assert not first.model.trainable
    np.testing.assert_array_equal(first.predict(images), expected)


def test_a_damaged_or_missing_weights_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "MODELS_FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="efficientnet_lite0.npz is missing"):
        models.load_model()
    (tmp_path / "efficientnet_lite0.npz").write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match="efficientnet_lite0.npz is damaged"):
        models.load_model()


def test_the_readme_of_the_data_states_the_same_checksums():
    lines = (cards.MODELS_FOLDER.parent / "README.md").read_text().splitlines()
    for name, card in models.EMBEDDED.items():
        assert any(f"`{name}.npz`" in line and card["sha256"] in line for line in lines), name


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="nearest: vgg19, vgg16"):
        models.load_model("VGG-19")
    with pytest.raises(ValueError, match="weights= goes with"):
        models.load_model("efficientnet_lite0", weights="x.h5")
    with pytest.raises(ValueError, match="brings its own"):
        models.load_model("efficientnet_lite0", preprocessing="tf")


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_preprocessing_is_that_of_keras(mode):
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 5, 5, 3)).astype(np.float32)
    expected = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode=mode)
    np.testing.assert_allclose(Preprocess(mode)(pixels), expected, atol=2e-5)
    np.testing.assert_allclose(Preprocess("unit")(pixels), pixels / 255, rtol=1e-6)
    np.testing.assert_array_equal(Preprocess("none")(pixels), pixels)


def test_every_application_exists_and_takes_its_size():
    for name, (constructor, size, mode) in APPLICATIONS.items():
        assert callable(getattr(keras.applications, constructor)), name
        assert size % 1 == 0 and mode in models.PREPROCESSING


@pytest.fixture(scope="module")
def random_vgg19(tmp_path_factory):
    """A seeded random VGG19 written to the old h5 layout, and what it makes of two pictures."""
    keras.utils.set_random_seed(0)
    vgg = keras.applications.VGG19(weights=None)
    for layer in vgg.layers:  # biases of zero would hide that they were not loaded
        if layer.weights:
            layer.bias.assign(np.random.default_rng(1).normal(0, 0.1, layer.bias.shape))
    path = tmp_path_factory.mktemp("vgg") / "vgg19.h5"
    vgg.save(path)
    pixels = np.random.default_rng(2).uniform(0, 255, (2, 224, 224, 3)).astype(np.float32)
    inputs = keras.applications.vgg19.preprocess_input(pixels.copy())
    yield path, pixels, vgg(inputs).numpy()
    path.unlink()


def test_vgg19_reads_the_old_h5_layout_as_one_flat_graph(random_vgg19):
    path, pixels, probabilities = random_vgg19
    vgg = models.load_model("vgg19", weights=path)
    np.testing.assert_allclose(vgg.predict(pixels), probabilities, rtol=1e-3, atol=1e-7)
    assert vgg.conv_layer == "block5_conv4"
    assert not any(isinstance(layer, keras.Model) for layer in vgg.model.layers)
    assert (
        vgg.model.get_layer("fc1").output.shape
        == vgg.model.get_layer("fc2").output.shape
        == (None, 4096)
    )
    assert vgg.labels[285] == "Egyptian_cat"


def test_vgg19_refuses_a_file_that_is_not_its_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file at"):
        models.load_model("vgg19", weights=tmp_path / "nowhere.h5")
    wrong = tmp_path / "wrong.h5"
    wrong.write_bytes(b"not an h5 file")
    with pytest.raises(ValueError, match="wrong.h5: not a weights file for vgg19"):
        models.load_model("vgg19", weights=wrong)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Nothing in `data/models/` nor in Keras' cache, and no download; the files it was to be."""
    wanted, download = [], inspect.getmodule(keras.utils.get_file)

    def refuse(_, target, *__):
        wanted.append(Path(target))
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(download, "urlretrieve", refuse)
    monkeypatch.setattr(download.config, "keras_home", lambda: str(tmp_path))
    monkeypatch.setattr(cards, "MODELS_FOLDER", tmp_path)
    return wanted


def test_the_weights_file_that_keras_looks_for_is_named_and_found(tmp_path, offline):
    others = (
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "nasnet_mobile_no_top.h5",
        "convnext_tiny_notop.h5",
        "efficientnetb0_notop.h5",
        "mobilenet_1_0_224_tf_no_top.h5",
        "mobilenet_2_5_224_tf.h5",
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224.h5",
        "weights_mobilenet_v3_small_224_0.75_float.h5",
        "weights_mobilenet_v3_small_minimalistic_224_1.0_float.h5",
        "vgg19_of_my_own.h5",
    )
    for other in others:
        (tmp_path / other).touch()
    for name in APPLICATIONS:
        # The scope leaves weights without values, which saves most of the time.
        with keras.StatelessScope(initialize_variables=False), pytest.raises(OSError) as caught:
            applications.load_application(name)
        said = str(caught.value)
        assert f"; put {offline[-1].name} into data/models/ (or" in said and "\n" not in said
        assert "no route to host" in said
    files = dict(zip(APPLICATIONS, offline, strict=True))
    for file in files.values():
        (tmp_path / file.name).touch()
    for name, file in files.items():
        assert models.local_weights(name) == tmp_path / file.name
        (tmp_path / file.name).unlink()
        assert models.local_weights(name) is None, name
    for file, name in (
        ("NASNet-mobile.h5", "nasnet_mobile"),  # as it is called where it is downloaded from
        ("vgg19.weights.h5", "vgg19"),
        ("efficientnet_v2_b0.h5", "efficientnet_v2_b0"),
    ):
        (tmp_path / file).touch()
        assert models.local_weights(name).name == file


def test_weights_put_where_the_message_says_are_read(tmp_path, offline):
    with pytest.raises(FileNotFoundError) as caught:
        models.load_model("mobilenet_v3_small")
    trained = keras.applications.MobileNetV3Small(weights=None)
    trained.save(tmp_path / re.search(r"put (\S+) into", str(caught.value))[1])
    read = models.load_model("mobilenet_v3_small").model
    for mine, theirs in zip(read.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def real_vgg19():
    cached = keras.config.keras_home() if hasattr(keras.config, "keras_home") else "~/.keras"
    name = "vgg19_weights_tf_dim_ordering_tf_kernels.h5"
    places = [cards.MODELS_FOLDER / name, Path(cached).expanduser() / "models" / name]
    return next((place for place in places if place.is_file()), None)


@pytest.mark.skipif(real_vgg19() is None, reason="real VGG19 weights are not on this machine")
def test_real_vgg19_sees_a_cat():
    vgg = models.load_model("vgg19", weights=real_vgg19())
    assert vgg.predict(vgg.prepare("cat")).argmax() in SUBJECTS["cat"]


def small(activation="softmax", separate=False):
    keras.utils.set_random_seed(0)
    stack = [
        keras.Input((16, 16, 3)),
        keras.layers.Conv2D(4, 3, name="conv"),
        keras.layers.GlobalAveragePooling2D(),
    ]
    dense = keras.layers.Dense
    stack += [dense(3), keras.layers.Softmax()] if separate else [dense(3, activation=activation)]
    return keras.Sequential(stack, name="small")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("separate", [False, True])
def test_your_own_model_becomes_pixels_to_logits(tmp_path, suffix, separate):
    model, path = small(separate=separate), tmp_path / f"mine{suffix}"
    model.save(path)
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\nbird\n")
    mine = models.load_model(path, preprocessing="unit", labels=names)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(mine.predict(pixels), model(pixels / 255).numpy(), atol=1e-6)
    assert mine.labels == ("cat", "dog", "bird") and mine.conv_layer.endswith("conv")
    assert not np.allclose(mine.model(pixels).numpy().sum(1), 1)
    assert models.load_model(path, preprocessing="unit").labels[2] == "class 2"


def test_your_own_model_is_refused_with_a_reason(tmp_path):
    path = tmp_path / "mine.keras"
    small().save(path)
    with pytest.raises(ValueError, match="preprocessing= one of none, unit, tf, torch, caffe, or"):
        models.load_model(path)
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match="2 class names are given, but the model has 3"):
        models.load_model(path, preprocessing="tf", labels=tmp_path / "two.txt")
    with pytest.raises(FileNotFoundError, match="no model file"):
        models.load_model(tmp_path / "none.keras", preprocessing="tf")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="mine.keras cannot be loaded"):
        models.load_model(path, preprocessing="tf")
    keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]).save(tmp_path / "flat.keras")
    with pytest.raises(ValueError, match=r"flat.keras takes input \(None, 8\)"):
        models.load_model(tmp_path / "flat.keras", preprocessing="tf")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_model_file_cannot_run_code(tmp_path, suffix):
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Lambda(lambda x: x * 2),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    path = tmp_path / f"code{suffix}"
    model.save(path)
    with pytest.raises(ValueError, match=f"code{suffix} cannot be loaded"):
        models.load_model(path, preprocessing="none")
