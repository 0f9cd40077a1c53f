"""What a network of one's own wants, found out from pictures whose answer is known."""

import csv

import numpy as np
import pytest
from PIL import Image

from xai_utils import keras, models
from xai_utils.models import first_look

layers = keras.layers
MEANS, SIDE = {"dark": 60, "light": 190}, 8


def brightness_net(units=2, activation="softmax", channels=3, norm=False, slope=40.0):
    """Of pixels in 0..1: `light` where their mean is above a half; with one unit, the mean."""
    inputs = keras.Input((SIDE, SIDE, channels))
    x = layers.BatchNormalization(name="norm")(inputs) if norm else inputs
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(1, 1, use_bias=False, name="mean")(x))
    model = keras.Model(inputs, layers.Dense(units, activation, name="head")(x), name="net")
    model.get_layer("mean").set_weights([np.full((1, 1, channels, 1), 1 / channels)])
    weights = [[[-slope, slope]], [slope / 2, -slope / 2]] if units == 2 else [[[1.0]], [0.0]]
    model.get_layer("head").set_weights([np.array(part) for part in weights])
    return model


@pytest.fixture
def folder(tmp_path):
    """Class folders of grey pictures of noise, twice as wide as high."""
    rng = np.random.default_rng(0)
    for name, mean in MEANS.items():
        (tmp_path / name).mkdir()
        for number in range(4):
            values = rng.normal(mean, 8, (SIDE, 2 * SIDE, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / name / f"{number}.png")
    return tmp_path


# --- what pictures are labelled with --------------------------------------------------------------


def test_class_folders_name_their_pictures_and_a_seed_chooses(folder):
    files, names = models.labelled(folder, most=100)
    assert len(files) == 8 and names == [("dark",)] * 4 + [("light",)] * 4
    assert [file.split("/")[-2] for file in files] == [name for (name,) in names]
    few = models.labelled(folder, most=3, seed=1)
    assert few == models.labelled(folder, most=3, seed=1) and len(few[0]) == 3
    assert set(zip(few[0], few[1])) <= set(zip(files, names))


def test_a_table_names_pictures_from_its_own_folder(folder):
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "label"), ("dark/0.png", "cat; dog"), ("light/1.png", "dog")]
        )
    files, names = models.labelled(folder / "labels.csv")
    assert files == [str(folder / "dark/0.png"), str(folder / "light/1.png")]
    assert names == [("cat", "dog"), ("dog",)]


def test_pictures_without_folders_have_no_labels(folder):
    assert models.labelled(folder / "dark") == (
        [str(folder / "dark" / f"{number}.png") for number in range(4)],
        None,
    )
    files, names = models.labelled("")
    assert files == [*first_look.SUITE] and names is None


def test_what_is_no_set_of_pictures_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no pictures at"):
        models.labelled(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no pictures"):
        models.labelled(tmp_path)
    (tmp_path / "list.csv").write_text("file,label\na.png,cat\n")
    with pytest.raises(ValueError, match="list.csv needs the columns path and label; it has file"):
        models.labelled(tmp_path / "list.csv")


# --- which way it was trained with ----------------------------------------------------------------


def test_the_right_preprocessing_comes_first(folder):
    files, names = models.labelled(folder)
    tried = models.try_inputs(brightness_net(), files, names, labels=[*MEANS])
    assert (tried[0].name, tried[0].right) == ("unit", 1.0)
    at = {(way.name, way.resizing): way for way in tried}
    assert len(tried) == len(at) == 5 * 3
    assert at["none", "stretch"].right == 0.5  # all are light
    assert at["tf", "stretch"].right == 0.5  # all are dark
    assert np.isnan(tried[0].strange)


def test_resizing_is_tried_where_there_is_some(folder):
    files, names = models.labelled(folder)
    tried = models.try_inputs(brightness_net(), files, names, labels=[*MEANS])
    assert {way.resizing for way in tried} == {*first_look.RESIZINGS}
    image = np.full((SIDE, SIDE, 3), 200, np.uint8)
    tried = models.try_inputs(brightness_net(), [image], None)
    assert {way.resizing for way in tried} == {"stretch"}  # it has the network's size


def test_batch_normalisation_tells_without_labels(folder):
    files, _ = models.labelled(folder)
    model = brightness_net(norm=True)
    tried = models.try_inputs(model, files)
    assert all(np.isnan([way.right, way.loss]).all() for way in tried)
    network = models.load_model(model, preprocessing="tf")
    images = network.prepare(*files) / 127.5 - 1
    mean, variance = images.mean(axis=(0, 1, 2)), images.var(axis=(0, 1, 2))
    model.get_layer("norm").set_weights([np.ones(3), np.zeros(3), mean, variance])
    tried = models.try_inputs(model, files)
    assert (tried[0].name, tried[0].resizing) == ("tf", "stretch")
    assert tried[0].strange == pytest.approx(0, abs=1e-9) and tried[1].strange > 1e-5


def test_a_lead_within_two_standard_errors_is_none():
    ways = [
        first_look.Tried(name, name, "stretch", np.zeros((25, 2)), right, 1.0, strange)
        for name, right, strange in [("none", 0.8, 5.0), ("unit", 0.7, 0.1), ("tf", 0.6, 0.0)]
    ]
    order = sorted(first_look._levelled(ways), key=first_look._badness)
    assert [way.name for way in order] == ["unit", "none", "tf"]  # two errors are .16
    assert [way.level for way in order] == [True, True, False]


def test_strangeness_is_the_divergence_of_two_gaussians():
    model = brightness_net(norm=True)
    model.get_layer("norm").set_weights([np.ones(3), np.zeros(3), np.full(3, 2.0), np.full(3, 4.0)])
    images = np.random.default_rng(0).normal(3, 1, (50, SIDE, SIDE, 3)).astype(np.float32)
    expected = (1 / 4 + 1 / 4 - 1 - np.log(1 / 4)) / 2
    assert first_look.strangeness(model, images) == pytest.approx(expected, rel=0.05)
    assert np.isnan(first_look.strangeness(brightness_net(), images))


def test_a_regression_is_compared_by_its_error(folder):
    files, names = models.labelled(folder)
    numbers = [(str(MEANS[name] / 255),) for (name,) in names]
    said = {"task": "regression", "labels": ["brightness"]}
    best, *others = models.try_inputs(brightness_net(1, None), files, numbers, **said)
    assert best.name == "unit" and np.isnan(best.right) and best.loss < 0.03
    assert min(way.loss for way in others if way.name != "unit") > 0.1


def test_bands_of_ones_own_range(tmp_path):
    files = []
    for number, mean in enumerate([2000, 8000]):
        values = np.random.default_rng(number).normal(mean, 100, (SIDE, SIDE, 5))
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], values.astype(np.uint16))
    model, names = brightness_net(channels=5), [("dark",), ("light",)]
    best, *others = models.try_inputs(model, files, names, values=[0, 10000], labels=[*MEANS])
    assert best.name == "unit" and {way.name for way in others} == {"none", "tf"}
    assert best.preprocessing == {"range": [0, 10000], "to": [0, 1]}
    mine = models.load_model(model, labels=[*MEANS], preprocessing=best.preprocessing)
    np.testing.assert_allclose(mine.predict(mine.prepare(*files)), best.answers, atol=1e-6)
    with pytest.raises(ValueError, match="the brightest picture reaches .*, but values is"):
        models.try_inputs(model, files, names)
    with pytest.raises(ValueError, match=r"reaches 1, but values is \[0, 255\]"):
        models.try_inputs(brightness_net(), [np.ones((SIDE, SIDE, 3))])


def test_marks_by_hand():
    answers = [[0.5, 0.5 - 1e-9], [0.25, 0.75]]
    share, loss = models.marked("classification", answers, np.array([0, 0]))
    assert share == 0.5 and loss == pytest.approx((np.log(2) + np.log(4)) / 2)
    share, loss = models.marked("multilabel", [[0.9, 0.2]], np.array([[1, 1]]))
    assert share == 0.5 and loss == pytest.approx(-(np.log(0.9) + np.log(0.2)) / 2)
    share, loss = models.marked("regression", [[3.0], [5.0]], np.array([[2.0], [7.0]]))
    assert np.isnan(share) and loss == pytest.approx(1.5)


def test_the_truth_is_in_the_networks_own_order():
    two = models.load_model(brightness_net(), preprocessing="unit", labels=["b", "a"])
    np.testing.assert_array_equal(models.truth(two, [("a",), ("b",)]), [1, 0])
    many = models.load_model(
        brightness_net(activation="sigmoid"), preprocessing="unit", labels=["b", "a"]
    )
    np.testing.assert_array_equal(models.truth(many, [("a",), ("a", "b")]), [[0, 1], [1, 1]])
    with pytest.raises(ValueError, match="no class is called 'c'"):
        models.truth(two, [("c",)])


def answers_of(units, classes=3):
    return np.eye(classes)[units]


def tried_with(answers, right):
    share, loss = models.marked("classification", answers, right)
    return models.Tried("unit", "unit", "stretch", answers, share, loss)


def test_names_in_another_order_are_put_right():
    labels, right = ["crops", "rock", "water"], np.arange(24) % 3
    names = [(labels[i],) for i in right]
    trained_as = ["water", "crops", "rock"]
    units = [trained_as.index(name) for (name,) in names]
    tried = [tried_with(answers_of(units), right)]
    assert tried[0].right == 0
    assert models.better_order(tried, names, labels) == trained_as
    assert models.better_order([tried_with(answers_of(right), right)], names, labels) is None


def test_an_order_that_any_names_would_fit_is_none():
    labels = [str(i) for i in range(6)]
    names, right = [(name,) for name in labels], np.arange(6)
    shifted = answers_of((right + 1) % 6, 6)  # one picture a class: every shuffle fits as well
    assert models.better_order([tried_with(shifted, right)], names, labels) is None
    random = answers_of(np.random.default_rng(0).integers(3, size=24))
    right = np.arange(24) % 3
    names = [(labels[i],) for i in right]
    assert models.better_order([tried_with(random, right)], names, labels[:3]) is None


# --- a network to begin with ----------------------------------------------------------------------


def test_the_example_is_found_out_and_described(tmp_path):
    model, folder = models.write_example(tmp_path, pictures_each=10)
    files, names = models.labelled(folder)
    assert len(files) == 20
    labels = [*models.read_labels(folder)]
    best = models.try_inputs(model, files, names, labels=labels)[0]
    assert (best.name, best.resizing) == ("unit", "stretch")
    assert best.right >= 0.95 and best.strange < 0.1
    said = models.described(models.load_model(model, labels=labels, preprocessing="unit"))
    assert said["takes"] == "48 x 48 pixels of 3 channels"
    assert (said["task"], said["labels"]) == ("classification", "coarse, fine")
