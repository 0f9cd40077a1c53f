"""Changes of pictures: pure functions of a batch, and the way back where pixels only move.

Images are float32 `(N, H, W, C)` in 0..255 and stay in that range. What moves pixels (`flip_*`,
`rotate`, `zoom`, `shift`) takes maps `(N, H, W)` of any values as well, and is undone by itself
with another amount; see `undo`.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from xai_utils.engine import PIXELS, keras, nearest, pixel_range, tf
from xai_utils.pictures.load import PictureError


def flip_horizontal(images, amount=1) -> np.ndarray:
    """Mirror left and right.

    Args:
        images: pictures `(N, H, W, C)`, or maps `(N, H, W)`, of any values.
        amount: 1 mirrors, 0 leaves everything as it is.

    Returns:
        An array of the same shape and type.

    Example:
        >>> flip_horizontal([[[1, 2, 3]]]).tolist()
        [[[3, 2, 1]]]
    """
    return np.asarray(images)[:, :, ::-1] if amount else np.asarray(images)


def flip_vertical(images, amount=1) -> np.ndarray:
    """Turn upside down.

    Args:
        images: pictures `(N, H, W, C)`, or maps `(N, H, W)`, of any values.
        amount: 1 turns, 0 leaves everything as it is.

    Returns:
        An array of the same shape and type.
    """
    return np.asarray(images)[:, ::-1] if amount else np.asarray(images)


def rotate(images, degrees: float, fill: float = 0.0) -> np.ndarray:
    """Rotate about the middle, counter-clockwise, bilinear.

    Args:
        images: pictures `(N, H, W, C)`, or maps `(N, H, W)`, of any values.
        degrees: how far.
        fill: the value that comes in from outside; default 0.

    Returns:
        float32 of the same shape.
    """
    angle = np.deg2rad(degrees)
    return _warp(
        images, [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], (0, 0), fill
    )


def zoom(images, factor: float, fill: float = 0.0) -> np.ndarray:
    """Enlarge about the middle, or shrink, bilinear.

    Args:
        images: pictures `(N, H, W, C)`, or maps `(N, H, W)`, of any values.
        factor: above 1 enlarges, below shrinks.
        fill: the value that comes in from outside; default 0.

    Returns:
        float32 of the same shape.

    Raises:
        ValueError: a factor that is not above 0.
    """
    if not factor > 0:
        raise ValueError(f"zoom: the factor must be above 0, not {factor}")
    return _warp(images, np.eye(2) / factor, (0, 0), fill)


def shift(images, right: float, down: float = 0.0, fill: float = 0.0) -> np.ndarray:
    """Move, bilinear between whole pixels.

    Args:
        images: pictures `(N, H, W, C)`, or maps `(N, H, W)`, of any values.
        right: pixels to the right; negative ones to the left.
        down: pixels down; negative ones up. Default 0.
        fill: the value that comes in from outside; default 0.

    Returns:
        float32 of the same shape.

    Example:
        >>> shift([[[1.0, 2.0, 3.0]]], 1).tolist()
        [[[0.0, 1.0, 2.0]]]
    """
    return _warp(images, np.eye(2), (right, down), fill)


def brightness(images, levels: float) -> np.ndarray:
    """Add so many grey levels to every pixel; what leaves 0..255 is cut.

    Args:
        images: `(N, H, W, C)` in 0..255, any number type.
        levels: grey levels, negative ones darken.

    Returns:
        float32 `(N, H, W, C)` in 0..255.
    """
    return _clip(np.asarray(images, np.float32) + levels)


def contrast(images, factor: float) -> np.ndarray:
    """Multiply the distance from each picture's mean grey; what leaves 0..255 is cut.

    Args:
        images: `(N, H, W, C)` in 0..255, any number type.
        factor: 1 changes nothing, 0 leaves the grey.

    Returns:
        float32 `(N, H, W, C)` in 0..255.
    """
    images = np.asarray(images, np.float32)
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return _clip(mean + factor * (images - mean))


def blur(images, sigma: float) -> np.ndarray:
    """Gaussian blur.

    Args:
        images: `(N, H, W, C)` in 0..255, any number type.
        sigma: standard deviation in pixels; 0 changes nothing.

    Returns:
        float32 `(N, H, W, C)` in 0..255.
    """
    return gaussian_filter(np.asarray(images, np.float32), (0, sigma, sigma, 0), mode="nearest")


def noise(images, sigma: float, seed: int = 0) -> np.ndarray:
    """Add Gaussian noise, the same to each picture; what leaves 0..255 is cut.

    Args:
        images: `(N, H, W, C)` in 0..255, any number type.
        sigma: standard deviation in grey levels.
        seed: of the noise; default 0.

    Returns:
        float32 `(N, H, W, C)` in 0..255.
    """
    images = np.asarray(images, np.float32)
    return _clip(
        images + sigma * np.random.default_rng(seed).standard_normal(images.shape[1:], np.float32)
    )


def jpeg(images, quality: int) -> np.ndarray:
    """Save as JPEG and read again.

    One channel is saved as a grey picture, three as RGB, others each as a grey picture.

    Args:
        images: `(N, H, W, C)` in 0..255, any number type.
        quality: 1 to 95.

    Returns:
        float32 `(N, H, W, C)` in 0..255.

    Raises:
        ValueError: another quality.
    """
    if not 1 <= quality <= 95:
        raise ValueError(f"jpeg: quality goes from 1 to 95, not {quality}")
    return np.stack(
        [_through_jpeg(image, int(quality)) for image in _clip(np.asarray(images, np.float32))]
    )


class Transform(NamedTuple):
    """A change with one dial.

    Attributes:
        apply: `(images, amount) -> images`.
        inverse: the amount that undoes an amount, for changes that move pixels; None where pixels
            keep their places.
        still: the amount that changes nothing.
        unit: of the amount.
    """

    apply: Callable
    inverse: Callable | None
    still: float
    unit: str


TRANSFORMS = {
    "flip_horizontal": Transform(flip_horizontal, lambda amount: amount, 0, "0 or 1"),
    "flip_vertical": Transform(flip_vertical, lambda amount: amount, 0, "0 or 1"),
    "rotate": Transform(rotate, lambda amount: -amount, 0, "degrees"),
    "zoom": Transform(zoom, lambda amount: 1 / amount, 1, "factor"),
    "shift": Transform(shift, lambda amount: -amount, 0, "pixels to the right"),
    "brightness": Transform(brightness, None, 0, "grey levels"),
    "contrast": Transform(contrast, None, 1, "factor"),
    "blur": Transform(blur, None, 0, "standard deviation, pixels"),
    "noise": Transform(noise, None, 0, "standard deviation, grey levels"),
    "jpeg": Transform(jpeg, None, 95, "JPEG quality"),
}


def apply(name: str, images, amount) -> np.ndarray:
    """Change a batch by a transform of `TRANSFORMS`.

    Args:
        name: a key of `TRANSFORMS`.
        images: pictures `(N, H, W, C)` in 0..255, or, where pixels move, maps `(N, H, W)` of any
            values.
        amount: in the transform's own unit; see `TRANSFORMS[name].unit`.

    Returns:
        An array of the same shape.

    Raises:
        ValueError: no transform of that name, or an amount it cannot take.
    """
    if name not in TRANSFORMS:
        raise ValueError(f"no transform is called {name!r}; {nearest(name, TRANSFORMS)}")
    return TRANSFORMS[name].apply(images, amount)


def undo(name: str, maps, amount) -> tuple[np.ndarray, np.ndarray]:
    """Bring maps of changed pictures back to where the pixels were.

    Args:
        name: a key of `TRANSFORMS`, as it was given to `apply`.
        maps: `(N, H, W)`, of the size of the pictures, any number type.
        amount: as it was given to `apply`.

    Returns:
        The maps, float32 `(N, H, W)`, and bool `(H, W)`: the pixels that stayed in view there and
        back; others mean nothing.
    """
    inverse = TRANSFORMS[name].inverse
    maps = np.asarray(maps, np.float32)
    if inverse is None:
        return maps, np.ones(maps.shape[1:], bool)
    seen = apply(
        name, apply(name, np.ones((1, *maps.shape[1:]), np.float32), amount), inverse(amount)
    )
    return apply(name, maps, inverse(amount)), seen[0] > 0.999


def resize_map(maps, size: tuple[int, int]) -> np.ndarray:
    """Maps at another size, bilinear.

    So they stay within their range; bicubic would leave it.

    Args:
        maps: `(..., h, w)`, any number type.
        size: height and width in pixels.

    Returns:
        float32 `(..., H, W)`.

    Example:
        >>> resize_map([[0.0, 1.0]], (1, 4)).tolist()
        [[0.0, 0.25, 0.75, 1.0]]
    """
    maps = np.asarray(maps, np.float32)
    if maps.shape[-2:] == tuple(size):
        return maps
    flat = maps.reshape(-1, *maps.shape[-2:], 1)
    return tf.image.resize(flat, size).numpy().reshape(*maps.shape[:-2], *size)


def grey(images) -> np.ndarray:
    """How bright pixels look.

    Of three channels it is the luma of red, green and blue, of another number their mean.
    Source: ITU-R BT.601, luma.

    Args:
        images: `(..., C)`, any number type.

    Returns:
        float32 `(...)`, in the pictures' range.

    Example:
        >>> round(float(grey([255, 0, 0])), 1)
        76.2
    """
    images = np.asarray(images, np.float32)
    if images.shape[-1] != 3:
        return images.mean(axis=-1)
    return images @ np.array([0.299, 0.587, 0.114], np.float32)


def squeeze(image: np.ndarray, size: int) -> np.ndarray:
    """A whole picture as a square, bilinear.

    Of a huge one the mean of blocks is taken first.

    Args:
        image: `(H, W, 3)`, any number type.
        size: side of the square in pixels.

    Returns:
        float32 `(size, size, 3)`, in the picture's range.

    Raises:
        PictureError: not numbers of that shape.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype.kind not in "fiu" or not image.size:
        raise PictureError(
            f"prepare takes a picture (H, W, 3), not {image.dtype} of shape {image.shape}"
        )
    for axis in (0, 1):
        # Bilinear skips pixels of what is more than twice as large; up to four times that does no
        # harm, as in training.
        if (step := image.shape[axis] // (2 * size)) > 1:
            starts = np.arange(0, image.shape[axis], step)
            counts = np.diff([*starts, image.shape[axis]]).reshape(
                (-1, 1, 1) if axis == 0 else (1, -1, 1)
            )
            image = np.add.reduceat(image, starts, axis, dtype=np.float32) / counts
    return tf.image.resize(image, (size, size)).numpy()


def masked(images, masks, covers=None, black: float = 0.0) -> tf.Tensor:
    """What masks leave of pictures, tensors that are broadcast; for compiled code.

    Args:
        images: `(..., H, W, C)`.
        masks: `(..., H, W)`: 1 shows a pixel, 0 its cover.
        covers: `(..., H, W, C)`; default black.
        black: the pixel value of black, see `engine.pixel_range`.

    Returns:
        `(..., H, W, C)`, of the pictures' type.
    """
    masks = masks[..., None]
    if covers is None and black == 0:
        return images * masks
    return images * masks + (black if covers is None else covers) * (1 - masks)


def covers_for(model: keras.Model, images: tf.Tensor, fill, seed: int = 0) -> tf.Tensor:
    """What is put in place of a batch's covered pixels, as a tensor, for a model; see `filling`.

    Args:
        model: a Keras model; `black` and `white` are the least and the largest pixel value it
            takes.
        images: tensor `(N, H, W, C)`.
        fill: `black`, `white`, `mean`, `blur`, `random`, a pixel value, a colour `(C,)`, or
            pictures: N or one.
        seed: of `random`.

    Returns:
        Tensor `(N, H, W, C)`, of the pictures' type.

    Raises:
        ValueError: another word, or not finite numbers of such a shape.
    """
    at_an_end = isinstance(fill, str) and fill in ("black", "white")
    black, white = pixel_range(model, images) if at_an_end else PIXELS
    return tf.constant(filling(images.numpy(), fill, seed, black, white))


def filling(images, fill, seed: int = 0, black: float = 0.0, white: float = 255.0) -> np.ndarray:
    """What is put in place of covered pixels, as pictures.

    Args:
        images: `(N, H, W, C)`, any number type.
        fill: `black`, `white`, `mean` (each picture's mean colour), `blur` (the picture blurred
            beyond recognition), `random` (uniform noise in the picture's range, from `seed`), a
            pixel value, a colour `(C,)`, or pictures: N or one.
        seed: of `random`.
        black: the pixel value of black: 0, and -1 for a network of pixels in -1..1.
        white: that of white: 255, and 1 for such a network.

    Returns:
        `(N, H, W, C)` of floats, float32 of whole numbers.

    Raises:
        ValueError: another word, or not finite numbers of such a shape.

    Example:
        >>> filling(np.zeros((1, 2, 2, 3)), (255, 0, 0))[0, 0, 0].tolist()
        [255.0, 0.0, 0.0]
    """
    images = np.asarray(images)
    if images.dtype.kind in "iub":
        images = images.astype(np.float32)  # bytes hold no mean, and no -1
    if isinstance(fill, str):
        ends = {"black": black, "white": white}
        if fill not in (*ends, *_FILLINGS):
            raise ValueError(
                f"no filling is called {fill!r}; it may be {', '.join([*ends, *_FILLINGS])}, a"
                " value or an array"
            )
        return np.full_like(images, ends[fill]) if fill in ends else _FILLINGS[fill](images, seed)
    values = np.asarray(fill)
    wanted = f"a number, a colour {images.shape[3:]} or pictures {images.shape}"
    if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
        got = f"{values.dtype} of shape {values.shape}" if values.ndim else f"{fill!r:.60}"
        raise ValueError(f"fill must be finite: {wanted}; got {got}")
    if values.ndim > 4 or any(
        extent not in (1, own) for extent, own in zip(values.shape[::-1], images.shape[::-1])
    ):
        raise ValueError(f"fill must be {wanted}; got shape {values.shape}")
    return np.broadcast_to(values.astype(images.dtype), images.shape)


def _blurred(images, seed):
    sigma = max(images.shape[1:3]) / 10
    # A blur is linear: what it makes of the unit vectors is its matrix, and a product is ten times
    # as fast.
    down, across = (
        gaussian_filter1d(np.eye(n, dtype=np.float32), sigma, 0, mode="nearest")
        for n in images.shape[1:3]
    )
    return np.einsum("hi,wj,nijc->nhwc", down, across, images, optimize=True)


def _random(images, seed):
    # One noise for all pictures, so that a batch gives what its pictures give one by one; drawn in
    # float32, so that a seed means the same in every precision.
    values = tf.random.stateless_uniform(images.shape[1:], (seed, 0)).numpy().astype(images.dtype)
    low, high = (limit(images, axis=(1, 2, 3), keepdims=True) for limit in (np.min, np.max))
    return low + values * (high - low)


_FILLINGS = {
    "mean": lambda images, seed: np.broadcast_to(
        images.mean(axis=(1, 2), keepdims=True), images.shape
    ),
    "blur": _blurred,
    "random": _random,
}


def warped(images, matrix, origin, fill_mode: str = "constant", fill: float = 0.0) -> tf.Tensor:
    """Pictures sampled, bilinear, at `matrix @ (place - middle) + origin`; x goes right, y down.

    For compiled code too, if the number of pictures is known when it is traced.

    Args:
        images: `(N, H, W, C)`, any number type.
        matrix: `((a, b), (c, d))`, numbers or `(N,)` each.
        origin: (x, y) from where the middle of each new picture comes, numbers or `(N,)` each.
        fill_mode: what lies outside: `constant` is `fill`, `reflect` the mirrored picture; see
            `keras.ops.image.affine_transform`.
        fill: the value of `constant`; default 0.

    Returns:
        Tensor `(N, H, W, C)`.
    """
    (a, b), (c, d) = matrix
    x, y = ((extent - 1) / 2 for extent in (images.shape[2], images.shape[1]))
    rows = [a, b, origin[0] - a * x - b * y, c, d, origin[1] - c * x - d * y, 0, 0]
    rows = [tf.broadcast_to(tf.cast(row, tf.float32), images.shape[:1]) for row in rows]
    return keras.ops.image.affine_transform(
        images, tf.stack(rows, axis=1), "bilinear", fill_mode, fill, data_format="channels_last"
    )


def _warp(images, matrix, moved, fill: float) -> np.ndarray:
    """Sample at `matrix @ (place - middle - moved) + middle`; x goes right, y down."""
    images = np.asarray(images, np.float32)
    pictures = images[..., None] if images.ndim == 3 else images
    origin = (np.array(pictures.shape[2:0:-1]) - 1) / 2 - np.asarray(matrix) @ moved
    return warped(pictures, matrix, origin, fill=fill).numpy().reshape(images.shape)


def _clip(images: np.ndarray) -> np.ndarray:
    return np.clip(images, 0, 255)


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    channels = image.shape[-1]
    if channels != 3:
        return np.stack([_saved(image[..., i], quality) for i in range(channels)], axis=-1)
    return _saved(image, quality)


def _saved(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.round(image).astype(np.uint8)).save(file, "jpeg", quality=quality)
    return np.asarray(Image.open(file), np.float32)
