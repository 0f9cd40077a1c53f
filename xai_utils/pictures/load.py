"""Pictures: named ones that every installation has, and the user's own.

- `cat` (scikit-image's chelsea), `hound` (foolbox's bull mastiff), and the drawn `umbrella` and
  `mushroom`, whose object masks are exact, are the suite's four subjects; `image_names()` lists
  all.
- Your own: any path, or the name of a file in `data/images/`.
"""

import functools
import importlib.util
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from xai_utils import engine
from xai_utils.pictures import scenes

IMAGES_FOLDER = engine.DATA_FOLDER / "images"
# of files that are taken for pictures in a folder
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".webp")
MOST_PIXELS = 64_000_000  # a larger picture is refused before it is decoded
_ONE_AT_A_TIME = threading.Lock()

SCENES = {"umbrella": scenes.draw_umbrella, "mushroom": scenes.draw_mushroom}


class PictureError(ValueError):
    """A picture that cannot be used; the message names it and says why, in one line."""


@dataclass(frozen=True)
class Picture:
    """Where a named picture comes from, and its ImageNet classes where they are known.

    Any of them is right.
    """

    package: str
    file: str
    classes: tuple[int, ...] = ()


# in foolbox's order, and their classes
_FOOLBOX = {
    "hound": 243,
    "folding_chair": 559,
    "beaker": 438,
    "buckeye": 990,
    "strawberry": 949,
    "thatch": 853,
    "jeep": 609,
    "jeep_2": 609,
    "yurt": 915,
    "bottlecap": 455,
    "drum": 541,
    "loafer": 630,
    "prayer_rug": 741,
    "cannon": 471,
    "spoonbill": 129,
    "geese": 99,
    "dalmatian": 251,
    "bald_eagle": 22,
    "leafhopper": 317,
    "dung_beetle": 305,
}

PICTURES = {
    "cat": Picture("skimage", "chelsea.png", (281, 282, 285)),
    "umbrella": Picture("drawn", "umbrella", (879,)),
    "mushroom": Picture("drawn", "mushroom", (947, 992)),
    **{
        name: Picture("foolbox", f"imagenet_{i:02d}_{index}.jpg", (index,))
        for i, (name, index) in enumerate(_FOOLBOX.items())
    },
    "coffee": Picture("skimage", "coffee.png", (504, 967, 968)),
    "astronaut": Picture("skimage", "astronaut.png"),
    "rocket": Picture("skimage", "rocket.jpg", (657, 744)),
    "motorcycle": Picture("skimage", "motorcycle_left.png"),
}


@functools.cache
def _drawn(name: str) -> scenes.Scene:
    """A scene as it is drawn by default; drawing takes about a second, so once is enough."""
    return SCENES[name]()


def image_names() -> tuple[str, ...]:
    """The names `load_image` knows, the four subjects among them.

    Example:
        >>> image_names()[:3]
        ('cat', 'umbrella', 'mushroom')
    """
    return tuple(PICTURES)


def load_image(name_or_path, channels: int = 3) -> np.ndarray:
    """Load a picture, by default as uint8 RGB `(H, W, 3)`.

    A known name comes first, then a path (from the working directory; `~` is the home folder), then
    a file in `data/images/`. EXIF orientation is honoured; of several frames or pages the first is
    taken; colour profiles are ignored. Grey becomes RGB; transparency is laid over white; CMYK is
    converted as Pillow does; 16-bit grey is scaled by 1/257; 32-bit integers and floats (TIFF) are
    taken as 0..255 and clipped.

    Args:
        name_or_path: of the picture.
        channels: 3 for RGB; 1 for grey `(H, W, 1)`; 4 for RGBA `(H, W, 4)`, uint8 each. Any number
            for files that hold bands: `.npy`, and TIFF with as many samples a pixel, `(H, W, C)` or
            `(C, H, W)`; their values and their type stay as they are.

    Returns:
        uint8 `(H, W, channels)`; bands in the file's own type.

    Raises:
        PictureError: unknown name, missing, empty, truncated or unreadable file, no image, a
            directory, more than `MOST_PIXELS` pixels, or another number of bands.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise PictureError(f"a picture is a name or a path, not {name_or_path!r}")
    name = str(name_or_path)
    picture = PICTURES.get(name)
    if picture is None:
        return _load_file(_find(name), name, channels)
    if picture.package == "drawn":
        return _with_channels(Image.fromarray(_drawn(picture.file).image), name, channels)
    # The package is found, not imported: foolbox takes seconds, scikit-image's data functions may
    # download.
    package = importlib.util.find_spec(picture.package)
    if package is None:
        raise PictureError(
            f"{name!r} comes with the package {picture.package}, which is not installed"
        )
    return _read(Path(package.origin).parent / "data" / picture.file, name, channels)


def decode_image(content: bytes, name: str, channels: int = 3) -> np.ndarray:
    """Load a picture from a file's content, such as an upload, by default as uint8 RGB `(H, W, 3)`.

    EXIF orientation is honoured; of several frames or pages the first is taken; colour profiles are
    ignored. Grey becomes RGB; transparency is laid over white; CMYK is converted as Pillow does;
    16-bit grey is scaled by 1/257; 32-bit integers and floats (TIFF) are taken as 0..255 and
    clipped.

    Args:
        content: bytes of the file.
        name: what the file was called: its ending tells its kind, and messages name it.
        channels: 3 for RGB; 1 for grey `(H, W, 1)`; 4 for RGBA `(H, W, 4)`, uint8 each. Any number
            for `.npy` and TIFF files of bands, whose values and type stay as they are.

    Returns:
        uint8 `(H, W, channels)`; bands in the file's own type.

    Raises:
        PictureError: an empty, truncated or unreadable file, no image, more than `MOST_PIXELS`
            pixels, or another number of bands.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"picture{Path(name).suffix}")
        path.write_bytes(content)
        return _load_file(path, name, channels)


def load_mask(name: str) -> np.ndarray:
    """The exact object mask of a drawn picture.

    Args:
        name: `umbrella` or `mushroom`.

    Returns:
        bool `(H, W)`, True where the object covers any part of the pixel.

    Raises:
        PictureError: the picture is not a drawn one.
    """
    if name not in SCENES:
        raise PictureError(f"{name!r} has no object mask; drawn pictures have: {', '.join(SCENES)}")
    return _drawn(name).mask.copy()


RESIZINGS = ("stretch", "crop", "pad", "imagenet")


def prepare(
    image: np.ndarray,
    size: int | tuple[int, int],
    nearest: bool = False,
    resizing: str = "imagenet",
) -> np.ndarray:
    """Bring a picture to the size of a network's input.

    One that has the size is returned as it is. Otherwise, as the network was trained:

    - `stretch`: the whole picture, whatever its shape, bilinear, as Keras' own loaders do it.
    - `crop`: its middle of the input's shape; `pad`: all of it, zeros beside it; both bilinear, as
      Keras' loaders with `crop_to_aspect_ratio` and `pad_to_aspect_ratio`.
    - `imagenet`: the middle square of `size / (size + 32)` of the shorter side, bicubic: how the
      embedded networks were evaluated, for square inputs.

    Args:
        image: numbers `(H, W, C)`, or a bool mask `(H, W)` with `nearest`.
        size: height and width of the network's input in pixels; one number for a square.
        nearest: nearest neighbour in place of bilinear or bicubic, for masks.
        resizing: of `RESIZINGS`.

    Returns:
        float32 `(height, width, C)` in the picture's own range, or a bool mask `(height, width)`.

    Raises:
        PictureError: not a picture of that shape, a size that is not square with `imagenet`, or
            another way of resizing.
    """
    if resizing not in RESIZINGS:
        raise PictureError(f"resizing is one of {', '.join(RESIZINGS)}, not {resizing!r}")
    height, width = (int(side) for side in np.broadcast_to(size, 2))
    image = np.asarray(image)
    good = image.ndim == 2 and image.dtype == bool if nearest else image.ndim == 3
    if not good or not image.size or image.dtype.kind not in "buif":
        wanted = "a bool mask (H, W)" if nearest else "a picture (H, W, channels) of numbers"
        raise PictureError(f"prepare takes {wanted}, not {image.dtype} of shape {image.shape}")
    if image.shape[:2] == (height, width):
        return image.astype(bool if nearest else np.float32)
    if resizing == "imagenet":
        if height != width:
            raise PictureError(
                f"resizing 'imagenet' makes squares, not {height} x {width}: say stretch, crop or"
                " pad"
            )
        return _middle_square(image, height, nearest)
    method = "nearest" if nearest else "bilinear"
    values = (image[..., None] if nearest else image).astype(np.float32)
    # what Keras' loaders do
    if resizing == "crop":
        size = (height, width)
        sized = engine.keras.ops.image.resize(values, size, method, crop_to_aspect_ratio=True)
    elif resizing == "pad":
        sized = engine.tf.image.resize_with_pad(values, height, width, method)
    else:
        sized = engine.tf.image.resize(values, (height, width), method)
    sized = np.asarray(sized, np.float32)
    return sized[..., 0] > 0 if nearest else sized


def _middle_square(image: np.ndarray, size: int, nearest: bool) -> np.ndarray:
    side = size / (size + 32) * min(image.shape[:2])
    left, top = ((extent - side) / 2 for extent in image.shape[1::-1])
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    settings = {
        "size": (size, size),
        "resample": method,
        "box": (left, top, left + side, top + side),
    }
    if nearest or (image.dtype == np.uint8 and image.shape[2] == 3):
        resized = Image.fromarray(image.astype(np.uint8)).resize(**settings)
        return np.asarray(resized).astype(bool if nearest else np.float32)
    bands = [Image.fromarray(band) for band in np.moveaxis(image.astype(np.float32), -1, 0)]
    resized = np.stack([np.asarray(band.resize(**settings)) for band in bands], axis=-1)
    return np.clip(resized, image.min(), image.max())  # bicubic leaves the range at edges


def _find(name: str) -> Path:
    try:
        path = Path(name).expanduser()
        for candidate in (path, IMAGES_FOLDER / name):
            if candidate.exists():
                return candidate
    # a closed folder, a name too long, ~ of an unknown user
    except (OSError, RuntimeError) as error:
        raise PictureError(
            f"{name!r} cannot be looked up: {getattr(error, 'strerror', error)}"
        ) from None
    if path.suffix or len(path.parts) > 1:
        raise PictureError(f"no picture at {name!r}, nor in data/images/")
    own = [p.name for p in IMAGES_FOLDER.glob("*.*") if p.name != "README.md"]
    raise PictureError(
        f"no picture is called {name!r}; {engine.nearest(name, [*PICTURES, *own])}"
        " (pictures.image_names() lists all)"
    )


def _load_file(path: Path, name: str, channels: int) -> np.ndarray:
    """A user's file: bands where it holds them, else a picture."""
    if path.is_file() and path.suffix.lower() == ".npy":
        return _bands(lambda: np.load(path, allow_pickle=False), name, channels)
    if path.is_file() and path.suffix.lower() in (".tif", ".tiff") and channels not in (1, 3):
        import tifffile  # seldom needed, and slow to import

        return _bands(lambda: tifffile.imread(path), name, channels)
    return _read(path, name, channels)


def _bands(read: Callable, name: str, channels: int) -> np.ndarray:
    """An array of a file as `(H, W, channels)`."""
    try:
        values = read()
    except Exception as error:  # decoders raise what they like
        reason = engine.first_line(error)
        raise PictureError(f"{name!r} is damaged or cut short: {reason}") from None
    shape = values.shape
    if values.ndim == 2:
        values = values[..., None]
    elif values.ndim == 3 and shape[2] != channels and shape[0] == channels:
        values = np.moveaxis(values, 0, -1)
    if values.ndim != 3 or values.shape[2] != channels or not values.size:
        raise PictureError(
            f"{name!r} holds {values.dtype} of shape {shape}; the network takes {channels} channels"
        )
    if values.dtype.kind not in "buif" or not np.isfinite(values).all():
        raise PictureError(f"{name!r} holds {values.dtype} values that are not all finite numbers")
    if values.shape[0] * values.shape[1] > MOST_PIXELS:
        raise PictureError(
            f"{name!r} has {values.shape[1]} x {values.shape[0]} pixels: scale it down"
        )
    return values


def _read(path: Path, name: str, channels: int) -> np.ndarray:
    """Decode a file; `name` is what the user called it."""
    if path.is_dir():
        raise PictureError(f"{name!r} is a folder, not a picture")
    try:
        if not path.stat().st_size:
            raise PictureError(f"{name!r} is empty (0 bytes)")
        # What warnings are shown is a state of the process, and threads read pictures.
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            # Pillow warns of large pictures and odd metadata; size is checked here
            warnings.simplefilter("ignore")
            # EPS is left out: Pillow would start Ghostscript on it.
            Image.init()
            with Image.open(path, formats=[kind for kind in Image.OPEN if kind != "EPS"]) as opened:
                width, height = opened.size
                if width * height > MOST_PIXELS:
                    most = f"at most {MOST_PIXELS // 10**6} million are read"
                    raise PictureError(
                        f"{name!r} has {width} x {height} pixels; {most}: scale it down"
                    )
                # Turning forgets the format; Pillow gives the 16-bit grey of PGM and PNG as 32-bit
                # integers at times.
                sixteen_bit = opened.mode == "I" and opened.format in ("PPM", "PNG")
                turned = ImageOps.exif_transpose(opened)
                return _with_channels(turned, name, channels, sixteen_bit)
    except PictureError:
        raise
    except Image.UnidentifiedImageError:
        raise PictureError(f"{name!r} is not an image that Pillow can read") from None
    except Image.DecompressionBombError:
        raise PictureError(
            f"{name!r} is far too large when decoded (a decompression bomb?): scale it down"
        ) from None
    except PermissionError:
        raise PictureError(f"{name!r} cannot be read: permission denied") from None
    # decoders raise OSError, SyntaxError, ValueError, struct.error and more
    except Exception as error:
        reason = engine.first_line(error)
        raise PictureError(f"{name!r} is damaged or cut short: {reason}") from None


def _with_channels(
    image: Image.Image, name: str, channels: int, sixteen_bit: bool = False
) -> np.ndarray:
    """A decoded picture as uint8 `(H, W, channels)`."""
    if channels not in (1, 3, 4):
        raise PictureError(
            f"{name!r} is a picture of colours, but the network takes {channels} channels: give"
            " .npy or TIFF files with as many bands, or arrays"
        )
    if sixteen_bit or image.mode.startswith("I;16"):
        image = _grey(np.asarray(image).astype(np.float64) / 257)
    elif image.mode in ("I", "F"):
        image = _grey(np.nan_to_num(np.asarray(image).astype(np.float64)))
    if channels == 4:
        return np.asarray(image.convert("RGBA"))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        image = Image.alpha_composite(white, clear)
    if channels == 1:
        return np.asarray(image.convert("L"))[..., None].copy()
    return np.asarray(image.convert("RGB"))


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
