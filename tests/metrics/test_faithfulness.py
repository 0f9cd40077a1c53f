"""Faithfulness where the answer is known: additive and constant functions, holes in a ramp."""

from functools import partial
from itertools import permutations

import numpy as np
import pytest
from nets import batch, divided_by_spread, gap_net, with_a_black_one

from xai_utils import attribution, keras, metrics

WEIGHTS = np.array([[0.5, -0.25, 2.0], [1.0, 0.125, 0.0]], np.float32)
PICTURE = np.array([[2.0, 4, 1], [3, 8, 5]], np.float32)[None, ..., None]
GIVES = WEIGHTS * PICTURE[0, ..., 0]  # what each pixel adds to the score


def additive(weights=WEIGHTS) -> keras.Model:
    """The score is `sum(weights * pixels)`."""
    weights = np.asarray(weights, np.float32)
    channels = weights.shape[2] if weights.ndim == 3 else 1
    pixels = keras.Input((*weights.shape[:2], channels))
    model = keras.Model(
        pixels, keras.layers.Dense(1, use_bias=False)(keras.layers.Flatten()(pixels))
    )
    model.layers[-1].set_weights([weights.reshape(-1, 1)])
    return model


LOGIT = {"target": 0, "probability": False, "step": 1}


def every_order() -> np.ndarray:
    """A map for each of the 720 orders of six pixels, `(720, 1, 2, 3)`."""
    return np.array(list(permutations(range(6))), np.float32).reshape(-1, 1, 2, 3)


def test_the_order_of_the_contributions_has_the_least_area():
    model, orders = additive(), every_order()
    found = metrics.deletion(model, PICTURE, orders, **LOGIT)
    best = metrics.deletion(model, PICTURE, GIVES[None], **LOGIT)
    assert found.scores.shape == (720, 1, 7)
    assert best.area[0] == pytest.approx(found.area.min(), abs=1e-5)
    added = metrics.insertion(model, PICTURE, orders, fill=0.0, **LOGIT)
    best = metrics.insertion(model, PICTURE, GIVES[None], fill=0.0, **LOGIT)
    assert best.area[0] == pytest.approx(added.area.max(), abs=1e-5)


def test_a_random_order_has_the_mean_of_both_ends():
    found = metrics.deletion(additive(), PICTURE, every_order(), **LOGIT)
    np.testing.assert_allclose(found.scores[:, 0, 0], GIVES.sum(), rtol=1e-6)
    np.testing.assert_allclose(found.scores[:, 0, -1], 0, atol=1e-6)
    assert found.area.mean() == pytest.approx(GIVES.sum() / 2, rel=1e-5)


def test_curves_go_step_by_step():
    maps = -np.arange(6.0).reshape(1, 2, 3)  # in reading order
    curve = metrics.deletion(additive(), PICTURE, maps, **LOGIT)
    np.testing.assert_allclose(
        curve.scores[0], GIVES.sum() - np.append(0, GIVES.cumsum()), atol=1e-5
    )
    np.testing.assert_allclose(curve.shares, np.arange(7) / 6)
    both = metrics.deletion_and_insertion(additive(), PICTURE, maps, 0, 4, (0.0, 0.0), False)
    np.testing.assert_allclose([c.shares for c in both], [[0, 4 / 6, 1]] * 2)
    np.testing.assert_allclose(both[0].scores + both[1].scores, GIVES.sum(), atol=1e-5)


@pytest.mark.parametrize("step, points", [(0.25, 5), (0.3, 5), (50, 4), (1, 145), (500, 2)])
def test_step_is_a_share_or_a_number_of_pixels(step, points):
    shares = metrics.deletion(gap_net(), batch(count=1), np.zeros((1, 12, 12)), step=step).shares
    assert (
        len(shares) == points and shares[0] == 0 and shares[-1] == 1 and (np.diff(shares) > 0).all()
    )


def test_several_techniques_give_what_each_gives_and_a_batch_what_its_images_give():
    model, images = gap_net(), 50 * batch()
    maps = np.stack(
        [attribution.grad_cam(model, images, relu=False), attribution.hires_cam(model, images)]
    )

    def everything(i, m):
        both = metrics.deletion_and_insertion(model, images[i], maps[m][..., i, :, :], step=0.2)
        drop = metrics.average_drop(model, images[i], maps[m][..., i, :, :])
        infidel = metrics.infidelity(model, images[i], maps[m][..., i, :, :], samples=5)
        imputed = metrics.road(model, images[i], maps[m][..., i, :, :], shares=(0.2, 0.6))
        return [*(c.area for c in both), *drop, infidel, imputed.most, imputed.least]

    for together, *alone in zip(
        everything(slice(None), slice(None)), everything(slice(None), 0), everything([2], 1)
    ):
        np.testing.assert_allclose(together[0], alone[0], atol=1e-5)
        np.testing.assert_allclose(together[1, 2:], alone[1], atol=1e-5)


def test_average_drop_and_increase():
    # The probability of a class whose logit is the sum of the pixels, against a logit of 0.
    pixels = keras.Input((2, 2, 1))
    model = keras.Model(
        pixels, keras.layers.Dense(2, use_bias=False)(keras.layers.Flatten()(pixels))
    )
    model.layers[-1].set_weights([np.array([[0, 1], [0, 1], [0, 1], [0, -1]], np.float32)])
    picture = np.array([1.0, 1, 1, 2]).reshape(1, 2, 2, 1)

    def probability(logit):
        return 1 / (1 + np.exp(-logit))

    maps = np.array([[4.0, 2, 0, -9], [1, 1, 1, 0], [0, 0, 0, 5], [-1, -2, -3, -4]]).reshape(
        4, 1, 2, 2
    )
    drop, increase = metrics.average_drop(model, picture, maps, target=1)
    kept = np.array([1.5, 3, -2, 0])
    expected = 1 - probability(kept) / probability(1)
    np.testing.assert_allclose(drop[:, 0], np.maximum(expected, 0), atol=1e-6)
    np.testing.assert_array_equal(increase[:, 0], [1, 1, 0, 0])


def test_a_linear_function_has_no_infidelity():
    rng = np.random.default_rng(0)
    model, images = (
        additive(rng.normal(size=(12, 12, 3))),
        rng.uniform(0, 1, (2, 12, 12, 3)).astype(np.float32),
    )
    gradient = attribution.pixel_gradient(model, images, 0)
    for fill in (0.0, "mean"):
        cover = 0.0 if fill == 0.0 else images.mean((1, 2), keepdims=True)
        exact = ((images - cover) * gradient).sum(-1)
        assert metrics.infidelity(model, images, exact, 0, fill=fill).max() < 1e-8
        assert metrics.infidelity(model, images, 7 * exact, 0, fill=fill, scaled=True).max() < 1e-6
        assert metrics.infidelity(model, images, -exact, 0, fill=fill, scaled=True).min() == 1, (
            "the opposite"
        )
    product = attribution.gradient_x_input(model, images, 0)
    assert metrics.infidelity(model, images, product, 0).max() < 1e-8
    doubled = metrics.infidelity(model, images, 2 * product, 0)
    cost = metrics.infidelity(model, images, 0 * product, 0)
    np.testing.assert_allclose(doubled, cost, rtol=1e-4)  # (2 c - c)^2 = (0 - c)^2
    np.testing.assert_allclose(metrics.infidelity(model, images, 0 * product, 0, scaled=True), 1)


def test_max_sensitivity():
    rng = np.random.default_rng(0)
    model, images = (
        additive(rng.normal(size=(12, 12, 3))),
        100 * rng.random((2, 12, 12, 3)).astype(np.float32),
    )
    # a constant gradient
    assert metrics.max_sensitivity(attribution.saliency, model, images, 0).max() < 1e-6

    def pixels(model, images, target):
        return images[..., 0]

    few, many = (metrics.max_sensitivity(pixels, model, images, 0, 0.1, n) for n in (1, 20))
    bound = 25.5 * np.sqrt(144) / np.linalg.norm(images[..., 0], axis=(1, 2))
    assert (few <= many).all() and (many < bound).all() and (many > 0.5 * bound).all()
    np.testing.assert_allclose(
        metrics.max_sensitivity(pixels, model, images, 0, 0.2, 1), 2 * few, rtol=1e-5
    )
    assert np.isnan(metrics.max_sensitivity(lambda m, i, t: 0 * i[..., 0], model, images, 0)).all()
    known = metrics.max_sensitivity(pixels, model, images, 0, 0.1, 1, maps=pixels(model, images, 0))
    np.testing.assert_array_equal(known, few)


def test_road_removes_what_the_map_says():
    size, rng = 12, np.random.default_rng(0)
    weights = np.zeros((size, size, 1), np.float32)
    weights[4:8, 4:8] = 1  # a bright square on a black picture is the whole score
    image = 200.0 * weights[None]
    found = metrics.road(
        additive(weights),
        image,
        weights[None, ..., 0],
        0,
        (16 / 144, 0.5),
        noise=0,
        probability=False,
    )
    whole = 200 * 16
    assert (
        found.most[0, 0] < 0.01 * whole
        and found.least[0].min() > 0.99 * whole
        and found.gap[0] > 0.99 * whole
    )
    blind = metrics.road(
        additive(weights), image, rng.random((200, 1, size, size)), 0, (0.5,), 0, probability=False
    )
    assert abs(blind.gap.mean()) < 4 * blind.gap.std() / np.sqrt(200)


def test_edges_of_a_ramp_are_its_slope():
    ramp = np.broadcast_to(3.0 * np.arange(10)[None, None, :, None], (1, 10, 10, 3))
    assert np.allclose(attribution.edges(None, ramp)[:, 1:-1, 1:-1], 3, atol=1e-4)
    assert np.allclose(attribution.edges(None, np.full((1, 8, 8, 3), 90)), 0, atol=1e-4)
    pictures = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3))
    assert np.allclose(
        attribution.edges(None, pictures)[1:2], attribution.edges(None, pictures[1:2])
    )


NET, IMAGES, MAPS = gap_net(), batch(), np.ones((3, 6, 6))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda: metrics.deletion(NET, IMAGES, MAPS[:2]),
            r"maps has shape \(2, 6, 6\): 3 images take",
        ),
        (lambda: metrics.deletion(NET, IMAGES, MAPS[0]), r"maps has shape \(6, 6\)"),
        (lambda: metrics.deletion(NET, IMAGES, MAPS * np.nan), "108 values that are NaN"),
        (lambda: metrics.deletion(NET, IMAGES, MAPS, step=0), "a whole number of pixels, not 0"),
        (lambda: metrics.deletion(NET, IMAGES, MAPS, step=1.5), "not 1.5"),
        (lambda: metrics.insertion(NET, IMAGES, MAPS, fill="grey"), "no filling is called 'grey'"),
        (lambda: metrics.average_drop(NET, IMAGES, MAPS, 9), "target 9 is out of range"),
        (lambda: metrics.infidelity(NET, IMAGES, MAPS, samples=1), "2 samples, not 1"),
        (
            lambda: metrics.max_sensitivity(attribution.saliency, NET, IMAGES, samples=0),
            "1 sample, not 0",
        ),
        (
            lambda: metrics.road(NET, IMAGES, MAPS, shares=(0.5, 1)),
            r"both excluded; got \[0.5, 1.0\]",
        ),
        (lambda: metrics.impute(IMAGES[0], np.ones((12, 12))), "leaves something"),
    ],
)
def test_bad_input_is_one_clear_line(call, told):
    with pytest.raises(ValueError, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.deletion,
        metrics.insertion,
        metrics.average_drop,
        metrics.infidelity,
        partial(metrics.road, noise=0),
    ],
)
def test_scores_that_are_not_finite_make_no_metric(metric):
    model, images = divided_by_spread(), with_a_black_one()
    told = r"^spread answers a whole, partly covered or black picture with NaN or infinity: [^\n]*$"
    with pytest.raises(metrics.NoScoreError, match=told):
        metric(model, images, images[..., 0], 0)
    if metric is not metrics.deletion:  # which ends in black
        metric(model, images[2:], images[2:, ..., 0], 0)


def test_known_scores_of_whole_pictures_are_not_computed_again():
    model, images = gap_net(), batch()
    maps = np.random.default_rng(0).normal(size=(2, len(images), 6, 6)).astype(np.float32)
    logits = model(images).numpy()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    top, each = logits.argmax(axis=1), np.arange(len(images))
    pairs = [
        (metrics.average_drop, shares),
        (metrics.deletion_and_insertion, shares),
        (metrics.infidelity, logits),
    ]
    for metric, scores in pairs:
        known = metric(model, images, maps, top, whole=scores[each, top])
        for got, computed in zip(known, metric(model, images, maps, top), strict=True):
            if isinstance(got, metrics.Curves):
                got, computed = got.scores, computed.scores
            np.testing.assert_allclose(got, computed, rtol=1e-5, atol=1e-6)
    tiny = metrics.average_drop(model, images, maps, top, whole=1e-9 * shares[each, top])
    assert (tiny.increase == 1).all()  # they are used: everything is more than next to nothing
