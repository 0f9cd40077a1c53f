"""The numbers of public programs on a small random transformer.

`tools/attention_of_peers.py` asked them. Here the transformer is built again, with the weights that
were stored beside the numbers.
"""

from pathlib import Path

import numpy as np
import pytest

from xai_utils import attribution, keras

layers, ops = keras.layers, keras.ops
HEADS, CLASS = 3, 3


@pytest.fixture(scope="module")
def peers():
    with np.load(Path(__file__).with_name("attention.npz")) as stored:
        return dict(stored)


class Places(layers.Layer):
    """Puts the class token before the others, and adds what stands for their places."""

    def build(self, shape):
        self.token = self.add_weight((1, 1, shape[-1]))
        self.places = self.add_weight((1, shape[1] + 1, shape[-1]))

    def call(self, x):
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x], axis=1) + self.places


@pytest.fixture(scope="module")
def network(peers):
    """The transformer in Keras: of PyTorch's weights each is turned to where Keras has it."""
    given = {key.removeprefix("weights/"): value for key, value in peers.items()}

    def dense(name, x, activation=None):
        kernel, bias = given[f"{name}.weight"].T, given[f"{name}.bias"]
        layer = layers.Dense(len(bias), activation)
        returned = layer(x)
        layer.set_weights([kernel, bias])
        return returned

    def norm(name, x):
        layer = layers.LayerNormalization(epsilon=1e-5)
        returned = layer(x)
        layer.set_weights([given[f"{name}.weight"], given[f"{name}.bias"]])
        return returned

    def attention(name, x):
        width = x.shape[-1]
        layer = layers.MultiHeadAttention(HEADS, width // HEADS)
        returned, weights = layer(x, x), []
        kernels = np.split(given[f"{name}.qkv.weight"], 3)
        for kernel, bias in zip(kernels, np.split(given[f"{name}.qkv.bias"], 3)):
            weights += [kernel.T.reshape(width, HEADS, -1), bias.reshape(HEADS, -1)]
        last = given[f"{name}.proj.weight"].T.reshape(HEADS, -1, width)
        layer.set_weights([*weights, last, given[f"{name}.proj.bias"]])
        return returned

    kernel = given["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    patches = layers.Conv2D(kernel.shape[-1], kernel.shape[0], kernel.shape[0], name="patches")
    token = Places(name="places")
    inputs = keras.Input(peers["pictures"].shape[1:])
    x = token(layers.Reshape((-1, kernel.shape[-1]))(patches(inputs)))
    patches.set_weights([kernel, given["patch_embed.proj.bias"]])
    token.set_weights([given["cls_token"], given["pos_embed"]])
    for number in range(sum(key.endswith("attn.qkv.bias") for key in given)):
        block = f"blocks.{number}"
        x = x + attention(f"{block}.attn", norm(f"{block}.norm1", x))
        y = dense(f"{block}.mlp.fc1", norm(f"{block}.norm2", x), lambda x: ops.gelu(x, False))
        x = x + dense(f"{block}.mlp.fc2", y)
    return keras.Model(inputs, dense("head", norm("norm", x)[:, 0]))


def assert_agree(ours, theirs):
    ours = ours.reshape(theirs.shape)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7 * np.abs(theirs).max())


def largest(maps):
    return maps.max(axis=(1, 2), keepdims=True)


def test_it_is_the_same_network(peers, network):
    assert_agree(network(peers["pictures"]).numpy(), peers["logits"])


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
