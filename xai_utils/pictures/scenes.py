"""An umbrella in the sky and a fly agaric in the grass, drawn where asked, with exact masks.

A photograph comes with a rough box at best; here it is known for every pixel whether it belongs to
the object, so a map can be scored against the truth. The objects are formulas on a plane of object
coordinates, so moving or scaling one redraws it sharply instead of resampling a picture.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

OVERSAMPLING = 4  # samples per pixel and axis: smooth edges


@dataclass(frozen=True)
class Scene:
    """A picture and the place of its object.

    Attributes:
        image: uint8 RGB `(size, size, 3)` in 0..255.
        mask: bool `(size, size)`, True where the object covers any part of the pixel.
    """

    image: np.ndarray
    mask: np.ndarray


def draw_umbrella(size=288, center=(0.5, 0.5), scale=1.0, seed=0, background=None) -> Scene:
    """Draw a red umbrella with a J-shaped handle.

    At scale 1 it is .72 of the picture wide and high.

    Args:
        size: side of the square picture in pixels, at least 16.
        center: (x, y) of the middle of the object's bounding box, as fractions of the picture; it
            may lie near or beyond the border, the object is then cut off.
        scale: size of the object relative to the designed one, above 0.
        seed: of the sky's clouds. The umbrella itself has nothing random.
        background: None for `background_of("umbrella", size, seed)`, or uint8 RGB `(size, size, 3)`
            to draw on.

    Returns:
        A `Scene`; outside its mask the image is exactly the background.

    Raises:
        ValueError: if an argument is outside the ranges above.
    """
    background = _checked(size, center, scale, background, "umbrella", seed)
    return _compose(background, *_umbrella(*_plane(size, center, scale)))


def draw_mushroom(size=288, center=(0.5, 0.5), scale=1.0, seed=0, background=None) -> Scene:
    """Draw a fly agaric: red cap with pale warts, gills, ring and stem.

    At scale 1 it is .72 of the picture wide and high.

    Args:
        size: side of the square picture in pixels, at least 16.
        center: (x, y) of the middle of the object's bounding box, as fractions of the picture; it
            may lie near or beyond the border, the object is then cut off.
        scale: size of the object relative to the designed one, above 0.
        seed: of the ground, the grass and the warts on the cap.
        background: None for `background_of("mushroom", size, seed)`, or uint8 RGB `(size, size, 3)`
            to draw on.

    Returns:
        A `Scene`; outside its mask the image is exactly the background.

    Raises:
        ValueError: if an argument is outside the ranges above.
    """
    background = _checked(size, center, scale, background, "mushroom", seed)
    return _compose(
        background, *_mushroom(*_plane(size, center, scale), np.random.default_rng(seed))
    )


def background_of(kind: str, size: int = 288, seed: int = 0) -> np.ndarray:
    """Draw the background of a scene without its object.

    Args:
        kind: "umbrella" (sky) or "mushroom" (grass).
        size: side in pixels, at least 16.
        seed: of the texture.

    Returns:
        uint8 RGB `(size, size, 3)`.

    Raises:
        ValueError: for an unknown kind or a size below 16.
    """
    if kind not in ("umbrella", "mushroom"):
        raise ValueError(f'kind must be "umbrella" or "mushroom", got {kind!r}')
    _check_size(size)
    rng = np.random.default_rng(seed)
    return _sky(size, rng) if kind == "umbrella" else _grass(size, rng)


def _check_size(size):
    if not isinstance(size, (int, np.integer)) or size < 16:
        raise ValueError(f"size must be a whole number of pixels, at least 16, got {size!r}")


def _checked(size, center, scale, background, kind, seed):
    """Check the arguments of a drawing; the background to draw on."""
    _check_size(size)
    if np.shape(center) != (2,) or not np.all(np.isfinite(center)):
        raise ValueError(f"center must be two finite numbers (x, y), got {center!r}")
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a finite number above 0, got {scale!r}")
    if background is None:
        return background_of(kind, size, seed)
    background = np.asarray(background)
    if background.shape != (size, size, 3) or background.dtype != np.uint8:
        raise ValueError(
            f"background must be uint8 of shape {(size, size, 3)}, got {background.dtype} of shape"
            f" {background.shape}"
        )
    return background


# -- the drawing surface: functions on a grid of object coordinates --------------------------------


def _plane(size, center, scale):
    """Object coordinates x (to the right) and y (down) of every sample.

    0 is the center, 1 the picture's side.
    """
    ticks = (np.arange(size * OVERSAMPLING) + 0.5) / (size * OVERSAMPLING)
    x, y = (ticks - center[0]) / scale, (ticks - center[1]) / scale
    return (axis.astype(np.float32) for axis in np.meshgrid(x, y))


def _compose(background, colour, cover):
    """Lay the object's samples over the background; `cover` tells which are the object's."""
    size = len(background)
    blocks = (size, OVERSAMPLING, size, OVERSAMPLING)
    share = cover.reshape(blocks).mean((1, 3))[..., None]
    paint = (colour * cover[..., None]).reshape(*blocks, 3).mean((1, 3))
    image = np.rint(background * (1 - share) + np.clip(paint, 0, 255)).astype(np.uint8)
    return Scene(image, share[..., 0] > 0)


class _Layers:
    """Paint shapes over each other and remember what was covered."""

    def __init__(self, shape):
        self.colour, self.cover = np.zeros((*shape, 3), np.float32), np.zeros(shape, bool)

    def paint(self, where, colour, light=1.0):
        """Paint the colour, times a brightness per sample, where the bool map says so."""
        light = np.broadcast_to(light, where.shape)[where][:, None]
        self.colour[where] = np.clip(np.asarray(colour, np.float32) * light, 0, 255)
        self.cover |= where


def _noise(size, cells, rng):
    """Smooth noise in 0..1, `(size, size)`, with about `cells` bumps a side."""
    return np.asarray(
        Image.fromarray(rng.random((cells, cells)).astype(np.float32)).resize((size, size), 3)
    ).clip(0, 1)


# -- umbrella --------------------------------------------------------------------------------------


def _umbrella(x, y):
    layers = _Layers(x.shape)
    # level of the canopy's lower edge, its height, its half width
    rim, height, reach = -0.06, 0.24, 0.36
    # Shaft and handle: a bar, then half a ring below it.
    bend_x, bend_y, bend, thick = -0.055, 0.286, 0.055, 0.019
    shaft = (abs(x) < 0.009) & (y > -0.3) & (y < 0.2)
    layers.paint(shaft, (120, 80, 50), 1.35 - abs(x + 0.002) * 90)
    ring = np.hypot(x - bend_x, y - bend_y) - bend
    hook = (abs(ring) < thick) & (y >= bend_y)
    grip = (abs(x) < thick) & (y > 0.15) & (y < bend_y)
    end = (np.hypot(x - 2 * bend_x, y - bend_y + 0.012) < thick) | (
        (abs(x - 2 * bend_x) < thick) & (abs(y - bend_y + 0.006) < 0.006)
    )
    across = np.where(y < bend_y, np.where(x < bend_x, x - 2 * bend_x, x), ring) / thick
    layers.paint(hook | grip | end, (135, 78, 36), 1.15 - 0.5 * (across + 0.35) ** 2)
    # A rib at angle a around the shaft is half an ellipse of half width sin(a), so x over the
    # dome's width at this height tells the angle, and the angle tells the panel and the place
    # within it.
    up = np.clip((rim - y) / height, 0, 1)
    around = np.clip(x / (reach * np.sqrt(1 - up**2) + 1e-6), -1, 1)
    panels = 6
    place = (np.arcsin(around) / np.pi + 0.5) * panels % 1
    dome = (y <= rim) & ((x / reach) ** 2 + ((rim - y) / height) ** 2 <= 1)
    arch = 0.04 * np.sin(np.pi * place) * (1 - around**2) ** 0.25
    canopy = dome & (rim - y >= arch)
    tip = (abs(x) < 0.007) & (y > -0.36) & (y < -0.3)
    layers.paint(tip, (90, 60, 45), 1.3 - abs(x) * 80)
    light = 0.62 + 0.5 * np.clip(0.45 * up - 0.5 * around + 0.55 * np.sqrt(1 - around**2), 0, 1)
    light = light * (0.93 + 0.1 * np.sin(np.pi * place))
    layers.paint(canopy, (222, 28, 38), light)
    rib = canopy & (np.minimum(place, 1 - place) * np.sqrt(1 - around**2 + 0.02) < 0.02)
    layers.paint(rib, (120, 8, 18))
    return layers.colour, layers.cover


def _sky(size, rng):
    """A gradient from deep to pale blue with faint clouds."""
    down = np.linspace(0, 1, size)[:, None, None]
    sky = (1 - down) * np.array([70, 135, 215]) + down * np.array([190, 220, 245])
    cloud = (0.6 * _noise(size, 5, rng) + 0.4 * _noise(size, 11, rng))[..., None]
    return np.rint(sky + (255 - sky) * np.clip(cloud - 0.5, 0, 1) * 0.15).astype(np.uint8)


# -- mushroom --------------------------------------------------------------------------------------


def _mushroom(x, y, rng):
    layers = _Layers(x.shape)
    # Stem: widens into a bulb at the foot; lit from the left, striped along its length.
    half = (
        0.052 + 0.018 * np.clip((y - 0.0) / 0.3, 0, 1) + 0.04 * np.exp(-(((y - 0.3) / 0.06) ** 2))
    )
    foot = np.sqrt(np.clip((0.36 - y) / 0.05, 0, 1))
    stem = (y > -0.06) & (y <= 0.36) & (abs(x) < half * foot)
    across = x / half
    light = 0.97 - 0.28 * (across + 0.3) ** 2 + 0.03 * np.sin(across * 23 + 3 * np.sin(y * 30))
    layers.paint(stem, (240, 230, 205), light * (0.72 + 0.28 * np.clip((y + 0.02) / 0.16, 0, 1)))
    for level in (0.27, 0.295, 0.318):  # rows of warts around the bulb
        bumps = level + 0.006 * np.sin(x * 160) + 0.02 * (1 - across**2)
        layers.paint(stem & (abs(y - bumps) < 0.004), (205, 185, 145), light)
    # Gills: the underside, an ellipse under the rim with radial lines.
    rim, reach, height, sag = -0.06, 0.36, 0.3, 0.06
    under = ((x / reach) ** 2 + ((y - rim) / sag) ** 2 <= 1) & (y > rim)
    ray = np.arctan2(x, (y - rim + 0.05))
    layers.paint(under, (235, 215, 175), 0.72 + 0.13 * np.sin(ray * 90))
    layers.paint(stem & under & (y < rim + sag), (225, 210, 180), 0.75 * light)
    # Ring: a skirt around the stem.
    skirt = (
        (y > 0.05) & (y < 0.105 + 0.006 * np.sin(x * 200)) & (abs(x) < 0.062 + 0.35 * (y - 0.05))
    )
    layers.paint(
        skirt, (248, 238, 210), 0.98 - 0.9 * abs(x + 0.03) / 0.1 * 0.3 + 0.05 * np.sin(x * 300)
    )
    # Cap: a dome whose lower edge bulges towards the viewer, shaded by its surface normal.
    edge = rim + 0.03 * np.sqrt(np.clip(1 - (x / reach) ** 2, 0, 1))
    cap = (y <= edge) & ((x / reach) ** 2 + (np.minimum(y - rim, 0) / height) ** 2 <= 1)
    nx, ny = x / reach, np.clip((y - rim) / height, -1, 1)
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))
    light = 0.45 + 0.62 * np.clip(-0.4 * nx - 0.6 * ny + 0.6 * nz, 0, 1)
    layers.paint(cap, (205, 30, 18), light)
    # Pale warts: discs on the dome, foreshortened towards its edge; each is looked for only near
    # its place.
    for row, count in ((0.2, 3), (0.48, 6), (0.72, 8), (0.92, 10)):
        for k in range(count):
            turn = np.pi * (k + rng.uniform(0.15, 0.85)) / count
            wx, wy = row * np.cos(turn) * -1, -np.sin(turn) * row * 0.95 - 0.02
            facing = np.sqrt(max(1 - wx**2 - wy**2, 0.05))
            radius = rng.uniform(0.05, 0.1)
            near = np.nonzero(cap & (abs(nx - wx) < 0.12) & (abs(ny - wy) < 0.12))
            dx, dy = nx[near] - wx, ny[near] - wy
            blob = np.hypot(dx / (0.35 + 0.65 * facing), dy * 1.1) + 0.006 * np.sin(
                5 * np.arctan2(dy, dx) + row * 9
            )
            shade = (0.55 + 0.5 * light[near] - 2.0 * (blob - 0.02))[:, None]
            inside = blob < radius
            place = near[0][inside], near[1][inside]
            layers.colour[place] = np.clip(
                np.array([250, 244, 225], np.float32) * shade[inside], 0, 255
            )
    return layers.colour, layers.cover


def _grass(size, rng):
    """Mossy ground, darker and blurred to the top, its blades longer towards the viewer."""
    down = np.linspace(0, 1, size)[:, None, None]
    texture = 0.5 * _noise(size, 9, rng) + 0.3 * _noise(size, 30, rng) + 0.2 * _noise(size, 90, rng)
    ground = (0.35 + 0.65 * down) * (
        np.array([62, 92, 34]) + 90 * (texture[..., None] - 0.4) * np.array([1, 1.1, 0.5])
    )
    picture = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(size / 140)
    )
    # blades are drawn at twice the size, for smooth edges
    large = picture.resize((2 * size, 2 * size))
    draw = ImageDraw.Draw(large)
    for foot in np.sort(rng.uniform(0.35, 1.15, 700)):
        x, length = rng.uniform(-0.05, 1.05), (0.02 + 0.11 * (foot - 0.3)) * rng.uniform(0.6, 1.3)
        lean = rng.normal(0, 0.25)
        green = (0.45 + 0.55 * foot) * np.array(
            [rng.uniform(60, 120), rng.uniform(105, 160), rng.uniform(25, 60)]
        )
        width = 0.0025 + 0.003 * (foot - 0.3)
        points = [(x - width, foot), (x + lean * length, foot - length), (x + width, foot)]
        draw.polygon(
            [(2 * size * a, 2 * size * b) for a, b in points], fill=tuple(int(g) for g in green)
        )
    return np.asarray(large.resize((size, size), Image.Resampling.BOX))
