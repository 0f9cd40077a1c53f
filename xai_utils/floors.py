"""Maps that know nothing of the network, with the signature of a technique: what a metric gives for nothing.

A technique that does not beat them shows nothing of the network by that metric.
"""

import zlib

import numpy as np
from scipy.ndimage import sobel

from xai_utils.experiments import centre_map, random_maps


def random(model, images, target=None, seed: int = 0) -> np.ndarray:
    """Independent noise for every pixel, float32 `(N, H, W)` in 0..1; another picture gets another noise.

    What a picture gets depends on the seed and the picture alone, so a batch gives what its images give one by one.
    """
    images = np.ascontiguousarray(images, np.float32)
    seeds = [zlib.crc32(image.tobytes(), seed) for image in images]
    return np.concatenate([random_maps(1, images.shape[1:3], each) for each in seeds])


def centre(model, images, target=None) -> np.ndarray:
    """Highest in the middle, falling towards the corners, float32 `(N, H, W)` in 0..1."""
    shape = np.shape(images)
    return np.repeat(centre_map(shape[1:3]), shape[0], axis=0)


def edges(model, images, target=None) -> np.ndarray:
    """An edge detector: the size of the Sobel gradient of the grey picture, float32 `(N, H, W)`, in grey levels."""
    grey = np.asarray(images, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.stack([np.hypot(sobel(each, axis=0), sobel(each, axis=1)) / 8 for each in grey])


FLOORS = {method.__name__: method for method in (random, centre, edges)}
