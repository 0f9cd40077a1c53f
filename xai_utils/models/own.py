"""A user's own network: read from its file, and brought from pixels to scores.

Old files are mended where Keras 3 refuses what Keras 2 wrote, and what goes wrong is said with its
cause.
"""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xai_utils import pictures
from xai_utils.engine import PIXELS, keras, tf, with_float_input
from xai_utils.models import foreign
from xai_utils.models.endings import DENSE, check_task, ending, with_task
from xai_utils.models.inputs import PREPROCESSING, Preprocess, brings_its_own
from xai_utils.models.shapes import is_spatial

SUFFIXES = (".keras", ".h5", ".hdf5", ".onnx")
TRIED = 4  # pictures of noise on which a network is tried


class Own(NamedTuple):
    """A network from pixels in 0..255, float32 `(N, H, W, C)`, to scores.

    They are `(N, classes)`, or `(N, h, w, classes)` of a network that answers at every pixel.

    Attributes:
        model: shares the layers of the network that was given.
        task: of `endings.TASKS`.
        function: what makes answers of the scores; see `endings`.
    """

    model: keras.Model
    task: str
    function: str


def read_model(path: Path, *, size=None, output=None, custom_objects=None) -> keras.Model:
    """A model from a file of Keras 2 or 3, a SavedModel folder or an ONNX file.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it cannot be read; the message says the cause.
    """
    if not path.exists():
        raise FileNotFoundError(f"no model file at {path}")
    if path.is_dir():
        return foreign.load_saved_model(path, size=size, output=output)
    if path.suffix == ".onnx":
        return foreign.load_onnx(path, size=size, output=output)
    objects = {**_old_layers(), **_functions(), **_named_objects(custom_objects)}
    try:
        # safe_mode: a model file must not be able to run code of its own
        return keras.models.load_model(path, compile=False, safe_mode=True, custom_objects=objects)
    except Exception as error:  # Keras raises what it likes
        raise ValueError(f"{path.name} cannot be loaded: {_cause(error)}") from None


def check_said(said: Mapping, name: str) -> None:
    """Check what is said of a network, as far as that goes without it.

    Args:
        said: keywords of `load_model`: of them preprocessing, task and resizing.
        name: what messages call the network.

    Raises:
        ValueError: a value that no network could have.
    """
    if (preprocessing := said.get("preprocessing")) is not None:
        Preprocess(preprocessing)
    check_task(said.get("task"), name)
    resizing = said.get("resizing")
    if resizing is not None and resizing not in pictures.RESIZINGS:
        raise ValueError(
            f"{name}: resizing is one of {', '.join(pictures.RESIZINGS)}, not {resizing!r}"
        )


def from_pixels(
    model: keras.Model,
    name: str,
    *,
    preprocessing=None,
    task=None,
    named=False,
    size=None,
    output=None,
) -> Own:
    """A user's model as a network from pixels to scores; it is left as it is.

    Args:
        model: one image input `(N, H, W, C)`, one output `(N, units)`, `(N, h, w, units)` or, with
            a task, `(N, h, w)`; or several outputs of which `output` names one.
        name: what messages call it.
        preprocessing: see `inputs.Preprocess`; None where the network does it itself.
        task: of `endings.TASKS`, where its ending does not tell.
        named: whether its classes have names.
        size: height and width, for a network of any size.

    Raises:
        ValueError: not such a network, or something that must be said.
    """
    shape = _input_shape(model, name, size)
    model = with_float_input(_one_output(model, name, output, shape))
    if preprocessing is None and not brings_its_own(model):
        raise ValueError(
            f"{name}: say what the model's input is, preprocessing= one of"
            f" {', '.join(PREPROCESSING)}, or a mapping; 02_your_network finds it out"
        )
    prepared = Preprocess(preprocessing or "none", name="preprocess")
    noise = np.random.default_rng(0).uniform(*PIXELS, (TRIED, *shape)).astype(np.float32)
    try:
        returned = tuple(model(prepared(noise), training=False).shape)
    except Exception as error:
        raise ValueError(f"{name} cannot take pictures {shape}: {_cause(error)}") from None
    one_each = len(returned) == 3 and task in DENSE
    if len(returned) != 2 and not is_spatial(returned) and not one_each:
        raise ValueError(
            f"{name} returns {(None, *returned[1:])}; an image classifier returns (None, classes),"
            " a network that answers at every pixel (None, h, w, classes), or (None, h, w) with"
            f" task={' or '.join(DENSE)}"
        )
    found = ending(model, prepared(noise))
    if one_each:
        model = _one_channel(model)
        found = found._replace(model=_one_channel(found.model))
    found, task = with_task(found, model, task, named, name)
    pixels = keras.Input(shape, name="pixels", dtype="float32")
    # Always: augmentation inside a network is for training, and on unless it is told otherwise.
    scores = found.model(prepared(pixels), training=False)
    if scores.dtype in ("float16", "bfloat16"):
        scores = keras.layers.Activation("linear", dtype="float32", name="float32")(scores)
    plain = re.sub(r"\W", "_", Path(name).stem, flags=re.ASCII) or "model"
    return Own(keras.Model(pixels, scores, name=plain), task, found.function)


def _input_shape(model, name: str, size) -> tuple[int, int, int]:
    """Height, width and channels of what a model takes."""
    shape = getattr(model, "input_shape", None)
    if shape is None:  # a subclassed model knows what it was built with
        shape = (model.get_build_config() or {}).get("input_shape")
        shape = shape and (None, *shape[1:])
    if isinstance(shape, (list, Mapping)):
        shapes = list(shape.values()) if isinstance(shape, Mapping) else shape
        if len(shapes) != 1:
            raise ValueError(
                f"{name} takes {len(shapes)} inputs; an image classifier here takes one"
            )
        shape = shapes[0]
    if shape is None:
        raise ValueError(
            f"{name} has no known input: call it on a batch first, or give it a keras.Input"
        )
    if len(shape) != 4 or shape[3] is None:
        raise ValueError(
            f"{name} takes input {shape}; an image classifier here takes (None, height, width,"
            " channels)"
        )
    if keras.config.image_data_format() == "channels_first" or shape[3] > 64 and shape[1] in (1, 3):
        raise ValueError(
            f"{name} takes input {shape}, channels first; networks here take (None, height, width,"
            " channels)"
        )
    given = None if size is None else tuple(int(side) for side in np.broadcast_to(size, 2))
    if given and any(own not in (None, side) for own, side in zip(shape[1:3], given)):
        raise ValueError(f"{name} takes {shape[1]} x {shape[2]} pixels, not size={size}")
    if None in shape[1:3] and not given:
        raise ValueError(
            f"{name} takes pictures of any size, {shape}: say which by size=, such as size=224 or"
            " size=[48, 96]"
        )
    return (*(given or shape[1:3]), shape[3])


def _one_output(model, name: str, output, shape) -> keras.Model:
    """The model with one tensor as its output: the only one, or the one that is asked for."""
    graph = bool(getattr(model, "inputs", None))
    inputs = model.inputs[0] if graph else keras.Input(shape)
    returned = model(inputs)
    if isinstance(returned, keras.KerasTensor) and output is None:
        plain = isinstance(getattr(model, "input_shape", None), tuple)
        return model if plain else keras.Model(inputs, returned, name=model.name)
    if isinstance(returned, Mapping):
        named = dict(returned)
    elif isinstance(returned, (list, tuple)):
        names = getattr(model, "output_names", None) or range(len(returned))
        named = {str(key): tensor for key, tensor in zip(names, returned)}
    else:
        named = {(getattr(model, "output_names", None) or ["output"])[0]: returned}
    if output is None and len(named) == 1:
        output = next(iter(named))
    if output not in named:
        asked = "say which by output=" if output is None else f"output={output!r} is none of them"
        raise ValueError(f"{name} has {len(named)} outputs, {', '.join(named)}: {asked}")
    return keras.Model(inputs, named[output], name=model.name)


def _one_channel(model) -> keras.Model:
    """A model that returns `(N, h, w, 1)` where this one returns `(N, h, w)`."""
    inputs = (
        model.inputs[0] if getattr(model, "inputs", None) else keras.Input(model.input_shape[1:])
    )
    outputs = model.outputs[0] if getattr(model, "inputs", None) else model(inputs)
    outputs = keras.layers.Reshape((*outputs.shape[1:], 1), name="one_channel")(outputs)
    return keras.Model(inputs, outputs, name=model.name)


def _old_layers() -> dict:
    """Layers that take what Keras 2 wrote and Keras 3 does not know: `groups` where it is 1."""
    return {
        kind.__name__: _without_groups(kind)
        for kind in (
            keras.layers.DepthwiseConv2D,
            keras.layers.SeparableConv2D,
            keras.layers.Conv2DTranspose,
        )
    }


def _without_groups(kind: type) -> type:
    def from_config(cls, config):
        if config.get("groups") == 1:
            config = {key: value for key, value in config.items() if key != "groups"}
        return kind.from_config(config)

    return type(kind.__name__, (kind,), {"from_config": classmethod(from_config)})


def _functions() -> dict:
    """TensorFlow's own activations, which a file names without saying whose they are."""
    names = (
        "softmax",
        "sigmoid",
        "relu",
        "relu6",
        "tanh",
        "elu",
        "selu",
        "gelu",
        "silu",
        "swish",
        "leaky_relu",
        "softplus",
    )
    functions = {getattr(tf.nn, name).__name__: getattr(tf.nn, name) for name in names}
    return {name: f for name, f in functions.items() if not hasattr(keras.activations, name)}


def _named_objects(given) -> dict:
    """Custom objects by name; in a card they are written `package.module.Name`.

    Raises:
        ValueError: not such names, or nothing to import there.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {
            key: _imported(value) if isinstance(value, str) else value
            for key, value in given.items()
        }
    objects = [_imported(value) if isinstance(value, str) else value for value in given]
    return {made.__name__: made for made in objects}


def _imported(place: str):
    module, _, name = place.replace(":", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"custom_objects: {place!r} cannot be imported ({error}); write package.module.Name of"
            " something that is installed or on PYTHONPATH"
        ) from None


def _cause(error: Exception) -> str:
    """What a loading error came from, in one line: the innermost reason, not Keras' first words."""
    text = str(error)
    if "Exception encountered:" in text:
        text = text.rsplit("Exception encountered:", 1)[1]
    if unknown := re.search(
        r"(?:Could not locate (?:class|function)|Unknown \w+:) '?([\w>.]+)'?", text
    ):
        return (
            f"it needs {unknown[1]!r}, which Keras does not have: pass custom_objects="
            f"{{{unknown[1]!r}: ...}}, or custom_objects: [package.module.{unknown[1]}] in its card"
        )
    if "safe_mode" in text or "unsafe" in text.lower():
        return (
            "it holds Python code (a Lambda layer), which is not run from a file: build the model"
            " in Python and give it to load_model, or put the code into a layer class"
        )
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    return reason if len(reason) <= 300 else f"{reason[:297]}..."
