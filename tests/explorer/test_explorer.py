"""What the explorer computes, against answers known beforehand."""

import dataclasses
import io
import re

import nbformat
import numpy as np
import pytest
import yaml
from PIL import Image

from xai_suite import explorer
from xai_suite.explorer import State, app, controls, drawing, state
from xai_suite.reports import runs
from xai_utils import attribution, keras, models, pictures, show
from xai_utils.engine import DATA_FOLDER
from xai_utils.pictures import load as loading


@pytest.fixture(scope="module")
def classifier():
    return models.load_model("efficientnet_lite0")


@pytest.fixture(scope="module")
def cat(classifier):
    return classifier.prepare("cat")


@pytest.fixture(scope="module")
def counter():
    """Its two logits are the sums of the left and of the right half of the picture's red."""
    pixels = keras.Input((8, 8, 3))
    red = keras.layers.Conv2D(1, 1, use_bias=False, name="red")(pixels)
    logits = keras.layers.Dense(2, use_bias=False)(keras.layers.Flatten()(red))
    model = keras.Model(pixels, logits)
    model.get_layer("red").set_weights([np.array([1, 0, 0], np.float32).reshape(1, 1, 3, 1)])
    halves = np.zeros((8, 8, 2), np.float32)
    halves[:, :4, 0] = halves[:, 4:, 1] = 0.01
    model.layers[-1].set_weights([halves.reshape(64, 2)])
    models.name_classes(model, ("left", "right"))
    return models.Classifier("counter", model, (8, 8), ("left", "right"), "red")


def test_without_any_dial_the_picture_and_its_maps_are_those_of_the_technique(classifier, cat):
    answer = explorer.answer(classifier, cat, State(285, ("grad_cam", "saliency")))
    assert list(answer.maps) == ["grad_cam", "saliency"] and not answer.cut
    np.testing.assert_array_equal(answer.seen, cat[0])
    for name, values in answer.maps.items():
        np.testing.assert_allclose(
            values, attribution.TECHNIQUES[name](classifier.model, cat, 285)[0], atol=1e-5
        )
    np.testing.assert_allclose(
        answer.probabilities, np.repeat(classifier.predict(cat), 2, 0), atol=1e-5
    )
    again = explorer.answer(classifier, cat, State(285), untouched=answer.probabilities[0])
    np.testing.assert_allclose(again.probabilities, answer.probabilities, atol=1e-5)


def test_dials_do_what_the_experiments_do_in_one_order(cat):
    dialled = State(0, brightness=40, flip=True, shift=16)
    expected = pictures.shift(pictures.flip_horizontal(pictures.brightness(cat, 40)), 16)
    np.testing.assert_array_equal(state.change(cat, dialled), expected)
    assert cat.flags.writeable and not np.array_equal(cat, expected)


def test_a_covered_region_is_black_and_nothing_else_changes(cat):
    before = cat.copy()
    covered = state.change(cat, State(0, columns=(0.75, 0.5), rows=(0.0, 0.25)))[0]
    assert not covered[:56, 112:168].any()
    covered[:56, 112:168] = cat[0, :56, 112:168]
    np.testing.assert_array_equal(covered, cat[0])
    np.testing.assert_array_equal(cat, before)
    np.testing.assert_array_equal(
        state.change(cat, State(0, columns=(0.5, 0.5), rows=(0.0, 1.0))), cat
    )


def test_covering_what_a_class_is_made_of_takes_its_probability(counter):
    images = np.zeros((1, 8, 8, 3), np.float32)
    images[..., 0] = 10
    answer = explorer.answer(
        counter, images, State(0, ("saliency",), columns=(0.0, 0.5), rows=(0.0, 1.0))
    )
    # left: 32 pixels of 10 at a weight of 0.01 before, none after; right stays at 3.2
    np.testing.assert_allclose(answer.probabilities[:, 0], [0.5, 1 / (1 + np.exp(3.2))], rtol=1e-5)


def test_the_top_of_a_map_is_covered_or_kept(counter):
    images = np.zeros((1, 8, 8, 3), np.float32)
    images[..., 0] = 10
    state = State(0, ("gradient_x_input",), mask=0.5, keep=0.5)  # the left half is all that counts
    answer = explorer.answer(counter, images, state)
    masked, kept = answer.cut["gradient_x_input", "masked"], answer.cut["gradient_x_input", "kept"]
    assert not masked[:, :4].any() and (masked[:, 4:, 0] == 10).all()
    assert not kept[:, 4:].any() and (kept[:, :4, 0] == 10).all()
    odds = 1 / (1 + np.exp(3.2))
    np.testing.assert_allclose(answer.probabilities[2:, 0], [odds, 1 - odds], rtol=1e-5)


def test_techniques_of_every_kind_answer_and_no_other_is_offered(classifier, cat):
    for name in ("eigen_cam", "cam", "guided_grad_cam", "gradient_x_input"):
        (values,) = explorer.answer(classifier, cat, State(285, (name,))).maps.values()
        assert values.ndim == 2 and np.isfinite(values).all() and values.any()
    assert set(state.QUICK + state.SLOW) < set(attribution.TECHNIQUES)
    with pytest.raises(ValueError, match="no technique 'rise'"):
        explorer.answer(classifier, cat, State(285, ("rise",)))


def test_the_layer_is_the_one_asked_for(classifier, cat):
    names = state.layer_names(classifier)
    assert len(names) > 5 and len(set(names)) == len(names)
    early = explorer.answer(classifier, cat, State(285, layer=names[2])).maps["grad_cam"]
    np.testing.assert_allclose(
        early, attribution.grad_cam(classifier.model, cat, 285, names[2])[0], atol=1e-6
    )
    with pytest.raises(ValueError, match="nearest|no layer"):
        explorer.answer(classifier, cat, State(285, layer="nowhere"))


def test_a_crop_and_one_too_small():
    picture = np.arange(100 * 200 * 3).reshape(100, 200, 3)
    np.testing.assert_array_equal(
        state.crop(picture, (0.25, 0.75), (0.1, 0.5)), picture[10:50, 50:150]
    )
    np.testing.assert_array_equal(state.crop(picture), picture)
    with pytest.raises(ValueError, match="4 x 100 pixels"):
        state.crop(picture, (0.5, 0.52))


@pytest.mark.parametrize(
    "name, said",
    [
        ("lite9", r"there are \d+, such as efficientnet_lite0"),
        ("efficientnet_lite9", "nearest: efficientnet_lite"),
        ("nothing.keras", "no model file"),
        ("ssd_mobilenet_v2", "detects objects"),
    ],
)
def test_a_model_that_cannot_be_explored_is_one_line(name, said):
    with pytest.raises(ValueError, match=said) as caught:
        state.load_classifier(name)
    assert "\n" not in str(caught.value)


def test_a_damaged_model_file_is_one_line(tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="cannot be loaded: ") as caught:
        state.load_classifier(str(tmp_path / "bad.keras"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no layer\nand more"), "no layer"),
        (RuntimeError("\n  a library's\n"), "a library's"),
        (MemoryError(), "MemoryError"),
        (OSError("\n"), "OSError"),
    ],
)
def test_an_error_is_one_line_that_says_something(error, line):
    assert state.first_line(error) == line


def test_an_upload_is_read_as_a_file_is():
    buffer = io.BytesIO()
    Image.effect_noise((20, 10), 90).save(buffer, "png")
    assert pictures.decode_image(buffer.getvalue(), "mine.png").shape == (10, 20, 3)
    with pytest.raises(pictures.PictureError, match="^'mine.png' is not an image"):
        pictures.decode_image(b"hello", "mine.png")
    with pytest.raises(pictures.PictureError, match="'mine.png' is damaged"):
        pictures.decode_image(buffer.getvalue()[:100], "mine.png")
    huge = io.BytesIO()
    Image.new("1", (10000, 10000)).save(huge, "png")
    with pytest.raises(pictures.PictureError, match="10000 x 10000 pixels"):
        pictures.decode_image(huge.getvalue(), "huge.png")


@pytest.fixture
def shown(counter, monkeypatch):
    """The explorer over `counter`, whose classes are called by digits in another order."""
    models.name_classes(counter.model, ("1", "0"))
    renamed = dataclasses.replace(counter, labels=("1", "0"))
    monkeypatch.setattr(controls, "load_classifier", lambda name: renamed)
    yield controls.Explorer("counter", "cat", "saliency", controls.NO_SECOND)
    models.name_classes(counter.model, counter.labels)


def test_the_class_box_takes_a_name_before_an_index(shown):
    assert not shown.alert.value and shown.named.options == ("0", "1")
    for text, index in (("0", 1), ("1", 0)):
        shown.named.value = text
        assert shown.classes.value == index and f"saliency for {text} over" in shown.figure.value
    shown.named.value = "2"
    assert "class 2 is out of range: there are classes 0 to 1" in shown.alert.value


def test_techniques_are_called_as_people_call_them(shown):
    offered = dict(shown.technique.options)
    assert offered["Grad-CAM"] == "grad_cam" and offered["SmoothGrad"] == "smooth_grad"
    shown.technique.value = "gradient_x_input"
    assert "gradient × input for " in shown.figure.value
    assert ">gradient × input</figcaption>" in shown.figure.value


def test_every_run_that_can_be_saved_passes_the_runners_checks(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "NOTEBOOKS", DATA_FOLDER.parent / "notebooks")
    for technique in state.QUICK + state.SLOW:
        chosen = State(
            282, (technique,), "block5c_add", brightness=30, shift=9, mask=0.1, keep=0.15
        )
        possible = state.possible_runs(classifier, chosen, "cat")
        assert list(possible)[:3] == ["62_keep_only", "64_mask_until_flip", "61_augmentations"]
        for notebook, parameters in possible.items():
            path = state.save_run(notebook, "saved", parameters, tmp_path)
            read = runs.read_run_file(path)
            assert read == parameters
            assert runs.make_run(path.stem, read, str(path)).given == parameters
            path.unlink()
    assert (
        possible["62_keep_only"]["shares"].count(0.15) == 1
        and 30 in possible["61_augmentations"]["levels"]
    )
    assert (
        list(state.possible_runs(classifier, State(282, layer="block5c_add"), "cat"))[0]
        == "21_grad_cam"
    )


@pytest.mark.parametrize("target", [134, 282, 517])  # ImageNet has two classes called crane
def test_a_saved_run_names_the_class_that_was_explained(classifier, target):
    rival = state.possible_runs(classifier, State(target), "cat")["14_targets"]["rival"]
    assert classifier.class_index(rival) == target


def test_a_run_is_written_whole_never_over_another_and_leaves_nothing_else(tmp_path):
    path = state.save_run("21_grad_cam", "my_cat", {"image": "cat"}, tmp_path)
    assert yaml.safe_load(path.read_text()) == {"image": "cat"}
    with pytest.raises(ValueError, match="there is a 21_grad_cam--my_cat.yaml already"):
        state.save_run("21_grad_cam", "my_cat", {"image": "hound"}, tmp_path)
    for name in ("", "../x", "My cat", "a-b"):
        with pytest.raises(ValueError, match="a-z, 0-9 and _"):
            state.save_run("21_grad_cam", name, {}, tmp_path)
    assert yaml.safe_load(path.read_text()) == {"image": "cat"}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_is_one_line(shown, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(state, "RUNS_FOLDER", tmp_path / "file" / "runs")
    monkeypatch.setattr(state, "IMAGES_FOLDER", tmp_path / "file")
    shown.save.click()
    assert "file/runs cannot be written (Not a directory): make it writable" in shown.alert.value
    shown.crop_rows.value = (0, 50)  # another picture than the named one is saved as well
    shown.save.click()
    assert "file cannot be written (File exists): make it writable" in shown.alert.value
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_the_app_begins_with_the_network_that_is_asked_for(tmp_path):
    usual = app.write_app(tmp_path / "usual").read_text()
    mine = nbformat.read(app.write_app(tmp_path / "own", "/some/mine.keras"), as_version=4)
    assert "mine.keras" not in usual
    given, code = {}, [cell for cell in mine.cells if cell.cell_type == "code"]
    for cell in code[:2]:
        exec(cell.source, given)
    assert given["model"] == "/some/mine.keras" and given["image"] == "cat"


def test_the_app_is_served_from_elsewhere_where_its_folder_cannot_be_written(tmp_path, capsys):
    assert app.writable(tmp_path / "new", tmp_path / "other") == tmp_path / "new"
    assert not list((tmp_path / "new").iterdir()) and not capsys.readouterr().out
    (tmp_path / "file").touch()
    path = app.write_app(app.writable(tmp_path / "file" / "app", tmp_path / "other"))
    assert path == tmp_path / "other" / "explorer.ipynb" and path.is_file()
    said = f"{tmp_path}/file/app cannot be written (Not a directory); {tmp_path}/other is used"
    assert capsys.readouterr().out == f"{said} instead\n"


def test_techniques_may_be_given_as_one_text():
    assert State(0, "grad_cam saliency") == State(0, ("grad_cam", "saliency"))


def test_a_saved_picture_is_loaded_again_as_it_was(tmp_path, monkeypatch):
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    monkeypatch.setattr(state, "IMAGES_FOLDER", tmp_path)
    monkeypatch.setattr(loading, "IMAGES_FOLDER", tmp_path)
    np.testing.assert_array_equal(pictures.load_image(state.save_picture(picture, "mine")), picture)
    with pytest.raises(ValueError, match="already"):
        state.save_picture(picture, "mine")


def test_an_overlay_shows_grey_colour_and_sign():
    white = np.full((4, 4, 3), 255, np.float32)
    empty = show.overlay(np.zeros((2, 2)), white)
    assert empty.shape == (4, 4, 3) and empty.dtype == np.uint8
    assert (empty == empty[0, 0]).all()  # one colour: inferno's first over white
    signed = show.overlay(np.array([[-1.0, 1.0]]), np.zeros((4, 4, 3))).astype(int)
    # blue against, red for
    assert signed[0, 0, 2] > signed[0, 0, 0] and signed[0, -1, 0] > signed[0, -1, 2]


def own(shape, units, activation, **said):
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(3, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(units, activation)(x), name="own")
    return models.load_model(model, preprocessing="unit", **said)


@pytest.mark.parametrize(
    ("shape", "units", "activation", "said", "size"),
    [
        ((16, 24, 1), 1, "sigmoid", {"labels": ["ill"]}, (280, 187)),
        ((24, 12, 5), 3, "sigmoid", {}, (140, 280)),
        ((16, 16, 3), 1, None, {"task": "regression", "labels": ["age"]}, (280, 280)),
    ],
)
def test_networks_of_ones_own_are_explored(
    monkeypatch, tmp_path, shape, units, activation, said, size
):
    network = own(shape, units, activation, **said)
    monkeypatch.setattr(controls, "load_classifier", lambda name: network)
    bands = np.random.default_rng(0).integers(0, 256, (40, 50, shape[2]), np.uint8)
    np.save(tmp_path / "bands.npy", bands)
    picture = str(tmp_path / "bands.npy") if shape[2] == 5 else "cat"
    made = controls.Explorer("own", picture, "grad_cam", "saliency")
    assert not made.alert.value
    made.brightness.value = 20
    made._cover((1, 1))
    assert not made.alert.value and made.figure.value.count("<figure") == 2
    assert f"width: {size[0]}px; height: {size[1]}px" in made.base.value
    told = made.table.value + made.status.value + str(made.classes.options)
    assert ("%" in told) == (network.task != "regression") and network.labels[0] in told
    made.mask.value = 20
    assert made.figure.value.count("masked") and not made.alert.value


@pytest.fixture
def watched(shown, monkeypatch):
    """`shown`, and what it says and marks each time that an answer is computed."""
    seen = []

    def compute(*given):
        marked = [drawing.OLD in part._dom_classes for part in (shown.figure, shown.table)]
        seen.append((shown.busy.value, shown.status.value, marked, shown.figure.value))
        return explorer.answer(*given)

    monkeypatch.setattr(controls, "answer", compute)
    return shown, seen


def is_old(made) -> bool:
    return drawing.OLD in made.figure._dom_classes


def test_while_an_answer_is_computed_the_one_before_is_marked_and_told(watched, monkeypatch):
    made, seen = watched
    monkeypatch.setattr(controls, "PATIENCE", 1e9)  # what was timed is quick; the rest is unknown
    before = made.figure.value
    made.technique.value = "gradient_x_input"
    busy, status, marked, figure = seen[-1]
    assert "Computing gradient × input for " in busy and "answered next" in busy
    assert "the answer before: saliency for " in status and ", by counter." in status
    assert marked == [True, True] and figure == before
    # and afterwards nothing of that is left
    assert not made.busy.value and not is_old(made) and "Answered in" in made.status.value
    assert ">gradient × input</figcaption>" in made.figure.value
    made.brightness.value = 5
    assert seen[-1][0] == "" and seen[-1][2] == [False, False]
    monkeypatch.setattr(controls, "PATIENCE", -1.0)  # now it was slow
    made.brightness.value = 10
    assert "Computing gradient × input" in seen[-1][0] and seen[-1][2] == [True, True]


def test_the_picture_is_as_the_dials_say_while_its_map_is_computed(shown, monkeypatch):
    pictured = []

    def compute(*given):
        pictured.append(shown.base.value)
        return explorer.answer(*given)

    monkeypatch.setattr(controls, "answer", compute)
    monkeypatch.setattr(controls, "PATIENCE", -1.0)
    before = shown.base.value
    shown.brightness.value = 60
    assert pictured == [shown.base.value] and shown.base.value != before


def test_after_a_failure_the_answer_that_stays_is_marked_as_old(shown, monkeypatch):
    before = shown.figure.value

    def fail(*_):
        raise ValueError("no memory")

    with monkeypatch.context() as broken:
        broken.setattr(controls, "answer", fail)
        shown.technique.value = "gradient_x_input"
    assert "no memory" in shown.alert.value and not shown.busy.value
    assert is_old(shown) and shown.figure.value == before
    assert "the answer before: saliency for " in shown.status.value
    shown.technique.value = "saliency"
    assert not is_old(shown) and not shown.alert.value and "Answered in" in shown.status.value


def test_a_network_that_cannot_be_loaded_leaves_the_one_before_with_its_name(shown, monkeypatch):
    said, status = [], shown.status.value

    def load(name):
        said.append((shown.busy.value, is_old(shown)))
        raise ValueError("cannot be loaded")

    monkeypatch.setattr(controls, "load_classifier", load)
    shown.model.value = "vgg99"
    assert said[0][1] and "Loading vgg99 ..." in said[0][0]
    assert "cannot be loaded" in shown.alert.value and not shown.busy.value
    assert len(said) == 1 and shown.model.value == "counter"
    assert not is_old(shown) and shown.status.value == status


def test_without_a_network_the_page_goes_on_saying_why(counter, tmp_path):
    counter.model.save(tmp_path / "bare.keras")
    made = controls.Explorer(str(tmp_path / "bare.keras"), "cat", "saliency", controls.NO_SECOND)
    for name in ("cat", "hound"):
        made.picture.value = name
        assert "bare.keras: say what the model" in made.alert.value
        assert "choose a model, such as efficientnet_lite0<" in made.alert.value
    made.model.value = str(tmp_path / "none.keras")
    assert "no model file at" in made.alert.value and "bare.keras" not in made.alert.value


def test_the_app_does_not_begin_without_the_file_that_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MODEL", "none.keras")
    with pytest.raises(SystemExit) as ended:
        app.main([])
    assert ended.value.code and "error: no model file at none.keras\n" in capsys.readouterr().err
    (tmp_path / "some.keras").touch()
    for there in ("", "vgg19", str(tmp_path / "some.keras"), str(tmp_path)):
        app.check_there(there)


def test_a_crop_that_is_too_small_is_told_and_the_answer_marked(shown):
    shown.crop_columns.value = (40, 41)
    assert "at least 8 x 8" in shown.alert.value and is_old(shown)
    shown.crop_columns.value = (0, 100)
    assert not shown.alert.value and not is_old(shown)


def test_a_picture_that_cannot_be_taken_leaves_the_one_before(shown, monkeypatch):
    before, name, crop = shown.source, shown.source_name, (0, 90)
    shown.crop_rows.value = crop

    def fail(*_):
        raise ValueError("no memory")

    other = next(option for option in shown.picture.options if option != name)
    for broken in ((controls.pictures, "load_image"), (type(shown.classifier), "prepare")):
        with monkeypatch.context() as failing:
            failing.setattr(*broken, fail)
            shown.picture.value = other
        assert "no memory" in shown.alert.value and is_old(shown)
        assert shown.source is before and shown.source_name == name
        assert shown.crop_rows.value == crop
        shown.picture.value = name
        assert not shown.alert.value and not is_old(shown)
        shown.crop_rows.value, before = crop, shown.source


@pytest.fixture
def halves(shown):
    """The explorer with a picture whose left third is red; class 1 is what is red on the left."""
    picture = np.zeros((90, 90, 3), np.uint8)
    picture[:, :30, 0] = 200
    shown._take(picture, "halves")
    assert shown.classes.value == 0 and not shown.note.value
    return shown


def test_a_crop_keeps_the_class_and_says_so(halves):
    halves.crop_columns.value = (20, 100)  # what is left of the red is still on the left
    assert halves.classes.value == 0 and not halves.note.value
    halves.classes.value = 1
    halves.crop_columns.value = (10, 100)
    assert halves.classes.value == 1 and "saliency for 0 over" in halves.figure.value
    assert "still 0; the likeliest class of this picture is 1." in halves.note.value
    halves.classes.value = 0  # who chooses a class needs no note
    assert not halves.note.value
    halves.crop_rows.value = (0, 50)
    assert halves.classes.value == 0 and not halves.note.value
    halves._take(np.zeros((90, 90, 3), np.uint8), "another")  # another picture, another question
    assert not halves.note.value


def test_a_class_that_was_named_stays_through_a_crop_and_among_the_choices(monkeypatch):
    network = own((16, 16, 3), 9, None, task="classification")
    monkeypatch.setattr(controls, "load_classifier", lambda name: network)
    made = controls.Explorer("own", "cat", "saliency", controls.NO_SECOND)
    last = int(np.argmin(made.untouched))
    made.named.value = network.labels[last]
    made.crop_columns.value = (0, 98)
    assert not made.alert.value and made.classes.value == last
    assert made.named.value == network.labels[last] and len(made.classes.options) == 6
    assert "Explained is still" in made.note.value


@pytest.mark.parametrize(
    ("values", "clip", "ends"),
    [
        ([[0.0, 2.0]], 100.0, ("0", "2")),
        ([[-1.0, 4.0]], 100.0, ("-4", "4")),
        ([[0.0] * 50 + [1.0] * 50 + [90.0]], 99.0, ("0", "≥ 1")),
        ([[-90.0] + [1.0] * 100], 99.0, ("≤ -1", "≥ 1")),
        ([[0.0, 0.0]], 100.0, ("0", "1")),
    ],
)
def test_a_colour_bar_has_the_colours_and_the_ends_of_its_map(values, clip, ends):
    values = np.array(values, np.float32)
    bar = drawing.colour_bar(values, clip, "logits")
    assert f'aria-label="colours from {ends[0]} to {ends[1]} logits"' in bar
    # the largest value of the map, over the same grey, has the last colour of the bar
    drawn = show.overlay(values, np.full((1, values.shape[1], 3), 127.5, np.float32), clip)
    colours = [tuple(map(int, rgb)) for rgb in re.findall(r"rgb\((\d+), (\d+), (\d+)\)", bar)]
    assert len(set(colours)) == len(colours) == drawing.STOPS
    if values.any():
        assert colours[-1] == tuple(drawn[0, int(values.argmax())])


def test_every_map_has_its_colour_bar_and_unit(shown):
    shown.second.value = "var_grad"
    html = shown.figure.value
    assert html.count("linear-gradient") == 2 and html.count("<figure") == 2
    assert "logits per grey level</span>" in html and "(logits per grey level)²</span>" in html


@pytest.mark.parametrize("pooled", [False, True])
def test_a_transformer_with_a_card_is_offered_what_it_has(pooled, tmp_path):
    """Grad-CAM of its tokens and what reads attention, and nothing that asks for a ReLU."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = keras.layers.Reshape((16, 8))(keras.layers.Conv2D(8, 8, 8)(x))
    before = 0 if pooled else 1
    x = keras.layers.ZeroPadding1D((before, 0))(x)
    for _ in range(2):
        y = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.MultiHeadAttention(2, 4)(y, y)
    x = keras.layers.LayerNormalization()(x)
    x = keras.layers.GlobalAveragePooling1D()(x) if pooled else x[:, 0]
    keras.Model(inputs, keras.layers.Dense(3, "softmax")(x)).save(tmp_path / "mine.keras")
    models.write_card(tmp_path / "mine.yaml", labels=["ant", "bee", "cat"])
    made = controls.Explorer(str(tmp_path / "mine.keras"), "cat", "guided_backprop", "deconvnet")
    assert "left out: guided_backprop, deconvnet (" in made.alert.value
    assert (made.technique.value, made.second.value) == ("grad_cam", controls.NO_SECOND)
    offered = {name for _, name in made.technique.options}
    assert {"attention_rollout", "attention_relevance", "eigen_cam", "occlusion"} <= offered
    assert not offered & {"guided_backprop", "deconvnet", "guided_grad_cam"}
    assert ("cam" in offered) == pooled  # CAM is exact for the mean of tokens too
    for name in ("attention_rollout", "attention_relevance"):
        made.technique.value = name
        assert not made.alert.value and f"{attribution.spoken(name)} for" in made.figure.value


def test_techniques_are_found_by_their_pace_not_listed():
    offered = [name for name, about in attribution.ABOUT.items() if about.pace != "long"]
    assert sorted(state.QUICK + state.SLOW) == sorted(offered)
    assert {"grad_cam", "saliency"} <= {*state.QUICK} and "occlusion" in state.SLOW


def test_a_network_that_answers_at_every_pixel_is_asked_about_where_it_finds_a_class():
    """Class 0 is where red is above 100; each place sees its own pixel alone."""
    pixels = keras.Input((8, 8, 3))
    head = keras.layers.Conv2D(2, 1, activation="softmax", name="head")
    model = keras.Model(pixels, head(pixels), name="red")
    head.set_weights([np.array([[[[0.02, 0]] + [[0, 0]] * 2]]), np.array([-2.0, 0])])
    red = models.load_model(model, preprocessing="none", labels=["red", "other"])
    image = np.zeros((1, 8, 8, 3), np.float32)
    image[:, :2] = 200
    answer = explorer.answer(red, image, State(0, ("saliency",), columns=(0, 0.5), rows=(0, 1)))
    np.testing.assert_allclose(answer.probabilities, [[0.25, 0.75], [0.125, 0.875]])  # shares
    expected = np.zeros((8, 8))
    expected[:2, 4:] = 0.02 / 8  # what is left of the region is explained, by its mean
    np.testing.assert_allclose(answer.maps["saliency"], expected, atol=1e-7)
    with pytest.raises(ValueError, match="red finds no 'red' in image 0: give a class that it fi"):
        explorer.answer(red, image, State(0, ("saliency",), rows=(0, 0.25), columns=(0, 1)))
