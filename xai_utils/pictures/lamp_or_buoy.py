"""Scenes with a class at every pixel, of which one kind of object is known only by what is beside.

In one half of a scene is a disc, in the other a crate, and above or below each a square, red or
blue. Discs all look the same: a disc with a red square beside it is a lamp, one with a blue square
a buoy. The square beside a crate is of any colour and means nothing, and squares themselves are
ground. So what a network that tells lamps from buoys must look at is known, and that it lies
outside the region it is asked about. What lies under each square is known too.
"""

from typing import NamedTuple

import numpy as np

from xai_utils.pictures.bird_or_tree import SIZE, _draws, _grid, _texture

CLASSES = ("ground", "lamp", "buoy", "crate")
_RED, _BLUE = (205, 50, 45), (45, 70, 205)


class Scenes(NamedTuple):
    """N scenes.

    Attributes:
        images: uint8 RGB `(N, 48, 48, 3)`.
        classes: int32 `(N, 48, 48)`, the class of every pixel, an index of `CLASSES`.
        kinds: int `(N,)`, of the disc: 1 for a lamp and 2 for a buoy.
        disc_mask, crate_mask: bool `(N, 48, 48)`, the pixels of the disc, and of the crate.
        beside_mask, beside_crate_mask: bool `(N, 48, 48)`, the pixels of the square beside the
            disc, and of that beside the crate; no two of the four masks overlap.
        without_beside, without_beside_crate: uint8, the same scenes with the ground where the one
            or the other square was.
        swapped: uint8, the same scenes with the square beside the disc in the other colour.
    """

    images: np.ndarray
    classes: np.ndarray
    kinds: np.ndarray
    disc_mask: np.ndarray
    crate_mask: np.ndarray
    beside_mask: np.ndarray
    beside_crate_mask: np.ndarray
    without_beside: np.ndarray
    without_beside_crate: np.ndarray
    swapped: np.ndarray


def sample(count: int, seed: int = 0) -> Scenes:
    """Draw scenes, every second one with a lamp, the others with a buoy.

    Everything else is random: ground, colours, places, sizes, and the square beside the crate.

    Args:
        count: number of scenes, at least 1.
        seed: of everything random.

    Returns:
        `Scenes`, of 48 x 48 pixels each.

    Raises:
        ValueError: no scenes.

    Example:
        >>> sample(4).kinds.tolist()
        [1, 2, 1, 2]
    """
    if count < 1:
        raise ValueError(f"a set of scenes has at least 1 of them, not {count}")
    rng, kinds = np.random.default_rng(seed), 1 + np.arange(count) % 2
    ground = _texture(count, rng)
    right = rng.choice(np.array([0, 24], np.float32), (count, 1, 1))  # the half of the disc
    disc, beside = _object_and_square(right, rng, round_=True)
    crate, beside_crate = _object_and_square(24 - right, rng, round_=False)
    red = np.array([*_RED], np.float32) + _draws(rng, count, -20, 20, 3)
    blue = np.array([*_BLUE], np.float32) + _draws(rng, count, -20, 20, 3)
    lamp = (kinds == 1)[:, None, None, None]
    by_chance = rng.random((count, 1, 1, 1)) < 0.5
    grain = 6 * rng.standard_normal((count, SIZE, SIZE, 1), np.float32)
    layers = [
        (disc, np.array([225, 215, 120], np.float32) + _draws(rng, count, -15, 15, 3)),
        (crate, _planks(rng, count)),
        (beside_crate, np.where(by_chance, red, blue)),
        (beside, np.where(lamp, red, blue)),
    ]
    images = _painted(ground, layers, grain)
    classes = np.where(disc, kinds[:, None, None], np.where(crate, 3, 0)).astype(np.int32)
    others, own = layers[:2], layers[3]
    return Scenes(
        images,
        classes,
        kinds,
        disc,
        crate,
        beside,
        beside_crate,
        _painted(ground, layers[:3], grain),
        _painted(ground, [*others, own], grain),
        _painted(ground, [*layers[:3], (beside, np.where(lamp, blue, red))], grain),
    )


def _object_and_square(right, rng, round_: bool) -> tuple[np.ndarray, np.ndarray]:
    """Masks of an object in one half of the picture, and of a square above or below it."""
    count, (rows, columns) = len(right), _grid()
    radius, side = _draws(rng, count, 4.2, 5.4), _draws(rng, count, 6.5, 8)
    above = rng.choice(np.array([-1, 1], np.float32), (count, 1, 1))
    apart = radius + side / 2 + _draws(rng, count, 1.5, 4)  # of the middles
    x = 11.5 + right + _draws(rng, count, -4, 4)
    # both are within the picture
    low = np.where(above < 0, apart + side / 2, radius) + 1
    high = SIZE - 2 - np.where(above < 0, radius, apart + side / 2)
    y = low + rng.random((count, 1, 1)).astype(np.float32) * (high - low)
    across = x + _draws(rng, count, -2, 2)
    square = _within(rows - (y + above * apart), side) & _within(columns - across, side)
    if round_:
        return (rows - y) ** 2 + (columns - x) ** 2 < radius**2, square
    return _within(rows - y, 1.8 * radius) & _within(columns - x, 1.8 * radius), square


def _within(distance, side):
    return np.abs(distance) < side / 2


def _planks(rng, count: int) -> np.ndarray:
    """Brown, every third row dark, `(N, 48, 48, 3)`."""
    rows, columns = _grid()
    dark = (rows + 0 * columns + rng.integers(0, 3, (count, 1, 1))) % 3 < 1
    brown = np.array([150, 105, 60], np.float32) + _draws(rng, count, -15, 15, 3)
    return np.where(dark[..., None], np.float32(35), brown)


def _painted(ground, layers, grain) -> np.ndarray:
    """The ground with layers (mask, colour) on it, uint8."""
    image = ground
    for mask, colour in layers:
        image = np.where(mask[..., None], colour + grain, image)
    return np.clip(image, 0, 255).astype(np.uint8)
