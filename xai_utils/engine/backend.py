"""TensorFlow and Keras, what is kept for a model, and the check of a batch.

TensorFlow prints lines about oneDNN and CUDA when it starts, whatever its log level; they would
stand in every notebook.
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Hashable

import numpy as np


@contextlib.contextmanager
def _silent_stderr():
    """Send file descriptor 2 to nowhere: the lines come from C++, past `sys.stderr`."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with _silent_stderr():
    import tensorflow as tf

    # looks for a GPU now, so that a missing one is not announced in a notebook
    tf.config.list_physical_devices()
    import keras

# One trace for each model, shape and technique is what `compiled` is for; TensorFlow takes it for
# an accident.
tf.get_logger().addFilter(
    lambda record: "triggered tf.function retracing" not in record.getMessage()
)

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"xai_utils needs Keras on TensorFlow, found {keras.backend.backend()}: set"
        " KERAS_BACKEND=tensorflow"
    )

__all__ = ["cached", "check_images", "compiled", "forward", "in_parts", "keras", "tf"]

_MOST = 64  # compiled functions kept for one model; every callable target has some of its own


class _Kept:
    """What is kept on a model: it dies with the model, whatever it holds.

    An object of our own, for Keras saves the layers that it finds in a model's lists and dicts.
    """

    def __init__(self, model):
        self.made = {}
        self.compiled = functools.lru_cache(_MOST)(functools.partial(_compiled, model))


def _kept(model: keras.Model) -> _Kept:
    return vars(model).setdefault("_xai_utils_kept", _Kept(model))  # past Keras' tracking


def cached(model: keras.Model, key: Hashable, make: Callable):
    """Return `make()`, made once for each model and key, and kept as long as the model lives."""
    made = _kept(model).made
    if key not in made:
        made[key] = make()
    return made[key]


def compiled(model: keras.Model, function: Callable, /, **settings) -> Callable:
    """Return `function(model, *tensors, **settings)` as a `tf.function` of the tensors.

    It is made once for each model, the one used least recently giving way if there are too many.
    It is traced once for all lengths of the tensors' first axes. With a callable among the
    settings, which may rely on the shapes it sees, it is traced for the first ones, and once more
    for all lengths if others come.

    Args:
        model: the Keras model, on which it is kept.
        function: called when TensorFlow traces it.
        settings: hashable values; each set of them has a compiled function of its own.
    """
    return _kept(model).compiled(function, **settings)


def _compiled(model: keras.Model, function: Callable, /, **settings) -> Callable:
    # Without autograph an error raised inside keeps its own one line.
    run = tf.function(
        lambda *tensors: function(model, *tensors, **settings),
        autograph=False,
        reduce_retracing=True,
    )
    traced = _holds_callable(tuple(settings.values()))

    def call(*tensors):
        nonlocal traced
        if not traced:
            run.get_concrete_function(*tf.nest.map_structure(_of_any_length, tensors))
            traced = True
        return run(*tensors)

    return call


def _holds_callable(value) -> bool:
    return any(map(_holds_callable, value)) if isinstance(value, tuple) else callable(value)


def _of_any_length(tensor) -> tf.TensorSpec:
    shape = tuple(np.shape(tensor))
    dtype = getattr(tensor, "dtype", None) or np.asarray(tensor).dtype
    return tf.TensorSpec((None, *shape[1:]) if shape else (), dtype)


def forward(model: keras.Model, images) -> tf.Tensor:
    """What a model returns for a batch, in inference mode; compiled once for all batch sizes."""
    images = tf.cast(images, model.compute_dtype)
    spec = tf.TensorSpec((None, *images.shape[1:]), images.dtype)

    def make():
        return tf.function(lambda batch: model(batch, training=False), [spec], autograph=False)

    return cached(model, ("forward", spec), make)(images)


def in_parts(values, most: int) -> list:
    """Parts of an array or tensor, at most so long: equal, or all but the last.

    So there are one or two shapes to trace.
    """
    size = math.ceil(len(values) / math.ceil(len(values) / max(most, 1))) if len(values) else 1
    return [values[i : i + size] for i in range(0, len(values), size)]


def check_images(model: keras.Model, images) -> tf.Tensor:
    """Return a batch as a tensor of the model's dtype, or say in one line what is wrong with it.

    Args:
        images: `(N, H, W, C)` array or tensor of any number type.

    Raises:
        ValueError: not a batch of images, empty, not numbers, NaN or infinite, or a shape the model
            does not take.
    """
    array = np.asarray(images)
    if array.ndim == 3:
        raise ValueError(
            f"images has shape {array.shape}: a technique takes a batch; pass image[None]"
        )
    if array.ndim != 4 or not array.size or array.dtype.kind not in "fiub":
        raise ValueError(
            f"images must be numbers of shape (N, H, W, C), not {array.dtype} of shape"
            f" {array.shape}"
        )
    if bad := array.size - np.count_nonzero(np.isfinite(array)):
        raise ValueError(f"images holds {bad} values that are NaN or infinite, out of {array.size}")
    batch = tf.cast(array, model.compute_dtype)
    if not model.built:
        model(batch[:1], training=False)
    expected = getattr(model, "input_shape", None)  # a subclassed model has none
    if isinstance(expected, list):
        raise ValueError(
            f"{model.name} takes {len(expected)} inputs; techniques here explain models of one"
            " image input"
        )
    if expected and any(
        want not in (None, got) for want, got in zip(expected[1:], array.shape[1:], strict=False)
    ):
        raise ValueError(
            f"images has shape {array.shape}, but {model.name} takes (N,"
            f" {', '.join(map(str, expected[1:]))})"
        )
    return batch
