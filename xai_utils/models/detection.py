"""Object detectors, and targets that ask a technique about one box.

A detector's Keras model takes pixels and returns a dict: `boxes`, encodings `(N, A, 4)` relative to
A anchors, and `logits` `(N, A, C)`, column 0 the background; each class is a question of its own
(sigmoid, not softmax). A box is `(x_min, y_min, x_max, y_max)`; see `boxes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from xai_utils import pictures
from xai_utils.engine import check_images, compiled, keras, tf, widened
from xai_utils.models import labels
from xai_utils.models.boxes import EDGES, SIZES, decode, in_pixels, measure, overlaps
from xai_utils.pictures import squeeze

MOST = 100  # boxes kept for a class of one picture


@dataclass(frozen=True)
class Detection:
    """One box that a detector found.

    D-RISE needs the first three fields only, of a detector of your own.

    Attributes:
        box: `(x_min, y_min, x_max, y_max)` in pixels of the picture, cut off at its border.
        label: name of the class.
        score: its probability.
        class_index: column of the logits.
        anchor: row of the boxes and logits.
        size: height and width of the picture in pixels.
        objectness: probability that there is an object at all.
        probabilities: of all classes without the background, float32 `(C - 1,)`.
        anchors: the detector's anchors `(A, 4)`.
    """

    box: tuple[float, float, float, float]
    label: str
    score: float
    class_index: int = -1
    anchor: int = -1
    size: tuple[int, int] = (0, 0)
    objectness: float = 1.0
    probabilities: np.ndarray | None = field(default=None, compare=False, repr=False)
    anchors: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __str__(self):
        return f"{self.label} {self.score:.2f}"


@dataclass(frozen=True, eq=False)
class Detector:
    """A frozen object detector.

    Attributes:
        name: what `load_model` was asked for.
        model: Keras model, float32 RGB pixels `(N, size, size, 3)` in 0..255 to a dict of `boxes`
            and `logits`.
        labels: one name for each column of the logits, the background's first.
        anchors: float32 boxes `(A, 4)` in shares of the picture.
        levels: `(layer, positions along a side, anchors at each)` of the feature maps boxes come
            from, in their order.
    """

    name: str
    model: keras.Model
    labels: tuple[str, ...]
    anchors: np.ndarray
    levels: tuple[tuple[str, int, int], ...] = ()

    @property
    def input_size(self) -> int:
        """Side of the square input in pixels."""
        return self.model.input_shape[1]

    def prepare(self, *images) -> np.ndarray:
        """Squeeze whole pictures to one batch of the network's size, bilinear.

        Args:
            images: names, paths or arrays `(H, W, 3)` in 0..255.

        Returns:
            float32 `(N, size, size, 3)` in 0..255.

        Raises:
            PictureError: a picture that cannot be read, or of another shape.
        """
        loaded = [
            image if isinstance(image, np.ndarray) else pictures.load_image(image)
            for image in images
        ]
        return np.stack([squeeze(image, self.input_size) for image in loaded])

    def proposals(self, images) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Every anchor's answer, before any selection.

        Args:
            images: batch `(N, H, W, 3)` in 0..255, of any size: others than the network's are
                squeezed as by `prepare`.

        Returns:
            Boxes `(N, A, 4)` in pixels of these pictures, not cut off; probabilities
            `(N, A, C - 1)` of the classes without the background; objectness `(N, A)`, one minus
            the probability of the background.
        """
        shape = np.shape(images)
        if len(shape) == 4 and shape[1:3] != (self.input_size, self.input_size):
            images = self.prepare(*np.asarray(images))
        batch = check_images(self.model, images)
        return compiled(self.model, all_boxes, size=shape[1:3])(batch, tf.constant(self.anchors))

    def detect(self, images, threshold: float = 0.5, overlap: float = 0.5) -> list[list[Detection]]:
        """The boxes of each picture, likeliest first, after non-maximum suppression class by class.

        Source: Liu et al., "SSD" (ECCV 2016), section 2; the suppression is
            `tf.image.non_max_suppression`.

        Args:
            images: batch `(N, H, W, 3)` in 0..255, of any size; see `proposals`.
            threshold: least probability of a class.
            overlap: of two boxes of one class with a larger intersection over union the likelier
                stays.

        Returns:
            N lists, empty where nothing reaches the threshold; boxes in pixels of these pictures.
        """
        boxes, probabilities, _ = proposals = [part.numpy() for part in self.proposals(images)]
        results = []
        for image, scores in enumerate(probabilities):
            kept = []
            for column in np.flatnonzero((scores >= threshold).any(axis=0)):
                rows = np.flatnonzero(scores[:, column] >= threshold)
                # The operation wants y before x, but the overlap is the same with the axes
                # exchanged.
                best = tf.image.non_max_suppression(
                    boxes[image, rows], scores[rows, column], MOST, overlap
                )
                kept += [
                    self._detection(proposals, image, rows[i], column, np.shape(images))
                    for i in best.numpy()
                ]
            results.append(sorted(kept, key=lambda detection: -detection.score))
        return results

    def find(self, image: np.ndarray, threshold: float = 0.5) -> list[Detection]:
        """The boxes of one picture, likeliest first.

        Args:
            image: `(H, W, 3)` in 0..255, of any size.
            threshold: least probability of a class.

        Returns:
            Detections, one at least, with boxes in pixels of this picture.

        Raises:
            ValueError: nothing reaches the threshold; the message names the best score.
        """
        detections = self.detect(image[None], threshold)[0]
        if not detections:
            best = self.best(image)
            raise ValueError(
                f"no detection scores {threshold:g} or more; the best is {best}: lower the"
                " threshold"
            )
        return detections

    def best(self, image: np.ndarray, label: str | int | None = None) -> Detection:
        """The likeliest box of a class in one picture, however unlikely it is.

        Args:
            image: `(H, W, 3)` in 0..255, of any size.
            label: name or column of the class; None takes any.

        Returns:
            A detection, with its box in pixels of this picture.

        Raises:
            ValueError: no such class, or the background.
        """
        proposals = [part.numpy() for part in self.proposals(image[None])]
        scores = proposals[1][0].copy()
        if label is not None:
            column = labels.class_index(label, self.labels) - 1
            if column < 0:
                raise ValueError(f"{self.labels[0]!r} is what is in no box: give another class")
            scores[:, np.arange(scores.shape[1]) != column] = -1
        anchor, column = np.unravel_index(scores.argmax(), scores.shape)
        return self._detection(proposals, 0, anchor, column, (1, *image.shape))

    def level(self, detection: Detection) -> tuple[str, int, int]:
        """Where a box comes from.

        Args:
            detection: of this detector.

        Returns:
            The layer that its predictor reads, and row and column there, from 0.

        Raises:
            ValueError: an anchor that is on none of the feature maps.
        """
        first = detection.anchor
        for layer, side, anchors in self.levels:
            if 0 <= first < side * side * anchors:
                return layer, first // anchors // side, first // anchors % side
            first -= side * side * anchors
        raise ValueError(
            f"anchor {detection.anchor} is on none of the {len(self.levels)} feature maps of"
            f" {self.name}"
        )

    def _detection(self, proposals, image: int, anchor: int, column: int, shape) -> Detection:
        boxes, probabilities, objectness = (part[image, anchor] for part in proposals)
        box = np.clip(boxes, 0, [shape[2], shape[1]] * 2).tolist()
        return Detection(
            tuple(box),
            self.labels[column + 1],
            float(probabilities[column]),
            int(column) + 1,
            int(anchor),
            tuple(shape[1:3]),
            float(objectness),
            probabilities,
            self.anchors,
        )


@dataclass(frozen=True)
class BoxTarget:
    """A question about one box: a callable from a detector's outputs to scores `(N,)`.

    Equal questions are equal and have one hash, so that a technique is compiled for them once.
    """

    quantity: str
    anchor: int
    class_index: int
    size: tuple[int, int]
    box: tuple[float, ...] | None = None  # where to follow it, in pixels
    anchors: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __call__(self, outputs: dict) -> tf.Tensor:
        logits = outputs["logits"]
        rows = tf.fill(tf.shape(logits)[:1], self.anchor)
        if self.box is not None:
            now = in_pixels(decode(outputs["boxes"], self.anchors), self.size)
            likely = tf.sigmoid(logits[:, :, self.class_index])
            rows = tf.argmax(overlaps(now, self.box) * likely, axis=1, output_type=tf.int32)
        if self.quantity in ("class", "objectness"):
            column, sign = (self.class_index, 1) if self.quantity == "class" else (0, -1)
            scores = sign * tf.gather(logits[:, :, column], rows, batch_dims=1)
        else:
            box = decode(
                tf.gather(outputs["boxes"], rows, batch_dims=1), tf.gather(self.anchors, rows)
            )
            scores = measure(in_pixels(box, self.size), self.quantity)
        return tf.ensure_shape(scores, logits.shape[:1])


def box_class(
    detection: Detection, class_index: int | None = None, follow: bool = False
) -> BoxTarget:
    """Target: the logit of the detection's class, or of another one, for its box.

    Args:
        detection: of a `Detector` of this suite.
        class_index: column of the logits; default that of the detection's class.
        follow: look for the box anew in each picture: the one with the largest product of overlap
            with the detection and probability of that class. Without it the same anchor answers,
            whatever it shows by then.

    Returns:
        A callable from a detector's outputs to scores `(N,)`, to be given as `target=`.

    Raises:
        ValueError: a detection without an anchor.
    """
    return _target(detection, "class", follow, class_index)


def box_objectness(detection: Detection, follow: bool = False) -> BoxTarget:
    """Target: minus the background's logit: is there an object?

    Args:
        detection: of a `Detector` of this suite.
        follow: look for the box anew in each picture: the one with the largest product of overlap
            with the detection and probability of its class. Without it the same anchor answers,
            whatever it shows by then.

    Returns:
        A callable from a detector's outputs to scores `(N,)`, to be given as `target=`.

    Raises:
        ValueError: a detection without an anchor.
    """
    return _target(detection, "objectness", follow)


def box_edge(detection: Detection, edge: str, follow: bool = False) -> BoxTarget:
    """Target: where an edge of the box is, in pixels.

    Args:
        detection: of a `Detector` of this suite.
        edge: one of `EDGES`: `x_min`, `y_min`, `x_max` or `y_max`.
        follow: look for the box anew in each picture: the one with the largest product of overlap
            with the detection and probability of its class. Without it the same anchor answers,
            whatever it shows by then.

    Returns:
        A callable from a detector's outputs to scores `(N,)`, to be given as `target=`.

    Raises:
        ValueError: another edge, or a detection without an anchor.
    """
    if edge not in EDGES:
        raise ValueError(f"a box has the edges {', '.join(EDGES)}, not {edge!r}")
    return _target(detection, edge, follow)


def box_size(detection: Detection, quantity: str = "area", follow: bool = False) -> BoxTarget:
    """Target: the width, height or area of the box, in pixels.

    Args:
        detection: of a `Detector` of this suite.
        quantity: `width`, `height` or `area`.
        follow: look for the box anew in each picture: the one with the largest product of overlap
            with the detection and probability of its class. Without it the same anchor answers,
            whatever it shows by then.

    Returns:
        A callable from a detector's outputs to scores `(N,)`, to be given as `target=`.

    Raises:
        ValueError: another quantity, or a detection without an anchor.
    """
    if quantity not in SIZES:
        raise ValueError(f"a box has the sizes {', '.join(SIZES)}, not {quantity!r}")
    return _target(detection, quantity, follow)


def _target(detection, quantity, follow, class_index=None) -> BoxTarget:
    if detection.anchors is None or not 0 <= detection.anchor < len(detection.anchors):
        raise ValueError(
            f"{detection} has no anchor: a target needs a detection of a Detector of this suite"
        )
    column = detection.class_index if class_index is None else int(class_index)
    box = detection.box if follow else None
    return BoxTarget(quantity, detection.anchor, column, detection.size, box, detection.anchors)


def choose(detections: Sequence[Detection], index: int) -> Detection:
    """The detection of a number.

    Args:
        detections: to choose from.
        index: from 0.

    Returns:
        The detection.

    Raises:
        ValueError: there is none of that number; those there are are listed.
    """
    if isinstance(index, bool) or index not in range(len(detections)):
        known = ", ".join(f"{i}: {known}" for i, known in enumerate(detections)) or "none at all"
        raise ValueError(f"there is no detection {index!r}; there are {known}")
    return detections[index]


def follow(detection: Detection, detections: Sequence[Detection]) -> tuple[Detection | None, float]:
    """The detection that overlaps most with one of an earlier picture.

    Args:
        detection: of the earlier picture.
        detections: of the later one, boxes in the same unit.

    Returns:
        The detection and its intersection over union with the earlier one, in 0..1; `(None, 0.0)`
        if none overlaps.
    """
    shared = [float(overlaps(other.box, detection.box)) for other in detections]
    best = int(np.argmax(shared)) if shared else 0
    return (detections[best], shared[best]) if shared and shared[best] > 0 else (None, 0.0)


def all_boxes(model, images, anchors, size) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Every anchor's answer, before any selection; for compiled code.

    Args:
        model: a detector's Keras model.
        images: tensor `(N, H, W, 3)` of the model's size, in 0..255.
        anchors: `(A, 4)` in shares of the picture.
        size: height and width of the pictures in whose pixels the boxes are given.

    Returns:
        Boxes `(N, A, 4)` in pixels, not cut off; probabilities `(N, A, C - 1)` of the classes
        without the background; objectness `(N, A)`, one minus the probability of the background.
    """
    outputs = widened(model(images, training=False))
    probabilities = tf.sigmoid(outputs["logits"])
    boxes = in_pixels(decode(outputs["boxes"], anchors), size)
    return boxes, probabilities[:, :, 1:], 1 - probabilities[:, :, 0]
