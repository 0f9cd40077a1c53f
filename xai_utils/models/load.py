"""Image classifiers that take pixels and return logits, and the embedded object detector.

Every network's own normalisation is part of its graph, so that attribution, perturbation, attack
and inversion all work in one space: float32 RGB pixels in 0..255. Probabilities are made by the
task's own function (`endings`), where they are shown.
"""

import difflib
import hashlib
import os
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from xai_utils import pictures
from xai_utils.engine import check_images, forward, keras
from xai_utils.models import applications, efficientnet_lite, labels, layers, ssd_mobilenet
from xai_utils.models.applications import APPLICATIONS, PREPROCESSING, Preprocess, load_application
from xai_utils.models.detection import Detector
from xai_utils.models.endings import Ending, ending, probabilities, remember_function, with_task

EMBEDDED = {
    "efficientnet_lite0": "4b19272d63962130c76ca540114ce520495dd214cc78cfb12fc49c72dd7f211d",
    "efficientnet_lite2": "133a77959aacbec80a1e5d6b798fb216623abd6418960508a1383e9c5a474142",
    "ssd_mobilenet_v2": "2d194bed55aaf9e1218268471d235ef09e7d7bdfa7fe9f4aecd81fd8e15af0f9",
}
DETECTOR = "ssd_mobilenet_v2"

# embedded networks handed out, and their names
_IN_USE: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_RETURNED: list[tuple[str, keras.Model]] = []  # those that nobody needs any more


@dataclass(frozen=True)
class Classifier:
    """A frozen image classifier.

    Attributes:
        name: what `load_model` was asked for.
        model: Keras model, float32 RGB pixels `(N, size, size, 3)` in 0..255 to logits
            `(N, classes)`.
        input_size: side of the square input in pixels.
        labels: one name for each class, in the order of the logits.
        conv_layer: the layer Grad-CAM reads by default: the last one with spatial extent that is
            not a pooling.
        task: `classification`, of which one class is true, or `multilabel`, each for itself.
    """

    name: str
    model: keras.Model
    input_size: int
    labels: tuple[str, ...]
    conv_layer: str
    task: str = "classification"

    def prepare(self, *images) -> np.ndarray:
        """Crop and resize pictures to one float32 batch `(N, size, size, 3)` in 0..255.

        Pictures are names, paths or arrays.
        """
        loaded = [
            image if isinstance(image, np.ndarray) else pictures.load_image(image)
            for image in images
        ]
        return np.stack([pictures.prepare(image, self.input_size) for image in loaded])

    def prepare_mask(self, name: str) -> np.ndarray:
        """The object mask of a drawn picture, as `prepare` crops it: bool `(size, size)`."""
        return pictures.prepare(pictures.load_mask(name), self.input_size, nearest=True)

    def predict(self, images) -> np.ndarray:
        """Probabilities, float32 `(N, classes)`, of a batch of prepared images in 0..255."""
        scores = forward(self.model, check_images(self.model, images))
        return probabilities(self.model, scores).numpy()

    def top(self, images, k: int = 5) -> list[list[tuple[str, float]]]:
        """The k likeliest classes of each image, as `(label, probability)`, likeliest first."""
        probabilities = self.predict(images)
        order = np.argsort(-probabilities, axis=1)[:, :k]
        return [
            [(self.labels[i], float(p[i])) for i in row]
            for row, p in zip(order, probabilities, strict=True)
        ]

    def class_index(self, name: str | int) -> int:
        """The index of a class given by name, WordNet id (ImageNet networks) or index.

        Raises:
            ValueError: there is no such class.
        """
        return labels.model_class(self.model, name)


def load_model(
    source: str | os.PathLike | keras.Model = "efficientnet_lite0",
    *,
    weights=None,
    preprocessing=None,
    label_file=None,
    task=None,
) -> Classifier | Detector:
    """Load a classifier, pixels in, logits out; or the detector, pixels in, boxes and logits out.

    Args:
        source: `efficientnet_lite0` or `efficientnet_lite2` (embedded, work offline), an ImageNet
            network of `keras.applications` (a key of `APPLICATIONS`, such as `vgg19`), a path to
            your own `.keras` or `.h5`, or your own Keras model, which is left as it is;
            `ssd_mobilenet_v2` for the object detector (embedded).
        weights: for a network of `keras.applications`, a weights file to read. Without it they come
            from `data/models/`, then from Keras' cache, then by download.
        preprocessing: for your own model, what its input is: one of `PREPROCESSING` (see
            `Preprocess`).
        label_file: for your own model, a text file with one class name a line, or a JSON list;
            `imagenet` for ImageNet's 1000. Without it the classes are called `class 0`, `class 1`,
            ...
        task: for your own model, `classification` or `multilabel`, where its ending does not tell:
            linear units without names, or one linear unit.

    Returns:
        A `Classifier`, or a `Detector`, whose model is frozen (`trainable = False`), unless it
        shares the layers of a model that you gave.

    Raises:
        ValueError: unknown name, damaged or unreadable file, model that is not an image classifier,
            or a task that must be said.
        FileNotFoundError: the file is missing, or the weights are neither on this machine nor to be
            downloaded.
    """
    name = source.name if isinstance(source, keras.Model) else os.fspath(source)
    own = isinstance(source, keras.Model) or Path(name).suffix in {".keras", ".h5"}
    if not own and (preprocessing or label_file or task):
        raise ValueError(
            "preprocessing=, label_file= and task= describe your own model;"
            f" {name!r} brings its own"
        )
    if weights is not None and name not in APPLICATIONS:
        raise ValueError(
            "weights= goes with a network of keras.applications, such as 'vgg19', not with"
            f" {name!r}"
        )
    function = "softmax"
    if own:
        names = _own_labels(label_file)
        found, task = _load_own(source, name, preprocessing, task, names is not None)
        model, function = found.model, found.function
    elif name == DETECTOR:
        model, anchors = _load_embedded(name, ssd_mobilenet.build, ssd_mobilenet.EPSILON)
        return Detector(name, model, labels.coco_labels(), anchors, tuple(ssd_mobilenet.LEVELS))
    elif name in EMBEDDED:
        model, _ = _load_embedded(
            name, partial(efficientnet_lite.build, name), efficientnet_lite.EPSILON
        )
        names = labels.imagenet_labels()
    elif name in APPLICATIONS:
        model, names = load_application(name, weights), labels.imagenet_labels()
    else:
        known = [*EMBEDDED, *APPLICATIONS]
        near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4) or list(EMBEDDED)
        raise ValueError(
            f"no model is called {name!r}; nearest: {', '.join(near)}; your own must end in .keras"
            " or .h5"
        )
    classes = model.output_shape[-1]
    names = names or tuple(f"class {i}" for i in range(classes))
    if len(names) != classes:
        raise ValueError(
            f"{label_file or name} has {len(names)} class names, but the model has {classes}"
            " classes"
        )
    if not isinstance(source, keras.Model):
        model.trainable = False
    labels.name_classes(model, names)
    remember_function(model, function)
    layer = layers.default_layer(model, model.input_shape)
    size = model.input_shape[1]
    return Classifier(name, model, size, names, layer, task or "classification")


def return_networks() -> None:
    """Let `load_model` hand out again the embedded networks that were loaded so far.

    They get fresh weights then. For a kernel between two runs: what was compiled for a network
    serves the next run too.
    """
    _RETURNED.extend((name, model) for model, name in _IN_USE.items())
    _IN_USE.clear()


def _embedded(name: str, build: Callable) -> keras.Model:
    """A network without its weights, one that was returned if there is."""
    model = next((network for known, network in _RETURNED if known == name), None)
    if model is None:
        model = build()
    else:
        _RETURNED.remove((name, model))
    _IN_USE[model] = name
    return model


def _load_embedded(
    name: str, build: Callable, epsilon: float
) -> tuple[keras.Model, np.ndarray | None]:
    """The model, frozen, with its weights of `data/models/`, and a detector's anchors."""
    path = applications.MODELS_FOLDER / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} is missing from data/models/: get it back with `git checkout data/models`"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != EMBEDDED[name]:
        raise ValueError(
            f"data/models/{path.name} is damaged (its sha256 differs): `git checkout data/models`"
            " restores it"
        )
    model = _embedded(name, build)
    with np.load(path, allow_pickle=False) as arrays:
        for layer in model.layers:
            if layer.weights:
                layer.set_weights(_folded(arrays, layer, epsilon))
        anchors = arrays.get("anchors")
    model.trainable = False
    return model, anchors


def _folded(arrays, layer, epsilon: float) -> list[np.ndarray]:
    """A layer's weights, the batch normalisation trained after it folded into kernel and bias."""
    normalisation = layer.name.removesuffix("_conv") + "_bn"
    if f"{normalisation}/gamma" not in arrays:
        return [arrays[f"{layer.name}/{weight.name}"] for weight in layer.weights]
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    gamma, beta, mean, variance = (
        arrays[f"{normalisation}/{name}"].astype(np.float64) for name in names
    )
    scale = gamma / np.sqrt(variance + epsilon)
    # A depthwise kernel is (h, w, C, 1).
    by_channel = scale[:, None] if isinstance(layer, keras.layers.DepthwiseConv2D) else scale
    return [arrays[f"{layer.name}/kernel"] * by_channel, beta - mean * scale]


def _own_labels(label_file) -> tuple[str, ...] | None:
    if label_file is None:
        return None
    return (
        labels.imagenet_labels()
        if str(label_file) == "imagenet"
        else labels.read_labels(label_file)
    )


def _load_own(source, name: str, preprocessing, task, named: bool) -> tuple[Ending, str]:
    """A user's model, from pixels to scores of classes, and its task."""
    path = None if isinstance(source, keras.Model) else Path(name).expanduser()
    if path and not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    if preprocessing not in PREPROCESSING:
        raise ValueError(
            f"{name}: say what the model's input is, preprocessing= one of"
            f" {', '.join(PREPROCESSING)}; got {preprocessing!r}"
        )
    model = _read_own(path) if path else source
    name = Path(name).name
    shape = getattr(model, "input_shape", None)
    square = isinstance(shape, tuple) and len(shape) == 4 and shape[1] and shape[1] == shape[2]
    if not square or shape[3] != 3:
        raise ValueError(
            f"{name} takes input {shape}; an image classifier here takes (None, size, size, 3)"
        )
    returned = model.output_shape
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise ValueError(f"{name} returns {returned}; an image classifier returns (None, classes)")
    prepared = Preprocess(preprocessing, name="preprocess")
    noise = np.random.default_rng(0).uniform(0, 255, (4, *shape[1:])).astype(np.float32)
    found = ending(model, prepared(noise))
    pixels = keras.Input(shape[1:], name="pixels")
    plain = re.sub(r"\W", "_", Path(name).stem)
    scores = keras.Model(pixels, found.model(prepared(pixels)), name=plain)
    return with_task(found._replace(model=scores), task, named, name)


def _read_own(path: Path) -> keras.Model:
    try:
        # safe_mode: a model file must not be able to run code of its own
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise ValueError(
            f"{path.name} cannot be loaded as a Keras model: {str(error).splitlines()[0]}"
        ) from None
