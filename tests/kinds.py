"""Networks of the kinds that people have, trained on drawn pictures whose right answer is known.

A picture is noise with an object planted at a random place; the answer depends on the object alone.
So a map of the answer must find the object, whose mask is known. Each network is trained within a
few seconds, and lies in a folder as a user's does: the file, the card beside it, pictures, and a
manifest of them.
"""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock
from PIL import Image

from xai_utils import keras, models

layers = keras.layers

TAUGHT, HELD_OUT = 480, 40  # pictures that a network is trained on, and those it has not seen
BATCH, EPOCHS, RATE = 32, 9, 6e-3  # of training; first learning rate
THREE = ("disc", "square", "stripes")
COLOURS = {"disc": (225, 60, 50), "square": (50, 200, 70), "stripes": (70, 80, 235)}


class Drawn(NamedTuple):
    """Pictures and the truth about them.

    Attributes:
        images: `(N, H, W, C)`, uint8; of bands uint16.
        answers: what a network should say: class indices `(N,)`, ones and zeros `(N, classes)` of a
            multilabel network, values `(N, 1)` of a regression; `(N, H, W)` or `(N, H, W, 1)` of
            networks that answer at every pixel.
        targets: the class or value `(N,)` whose object is masked.
        masks: bool `(N, H, W)`, that object.
    """

    images: np.ndarray
    answers: np.ndarray
    targets: np.ndarray
    masks: np.ndarray


class Kind(NamedTuple):
    """How a kind of network is drawn for, built, trained and described.

    Attributes:
        draw: `(rng) -> (image, answer, target, mask)`, one picture.
        build: the network, fresh.
        card: what `load_model` must be told.
        scaled: pixels to what the network is trained on.
        loss: of Keras, by output if there are several.
        taught: what `fit` is given of the drawn pictures, where it is not their answers.
        fitted: `build` where another network is trained, whose weights are then taken over.
    """

    draw: Callable
    build: Callable
    card: dict
    scaled: Callable
    loss: object = "sparse_categorical_crossentropy"
    taught: Callable = lambda drawn: drawn.answers
    fitted: Callable | None = None


class Planted(NamedTuple):
    """A trained network of a kind in its folder, and pictures that it has not seen.

    Attributes:
        folder: holds everything.
        model: the network's file.
        card: the YAML beside it.
        pictures: a folder of class folders, or of pictures where a picture has no one class.
        manifest: a CSV file of the pictures with the boxes of their objects.
        files: the pictures, in the order of `drawn`.
        drawn: the pictures and the truth about them.
    """

    folder: Path
    model: Path
    card: Path
    pictures: Path
    manifest: Path
    files: list[Path]
    drawn: Drawn


# --- pictures -------------------------------------------------------------------------------------


def ground(rng, height: int, width: int, channels: int) -> np.ndarray:
    """Blotches and grain around a middle grey, float `(height, width, channels)`."""
    blotches = rng.normal(0, 22, (height // 8, width // 8, channels))
    grain = rng.normal(0, 14, (height, width, channels))
    return 105 + np.kron(blotches, np.ones((8, 8, 1))) + grain


def place(rng, height: int, width: int, low: int, high: int) -> tuple[slice, slice]:
    """A square of `low` to `high` pixels somewhere in a picture."""
    side = int(rng.integers(low, high + 1))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    return slice(top, top + side), slice(left, left + side)


def plant(image, where, what: str, colour) -> np.ndarray:
    """Draw an object into an image; its mask `(height, width)`."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]][:, *where]
    mask, inside = np.zeros(image.shape[:2], bool), np.ones(y.shape, bool)
    if what == "disc":
        inside = np.hypot(y - y.mean(), x - x.mean()) <= len(y) / 2
    mask[where] = inside
    image[mask] = colour
    if what in ("stripes", "lying", "standing"):
        dark = (y if what != "standing" else x) // 2 % 2 == 0
        image[where][dark] = 20
    return mask


def one_object(height: int, width: int, names=THREE) -> Callable:
    """Draws one object, of a kind that is the class."""

    def draw(rng):
        image, label = ground(rng, height, width, 3), int(rng.integers(len(names)))
        where = place(rng, height, width, 10, 14)
        mask = plant(image, where, names[label], rng.normal(COLOURS[names[label]], 12))
        return image, label, label, mask

    return draw


def lying_or_standing(rng):
    image, label = ground(rng, 48, 48, 1), int(rng.integers(2))
    where = place(rng, 48, 48, 14, 20)
    return image, label, label, plant(image, where, ("lying", "standing")[label], 235)


def any_objects(rng):
    """Any of three objects, each in a quarter of its own; one that is there is the target."""
    image, there = ground(rng, 40, 40, 3), rng.random(3) < 0.5
    target = int(rng.integers(3))
    there[target] = True
    masks = {}
    for label, quarter in zip(np.flatnonzero(there), rng.permutation(4)):
        rows, columns = place(rng, 20, 20, 11, 15)
        down, right = 20 * (quarter // 2), 20 * (quarter % 2)
        where = (
            slice(rows.start + down, rows.stop + down),
            slice(columns.start + right, columns.stop + right),
        )
        masks[label] = plant(image, where, THREE[label], rng.normal(COLOURS[THREE[label]], 12))
    return image, there.astype(np.float32), target, masks[target]


def disc_of_a_size(rng):
    """The answer is the disc's area in hundreds of pixels."""
    image = ground(rng, 40, 40, 3)
    mask = plant(image, place(rng, 40, 40, 8, 24), "disc", (235, 225, 120))
    return image, [mask.sum() / 100], 0, mask


def named_at_every_pixel(rng):
    """One object; the answer is its kind where it is, and nothing elsewhere."""
    image, label, _, mask = one_object(32, 32)(rng)
    return image, np.where(mask, label + 1, 0), label + 1, mask


def near_at_every_pixel(rng):
    """A disc; the answer is how near everything is, the disc 1 and the ground 0."""
    image, _, target, mask = disc_of_a_size(rng)
    return image, np.where(mask, 1.0, 0.0)[..., None], target, mask


def in_one_band(rng):
    """A disc that only one of five bands shows; values in 0..10000."""
    image, label = ground(rng, 32, 32, 5) / 255 * 10000, int(rng.integers(3))
    band = (1, 3, 4)[label]
    seen = image[..., band : band + 1]
    return image, label, label, plant(seen, place(rng, 32, 32, 10, 14), "disc", 9000)


def red_or_blue_patch(rng):
    """One of the 64 patches that a transformer cuts a picture into is red, or blue."""
    image, label = rng.uniform(0, 255, (64, 64, 3)), int(rng.integers(2))
    top, left = 8 * rng.integers(0, 8, 2)
    where = slice(top, top + 8), slice(left, left + 8)
    return image, label, label, plant(image, where, "square", ((0, 0, 255), (255, 0, 0))[label])


def drawn(kind: Kind, count: int, seed: int) -> Drawn:
    """So many pictures of a kind; the same for a seed."""
    rng = np.random.default_rng(seed)
    images, *truth = zip(*(kind.draw(rng) for _ in range(count)))
    bands = images[0].shape[-1] > 4
    high, dtype = (10000, np.uint16) if bands else (255, np.uint8)
    images = np.clip(np.rint(images), 0, high).astype(dtype)
    return Drawn(images, *map(np.array, truth))


# --- networks -------------------------------------------------------------------------------------


def features(x):
    """Three convolutions, whose map is a quarter of the picture's side."""
    x = layers.Conv2D(16, 5, 2, "same", use_bias=False, name="conv1")(x)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(momentum=0.8, name="norm1")(x))
    x = layers.Conv2D(24, 3, 2, "same", activation="relu", name="conv2")(x)
    return layers.Conv2D(32, 3, padding="same", activation="relu", name="features")(x)


def pooled(shape, units=3, activation="softmax", first=None, dtype=None) -> keras.Model:
    """Pictures to pooled features to one Dense layer; `first` is what it does to its pixels."""
    inputs = keras.Input(shape, dtype=dtype, name="picture")
    x = layers.GlobalAveragePooling2D(name="pool")(features(first(inputs) if first else inputs))
    return keras.Model(inputs, layers.Dense(units, activation, name="head")(x), name="net")


def at_every_pixel(shape, units, activation) -> keras.Model:
    """Down to half the side and up again, with what the first resolution knew beside it."""
    inputs = keras.Input(shape, name="picture")
    fine = layers.Conv2D(8, 3, padding="same", activation="relu", name="fine")(inputs)
    x = layers.Conv2D(24, 5, 2, "same", activation="relu", name="coarse")(fine)
    x = layers.Conv2D(24, 5, padding="same", activation="relu", name="deep")(x)
    x = layers.Concatenate(name="both")([layers.UpSampling2D(name="up")(x), fine])
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="features")(x)
    return keras.Model(inputs, layers.Conv2D(units, 1, activation=activation)(x), name="net")


def half_precision() -> keras.Model:
    """As `pooled`, computing in float16 but for its softmax, as Keras' guide has it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        net = pooled((32, 32, 3), activation=None)
        outputs = layers.Activation("softmax", dtype="float32", name="softmax")(net.output)
        return keras.Model(net.input, outputs, name="net")
    finally:
        keras.config.set_dtype_policy(before)


def two_heads() -> keras.Model:
    net = pooled((32, 32, 3))
    area = layers.Dense(1, name="area")(net.get_layer("pool").output)
    return keras.Model(net.input, {"what": net.output, "area": area}, name="net")


def transferred() -> keras.Model:
    """As transfer learning makes it: augmentation, scaling, a base, a head of several layers."""
    pictures = keras.Input((40, 40, 3))
    base = keras.Model(pictures, features(pictures), name="base")
    inputs = keras.Input((40, 40, 3), name="picture")
    x = keras.Sequential([layers.RandomFlip(seed=1), layers.RandomTranslation(0.1, 0.1, seed=2)])(
        inputs
    )
    x = base(layers.Rescaling(1 / 127.5, offset=-1)(x))
    head = [layers.GlobalAveragePooling2D(), layers.Dropout(0.1, seed=3)]
    head = keras.Sequential([*head, layers.Dense(3, "softmax")], name="head")
    return keras.Model(inputs, head(x), name="net")


@keras.saving.register_keras_serializable("kinds")
class Subclassed(keras.Model):
    """A network without a graph: what it does stands in `call`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Conv2D(16, 5, 2, "same", activation="relu")
        self.norm = layers.BatchNormalization(momentum=0.8)
        self.second = layers.Conv2D(24, 3, 2, "same", activation="relu")
        self.last = layers.Conv2D(32, 3, padding="same", activation="relu")
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(3, "softmax")

    def call(self, x, training=False):
        x = self.second(self.norm(self.first(x), training=training))
        return self.head(self.pool(self.last(x)))


def subclassed() -> keras.Model:
    net = Subclassed(name="net")
    net(np.zeros((1, 32, 32, 3), np.float32))
    return net


def transformer() -> keras.Model:
    """Patches, one attention, the mean of its tokens."""
    inputs = keras.Input((64, 64, 3), name="picture")
    x = layers.Conv2D(8, 8, 8, name="patches")(inputs)
    x = layers.Reshape((64, 8), name="tokens")(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(2, "softmax", name="head")(x), name="net")


def unit(images):
    return images.astype(np.float32) / 255


def around_zero(images):
    return images.astype(np.float32) / 127.5 - 1


def as_it_is(images):
    return images


def small(**said) -> Kind:
    """The plain kind, on which others are built: 32 x 32 RGB, softmax of three classes."""
    plain = {
        "draw": one_object(32, 32),
        "build": lambda: pooled((32, 32, 3)),
        "card": {"labels": [*THREE], "preprocessing": "unit"},
        "scaled": unit,
    }
    return Kind(**{**plain, **said})


NAMES = {"labels": [*THREE]}
KINDS = {
    "grey": Kind(
        lying_or_standing,
        lambda: pooled((48, 48, 1), 1, "sigmoid"),
        {"labels": ["lying", "standing"], "preprocessing": "unit"},
        unit,
        "binary_crossentropy",
    ),
    "multilabel": Kind(
        any_objects,
        lambda: pooled((40, 40, 3), 3, "sigmoid"),
        {**NAMES, "preprocessing": "tf"},
        around_zero,
        "binary_crossentropy",
    ),
    "small": small(),
    "wide": small(draw=one_object(48, 96), build=lambda: pooled((48, 96, 3))),
    "regression": Kind(
        disc_of_a_size,
        lambda: pooled((40, 40, 3), 1, None),
        {"labels": ["area"], "task": "regression", "preprocessing": "unit"},
        unit,
        "mean_squared_error",
    ),
    "bands": Kind(
        in_one_band,
        lambda: pooled((32, 32, 5)),
        {
            "labels": ["water", "crops", "rock"],
            "preprocessing": {"range": [0, 10000], "to": [0, 1]},
        },
        lambda images: images.astype(np.float32) / 10000,
    ),
    "half_precision": small(build=half_precision, fitted=lambda: pooled((32, 32, 3))),
    "several_outputs": small(
        build=two_heads,
        card={**NAMES, "preprocessing": "unit", "output": "what"},
        loss={"what": "sparse_categorical_crossentropy", "area": "mean_squared_error"},
        taught=lambda drawn: {
            "what": drawn.answers,
            "area": drawn.masks.sum((1, 2))[:, None] / 100,
        },
    ),
    "any_size": small(
        draw=one_object(40, 48),
        build=lambda: pooled((None, None, 3)),
        card={**NAMES, "preprocessing": "unit", "size": [40, 48]},
    ),
    "transfer": small(draw=one_object(40, 40), build=transferred, card={**NAMES}, scaled=as_it_is),
    "subclassed": small(
        build=subclassed,
        card={**NAMES, "preprocessing": "unit", "custom_objects": ["kinds.Subclassed"]},
    ),
    "transformer": small(
        draw=red_or_blue_patch,
        build=transformer,
        card={"labels": ["blue", "red"], "preprocessing": "unit"},
    ),
    "segmentation": small(
        draw=named_at_every_pixel,
        build=lambda: at_every_pixel((32, 32, 3), 4, "softmax"),
        card={"labels": ["nothing", *THREE], "preprocessing": "unit"},
    ),
    "depth": Kind(
        near_at_every_pixel,
        lambda: at_every_pixel((40, 40, 3), 1, None),
        {"labels": ["nearness"], "task": "regression", "preprocessing": "unit"},
        unit,
        "mean_squared_error",
    ),
    "integers": small(
        build=lambda: pooled((32, 32, 3), first=layers.Rescaling(1 / 255), dtype="uint8"),
        card={**NAMES},
        scaled=as_it_is,
    ),
}


def trained(kind: Kind) -> keras.Model:
    """A fresh network of a kind, trained."""
    keras.utils.set_random_seed(4)
    net, lesson = (kind.fitted or kind.build)(), drawn(kind, TAUGHT, seed=1)
    rate = keras.optimizers.schedules.CosineDecay(RATE, EPOCHS * TAUGHT // BATCH)
    net.compile(keras.optimizers.Adam(rate), kind.loss, jit_compile=False)
    net.fit(kind.scaled(lesson.images), kind.taught(lesson), BATCH, epochs=EPOCHS, verbose=0)
    if kind.fitted is None:
        return net
    whole = kind.build()
    whole.set_weights(net.get_weights())
    return whole


def rightness(predicted, answers) -> float:
    """Share of right answers; of values the share of their variance that is explained."""
    answers = np.asarray(answers)
    if answers.ndim in (1, 3):
        classes = predicted[..., 0] > 0.5 if predicted.shape[-1] == 1 else predicted.argmax(-1)
        return float(np.mean(classes == answers))
    if answers.ndim == 2 and answers.shape[1] > 1:
        return float(np.mean((predicted > 0.5) == answers))
    return float(1 - np.mean((predicted - answers) ** 2) / np.var(answers))


# --- in a folder ----------------------------------------------------------------------------------


def shelf(tmp_path_factory) -> Path:
    """A folder that lasts as long as this call of pytest, the same in all its processes."""
    mine = tmp_path_factory.getbasetemp()
    return (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "kinds"


def planted(name: str, shelf: Path) -> Planted:
    """A trained network of a kind and its pictures, in a folder of their own.

    Args:
        name: of `KINDS`.
        shelf: where the folders of all kinds lie. What is there already is not trained again, so
            tests that share it, in other processes too, share its networks.
    """
    kind, folder = KINDS[name], shelf / name
    pictures = drawn(kind, HELD_OUT, seed=2)
    card = folder / "mine.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(shelf / f"{name}.lock"):
        files = _paths(kind, pictures, folder / "pictures")
        if not card.is_file():
            _write_pictures(kind, pictures, files, folder / "manifest.csv")
            trained(kind).save(folder / "mine.keras")
            models.write_card(card, **kind.card)
    model, manifest = folder / "mine.keras", folder / "manifest.csv"
    return Planted(folder, model, card, folder / "pictures", manifest, files, pictures)


def _paths(kind: Kind, pictures: Drawn, folder: Path) -> list[Path]:
    suffix = "npy" if pictures.images.shape[-1] > 4 else "png"
    one_class = pictures.answers.ndim == 1
    folders = [folder / name if one_class else folder for name in kind.card["labels"]]
    return [
        folders[target] / f"{number:02}.{suffix}" for number, target in enumerate(pictures.targets)
    ]


def _write_pictures(kind: Kind, pictures: Drawn, files: list[Path], manifest: Path) -> None:
    with manifest.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "x_min", "y_min", "x_max", "y_max"))
        for image, target, mask, path in zip(
            pictures.images, pictures.targets, pictures.masks, files
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".npy":
                np.save(path, image)
            else:
                Image.fromarray(image.squeeze()).save(path)
            (y, x), name = np.nonzero(mask), kind.card["labels"][target]
            box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
            rows.writerow((path.relative_to(manifest.parent), name, *box))
