"""The same numbers as Captum and zennit, which `tools/peers.py` stored with their versions."""

import networks
import numpy as np
import pytest

from xai_utils import attribution
from xai_utils.engine import forward

STORED = np.load(networks.STORED)


@pytest.fixture(scope="module", params=networks.NETWORKS)
def network(request):
    return request.param, networks.in_keras(request.param)


def assert_agree(ours, theirs, most=1e-4):
    assert np.abs(theirs).max() > 1e-3
    assert np.linalg.norm(ours - theirs) <= most * np.linalg.norm(theirs)


def deep_lift(model, baseline):
    return attribution.deep_lift(model, networks.IMAGES, networks.TARGET, baseline)


def test_both_are_the_same_network(network):
    name, model = network
    ours = forward(model, networks.IMAGES).numpy()[:, networks.TARGET]
    np.testing.assert_allclose(ours, STORED[f"{name}/scores"], rtol=1e-4, atol=1e-5)


def test_deep_lift_agrees(network):
    name, model = network
    assert_agree(deep_lift(model, networks.BASELINES[0]), STORED[f"{name}/deep_lift"])


def test_several_baselines_agree_with_deep_shap(network):
    name, model = network
    assert_agree(deep_lift(model, [*networks.BASELINES]), STORED[f"{name}/deep_shap"])


def test_where_the_peer_as_it_comes_misses_the_difference(network):
    """It has no rule for ReLU6, and loses that of a ReLU that is followed by a max-pooling."""
    name, model = network
    ours = deep_lift(model, networks.BASELINES[0]).sum((1, 2))
    ends = (networks.IMAGES, networks.BASELINES[:1])
    here, there = (forward(model, x).numpy()[:, networks.TARGET] for x in ends)
    np.testing.assert_allclose(ours, here - there, rtol=1e-3, atol=1e-5)
    theirs = STORED[f"{name}/deep_lift_as_it_comes"].sum((1, 2))
    missed = np.abs(theirs - (here - there))
    assert (missed < 1e-4).all() if name == "residual" else (missed > 0.1).all()


@pytest.mark.parametrize("composite", [*attribution.rules.COMPOSITES])
@pytest.mark.filterwarnings("ignore:.* is taken for a network of pixels")
def test_relevance_agrees_with_zennit(network, composite):
    """Its batch normalisation too is folded into the convolutions; bounds are those of pixels."""
    name, model = network
    rules = {**attribution.rules.COMPOSITES[composite], "sum": "zero"}
    ours = attribution.lrp(model, networks.IMAGES, networks.TARGET, rules)
    assert_agree(ours, STORED[f"{name}/{composite}"], 2e-5)


@pytest.mark.parametrize("composite", [*attribution.rules.COMPOSITES])
@pytest.mark.filterwarnings("ignore:.* is taken for a network of pixels")
def test_relevance_agrees_with_zennit_as_it_comes(network, composite):
    """It divides by the root of 1 + eps after folding, and adds 1e-6 to each sign's part alone.

    In networks of several paths these parts are small, and alpha-beta and z+ tell.
    """
    name, model = network
    ours = attribution.lrp(model, networks.IMAGES, networks.TARGET, composite)
    parts = name in ("residual", "depthwise") and composite != "epsilon_gamma_box"
    assert_agree(ours, STORED[f"{name}/{composite}_as_it_comes"], 1e-3 if parts else 1e-4)
