"""Metrics and experiments on networks that are not square, RGB, float32 and of 0..255."""

import functools

import numpy as np
import pytest
from any_network import KINDS, bright_net, in_range, planted

from xai_utils import attribution, metrics
from xai_utils.engine import cached

METRICS = {
    "deletion": lambda *given: metrics.deletion(*given, 0, step=0.2).scores,
    "insertion": lambda *given: metrics.insertion(*given, 0, step=0.2, fill="black").scores,
    "average_drop": lambda *given: metrics.average_drop(*given, 0).drop,
    "road": lambda *given: np.stack(metrics.road(*given, 0, shares=(0.1, 0.5), noise=0.1)[1:], -1),
    "infidelity": lambda *given: metrics.infidelity(*given, 0, samples=8, scaled=True),
    "max_sensitivity": lambda model, images, maps: metrics.max_sensitivity(
        functools.partial(attribution.occlusion, patch=8, stride=8), model, images, 0, 0.3, 2
    ),
    "cover_until_flip": lambda model, images, maps: np.array(
        [flips(model, image, values)[:2] for image, values in zip(images, maps)], float
    ),
}


def flips(model, image, values):
    return metrics.cover_until_flip(model, image, [values], side=4)[0]


def most_of_it(masks):
    """A map that knows most of the object, and something beside it."""
    return np.stack([np.roll(mask, 2, axis=1) for mask in masks]).astype(np.float32)


@pytest.fixture(scope="module")
def networks():
    return {kind: bright_net(*about) for kind, about in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METRICS)
def test_any_size_channels_and_precision_and_a_batch_gives_what_its_images_give(
    name, kind, networks
):
    images, masks = planted(*KINDS[kind][:3])
    maps, model = most_of_it(masks), networks[kind]
    found = METRICS[name](model, images, maps)
    assert np.isfinite(found).all() and found.dtype in (np.float32, np.float64)
    single = [METRICS[name](model, images[i : i + 1], maps[i : i + 1]) for i in range(2)]
    np.testing.assert_allclose(found, np.concatenate(single), rtol=2e-2, atol=2e-3)
    if kind in ("float16", "bfloat16"):
        expected = METRICS[name](networks["float32"], images, maps)
        np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("name", METRICS)
def test_a_network_of_another_range_is_measured_as_the_same_of_0_to_255(name, low, networks):
    images, masks = planted(24, 24, 3)
    expected = METRICS[name](networks["float32"], images, most_of_it(masks))
    model = in_range(low, 1.0, known=low == 0)
    scaled = low + images * np.float32((1 - low) / 255)
    if low:
        with pytest.warns(UserWarning, match=r"in_range is taken for a network of pixels in -1"):
            found = METRICS[name](model, scaled, most_of_it(masks))
    else:
        found = METRICS[name](model, scaled, most_of_it(masks))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)


def test_noise_on_imputed_pixels_ends_at_black_and_white():
    hidden = np.ones((8, 8), bool)
    hidden[0, 0] = False
    image = np.zeros((8, 8, 2), np.float32)
    for low, high in ((-1, 1), (0, 1), (0, 255)):
        image[:] = (low + high) / 2
        filled = metrics.impute(image, hidden, noise=2.0, extent=(low, high))
        assert filled.min() == low and filled.max() == high


def test_the_shared_network_looks_at_what_was_planted():
    images, masks = planted(24, 24, 3)
    model = bright_net(24, 24, 3)
    covered = np.where(masks[..., None], 0, images)
    scores = np.stack([model(images)[:, 0], model(covered)[:, 0]])
    assert (scores[0] > 0.1).all() and not scores[1].any()
    assert cached(model, "pixels", lambda: None) == (0, 255)
