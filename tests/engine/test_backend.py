"""What is kept for a model lives and dies with it, and is no part of it."""

import copy
import gc
import pickle
import subprocess
import sys
import weakref

import h5py
import numpy as np
import pytest
from miniature import ROOT
from nets import SHAPES, batch, gap_net

from xai_utils import attribution, keras, synthesis, tf
from xai_utils.engine import backend, cached, compiled, forward


def about(model):
    """A target that holds the model it is asked of."""
    return lambda logits: logits[:, 0] * (1 if model.built else 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_compiled_outlives_the_model_that_its_target_refers_to(shape):
    model, images = SHAPES[shape](), batch()
    target = about(model)
    attribution.grad_cam(model, images, target, layer="features" if shape != "nested" else None)
    attribution.rise(model, images, target, masks=2, grid=3)
    forward(model, images)
    reference = weakref.ref(model)
    del model, target
    gc.collect()
    assert reference() is None


def test_the_forward_pass_stays_however_many_targets_there_are():
    class Counting(keras.Model):
        traces = 0

        def call(self, x):
            self.traces += 1
            return tf.reduce_mean(x, axis=(1, 2))

    model, images = Counting(), batch()
    expected, shapes = forward(model, images), cached(model, "shapes", object)
    traces = model.traces
    for number in range(3 * backend._MOST):
        compiled(model, forward, function=lambda outputs, number=number: outputs[:, number])
    np.testing.assert_array_equal(forward(model, images), expected)
    assert model.traces == traces and cached(model, "shapes", object) is shapes


def test_of_too_many_compiled_functions_the_one_used_least_recently_goes():
    model = gap_net()
    settings = [{"function": lambda outputs, i=i: outputs[:, i]} for i in range(backend._MOST + 1)]
    first, second = (compiled(model, forward, **setting) for setting in settings[:2])
    for setting in settings[2:-1]:
        compiled(model, forward, **setting)
    assert compiled(model, forward, **settings[0]) is first
    compiled(model, forward, **settings[-1])
    assert compiled(model, forward, **settings[0]) is first
    assert compiled(model, forward, **settings[1]) is not second


def weights_of(path) -> dict:
    with h5py.File(path) as file:
        found = {}
        file.visititems(
            lambda name, item: found.update({name: item[()]} if hasattr(item, "dtype") else {})
        )
    return found


@pytest.mark.parametrize("shape", ["flat", "sequential", "nested"])
def test_saved_cloned_pickled_or_copied_a_model_is_what_it_was(shape, tmp_path):
    model, images = SHAPES[shape](), batch()
    model(images)
    model.save_weights(tmp_path / "before.weights.h5")
    maps = attribution.grad_cam(model, images, 0)
    # A part of a model is kept too: a model with layers, which Keras would save if it found it.
    synthesis.code(model, images, model.layers[-2].name)
    model.save_weights(tmp_path / "after.weights.h5")
    before, after = (weights_of(tmp_path / f"{when}.weights.h5") for when in ("before", "after"))
    assert list(before) == list(after)
    model.save(tmp_path / "net.keras")
    cloned = keras.models.clone_model(model)
    cloned.build(images.shape)
    cloned.set_weights(model.get_weights())
    for other in (
        keras.models.load_model(tmp_path / "net.keras"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        cloned,
    ):
        assert not {name for name in vars(other) if "xai" in name}
        np.testing.assert_allclose(attribution.grad_cam(other, images, 0), maps, atol=1e-6)


def test_what_is_kept_is_not_part_of_an_exported_model(tmp_path):
    model, images = gap_net(), batch()
    expected = forward(model, images)
    attribution.saliency(model, images, about(model))
    model.export(tmp_path / "net", verbose=False)
    served = tf.saved_model.load(tmp_path / "net")
    np.testing.assert_allclose(served.serve(images), expected, atol=1e-6)
    assert not [name for name in dir(served) if "xai" in name]


def test_what_keras_wraps_for_scikit_learn_can_be_used():
    code = (
        "from xai_utils import keras, tf\n"
        "net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])\n"
        "net.compile(loss='mse')\n"
        "print(keras.wrappers.SKLearnClassifier(net).get_params()['warm_start'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False"], done.stderr
