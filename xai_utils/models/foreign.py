"""Networks that are no Keras models: a function, an ONNX file, a SavedModel folder.

Each becomes a Keras model of one input, so that everything that only asks for scores works as it
is. A function and an ONNX file have neither layers nor a gradient; a SavedModel has a gradient.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xai_utils.engine import check_model, first_line, in_python, keras, nearest, tf
from xai_utils.models.layers import walk

_MOST_CHANNELS = 32  # a longer axis holds pixels


class BlackBox(keras.layers.Layer):
    """A function of pixels as a layer: `(N, H, W, C)` in, float32 scores `(N, outputs)` out.

    It runs in Python, whatever runs the model, and has no gradient and no weights. What the
    function returns is checked every time; an error comes out of a compiled function as one line.
    The function gets a copy of the pixels, so that it may change them.

    Args:
        function: from a float32 array `(N, H, W, C)` to numbers `(N, outputs)`, or `(N,)` for one
            output, for every N.
        outputs: how many numbers it returns for a picture.
        called: what messages call the function; default the layer's name.
        digest: of the file that the function was read from; see `fingerprint`.
    """

    def __init__(self, function: Callable, outputs: int, called=None, digest="", **kwargs):
        super().__init__(dtype="float32", trainable=False, **kwargs)
        self.function, self.outputs, self.file_digest = function, outputs, digest
        self.called = called or self.name
        self.supports_jit = False

    def call(self, pixels):
        scores = in_python(self._asked, pixels)
        return tf.ensure_shape(scores, (pixels.shape[0], self.outputs))

    def compute_output_shape(self, shape):
        return shape[0], self.outputs

    def get_config(self):
        raise ValueError(f"{self.called} is a Python function, which no model file can hold")

    def _asked(self, pixels: np.ndarray) -> np.ndarray:
        return ask(self.function, pixels, self.outputs, self.called)


def ask(function: Callable, pixels: np.ndarray, outputs: int | None, name: str) -> np.ndarray:
    """The scores `(N, outputs)` of a function, float32; any number of them if `outputs` is None.

    Raises:
        ValueError: what the function raised, or returned instead, in one line.
    """
    count = len(pixels)
    try:
        scores = np.asarray(function(np.array(pixels, np.float32)), np.float32)
    except Exception as error:
        raise ValueError(
            f"{name} fails on pictures of shape {pixels.shape}: {type(error).__name__}:"
            f" {first_line(error)}"
        ) from error
    if scores.shape == (count,) and outputs in (None, 1):
        scores = scores[:, None]
    wanted = (count, scores.shape[-1] if outputs is None and scores.ndim else outputs)
    if scores.shape != wanted or not scores.size:
        asked = f"({count}, {outputs or 'outputs'})"
        raise ValueError(f"{name} returns shape {scores.shape} for {count} pictures, not {asked}")
    if bad := scores.size - np.count_nonzero(np.isfinite(scores)):
        raise ValueError(
            f"{name} returns {bad} values that are NaN or infinite, out of {scores.size}"
        )
    return scores


def model_of(
    function: Callable,
    shape: tuple[int, int, int],
    name: str,
    digest: str = "",
    largest: float = 255.0,
) -> keras.Model:
    """A Keras model of one `BlackBox`: pixels `(N, *shape)` to scores `(N, outputs)`.

    How many outputs there are, and that they do not depend on how many pictures are asked about,
    is found on three pictures of noise.

    Args:
        name: what messages call the function.
        digest: of the file that the function was read from; see `fingerprint`.
        largest: value of the noise, whose least is 0.

    Raises:
        ValueError: the function fails, or does not return one row of finite numbers for each
            picture; a picture's scores depend on the pictures beside it.
    """
    noise = np.random.default_rng(0).uniform(0, largest, (3, *shape)).astype(np.float32)
    together = ask(function, noise, None, name)
    alone = ask(function, noise[1:2], together.shape[1], name)
    if not np.allclose(alone[0], together[1], rtol=1e-2, atol=1e-3 * np.abs(together).max()):
        raise ValueError(
            f"{name} gives a picture other scores among three than alone: it must be asked about"
            " each for itself, without dropout and in inference mode"
        )
    pixels = keras.Input(shape, name="pixels")
    box = BlackBox(function, together.shape[1], name, digest, name="black_box")
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)  # as TensorFlow's scopes want it
    return keras.Model(pixels, box(pixels), name=plain)


# --- ONNX -----------------------------------------------------------------------------------------


def load_onnx(path, size=None, output: str | None = None) -> keras.Model:
    """An ONNX file as a Keras model: its own input `(N, H, W, C)` to its outputs `(N, classes)`.

    Args:
        path: of the `.onnx` file. Weights kept beside it must lie there.
        size: (height, width) or one side, for a file that leaves it open.
        output: name of the output that is meant, of several.

    Raises:
        ImportError: ONNX Runtime is not installed.
        FileNotFoundError: no such file.
        ValueError: no ONNX file, not one image input, or a size or output that must be said.
    """
    function, shape = onnx_function(path, size, output)
    path = Path(path).expanduser()
    # Within 0..1: more than a network was trained for may be too much for half precision.
    return model_of(function, shape, path.name, _digest(path), largest=1.0)


def _digest(path: Path) -> str:
    """Of an ONNX file and of the files beside it that it names, which may hold its weights."""
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    for file in sorted(path.parent.iterdir()):
        if file != path and file.name.encode() in content and file.is_file():
            with file.open("rb") as beside:
                digest.update(hashlib.file_digest(beside, "sha256").digest())
    return digest.hexdigest()


def onnx_function(
    path, size=None, output: str | None = None
) -> tuple[Callable, tuple[int, int, int]]:
    """What an ONNX file computes, through ONNX Runtime.

    Channels may come first, as PyTorch exports them, or last. A file of a fixed number of pictures
    is asked so many at a time.

    Args:
        path: of the `.onnx` file. Weights kept beside it must lie there.
        size: (height, width) or one side, for a file that leaves it open.
        output: name of the output that is meant, of several.

    Returns:
        A function from a float32 array `(N, H, W, C)` in the network's own input range to numbers
        `(N, classes)`; and `(H, W, C)`.

    Raises:
        ImportError: ONNX Runtime is not installed.
        FileNotFoundError: no such file.
        ValueError: no ONNX file, not one image input, or a size or output that must be said.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no ONNX file at {path}")
    session = _session(path)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        named = ", ".join(f"{given.name} {given.shape}" for given in inputs)
        raise ValueError(f"{path.name} takes {len(inputs)} inputs ({named}), not one of pictures")
    dtype = _NUMBERS.get(inputs[0].type)
    if dtype is None:
        raise ValueError(f"{path.name} takes {inputs[0].type}, not numbers of pictures")
    dims = [side if isinstance(side, int) and side > 0 else None for side in inputs[0].shape]
    shape, channels_first = image_shape(dims, size, path.name)
    returned = choose_output([found.name for found in outputs], output, path.name)

    def run(pictures):
        given = pictures.transpose(0, 3, 1, 2) if channels_first else pictures
        if np.dtype(dtype).kind in "iu":
            given = np.clip(np.rint(given), np.iinfo(dtype).min, np.iinfo(dtype).max)
        (found,) = session.run([returned], {inputs[0].name: np.ascontiguousarray(given, dtype)})
        found = np.asarray(found)
        # A convolution as the last layer leaves positions, of which there is one.
        return found.reshape(found.shape[:2]) if found.shape[2:] in ((1, 1), (1,)) else found

    at_once = dims[0] or _taken_at_once(run, shape)

    def function(pictures):
        if at_once is None:
            return run(pictures)
        missing = -len(pictures) % at_once
        padded = np.concatenate([pictures, np.repeat(pictures[-1:], missing, axis=0)])
        parts = [run(padded[i : i + at_once]) for i in range(0, len(padded), at_once)]
        return np.concatenate(parts)[: len(pictures)]

    return function, shape


_NUMBERS = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def _session(path: Path):
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(
            f"{path.name} needs ONNX Runtime, which is not installed: pip install '.[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, and need not be printed too
    # Without a number it pins threads to processors, also to those that others were given.
    options.intra_op_num_threads = int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # of many kinds, which share no name
        cause = first_line(error).removeprefix("[ONNXRuntimeError] : ")
        raise ValueError(f"{path.name} cannot be loaded as an ONNX model: {cause}") from None


def _taken_at_once(run: Callable, shape: tuple) -> int | None:
    """1 for a file that says that it takes any number of pictures but holds a 1 inside, or None."""
    noise = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype(np.float32)
    try:
        return None if len(run(noise)) == 2 else 1
    except Exception:  # what is wrong with a single picture too is told when it is asked about
        return 1


# --- SavedModel -----------------------------------------------------------------------------------


def load_saved_model(
    path, size=None, output: str | None = None, endpoint: str | None = None
) -> keras.Model:
    """A SavedModel folder as a Keras model: its own input `(N, H, W, C)` to outputs `(N, classes)`.

    Its graph is one layer, so that techniques which read a layer cannot be used; it has a gradient.
    The graph of a SavedModel can read and write files: load only what you trust.

    Args:
        path: of the folder, as `model.export` or `tf.saved_model.save` writes it.
        size: (height, width) or one side, for a network that leaves it open.
        output: name of the output that is meant, of several.
        endpoint: the signature that is called; default `serving_default`, or the only one.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no SavedModel, not one image input, or a size, output or endpoint that must be
            said.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"no SavedModel folder at {path}")
    graph = path / "saved_model.pb"
    if not graph.is_file():
        raise ValueError(f"{path.name} is no SavedModel: the folder has no saved_model.pb")
    endpoint, signature = _signature(graph, endpoint, path.name)
    if len(signature.inputs) != 1:
        raise ValueError(
            f"{path.name} takes {len(signature.inputs)} inputs ({', '.join(signature.inputs)}),"
            " not one of pictures"
        )
    (given,) = signature.inputs.values()
    dtype = tf.dtypes.as_dtype(given.dtype)
    dims = [side.size if side.size > 0 else None for side in given.tensor_shape.dim]
    if not (dtype.is_floating or dtype.is_integer):
        raise ValueError(f"{path.name} takes {dtype.name} {dims}, not numbers of pictures")
    if len(dims) == 4 and dims[0]:
        raise ValueError(
            f"{path.name} takes {dims[0]} pictures at a time: export it for any number, None"
        )
    shape, channels_first = image_shape(dims, size, path.name)
    returned = choose_output(sorted(signature.outputs), output, path.name)
    try:
        layer = keras.layers.TFSMLayer(
            str(path),
            call_endpoint=endpoint,
            trainable=False,
            name="saved_model",
            dtype=dtype.name if dtype.is_floating else "float32",
        )
    except Exception as error:
        raise ValueError(
            f"{path.name} cannot be loaded as a SavedModel: {first_line(error)}"
        ) from None
    layer.file_digest = hashlib.sha256(graph.read_bytes()).hexdigest()
    pixels = keras.Input(shape, name="pixels")
    inputs = keras.layers.Permute((3, 1, 2))(pixels) if channels_first else pixels
    if dtype != tf.float32:
        inputs = keras.ops.cast(inputs, dtype.name)
    scores = layer(inputs)[returned]
    if len(scores.shape) != 2 or scores.shape[1] is None:
        scores = _flattened(layer, inputs.shape, dtype, returned, path.name)(scores)
    if scores.dtype != "float32":
        scores = keras.ops.cast(scores, "float32")
    return keras.Model(pixels, scores, name="saved_model")


def _signature(graph: Path, endpoint: str | None, name: str):
    """The signature that is called, and its name."""
    from tensorflow.core.protobuf import saved_model_pb2  # slow to import, seldom needed

    try:
        saved = saved_model_pb2.SavedModel.FromString(graph.read_bytes())
        known = dict(saved.meta_graphs[0].signature_def)
    except Exception as error:  # protobuf's DecodeError; no graph at all
        raise ValueError(
            f"{name} cannot be loaded as a SavedModel: its saved_model.pb is damaged"
            f" ({first_line(error)})"
        ) from None
    known = {key: found for key, found in known.items() if not key.startswith("__")}
    if endpoint is None and len(known) > 1:
        endpoint = "serving_default"
    endpoint = endpoint or next(iter(known), None)
    if endpoint not in known:
        raise ValueError(
            f"{name} has no signature {endpoint or 'at all'}; it has {', '.join(known) or 'none'}:"
            " save it with tf.saved_model.save(model, path, signatures=...) or model.export(path)"
        )
    return endpoint, known[endpoint]


def _flattened(layer, shape, dtype, returned, name) -> keras.layers.Layer:
    """What makes `(N, classes)` of a shape that the graph leaves open, or of `(N, 1, 1, classes)`.

    It is found on one picture.
    """
    found = layer(tf.zeros((1, *shape[1:]), dtype))[returned].shape
    if len(found) < 2 or np.prod(found[1:]) not in found[1:]:
        raise ValueError(f"{name} returns {tuple(found)} for one picture, not (1, classes)")
    return keras.layers.Reshape((int(np.prod(found[1:])),), name="scores_of_classes")


# --- what they share ------------------------------------------------------------------------------


def image_shape(dims: list, size, name: str) -> tuple[tuple[int, int, int], bool]:
    """`(H, W, C)` of a network's input, and whether its channels come first.

    Args:
        dims: of the batch it takes, None where it takes any.
        size: (height, width) or one side, or None.

    Raises:
        ValueError: no batch of pictures, or a size that must be said, or that it does not take.
    """
    shown = "(" + ", ".join("any" if side is None else str(side) for side in dims) + ")"
    wrapped = "wrap it in models.black_box with a function that reshapes"
    if len(dims) != 4:
        raise ValueError(f"{name} takes {shown}, not pictures (N, H, W, C) or (N, C, H, W)")
    channels_first = _channels_first(*dims[1:])
    if channels_first is None:
        raise ValueError(f"{name} takes {shown}: which are the channels? {wrapped}")
    sides = dims[2:] if channels_first else dims[1:3]
    wanted = [size, size] if isinstance(size, (int, np.integer)) else [*(size or sides)]
    if None in wanted:
        raise ValueError(f"{name} takes {shown}: say size=(height, width)")
    if len(wanted) != 2 or any(s not in (None, int(w)) for s, w in zip(sides, wanted)):
        raise ValueError(f"{name} takes {shown}, not size={size}")
    return (int(wanted[0]), int(wanted[1]), dims[1 if channels_first else 3]), channels_first


def _channels_first(first: int | None, middle: int | None, last: int | None) -> bool | None:
    """Whether the first of three axes are the channels and not the last; None if it may be both."""
    if first is None or last is None:
        return None if first is last else last is None
    if (first == middle) != (middle == last):  # two equal sides are those of a square picture
        return middle == last
    fewer, more = sorted((first, last))
    return first < last if fewer < more and (fewer <= 4 or more > _MOST_CHANNELS) else None


def choose_output(names: list[str], output: str | None, name: str) -> str:
    """The output that is meant: the only one, or the one of that name.

    Raises:
        ValueError: several without a name, or an unknown name.
    """
    if output is None and len(names) == 1:
        return names[0]
    if output is None:
        raise ValueError(f"{name} has outputs {', '.join(names)}: say output=, one of them")
    if output not in names:
        raise ValueError(f"{name} has no output {output!r}; {nearest(output, names)}")
    return output


def fingerprint(model: keras.Model) -> str:
    """What tells a network from another: a digest of its weights and foreign files.

    Args:
        model: a Keras model.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: not a Keras model.
    """
    check_model(model)
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight))
    for _, layer in walk(model):
        digest.update(getattr(layer, "file_digest", "").encode())
    return digest.hexdigest()[:16]
