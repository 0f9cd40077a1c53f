"""Scenes of which everything is known: a bird or a fish, a tree or none, and exact masks.

The ground is textured. How often a tree stands beside a bird, and beside a fish, is up to the
caller: the data's bias is a parameter, so it can be asked whether a network trained on them follows
it, and whether an explanation says so. The object is in one half of the picture and the tree in the
other; what lies under them is known too, so each can be taken away without a trace.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from xai_utils.pictures import load

SIZE = 48  # side of a scene in pixels
CLASSES = ("bird", "fish")
GROUNDS = ("texture", "photos")
# of scikit-image, under everything in `photos`
PHOTOS = ("cat", "coffee", "astronaut", "rocket", "motorcycle")


class Scenes(NamedTuple):
    """N scenes.

    Attributes:
        images: uint8 RGB `(N, 48, 48, 3)`.
        labels: int `(N,)`, 0 for a bird and 1 for a fish: indices of `CLASSES`.
        tree: bool `(N,)`, whether there is a tree.
        object_mask, tree_mask: bool `(N, 48, 48)`, the pixels of the bird or fish, and of the tree;
            they never overlap.
        without_object, without_tree: uint8, the same scenes with the ground where the one or the
            other was.
    """

    images: np.ndarray
    labels: np.ndarray
    tree: np.ndarray
    object_mask: np.ndarray
    tree_mask: np.ndarray
    without_object: np.ndarray
    without_tree: np.ndarray


def draw(labels, tree, seed: int = 0, ground: str = "texture") -> Scenes:
    """Draw one scene for each label.

    Everything but what is asked for is random: ground, colours, places, sizes and directions. The
    random numbers do not depend on labels and tree, so the same seed gives the same scenes with
    other objects in them.

    Args:
        labels: `(N,)` of 0 (bird) and 1 (fish).
        tree: bool `(N,)`.
        seed: of everything random.
        ground: `texture` (smooth noise in a random colour) or `photos` (pieces of photographs).

    Returns:
        `Scenes`, as many as labels, 48 x 48 pixels each.

    Raises:
        ValueError: labels and tree that do not fit, or an unknown ground.
    """
    labels, tree = np.asarray(labels, int), np.asarray(tree, bool)
    if (
        labels.ndim != 1
        or labels.shape != tree.shape
        or not len(labels)
        or not np.isin(labels, (0, 1)).all()
    ):
        raise ValueError(
            f"labels must be N zeros and ones, and tree as many; got shapes {labels.shape},"
            f" {tree.shape}"
        )
    if ground not in GROUNDS:
        raise ValueError(f"ground is one of {', '.join(GROUNDS)}, not {ground!r}")
    rng = np.random.default_rng(seed)
    below = (_texture if ground == "texture" else _photos)(len(labels), rng)
    right = rng.choice(np.array([0, 24], np.float32), (len(labels), 1, 1))  # the half of the object
    animal, object_mask = _animals(labels == 0, right, below.mean(axis=(1, 2)), rng)
    plant, tree_mask = _trees(24 - right, rng)
    tree_mask &= tree[:, None, None]
    below, animal, plant = (
        np.clip(layer, 0, 255).astype(np.uint8) for layer in (below, animal, plant)
    )
    without_tree = np.where(object_mask[..., None], animal, below)
    without_object = np.where(tree_mask[..., None], plant, below)
    images = np.where(tree_mask[..., None], plant, without_tree)
    return Scenes(images, labels, tree, object_mask, tree_mask, without_object, without_tree)


def sample(
    count: int, tree_given_bird: float, tree_given_fish: float, seed: int = 0, ground="texture"
) -> Scenes:
    """Draw a set of scenes, every second one a bird, with trees as often as asked.

    Args:
        count: number of scenes, at least 2.
        tree_given_bird, tree_given_fish: probability of a tree beside a bird, and beside a fish.
        seed: of everything random.
        ground: `texture` (smooth noise in a random colour) or `photos` (pieces of photographs).

    Returns:
        `Scenes`, of 48 x 48 pixels each.

    Raises:
        ValueError: a probability outside 0..1, fewer than two scenes, or an unknown ground.

    Example:
        >>> scenes = sample(4, tree_given_bird=1, tree_given_fish=0)
        >>> scenes.labels.tolist(), scenes.tree.tolist()
        ([0, 1, 0, 1], [True, False, True, False])
    """
    for name, p in (("tree_given_bird", tree_given_bird), ("tree_given_fish", tree_given_fish)):
        if not 0 <= p <= 1:
            raise ValueError(f"{name} is a probability, 0 to 1, not {p}")
    if count < 2:
        raise ValueError(f"a set of scenes has at least 2 of them, not {count}")
    labels = np.arange(count) % 2
    chance = np.random.default_rng([seed, 1]).random(count)
    return draw(
        labels, chance < np.where(labels == 0, tree_given_bird, tree_given_fish), seed, ground
    )


def _grid():
    """Rows and columns of all pixels, `(1, 48, 1)` and `(1, 1, 48)`."""
    ticks = np.arange(SIZE, dtype=np.float32)
    return ticks[None, :, None], ticks[None, None]


def _draws(rng, count: int, low: float, high: float, width: int = 0):
    """Random numbers `(N, 1, 1)`, or colours `(N, 1, 1, width)`."""
    shape = (count, 1, 1, width) if width else (count, 1, 1)
    return rng.uniform(low, high, shape).astype(np.float32)


def _smooth(count: int, cells: int, rng) -> np.ndarray:
    """Smooth noise around 0, `(N, 48, 48)`: random numbers on a grid, enlarged bilinearly."""
    place = np.linspace(0, cells - 1, SIZE)
    weight = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells))).astype(np.float32)
    return weight @ rng.standard_normal((count, cells, cells), np.float32) @ weight.T


def _texture(count: int, rng) -> np.ndarray:
    light = 22 * _smooth(count, 7, rng) + 8 * rng.standard_normal((count, SIZE, SIZE), np.float32)
    return np.clip(_draws(rng, count, 70, 190, 3) + light[..., None], 0, 255)


def _photos(count: int, rng) -> np.ndarray:
    """Random pieces of photographs, 48 pixels of about 150 a side, half of them mirrored."""
    photos = []
    for name in PHOTOS:
        photo = Image.fromarray(load.load_image(name))
        photo.thumbnail((160, 160))
        photos.append(np.asarray(photo, np.float32))
    pieces = np.empty((count, SIZE, SIZE, 3), np.float32)
    for i, (which, *places) in enumerate(rng.random((count, 4))):
        photo = photos[int(which * len(photos))]
        row, column = (int(p * (extent - SIZE + 1)) for p, extent in zip(places[:2], photo.shape))
        piece = photo[row : row + SIZE, column : column + SIZE]
        pieces[i] = piece[:, ::-1] if places[2] < 0.5 else piece
    return pieces


def _animals(bird, right, behind, rng) -> tuple[np.ndarray, np.ndarray]:
    """Birds or fish in random colours unlike what is behind: pixels `(N, 48, 48, 3)` and masks.

    `right` is how far the half lies to the right, `(N, 1, 1)`.
    """
    count, (rows, columns) = len(bird), _grid()
    unit = _draws(rng, count, 5.4, 6.2)  # half the length of the body, in pixels
    x = 11.5 + right + _draws(rng, count, -1, 1) * (11.5 - 1.85 * unit)
    y = _draws(rng, count, 10, 38)
    ahead = rng.choice(np.array([-1, 1], np.float32), (count, 1, 1))
    u = (columns - x) / unit * ahead  # forward
    v = (rows - y) / unit + 0 * u  # down
    colour = _draws(rng, count, 20, 235, 3)
    near = np.abs(colour - behind[:, None, None]).mean(axis=-1, keepdims=True) < 60
    colour = np.where(near, (colour + 128) % 256, colour)
    shape, dark, eye = (
        np.where(bird[:, None, None], *pair) for pair in zip(_bird(u, v), _fish(u, v))
    )
    shade = np.where(dark, np.float32(0.45), np.float32(1)) * (1 - 0.15 * v)
    return np.where(eye[..., None], np.float32(15), colour * shade[..., None]), shape


def _bird(u, v):
    """Body, head, beak, tail, legs; dark bars along the body; an eye. Bool `(N, 48, 48)` each."""
    body = u**2 + (v / 0.68) ** 2 < 1
    head = (u - 0.9) ** 2 + (v + 0.6) ** 2 < 0.24
    beak = (u > 1.2) & (u < 1.85) & (np.abs(v + 0.55) < 0.45 * (1.85 - u))
    tail = (u < -0.7) & (u > -1.8) & (np.abs(v + 0.25 + 0.3 * (u + 0.7)) < 0.22)
    legs = (np.abs(np.abs(u + 0.05) - 0.3) < 0.12) & (v > 0.4) & (v < 1.25)
    bars = (u < 0.5) & ((v + 0.08) % 0.66 < 0.33)
    return body | head | beak | tail | legs, bars, (u - 1) ** 2 + (v + 0.65) ** 2 < 0.025


def _fish(u, v):
    """Body, a tail that widens, fins above and below; dark stripes; an eye."""
    body = (u / 1.3) ** 2 + (v / 0.66) ** 2 < 1
    tail = (u < -0.95) & (u > -1.85) & (np.abs(v) < 0.85 * (-0.8 - u))
    fins = (np.abs(u + 0.15) < 0.5) & (np.abs(v) < 1.05 - 0.35 * (u + 0.65)) & (np.abs(v) > 0.5)
    stripes = (u < 0.45) & ((u + 0.05) % 0.66 < 0.33)
    return body | tail | fins, stripes, (u - 0.8) ** 2 + (v + 0.15) ** 2 < 0.025


def _trees(right, rng) -> tuple[np.ndarray, np.ndarray]:
    """Trees with a trunk and a crown of three speckled discs: pixels `(N, 48, 48, 3)` and masks."""
    count, (rows, columns) = len(right), _grid()
    scale = _draws(rng, count, 0.85, 1.0)
    x = (columns - (11.5 + right + _draws(rng, count, -1, 1))) / scale
    y = (rows - _draws(rng, count, 36, 44)) / scale  # 0 at the foot
    crown = (x + 4.5) ** 2 + (y + 15) ** 2 < 33
    crown |= (x - 4.5) ** 2 + (y + 15) ** 2 < 33
    crown |= x**2 + (y + 20) ** 2 < 40
    trunk = (np.abs(x) < 1.8) & (y <= 0) & (y > -14)
    green = np.array([45, 120, 40], np.float32) + _draws(rng, count, -20, 20, 3)
    speckle = 18 * rng.standard_normal((count, SIZE, SIZE, 1), np.float32)
    return (
        np.where(crown[..., None], green + speckle, np.array([95, 65, 40], np.float32)),
        crown | trunk,
    )
