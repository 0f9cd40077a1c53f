"""Pictures of different classes tiled in one: whatever speaks for a class should come from its own cell."""

import numpy as np

from xai_utils import efficientnet_lite
from xai_utils.backend import keras
from xai_utils.labels import name_classes


def tile(pictures, columns: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Put pictures side by side, row by row.

    Args:
        pictures: `(N, H, W, C)`, N a multiple of `columns`.
        columns: pictures in a row.

    Returns:
        The grid `(1, rows H, columns W, C)` and where each picture is, bool `(N, rows H, columns W)`.

    Raises:
        ValueError: a number of pictures that leaves a hole.
    """
    pictures = np.asarray(pictures)
    count, height, width, channels = pictures.shape
    if columns < 1 or not count or count % columns:
        raise ValueError(f"a grid of {columns} columns needs a multiple of {columns} pictures, not {count}")
    cells = pictures.reshape(count // columns, columns, height, width, channels)
    grid = cells.swapaxes(1, 2).reshape(1, count // columns * height, columns * width, channels)
    number = np.arange(count).reshape(-1, columns).repeat(height, axis=0).repeat(width, axis=1)
    return grid, number == np.arange(count)[:, None, None]


def shrink(pictures, factor: int = 2) -> np.ndarray:
    """Make pictures smaller by a whole factor, each pixel the mean of a square; what does not fill one is cut off."""
    pictures = np.asarray(pictures, np.float32)
    count, height, width, channels = pictures.shape
    rows, columns = height // factor, width // factor
    cut = pictures[:, : rows * factor, : columns * factor]
    return cut.reshape(count, rows, factor, columns, factor, channels).mean(axis=(2, 4))


def enlarged(classifier, factor: int = 2) -> keras.Model:
    """The same network for pictures `factor` times as large: same weights, global average pooling over more places.

    Args:
        classifier: of `models.load_model`, an EfficientNet-Lite.
        factor: how many times its own input size.

    Raises:
        ValueError: a network for which that is not known to work: one that flattens its last map has a fixed size.
    """
    if classifier.name not in efficientnet_lite.VARIANTS:
        known = ", ".join(efficientnet_lite.VARIANTS)
        raise ValueError(f"{classifier.name} is not rebuilt for another size, only {known} are: shrink the pictures")
    model = efficientnet_lite.build(classifier.name, factor * classifier.input_size)
    model.set_weights(classifier.model.get_weights())
    model.trainable = False
    name_classes(model, classifier.labels)
    return model
