"""The numbers of public programs on a small random transformer.

`tools/attention_of_peers.py` asked them. Its weights, stored beside the numbers, are named as those
of timm, and `tools/convert_timm_vit.py` makes the same network of them here.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from miniature import ROOT

from xai_utils import attribution, models

sys.path.insert(0, str(ROOT / "tools"))
import convert_timm_vit

HEADS, CLASS = 3, 3


@pytest.fixture(scope="module")
def peers():
    with np.load(Path(__file__).with_name("attention.npz")) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def weights(peers):
    prefix = "weights/"
    return {key.removeprefix(prefix): peers[key] for key in peers if key.startswith(prefix)}


@pytest.fixture(scope="module")
def network(weights):
    return convert_timm_vit.network(weights, HEADS, epsilon=1e-5)


def assert_agree(ours, theirs):
    ours = ours.reshape(theirs.shape)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7 * np.abs(theirs).max())


def largest(maps):
    return maps.max(axis=(1, 2), keepdims=True)


def test_it_is_the_same_network(peers, network):
    assert_agree(network(peers["pictures"]).numpy(), peers["logits"])


def test_a_converted_network_is_loaded_by_its_card(weights, peers, tmp_path, monkeypatch):
    monkeypatch.setattr(convert_timm_vit, "EPSILON", 1e-5)
    np.savez(tmp_path / "vit.npz", **weights)
    given = [str(tmp_path / "vit.npz"), str(tmp_path / "vit.keras"), "--heads", str(HEADS)]
    monkeypatch.setattr(sys, "argv", ["convert", *given, "--preprocessing", "unit"])
    convert_timm_vit.main()
    classifier = models.load_model(str(tmp_path / "vit.keras"))
    logits = classifier.model(255 * peers["pictures"]).numpy()
    np.testing.assert_allclose(logits, peers["logits"], rtol=1e-3, atol=1e-4)
    assert classifier.conv_layer.endswith("block2_norm1")
    gone = attribution.undefined_for(classifier.model, (None, 16, 16, 3))
    assert [*gone] == ["guided_backprop", "deconvnet", "guided_grad_cam", "cam"]


def test_weights_of_another_transformer_are_refused(weights):
    with pytest.raises(ValueError, match="^weights 'blocks.0.ls1.gamma' belong to another"):
        convert_timm_vit.network(weights | {"blocks.0.ls1.gamma": np.ones(12)}, HEADS)
    without = {key: value for key, value in weights.items() if key != "norm.bias"}
    with pytest.raises(ValueError, match="^no weights 'norm.bias': this is no plain vision"):
        convert_timm_vit.network(without, HEADS)


def test_rollout_agrees_with_both(peers, network):
    maps = attribution.attention_rollout(network, peers["pictures"])
    assert np.ptp(maps) > 0.1 * maps.max()
    assert_agree(maps, peers["chefer_rollout"])
    assert_agree(maps / largest(maps), peers["vit_explain_mean"])


def test_heads_by_max_agree_but_for_what_vit_explain_divides(peers, network):
    """The largest of the heads has rows that do not add up to 1: it divides columns, not rows."""
    found = attribution.attention(network, peers["pictures"]).max(axis=2)
    identity, theirs, ours = np.eye(found.shape[-1]), [], []
    for mixed in (found.swapaxes(0, 1) + identity) / 2:
        sums = mixed.sum(axis=-1)
        theirs.insert(0, mixed / sums[:, None, :])
        ours.insert(0, mixed / sums[:, :, None])
    theirs, ours = (
        np.stack([np.linalg.multi_dot(layers)[0, 1:] for layers in zip(*each)]).reshape(2, 4, 4)
        for each in (theirs, ours)
    )
    assert_agree(theirs / largest(theirs), peers["vit_explain_max"])
    assert_agree(attribution.attention_rollout(network, peers["pictures"], heads="max"), ours)


def test_relevance_agrees(peers, network):
    maps = attribution.attention_relevance(network, peers["pictures"], CLASS)
    assert np.ptp(maps) > 0.1 * maps.max()
    assert_agree(maps, peers["chefer_relevance"])
