"""The explorer's parts and neighbours: known factors, what is missing, and when it is computed."""

import asyncio
import re

import numpy as np
import pytest
from PIL import Image

from xai_suite.explorer import controls, drawing, parts
from xai_utils import concepts, keras, models

COLOURS = np.diag([200, 160, 170]).astype(np.float32)
BANDS = np.repeat(np.repeat(COLOURS, 4, axis=0)[None], 12, axis=0)  # red left, blue right


def of_colour(activation="relu", offset=0.0, channels=3, **said) -> models.Classifier:
    """Three channels, a colour each, pooled; red counts most for the first class, blue least."""
    inputs = keras.Input((12, 12, channels))
    seen = keras.layers.Conv2D(3, 1, activation=activation, name="seen")
    head = keras.layers.Dense(2, name="head")
    model = keras.Model(inputs, head(keras.layers.GlobalAveragePooling2D()(seen(inputs))))
    seen.set_weights([np.eye(channels, 3)[None, None], np.full(3, offset)])
    head.set_weights([np.array([[1 / 50, 0], [1 / 80, 0], [1 / 170, 0]]), np.zeros(2)])
    said = {"preprocessing": "none", "labels": ["bright", "dark"]} | said
    return models.load_model(model, **said)


def searched(by, layer=None) -> parts.Others:
    """A green and a blue picture, one that is the bands at half the light, and the bands again."""
    green, blue = (np.broadcast_to(COLOURS[n], (12, 12, 3)) for n in (1, 2))
    images = np.stack([2 * green, blue, BANDS / 2, BANDS])
    codes = concepts.codes(by.model, images, layer, places=True)
    return parts.Others(("meadow", "sky", "dim", "bands"), images, codes, layer or by.conv_layer)


@pytest.fixture(scope="module")
def found():
    network = of_colour()
    return parts.find_parts(network, BANDS, 0, searched(network), "bands")


def test_factors_come_in_the_order_of_what_the_score_rests_on(found):
    """Their parts of the score are as 4 : 2 : 1, so the indices are as 16 : 4 : 1."""
    assert not found.missing and (found.crops, found.searched) == (36, 3)
    np.testing.assert_allclose(found.factors.vectors, np.eye(3), atol=0.02)
    np.testing.assert_allclose(found.factors.importance, np.array([16, 4, 1]) / 21, atol=0.1)
    np.testing.assert_allclose(found.maps, BANDS, atol=2)
    assert found.held > 0.999


def test_a_factor_is_found_in_other_pictures_with_how_much_of_it(found):
    red, green, blue = found.elsewhere
    assert [place.name for place in red] == ["dim"]  # the other two have none of it
    assert [place.name for place in green] == ["meadow", "dim"]
    assert [place.name for place in blue] == ["sky", "dim"]
    shares = [place.share for row in found.elsewhere for place in row]
    np.testing.assert_allclose(shares, [0.5, 2, 0.5, 1, 0.5], atol=0.05)
    assert (green[0].crop == 2 * COLOURS[1]).all() and green[0].crop.shape == (3, 3, 3)


def test_the_nearest_picture_is_the_same_in_other_light_and_never_the_picture_itself(found):
    assert [near.name for near in found.nearest] == ["dim", "sky", "meadow"]
    cosines = [1, *(np.array([170, 160]) / np.linalg.norm([200, 160, 170]))]
    np.testing.assert_allclose([near.similarity for near in found.nearest], cosines, atol=1e-3)
    assert (found.nearest[0].image == BANDS / 2).all()


def test_the_figure_says_the_order_the_places_the_neighbours_and_what_it_rests_on(found):
    html = drawing.parts(of_colour(), "/some/bands.png", found, 0)
    alt = re.search(r'alt="([^"]*)"', html).group(1)
    assert re.search(
        r"Factor 1 of bands\.png for bright, 0\.\d\d ± 0\.\d\d: most of it at the top, left;"
        r" elsewhere in dim \(50 %\)\. Factor 2 .*: most of it at the top, in the middle;"
        r" elsewhere in meadow \(200 %\) and dim \(50 %\)\. Factor 3 .*: most of it at the top,"
        r" right; elsewhere in sky \(100 %\)",
        alt,
    ), alt
    assert "Nearest to bands.png, by the cosine: dim 1.00, sky 0.55, meadow 0.52." in alt
    caption = re.search(r"<figcaption.*?>(.*)</figcaption>", html).group(1)
    assert "36 crops of this one picture as sums of 3 factors" in caption
    assert "100 % of the picture's own map" in caption.replace("&#x27;", "'")
    assert "the nearest of 3 other pictures" in caption


def test_where_there_can_be_no_factors_the_neighbours_stay_and_the_reason_is_told():
    signed = of_colour(None, -60.0)
    found = parts.find_parts(signed, BANDS, 0, searched(signed))
    assert found.factors is None and len(found.nearest) == 4  # not named: it is among the others
    (missing,) = found.missing
    assert re.match("no factors: layer '[^']*seen' of", missing) and "negative values" in missing
    html = drawing.parts(signed, "bands", found, 0)
    assert "Factor" not in html and ">The nearest of 4 other pictures" in html
    assert html.startswith(drawing.alert(missing))
    nothing = parts.Parts(BANDS, "seen", 0, missing=("no factors: a", "no neighbours: b"))
    assert "no factors: a; no neighbours: b</p>" in drawing.parts(signed, "bands", nothing, 0)


def test_a_picture_alone_has_factors_and_no_neighbours(tmp_path):
    five = of_colour(channels=5)
    others = parts.read_others(five, ["cat", "hound", str(tmp_path / "gone.npy")])
    assert others.names == () and others.images.shape == (0, 12, 12, 5)
    found = parts.find_parts(five, np.pad(BANDS, ((0, 0), (0, 0), (0, 2))), 0, others)
    assert len(found.factors.vectors) == 3 and not found.nearest and not found.elsewhere
    (missing,) = found.missing
    assert re.match(r"no neighbours: \S+ has no other picture to search \('?cat.*\)$", missing)
    html = drawing.parts(five, "bands", found, 0)
    assert "Factor 3 of bands" in html and "earest" not in html


def test_a_layer_without_places_is_one_line():
    network = of_colour()
    with pytest.raises(ValueError, match="head.*returns") as caught:
        parts.read_others(network, ["cat"], "head")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="head.*returns"):  # without others to read it for
        parts.find_parts(network, BANDS, 0, parts.read_others(network, ["gone"], "head"))


def test_pictures_that_cannot_be_read_are_left_out_with_the_first_reason(tmp_path):
    Image.fromarray(BANDS.astype(np.uint8)).save(tmp_path / "bands.png")
    names = ["nothing", str(tmp_path / "bands.png"), "nor this"]
    others = parts.read_others(of_colour(), names)
    assert others.names == (names[1],) and "no picture is called 'nothing'" in others.refused
    np.testing.assert_array_equal(others.images[0], BANDS)


@pytest.fixture
def made(monkeypatch, tmp_path):
    """The explorer with the bands and three other pictures, and what it computed: layer, seen."""
    files = []
    for name, image in {"bands": BANDS, "dim": BANDS / 2, "sky": BANDS[:, 8:]}.items():
        files.append(str(tmp_path / f"{name}.png"))
        Image.fromarray(image.astype(np.uint8)).resize((12, 12), 0).save(files[-1])
    monkeypatch.setattr(controls.pictures, "image_names", lambda: tuple(files[1:]))
    monkeypatch.setattr(controls, "PAUSE", 0.01)
    network, computed = of_colour(), []
    monkeypatch.setattr(controls, "load_classifier", lambda name: network)

    def compute(*given):
        computed.append(given)
        return parts.find_parts(*given)

    monkeypatch.setattr(controls, "find_parts", compute)
    return controls.Explorer("mine", files[0], "saliency", controls.NO_SECOND), computed


def is_old(made) -> bool:
    return drawing.OLD in made.parts._dom_classes


def test_parts_are_computed_when_ticked_and_shown_again_without(made):
    made, computed = made
    made.brightness.value = 10
    made.brightness.value = 0
    assert not made.parts.value and not computed and not made.others
    assert made.brightness.continuous_update
    made.wants_parts.value = True
    assert len(computed) == 1 and "Factor 1 of bands.png for bright" in made.parts.value
    alt = made.parts.value
    assert re.search(
        r"Nearest to bands\.png, by the cosine: \S*dim\.png 1\.00, \S*sky\.png 0\.55", alt
    )
    assert not made.busy.value and not made.alert.value and not is_old(made)
    assert not made.brightness.continuous_update  # a dial asks once, where it is left
    first = made.parts.value
    made.technique.value = "gradient_x_input"  # the parts are the same
    assert len(computed) == 1 and made.parts.value == first
    layer, explained = made.layer.options[-1], made.classes.value
    for name, value in (("brightness", 9), ("classes", 1 - explained), ("layer", layer)):
        before = len(computed)
        getattr(made, name).value = value  # another question
        assert len(computed) == before + 1 and not made.alert.value
        read = computed[-1][3]  # the others and their codes: once a layer
        assert (read is computed[0][3]) == (name != "layer") and read.codes.any()
    made._set(layer=controls.LAST_LAYER, classes=explained)
    made.reset.click()
    assert len(computed) == 4 and made.parts.value == first
    made.wants_parts.value = False
    assert not made.parts.value and made.brightness.continuous_update


def test_a_file_that_was_replaced_is_read_when_the_box_is_ticked_again(made):
    made, computed = made
    made.wants_parts.value = True
    green = np.broadcast_to(np.array([0, 7, 0], np.uint8), (12, 12, 3))
    Image.fromarray(green).save(made.picture.options[1])
    made.wants_parts.value = False
    made.wants_parts.value = True
    assert len(computed) == 2 and (computed[-1][3].images[1] == green).all()
    assert "dim.png 0.52" in made.parts.value


def test_another_picture_or_network_has_parts_of_its_own(made, monkeypatch):
    made, computed = made
    made.wants_parts.value = True
    dim = made.picture.options[1]
    made.picture.value = dim
    assert "Factor 1 of dim.png" in made.parts.value and len(computed) == 2
    another = of_colour(None, -60.0)
    monkeypatch.setattr(controls, "load_classifier", lambda name: another)
    made.model.value = "another"
    assert len(computed) == 3 and computed[-1][0] is another
    assert "no factors: layer " in made.parts.value and "negative values" in made.parts.value
    assert "Nearest to dim.png" in made.parts.value and "Factor" not in made.parts.value
    made.run_name.value = "not a name"
    for fails in (made.save.click, lambda: setattr(made.named, "value", "nobody")):
        fails()  # which says so in a line of its own
        assert made.alert.value and "factors" not in made.alert.value
        assert "no factors: layer " in made.parts.value and not is_old(made)


@pytest.mark.parametrize(
    "said",
    [{"labels": ["light", "dim"]}, {"preprocessing": "unit"}, {"activation": "elu"}],
    ids=lambda said: next(iter(said)),
)
def test_another_network_of_the_same_weights_has_parts_of_its_own(made, monkeypatch, said):
    made, computed = made
    made.wants_parts.value = True
    before, another = made.classifier, of_colour(**said)
    assert models.fingerprint(before.model) == models.fingerprint(another.model)
    monkeypatch.setattr(controls, "load_classifier", lambda name: another)
    made.model.value = "another"
    network, seen, _, others, *_ = computed[-1]
    assert len(computed) == 2 and network is another and not made.alert.value
    np.testing.assert_array_equal(others.images, another.prepare(*others.names))
    assert f"for {another.labels[0]}" in made.parts.value


def test_what_cannot_be_computed_is_told_in_a_line_and_the_map_stays(made, monkeypatch):
    made, _ = made
    figure = made.figure.value

    def fail(*_):
        raise MemoryError("no memory\nand more")

    with monkeypatch.context() as broken:
        broken.setattr(controls, "find_parts", fail)
        made.wants_parts.value = True
    assert made.parts.value == drawing.alert("no memory") and not made.busy.value
    assert made.figure.value == figure and drawing.OLD not in made.figure._dom_classes
    assert not made.made  # it is tried again
    made.brightness.value = 5
    assert "Factor 1" in made.parts.value and "no memory" not in made.parts.value


def test_in_a_kernel_only_the_last_wish_is_computed_and_the_map_comes_first(made):
    made, computed = made

    async def person():
        made.wants_parts.value = True
        assert made.figure.value and not computed and is_old(made)
        for levels in (1, 2, 3):
            made.brightness.value = levels
            await asyncio.sleep(0)  # the kernel takes what was wished for next
            assert "Reading the 3 pictures offered ..." in made.busy.value
        while made.waiting:
            await asyncio.sleep(0.01)
        (given,) = computed
        np.testing.assert_array_equal(given[1], BANDS + 3)
        assert "Factor 1" in made.parts.value and not is_old(made) and not made.busy.value
        made.brightness.value = 4
        made.wants_parts.value = False  # who takes it back waits for nothing
        await asyncio.sleep(0.1)
        assert len(computed) == 1 and not made.parts.value and not is_old(made)

    asyncio.run(person())


def test_what_fails_meanwhile_hides_neither_the_task_nor_its_parts(made, monkeypatch):
    made, computed = made

    def load(name):
        loading.append(made.busy.value)
        raise ValueError("cannot be loaded")

    async def person():
        made.wants_parts.value = True
        await asyncio.sleep(0)
        looking = made.busy.value
        assert "Reading the 3 pictures offered ..." in looking
        for name, value in (("named", "nobody"), ("model", "vgg99")):
            getattr(made, name).value = value
            assert made.alert.value and made.busy.value == looking
        while made.waiting:
            await asyncio.sleep(0.01)
        assert "Factor 1" in made.parts.value and not made.busy.value
        assert "cannot be loaded" in made.alert.value and len(computed) == 1

    loading = []
    monkeypatch.setattr(controls, "load_classifier", load)
    asyncio.run(person())
    assert len(loading) == 1 and "Loading vgg99 ..." in loading[0]


def test_after_a_failed_crop_nothing_is_computed_for_the_picture_before(made):
    made, computed = made

    async def person():
        made.wants_parts.value = True
        made.crop_columns.value = (40, 41)
        await asyncio.sleep(0.1)
        assert "at least 8 x 8" in made.alert.value and not computed and is_old(made)
        assert not made.busy.value

    asyncio.run(person())


def test_few_drawn_parts_are_kept(made, monkeypatch):
    made, computed = made
    monkeypatch.setattr(controls, "KEPT", 2)
    made.wants_parts.value = True
    for levels in (1, 2):
        made.brightness.value = levels
    assert len(computed) == 3 and len(made.made) == 2
    made.brightness.value = 1
    assert len(computed) == 3  # still there
    made.brightness.value = 0
    assert len(computed) == 4
