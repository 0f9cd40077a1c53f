"""Figures as pictures: what is drawn is what the numbers say."""

import io

import numpy as np
import pytest
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
