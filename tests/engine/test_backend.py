"""What is kept for a model lives and dies with it, and is no part of it."""

import copy
import functools
import gc
import os
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
from xai_utils.engine import backend, cached, compiled, computed_on, forward


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


def started(**env) -> list[str]:
    """Whether TensorFlow rounds to TF32 and grows into a GPU's memory, in a process of its own."""
    code = (
        "import os; from xai_utils import tf\n"
        "print(tf.config.experimental.tensor_float_32_execution_enabled())\n"
        "print(os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    )
    clean = {name: os.environ[name] for name in os.environ if not name.startswith(("XAI_", "TF_"))}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean | env)
    return done.stdout.split() or done.stderr.splitlines()[-1:]


def test_gpus_round_to_tf32_only_if_asked_and_their_memory_is_taken_as_needed():
    assert started() == ["False", "true"]
    assert started(XAI_TF32="1", TF_FORCE_GPU_ALLOW_GROWTH="false") == ["True", "false"]


def test_a_setting_of_the_gpu_that_means_nothing_is_told_in_a_line(monkeypatch):
    monkeypatch.setenv("XAI_TF32", "yes")
    with pytest.raises(ValueError, match="^XAI_TF32 is 1 .* or 0 .*, not 'yes'$"):
        backend._tf32_asked()
    for memory in ("8 GB", "0", "-1"):
        monkeypatch.setenv("XAI_GPU_MEMORY", memory)
        with pytest.raises(ValueError, match=f"such as 8000, not '{memory}'$"):
            backend._limit_gpu_memory()


GPUS = [tf.config.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU") for number in range(2)]


def test_a_share_of_the_memory_is_set_on_every_gpu_before_they_are_used(monkeypatch):
    limits = {}

    def limit(gpu, parts):
        limits[gpu.name] = [part.memory_limit for part in parts]

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: GPUS)
    monkeypatch.setattr(tf.config, "set_logical_device_configuration", limit)
    monkeypatch.setenv("XAI_GPU_MEMORY", "")
    backend._limit_gpu_memory()
    assert not limits
    monkeypatch.setenv("XAI_GPU_MEMORY", "4500")
    backend._limit_gpu_memory()
    assert limits == {"/physical_device:GPU:0": [4500], "/physical_device:GPU:1": [4500]}


def test_devices_that_are_in_use_already_are_left_as_they_are(monkeypatch):
    tf.constant(0) + 1
    processor = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    with pytest.raises(RuntimeError):  # what TensorFlow says of a change that comes too late
        tf.config.set_logical_device_configuration(processor[0], two)

    late_for_a_gpu = functools.partial(tf.config.set_logical_device_configuration, processor[0])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: GPUS)
    monkeypatch.setattr(
        tf.config, "set_logical_device_configuration", lambda gpu, parts: late_for_a_gpu(two)
    )
    monkeypatch.setenv("XAI_GPU_MEMORY", "4500")
    backend._limit_gpu_memory()


def test_what_computes_is_said_in_words(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])
    assert computed_on() == "processor"
    details = {"device_name": "NVIDIA H200", "compute_capability": (9, 0)}
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: GPUS)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    for rounds, said in ((True, "NVIDIA H200, TF32 on"), (False, "NVIDIA H200, TF32 off")):
        tf.config.experimental.enable_tensor_float_32_execution(rounds)
        assert computed_on() == said
    tf.config.experimental.enable_tensor_float_32_execution(before)
