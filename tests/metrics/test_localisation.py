"""Maps of a few places, whose share on an object can be counted by hand."""

import numpy as np
import pytest

from xai_utils.metrics import (
    enrichment,
    grid_share,
    mass_share,
    peak_distance,
    peak_inside,
    pointing,
)

MAP = np.array([[4.0, 1, 0, 0], [2, 1, -5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
CORNER = np.zeros((4, 4), bool)
CORNER[:2, :2] = True


def test_mass_counts_what_is_positive():
    assert mass_share(MAP, CORNER) == pytest.approx(8 / 10)
    assert mass_share(MAP, ~CORNER) == pytest.approx(2 / 10)
    assert enrichment(MAP, CORNER) == pytest.approx(0.8 / (4 / 16))
    assert enrichment(MAP, np.ones((4, 4), bool)) == 1
    assert mass_share(7 * MAP, CORNER) == pytest.approx(mass_share(MAP, CORNER))


def test_a_map_without_anything_positive_has_no_share():
    for nothing in (np.zeros((4, 4)), -np.abs(MAP)):
        assert np.isnan(mass_share(nothing, CORNER)) and np.isnan(enrichment(nothing, CORNER))


def test_pointing_knows_only_the_peak():
    assert pointing(MAP, CORNER) and not pointing(MAP, ~CORNER)
    far = np.zeros((4, 4), bool)
    far[0, 3] = True
    assert not pointing(MAP, far, tolerance=2.9) and pointing(MAP, far, tolerance=3)
    assert pointing(MAP - 100, CORNER), "the peak may be negative"
    assert not pointing(np.ones((4, 4)), CORNER), "a constant map points nowhere"


@pytest.mark.parametrize("kind", [np.float32, np.int8])
def test_of_a_mask_and_of_a_box_it_is_one_game(kind):
    """On MAP the largest size is evidence against: -5, or -128 at the edge of int8."""
    box = (0, 0, 2, 2)  # CORNER
    against = np.where(MAP == -5, -128, MAP).astype(kind)
    there = (2, 1, 3, 2)  # the cell of that value
    for values in (MAP.astype(kind), against, (MAP - 100).astype(kind)):
        assert pointing(values, CORNER) and peak_inside(values, box, (4, 4))
        assert not peak_inside(values, there, (4, 4))
    for constant in (np.zeros((4, 4)), np.full((4, 4), 3.0), np.full((4, 4), -1.0)):
        assert not pointing(constant, CORNER) and not peak_inside(constant, box, (4, 4))
        assert np.isnan(peak_distance(constant, CORNER))
    assert peak_distance(MAP, CORNER) == pytest.approx(np.hypot(0.5, 0.5))


def test_the_peak_of_a_coarse_map_is_the_middle_of_its_cell():
    values = np.array([[0.0, 1], [0, 0]])
    assert peak_inside(values, (299, 99, 301, 101), (400, 400))
    assert not peak_inside(values, (200, 0, 298, 200), (400, 400)), "the cell, not its middle"


def test_the_share_of_a_cell():
    shares = [grid_share(MAP, 2, 2, (row, column)) for row in range(2) for column in range(2)]
    np.testing.assert_allclose(shares, [0.8, 0, 0, 0.2])
    assert grid_share(np.ones((4, 6)), 2, 3, (1, 2)) == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: mass_share(MAP, np.zeros((4, 4))), "covers nothing"),
        (lambda: enrichment(MAP, np.ones((2, 2))), r"the map is \(4, 4\) and the mask \(2, 2\)"),
        (lambda: pointing(MAP, CORNER, -1), "must not be negative, got -1"),
        (lambda: grid_share(MAP, 3, 2, (0, 0)), "4 x 4 cannot be cut into 3 x 2"),
        (lambda: grid_share(MAP, 2, 2, (2, 0)), r"cell \(2, 0\) is not in a grid of 2 x 2"),
    ],
)
def test_bad_input_is_one_clear_line(call, told):
    with pytest.raises(ValueError, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)
