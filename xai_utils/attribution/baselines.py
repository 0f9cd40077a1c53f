"""Maps that know nothing of the network: what a metric gives for nothing.

They have the signature of a technique; one that is not ahead of them (`metrics.compare`) shows
nothing of the network by that metric.
"""

import zlib

import numpy as np
from scipy.ndimage import sobel

from xai_utils.pictures import grey


def random(model, images, target=None, seed: int = 0) -> np.ndarray:
    """Independent noise for every pixel.

    What a picture gets depends on the seed and the picture alone, so a batch gives what its images
    give one by one.

    Args:
        model: not looked at.
        images: one batch `(N, H, W, C)`, any number type.
        target: not looked at.
        seed: of the noise; default 0.

    Returns:
        float32 maps `(N, H, W)` in 0..1.
    """
    images = np.ascontiguousarray(images, np.float32)
    seeds = [zlib.crc32(image.tobytes(), seed) for image in images]
    return np.concatenate([random_maps(1, images.shape[1:3], own) for own in seeds])


def centre(model, images, target=None) -> np.ndarray:
    """Highest in the middle, falling towards the corners.

    Args:
        model: not looked at.
        images: one batch `(N, H, W, C)`, any number type.
        target: not looked at.

    Returns:
        float32 maps `(N, H, W)` in 0..1, all the same.
    """
    shape = np.shape(images)
    return np.repeat(centre_map(shape[1:3]), shape[0], axis=0)


def edges(model, images, target=None) -> np.ndarray:
    """Edges: the size of the grey picture's Sobel gradient.

    Of one channel, or of a number other than three, the mean is taken for grey.

    Args:
        model: not looked at.
        images: one batch `(N, H, W, C)`, any number type.
        target: not looked at.

    Returns:
        float32 maps `(N, H, W)`, not negative, in grey levels per pixel.
    """
    return np.stack(
        [np.hypot(sobel(image, axis=0), sobel(image, axis=1)) / 8 for image in grey(images)]
    )


def random_maps(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Maps of independent noise.

    Args:
        count: number of maps.
        size: their height and width in pixels.
        seed: of the noise; default 0.

    Returns:
        float32 maps `(count, H, W)` in 0..1.

    Example:
        >>> random_maps(2, (3, 4)).shape
        (2, 3, 4)
    """
    return np.random.default_rng(seed).random((count, *size), np.float32)


def centre_map(size: tuple[int, int]) -> np.ndarray:
    """A map that only knows where pictures have their middle.

    Args:
        size: height and width in pixels.

    Returns:
        float32 map `(1, H, W)`: 1 in the middle, 0 in the corners.

    Example:
        >>> (100 * centre_map((3, 3))[0]).astype(int).tolist()
        [[0, 29, 0], [29, 100, 29], [0, 29, 0]]
    """
    rows, columns = (np.linspace(-1, 1, extent, dtype=np.float32) for extent in size)
    return (1 - np.hypot(rows[:, None], columns) / np.sqrt(2))[None].astype(np.float32)


FLOORS = {method.__name__: method for method in (random, centre, edges)}
