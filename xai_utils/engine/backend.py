"""TensorFlow and Keras, what is kept for a model, and the check of a batch.

TensorFlow prints lines about oneDNN and CUDA when it starts, whatever its log level; they would
stand in every notebook.
"""

import contextlib
import functools
import math
import os
import re
import warnings
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
# A process takes a GPU's memory as it needs it, not all of it: several share one. See docs/gpus.md.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
with _silent_stderr():
    import tensorflow as tf

    # looks for a GPU now, so that a missing one is not announced in a notebook
    tf.config.list_physical_devices()
    import keras


def _tf32_asked() -> bool:
    asked = os.environ.get("XAI_TF32") or "0"
    if asked not in ("0", "1"):
        raise ValueError(f"XAI_TF32 is 1 (GPUs round to TF32) or 0 (they do not), not {asked!r}")
    return asked == "1"


def _limit_gpu_memory() -> None:
    """Let this process have so many MiB of each GPU as `XAI_GPU_MEMORY` says; unset, of all."""
    asked = os.environ.get("XAI_GPU_MEMORY")
    if not asked:
        return
    if not re.fullmatch("[1-9][0-9]*", asked):
        raise ValueError(f"XAI_GPU_MEMORY is a number of MiB, such as 8000, not {asked!r}")
    limit = tf.config.LogicalDeviceConfiguration(memory_limit=int(asked))
    for gpu in tf.config.list_physical_devices("GPU"):
        # whoever has used the devices already keeps what was set then
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(gpu, [limit])


# NVIDIA's GPUs would round what convolutions take to 10 bits: maps of gradients are then 20 % off.
tf.config.experimental.enable_tensor_float_32_execution(_tf32_asked())
_limit_gpu_memory()

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

PIXELS = (0.0, 255.0)  # what networks take, unless they say or show something else
_MOST_STANDARD = 16  # of pixels that were divided by their standard deviation
_MOST = 64  # compiled functions kept for one model; every callable target has some of its own


class _Kept:
    """What is kept on a model: it dies with the model, whatever it holds.

    An object of our own, for Keras saves the layers that it finds in a model's lists and dicts.
    """

    def __init__(self, model):
        self.made = {}
        self.compiled = functools.lru_cache(_MOST)(functools.partial(_compiled, model))


def check_model(model) -> None:
    """Say in one line what was given in place of a Keras model.

    Args:
        model: what was given.

    Raises:
        ValueError: it is none; what holds one as its `.model`, such as a classifier of
            `load_model`, is told so.
    """
    if isinstance(model, keras.Model):
        return
    given = repr(model) if isinstance(model, str) else f"a {type(model).__name__}"
    hint = ""
    if isinstance(getattr(model, "model", None), keras.Model):
        hint = ": give its .model"
    elif isinstance(model, str):
        hint = f": give models.load_model({model!r}).model"
    raise ValueError(f"model is a Keras model, not {given}{hint}")


def _kept(model: keras.Model) -> _Kept:
    check_model(model)
    return vars(model).setdefault("_xai_utils_kept", _Kept(model))  # past Keras' tracking


def cached(model: keras.Model, key: Hashable, make: Callable):
    """Return `make()`, made once for each model and key, and kept as long as the model lives.

    Args:
        model: the Keras model on which it is kept.
        key: hashable.
        make: a function without arguments.

    Returns:
        What `make` returned the first time.
    """
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

    Returns:
        A function of tensors. What `in_python` raised inside leaves it as a ValueError.
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
        with _in_its_own_words():
            return run(*tensors)

    return call


class RaisedInPython(ValueError):
    """What a function of `in_python` raised; its name is looked for in TensorFlow's messages."""


def in_python(function: Callable, tensor) -> tf.Tensor:
    """Numbers that a Python function makes of a tensor, while a compiled function runs too.

    There is no gradient. An error of the function leaves `compiled` and `forward` as a ValueError
    of its own first line, without TensorFlow's traceback.

    Args:
        function: from an array to a float32 array.
        tensor: what it is called with, of any shape and type.

    Returns:
        A float32 tensor; inside a compiled function its shape is not known.

    Example:
        >>> float(in_python(lambda values: values.sum(), tf.constant([1.0, 2.0])))
        3.0
    """
    if tf.executing_eagerly():
        return tf.constant(function(tensor.numpy()))

    def told(array):
        try:
            return function(array)
        except Exception as error:
            raise RaisedInPython(next(iter(str(error).splitlines()), repr(error))) from None

    return tf.numpy_function(told, [tensor], tf.float32)


@contextlib.contextmanager
def _in_its_own_words():
    try:
        yield
    except tf.errors.OpError as error:
        if found := re.search(rf"{RaisedInPython.__name__}: (.*)", error.message):
            raise ValueError(found[1]) from None
        raise


def _holds_callable(value) -> bool:
    return any(map(_holds_callable, value)) if isinstance(value, tuple) else callable(value)


def _of_any_length(tensor) -> tf.TensorSpec:
    shape = tuple(np.shape(tensor))
    dtype = getattr(tensor, "dtype", None) or np.asarray(tensor).dtype
    return tf.TensorSpec((None, *shape[1:]) if shape else (), dtype)


def computed_on() -> str:
    """What TensorFlow computes on, in words: `processor`, or `NVIDIA H200, TF32 off`.

    TensorFlow uses the first GPU that it sees. Whether that rounds to TF32 is read as it is now.
    """
    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return "processor"
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    rounds = tf.config.experimental.tensor_float_32_execution_enabled()
    return f"{name}, TF32 {'on' if rounds else 'off'}"


def float_type(model: keras.Model) -> str:
    """The dtype of pictures and scores of a model: `float32`, or `float64` if it computes so.

    A model of half precision is given float32 too: it rounds for itself, where it was trained to.

    Args:
        model: a Keras model.

    Returns:
        `float32` or `float64`.

    Raises:
        ValueError: not a Keras model.
    """
    check_model(model)
    return "float64" if model.compute_dtype == "float64" else "float32"


def widened(values):
    """Tensors of half precision, or a structure of some, as float32; others as they are.

    Args:
        values: a tensor, or a list, tuple or dict of some.

    Returns:
        The same structure; float16 and bfloat16 have become float32.
    """

    def wide(value):
        return tf.cast(value, tf.float32) if value.dtype in (tf.float16, tf.bfloat16) else value

    return tf.nest.map_structure(wide, values)


def in_float32(values):
    """Tensors, or a structure of some, as float32 arrays: maps, whatever a model computes in.

    Args:
        values: a tensor of any float type, or a list, tuple or dict of some.

    Returns:
        The same structure of arrays.
    """
    return tf.nest.map_structure(lambda value: tf.cast(value, tf.float32).numpy(), values)


def forward(model: keras.Model, images) -> tf.Tensor:
    """What a model returns for a batch, in inference mode; compiled once for all batch sizes.

    It is float32 of models of half precision too.

    Args:
        model: a Keras model.
        images: one batch `(N, H, W, C)`, any number type, in the model's pixel range; it is not
            checked, see `check_images`.

    Returns:
        The outputs in their structure, such as logits `(N, classes)`, float32 or wider.

    Raises:
        ValueError: a function of `in_python` failed.
    """
    images = tf.cast(images, float_type(model))
    spec = tf.TensorSpec((None, *images.shape[1:]), images.dtype)

    def make():
        return tf.function(
            lambda batch: widened(model(batch, training=False)), [spec], autograph=False
        )

    with _in_its_own_words():
        return cached(model, ("forward", spec), make)(images)


def in_parts(values, most: int) -> list:
    """Parts of an array or tensor, at most so long: equal, or all but the last.

    So there are one or two shapes to trace.

    Args:
        values: of N along its first axis.
        most: the largest number in one part; below 1 counts as 1.

    Returns:
        A list of parts in their order, empty for N = 0.

    Example:
        >>> in_parts([1, 2, 3, 4, 5], 3)
        [[1, 2, 3], [4, 5]]
    """
    size = math.ceil(len(values) / math.ceil(len(values) / max(most, 1))) if len(values) else 1
    return [values[i : i + size] for i in range(0, len(values), size)]


def check_images(model: keras.Model, images) -> tf.Tensor:
    """Return a batch as a tensor of `float_type`, or say in one line what is wrong with it.

    A batch of another range for a model that is known to take 0..255 is warned of.

    Args:
        model: a Keras model of one image input; one that is not built is called once.
        images: `(N, H, W, C)` array or tensor of any number type.

    Returns:
        `(N, H, W, C)` of `float_type`, in the range it was given in.

    Raises:
        ValueError: not a Keras model; not a batch of images, empty, not numbers, NaN or infinite,
            or a shape the model does not take.
    """
    check_model(model)
    array = np.asarray(images)
    if array.size and isinstance(array.flat[0], str | os.PathLike):
        name = str(array.flat[0])
        raise ValueError(f"images are numbers, not {name!r}: give classifier.prepare({name!r})")
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
    batch = tf.cast(array, float_type(model))
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
    if _kept(model).made.get("pixels") == PIXELS:
        _warn_of_another_range(model, float(array.min()), float(array.max()))
    return batch


def _warn_of_another_range(model: keras.Model, least: float, most: float):
    """Tell of pixels between two values that cannot be meant for 0..255."""
    if _seems(least, most) != PIXELS:
        low, high = _seems(least, most)
    elif least < 0 and max(-least, most) <= _MOST_STANDARD:
        low, high = least, most
    else:
        return
    warnings.warn(
        f"all pixels lie in {low:.3g}..{high:.3g}, but {model.name} takes 0..255: they are nearly"
        " black to it",
        stacklevel=4,
    )


def pixel_range(model: keras.Model, images=None) -> tuple[float, float]:
    """The smallest and the largest pixel value that a model takes: its black and its white.

    A model of `load_model` knows them. Of another they are read off a batch: values within 0..1
    are for a network of 0..1, values within -1..1 for one of -1..1, others for one of 0..255.
    Another range than 0..255 is warned of, and kept for the model while batches lie near it, so
    that noisy copies do not change it. Negative values that fit none of the three are warned of.

    Args:
        model: the Keras model.
        images: a batch `(N, H, W, C)`; without one it is what was found before, or 0..255.

    Returns:
        Black and white: `(0.0, 255.0)`, `(0.0, 1.0)` or `(-1.0, 1.0)`, or what was kept for the
        model.
    """
    kept = _kept(model).made
    if known := kept.get("pixels"):
        return known
    before = kept.get("pixels found")
    low, high = before or PIXELS
    if images is None:
        return low, high
    least, most = float(np.min(images)), float(np.max(images))
    margin = (high - low) / 2
    if (low, high) != PIXELS and low - margin <= least and most <= high + margin:
        return low, high
    kept["pixels found"] = found = _seems(least, most)
    if found != (before or PIXELS):
        warnings.warn(
            f"{model.name} is taken for a network of pixels in {found[0]:g}..{found[1]:g}, as these"
            " are; if that is wrong, explain models.load_model(model, preprocessing=...).model",
            stacklevel=3,
        )
    elif not before and least < 0 and max(-least, most) <= _MOST_STANDARD:
        warnings.warn(
            f"pixels in {least:.3g}..{most:.3g} are neither 0..255 nor 0..1 nor -1..1, and noise"
            " and fills are made for 0..255: explain models.load_model(model,"
            " preprocessing=...).model",
            stacklevel=3,
        )
    return found


def _seems(least: float, most: float) -> tuple[float, float]:
    """The range that is meant by pixels between two values."""
    if least == most == 0 or least < -1 or most > 1:
        return PIXELS
    return (0.0, 1.0) if least >= 0 else (-1.0, 1.0)


def with_float_input(model: keras.Model) -> keras.Model:
    """A model of integer pixels as one of float32 pixels, so that there are gradients to them.

    It shares all layers, also those of models inside it that take integers, and is kept with the
    model, which is left as it is. A model that takes floats, or has no graph (subclassed), is
    returned itself.

    Args:
        model: a Keras model.

    Returns:
        A Keras model of the same name and outputs.
    """
    if not _takes_integers(model):
        return model
    return cached(model, "float input", lambda: _with_float_input(model))


def _with_float_input(model):
    def part(layer):
        return with_float_input(layer) if isinstance(layer, keras.Model) else layer

    def floats(given):
        return keras.Input(batch_shape=given.shape, dtype="float32", name=given.name)

    if isinstance(model, keras.Sequential):
        parts = [floats(model.inputs[0]), *map(part, model.layers)]
        return keras.Sequential(parts, name=model.name)
    inputs = keras.tree.map_structure(floats, model.input)
    # not the model itself: with it, its loss and metrics would be made anew, which may fail
    graph = keras.Model(model.input, model.output, name=model.name)
    return keras.models.clone_model(graph, input_tensors=inputs, clone_function=part)


def _takes_integers(model: keras.Model) -> bool:
    inputs = getattr(model, "inputs", None) or []  # a subclassed model has none
    inside = [layer for layer in model.layers if isinstance(layer, keras.Model)] if inputs else []
    return any("int" in str(given.dtype) for given in inputs) or any(map(_takes_integers, inside))


def no_gradient(model: keras.Model, where: str = "the pixels") -> str:
    """Why a score has no gradient to the pixels or a layer, and what to do, in one line.

    Args:
        model: a Keras model.
        where: what there is no gradient to, in words.

    Returns:
        The beginning of an error's message, without a full stop.
    """
    if _takes_integers(model):
        return (
            f"{model.name} takes whole numbers, and through them goes no gradient: explain"
            " models.load_model(model, preprocessing=...).model, whose pixels are floats"
        )
    return f"the score of {model.name} does not depend on {where} through anything with a gradient"
