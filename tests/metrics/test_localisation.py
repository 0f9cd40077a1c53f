"""Maps of a few places, whose share on an object can be counted by hand."""

import numpy as np
import pytest

from xai_utils.metrics import enrichment, grid_share, mass_share, pointing

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
