"""Image networks that take pixels and return scores, and the embedded object detector.

Every network's own normalisation is part of its graph, so that attribution, perturbation, attack
and inversion all work in one space: float32 pixels in 0..255. Probabilities are made by the task's
own function (`endings`), where they are shown.
"""

import contextlib
import hashlib
import os
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from xai_utils import pictures
from xai_utils.engine import PIXELS, cached, check_images, forward, keras, nearest
from xai_utils.models import cards, efficientnet_lite, maps, own, shapes, ssd_mobilenet
from xai_utils.models import labels as names_of
from xai_utils.models.applications import APPLICATIONS, load_application
from xai_utils.models.detection import Detector
from xai_utils.models.endings import (
    function_of,
    is_dense,
    pixel_classes,
    probabilities,
    remember_task,
)
from xai_utils.models.inputs import value_range

DETECTOR = "ssd_mobilenet_v2"
# the networks that come with the suite, and what their cards say
EMBEDDED = cards.embedded()

_WEIGHTS = "weights= goes with a network of keras.applications, such as 'vgg19', not with {!r}"
# embedded networks handed out, and their names
_IN_USE: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_RETURNED: list[tuple[str, keras.Model]] = []  # those that nobody needs any more


@dataclass(frozen=True)
class Classifier:
    """A frozen image network with what must be known to ask it.

    Attributes:
        name: what `load_model` was asked for.
        model: Keras model, float32 pixels `(N, height, width, channels)` in 0..255 to scores
            `(N, classes)` before any softmax or sigmoid; the values of a regression. Of a network
            that answers at every pixel they are `(N, h, w, classes)`.
        input_size: height and width of the input in pixels.
        labels: one name for each class or value, in the order of the scores.
        conv_layer: the layer Grad-CAM reads by default; None where the network has no map.
        task: `classification`, of which one class is true, `multilabel`, each for itself,
            `regression`, whose values are amounts, or `segmentation`, a class at every pixel.
        resizing: how a picture is brought to the input's size; see `pictures.prepare`.
        value_range: the values in pictures that stand for 0 and 255.
    """

    name: str
    model: keras.Model
    input_size: tuple[int, int]
    labels: tuple[str, ...]
    conv_layer: str | None
    task: str = "classification"
    resizing: str = "imagenet"
    value_range: tuple[float, float] = PIXELS

    @property
    def channels(self) -> int:
        """Channels of the input: 1 for grey, 3 for RGB, more for bands."""
        return self.model.input_shape[-1]

    @property
    def function(self) -> str:
        """What makes answers of scores: `softmax`, `sigmoid`, or `linear` for nothing."""
        return function_of(self.model)

    @property
    def one_unit(self) -> bool:
        """Whether one sigmoid unit answers for two classes: their scores are -s and s."""
        return self.task == "classification" and self.function == "sigmoid"

    @property
    def unit(self) -> str:
        """What scores are counted in: `logits`, or `units` of a regression's values."""
        return "units" if self.task == "regression" else "logits"

    @property
    def dense(self) -> bool:
        """Whether there is an answer at every pixel: a segmentation, or values such as depth."""
        return is_dense(self.model)

    def prepare(self, *images) -> np.ndarray:
        """Bring pictures to one batch of the network's size.

        Args:
            images: names, paths or arrays `(H, W, channels)` in `value_range`; RGB arrays become
                grey for a grey network.

        Returns:
            float32 `(N, height, width, channels)` in 0..255.

        Raises:
            PictureError: a picture that cannot be read, or has other channels.
        """
        low, high = self.value_range
        batch = np.stack([self._sized(image) for image in images])
        return batch if (low, high) == PIXELS else (batch - low) * np.float32(255 / (high - low))

    def _sized(self, image) -> np.ndarray:
        given = isinstance(image, np.ndarray)
        image = image if given else pictures.load_image(image, self.channels)
        if given and image.ndim == 3 and (image.shape[2], self.channels) == (3, 1):
            image = pictures.grey(image)[..., None]
        if image.ndim == 3 and image.shape[2] != self.channels:
            raise pictures.PictureError(
                f"a picture has shape {image.shape}; {self.name} takes {self.channels} channels"
            )
        high = self.value_range[1]
        if image.size and image.max() > 2 * high:
            warnings.warn(
                f"{self.name} takes pictures of {self.value_range[0]:g} to {high:g}, but one"
                f" reaches {image.max():g}: say preprocessing with range: [low, high]",
                stacklevel=3,
            )
        return pictures.prepare(image, self.input_size, resizing=self.resizing)

    def prepare_mask(self, mask) -> np.ndarray:
        """A mask brought to the input's size in the way that `prepare` brings its picture.

        Args:
            mask: bool `(H, W)`, or the name of a drawn picture for that of its object.

        Returns:
            bool `(height, width)`.
        """
        mask = mask if isinstance(mask, np.ndarray) else pictures.load_mask(mask)
        return pictures.prepare(mask, self.input_size, nearest=True, resizing=self.resizing)

    def predict(self, images) -> np.ndarray:
        """What the network answers about a batch.

        Args:
            images: `(N, height, width, channels)` of `prepare`, in 0..255.

        Returns:
            float32 `(N, classes)`: probabilities in 0..1; of a regression its values. Of a
            segmentation, the share of the pixels that are of each class, and of values at every
            pixel their mean; see `predict_pixels`.

        Raises:
            ValueError: not such a batch, or one that the network answers with NaN or infinity.
        """
        scores = forward(self.model, check_images(self.model, images))
        answers = self._numbers(scores)
        if not self.dense:
            return answers
        found = (
            pixel_classes(self.model, scores).numpy() if self.task == "segmentation" else answers
        )
        return found.mean(axis=(1, 2), dtype=np.float32)

    def predict_pixels(self, images) -> np.ndarray:
        """What a network that answers at every pixel says at each.

        Args:
            images: `(N, height, width, channels)` of `prepare`, in 0..255.

        Returns:
            float32 `(N, h, w, classes)`, of the output's own size: probabilities in 0..1; of a
            regression its values.

        Raises:
            ValueError: not such a batch, a network that gives one answer a picture, or one that
                answers with NaN or infinity.
        """
        if not self.dense:
            raise ValueError(f"{self.name} gives one answer a picture, none at every pixel")
        scores = forward(self.model, check_images(self.model, images))
        return self._numbers(scores)

    def _numbers(self, scores) -> np.ndarray:
        answers = probabilities(self.model, scores).numpy()
        bad = ~np.isfinite(scores.numpy()).reshape(len(answers), -1).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{self.name} answers images {np.flatnonzero(bad).tolist()} with NaN or infinity:"
                " see what it does to their pixels, such as dividing by their spread"
            )
        return answers

    def top(self, images, k: int = 5) -> list[list[tuple[str, float]]]:
        """The k likeliest classes of each image, likeliest first.

        Of a regression the k largest values, of a segmentation the classes of most pixels.

        Args:
            images: `(N, height, width, channels)` of `prepare`, in 0..255.
            k: how many.

        Returns:
            For each image k pairs `(label, probability)`, or what `predict` gives in its place.

        Raises:
            ValueError: not such a batch, or one that the network answers with NaN or infinity.
        """
        answers = self.predict(images)
        order = np.argsort(-answers, axis=1)[:, :k]
        return [
            [(self.labels[i], float(p[i])) for i in row]
            for row, p in zip(order, answers, strict=True)
        ]

    def written(self, value: float) -> str:
        """A number of `predict` in words.

        Args:
            value: a probability or share in 0..1; the value of a regression.

        Returns:
            `36 %`; of a regression the value, `37.56`.
        """
        return f"{value:.4g}" if self.task == "regression" else f"{100 * value:.0f} %"

    def title(self, top: Sequence[tuple[str, float]]) -> str:
        """The likeliest class as a figure's title.

        Args:
            top: pairs `(label, probability)` of one image, of `top`; the first counts.

        Returns:
            `Egyptian cat  36 %`.
        """
        label, value = top[0]
        return f"{label.replace('_', ' ')}  {self.written(value)}"

    def class_index(self, name: str | int) -> int:
        """The index of a class.

        Args:
            name: name, WordNet id (ImageNet networks) or index.

        Returns:
            The index, from 0.

        Raises:
            ValueError: there is no such class.
        """
        return names_of.model_class(self.model, name)


def load_model(
    source: str | os.PathLike | keras.Model = "efficientnet_lite0",
    *,
    preprocessing=None,
    labels=None,
    task: str | None = None,
    resizing: str | None = None,
    size=None,
    layer: str | None = None,
    tokens: Sequence[int] | None = None,
    output: str | None = None,
    custom_objects=None,
    weights=None,
) -> Classifier | Detector:
    """Load an image network, pixels in, scores out; or the detector, pixels in, boxes out.

    Every keyword can stand in a *card*, a YAML file of the same keys beside your model: `mine.yaml`
    for `mine.keras`. What is given here goes before what the card says.

    Args:
        source: `efficientnet_lite0` or `efficientnet_lite2` (embedded, work offline), an ImageNet
            network of `keras.applications` (a key of `APPLICATIONS`, such as `vgg19`); a path to
            your own `.keras` or `.h5`, SavedModel folder, `.onnx` or card; the name of a card in
            `data/models/`; or your own Keras model, which is left as it is. `ssd_mobilenet_v2` is
            the object detector (embedded).
        preprocessing: what your model's input is: one of `PREPROCESSING` or a mapping, see
            `Preprocess`. Not needed where the model scales 0..255 itself.
        labels: your classes' names: a list, a file or folder (see `read_labels`), or `imagenet`.
            Without them the classes are called `class 0`, `class 1`, ... One sigmoid unit has two
            classes, or one name, that of the second.
        task: of `TASKS`, where the model's ending does not tell: linear units without names, or
            one linear unit; and where it answers at every pixel, unless it ends in a softmax.
        resizing: how pictures are brought to its size, of `pictures.RESIZINGS`; default `stretch`.
        size: side, or height and width, in pixels for a model that takes any size.
        layer: what Grad-CAM and the like read by default; default the map that the head reads.
        tokens: for a transformer in which it is not found which tokens are the picture's places:
            rows and columns of their grid, and how many tokens are before and after it, `[14, 14,
            1]` with a class token.
        output: which of several outputs is explained.
        custom_objects: classes and functions of your own that the model needs: by name, or a list;
            in a card, `package.module.Name` of what can be imported.
        weights: for a network of `keras.applications`, a weights file to read. Without it they come
            from `data/models/`, then from Keras' cache, then by download.

    Returns:
        A `Classifier`, or a `Detector`, whose model is frozen (`trainable = False`), unless it
        shares the layers of a model that you gave.

    Raises:
        ValueError: unknown name, damaged or unreadable file, model that is not an image classifier,
            or something that must be said.
        FileNotFoundError: the file is missing, or the weights are neither on this machine nor to be
            downloaded.
    """
    keywords = dict(locals())
    given = {key: keywords[key] for key in cards.KEYWORDS if keywords[key] is not None}
    if isinstance(source, keras.Model):
        return _own(source, source.name, given)
    name = os.fspath(source)
    if name in EMBEDDED or name in APPLICATIONS:
        return _known(name, given)
    file, said = _file_and_card(name)
    if "architecture" in said:
        name = said["architecture"]
        return _known(name, {**({"weights": file} if name in APPLICATIONS else {}), **given})
    said = {key: value for key, value in said.items() if key in cards.KEYWORDS} | given
    reading = {key: said.get(key) for key in ("size", "output", "custom_objects")}
    read = own.read_model(file, **reading)
    # ONNX and SavedModel files have been asked for their output when they were read.
    taken = {} if file.suffix in (".keras", ".h5", ".hdf5") else {"output": None}
    return _own(read, name, said | taken, frozen=True)


def _file_and_card(name: str) -> tuple[Path, dict]:
    """The file of a network asked for by a file, by its card, or by the name of a card."""
    path = cards.placed(name)
    if path.suffix in cards.SUFFIXES:
        said = cards.read_card(path)
        return cards.weights_of(path, said), said
    if path.exists() or path.suffix in own.SUFFIXES:
        card = cards.find_card(path)
        said = cards.read_card(card) if card else {}
        if "file" in said and Path(said["file"]).name != path.name:
            return path, {}  # the card of another file
        return path, said
    if len(path.parts) > 1:
        raise FileNotFoundError(f"no model file at {path}")
    known = [*EMBEDDED, *APPLICATIONS]
    raise ValueError(
        f"no model is called {name!r}; {nearest(name, known)}; your own must end in"
        f" {', '.join(own.SUFFIXES)} or be a SavedModel folder or a card (.yaml)"
    )


def _known(name: str, given: dict) -> Classifier | Detector:
    """An embedded network, or one of `keras.applications`."""
    if "weights" in given and name not in APPLICATIONS:
        raise ValueError(_WEIGHTS.format(name))
    if extra := [key for key in given if key not in ("layer", "weights")]:
        raise ValueError(f"{extra[0]}= describes your own model; {name!r} brings its own")
    if name in EMBEDDED:
        said = EMBEDDED[name]
        layer = given.get("layer", said.get("layer"))
        model, anchors = _load_embedded(name, said, again=layer == said.get("layer"))
        if name == DETECTOR:
            cached(model, "pixels", lambda: PIXELS)
            levels = tuple(ssd_mobilenet.LEVELS)
            return Detector(name, model, names_of.coco_labels(), anchors, levels)
    elif name in APPLICATIONS:
        model = load_application(name, given.get("weights"))
        model.trainable, layer = False, given.get("layer")
    else:
        known = ", ".join([*EMBEDDED, *APPLICATIONS])
        raise ValueError(f"architecture is one of {known}, not {name!r}")
    return _classifier(name, model, names_of.imagenet_labels(), layer=layer)


def _own(model: keras.Model, name: str, said: dict, frozen: bool = False) -> Classifier:
    """A user's model as a classifier."""
    if "weights" in said:
        raise ValueError(_WEIGHTS.format(name))
    short = Path(name).name
    resizing = said.get("resizing", "stretch")
    own.check_said(said, short)
    names = said.get("labels")
    names = names if names is None else names_of.read_labels(names)
    keys = ("preprocessing", "task", "size", "output")
    made = own.from_pixels(
        model, short, named=names is not None, **{key: said.get(key) for key in keys}
    )
    if frozen:
        made.model.trainable = False
    settings = {
        "layer": said.get("layer"),
        "tokens": said.get("tokens"),
        "resizing": resizing,
        "value_range": value_range(said.get("preprocessing")),
    }
    return classifier_of(name, made.model, names, made.task, made.function, **settings)


def classifier_of(name, model, names, task, function, **settings) -> Classifier:
    """A network of one's own as a classifier, its classes named or numbered.

    Args:
        name: what it was asked for by.
        model: pixels in 0..255 to scores.
        names: of its classes or values, or None; one name of two classes is the second's.
        task, function: of `endings`.
        settings: fields of `Classifier`.

    Raises:
        ValueError: another number of names than of scores.
    """
    classes = model.output_shape[-1]
    if names is None:
        kind = "value" if task == "regression" else "class"
        names = (kind,) if classes == 1 else tuple(f"{kind} {i}" for i in range(classes))
    if len(names) == 1 and classes == 2 and function == "sigmoid":
        names = (f"not {names[0]}", names[0])
    if len(names) != classes:
        raise ValueError(
            f"{Path(name).name}: {len(names)} class names are given, but the model has {classes}"
            " classes"
        )
    return _classifier(
        name,
        model,
        tuple(names),
        task=task,
        function=function,
        **{"resizing": "stretch"} | settings,
    )


def _classifier(
    name,
    model,
    names,
    *,
    layer=None,
    tokens=None,
    task="classification",
    function="softmax",
    **settings,
) -> Classifier:
    """A classifier, and what techniques ask its model about, kept with it."""
    names_of.name_classes(model, names)
    remember_task(model, task, function)
    cached(model, "pixels", lambda: PIXELS)
    if tokens is not None:
        shapes.say_grid(model, model.input_shape, tokens)
    if layer is not None:
        layer = maps.check_layer(model, model.input_shape, layer)
    cached(model, "layer", lambda: layer)
    if layer is None:
        with contextlib.suppress(ValueError):  # techniques that need one say so
            layer = maps.default_layer(model, model.input_shape)
    return Classifier(name, model, model.input_shape[1:3], names, layer, task, **settings)


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


def _load_embedded(name: str, said: dict, again: bool) -> tuple[keras.Model, np.ndarray | None]:
    """The model, frozen, with its weights of `data/models/`, and a detector's anchors.

    `again` allows one that was returned, with what techniques know of it.
    """
    path = cards.MODELS_FOLDER / Path(said["file"]).name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} is missing from data/models/: get it back with `git checkout data/models`"
        )
    if hashlib.sha256(path.read_bytes()).hexdigest() != said["sha256"]:
        raise ValueError(
            f"data/models/{path.name} is damaged (its sha256 differs): `git checkout data/models`"
            " restores it"
        )
    family = ssd_mobilenet if name == DETECTOR else efficientnet_lite
    build = family.build if name == DETECTOR else partial(family.build, name)
    model = _embedded(name, build) if again else build()
    with np.load(path, allow_pickle=False) as arrays:
        for layer in model.layers:
            if layer.weights:
                layer.set_weights(_folded(arrays, layer, family.EPSILON))
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
