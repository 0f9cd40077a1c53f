"""Drawn textures: what was asked for is what the pixels hold."""

import numpy as np
import pytest

from xai_utils.pictures import textures

BLACK_AND_WHITE = [(255, 255, 255), (0, 0, 0)]


@pytest.fixture(params=textures.TEXTURES)
def draw(request):
    return textures.TEXTURES[request.param]


def test_pictures_are_seeded_and_of_the_asked_size(draw):
    first, again, other = draw(3, (20, 30), 1), draw(3, (20, 30), 1), draw(3, (20, 30), 2)
    assert first.shape == (3, 20, 30, 3) and first.dtype == np.float32
    assert first.min() >= 0 and first.max() <= 255
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other) and not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("degrees", [0, 90])
def test_stripes_have_their_direction_and_period(degrees):
    drawn = textures.stripes(4, 64, 0, (0.25, 0.25), (degrees, degrees), BLACK_AND_WHITE)[..., 0]
    level = drawn if degrees == 0 else np.swapaxes(drawn, 1, 2)
    np.testing.assert_allclose(level, level[:, :, :1] + 0 * level, atol=1e-3)
    column = level[:, :, 0]
    np.testing.assert_allclose(column[:, :-16], column[:, 16:], atol=1e-3)
    assert np.allclose(column + np.roll(column, 8, axis=1), 255, atol=1e-3), "as wide as each other"


def test_checks_take_turns_along_rows_and_columns():
    drawn = textures.checks(2, 64, 0, (0.25, 0.25), (0, 0), BLACK_AND_WHITE)[..., 0]
    for axis in (1, 2):
        np.testing.assert_allclose(drawn + np.roll(drawn, 8, axis), 255, atol=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
def test_dots_cover_their_share(share):
    drawn = textures.dots(4, 120, 0, (0.25, 0.25), (0, 0), BLACK_AND_WHITE, share)
    assert abs(drawn.mean() / 255 - share) < 0.01


def test_plain_pictures_are_near_their_colour():
    drawn = textures.plain(50, 4, 0, (10, 120, 250), 20)
    assert np.ptp(drawn, axis=(1, 2)).max() == 0
    assert np.abs(drawn - np.float32([10, 120, 250])).max() <= 20
    assert (textures.plain(2, 4, colour=(9, 8, 7), spread=0) == [9, 8, 7]).all()


def test_colours_left_to_chance_are_far_from_each_other():
    for picture in textures.checks(40, 24, 3, (0.5, 0.5), (0, 0)):
        colours = np.unique(picture.reshape(-1, 3), axis=0)
        corners = colours[[0, -1]]
        assert np.abs(corners[0] - corners[1]).mean() >= textures.FAR - 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: textures.stripes(0, 24), "not 0"),
        (lambda: textures.stripes(1, 0), "size is one or two"),
        (
            lambda: textures.stripes(1, 24, period=(0.3, 0.1)),
            "period is the least and the greatest",
        ),
        (lambda: textures.stripes(1, 24, period=(0.01, 0.1)), "at least one pixel, 0.0417 of 24"),
        (lambda: textures.checks(1, 24, degrees=45), "degrees is the least"),
        (lambda: textures.dots(1, 24, share=0.9), "at most 0.78, not 0.9"),
        (lambda: textures.dots(1, 24, colours=[(0, 0, 0)]), "colours are two"),
        (lambda: textures.plain(1, 24, colour=(0, 0, 300)), "a colour is three numbers in 0..255"),
        (lambda: textures.plain(1, 24, spread=-1), "not -1"),
    ],
)
def test_what_cannot_be_drawn_says_so(call, message):
    with pytest.raises(ValueError, match=message) as told:
        call()
    assert "\n" not in str(told.value)
