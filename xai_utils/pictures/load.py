"""Pictures: named ones that every installation has, and the user's own.

- `cat` (scikit-image's chelsea), `hound` (foolbox's bull mastiff), and the drawn `umbrella` and
  `mushroom`, whose object masks are exact, are the suite's four subjects; `image_names()` lists
  all.
- Your own: any path, or the name of a file in `data/images/`.
"""

import difflib
import functools
import importlib.util
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from xai_utils.engine import DATA_FOLDER
from xai_utils.pictures import scenes

IMAGES_FOLDER = DATA_FOLDER / "images"
MOST_PIXELS = 64_000_000  # a larger picture is refused before it is decoded

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
    """The names `load_image` knows, the four subjects among them."""
    return tuple(PICTURES)


def load_image(name_or_path) -> np.ndarray:
    """Load a picture as uint8 RGB `(H, W, 3)`.

    A known name comes first, then a path (from the working directory; `~` is the home folder), then
    a file in `data/images/`. EXIF orientation is honoured; of several frames or pages the first is
    taken; colour profiles are ignored. Grey becomes RGB; transparency is laid over white; CMYK is
    converted as Pillow does; 16-bit grey is scaled by 1/257; 32-bit integers and floats (TIFF) are
    taken as 0..255 and clipped.

    Raises:
        PictureError: unknown name, missing, empty, truncated or unreadable file, no image, a
            directory, or more than `MOST_PIXELS` pixels.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise PictureError(f"a picture is a name or a path, not {name_or_path!r}")
    picture = PICTURES.get(str(name_or_path))
    if picture is None:
        return _read(_find(str(name_or_path)), str(name_or_path))
    if picture.package == "drawn":
        return _drawn(picture.file).image.copy()
    # The package is found, not imported: foolbox takes seconds, scikit-image's data functions may
    # download.
    package = importlib.util.find_spec(picture.package)
    if package is None:
        raise PictureError(
            f"{str(name_or_path)!r} comes with the package {picture.package}, which is not"
            " installed"
        )
    return _read(Path(package.origin).parent / "data" / picture.file, str(name_or_path))


def decode_image(content: bytes, name: str) -> np.ndarray:
    """As `load_image`, of a file's content, such as an upload; `name` is for messages."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture")
        path.write_bytes(content)
        return _read(path, name)


def load_mask(name: str) -> np.ndarray:
    """The exact object mask of a drawn picture, bool `(H, W)`.

    Raises:
        PictureError: the picture is not a drawn one.
    """
    if name not in SCENES:
        raise PictureError(f"{name!r} has no object mask; drawn pictures have: {', '.join(SCENES)}")
    return _drawn(name).mask.copy()


def prepare(image: np.ndarray, size: int | tuple[int, int], nearest: bool = False) -> np.ndarray:
    """Crop the central square of a picture and resize it to the network's input.

    The square's side is `size / (size + 32)` of the shorter one. This is how the embedded networks
    were evaluated; another crop gives other labels.

    Args:
        image: uint8 `(H, W, 3)`, or a bool mask `(H, W)` with `nearest`.
        size: side of the network's input in pixels; two equal ones are accepted.
        nearest: nearest neighbour instead of bicubic, for masks.

    Returns:
        float32 `(size, size, 3)` in 0..255, or a bool mask `(size, size)`.

    Raises:
        PictureError: not a picture of that shape and type, or a size that is not square.
    """
    sides = set(np.atleast_1d(size).tolist())
    if len(sides) != 1:
        raise PictureError(f"prepare makes square pictures, not {size}")
    size = sides.pop()
    image = np.asarray(image)
    # Exactly uint8: a 16-bit array would be cut to its low byte without a word.
    expected = ((), np.bool_) if nearest else ((3,), np.uint8)
    if image.ndim < 2 or (image.shape[2:], image.dtype) != expected or not image.size:
        wanted = "a bool mask (H, W)" if nearest else "a uint8 picture (H, W, 3)"
        raise PictureError(f"prepare takes {wanted}, not {image.dtype} of shape {image.shape}")
    height, width = image.shape[:2]
    side = size / (size + 32) * min(height, width)
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    resized = Image.fromarray(image.astype(np.uint8)).resize((size, size), method, box=box)
    return np.asarray(resized).astype(bool if nearest else np.float32)


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
    near = difflib.get_close_matches(name, [*PICTURES, *own], n=3, cutoff=0.4) or list(PICTURES)[:4]
    raise PictureError(
        f"no picture is called {name!r}; nearest: {', '.join(near)}"
        " (pictures.image_names() lists all)"
    )


def _read(path: Path, name: str) -> np.ndarray:
    """Decode a file; `name` is what the user called it."""
    if path.is_dir():
        raise PictureError(f"{name!r} is a folder, not a picture")
    try:
        if not path.stat().st_size:
            raise PictureError(f"{name!r} is empty (0 bytes)")
        with warnings.catch_warnings():
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
                return _to_rgb(ImageOps.exif_transpose(opened), sixteen_bit)
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
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PictureError(f"{name!r} is damaged or cut short: {reason}") from None


def _to_rgb(image: Image.Image, sixteen_bit: bool) -> np.ndarray:
    if sixteen_bit or image.mode.startswith("I;16"):
        return _grey(np.asarray(image).astype(np.float64) / 257)
    if image.mode in ("I", "F"):
        return _grey(np.nan_to_num(np.asarray(image).astype(np.float64)))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        image = Image.alpha_composite(white, clear)
    return np.asarray(image.convert("RGB"))


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(np.rint(values), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
