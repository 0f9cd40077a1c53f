"""Boxes as numbers: decoded from anchors, compared with each other, and laid over maps.

A box is `(x_min, y_min, x_max, y_max)` along the last axis, in shares of the picture or in pixels.
"""

import numpy as np

from xai_utils.backend import tf

EDGES = ("x_min", "y_min", "x_max", "y_max")
SIZES = ("width", "height", "area")
SCALES = (10.0, 10.0, 5.0, 5.0)  # of what an SSD learns: x, y, width, height


def decode(encodings, anchors) -> tf.Tensor:
    """Boxes from encodings relative to anchors.

    The centre moves by the encoding times the anchor's size, the size grows by its exponential; both are scaled.
    Source: Liu et al., "SSD" (ECCV 2016), equation 2, solved for the box.

    Args:
        encodings: `(..., 4)`, in the order y, x, height, width.
        anchors: boxes that broadcast to the same shape.

    Returns:
        Boxes `(..., 4)` in the anchors' unit, not cut off at the picture's border.
    """
    y, x, height, width = tf.unstack(tf.convert_to_tensor(encodings), axis=-1)
    x_min, y_min, x_max, y_max = tf.unstack(tf.cast(anchors, x.dtype), axis=-1)
    wide, high = x_max - x_min, y_max - y_min
    middle_x, middle_y = x_min + wide / 2 + x / SCALES[0] * wide, y_min + high / 2 + y / SCALES[1] * high
    half_x, half_y = wide * tf.exp(width / SCALES[2]) / 2, high * tf.exp(height / SCALES[3]) / 2
    return tf.stack([middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y], axis=-1)


def in_pixels(boxes: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Boxes in shares of a picture as boxes in its pixels; `size` is its height and width."""
    return boxes * tf.constant([size[1], size[0], size[1], size[0]], boxes.dtype)


def measure(boxes, quantity: str):
    """One number of each box `(..., 4)`: an edge, the width, the height or the area; the unit is the boxes' own."""
    if quantity in EDGES:
        return boxes[..., EDGES.index(quantity)]
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return {"width": width, "height": height, "area": width * height}[quantity]


def overlaps(boxes, others) -> tf.Tensor:
    """Intersection over union of boxes `(..., 4)` that broadcast to each other; 0 for two boxes without area."""
    boxes = tf.convert_to_tensor(boxes)
    others = tf.cast(others, boxes.dtype)
    low, high = tf.maximum(boxes[..., :2], others[..., :2]), tf.minimum(boxes[..., 2:], others[..., 2:])
    shared = tf.reduce_prod(tf.nn.relu(high - low), axis=-1)
    areas = [tf.reduce_prod(tf.nn.relu(each[..., 2:] - each[..., :2]), axis=-1) for each in (boxes, others)]
    return tf.math.divide_no_nan(shared, areas[0] + areas[1] - shared)


def coverage(box, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """How much of each cell of a map lies in a box: float64 `(h, w)` in 0..1, exact for cells that it cuts.

    Args:
        box: in pixels of the picture.
        size: height and width of the picture in pixels.
        shape: height and width of the map.
    """
    shares = []
    for low, high, extent, cells in ((box[1], box[3], size[0], shape[0]), (box[0], box[2], size[1], shape[1])):
        edges = np.clip(np.linspace(0, extent, cells + 1), low, high)
        shares.append(np.diff(edges) * cells / extent)
    return np.outer(*shares)


def share_inside(values: np.ndarray, box, size: tuple[int, int]) -> tuple[float, float]:
    """How much of a map lies in a box, and how much of the picture does.

    Args:
        values: one map `(h, w)` of any resolution; signed values count by their magnitude.
        box, size: see `coverage`.

    Returns:
        Share of the map's mass and share of the area, each in 0..1. A map that is zero everywhere has 0 inside.
    """
    inside = coverage(box, size, values.shape)
    mass = np.abs(np.asarray(values, np.float64))
    return float((mass * inside).sum() / (mass.sum() or 1)), float(inside.mean())


def peak_inside(values: np.ndarray, box, size: tuple[int, int]) -> bool:
    """Whether the middle of the map's largest cell lies in the box: the pointing game. The arguments: `share_inside`.

    Source: Zhang et al., "Top-down neural attention by excitation backprop" (ECCV 2016), section 4.2.
    """
    row, column = np.unravel_index(np.abs(values).argmax(), values.shape)
    y, x = (row + 0.5) * size[0] / values.shape[0], (column + 0.5) * size[1] / values.shape[1]
    return bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])
