"""The same numbers as tf-keras-vis 0.8.7 where it is right, and the difference where it is not."""

import numpy as np
import pytest
import tensorflow as tf
from nets import nested
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.utils.model_modifiers import GuidedBackpropagation

from xai_utils import attribution, keras, models

CLASS = 7


@pytest.fixture(scope="module")
def vgg19():
    """VGG19 with seeded random weights, on small pictures so that its Dense layers stay small."""
    keras.utils.set_random_seed(0)
    model = keras.applications.VGG19(
        weights=None, input_shape=(64, 64, 3), classes=20, classifier_activation=None
    )
    return model, np.random.default_rng(0).uniform(-100, 100, (2, 64, 64, 3)).astype(np.float32)


def score(outputs):
    return outputs[:, CLASS]


def assert_agree(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_raw_grad_cam_agrees(vgg19):
    model, images = vgg19
    peer = Gradcam(model, clone=True)
    theirs = np.asarray(
        peer(score, images, penultimate_layer="block5_conv4", expand_cam=False, normalize_cam=False)
    )
    assert theirs.max() > 0
    assert_agree(attribution.grad_cam(model, images, CLASS, layer="block5_conv4"), theirs)


def test_saliency_agrees(vgg19):
    model, images = vgg19
    theirs = Saliency(model, clone=True)(score, images, normalize_map=False)
    assert_agree(attribution.saliency(model, images, CLASS), theirs)


def test_guided_backprop_agrees_on_relu(vgg19):
    model, images = vgg19
    peer = Saliency(model, model_modifier=GuidedBackpropagation(), clone=True)
    theirs = peer(score, images, keepdims=True, normalize_map=False)
    ours = attribution.guided_backprop(model, images, CLASS)
    assert_agree(np.abs(ours), np.abs(theirs).max(axis=-1))


def test_the_peers_guided_backprop_is_plain_gradient_on_relu6_and_ours_is_not():
    model = models.efficientnet_lite.build("efficientnet_lite0", 64)
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    peer = Saliency(model, model_modifier=GuidedBackpropagation(), clone=True)
    theirs = np.abs(peer(score, images, keepdims=True, normalize_map=False)).max(axis=-1)
    plain = attribution.saliency(model, images, CLASS)
    assert np.linalg.norm(theirs - plain) < 0.02 * np.linalg.norm(plain)
    assert np.linalg.norm(
        np.abs(attribution.guided_backprop(model, images, CLASS)) - plain
    ) > np.linalg.norm(plain)


def test_the_peer_fails_on_a_nested_model_and_ours_does_not():
    model, images = (
        nested(),
        np.random.default_rng(0).uniform(-1, 1, (1, 12, 12, 3)).astype(np.float32),
    )
    with pytest.raises(Exception, match="."):
        Gradcam(model, clone=True)(
            lambda outputs: outputs[:, 2], tf.constant(images), penultimate_layer="features"
        )
    assert attribution.grad_cam(model, images, 2, layer="features").shape == (1, 6, 6)
