"""Drawn textures, a concept each: stripes, dots, checks, and plain colours.

Every picture of a batch has its own period, direction, place and colours, drawn within the bounds
that are given, so that what the pictures have in common is the texture alone.
"""

from collections.abc import Sequence

import numpy as np

OVERSAMPLING = 3  # samples per pixel and axis: smooth edges
FAR = 96.0  # grey levels, mean of the channels, between two colours that are left to chance


def stripes(
    count: int,
    size: int | tuple[int, int],
    seed: int = 0,
    period: tuple[float, float] = (0.06, 0.2),
    degrees: tuple[float, float] = (0, 180),
    colours: Sequence | None = None,
) -> np.ndarray:
    """Draw stripes of two colours, equally wide.

    Args:
        count: pictures, at least 1.
        size: height and width in pixels; one number for a square.
        seed: of everything random.
        period: least and greatest width of a pair of stripes, as a share of the shorter side.
        degrees: least and greatest direction of the stripes: 0 is level, 90 upright.
        colours: two RGB colours in 0..255; default two of each picture's own, far from each other.

    Returns:
        float32 RGB `(N, H, W, 3)` in 0..255.

    Raises:
        ValueError: no picture, a size or a period below one pixel, bounds that are no two numbers
            in their order, or other than two colours.
    """
    across, _, rng = _turned(count, size, seed, period, degrees)
    return _coloured(across % 1 < 0.5, colours, rng)


def checks(
    count: int,
    size: int | tuple[int, int],
    seed: int = 0,
    period: tuple[float, float] = (0.1, 0.3),
    degrees: tuple[float, float] = (0, 90),
    colours: Sequence | None = None,
) -> np.ndarray:
    """Draw a board of squares of two colours that take turns.

    Args:
        count: pictures, at least 1.
        size: height and width in pixels; one number for a square.
        seed: of everything random.
        period: least and greatest width of a pair of squares, as a share of the shorter side.
        degrees: least and greatest direction of the rows.
        colours: two RGB colours in 0..255; default two of each picture's own, far from each other.

    Returns:
        float32 RGB `(N, H, W, 3)` in 0..255.

    Raises:
        ValueError: no picture, a size or a period below one pixel, bounds that are no two numbers
            in their order, or other than two colours.
    """
    down, along, rng = _turned(count, size, seed, period, degrees)
    return _coloured((down % 1 < 0.5) ^ (along % 1 < 0.5), colours, rng)


def dots(
    count: int,
    size: int | tuple[int, int],
    seed: int = 0,
    period: tuple[float, float] = (0.1, 0.25),
    degrees: tuple[float, float] = (0, 90),
    colours: Sequence | None = None,
    share: float = 0.4,
) -> np.ndarray:
    """Draw round dots of the first colour on the second, on a grid.

    Args:
        count: pictures, at least 1.
        size: height and width in pixels; one number for a square.
        seed: of everything random.
        period: least and greatest distance of neighbours, as a share of the shorter side.
        degrees: least and greatest direction of the grid.
        colours: RGB colours in 0..255 of dots and ground; default two of each picture's own, far
            from each other.
        share: of the picture that dots cover, above 0 and at most 0.78, where they touch.

    Returns:
        float32 RGB `(N, H, W, 3)` in 0..255.

    Raises:
        ValueError: no picture, a size or a period below one pixel, bounds that are no two numbers
            in their order, other than two colours, or another share.
    """
    if not 0 < share <= 0.78:
        raise ValueError(f"dots cover a share of the picture above 0, at most 0.78, not {share}")
    down, along, rng = _turned(count, size, seed, period, degrees)
    return _coloured((down % 1 - 0.5) ** 2 + (along % 1 - 0.5) ** 2 < share / np.pi, colours, rng)


def plain(
    count: int,
    size: int | tuple[int, int],
    seed: int = 0,
    colour: Sequence[float] = (200, 30, 30),
    spread: float = 25.0,
) -> np.ndarray:
    """Draw pictures of one colour each, near the one that is asked for.

    Args:
        count: pictures, at least 1.
        size: height and width in pixels; one number for a square.
        seed: of the differences.
        colour: RGB in 0..255; default a red.
        spread: grey levels, the farthest that a channel of a picture lies from the colour.

    Returns:
        float32 RGB `(N, H, W, 3)` in 0..255.

    Raises:
        ValueError: no picture, a size below one pixel, no such colour, or a negative spread.
    """
    if not spread >= 0:
        raise ValueError(f"spread is a number of grey levels, 0 or more, not {spread}")
    height, width = _sides(count, size)
    (wanted,) = _checked([colour], 1)
    near = wanted + np.random.default_rng(seed).uniform(-spread, spread, (count, 1, 1, 3))
    found = np.broadcast_to(np.clip(near, 0, 255), (count, height, width, 3))
    return found.astype(np.float32)


TEXTURES = {"stripes": stripes, "dots": dots, "checks": checks, "plain": plain}


def _sides(count, size) -> tuple[int, int]:
    if count < 1:
        raise ValueError(f"at least 1 picture is drawn, not {count}")
    if np.size(size) not in (1, 2) or np.min(size) < 1 or np.any(np.mod(size, 1)):
        raise ValueError(f"size is one or two whole numbers of pixels, at least 1, not {size!r}")
    height, width = (int(side) for side in np.broadcast_to(size, 2))
    return height, width


def _turned(count, size, seed, period, degrees) -> tuple:
    """Rows and columns of finer pixels on each picture's own grid, in periods; the generator."""
    rng = np.random.default_rng(seed)
    height, width = _sides(count, size)
    low, high = _bounds(period, "period")
    short = min(height, width)
    if low * short < 1:
        raise ValueError(
            f"a period is at least one pixel, {1 / short:.3g} of {short} pixels, not {low:g}"
        )
    periods = short * np.exp(rng.uniform(np.log(low), np.log(high), (count, 1, 1)))
    angle = np.deg2rad(rng.uniform(*_bounds(degrees, "degrees"), (count, 1, 1)))
    phase = rng.random((2, count, 1, 1))
    rows, columns = (
        (np.arange(side * OVERSAMPLING) + 0.5) / OVERSAMPLING for side in (height, width)
    )
    rows, columns = rows[:, None], columns[None]
    down = (rows * np.cos(angle) + columns * np.sin(angle)) / periods + phase[0]
    along = (columns * np.cos(angle) - rows * np.sin(angle)) / periods + phase[1]
    return down, along, rng


def _bounds(given, name: str) -> tuple[float, float]:
    values = np.asarray(given, float)
    if values.shape != (2,) or not np.isfinite(values).all() or values[0] > values[1]:
        raise ValueError(f"{name} is the least and the greatest, such as (0.1, 0.2), not {given!r}")
    return float(values[0]), float(values[1])


def _coloured(first, colours, rng) -> np.ndarray:
    """Pictures of two colours from `(N, finer rows, finer columns)`: True is the first."""
    count, rows, columns = first.shape
    fine = count, rows // OVERSAMPLING, OVERSAMPLING, columns // OVERSAMPLING, OVERSAMPLING
    weight = first.reshape(fine).mean(axis=(2, 4), dtype=np.float32)[..., None]
    one, other = _two_colours(count, rng) if colours is None else _checked(colours, 2)
    return (weight * one + (1 - weight) * other).astype(np.float32)


def _two_colours(count, rng) -> tuple[np.ndarray, np.ndarray]:
    """Two colours for each picture, at least `FAR` from each other."""
    one = rng.uniform(0, 255, (count, 1, 1, 3))
    other = rng.uniform(0, 255, (count, 1, 1, 3))
    while (near := np.abs(one - other).mean(axis=(1, 2, 3)) < FAR).any():
        other[near] = rng.uniform(0, 255, (near.sum(), 1, 1, 3))
    return one, other


def _checked(colours, count: int) -> np.ndarray:
    values = np.asarray(colours, np.float32)
    if values.shape != (count, 3) or not ((values >= 0) & (values <= 255)).all():
        wanted = "a colour is" if count == 1 else "colours are two, each"
        raise ValueError(f"{wanted} three numbers in 0..255, not {colours!r}")
    return values
