"""Pictures: named ones that every installation has, and the user's own.

- `cat` (scikit-image's chelsea), `hound` (foolbox's bull mastiff), and the drawn `umbrella` and `mushroom`, whose
  object masks are exact, are the suite's four subjects; `image_names()` lists all.
- Your own: any path, or the name of a file in `data/images/`.
"""

import difflib
import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from xai_utils import scenes

DATA_FOLDER = Path(__file__).resolve().parent.parent / "data"
IMAGES_FOLDER, MODELS_FOLDER = DATA_FOLDER / "images", DATA_FOLDER / "models"
MOST_PIXELS = 64_000_000  # a larger picture is refused before it is decoded

SCENES = {"umbrella": scenes.draw_umbrella, "mushroom": scenes.draw_mushroom}


class PictureError(ValueError):
    """A picture that cannot be used; the message names it and says why, in one line."""


@dataclass(frozen=True)
class Picture:
    """Where a named picture comes from, and its ImageNet classes where they are known (any of them is right)."""

    package: str
    file: str
    classes: tuple[int, ...] = ()


_FOOLBOX = ["hound", "folding_chair", "beaker", "buckeye", "strawberry", "thatch", "jeep", "jeep_2", "yurt",
            "bottlecap", "drum", "loafer", "prayer_rug", "cannon", "spoonbill", "geese", "dalmatian", "bald_eagle",
            "leafhopper", "dung_beetle"]  # fmt: skip
_FOOLBOX_CLASSES = [243, 559, 438, 990, 949, 853, 609, 609, 915, 455, 541, 630, 741, 471, 129, 99, 251, 22, 317, 305]

PICTURES = {
    "cat": Picture("skimage", "chelsea.png", (281, 282, 285)),
    "umbrella": Picture("drawn", "umbrella", (879,)),
    "mushroom": Picture("drawn", "mushroom", (947, 992)),
    **{
        name: Picture("foolbox", f"imagenet_{i:02d}_{index}.jpg", (index,))
        for i, (name, index) in enumerate(zip(_FOOLBOX, _FOOLBOX_CLASSES, strict=True))
    },
    "coffee": Picture("skimage", "coffee.png", (504, 967, 968)),
    "astronaut": Picture("skimage", "astronaut.png"),
    "rocket": Picture("skimage", "rocket.jpg", (657, 744)),
    "motorcycle": Picture("skimage", "motorcycle_left.png"),
}


def image_names() -> tuple[str, ...]:
    """The names `load_image` knows, the four subjects among them."""
    return tuple(PICTURES)


def load_image(name_or_path) -> np.ndarray:
    """Load a picture as uint8 RGB `(H, W, 3)`.

    A known name comes first, then a path (from the working directory; `~` is the home folder), then a file in
    `data/images/`. EXIF orientation is honoured; of several frames or pages the first is taken; colour profiles are
    ignored. Grey becomes RGB; transparency is laid over white; CMYK is converted as Pillow does; 16-bit grey is scaled
    by 1/257; 32-bit integers and floats are taken as 0..255 and clipped.

    Raises:
        PictureError: unknown name, missing, empty, truncated or unreadable file, no image, a directory, or more than
            `MOST_PIXELS` pixels.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise PictureError(f"a picture is a name or a path, not {name_or_path!r}")
    picture = PICTURES.get(str(name_or_path))
    if picture is None:
        return _read(_find(str(name_or_path)), str(name_or_path))
    if picture.package == "drawn":
        return SCENES[picture.file]().image
    # The package is found, not imported: foolbox takes seconds, scikit-image's data functions may download.
    folder = Path(importlib.util.find_spec(picture.package).origin).parent / "data"
    return _read(folder / picture.file, str(name_or_path))


def load_mask(name: str) -> np.ndarray:
    """The exact object mask of a drawn picture, bool `(H, W)`.

    Raises:
        PictureError: the picture is not a drawn one.
    """
    if name not in SCENES:
        raise PictureError(f"{name!r} has no object mask; drawn pictures have: {', '.join(SCENES)}")
    return SCENES[name]().mask


def prepare(image: np.ndarray, size: int, nearest: bool = False) -> np.ndarray:
    """Crop the central square, `size / (size + 32)` of the shorter side, and resize it to the network's input.

    This is how the embedded networks were evaluated; another crop gives other labels.

    Args:
        image: uint8 `(H, W, 3)`, or a bool mask `(H, W)` with `nearest`.
        size: side of the network's input in pixels.
        nearest: nearest neighbour instead of bicubic, for masks.

    Returns:
        float32 `(size, size, 3)` in 0..255, or a bool mask `(size, size)`.

    Raises:
        PictureError: not a picture of that shape.
    """
    image = np.asarray(image)
    expected = (2, "b") if nearest else (3, "u")
    if (image.ndim, image.dtype.kind) != expected or not image.size:
        wanted = "a bool mask (H, W)" if nearest else "a uint8 picture (H, W, 3)"
        raise PictureError(f"prepare takes {wanted}, not {image.dtype} of shape {image.shape}")
    height, width = image.shape[:2]
    side = size / (size + 32) * min(height, width)
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    resized = Image.fromarray(image.astype(np.uint8)).resize((size, size), method, box=box)
    return np.asarray(resized).astype(bool if nearest else np.float32)


def _find(name: str) -> Path:
    path = Path(name).expanduser()
    for candidate in (path, IMAGES_FOLDER / name):
        if candidate.exists():
            return candidate
    if path.suffix or len(path.parts) > 1:
        raise PictureError(f"no picture at {name!r}, nor in data/images/")
    own = [p.name for p in IMAGES_FOLDER.glob("*.*") if p.name != "README.md"]
    near = difflib.get_close_matches(name, [*PICTURES, *own], n=3, cutoff=0.4) or list(PICTURES)[:4]
    raise PictureError(f"no picture is called {name!r}; nearest: {', '.join(near)} (data.image_names() lists all)")


def _read(path: Path, name: str) -> np.ndarray:
    """Decode a file; `name` is what the user called it."""
    if path.is_dir():
        raise PictureError(f"{name!r} is a folder, not a picture")
    try:
        if not path.stat().st_size:
            raise PictureError(f"{name!r} is empty (0 bytes)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures and odd metadata; size is checked here
            with Image.open(path) as opened:
                width, height = opened.size
                if width * height > MOST_PIXELS:
                    most = f"at most {MOST_PIXELS // 10**6} million are read"
                    raise PictureError(f"{name!r} has {width} x {height} pixels; {most}: scale it down")
                return _to_rgb(ImageOps.exif_transpose(opened))
    except PictureError:
        raise
    except Image.UnidentifiedImageError:
        raise PictureError(f"{name!r} is not an image that Pillow can read") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name!r} is far too large when decoded (a decompression bomb?): scale it down") from None
    except PermissionError:
        raise PictureError(f"{name!r} cannot be read: permission denied") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise PictureError(f"{name!r} is damaged or cut short: {str(error).splitlines()[0]}") from None


def _to_rgb(image: Image.Image) -> np.ndarray:
    image.load()
    if image.mode.startswith("I;16"):
        return _grey(np.asarray(image).astype(np.float64) / 257)
    if image.mode in ("I", "F"):
        # PNG's 16-bit grey may arrive as 32-bit integers
        values = np.asarray(image).astype(np.float64)
        return _grey(values / 257 if image.format == "PNG" and image.mode == "I" else np.nan_to_num(values))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        image = Image.alpha_composite(white, clear)
    return np.asarray(image.convert("RGB"))


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(np.rint(values), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
