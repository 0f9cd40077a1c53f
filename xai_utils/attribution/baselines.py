"""Maps that know nothing of the network: what a metric gives for nothing.

They have the signature of a technique; one that does not beat them shows nothing of the network by
that metric.
"""

import zlib

import numpy as np
from scipy.ndimage import sobel

from xai_utils.pictures import grey


def random(model, images, target=None, seed: int = 0) -> np.ndarray:
    """Independent noise for every pixel, float32 `(N, H, W)` in 0..1.

    What a picture gets depends on the seed and the picture alone, so a batch gives what its images
    give one by one.
    """
    images = np.ascontiguousarray(images, np.float32)
    seeds = [zlib.crc32(image.tobytes(), seed) for image in images]
    return np.concatenate([random_maps(1, images.shape[1:3], own) for own in seeds])


def centre(model, images, target=None) -> np.ndarray:
    """Highest in the middle, falling towards the corners, float32 `(N, H, W)` in 0..1."""
    shape = np.shape(images)
    return np.repeat(centre_map(shape[1:3]), shape[0], axis=0)


def edges(model, images, target=None) -> np.ndarray:
    """Edges: the size of the grey picture's Sobel gradient, float32 `(N, H, W)`, in grey levels.

    Of one channel, or of a number other than three, the mean is taken for grey.
    """
    return np.stack(
        [np.hypot(sobel(image, axis=0), sobel(image, axis=1)) / 8 for image in grey(images)]
    )


def random_maps(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Maps of independent noise, float32 `(count, H, W)` in 0..1."""
    return np.random.default_rng(seed).random((count, *size), np.float32)


def centre_map(size: tuple[int, int]) -> np.ndarray:
    """A map that only knows where pictures have their middle, float32 `(1, H, W)` in 0..1."""
    rows, columns = (np.linspace(-1, 1, extent, dtype=np.float32) for extent in size)
    return (1 - np.hypot(rows[:, None], columns) / np.sqrt(2))[None].astype(np.float32)


FLOORS = {method.__name__: method for method in (random, centre, edges)}
