"""Inversion and activation maximisation on networks that are not square, RGB, float32, 0..255."""

import numpy as np
import pytest
from any_network import KINDS, bright_net, in_range, planted

from xai_utils import synthesis

CODE = {"before_activation": True}  # where noise has a gradient too
SETTINGS = {
    "fourier": {"steps": 30, "jitter": 1},
    "pixels": {"steps": 30, "parameterisation": "pixels", "noise": 60.0, "rate": 0.2},
}


@pytest.fixture(scope="module")
def networks():
    return {kind: bright_net(*about) for kind, about in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_any_size_channels_and_precision(settings, kind, networks):
    images, _ = planted(*KINDS[kind][:3])
    found = synthesis.invert(networks[kind], images, "bright", **CODE, **settings)
    assert found.images.shape == images.shape and found.images.dtype == np.float32
    assert found.images.min() >= 0 and found.images.max() <= 255
    assert found.losses.dtype == np.float32 and (found.losses[-1] < 0.7 * found.losses[0]).all()
    seen = synthesis.activation_maximization(networks[kind], [0, 0], "bright", **CODE, **settings)
    assert seen.images.shape == images.shape and seen.images.dtype == np.float32
    assert (seen.losses[-1] < seen.losses[0]).all()
    single = synthesis.activation_maximization(networks[kind], 0, "bright", **CODE, **settings)
    np.testing.assert_allclose(seen.images[:1], single.images, atol=2)
    code = synthesis.code(networks[kind], images, "features")
    assert code.dtype == np.float32


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_pictures_of_another_range_are_those_of_0_to_255_in_it(settings, low, networks):
    images, _ = planted(24, 24, 3)
    settings = {**settings, "steps": 8, "alpha_weight": 0.1, "tv_weight": 0.1}
    scaled = low + images * np.float32((1 - low) / 255)
    expected = synthesis.invert(networks["float32"], images, "bright", **CODE, **settings)
    with pytest.warns(UserWarning, match="in_range is taken for a network of pixels"):
        model = in_range(low, 1.0, known=False)
        found = synthesis.invert(model, scaled, "bright", **CODE, **settings)
    span = (1 - low) / 255
    np.testing.assert_allclose(found.images, low + span * expected.images, atol=0.02)
    np.testing.assert_allclose(found.frames, low + span * expected.frames, atol=0.02)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=0.02)
    expected = synthesis.activation_maximization(
        networks["float32"], 0, "bright", **CODE, **settings
    )
    for about in ({}, {"pixels": (low, 1)}):  # known from the inversion, or given
        found = synthesis.activation_maximization(model, 0, "bright", **CODE, **settings, **about)
        np.testing.assert_allclose(found.images, low + span * expected.images, atol=0.02)


def test_a_range_that_is_none():
    with pytest.raises(ValueError, match="smallest and the largest value, not 1, -1"):
        synthesis.activation_maximization(bright_net(24, 24, 1), 0, pixels=(1, -1))
