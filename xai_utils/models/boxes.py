"""Boxes as numbers: decoded from anchors, compared with each other, and laid over maps.

A box is `(x_min, y_min, x_max, y_max)` along the last axis, in shares of the picture or in pixels.
"""

from xai_utils.engine import tf

EDGES = ("x_min", "y_min", "x_max", "y_max")
SIZES = ("width", "height", "area")
SCALES = (10.0, 10.0, 5.0, 5.0)  # of what an SSD learns: x, y, width, height


def decode(encodings, anchors) -> tf.Tensor:
    """Boxes from encodings relative to anchors.

    The centre moves by the encoding times the anchor's size, the size grows by its exponential;
    both are scaled.
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
    middle_x = x_min + wide / 2 + x / SCALES[0] * wide
    middle_y = y_min + high / 2 + y / SCALES[1] * high
    half_x, half_y = wide * tf.exp(width / SCALES[2]) / 2, high * tf.exp(height / SCALES[3]) / 2
    return tf.stack(
        [middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y], axis=-1
    )


def in_pixels(boxes: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Boxes in shares of a picture as boxes in its pixels.

    Args:
        boxes: tensor `(..., 4)` of floats.
        size: height and width of the picture in pixels.

    Returns:
        Tensor `(..., 4)`.

    Example:
        >>> in_pixels(tf.constant([0.5, 0.0, 1.0, 0.25]), (200, 100)).numpy().tolist()
        [50.0, 0.0, 100.0, 50.0]
    """
    return boxes * tf.constant([size[1], size[0], size[1], size[0]], boxes.dtype)


def measure(boxes, quantity: str):
    """One number of each box.

    Args:
        boxes: array or tensor `(..., 4)`.
        quantity: one of `EDGES` or `SIZES`.

    Returns:
        `(...)`, in the boxes' unit; an area in its square.
    """
    if quantity in EDGES:
        return boxes[..., EDGES.index(quantity)]
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return {"width": width, "height": height, "area": width * height}[quantity]


def overlaps(boxes, others) -> tf.Tensor:
    """Intersection over union of boxes.

    Args:
        boxes, others: `(..., 4)` that broadcast, in one unit.

    Returns:
        Tensor `(...)` in 0..1; 0 for two without area.

    Example:
        >>> round(float(overlaps([0.0, 0.0, 2.0, 1.0], [1.0, 0.0, 3.0, 1.0])), 3)
        0.333
    """
    boxes = tf.convert_to_tensor(boxes)
    others = tf.cast(others, boxes.dtype)
    low = tf.maximum(boxes[..., :2], others[..., :2])
    high = tf.minimum(boxes[..., 2:], others[..., 2:])
    shared = tf.reduce_prod(tf.nn.relu(high - low), axis=-1)
    areas = [
        tf.reduce_prod(tf.nn.relu(corners[..., 2:] - corners[..., :2]), axis=-1)
        for corners in (boxes, others)
    ]
    return tf.math.divide_no_nan(shared, areas[0] + areas[1] - shared)
