"""Figures as reports store them: light, and what they show is what `show.png` shows."""

import io
from base64 import b64decode

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.transforms import Affine2D
from PIL import Image
from skimage.data import chelsea
from skimage.transform import resize

from xai_utils import show
from xai_utils.pictures import grey

ROWS, COLUMNS = np.mgrid[:14, :14]
ROUND = np.exp(-((ROWS - 5) ** 2 + (COLUMNS - 8) ** 2) / 20)
CAT = resize(chelsea()[:, 75:375], (224, 224), order=3) * 255


def drawn(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"), int)


def stored(layer: show.Layer) -> np.ndarray:
    with Image.open(io.BytesIO(b64decode(layer.content.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGB"), int)


def both(make) -> tuple[show.Drawing, np.ndarray, np.ndarray]:
    """The drawing of a figure, its colours, and those of its PNG."""
    light = show.light(make())
    return light, np.asarray(light.image(), int), drawn(show.png(make()))


def inside(layer: show.Layer):
    left, top, width, height = layer.box
    return slice(top, top + height), slice(left, left + width)


def chart():
    dots = np.random.default_rng(0).random((2, 300))
    fig, axes = show.subplots(1, 2)
    for ax in axes:
        ax.plot(np.linspace(0, 6, 99), np.sin(np.linspace(0, 6, 99)), label="sine")
        ax.scatter(*dots, s=4)
        ax.legend()
    axes[0].set_title("lines and text")
    return fig


def test_lines_and_text_are_as_sharp_as_in_a_png():
    _, light, png = both(chart)
    assert np.abs(light - png).max() <= 1


def test_text_over_a_photograph_is_as_sharp_as_in_a_png():
    grey = np.full((224, 224, 3), 120.0)
    boxes = [show.Box((30, 60, 150, 180), "tabby 71 %")]
    _, light, png = both(lambda: show.tiles([[show.Tile(grey, title="a cat", boxes=boxes)]]))
    assert np.abs(light - png).max() <= 2 and len(np.unique(png)) > 100


@pytest.mark.parametrize(
    "tile",
    [
        show.Tile(None, ROUND, "blocks"),
        show.Tile(None, ROUND - 0.4, "signed blocks", "logits", clip=99.5),
        show.Tile(None, resize(ROUND, (224, 224), order=3), "smooth"),
        show.Tile(None, resize(ROUND, (500, 500), order=3) - 0.4, "smooth and larger than drawn"),
        show.Tile(np.full((224, 224, 3), 90.0), ROUND, "over a picture"),
    ],
    ids=lambda tile: tile.title,
)
def test_colours_of_a_map_and_its_bar_are_those_of_the_png(tile):
    light, found, png = both(lambda: show.tiles([[tile]], width=4))
    for layer in light.layers[:-1]:
        off = np.abs(found - png).max(axis=2)[inside(layer)]
        assert np.mean(off <= 2) >= 0.95
    *_, whole = light.layers
    outside = np.abs(found - png)
    for layer in light.layers[:-1]:
        outside[inside(layer)] = 0
    assert outside.max() <= 1 and whole.box == (0, 0, *light.size)


@pytest.mark.parametrize(("name", "shift"), [("inferno", 0.0), ("RdBu_r", 0.5)])
def test_a_map_of_noise_is_stored_exactly(name, shift):
    values = np.random.default_rng(1).random((100, 120)) - shift
    limit = 1.0 - shift
    light = show.light(show.tiles([[show.Tile(None, values, limit=limit)]]))
    place = (values + limit) / (2 * limit) if shift else values
    expected = matplotlib.colormaps[name](place.astype(np.float32), bytes=True)[..., :3].astype(int)
    assert np.abs(stored(light.layers[0]) - expected).max() <= 2


def test_a_photograph_is_light_and_near():
    light, found, png = both(lambda: show.tiles([[show.Tile(CAT, title="cat")]], width=4))
    photograph = light.layers[0]
    assert stored(photograph).shape == (224, 224, 3)  # as it is, not as it is magnified
    assert np.abs(stored(photograph) - CAT.astype(np.uint8)).mean() < 4
    assert 6 * len(light.uri()) < len(show.png(show.tiles([[show.Tile(CAT)]], width=4))) * 4 / 3
    assert np.abs(found - png).mean() < 4


def test_a_photograph_larger_than_it_is_drawn_is_stored_as_drawn():
    large = resize(CAT, (900, 900))
    layer = show.light(show.tiles([[show.Tile(large)]])).layers[0]
    assert stored(layer).shape[:2] == (layer.box[3], layer.box[2]) and layer.box[2] < 400
    right_way_up = resize(large.astype(np.uint8), stored(layer).shape, preserve_range=True)
    assert np.abs(stored(layer) - right_way_up).mean() < 6


def test_the_picture_under_its_maps_is_stored_once_and_shown_in_grey():
    row = [show.Tile(CAT), show.Tile(CAT, ROUND), show.Tile(CAT, ROUND.T)]
    light, found, png = both(lambda: show.tiles([row], width=4))
    photographs = [layer for layer in light.layers if layer.content == light.layers[0].content]
    assert [layer.grey for layer in photographs] == [False, True, True]
    assert light.uri().count("in-grey") == 3  # its definition and two that use it
    for layer in photographs[1:]:
        assert np.abs(found - png)[inside(layer)].mean() < 2


@pytest.mark.parametrize("origin", ["upper", "lower"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", [2, 100, 900])
def test_pictures_stand_as_matplotlib_puts_them(origin, turned, size):
    picture = np.zeros((size, size, 3), np.uint8)
    half = size // 2
    picture[:half, :half], picture[:half, half:], picture[half:, :half] = (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
    )

    def make():
        fig, ax = show.subplots()
        ax.imshow(picture, origin=origin)
        if turned:
            ax.invert_xaxis()
        return fig

    _, found, png = both(make)
    assert np.mean(np.abs(found - png).max(axis=2) <= 8) > 0.97


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_what_lies_over_and_under_a_picture_stays_there(alpha):
    def make():
        fig, ax = show.subplots()
        ax.plot([0, 9], [0, 9], lw=8, zorder=-2, color="red")
        ax.imshow(np.full((10, 10), 0.5), vmin=0, vmax=1, alpha=alpha)
        ax.plot([9, 0], [0, 9], lw=8, color="blue")
        return fig

    light, found, png = both(make)
    assert np.mean(np.abs(found - png).max(axis=2) <= 2) > 0.98
    assert len(light.layers) == (2 if alpha is None else 3)


def test_a_cut_or_smoothed_picture_is_drawn_as_matplotlib_does():
    def make():
        fig, axes = show.subplots(1, 2)
        axes[0].imshow(ROUND)
        axes[0].set_xlim(3, 9)
        axes[1].imshow(ROUND, interpolation="bicubic")
        return fig

    _, found, png = both(make)
    assert np.mean(np.abs(found - png).max(axis=2) <= 8) > 0.98


@pytest.mark.parametrize("interpolation", [None, "none"])
def test_an_opacity_for_each_pixel_is_kept(interpolation):
    def make():
        fig, ax = show.subplots()
        ax.imshow(ROUND, alpha=ROWS / 13, interpolation=interpolation)
        return fig

    _, found, png = both(make)
    assert np.mean(np.abs(found - png).max(axis=2) <= 8) > 0.98


def zoomed(ax):
    ax.imshow(ROUND, interpolation="none")
    ax.set_xlim(3, 9)


def round_cut(ax):
    shown = ax.imshow(ROUND, interpolation="none")
    shown.set_clip_path(Circle((6, 6), 4, transform=ax.transData))


def cut_by_a_box(ax):
    ax.imshow(ROUND).set_clip_path(Rectangle((2, 3), 5, 6, transform=ax.transData))


def turned(ax):
    ax.set(xlim=(-9, 19), ylim=(-9, 19))
    ax.imshow(ROUND, transform=Affine2D().rotate_deg_around(6, 6, 30) + ax.transData)
    ax.set(xlim=(-9, 19), ylim=(-9, 19))


def above_the_figure(ax):
    ax.plot([0, 9], [0, 9], lw=20)
    above = ax.figure.add_axes((0, 1.2, 0.5, 0.5))
    above.imshow(np.zeros((4, 4)))


def half_outside_the_figure(ax):
    ax.plot([0, 9], [0, 9], lw=20)
    for corner in ((-0.25, 0.75), (0.75, -0.25)):
        ax.figure.add_axes((*corner, 0.5, 0.5)).imshow(CAT.astype(np.uint8), aspect="auto")


@pytest.mark.parametrize(
    "draw",
    [zoomed, round_cut, cut_by_a_box, turned, above_the_figure, half_outside_the_figure],
)
def test_a_picture_is_cut_and_turned_as_matplotlib_does(draw):
    def make():
        fig, ax = show.subplots()
        draw(ax)
        return fig

    _, found, png = both(make)
    assert np.mean(np.abs(found - png).max(axis=2) <= 12) > 0.97


def test_a_picture_in_grey_through_which_is_seen_stays_so():
    seen = np.uint8(grey(CAT))[..., None].repeat(4, axis=2)
    seen[..., 3] = 60

    def make():
        fig, axes = show.subplots(1, 2)
        axes[0].imshow(CAT.astype(np.uint8))
        axes[1].imshow(seen)
        return fig

    light, found, png = both(make)
    assert not any(layer.grey for layer in light.layers)
    assert np.abs(found - png)[inside(light.layers[1])].mean() < 2


@pytest.mark.parametrize("figsize", [(0.5, 140), (140, 0.5)])
def test_a_figure_longer_than_webp_has_room_for_is_stored_in_parts(figsize):
    def make():
        fig = Figure(figsize, dpi=120)
        fig.add_axes((0, 0, 1, 1)).imshow(np.eye(2), aspect="auto", interpolation="nearest")
        fig.text(0.01, 0.005, "end")
        fig.text(0.3, 0.99, "start")
        return fig

    light, found, png = both(make)
    assert np.abs(found - png).max() <= 2  # what shines through a letter's edge is rounded twice
    assert light.size == tuple(120 * side for side in figsize)
    assert len(light.layers) == 4 and show.read_drawing(light.uri()) == light


def test_a_drawing_is_read_back():
    light = show.light(show.tiles([[show.Tile(CAT, ROUND, "cat")]]))
    assert show.read_drawing(light.uri()) == light
    assert '"' not in light.uri() and "<" not in light.uri()


@pytest.mark.parametrize(
    "change",
    [
        lambda uri: uri.replace("%3Crect", "%3Cscript%3Ealert(1)%3C/script%3E%3Crect"),
        lambda uri: uri.replace("data:image/webp;base64,", "https://a.example/"),
        lambda uri: uri.replace("image/webp", "image/png"),
        lambda uri: uri.replace("%3C/svg%3E", ""),
        lambda uri: uri.replace("viewBox='0 0 ", "viewBox='0 "),
        lambda uri: "data:image/png;base64,AAAA",
    ],
)
def test_anything_else_is_no_drawing(change):
    uri = show.light(show.tiles([[show.Tile(ROUND[..., None])]])).uri()
    assert change(uri) != uri
    with pytest.raises(ValueError, match="not a drawing of layers"):
        show.read_drawing(change(uri))


def test_a_picture_has_words_and_a_size():
    fig, _ = show.subplots(width=3, height=2)
    html = show.picture(show.light(fig), 'a "quoted" <word>')
    assert 'alt="a &quot;quoted&quot; &lt;word&gt;" width="288" height="192"' in html
    assert 'width="360" height="240"' in show.picture(show.png(fig), "x")


def test_equal_pictures_of_a_steppers_frames_are_encoded_once(monkeypatch):
    from xai_utils.show import layers

    sizes, real = [], layers._webp
    monkeypatch.setattr(layers, "_webp", lambda p, how: sizes.append(p.size) or real(p, how))
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    frames = [show.tiles([[show.Tile(CAT, title=title)]]) for title in "abc"]
    show.stepper(frames, "abc")
    assert sizes.count((224, 224)) == 1 and len(sizes) == 4
    assert shown[0]["text/html"].count("<img ") == 3
