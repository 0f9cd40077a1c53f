"""Drawn scenes: exact masks, free placement, determinism."""

import numpy as np
import pytest

from xai_utils.pictures import background_of, draw_mushroom, draw_umbrella

DRAW = {"umbrella": draw_umbrella, "mushroom": draw_mushroom}


@pytest.fixture(params=DRAW)
def kind(request):
    return request.param


def box(mask):
    """Bounding box of a mask as (left, top, right, bottom), in fractions of the picture."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / len(mask)


def test_the_mask_is_exact(kind):
    scene, empty = DRAW[kind](), background_of(kind)
    assert (
        scene.image.shape == (288, 288, 3)
        and scene.image.dtype == np.uint8
        and scene.mask.dtype == bool
    )
    changed = (scene.image != empty).any(-1)
    assert not changed[~scene.mask].any()
    assert changed[scene.mask].mean() > 0.97


def test_any_background_stays_untouched_outside_the_mask(kind):
    photo = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    scene = DRAW[kind](size=96, background=photo)
    np.testing.assert_array_equal(scene.image[~scene.mask], photo[~scene.mask])
    np.testing.assert_array_equal(scene.mask, DRAW[kind](size=96).mask)


def test_the_object_stands_where_it_was_put(kind):
    full = box(DRAW[kind]().mask)
    np.testing.assert_allclose(full, [0.14, 0.14, 0.86, 0.86], atol=0.03)
    moved = box(DRAW[kind](center=(0.4, 0.6), scale=0.5).mask)
    np.testing.assert_allclose(moved, (full - 0.5) * 0.5 + [0.4, 0.6, 0.4, 0.6], atol=2 / 288)


def test_the_size_in_pixels_does_not_move_it(kind):
    np.testing.assert_allclose(
        box(DRAW[kind](size=64).mask), box(DRAW[kind](size=512).mask), atol=2 / 64
    )


def test_an_object_over_the_border_is_cut_off(kind):
    cut = DRAW[kind](center=(0.0, 0.5))
    assert 0.3 < cut.mask.sum() / DRAW[kind]().mask.sum() < 0.7 and cut.mask[:, 0].any()
    assert not DRAW[kind](center=(3.0, 0.5)).mask.any()


def test_the_seed_decides_the_texture(kind):
    one, again, other = (DRAW[kind](seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.image, again.image)
    assert (one.image != other.image).any()
    np.testing.assert_array_equal(one.mask, other.mask)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 15}, "size must be a whole number of pixels, at least 16, got 15"),
        ({"size": 100.5}, "size must be"),
        ({"scale": 0}, "scale must be a finite number above 0, got 0"),
        ({"scale": np.nan}, "scale must be"),
        ({"center": (0.5, np.inf)}, "center must be two finite numbers"),
        ({"center": 0.5}, "center must be"),
        (
            {"background": np.zeros((4, 4, 3), np.uint8)},
            r"background must be uint8 of shape \(288, 288, 3\), got",
        ),
        ({"background": np.zeros((288, 288, 3))}, "got float64"),
    ],
)
def test_bad_arguments(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        DRAW[kind](**arguments)


def test_unknown_background():
    with pytest.raises(ValueError, match='"umbrella" or "mushroom", got \'cat\''):
        background_of("cat")
