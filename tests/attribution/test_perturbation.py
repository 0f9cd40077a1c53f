"""What covers parts of a picture, against answers known beforehand (REFERENCE, section 3)."""

import itertools
import math
from importlib import import_module

import numpy as np
import pytest
from nets import SHAPES, batch, gap_net, two_outputs

from xai_utils import attribution, keras, tf
from xai_utils.attribution import perturbation
from xai_utils.engine import forward

layers = keras.layers
# by its path: the wing's name for it is the function's
superpixels_room = import_module("xai_utils.attribution.superpixels")
SETTINGS = {
    "occlusion": {"patch": 4, "stride": 3},
    "rise": {"masks": 30, "grid": 3},
    "sobol": {"grid": 2, "samples": 8},
    "extremal_perturbation": {"grid": 6, "steps": 8, "area": 0.3},
    "lime": {"segments": 9, "samples": 30, "fill": 0.0},
    "kernel_shap": {"segments": 9, "samples": 30, "fill": 0.0},
}


def picture(size=12, seed=4):
    """A picture of plain blocks, so that superpixels have something to follow."""
    blocks = np.random.default_rng(seed).uniform(0, 1, (3, 3, 3)).astype(np.float32)
    return np.kron(blocks, np.ones((size // 3, size // 3, 1), np.float32))


def pictures(count=3):
    return np.stack([picture(seed=seed) for seed in range(count)])


@tf.function
def draw_masks(numbers, size, grid, keep, seed):
    return attribution.rise_masks(numbers, size, grid, keep, seed)


def masks_of(numbers, size, grid, keep=0.5, seed=0):
    return draw_masks(
        tf.constant(numbers, tf.int32), size, grid, tf.constant(keep), tf.constant(seed)
    ).numpy()


def linear_net(size: int = 4, channels: int = 3, classes: int = 2, seed: int = 0):
    """`b + w.x` as a model; its weights `(classes, size, size, channels)` and biases."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input((size, size, channels))
    head = layers.Dense(classes)
    model = keras.Model(inputs, head(layers.Flatten()(inputs)), name="linear")
    weights, biases = (
        rng.normal(size=(size * size * channels, classes)),
        10 + rng.normal(size=classes),
    )
    head.set_weights([weights, biases])
    return model, weights.T.reshape(classes, size, size, channels).astype(np.float32), biases


# --- occlusion ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", [0.0, 0.7, np.array([0.1, -0.5, 2.0]), "pictures"])
def test_occlusion_of_a_linear_model_is_the_sum_over_the_patch(fill):
    model, weights, _ = linear_net(6)
    images = batch(6, 2)
    fill = batch(6, 2, seed=9) if isinstance(fill, str) else fill
    maps = attribution.occlusion(model, images, 1, patch=3, stride=2, fill=fill)
    each = (weights[1] * (images - fill)).sum(-1)  # what covering one pixel takes
    assert maps.shape == (2, 3, 3)
    # Cells of 2 pixels, patches of 3 around their middles 1, 3, 5: pixels from 0, 2, 4, the last
    # cut off at 6.
    for i, j in np.ndindex(3, 3):
        expected = each[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].sum((1, 2))
        np.testing.assert_allclose(maps[:, i, j], expected, atol=1e-5)


def test_occlusion_with_patches_as_large_as_cells_shares_out_everything():
    model, weights, biases = linear_net(8)
    images = batch(8)
    maps = attribution.occlusion(model, images, 0, patch=2, stride=2, fill=0.0)
    np.testing.assert_allclose(
        maps.sum((1, 2)), forward(model, images).numpy()[:, 0] - biases[0], atol=1e-4
    )


@pytest.mark.parametrize(("extent", "stride"), [(224, 16), (260, 16), (12, 5), (7, 1)])
def test_occlusion_patches_lie_in_the_middle_of_their_cells_and_leave_nothing_out(extent, stride):
    patch = min(2 * stride, extent)
    starts = perturbation._starts(extent, patch, stride)
    cells = math.ceil(extent / stride)
    middles = (np.arange(cells) + 0.5) * extent / cells
    assert np.abs(starts + patch / 2 - middles).max() <= 0.5
    covered = {pixel for start in starts for pixel in range(start, start + patch)}
    assert set(range(extent)) <= covered
    assert starts.max() + patch - extent == pytest.approx(-starts.min(), abs=1), (
        "both borders are treated alike"
    )


def test_occlusion_finds_the_patch_the_score_depends_on():
    model, images = gap_net(), batch()
    maps = attribution.occlusion(model, images, 1, patch=4, stride=4)
    changed = images.copy()
    changed[:, 4:8, 8:12] = -1  # black, in -1..1
    expected = (forward(model, images) - forward(model, changed)).numpy()[:, 1]
    np.testing.assert_allclose(maps[:, 1, 2], expected, atol=1e-6)


def test_occlusion_explains_the_class_on_top_before_anything_is_covered():
    model, images = gap_net(), batch()
    top = forward(model, images).numpy().argmax(1)
    settings = SETTINGS["occlusion"]
    np.testing.assert_array_equal(
        attribution.occlusion(model, images, **settings),
        attribution.occlusion(model, images, top, **settings),
    )


# --- RISE -----------------------------------------------------------------------------------------


def expected_rise(weights, image, keep):
    """`(1 - p) w_i x_i`: what RISE tends to when cells are pixels.

    Of a network for -1..1, whose black is -1: x is counted from there.
    """
    return (1 - keep) * (weights * (image + 1)).sum(-1)


def mean_score(weights, bias, image, keep):
    """`b + p sum w x`: the score to expect of such a picture under a mask."""
    return bias - weights.sum() + keep * (weights * (image + 1)).sum()


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("keep", [0.5, 0.3])
def test_rise_of_a_linear_model_and_its_standard_error(keep, centred):
    model, weights, biases = linear_net(4)
    images, masks = batch(4, 1), 1000
    settings = {"grid": 4, "keep": keep, "centred": centred, "return_error": True}
    runs = [attribution.rise(model, images, 1, masks, seed=seed, **settings) for seed in range(16)]
    maps, errors = (np.concatenate([run[i] for run in runs]) for i in (0, 1))
    truth = expected_rise(weights[1], images[0], keep)
    if not centred:
        truth = truth + mean_score(weights[1], biases[1], images[0], keep)
    off = (maps - truth) / errors  # in standard errors, 16 runs x 16 places
    assert np.abs(off).max() < 5 and np.abs(off).max() > 1
    assert np.abs(off.mean(axis=0)).max() < 4.5 / 16**0.5, "biased"
    spread, said = maps.std(axis=0, ddof=1), errors.mean(axis=0)
    assert np.sqrt((spread**2 / said**2).mean()) == pytest.approx(1, abs=0.2), (
        "the standard error is not the spread"
    )
    assert all(run[2] == masks for run in runs)


def test_rise_is_the_covariance_of_score_and_mask_over_keep():
    model, images = gap_net(), batch()
    masks = masks_of(range(50), (12, 12), 3, keep=0.3)
    hidden = (images[:, None] + 1) * masks[None, ..., None] - 1  # black is -1
    left = forward(model, hidden.reshape(-1, 12, 12, 3)).numpy().reshape(3, 50, 5)
    settings = {"masks": 50, "grid": 3, "keep": 0.3}
    for probability, weights in ((False, left), (True, tf.nn.softmax(left).numpy())):
        weights = weights[..., 2].astype(float)
        plain = np.einsum("nf,fhw->nhw", weights, masks) / (50 * 0.3)
        level = weights.mean(axis=1)[:, None, None] * masks.mean(axis=0) / 0.3
        for centred, expected in ((True, plain - level), (False, plain)):
            maps = attribution.rise(
                model, images, 2, centred=centred, probability=probability, **settings
            )
            np.testing.assert_allclose(maps, expected, atol=2e-5 * np.abs(plain).max())


def test_subtracting_the_mean_takes_noise_away_where_the_level_is_high():
    model, weights, _ = linear_net(4)
    images = batch(4, 1)
    truth = expected_rise(weights[1], images[0], 0.5)
    _, noisy, _ = attribution.rise(model, images, 1, 400, grid=4, centred=False, return_error=True)
    maps, calm, _ = attribution.rise(model, images, 1, 400, grid=4, return_error=True)
    # the level, about 10, comes along with every mask; the score itself varies by what truth says
    assert noisy.mean() > 1.5 * calm.mean()
    assert np.abs((maps[0] - truth) / calm[0]).max() < 5


def test_rise_masks_are_soft_in_range_and_keep_as_much_as_asked():
    masks = masks_of(range(3000), (12, 10), 3, keep=0.3)
    assert masks.shape == (3000, 12, 10)
    assert masks.min() >= 0 and masks.max() <= 1
    assert 0.3 < ((masks > 0.01) & (masks < 0.99)).mean() < 0.9
    # Neighbouring pixels share cells, so the mean over all is less certain than a coin thrown for
    # each would be.
    assert masks.mean() == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(masks.mean(axis=0), 0.3, atol=5 * 0.46 / 3000**0.5)


def test_rise_masks_of_one_cell_a_pixel_are_independent_coins():
    masks = masks_of(range(4000), (4, 4), 4)
    assert set(np.unique(masks)) == {0, 1}
    correlation = np.corrcoef(masks.reshape(4000, -1).T) - np.eye(16)
    assert np.abs(correlation).max() < 5 / 4000**0.5


def test_the_seed_and_the_number_decide_a_mask_alone():
    together = masks_of([0, 1, 2, 3], (12, 12), 3, seed=7)
    np.testing.assert_array_equal(together[2:], masks_of([2, 3], (12, 12), 3, seed=7))
    for seed in (6, 8):
        other = masks_of([0, 1, 2, 3], (12, 12), 3, seed=seed)
        assert np.abs(together - other).max((1, 2)).min() > 0.1
    model, images = gap_net(), batch()
    one, again, other = (
        attribution.rise(model, images, masks=20, grid=3, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3


def test_the_shift_of_one_seed_tells_nothing_about_the_cells_of_the_next():
    """Was wrong once: both came from the same random numbers."""
    # One cell of 64 pixels: the shift decides how much of the second cell is seen, so where a mask
    # is half-way.
    one, next_one = (masks_of(range(1500), (64, 1), 1, seed=seed)[..., 0] for seed in (0, 1))
    steep = np.abs(np.diff(one, axis=1)).max(axis=1) > 0
    shift, kept = np.abs(np.diff(one[steep], axis=1)).argmax(axis=1), next_one[steep].mean(axis=1)
    assert steep.sum() > 500 and shift.std() > 5
    assert abs(np.corrcoef(shift, kept)[0, 1]) < 5 / steep.sum() ** 0.5


def test_rise_stops_when_the_map_has_settled(monkeypatch):
    model, images = linear_net(4)[0], batch(4, 1)
    monkeypatch.setattr(perturbation, "IMAGES_AT_ONCE", 50)
    chunks, sums = [], perturbation.compiled

    def counting(model, function, /, **settings):
        run = sums(model, function, **settings)
        if function is not perturbation._rise_sums:
            return run
        return lambda *tensors: (chunks.append(len(tensors[-1])), run(*tensors))[1]

    monkeypatch.setattr(perturbation, "compiled", counting)
    settings = {"target": 1, "grid": 4, "return_error": True}
    maps, errors, used = attribution.rise(model, images, masks=4000, tolerance=0.1, **settings)
    assert sum(chunks) == used < 4000 and set(chunks) == {50}
    assert errors.mean() < 0.1 * np.ptp(maps)
    np.testing.assert_allclose(
        maps, attribution.rise(model, images, masks=used, **settings)[0], atol=1e-6
    )
    earlier = attribution.rise(model, images, masks=used - 50, **settings)
    assert earlier[1].mean() >= 0.1 * np.ptp(earlier[0]), "it could have stopped before"
    assert attribution.rise(model, images, masks=300, tolerance=1e-9, **settings)[2] == 300


def test_rise_weighs_with_any_score():
    model, images = gap_net(), batch()
    settings = {"masks": 40, "grid": 3}
    probability = attribution.rise(
        model, images, lambda s: tf.nn.softmax(s)[:, 2], centred=False, **settings
    )
    said = attribution.rise(model, images, 2, probability=True, centred=False, **settings)
    np.testing.assert_allclose(probability, said, atol=1e-6)
    logit = attribution.rise(model, images, 2, probability=False, centred=False, **settings)
    assert probability.min() > 0 and probability.max() < 1.5
    assert np.abs(probability - logit).max() > 0.01

    # The scores of a constant model: every place has it times the share of masks that keep the
    # place, over keep; and nothing, when the mean is taken off.
    def three(logits):
        return tf.zeros_like(logits[:, 0]) + 3.0

    constant = attribution.rise(model, images, three, centred=False, **settings)
    masks = masks_of(range(40), (12, 12), 3)
    np.testing.assert_allclose(constant, np.stack([6 * masks.mean(axis=0)] * 3), rtol=1e-5)
    np.testing.assert_allclose(attribution.rise(model, images, three, **settings), 0, atol=1e-5)


# --- Sobol indices --------------------------------------------------------------------------------


def test_the_design_has_two_sets_of_even_points_and_those_with_one_column_swapped():
    first, second, *swapped = attribution.sobol_design(3, 64, seed=1)
    for i, points in enumerate(swapped):
        expected = first.copy()
        expected[:, i] = second[:, i]
        np.testing.assert_array_equal(points, expected)
    both = np.hstack([first, second])
    # each of 64 equal parts of each column holds one of 64 points: that is what Sobol's sequence is
    np.testing.assert_array_equal(
        np.sort((both * 64).astype(int), axis=0), np.tile(np.arange(64)[:, None], 6)
    )
    np.testing.assert_array_equal(attribution.sobol_design(3, 50, seed=1)[0], first[:50])
    assert np.abs(attribution.sobol_design(3, 64, seed=2)[0] - first).max() > 0.1


def test_ishigamis_function_has_its_published_indices():
    x = np.pi * (2 * attribution.sobol_design(3, 4096) - 1)
    one, two, three = np.moveaxis(x, -1, 0)
    scores = np.sin(one) + 7 * np.sin(two) ** 2 + 0.1 * three**4 * np.sin(one)
    indices, errors = attribution.total_indices(scores, return_error=True)
    np.testing.assert_allclose(indices, [0.558, 0.442, 0.244], atol=0.005)
    assert (errors < 0.03).all()
    np.testing.assert_allclose(attribution.total_indices(5 - 3 * scores), indices, rtol=1e-9)


def test_total_indices_of_a_sum_are_shares_and_of_a_product_more():
    weights = np.array([3.0, 2.0, 1.0, 0.0])
    x = attribution.sobol_design(4, 1024, seed=3)
    shares = weights**2 / (weights**2).sum()
    np.testing.assert_allclose(attribution.total_indices(x @ weights), shares, atol=2e-3)
    # of x y the variance is 7 / 144, and that which is left when x is known 1 / 36
    product = attribution.total_indices(x[..., 0] * x[..., 1])
    np.testing.assert_allclose(product, [4 / 7, 4 / 7, 0, 0], atol=5e-3)
    several = attribution.total_indices(np.stack([x @ weights, x[..., 0] * x[..., 1]]))
    np.testing.assert_allclose(several[1], product)


def test_the_standard_error_of_total_indices_is_the_spread_of_independent_points():
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        first, second = rng.random((2, 200, 3))
        sets = [first, second] + [np.where(np.arange(3) == i, second, first) for i in range(3)]
        scores = np.prod(1 + np.stack(sets), axis=-1)
        found.append(attribution.total_indices(scores, return_error=True))
    indices, errors = (np.stack(values) for values in zip(*found))
    np.testing.assert_allclose(errors.mean(axis=0), indices.std(axis=0), rtol=0.15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attribution.total_indices(np.zeros((2, 8))), r"not \(2, 8\)"),
        (lambda: attribution.total_indices(np.zeros((5, 1))), r"not \(5, 1\)"),
        (lambda: attribution.total_indices(np.zeros(5)), r"not \(5,\)"),
        (lambda: attribution.sobol_design(0, 8), "got 0 and 8"),
        (lambda: attribution.sobol_design(20000, 8), "1 to 10600 factors.*got 20000 and 8"),
        (lambda: attribution.sobol_design(4, 1), "got 4 and 1"),
    ],
)
def test_a_design_that_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_function_without_variance_has_no_indices():
    indices, errors = attribution.total_indices(np.full((6, 8), 3.0), return_error=True)
    assert not indices.any() and not errors.any()


@pytest.mark.parametrize("fill", ["black", 0.3])
def test_sobol_of_a_linear_model_is_each_cells_share_of_the_variance(fill):
    model, weights, _ = linear_net(6)
    images = batch(6, 2)
    maps, errors = attribution.sobol(
        model, images, 1, grid=3, samples=1024, fill=fill, return_error=True
    )
    each = (weights[1] * (images - (-1 if fill == "black" else fill))).sum(-1)
    cells = each.reshape(2, 3, 2, 3, 2).sum((2, 4))  # what a cell of 2 x 2 pixels brings
    shares = cells**2 / (cells**2).sum((1, 2), keepdims=True)
    np.testing.assert_allclose(maps, shares, atol=5e-3)
    assert maps.dtype == errors.dtype == np.float32 and errors.max() < 0.02
    assert np.abs((maps - shares) / errors).max() < 4


# --- extremal perturbation ------------------------------------------------------------------------


def square_reader(size=24, rows=slice(4, 12), columns=slice(12, 20)):
    """A network that adds up the pixels of one square, and where it is, bool `(size, size)`."""
    inputs = keras.Input((size, size, 3))
    head = layers.Dense(2)
    model = keras.Model(inputs, head(layers.Flatten()(inputs)), name="square_reader")
    square = np.zeros((size, size), bool)
    square[rows, columns] = True
    kernel = np.repeat(square[..., None], 3, axis=2).reshape(-1, 1) / 255 / square.sum()
    head.set_weights([np.hstack([kernel, -kernel]), np.zeros(2)])
    return model, square


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_extremal_perturbation_finds_the_square_that_is_read_at_its_area(scale):
    model, square = square_reader()
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * scale, bias + 7])  # whatever a score is counted in
    images = np.full((1, 24, 24, 3), 200, np.float32)
    maps, masks, kept = attribution.extremal_perturbation(
        model, images, 0, square.mean(), grid=24, radius=1.5, fill="black", return_masks=True
    )
    found = maps[0] > 0.5
    assert (found & square).sum() / (found | square).sum() > 0.8
    assert maps.min() >= 0 and maps.max() <= 1
    assert maps.mean() == pytest.approx(square.mean(), rel=0.25)
    whole = 7 + scale * 3 * 200 / 255
    assert kept[0, 0] > 7 + 0.9 * (whole - 7)
    np.testing.assert_array_equal(masks[0], maps)


def test_several_areas_are_their_masks_and_the_mean_of_them():
    model, square = square_reader()
    images = np.random.default_rng(0).uniform(50, 250, (2, 24, 24, 3)).astype(np.float32)
    settings = {"grid": 12, "radius": 1.0, "steps": 40, "fill": "black", "return_masks": True}
    maps, masks, kept = attribution.extremal_perturbation(
        model, images, 0, area=[0.05, 0.2], **settings
    )
    assert masks.shape == (2, 2, 24, 24) and kept.shape == (2, 2)
    np.testing.assert_allclose(maps, masks.mean(axis=0), atol=1e-6)
    assert (masks[0].mean((1, 2)) < masks[1].mean((1, 2))).all() and (kept[0] < kept[1]).all()
    for i, area in enumerate((0.05, 0.2)):
        alone = attribution.extremal_perturbation(model, images, 0, area=area, **settings)
        np.testing.assert_allclose(alone[1][0], masks[i], atol=1e-4)


def test_grids_one_after_another_give_what_each_gives_alone():
    images = np.random.default_rng(0).uniform(50, 250, (1, 24, 24, 3)).astype(np.float32)
    shared, _ = square_reader()
    for grid in (8, 12):
        settings = {"grid": grid, "radius": 1.0, "steps": 9, "fill": "black"}
        maps = attribution.extremal_perturbation(shared, images, 0, **settings)
        alone = attribution.extremal_perturbation(square_reader()[0], images, 0, **settings)
        np.testing.assert_allclose(maps, alone, atol=1e-4)


def test_a_smooth_mask_treats_the_border_as_the_middle_and_keeps_what_is_flat():
    smooth_mask = import_module("xai_utils.attribution.extremal").smooth_mask
    for value in (0.0, 0.4):
        flat = smooth_mask(tf.fill((1, 9, 7), value), 1.5).numpy()
        np.testing.assert_allclose(flat, flat[0, 4, 3], atol=1e-6)
        assert value * 0.4 <= flat.max() <= value
    one = np.zeros((1, 15, 15), np.float32)
    one[0, 7, 7] = 1
    disc = smooth_mask(tf.constant(one), 2.0).numpy()[0]
    # by the formula: one disc among zeros, of which there are 80 more within reach
    for away in (0, 1, 2, 3, 4):
        k = np.exp(-2 * max(away / 2 - 0.5, 0) ** 2)
        assert disc[7, 7 + away] == pytest.approx(
            k * np.exp(20 * k) / (np.exp(20 * k) + 80), rel=1e-4
        )
    assert disc[7, 12] == 0
    np.testing.assert_allclose(disc, disc.T, atol=1e-6)


# --- LIME and Kernel SHAP -------------------------------------------------------------------------


def additive(image, segments, seed=0):
    """A linear model of the picture, and the weight of each superpixel when covered with 0."""
    model, weights, _ = linear_net(len(image), seed=seed)
    regions = attribution.superpixels(image, segments)
    each = (weights[1] * image).sum(-1)
    return model, regions, np.array([each[regions == r].sum() for r in range(regions.max() + 1)])


def test_superpixels_are_numbered_from_zero_and_as_many_as_wished_for():
    for image in (picture(), 255 * picture(), np.ones((12, 12, 3)), picture()[..., :1]):
        regions = attribution.superpixels(image, 9)
        assert regions.shape == (12, 12) and set(np.unique(regions)) == set(
            range(regions.max() + 1)
        )
        assert 4 <= regions.max() + 1 <= 16
    np.testing.assert_array_equal(
        attribution.superpixels(picture(), 9), attribution.superpixels(255 * picture(), 9)
    )


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("segments", [2, 20, 50])
def test_grain_is_cut_into_about_as_many_superpixels_as_wished_for(segments, channels):
    grain = np.random.default_rng(0).normal(105, 30, (48, 96, channels)).clip(0, 255)
    regions = attribution.superpixels(grain, segments)
    assert segments / 3 <= regions.max() + 1 <= 1.5 * segments
    assert regions.max() > 0
    largest = np.bincount(regions.ravel()).max()
    assert largest <= 4 * regions.size / (regions.max() + 1), "no region swallows the others"


def test_lime_and_kernel_shap_of_an_additive_score_are_exact():
    image = picture()
    model, regions, weights = additive(image, 9)
    assert len(weights) >= 6
    lime = attribution.lime(model, image[None], 1, segments=9, samples=200, fill=0, penalty=0)
    np.testing.assert_allclose(lime[0], weights[regions], atol=1e-4)
    shap = attribution.kernel_shap(model, image[None], 1, segments=9, samples=200, fill=0)
    np.testing.assert_allclose(shap[0], weights[regions], atol=1e-4)
    shrunk = attribution.lime(model, image[None], 1, segments=9, samples=200, fill=0, penalty=20)
    assert np.linalg.norm(shrunk) < 0.8 * np.linalg.norm(lime), "the penalty pulls towards 0"


def test_the_cover_is_the_mean_colour_or_what_is_asked_for():
    image = picture() + 0.1 * batch()[0]
    model, regions, weights = additive(image, 9)
    flat = attribution.mean_colours(image, regions)
    np.testing.assert_allclose(
        flat[regions == 2], np.broadcast_to(image[regions == 2].mean(0), (np.sum(regions == 2), 3))
    )
    left = additive_weights(model, regions, image - flat)
    settings = {"target": 1, "segments": 9, "samples": 100}
    for fill in (None, flat[None]):
        shap = attribution.kernel_shap(model, image[None], fill=fill, **settings)
        np.testing.assert_allclose(shap[0], left[regions], atol=1e-4)
    assert np.abs(left - weights).max() > 0.1


def additive_weights(model, regions, image):
    kernel = model.layers[-1].get_weights()[0][:, 1].reshape(image.shape)
    return np.array(
        [(kernel * image).sum(-1)[regions == r].sum() for r in range(regions.max() + 1)]
    )


def test_lime_is_the_weighted_ridge_regression_of_its_samples():
    model, images = gap_net(), pictures(1)
    regions = attribution.superpixels(images[0], 9)
    kept = np.random.default_rng(3).integers(0, 2, (40, regions.max() + 1)).astype(bool)
    kept[0] = True
    covered = np.where(kept[:, regions][..., None], images[0], np.float32([0.9, 0.1, 0.3]))
    scores = forward(model, covered).numpy()[:, 2].astype(float)
    distance = 1 - kept.sum(1) / (np.sqrt(kept.sum(1)) * np.sqrt(kept.shape[1]) + 1e-30)
    weights = np.exp(-(distance**2) / 0.25**2)
    z, y = (v - np.average(v, axis=0, weights=weights) for v in (kept.astype(float), scores))
    expected = np.linalg.solve(z.T * weights @ z + 2.0 * np.eye(z.shape[1]), z.T * weights @ y)
    lime = attribution.lime(
        model, images, 2, segments=9, samples=40, penalty=2.0, seed=3, fill=[0.9, 0.1, 0.3]
    )
    assert np.abs(expected).max() > 5e-3
    np.testing.assert_allclose(lime[0], expected[regions], atol=1e-3 * np.abs(expected).max())


def test_kernel_shap_is_the_shapley_value_and_sums_to_the_difference():
    blocks = np.random.default_rng(3).uniform(0.3, 0.7, (1, 2, 3, 3))
    model, images = gap_net(), np.kron(blocks, np.ones((1, 6, 4, 1))).astype(np.float32)
    regions = attribution.superpixels(images[0], 6)
    features = regions.max() + 1
    assert 3 <= features <= 6
    cover = np.float32([0.9, 0.1, 0.3])
    subsets = np.array(list(itertools.product([False, True], repeat=features)))
    covered = np.where(subsets[:, regions][..., None], images[0], cover)
    scores = dict(zip(map(tuple, subsets), forward(model, covered).numpy()[:, 2].astype(float)))
    exact = np.zeros(features)
    for order in itertools.permutations(range(features)):
        present = np.zeros(features, bool)
        for r in order:
            before = scores[tuple(present)]
            present[r] = True
            exact[r] += (scores[tuple(present)] - before) / math.factorial(features)
    assert np.abs(exact).max() > 5e-3
    shap = attribution.kernel_shap(
        model, images, 2, segments=6, samples=4000, fill=[0.9, 0.1, 0.3]
    )[0]
    values = np.array([shap[regions == r][0] for r in range(features)])
    # By pairs, and with few superpixels, the samples hold nearly every subset in the right share.
    np.testing.assert_allclose(values, exact, atol=0.05 * np.abs(exact).max())
    whole, nothing = scores[(True,) * features], scores[(False,) * features]
    assert values.sum() == pytest.approx(whole - nothing, abs=1e-5)
    few = attribution.kernel_shap(model, images, 2, segments=6, samples=24, fill=[0.9, 0.1, 0.3])[0]
    assert sum(few[regions == r][0] for r in range(features)) == pytest.approx(
        whole - nothing, abs=1e-5
    )


def test_kernel_shap_refuses_samples_that_leave_values_open(monkeypatch):
    """Nine superpixels worth 1 each: 12 samples are five equations for eight unknown."""
    image = np.kron(np.arange(1.0, 10).reshape(1, 3, 3, 1), np.ones((1, 4, 4, 3))) / 16
    regions = np.arange(9).reshape(3, 3).repeat(4, axis=0).repeat(4, axis=1)
    monkeypatch.setattr(superpixels_room, "superpixels", lambda *_: regions)
    inputs = keras.Input((12, 12, 3))
    model = keras.Model(inputs, layers.Dense(1, use_bias=False)(layers.Flatten()(inputs)))
    model.set_weights([(1 / image / 48).reshape(-1, 1)])
    settings = {"target": 0, "segments": 9, "fill": 0}
    with pytest.raises(ValueError, match="12 samples leave the values of 9 superpixels open") as no:
        attribution.kernel_shap(model, image, samples=12, **settings)
    assert "rank 5 of 8" in str(no.value) and "\n" not in str(no.value)
    # As many equations as unknown are not enough either, where draws repeat.
    with pytest.raises(ValueError, match=r"rank 7 of 8\): take about 54"):
        attribution.kernel_shap(model, image, samples=18, seed=2, **settings)
    shap = attribution.kernel_shap(model, image, samples=54, seed=2, **settings)
    np.testing.assert_allclose(shap, np.ones((1, 12, 12)), atol=1e-5)


def test_kernel_shap_draws_pairs_with_the_sizes_of_the_shapley_kernel(monkeypatch):
    drawn, scores = [], attribution.kept_scores
    monkeypatch.setattr(
        superpixels_room,
        "kept_scores",
        lambda *args: (drawn.append(args[4]), scores(*args))[1],
    )
    attribution.kernel_shap(gap_net(), pictures(1), 0, segments=9, samples=3002)
    (kept,) = drawn
    features = kept.shape[1]
    assert len(kept) == 3002 and features >= 6
    assert kept[0].all() and not kept[1].any()
    np.testing.assert_array_equal(kept[2:1502], ~kept[1502:])
    sizes = np.arange(1, features)
    kernel = 1 / (sizes * (features - sizes))
    share = np.bincount(kept[2:].sum(axis=1), minlength=features)[1:] / 3000
    np.testing.assert_allclose(share, kernel / kernel.sum(), atol=5 * 0.4 / 1500**0.5)
    assert share[0] > 1.3 * share[len(share) // 2]
    np.testing.assert_allclose(kept.mean(axis=0), 0.5, atol=1e-12)


@pytest.mark.parametrize("method", [attribution.lime, attribution.kernel_shap])
def test_the_seed_decides_the_samples(method):
    model, images = gap_net(), pictures()
    one, again, other = (
        method(model, images, segments=9, samples=30, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_model_shape_and_batch_as_singles(name, shape):
    model, images = SHAPES[shape](), pictures()
    method, settings = getattr(attribution, name), SETTINGS[name]
    maps = method(model, images, **settings)
    singles = np.concatenate([method(model, image[None], **settings) for image in images])
    np.testing.assert_allclose(maps, singles, atol=2e-5)
    assert (
        maps.dtype == np.float32
        and maps.shape[0] == 3
        and maps.ndim == 3
        and np.abs(maps).max() > 5e-3
    )
    top = forward(model, images).numpy().argmax(1)
    np.testing.assert_allclose(maps, method(model, images, top, **settings), atol=2e-5)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_size_of_a_chunk_changes_nothing_but_memory(name, monkeypatch):
    model, images = gap_net(), pictures()
    method, settings = getattr(attribution, name), SETTINGS[name]
    maps = []
    for at_once in (64, 7, 1):
        monkeypatch.setattr(perturbation, "IMAGES_AT_ONCE", at_once)
        maps.append(method(model, images, 1, **settings))
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-5)
    np.testing.assert_allclose(maps[2], maps[0], atol=1e-5)


def test_no_more_pictures_at_once_than_allowed(monkeypatch):
    monkeypatch.setattr(perturbation, "IMAGES_AT_ONCE", 10)
    model, images = gap_net(), pictures()
    seen = []

    def target(logits):
        count = tf.numpy_function(
            lambda n: seen.append(int(n)) or n, [tf.shape(logits)[0]], tf.int32
        )
        with tf.control_dependencies([count]):
            return tf.identity(logits[:, 0])

    for name, settings in SETTINGS.items():
        getattr(attribution, name)(model, images, target, **settings)
    assert max(seen) <= 10 and 9 in seen, seen  # 3 masks on 3 images; one image alone, 10 at a time


@pytest.mark.parametrize("name", SETTINGS)
def test_a_callable_target_and_a_second_output(name):
    method, settings, images = getattr(attribution, name), SETTINGS[name], pictures()
    model = gap_net()
    contrast = method(model, images, lambda s: s[:, 0] - s[:, 1], **settings)
    pair = [method(model, images, k, **settings) for k in (0, 1)]
    if name not in ("sobol", "extremal_perturbation"):  # all others are linear in the score
        np.testing.assert_allclose(contrast, pair[0] - pair[1], atol=2e-5)
    edge = method(two_outputs(), images, lambda outputs: outputs["box"][:, 0], **settings)
    assert edge.shape == contrast.shape and np.abs(edge).max() > 0
    with pytest.raises(ValueError, match="callable"):
        method(two_outputs(), images, 0, **settings)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_constant_shift_of_the_logits_changes_nothing(name):
    model, images = gap_net(), pictures()
    before = getattr(attribution, name)(model, images, 1, **SETTINGS[name])
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel, bias + 10])
    np.testing.assert_allclose(
        getattr(attribution, name)(model, images, 1, **SETTINGS[name]), before, atol=5e-4
    )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("occlusion", {"patch": 13}, "patch must be 1 to 12 and stride at least 1, got 13, 16"),
        ("occlusion", {"patch": 0}, "patch must be 1 to 12"),
        ("occlusion", {"patch": 4, "stride": 0}, "stride at least 1, got 4, 0"),
        ("occlusion", {"patch": 4, "fill": np.nan}, "fill must be finite"),
        (
            "occlusion",
            {"patch": 4, "fill": np.zeros(4)},
            r"a colour \(3,\) or pictures \(3, 12, 12, 3\)",
        ),
        ("occlusion", {"patch": 4, "fill": "grey"}, "no filling is called 'grey'; it may be black"),
        ("rise", {"masks": 1}, "masks >= 2"),
        ("rise", {"grid": 0}, "grid 1 to 12"),
        ("rise", {"grid": 13}, "grid 1 to 12"),
        ("rise", {"keep": 0.0}, "0 < keep < 1"),
        ("rise", {"keep": 1.0}, "0 < keep < 1"),
        ("sobol", {"grid": 13}, "grid 1 to 12 and samples >= 2 are needed, got 13 and 32"),
        ("sobol", {"samples": 1}, "got 8 and 1"),
        ("sobol", {"fill": "grey"}, "no filling is called 'grey'"),
        ("extremal_perturbation", {"area": 1.0}, "share between 0 and 1, not 1.0"),
        ("extremal_perturbation", {"area": [0.1, 0]}, r"share between 0 and 1, not \[0.1, 0\]"),
        ("extremal_perturbation", {"area": []}, "share between 0 and 1"),
        ("extremal_perturbation", {"grid": 13}, "grid 1 to 12.*got 13, 150, 2.5"),
        ("extremal_perturbation", {"grid": 6, "steps": 0}, "steps >= 1"),
        ("extremal_perturbation", {"grid": 6, "radius": 0.0}, "radius > 0"),
        ("lime", {"segments": 1}, "at least 2 segments and 10 samples"),
        ("lime", {"samples": 9}, "at least 2 segments and 10 samples"),
        ("lime", {"penalty": -1.0}, "penalty must not be negative, got -1.0"),
        ("lime", {"fill": np.inf}, "fill must be finite"),
        ("kernel_shap", {"samples": 0}, "at least 2 segments and 10 samples"),
        *(
            (name, {"images": np.full((1, 12, 12, 3), np.nan)}, "432 values that are NaN")
            for name in SETTINGS
        ),
        *((name, {"images": batch()[0]}, r"pass image\[None\]") for name in SETTINGS),
        *(
            (name, {"target": 5, "images": batch()}, "target 5 is out of range")
            for name in SETTINGS
        ),
    ],
)
def test_bad_input_is_one_clear_line(name, arguments, message):
    settings = SETTINGS[name] if arguments.keys() & {"images"} else {}
    with pytest.raises(ValueError, match=message) as caught:
        getattr(attribution, name)(gap_net(), **{"images": batch(), **settings, **arguments})
    assert "\n" not in str(caught.value)


def test_one_superpixel_is_refused():
    model, image = linear_net(4)[0], np.zeros((1, 4, 4, 3))
    tiny = np.zeros((1, 1, 1, 1))
    assert attribution.superpixels(tiny[0], 2).max() == 0
    inputs = keras.Input((1, 1, 1))
    dot = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="SLIC finds 1 superpixel in image 0"):
        attribution.kernel_shap(dot, tiny)
    assert np.isfinite(attribution.kernel_shap(model, image, 0, segments=4)).all()
