"""Figures as pictures: what is drawn is what the numbers say."""

import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from xai_utils import show


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


def test_a_tile_holds_the_colours_of_its_picture_on_white():
    image = np.zeros((2, 2, 3), np.float32)
    image[0, 0], image[1, 1] = (255, 0, 0), (0, 0, 255)
    found = pixels(show.png(show.tiles([[show.Tile(image)]])))
    height, width = found.shape[:2]
    places = [(0.3, 0.3), (0.3, 0.7), (0.75, 0.3), (0.75, 0.7), (0.0, 0.0)]
    colours = [tuple(found[int(y * height), int(x * width)]) for y, x in places]
    assert colours == [(255, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 255), (255, 255, 255)]


@pytest.mark.parametrize("values", [[[0.0, 1.0], [2.0, 4.0]], [[-4.0, 1.0], [2.0, 4.0]]])
def test_a_map_over_a_picture_has_the_colours_of_overlay(values):
    values, image = np.array(values), np.full((40, 40, 3), 100, np.float32)
    fig = show.tiles([[show.Tile(image, values)]], width=4.0)
    found, place = pixels(show.png(fig)), fig.axes[0].get_window_extent()
    expected = show.overlay(values, image)
    for y, x in ((2, 2), (2, 37), (37, 2), (37, 37)):  # the corners, where the enlarged map is flat
        down, right = (
            len(found) - place.y1 + (y + 0.5) / 40 * place.height,
            place.x0 + (x + 0.5) / 40 * place.width,
        )
        drawn = found[int(down), int(right)]
        assert np.abs(drawn.astype(int) - expected[y, x]).max() <= 2, (y, x, drawn, expected[y, x])


def test_a_map_without_negative_values_can_have_the_colours_of_a_signed_one():
    fig = show.tiles([[show.Tile(None, np.array([[0.0, 4.0]]), signed=True)]])
    drawn = fig.axes[0].images[0]
    assert (drawn.norm.vmin, drawn.norm.vmax) == (-4, 4)
    white, red = drawn.to_rgba(np.array([0.0, 4.0]))[:, :3]
    assert white.min() > 0.95 and red[0] > 3 * red[1:].max()


@pytest.mark.parametrize(("bad", "low"), [(np.nan, 0), (np.inf, 0), (-np.inf, -4)])
@pytest.mark.parametrize("image", [None, np.full((2, 2, 3), 100, np.float32)])
@pytest.mark.filterwarnings("error")
def test_a_map_with_a_value_that_is_no_number_is_drawn_by_its_other_values(bad, low, image):
    fig = show.tiles([[show.Tile(image, np.array([[bad, 1.0], [2.0, 4.0]]))]])
    drawn = fig.axes[0].images[-1]
    assert (drawn.norm.vmin, drawn.norm.vmax) == (low, 4)
    assert show.png(fig) and show.light(fig).layers


@pytest.mark.filterwarnings("error")
def test_a_value_that_is_missing_shows_the_picture():
    picture = np.full((2, 2, 3), 100, np.float32)
    values = np.array([[np.nan, 1.0], [2.0, 4.0]])
    full = show.overlay(np.array([[0.0, 1.0], [2.0, 4.0]]), picture)
    found = show.overlay(values, picture)
    assert (found[0, 0] == 100).all()
    np.testing.assert_array_equal(found[values > 0], full[values > 0])
    none = np.full((2, 2), np.nan)
    assert (show.overlay(none, picture) == 100).all()
    fig = show.tiles([[show.Tile(None, none), show.Tile(picture, none)]])
    assert [ax.images[-1].norm.vmax for ax in fig.axes] == [1, 1]
    assert show.png(fig) and show.light(fig).layers


@pytest.mark.parametrize(
    "make",
    [
        lambda: show.tiles([[show.Tile(np.zeros((4, 4, 3)), title="a")]]),
        lambda: show.subplots(1, 2)[0],
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_figure_is_drawn_the_same_twice(make):
    fig = make()
    assert show.png(fig) == show.png(fig)


@pytest.mark.parametrize(
    ("channels", "bands", "expected"),
    [
        (1, None, (10, 10, 10)),
        (2, None, (15, 15, 15)),
        (3, None, (10, 20, 30)),
        (4, None, (10, 20, 30)),
        (7, (6, 3, 0), (70, 40, 10)),
        (7, (4,), (50, 50, 50)),
        (3, (0, 2), (20, 20, 20)),
    ],
)
def test_a_picture_of_any_number_of_channels_is_drawn(channels, bands, expected):
    image = np.full((4, 6, channels), np.arange(10, 10 * channels + 1, 10), np.float32)
    drawn = show.as_rgb(image, bands)
    assert drawn.shape == (4, 6, 3) and (drawn == expected).all()
    found = pixels(show.png(show.tiles([[show.Tile(image, bands=bands)]])))
    middle = found[found.shape[0] // 2, found.shape[1] // 2]
    assert tuple(middle) == expected
    values = np.zeros((2, 3))
    grey = np.dot(expected, [0.299, 0.587, 0.114])  # under six tenths of the black of inferno
    over = show.overlay(values, show.as_rgb(image, bands))
    assert np.abs(over - 0.4 * grey - 0.6 * np.array([0, 0, 3])).max() <= 1
    if bands is None:
        np.testing.assert_array_equal(show.overlay(values, image), over)
    found = pixels(show.png(show.tiles([[show.Tile(image, values, bands=bands)]])))
    assert (
        np.abs(found[found.shape[0] // 2, found.shape[1] // 3].astype(int) - over[0, 0]).max() < 3
    )


def test_a_plane_without_channels_is_grey():
    assert show.as_rgb(np.full((2, 3), 7)).tolist() == np.full((2, 3, 3), 7).tolist()


@pytest.mark.parametrize(
    ("image", "bands", "said"),
    [
        (np.zeros((1, 2, 3, 4)), None, r"\(H, W, C\), not of shape \(1, 2, 3, 4\)"),
        (np.zeros((2, 2, 0)), None, "not of shape"),
        (np.zeros((2, 2, 4)), (0, 4, 1), "one to three channels of 0 to 3, not"),
        (np.zeros((2, 2, 4)), (), "one to three channels of 0 to 3, not"),
    ],
)
def test_what_cannot_be_drawn_is_said(image, bands, said):
    with pytest.raises(ValueError, match=said):
        show.as_rgb(image, bands)


@pytest.mark.parametrize("shape", [(8, 16), (8, 8), (4, 20)])
def test_the_label_of_a_colour_bar_is_not_cut_beside_a_flat_picture(shape):
    fig = show.tiles([[show.Tile(None, np.eye(*shape), "map", "fall of the score (logits)")]])
    show.png(fig)
    (bar,) = (ax for ax in fig.findobj(Axes) if ax.get_ylabel())
    label = bar.yaxis.label.get_window_extent()
    assert label.y0 >= 0 and label.y1 <= fig.bbox.y1 and label.x1 <= fig.bbox.x1


def test_titles_of_flat_rows_do_not_overlap():
    flat = show.Tile(np.zeros((8, 64, 3), np.float32))
    fig = show.tiles([[flat, flat]] * 2, ["guided backprop", "gradient x input"])
    show.png(fig)
    above, below = (axes.texts[0].get_window_extent() for axes in (fig.axes[0], fig.axes[2]))
    assert above.y0 > below.y1


def test_a_sentence_is_shown_as_it_is_in_prose_and_in_plain_text(monkeypatch):
    shown = []
    monkeypatch.setattr(
        "IPython.display.display", lambda bundle, raw: shown.append(bundle) if raw else None
    )
    show.text("block6a_relu  holds\n 3 < 4 & no *more*.")
    assert shown == [
        {
            "text/html": "<p>block6a_relu holds 3 &lt; 4 &amp; no *more*.</p>",
            "text/plain": "block6a_relu holds 3 < 4 & no *more*.",
        }
    ]


def test_an_empty_sentence_is_refused():
    with pytest.raises(ValueError, match="nothing to say"):
        show.text(" \n ")


@pytest.mark.parametrize("unit", ["", "logits per grey level"])
@pytest.mark.parametrize("lowest", [-0.12, 0.0])
def test_numbers_and_labels_of_signed_maps_are_not_cut_at_the_right(unit, lowest):
    values = np.linspace(lowest, 0.12, 16).reshape(4, 4)
    tile = show.Tile(np.zeros((8, 8, 3)), values, "signed", unit, signed=True)
    fig = show.tiles([[tile]], width=3.4)
    show.png(fig)
    bar = fig.axes[0].child_axes[0]
    assert "−0.10" in [label.get_text() for label in bar.get_yticklabels()]
    assert bar.get_tightbbox().x1 <= fig.bbox.x1


def test_labels_of_boxes_cover_no_other_label_and_stay_on_the_picture():
    places = [(20, 40, 60, 100), (22, 2, 62, 48), (70, 10, 99, 60), (20, 40, 70, 110)]
    marks = [show.Box(place, f"motorcycle 0.9{i}") for i, place in enumerate(places)]
    fig = show.tiles([[show.Tile(np.zeros((120, 100, 3)), boxes=marks), show.Tile()]])
    show.png(fig)
    ax = fig.axes[0]
    labels = [text.get_bbox_patch().get_window_extent() for text in ax.texts]
    assert len(labels) == len(marks)
    for i, label in enumerate(labels):
        assert ax.bbox.x0 <= label.x0 and label.x1 <= ax.bbox.x1
        assert not any(label.overlaps(other) for other in labels[i + 1 :])


@pytest.mark.parametrize("width", [2.4, 2.9, 4])
def test_the_label_of_a_bar_with_wide_numbers_is_not_cut(width):
    values = np.array([[-0.14, 0.14]])
    tile = show.Tile(np.zeros((8, 8, 3)), values, "map", "similarity above the mean")
    fig = show.tiles([[tile]], width=width)
    show.png(fig)
    (bar,) = (ax for ax in fig.findobj(Axes) if ax.get_ylabel())
    assert bar.yaxis.label.get_window_extent().x1 <= fig.bbox.x1


def test_the_power_of_ten_of_a_bar_touches_no_number():
    fig = show.tiles([[show.Tile(None, np.full((8, 8), 0.0126), "map", "similarity")]])
    show.png(fig)
    (bar,) = (ax for ax in fig.findobj(Axes) if ax.get_ylabel())
    power, number = bar.yaxis.get_offset_text(), bar.get_yticklabels()[-2]
    assert (power.get_text(), number.get_text()) == ("1e−2", "1.25")
    assert number.get_window_extent().y1 <= power.get_window_extent().y0
    assert power.get_window_extent().y1 <= fig.bbox.y1


def test_a_long_title_of_a_row_loses_its_middle():
    long = "holiday_in_the_mountains_ILSVRC2012_val_00000293"
    fig = show.tiles([[show.Tile(np.zeros((8, 8, 3)))]], [long])
    show.png(fig)
    (title,) = fig.axes[0].texts
    assert title.get_text() == "holiday_in_…val_00000293" and len(title.get_text()) <= 24
    place = title.get_window_extent()
    assert place.y0 >= 0 and place.y1 <= fig.bbox.y1


def test_one_is_no_plural():
    assert [show.counted(n, "picture") for n in (0, 1, 2)] == [
        "0 pictures",
        "1 picture",
        "2 pictures",
    ]
