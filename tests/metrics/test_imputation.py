"""Imputation: equal to a sparse direct solution, whatever is hidden."""

import numpy as np
import pytest
from scipy.sparse import csr_array, diags_array, kron
from scipy.sparse.linalg import spsolve

from xai_utils import metrics
from xai_utils.metrics import imputation

SIZE = (96, 80)


def directly(image, hidden):
    """The same by a sparse direct solver, float64 `(H, W, C)`."""
    lines = [diags_array([1.0, 2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n)) for n in hidden.shape]
    weights = kron(*lines, format="csr") / 12  # 1/6 for direct, 1/12 for diagonal neighbours
    weights.setdiag(0)
    rows = csr_array(diags_array(weights.sum(axis=1)) - weights)[np.flatnonzero(hidden)]
    filled = np.where(hidden[..., None], 0, image).astype(float)
    known = -(rows @ filled.reshape(-1, image.shape[-1]))
    filled[hidden] = spsolve(rows[:, np.flatnonzero(hidden)].tocsc(), known).reshape(known.shape)
    return filled


def masks(height, width):
    """Those that an iteration may find hard."""
    rows, columns = np.mgrid[:height, :width]
    chance = np.random.default_rng(0).random((height, width))
    inside = (rows > 0) & (rows < height - 1) & (columns > 0) & (columns < width - 1)
    return {
        "a large hole": inside,
        "all but a corner pixel": rows + columns > 0,
        "all but a column": columns > 0,
        "all but two lines": (rows != height // 3) & (columns != width // 3),
        "all but a diagonal": rows != columns,
        "95 % at random": chance < 0.95,
        "all but a few": chance < 0.9995,
        "every other pixel": (rows + columns) % 2 == 0,
        "thin lines": rows % 7 == 3,
        "all but thin lines": rows % 7 != 3,
        "a comb": (rows % 8 < 4) | (columns < 4),
        "one pixel": (rows == 5) & (columns == 0),
    }


@pytest.mark.parametrize("name", masks(*SIZE))
def test_it_is_the_solution_of_the_sparse_system(name):
    hidden = masks(*SIZE)[name]
    image = np.random.default_rng(1).uniform(0, 255, (*SIZE, 3)).astype(np.float32)
    image[:, :30] /= 9  # dark on one side: what is far away matters
    found = metrics.impute(image, hidden, noise=0)
    np.testing.assert_allclose(found, directly(image, hidden), atol=1e-3)
    np.testing.assert_array_equal(found[~hidden], image[~hidden])


@pytest.mark.parametrize("shape", [(224, 224, 3), (33, 70, 1), (5, 64, 4), (1, 9, 2), (2, 2, 3)])
def test_any_size_and_channels_and_a_batch_gives_what_its_pictures_give(shape):
    rng = np.random.default_rng(2)
    images = rng.uniform(-1, 1, (3, *shape)).astype(np.float32)
    hidden = rng.random((3, *shape[:2])) < 0.8
    hidden[:, 0, 0] = False
    hidden[2] = False  # nothing to do
    together = imputation.imputed(images, hidden, 0, 0, (-1, 1)).numpy()
    for image, mask, found in zip(images, hidden, together):
        np.testing.assert_allclose(found, directly(image, mask), atol=2e-3 / 255)
        alone = metrics.impute(image, mask, 0, extent=(-1, 1))
        np.testing.assert_allclose(found, alone, atol=2e-3 / 255)
    np.testing.assert_array_equal(together[2], images[2])
    again = imputation.imputed(images, hidden, 0, 0, (-1, 1)).numpy()
    np.testing.assert_array_equal(together, again)


def test_what_hidden_pixels_hold_does_not_matter():
    image = np.random.default_rng(3).uniform(0, 255, (9, 9, 1)).astype(np.float32)
    hidden = np.zeros((9, 9), bool)
    hidden[3:6, 3:6] = True
    gone = np.where(hidden[..., None], np.nan, image)
    np.testing.assert_array_equal(metrics.impute(gone, hidden, 0), metrics.impute(image, hidden, 0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_an_error(value):
    image, hidden = np.zeros((9, 9, 2), np.float32), np.eye(9, dtype=bool)
    image[0, 5, 1] = value
    with pytest.raises(ValueError, match="must be finite; some are nan or inf"):
        metrics.impute(image, hidden)


def test_stopped_too_early_is_an_error(monkeypatch):
    hidden = masks(64, 64)["all but a few"]
    image = np.random.default_rng(4).uniform(0, 255, (64, 64, 1)).astype(np.float32)
    imputation._solver.cache_clear()
    monkeypatch.setattr(imputation, "MOST_STEPS", 1)
    monkeypatch.setattr(imputation, "MOST_ROUNDS", 2)
    with pytest.raises(ArithmeticError, match="an error of .* is left"):
        metrics.impute(image, hidden)
    imputation._solver.cache_clear()


def test_imputation_carries_a_linear_ramp_across_a_hole():
    rows, columns = np.mgrid[:20, :30]
    ramp = np.stack([3 * rows + 2 * columns + 5, 255 - 4 * rows, 8 * columns], -1).astype(
        np.float32
    )
    hidden = np.random.default_rng(0).random((20, 30)) < 0.7
    hidden[[0, -1]] = hidden[:, [0, -1]] = False
    holed = np.where(hidden[..., None], 0, ramp)
    np.testing.assert_allclose(metrics.impute(holed, hidden, noise=0), ramp, atol=1e-3)
    grain = metrics.impute(holed, hidden, noise=0.01) - ramp
    assert (grain[~hidden] == 0).all() and grain[hidden].std() == pytest.approx(2.55, rel=0.15)


def test_imputation_equals_a_slow_loop():
    rng = np.random.default_rng(1)
    image, hidden = rng.uniform(0, 255, (7, 6, 1)), rng.random((7, 6)) < 0.6
    known = np.where(hidden, 0, image[..., 0])
    for _ in range(3000):
        for r, c in np.argwhere(hidden):
            total = weights = 0
            for i in range(max(0, r - 1), min(7, r + 2)):
                for j in range(max(0, c - 1), min(6, c + 2)):
                    weight = {1: 1 / 6, 2: 1 / 12}.get(abs(i - r) + abs(j - c), 0)
                    total, weights = total + weight * known[i, j], weights + weight
            known[r, c] = total / weights
        if np.allclose(known, metrics.impute(image, hidden, 0)[..., 0], atol=1e-3):
            return
    raise AssertionError("the loop settles elsewhere")
