"""Targets of networks that answer at every pixel: a region, a pixel, a connected component.

What is explained is the mean score of one class over some places of the output. Which places these
are is settled on the pictures as they are given, and held while they are changed. With the sum in
place of the mean, and Grad-CAM, this is Seg-Grad-CAM (Vinogradova, Dibrov & Myers, "Towards
interpretable semantic segmentation via gradient-weighted class activation mapping", AAAI 2020,
equation 1).
"""

import operator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xai_utils.engine import forward, keras, tf
from xai_utils.models.endings import pixel_classes, task_of
from xai_utils.models.labels import class_names, model_class

NOWHERE = -1  # stands for no class in a tensor of classes of places


@dataclass(frozen=True, eq=False)
class Region:
    """Places by a mask; see `region`."""

    mask: np.ndarray
    target_class: int | str | None
    against: int | str | None

    def __str__(self):
        return "region(mask, ...)"

    def __call__(self, outputs) -> tf.Tensor:
        """Scores `(N,)` of outputs `(N, h, w, classes)`, for targets of one's own making."""
        masks = _at_size(self.mask, tuple(outputs.shape[1:3]), self.mask.shape[-2:])
        return _mean_of(self, outputs, masks)

    def places(self, said: "_Said") -> np.ndarray:
        """Bool `(N, h, w)`."""
        count = len(said.outputs)
        if self.mask.ndim == 3 and len(self.mask) != count:
            raise ValueError(
                f"region has {len(self.mask)} masks for {count} images: give one, or one an image"
            )
        masks = np.broadcast_to(_at_size(self.mask, said.size, said.picture), (count, *said.size))
        if not masks.any(axis=(1, 2)).all():
            image = int(np.argmin(masks.any(axis=(1, 2))))
            raise ValueError(
                f"region: at the output's {said.size[0]} x {said.size[1]} places the mask of image"
                f" {image} is empty: none is covered by half"
            )
        return masks


@dataclass(frozen=True)
class Pixel:
    """One place; see `pixel`."""

    row: int
    column: int
    target_class: int | str | None
    against: int | str | None

    def __str__(self):
        return f"pixel({self.row}, {self.column}, ...)"

    def __call__(self, outputs) -> tf.Tensor:
        """Scores `(N,)` of outputs `(N, h, w, classes)`, in whose places it counts here."""
        mask = np.zeros(outputs.shape[1:3], bool)
        mask[_within((self.row, self.column), mask.shape, mask.shape, str(self))] = True
        return _mean_of(self, outputs, mask)

    def places(self, said: "_Said") -> np.ndarray:
        """Bool `(N, h, w)`."""
        masks = np.zeros(said.outputs.shape[:3], bool)
        row, column = _within((self.row, self.column), said.picture, said.size, str(self))
        masks[:, row, column] = True
        return masks


@dataclass(frozen=True)
class Component:
    """A connected region that the network itself found; see `component`."""

    target_class: int | str | None
    at: tuple[int, int] | None
    against: int | str | None

    def __str__(self):
        return "component(...)"

    def __call__(self, outputs) -> tf.Tensor:
        """Not to be had: what the network found is held while a picture is changed."""
        raise ValueError(
            "component is looked up on the pictures as they are: give it as target= itself, or use"
            " region(models.places(model, images, component(...)), ...)"
        )

    def places(self, said: "_Said") -> np.ndarray:
        """Bool `(N, h, w)`."""
        if task_of(said.model) == "regression":
            raise ValueError(
                f"{said.model.name} is a regression, which finds no classes: give region(mask) or"
                " pixel(row, column)"
            )
        where = self.at and _within(self.at, said.picture, said.size, str(self))
        index = said.index(self.target_class)
        return np.stack([self._in(image, said, where, index) for image in range(len(said.classes))])

    def _in(self, image: int, said: "_Said", where, index: int | None) -> np.ndarray:
        if index is None:
            index = int(said.outputs[image][where].argmax())
        found = said.classes[image, ..., index]
        labelled, count = ndimage.label(found)
        if where is None and count:
            return labelled == 1 + np.argmax(np.bincount(labelled.ravel())[1:])
        if where is None or not labelled[where]:
            place = "" if where is None else f" at row {self.at[0]}, column {self.at[1]}"
            raise ValueError(
                f"component: {said.model.name} finds no {said.label(index)!r} in image {image}"
                f"{place}"
            )
        return labelled == labelled[where]


ASKED = (Region, Pixel, Component)


def region(mask, target_class: int | str | None = None, against: int | str | None = None) -> Region:
    """The target of a mask: the mean score of a class over its places.

    A mask of the picture's size is brought to the output's: a place of the output belongs to it if
    at least half of its area does.

    Args:
        mask: bool `(h, w)` for all images, or `(N, h, w)`, of the output's size or the picture's.
        target_class: index or name; None is, for each image, the class that the network gives to
            most of the region. Of one value at every pixel it may be left out.
        against: index or name of a class whose mean score there is subtracted: why this and not
            that?

    Returns:
        A target for every technique, also a callable from outputs `(N, h, w, classes)` to scores
        `(N,)`; then classes must be indices. The mask is copied.

    Raises:
        ValueError: no bool mask of two or three axes, or an empty one.

    Example:
        >>> upper = region([[True, True], [False, False]], 0)
        >>> float(upper(tf.constant([[[[1.0], [3.0]], [[8.0], [8.0]]]]))[0])
        2.0
    """
    mask = np.array(mask)  # a copy: nobody changes it afterwards
    if mask.dtype != bool or mask.ndim not in (2, 3):
        raise ValueError(
            f"region takes a bool mask (h, w) or (N, h, w), not {mask.dtype} of shape {mask.shape}"
        )
    if not mask.any(axis=(-2, -1)).all():
        raise ValueError("region: a mask is empty, so that there is no place to explain")
    mask.setflags(write=False)
    return Region(mask, target_class, against)


def pixel(
    row: int, column: int, target_class: int | str | None = None, against: int | str | None = None
) -> Pixel:
    """The target of one pixel: the score of a class there.

    Args:
        row, column: of the picture, from 0; where the output is smaller, its place that covers
            them.
        target_class: index or name; None is what the network says there. Of one value at every
            pixel it may be left out.
        against: index or name of a class whose score is subtracted: why this and not that?

    Returns:
        A target for every technique, also a callable from outputs `(N, h, w, classes)` to scores
        `(N,)`; then row and column are those of the output, and classes must be indices.

    Raises:
        ValueError: row or column are no whole numbers.
    """
    return Pixel(*_row_and_column((row, column), "pixel"), target_class, against)


def component(
    target_class: int | str | None = None,
    at: tuple[int, int] | None = None,
    against: int | str | None = None,
) -> Component:
    """The target of a connected region that the network itself found, for each image its own.

    Connected are places that share a side. It is looked up on the pictures as they are given, and
    held while they are changed.

    Args:
        target_class: index or name; None is what the network says `at` that pixel.
        at: row and column, in the picture, of a pixel of the component; None is the largest.
        against: index or name of a class whose mean score there is subtracted: why this and not
            that?

    Returns:
        A target for every technique.

    Raises:
        ValueError: neither a class nor a place, or a place that is not two whole numbers.
    """
    if target_class is None and at is None:
        raise ValueError("component needs a class, or the row and column of a pixel, at=(20, 31)")
    at = None if at is None else _row_and_column(at, "component at")
    return Component(target_class, at, against)


def places(model: keras.Model, images, target) -> np.ndarray:
    """Which places of the output a target means, on these pictures.

    Args:
        model: a Keras model, images to `(N, h, w, classes)`.
        images: one batch `(N, H, W, C)`, any number type, in the model's pixel range.
        target: a `region`, `pixel` or `component`; a class index or name, for all places that the
            network gives it; None, for the class of most places.

    Returns:
        bool `(N, h, w)`, of the output's size; for `region`, so that other pictures can be asked
        about the same places.

    Raises:
        ValueError: see `places_of`.
    """
    return places_of(model, images, target).numpy()[:, 0] != NOWHERE


def places_of(model: keras.Model, images, target) -> tf.Tensor:
    """A target of a network that answers at every pixel, as the classes of its places.

    Args:
        model: a Keras model, images to `(N, h, w, classes)`.
        images: the batch `(N, H, W, C)`.
        target: a `region`, `pixel` or `component`; a class index or name, or N of them, for all
            places that the network gives it; None, for the class of most places, and of values at
            every pixel for all of them; or what this function returned.

    Returns:
        int32 `(N, 2, h, w)`: at each place the class whose score counts, and the class whose score
        is subtracted; `NOWHERE` for none.

    Raises:
        ValueError: a mask of another shape, an empty region, a place outside the picture, a class
            that is out of range, unknown, or not found in an image, or that must be said.
    """
    outputs = forward(model, images)
    if not tf.is_tensor(outputs) or len(outputs.shape) != 4:
        raise ValueError(f"{model.name} does not return one tensor (N, h, w, classes)")
    said = _Said(model, outputs, tuple(images.shape[1:3]))
    array = None if isinstance(target, ASKED) or target is None else np.asarray(target)
    if array is not None and array.ndim == 4:
        return _as_given(array, said)
    if isinstance(target, ASKED):
        where, classes = target.places(said), [said.index(target.target_class)] * len(said.classes)
        against = said.index(target.against)
    else:
        classes, against = said.classes_of(array), None
        where = np.stack([said.found(image, index) for image, index in enumerate(classes)])
    found = np.full((len(where), 2, *said.size), NOWHERE, np.int32)
    for image, (mask, index) in enumerate(zip(where, classes, strict=True)):
        index = said.most(image, mask) if index is None else index
        if index == against:
            raise ValueError(
                f"{target}: in image {image} class {said.label(index)!r} is asked against itself"
            )
        found[image, 0][mask] = index
        if against is not None:
            found[image, 1][mask] = against
    return tf.constant(found)


def mean_score(outputs, classes: tf.Tensor) -> tf.Tensor:
    """Mean scores of places, less those of the classes against them; for compiled code.

    Args:
        outputs: `(N, h, w, classes)`.
        classes: int32 `(N, 2, h, w)` of `places_of`.

    Returns:
        Tensor `(N,)`, of the outputs' type.
    """
    there = classes[:, 0] != NOWHERE
    total = _sum_of(outputs, classes[:, 0]) - _sum_of(outputs, classes[:, 1])
    return total / tf.reduce_sum(tf.cast(there, outputs.dtype), axis=(1, 2))


def _sum_of(outputs, classes):
    """The sum `(N,)` of the scores of the classes `(N, h, w)`, where there are any."""
    scores = tf.gather(outputs, tf.maximum(classes, 0), batch_dims=3)
    return tf.reduce_sum(tf.where(classes != NOWHERE, scores, tf.zeros_like(scores)), axis=(1, 2))


class _Said:
    """What a network says about a batch, and which of it a target may mean."""

    def __init__(self, model, outputs: tf.Tensor, picture: tuple[int, int]):
        self.model, self.outputs, self.picture = model, outputs.numpy(), picture
        self.size, self.units = tuple(outputs.shape[1:3]), outputs.shape[3]
        self.values = task_of(model) == "regression"
        every = np.ones(outputs.shape, bool)
        self.classes = every if self.values else pixel_classes(model, outputs).numpy()

    def index(self, given: int | str | None) -> int | None:
        """A class's index, of an index or a name."""
        if given is None or isinstance(given, str):
            return None if given is None else model_class(self.model, given)
        if isinstance(given, bool) or not isinstance(given, (int, np.integer)):
            raise ValueError(f"a class is an index or a name, not {given!r}")
        if not 0 <= given < self.units:
            raise ValueError(
                f"class {given} is out of range: {self.model.name} has classes 0 to"
                f" {self.units - 1}"
            )
        return int(given)

    def classes_of(self, array: np.ndarray | None) -> list[int]:
        """A class for each image: of one, of N or of None."""
        count = len(self.outputs)
        if array is None:
            if self.values and self.units > 1:
                raise ValueError(
                    f"{self.model.name} returns {self.units} values at every pixel: say which is"
                    " meant, target= its index or name"
                )
            shares = self.classes.mean(axis=(1, 2))
            return shares.argmax(axis=1).tolist()
        if array.shape not in ((), (count,)) or array.dtype.kind not in "iuU":
            raise ValueError(
                f"{self.model.name} answers at every pixel: target must be None, a class, {count}"
                f" classes, region(...), pixel(...) or component(...), not {array.tolist()!r:.60}"
            )
        given = np.broadcast_to(array, count)
        return [self.index(str(one) if given.dtype.kind == "U" else int(one)) for one in given]

    def found(self, image: int, index: int) -> np.ndarray:
        """Where the network finds a class."""
        where = self.classes[image, ..., index]
        if not where.any():
            raise ValueError(
                f"{self.model.name} finds no {self.label(index)!r} in image {image}: give a class"
                " that it finds, or region(mask, class)"
            )
        return where

    def most(self, image: int, mask: np.ndarray) -> int:
        """The class that most of some places have; of one value, that value."""
        if self.values and self.units > 1:
            raise ValueError(
                f"{self.model.name} returns {self.units} values at every pixel: say which is meant,"
                " such as region(mask, 0)"
            )
        top = self.outputs[image][mask].argmax(axis=-1)
        return int(np.bincount(top, minlength=self.units).argmax())

    def label(self, index: int) -> str:
        """The name of a class, or its number."""
        names = class_names(self.model)
        return names[index] if names else f"class {index}"


def _as_given(array: np.ndarray, said: _Said) -> tf.Tensor:
    """Classes of places as this room returned them before."""
    right = (len(said.outputs), 2, *said.size)
    if array.shape != right or array.dtype.kind not in "iu" or array.max() >= said.units:
        raise ValueError(f"classes of places are int {right}, not {array.dtype} {array.shape}")
    return tf.constant(array, tf.int32)


def _at_size(mask: np.ndarray, size: tuple, picture: tuple) -> np.ndarray:
    """Masks at the output's size."""
    if mask.shape[-2:] == tuple(size):
        return mask
    if mask.shape[-2:] != tuple(picture):
        raise ValueError(
            f"region: the mask has {mask.shape[-2]} x {mask.shape[-1]} places; the output has"
            f" {size[0]} x {size[1]}, the picture {picture[0]} x {picture[1]}"
        )
    flat = mask.reshape(-1, *mask.shape[-2:], 1).astype(np.float32)
    covered = tf.image.resize(flat, size, "area").numpy()[..., 0] >= 0.5 - 1e-6
    return covered.reshape(*mask.shape[:-2], *size)


def _row_and_column(place, what: str) -> tuple[int, int]:
    try:
        row, column = map(operator.index, place)
    except (TypeError, ValueError):
        raise ValueError(f"{what}: a row and a column are needed, not {place!r}") from None
    return row, column


def _within(place: tuple, picture: tuple, size: tuple, what: str) -> tuple[int, int]:
    """A place of the output, of a pixel of the picture."""
    if any(not 0 <= at < side for at, side in zip(place, picture)):
        raise ValueError(
            f"{what}: row {place[0]}, column {place[1]} is outside of {picture[0]} x {picture[1]}"
            " pixels"
        )
    return tuple(int(at * of // side) for at, of, side in zip(place, size, picture))


def _mean_of(target, outputs, masks: np.ndarray) -> tf.Tensor:
    """Scores of a target that is called on outputs, without a network to ask for names."""
    index = 0 if target.target_class is None and outputs.shape[-1] == 1 else target.target_class
    for given in (index, target.against)[: 1 + (target.against is not None)]:
        if not isinstance(given, (int, np.integer)):
            raise ValueError(
                f"{target}: called on outputs it needs the class's index, not {given!r}"
            )
    of_class = outputs[..., index]
    if target.against is not None:
        of_class = of_class - outputs[..., target.against]  # outputs may be an array
    weights = tf.cast(masks.reshape(-1, *masks.shape[-2:]), of_class.dtype)
    return tf.reduce_sum(of_class * weights, axis=(1, 2)) / tf.reduce_sum(weights, axis=(1, 2))
