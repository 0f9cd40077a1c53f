"""A network of one's own, seen for the first time: which pixels it wants, and what it says of some.

Nothing in a file says how pictures were brought to a network; pictures whose answer is known do.
"""

import csv
import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from xai_utils import pictures
from xai_utils.engine import keras
from xai_utils.models.inputs import PIXELS, PREPROCESSING
from xai_utils.models.layers import replaced_calls, walk
from xai_utils.models.load import Classifier, load_model

layers = keras.layers

RESIZINGS = ("stretch", "crop", "pad")
SUITE = ("cat", "hound", "umbrella", "mushroom")  # pictures of nobody's network
_TO = {"unit": [0, 1], "tf": [-1, 1]}
_TINY = 1e-7  # keeps the logarithm of a probability finite


class Tried(NamedTuple):
    """What a network says of pictures that were brought to it in one way.

    Attributes:
        name: of `PREPROCESSING`.
        preprocessing: as a card says it: the name, or a mapping with the files' own range.
        resizing: of `pictures.RESIZINGS`.
        answers: of `Classifier.predict`, `(N, classes)`.
        right: share of right answers, of a multilabel network of right decisions; nan without
            labels and of a regression.
        loss: mean log loss, of a regression the mean absolute error; nan without labels.
        strange: how unlike training the pictures are to the network's first batch normalisation:
            the divergence of Gaussians with their mean and variance from those that it keeps, mean
            over its channels, in nats; nan where it has none.
        level: whether `right` is within two standard errors of the best way's.
    """

    name: str
    preprocessing: str | dict
    resizing: str
    answers: np.ndarray
    right: float = float("nan")
    loss: float = float("nan")
    strange: float = float("nan")
    level: bool = False


def labelled(where, most: int = 24, seed: int = 0) -> tuple[list[str], list[tuple] | None]:
    """Some pictures, and what they are labelled with.

    Args:
        where: a folder of class folders, as `keras.utils.image_dataset_from_directory` takes it; a
            CSV file with the columns `path` (from the file's folder) and `label`, in which `;`
            separates several names; or a folder of pictures without labels. Empty for four of the
            suite's own.
        most: pictures to choose.
        seed: of the choice.

    Returns:
        Paths, and for each the names it has; None in their place where nothing is labelled.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no pictures in it, or a CSV file without the columns.
    """
    if not where:
        return [*SUITE], None
    path = Path(where).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no pictures at {path}")
    if path.is_file():
        found = _of_table(path)
    else:
        files = [
            file for file in sorted(path.rglob("*")) if file.suffix.lower() in pictures.SUFFIXES
        ]
        inside = [file.relative_to(path).parts for file in files]
        found = {str(file): parts[:-1][:1] for file, parts in zip(files, inside)}
    if not found:
        raise ValueError(f"{path} holds no pictures ({', '.join(pictures.SUFFIXES)})")
    chosen = sorted(np.random.default_rng(seed).permutation(len(found))[:most])
    names = [[*found.values()][i] for i in chosen]
    return [[*found][i] for i in chosen], names if all(names) else None


def _of_table(path: Path) -> dict[str, tuple]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [*csv.DictReader(file, skipinitialspace=True)]
    if rows and not {"path", "label"} <= set(rows[0]):
        raise ValueError(
            f"{path.name} needs the columns path and label; it has {', '.join(rows[0])}"
        )
    return {
        str(path.parent / row["path"]): tuple(name.strip() for name in row["label"].split(";"))
        for row in rows
    }


def truth(classifier: Classifier, names: Sequence[Sequence[str]]) -> np.ndarray:
    """What a network should answer about pictures that have these names.

    Args:
        classifier: of `load_model`.
        names: of each picture, one at least; numbers as text for a regression.

    Returns:
        Class indices `(N,)`; ones and zeros `(N, classes)` of a multilabel network, for which every
        name counts; the values `(N, 1)` of a regression.

    Raises:
        ValueError: no class of the network, no number, or a network that answers at every pixel.
    """
    if classifier.dense:
        raise ValueError(
            f"{classifier.name} answers at every pixel: no name of a whole picture is its answer"
        )
    if classifier.task == "regression":
        return np.array([[_number(name) for name in some] for some in names])
    indices = [[classifier.class_index(name) for name in some] for some in names]
    if classifier.task == "classification":
        return np.array([some[0] for some in indices])
    there = np.zeros((len(names), len(classifier.labels)))
    for row, some in zip(there, indices):
        row[some] = 1
    return there


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        raise ValueError(
            f"labels of a regression are numbers, such as 37.5, not {name!r}"
        ) from None


def preprocessings(channels: int, values=PIXELS) -> dict[str, str | dict]:
    """The ways of `PREPROCESSING` that fit pictures, by name, each as a card says it.

    Args:
        channels: of the pictures; only RGB has the means of ImageNet.
        values: the lowest and highest value in the files.
    """
    names = PREPROCESSING if channels == 3 else ("none", *_TO)
    values = [*values]
    if tuple(values) == PIXELS:
        return {name: name for name in names}
    return {name: {"range": values, "to": _TO.get(name, values)} for name in ("none", *_TO)}


def try_inputs(
    source, files: Sequence, names=None, *, values=PIXELS, resizings=RESIZINGS, **said
) -> list[Tried]:
    """What a network says of pictures for every way of bringing them to it, the best way first.

    Ways are compared by their share of right answers (of a regression, by its loss); where that is
    within two standard errors of the best, or there are no labels, by how strange the pictures are;
    last by the loss. Mind the loss: pixels 255 times too large make every answer surer, so while
    all are right it falls.

    Args:
        source: what `load_model` takes: a file, a card, a name or a Keras model.
        files: pictures: names, paths or arrays `(H, W, channels)`.
        names: of each picture, the tuple of its names, from `labelled`; or None.
        values: the lowest and highest value in the files.
        resizings: to try, of `stretch`, `crop` and `pad`; the first alone where all pictures have
            the network's size.
        said: other keywords of `load_model`.

    Returns:
        One `Tried` for each way.

    Raises:
        ValueError: a network that `load_model` cannot take; a name that is no class of it, or no
            number; pictures whose values are not within `values`, or far below them.
        FileNotFoundError: the network's file is missing.
        PictureError: a picture that cannot be read.
    """
    fixed = {key: value for key, value in said.items() if key not in ("preprocessing", "resizing")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one network is loaded many times
        first = load_model(source, preprocessing="none", **fixed)
        raw = [
            file if isinstance(file, np.ndarray) else pictures.load_image(file, first.channels)
            for file in files
        ]
        _check_values(max(image.max() for image in raw), values)
        if {image.shape[:2] for image in raw} == {tuple(first.input_size)}:
            resizings = resizings[:1]
        tried = []
        for name, way in preprocessings(first.channels, values).items():
            network = load_model(source, preprocessing=way, **fixed)
            for resizing in resizings:
                asked = replace(network, resizing=resizing)
                images = asked.prepare(*files)
                answers, marks = asked.predict(images), (np.nan, np.nan)
                if names is not None:
                    marks = marked(asked.task, answers, truth(asked, names))
                strange = strangeness(asked.model, images)
                tried.append(Tried(name, way, resizing, answers, *marks, strange))
    return sorted(_levelled(tried), key=_badness)


def _check_values(reached: float, values) -> None:
    low, high = values
    if not low + (high - low) / 100 <= reached <= high:
        raise ValueError(
            f"the brightest picture reaches {reached:g}, but values is [{low:g}, {high:g}]: say"
            " which values stand for black and white in your files, such as [0, 1] or [0, 10000]"
        )


def marked(task: str, answers, right) -> tuple[float, float]:
    """Share of right answers, and mean loss.

    Args:
        task: `classification`, `multilabel` or `regression`.
        answers: `(N, classes)`, of `Classifier.predict`.
        right: of `truth`: class indices `(N,)`, ones and zeros `(N, classes)`, or values `(N, 1)`.

    Returns:
        The share in 0..1, of a multilabel network of right decisions, nan of a regression; the mean
        log loss in nats, of a regression the mean absolute error.

    Example:
        >>> share, loss = marked("classification", [[0.5, 0.5], [0.1, 0.9]], np.array([1, 1]))
        >>> share, round(loss, 3)
        (0.5, 0.399)
    """
    answers = np.asarray(answers, np.float64)
    if task == "regression":
        return float("nan"), float(np.abs(answers - right).mean())
    kept = np.clip(answers, _TINY, 1 - _TINY)
    if task == "multilabel":
        loss = -np.where(right > 0, np.log(kept), np.log1p(-kept))
        return float(((answers > 0.5) == right).mean()), float(loss.mean())
    chosen = kept[np.arange(len(right)), right]
    return float((answers.argmax(axis=1) == right).mean()), float(-np.log(chosen).mean())


def strangeness(model: keras.Model, images) -> float:
    """How unlike its training pictures are to a network's first batch normalisation.

    It keeps mean and variance of what came to it in training; see `Tried`. nan without one.
    """
    seen = {}

    def recorder(layer, call):
        def recorded(inputs, *args, **kwargs):
            seen.setdefault("first", (layer, inputs))
            return call(inputs, *args, **kwargs)

        return recorded

    kinds = [layer for _, layer in walk(model) if isinstance(layer, layers.BatchNormalization)]
    with replaced_calls({layer: partial(recorder, layer) for layer in kinds}):
        model(images, training=False)
    if not seen:
        return float("nan")
    layer, inputs = seen["first"]
    mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance) + 1e-9
    values = np.moveaxis(np.asarray(inputs, np.float64), layer.axis, -1).reshape(-1, len(mean))
    ratio = (values.var(axis=0) + 1e-9) / variance
    off = (values.mean(axis=0) - mean) ** 2 / variance
    return float(np.mean(ratio + off - 1 - np.log(ratio)) / 2)


def _levelled(tried: list[Tried]) -> list[Tried]:
    """The same, with `level` set."""
    best = max((way.right for way in tried if not np.isnan(way.right)), default=np.nan)
    error = np.sqrt(best * (1 - best) / len(tried[0].answers))
    return [way._replace(level=bool(way.right >= best - 2 * error)) for way in tried]


def _badness(tried: Tried) -> tuple[float, ...]:
    marks = (not tried.level, tried.strange, -tried.right, tried.loss)
    if np.isnan(tried.right):
        marks = (tried.loss, tried.strange)
    return tuple(np.nan_to_num(mark, nan=0.0) for mark in marks)


def better_order(
    tried: Sequence[Tried], names, labels: Sequence[str], seed: int = 0
) -> list | None:
    """Class names in an order in which a network is right far more often, if there is one.

    For each way that was tried, names are assigned to the network's units so that most answers are
    right. With few pictures some order always fits, so an order counts only if it is right for a
    fifth of the pictures more than the best way is with the names as they are, and more often than
    after any of 100 shuffles of the pictures' names.

    Args:
        tried: of `try_inputs`, of a classification.
        names: of each picture, the tuple of its names, from `labelled`.
        labels: the names in the order that was tried.
        seed: of the shuffles.

    Returns:
        The names in that order, or None.
    """
    right = np.array([labels.index(some[0]) for some in names])
    shares = [(_assigned(way.answers, right)[1], place) for place, way in enumerate(tried)]
    share, place = max(shares, key=lambda pair: (pair[0], -pair[1]))
    if share < max(way.right for way in tried) + 0.2:
        return None
    rng, answers = np.random.default_rng(seed), tried[place].answers
    if share <= max(_assigned(answers, rng.permutation(right))[1] for _ in range(100)):
        return None
    return [labels[i] for i in _assigned(answers, right)[0]]


def _assigned(answers: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
    """Which name each unit should have, and the share that is right then."""
    units = answers.argmax(axis=1)
    counts = np.zeros((answers.shape[1],) * 2)
    np.add.at(counts, (units, right), 1)
    # of equal ones, the order that is there
    _, order = linear_sum_assignment(counts + 1e-6 * np.eye(len(counts)), maximize=True)
    return order, float(np.mean(order[units] == right))


def described(classifier: Classifier) -> dict[str, str]:
    """What a network takes and returns, in words, by what is said.

    Args:
        classifier: of `load_model`.

    Returns:
        `{what: words}`, with `takes`, `returns`, `made of them`, `task`, `labels` and `map read
        from`.
    """
    height, width = classifier.input_size
    task, function = classifier.task, classifier.function
    made = {"softmax": "shares that sum to 1", "sigmoid": "a probability for each"}
    if classifier.one_unit:
        made = {"sigmoid": "p of the second class, of one sigmoid unit, and 1 - p of the first"}
    count, at_each = len(classifier.labels), " at every pixel" if classifier.dense else ""
    names = ", ".join(classifier.labels[:6]) + (", ..." if count > 6 else "")
    bands = f"{classifier.channels} channel{'s' * (classifier.channels != 1)}"
    return {
        "takes": f"{height} x {width} pixels of {bands}",
        "returns": f"{count} {'scores' if count > 1 else 'score'}{at_each}",
        "made of them": made.get(function, "nothing: they are the answer"),
        "task": task,
        "labels": names,
        "map read from": classifier.conv_layer or "no layer: it has no map",
    }


# --- a network to begin with ----------------------------------------------------------------------

_PICTURE, _INPUT = (64, 128), (48, 48)  # sides of drawn pictures, and of what the network takes
_PERIODS: Mapping[str, int] = {"coarse": 8, "fine": 5}  # of the stripes, in pixels


def write_example(folder, pictures_each: int = 20) -> tuple[str, str]:
    """A small network in a file and labelled pictures beside it, as somebody may have them.

    Pictures are noise with a striped patch, `coarse` or `fine`, at a random place. The network is
    trained within seconds on pictures stretched to squares, in 0..1, which nothing in it says.

    Args:
        folder: where `mine.keras` and `pictures/` are written.
        pictures_each: that the network has not seen, for each class.

    Returns:
        Their paths.
    """
    folder = Path(folder)
    keras.utils.set_random_seed(0)
    labels = np.arange(400) % 2
    drawn = np.stack([_striped(i, sorted(_PERIODS)[label]) for i, label in enumerate(labels)])
    small = np.stack([pictures.prepare(image, _INPUT, resizing="stretch") for image in drawn])
    network = _example_network()
    network.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    network.optimizer.learning_rate = 4e-3
    network.fit(small / 255, labels, 32, epochs=12, verbose=0)
    network.save(folder / "mine.keras")
    for number, name in itertools.product(range(pictures_each), _PERIODS):
        place = folder / "pictures" / name
        place.mkdir(parents=True, exist_ok=True)
        image = _striped(1000 + 2 * number + (name == "fine"), name)
        keras.utils.save_img(place / f"{number:02}.png", image, scale=False)
    return str(folder / "mine.keras"), str(folder / "pictures")


def _example_network() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((*_INPUT, 3)),
            layers.Conv2D(16, 5, 2, "same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Conv2D(24, 3, 2, "same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="features"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, "softmax"),
        ],
        name="mine",
    )


def _striped(seed: int, name: str) -> np.ndarray:
    """A picture uint8 with a patch of lying stripes."""
    rng = np.random.default_rng(seed)
    blotches = np.kron(rng.normal(0, 20, (8, 16, 3)), np.ones((8, 8, 1)))
    image = rng.normal(110, 30) + blotches + rng.normal(0, 12, (*_PICTURE, 3))
    height, width = rng.integers(22, 29, 2)
    top, left = (int(rng.integers(side - size)) for side, size in zip(_PICTURE, (height, width)))
    light = (np.arange(height) + rng.integers(8)) % _PERIODS[name] < _PERIODS[name] / 2
    colour = rng.normal((190, 150, 60), 15)
    image[top : top + height, left : left + width] = np.where(light[:, None, None], colour, 40)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
