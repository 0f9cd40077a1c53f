"""Networks of every kind that people have: what they take, what they return, where they lie."""

import json

import h5py
import numpy as np
import pytest
from nets import divided_by_spread, with_a_black_one
from PIL import Image

from xai_utils import attribution, keras, models, pictures, tf

layers, ops = keras.layers, keras.ops


def net(shape=(16, 16, 3), units=3, activation="softmax", start=None, dtype=None):
    """A small network of pooled features; `start` is what it does to its pixels itself."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input(shape, dtype=dtype)
    x = start(inputs) if start else inputs
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = layers.GlobalAveragePooling2D()(x)
    head = layers.Dense(units, activation, name="head", bias_initializer="glorot_uniform")
    return keras.Model(inputs, head(x), name="net")


def noise(shape, count=2):
    return np.random.default_rng(1).uniform(0, 255, (count, *shape)).astype(np.float32)


# --- what it takes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(16, 16, 1), (16, 16, 4), (16, 16, 13), (12, 24, 3), (24, 12, 2)]
)
def test_any_height_width_and_channels(shape):
    model, pixels = net(shape), noise(shape)
    mine = models.load_model(model, preprocessing="unit")
    np.testing.assert_allclose(
        mine.predict(pixels), model.predict(pixels / 255, verbose=0), atol=1e-6
    )
    assert mine.input_size == shape[:2] and mine.channels == shape[2]
    whole = np.random.default_rng(2).integers(0, 256, (40, 50, shape[2]), np.uint8)
    assert mine.prepare(whole).shape == (1, *shape)
    assert attribution.grad_cam(mine.model, pixels).shape == (2, shape[0] - 2, shape[1] - 2)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "segmentation"])
def test_an_answer_that_is_no_number_is_refused(task):
    """Its top class would be the first, of NaN per cent."""
    model, images = divided_by_spread(), with_a_black_one()
    if task == "segmentation":
        model = keras.Model(model.input, model.get_layer("features").output, name="spread")
    asked = models.load_model(model, preprocessing="none", task=task)
    for question in (asked.predict, asked.top, *[asked.predict_pixels] * asked.dense):
        with pytest.raises(ValueError, match=r"^spread answers images \[1\] with NaN or [^\n]*$"):
            question(images)
    assert np.isfinite(asked.predict(images[2:])).all()


def test_an_infinite_score_is_refused_though_a_sigmoid_makes_a_probability_of_it():
    inputs = keras.Input((8, 8, 1))
    bright = ops.relu(ops.max(inputs, axis=(1, 2, 3)) - 10)  # 0 of a dark picture
    scores = ops.stack([1 / bright, bright], axis=-1)
    model = keras.Model(inputs, scores, name="inverse")
    asked = models.load_model(model, preprocessing="none", task="multilabel")
    assert asked.predict(np.full((1, 8, 8, 1), 11.0))[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
    with pytest.raises(ValueError, match=r"^inverse answers images \[0\] with NaN or infinity"):
        asked.predict(np.full((1, 8, 8, 1), 5.0))


def test_a_network_of_any_size_is_asked_for_one():
    model = net((None, None, 3))
    with pytest.raises(ValueError, match="net takes pictures of any size.*say which by size="):
        models.load_model(model, preprocessing="unit")
    mine = models.load_model(model, preprocessing="unit", size=[20, 28])
    pixels = noise((20, 28, 3))
    assert mine.input_size == (20, 28) and mine.prepare("cat").shape == (1, 20, 28, 3)
    np.testing.assert_allclose(
        mine.predict(pixels), model.predict(pixels / 255, verbose=0), atol=1e-6
    )
    with pytest.raises(ValueError, match="net takes 16 x 16 pixels, not size=20"):
        models.load_model(net(), preprocessing="unit", size=20)


def test_preprocessing_said_in_full_equals_its_names_and_own_ranges():
    pixels = noise((8, 8, 3))
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    for name, said in {
        "unit": {"to": [0, 1]},
        "tf": {"to": [-1, 1]},
        "torch": {"to": [0, 1], "mean": mean, "std": std},
    }.items():
        named, full = models.Preprocess(name)(pixels), models.Preprocess(said)(pixels)
        np.testing.assert_allclose(named, full, atol=1e-5)
    bands = np.random.default_rng(0).uniform(0, 10000, (30, 40, 5)).astype(np.float32)
    model = net((30, 40, 5))
    mine = models.load_model(model, preprocessing={"range": [0, 10000], "mean": 5000, "std": 2500})
    expected = model.predict((bands[None] - 5000) / 2500, verbose=0)
    assert mine.prepare(bands).max() <= 255
    np.testing.assert_allclose(mine.predict(mine.prepare(bands)), expected, atol=1e-5)
    with pytest.warns(UserWarning, match="takes pictures of 0 to 10000, but one reaches 50000"):
        mine.prepare(np.full((30, 40, 5), 50000.0))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("units", "preprocessing is one of none, unit.* not 'units'; nearest: unit"),
        ({"means": 3}, "preprocessing has no key 'means'; nearest: mean"),
        ({"range": [5, 1]}, "range goes from low to high"),
        ({"to": 3}, "to is two numbers, such as"),
        ({"std": 0}, "std must not be 0"),
        ({"mean": "much"}, "mean is a number or one for each channel, not 'much'"),
    ],
)
def test_a_bad_preprocessing_is_one_line(said, message):
    with pytest.raises(ValueError, match=message) as raised:
        models.load_model(net(), preprocessing=said)
    assert "\n" not in str(raised.value)


def adapted(inputs):
    layer = layers.Normalization(mean=[120.0, 110, 100], variance=[3000.0] * 3)
    return layer(layers.RandomFlip()(inputs))


@pytest.mark.parametrize(
    "start",
    [
        layers.Rescaling(1 / 255),
        layers.Rescaling(1 / 127.5, offset=-1),
        adapted,
        keras.Sequential([layers.RandomRotation(0.1), layers.Rescaling(1 / 255)]),
    ],
)
def test_a_network_that_scales_pixels_itself_needs_no_preprocessing(start):
    model, pixels = net(start=start), noise((16, 16, 3))
    expected = model.predict(pixels, verbose=0)
    np.testing.assert_allclose(models.load_model(model).predict(pixels), expected, atol=1e-6)


def test_augmentation_inside_a_network_is_never_on():
    start = keras.Sequential(
        [layers.RandomFlip(), layers.RandomBrightness(0.9), layers.Dropout(0.5)]
    )
    model, pixels = net(start=start), noise((16, 16, 3))
    mine = models.load_model(model, preprocessing="unit")
    expected = model.predict(pixels / 255, verbose=0)
    np.testing.assert_allclose(tf.nn.softmax(mine.model(pixels)), expected, atol=1e-6)
    np.testing.assert_allclose(mine.predict(pixels), expected, atol=1e-6)


def test_one_that_scales_nothing_is_asked(tmp_path):
    for start in (None, layers.Rescaling(2.0), layers.Normalization(mean=0.5, variance=0.1)):
        with pytest.raises(ValueError, match="say what the model's input is, preprocessing="):
            models.load_model(net(start=start))


def test_what_is_no_image_network_is_one_line():
    flat = keras.Sequential([keras.Input((8,)), layers.Dense(2)])
    pair = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    two = keras.Model(pair, layers.Flatten()(layers.Add()(pair)))
    rows = keras.Model(pair[0], layers.Reshape((8, 24))(pair[0]), name="rows")
    for model, message in (
        (flat, r"takes input \(None, 8\)"),
        (two, "takes 2 inputs"),
        (rows, r"rows returns \(None, 8, 24\); an image classifier returns \(None, classes\)"),
    ):
        with pytest.raises(ValueError, match=message):
            models.load_model(model, preprocessing="unit")


# --- how a picture is brought to its size ---------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Class folders of pictures of several shapes, as Keras' loader takes them."""
    rng = np.random.default_rng(0)
    for number, shape in enumerate([(20, 60, 3), (60, 20, 3), (37, 41, 3)]):
        place = tmp_path / "pictures" / f"class_{number}"
        place.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(place / "one.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("resizing", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_prepare_gives_what_keras_own_loader_gave_in_training(folder, resizing, channels):
    modes = {1: "grayscale", 3: "rgb", 4: "rgba"}
    pairs = {"crop": "crop_to_aspect_ratio", "pad": "pad_to_aspect_ratio"}
    flags = {pairs[resizing]: True} if resizing in pairs else {}
    loaded = keras.utils.image_dataset_from_directory(
        folder,
        image_size=(16, 24),
        shuffle=False,
        batch_size=3,
        color_mode=modes[channels],
        verbose=False,
        **flags,
    )
    expected = next(iter(loaded))[0].numpy()
    mine = models.load_model(net((16, 24, channels)), preprocessing="unit", resizing=resizing)
    got = mine.prepare(*sorted(map(str, folder.glob("*/*.png"))))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1.01 if channels == 1 else 1e-3)


def test_a_picture_of_the_size_is_returned_as_it_is(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "own.png")
    mine = models.load_model(net((32, 32, 3)), preprocessing="unit")
    np.testing.assert_array_equal(mine.prepare(str(tmp_path / "own.png"))[0], picture)
    mask = picture[..., 0] > 100
    np.testing.assert_array_equal(mine.prepare_mask(mask), mask)
    np.testing.assert_array_equal(pictures.prepare(picture, 32), picture)


@pytest.mark.parametrize("resizing", ["stretch", "crop", "pad"])
def test_a_mask_goes_where_its_picture_goes(resizing):
    picture = np.zeros((60, 120, 3), np.uint8)
    picture[15:45, 45:75] = 255
    mine = models.load_model(net((30, 30, 3)), preprocessing="unit", resizing=resizing)
    seen = mine.prepare(picture)[0, ..., 0] > 127
    mask = mine.prepare_mask(picture[..., 0] > 0)
    assert mask.any() and (mask != seen).mean() < 0.05


def test_a_wrong_resizing_is_one_line():
    with pytest.raises(
        ValueError, match="resizing is one of stretch, crop, pad, imagenet, not 'fit'"
    ):
        models.load_model(net(), preprocessing="unit", resizing="fit")


def test_files_of_bands(tmp_path):
    import tifffile

    bands = np.random.default_rng(0).integers(0, 4000, (20, 30, 5)).astype(np.uint16)
    np.save(tmp_path / "bands.npy", bands)
    tifffile.imwrite(tmp_path / "bands.tif", bands, photometric="minisblack")
    tifffile.imwrite(tmp_path / "planes.tif", np.moveaxis(bands, -1, 0), photometric="minisblack")
    for name in ("bands.npy", "bands.tif"):
        loaded = pictures.load_image(str(tmp_path / name), channels=5)
        np.testing.assert_array_equal(loaded, bands)
    with pytest.raises(pictures.PictureError, match="picture of colours, but the network takes 5"):
        pictures.load_image("cat", channels=5)
    with pytest.raises(
        pictures.PictureError, match=r"uint16 of shape \(20, 30, 5\); the network tak"
    ):
        pictures.load_image(str(tmp_path / "bands.npy"), channels=4)
    assert pictures.load_image("cat", 1).shape == (300, 451, 1)
    assert pictures.load_image("cat", 4)[..., 3].min() == 255


# --- what it returns ------------------------------------------------------------------------------


def test_a_regression_has_values_and_no_per_cent():
    model, pixels = net(units=1, activation=None), noise((16, 16, 3))
    mine = models.load_model(model, preprocessing="unit", task="regression", labels=["age"])
    value = model.predict(pixels / 255, verbose=0)
    np.testing.assert_allclose(mine.predict(pixels), value, rtol=1e-5)
    assert mine.top(pixels)[0] == [("age", pytest.approx(float(value[0, 0]), rel=1e-5))]
    assert mine.title([("age", 37.562)]) == "age  37.56" and "%" not in mine.written(0.5)
    bounded = models.load_model(
        net(units=1, activation="sigmoid"), preprocessing="unit", task="regression"
    )
    assert bounded.labels == ("value",) and 0 < bounded.predict(pixels)[0, 0] < 1


def test_one_name_is_that_of_the_second_class():
    mine = models.load_model(
        net(units=1, activation="sigmoid"), preprocessing="unit", labels=["ill"]
    )
    assert mine.labels == ("not ill", "ill") and mine.class_index("ill") == 1


class Ending(keras.Model):
    def __init__(self, units):
        super().__init__(name="own_class")
        self.conv, self.pool = layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()
        self.head = layers.Dense(units)

    def call(self, x):
        return 1 / (1 + ops.exp(-self.head(self.pool(self.conv(x)))))


@pytest.mark.parametrize(("units", "task"), [(1, "classification"), (3, "multilabel")])
def test_sigmoids_that_no_graph_shows_are_asked_for_and_undone(units, task):
    model, pixels = Ending(units), noise((16, 16, 3))
    expected = model.predict(pixels / 255, verbose=0)
    with pytest.raises(ValueError, match="values lie in 0..1.*say task="):
        models.load_model(model, preprocessing="unit")
    with pytest.warns(UserWarning, match="computed back from its probabilities.*sigmoid"):
        mine = models.load_model(model, preprocessing="unit", task=task)
    np.testing.assert_allclose(mine.predict(pixels)[:, -units:], expected, atol=1e-5)
    scores = models.logits_of(mine.model, pixels)[:, -units:]
    np.testing.assert_allclose(scores, np.log(expected / (1 - expected)), atol=1e-4)


def heads(make):
    inputs = keras.Input((16, 16, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    kind, size = layers.Dense(3, "softmax", name="kind")(x), layers.Dense(1, name="size")(x)
    return keras.Model(inputs, make(kind, size), name="heads")


def test_of_several_outputs_one_is_chosen_and_one_is_unwrapped():
    pixels = noise((16, 16, 3))
    for make in (lambda a, b: [a, b], lambda a, b: {"kind": a, "size": b}):
        model = heads(make)
        with pytest.raises(
            ValueError, match="heads has 2 outputs, kind, size: say which by output="
        ):
            models.load_model(model, preprocessing="unit")
        mine = models.load_model(model, preprocessing="unit", output="kind")
        returned = model.predict(pixels / 255, verbose=0)
        expected = returned["kind"] if isinstance(returned, dict) else returned[0]
        np.testing.assert_allclose(mine.predict(pixels), expected, atol=1e-6)
        with pytest.raises(ValueError, match="output='colour' is none of them"):
            models.load_model(model, preprocessing="unit", output="colour")
    for make in (lambda a, b: [a], lambda a, b: {"kind": a}):
        mine = models.load_model(heads(make), preprocessing="unit")
        assert mine.predict(pixels).shape == (2, 3)
    listed = net()
    listed = keras.Model([listed.input], [listed.output])
    assert models.load_model(listed, preprocessing="unit").predict(pixels).shape == (2, 3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_gives_scores_in_float32(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        net(start=layers.Rescaling(1 / 255)).save(tmp_path / "half.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    mine, pixels = models.load_model(tmp_path / "half.keras"), noise((16, 16, 3))
    assert mine.model(pixels).dtype == tf.float32
    expected = keras.models.load_model(tmp_path / "half.keras").predict(pixels, verbose=0)
    np.testing.assert_allclose(mine.predict(pixels), expected, atol=2e-3)


# --- cards ----------------------------------------------------------------------------------------


def test_a_card_beside_the_weights_says_it_all(tmp_path):
    net((16, 24, 1), units=1, activation="sigmoid").save(tmp_path / "mine.keras")
    (tmp_path / "names.txt").write_text("healthy\nill\n")
    models.write_card(
        tmp_path / "mine.yaml", preprocessing="unit", labels="names.txt", resizing="pad"
    )
    for asked in ("mine.keras", "mine.yaml"):
        mine = models.load_model(tmp_path / asked)
        assert mine.labels == ("healthy", "ill") and mine.resizing == "pad"
        assert (mine.input_size, mine.channels, mine.task) == ((16, 24), 1, "classification")
    assert models.load_model(tmp_path / "mine.keras", resizing="crop").resizing == "crop"
    files = {path.name for path in models.files_of(tmp_path / "mine.keras")}
    assert files == {"mine.keras", "mine.yaml", "names.txt"}
    (tmp_path / "other.yaml").write_text("file: mine.keras\npreprocessing: {to: [-1, 1]}\n")
    assert models.load_model(tmp_path / "other.yaml").labels == ("class 0", "class 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preprocesing: unit\n", "mine.yaml has an unknown key 'preprocesing'; nearest: prepr"),
        ("label_file: a.txt\n", "unknown key 'label_file'; nearest: labels"),
        ("just words\n", "mine.yaml is not a card: it holds no"),
        ("a: [1\n", "mine.yaml is not a card in YAML"),
        ("!!python/object/apply:os.system [ls]\n", "mine.yaml is not a card in YAML"),
        ("file: gone.keras\npreprocessing: unit\n", "no model file at .*gone.keras"),
    ],
)
def test_a_bad_card_is_one_line(tmp_path, text, message):
    net().save(tmp_path / "mine.keras")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        models.load_model(tmp_path / "mine.yaml")
    assert "\n" not in str(raised.value)


def test_a_card_in_the_folder_of_models_goes_by_its_name(tmp_path, monkeypatch):
    from xai_utils.models import cards

    net().save(tmp_path / "lungs.keras")
    (tmp_path / "lungs.yaml").write_text("preprocessing: tf\nlabels: [a, b, c]\n")
    monkeypatch.setattr(cards, "MODELS_FOLDER", tmp_path)
    assert models.load_model("lungs").labels == ("a", "b", "c")


def test_embedded_networks_have_cards_too():
    for name, said in models.EMBEDDED.items():
        assert said["architecture"] == name and len(said["sha256"]) == 64
    lite0 = models.load_model("efficientnet_lite0")
    assert lite0.conv_layer == models.EMBEDDED["efficientnet_lite0"]["layer"]
    assert lite0.input_size == (models.EMBEDDED["efficientnet_lite0"]["size"],) * 2


# --- files ----------------------------------------------------------------------------------------


def test_what_keras_2_wrote_is_mended(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(),
            layers.SeparableConv2D(4, 3),
            layers.Conv2DTranspose(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, "softmax"),
        ]
    )
    path, pixels = tmp_path / "old.h5", noise((16, 16, 3))
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if "Conv" in layer["class_name"]:
                layer["config"]["groups"] = 1
            if layer["class_name"] == "BatchNormalization":
                layer["config"]["axis"] = [3]
        file.attrs["model_config"] = json.dumps(config)
    mine = models.load_model(path, preprocessing="unit")
    np.testing.assert_allclose(
        mine.predict(pixels), model.predict(pixels / 255, verbose=0), atol=1e-6
    )
    path.rename(tmp_path / "old.hdf5")
    assert models.load_model(tmp_path / "old.hdf5", preprocessing="unit").task == "classification"


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_tensorflows_own_activations_load(tmp_path, suffix):
    model, pixels = net(activation=tf.nn.softmax), noise((16, 16, 3))
    model.save(tmp_path / f"net{suffix}")
    mine = models.load_model(tmp_path / f"net{suffix}", preprocessing="unit")
    np.testing.assert_allclose(
        mine.predict(pixels), model.predict(pixels / 255, verbose=0), atol=1e-6
    )
    assert not np.allclose(models.logits_of(mine.model, pixels).sum(-1), 1)


class Doubled(layers.Layer):
    def call(self, x):
        return 2 * x


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_layers_of_ones_own_are_asked_for_by_name(tmp_path, suffix):
    net(start=Doubled()).save(tmp_path / f"net{suffix}")
    with pytest.raises(ValueError, match="cannot be loaded: it needs 'Doubled'.*custom_objects="):
        models.load_model(tmp_path / f"net{suffix}", preprocessing="unit")
    for objects in ({"Doubled": Doubled}, [Doubled]):
        models.load_model(tmp_path / f"net{suffix}", preprocessing="unit", custom_objects=objects)
    models.write_card(
        tmp_path / "net.yaml", preprocessing="unit", custom_objects=[f"{__name__}.Doubled"]
    )
    assert models.load_model(tmp_path / f"net{suffix}").labels[0] == "class 0"
    with pytest.raises(ValueError, match="'nowhere.Thing' cannot be imported"):
        models.load_model(tmp_path / f"net{suffix}", custom_objects=["nowhere.Thing"])


def test_a_layer_can_be_chosen_for_an_embedded_network_too():
    usual = models.load_model("efficientnet_lite0")
    pixels = usual.prepare("cat")
    models.return_networks()
    other = models.load_model("efficientnet_lite0", layer="block5c_add")
    assert attribution.grad_cam(other.model, pixels).shape == (1, 14, 14)
    again = models.load_model("efficientnet_lite0")
    assert again.model is not other.model and again.conv_layer == "top_relu"
    assert attribution.grad_cam(again.model, pixels).shape == (1, 7, 7)


def test_a_card_has_a_line_for_each_key(tmp_path):
    said = {"task": "regression", "labels": ["größe (cm)", "no"], "preprocessing": {"to": [0, 1]}}
    path = models.write_card(tmp_path / "mine.yaml", layer=None, **said)
    assert path.read_text() == (
        "task: regression\nlabels: [größe (cm), 'no']\npreprocessing: {to: [0, 1]}\n"
    )
    said["labels"] = [*said["labels"]]
    assert models.read_card(path) == said
    with pytest.raises(ValueError, match="not for a card"):
        models.write_card(tmp_path / "mine.yaml", labels={Doubled})
    with pytest.raises(ValueError, match="a card has no key 'label'"):
        models.write_card(tmp_path / "mine.yaml", label="a")
    for refused in (
        {"preprocessing": "units"},
        {"preprocessing": {"to": 1}},
        {"task": "classify"},
        {"resizing": "crop it"},
    ):
        with pytest.raises(ValueError) as by_card:
            models.write_card(tmp_path / "mine.yaml", **refused)
        network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()], name="mine")
        with pytest.raises(ValueError) as by_load:
            models.load_model(network, **{"preprocessing": "unit"} | refused)
        assert str(by_card.value).removeprefix("mine.yaml") == str(by_load.value).removeprefix(
            "mine"
        )
    assert models.read_card(path) == said
