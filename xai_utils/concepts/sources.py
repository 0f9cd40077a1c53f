"""Where a concept's pictures come from: folders, masks, and pieces of photographs for the others.

Drawn textures are in `pictures.textures`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xai_utils import pictures
from xai_utils.models import Classifier


def from_folders(classifier: Classifier, folder) -> dict[str, np.ndarray]:
    """Read concepts from a folder that holds a folder for each, as `tcav` takes them.

    A folder is called as its concept; pictures may lie deeper. Folders and files whose names begin
    with a dot are left out.

    Args:
        classifier: of `models.load_model`: it brings the pictures to its input.
        folder: path.

    Returns:
        Name to float32 pictures `(N, height, width, channels)` in 0..255, by name.

    Raises:
        ValueError: no such folder, none in it, or one without pictures.
        PictureError: a picture that cannot be read, or has other channels.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; it should hold a folder for each concept")
    found = {
        below.name: _pictures_in(below)
        for below in sorted(folder.iterdir())
        if below.is_dir() and not below.name.startswith(".")
    }
    if not found:
        raise ValueError(f"{folder} holds no folder; there should be one for each concept")
    for name, files in found.items():
        if not files:
            raise ValueError(f"{folder / name} holds no pictures ({' '.join(pictures.SUFFIXES)})")
    return {name: classifier.prepare(*map(str, files)) for name, files in found.items()}


def from_masks(images, masks, fill="mean") -> np.ndarray:
    """Pictures of which only the masked region is kept: a concept that lies somewhere.

    The same pictures with `~masks` show what lies around it.

    Args:
        images: `(N, H, W, C)`, any number type.
        masks: bool `(N, H, W)`, True where the concept is.
        fill: what takes the rest's place: `mean` (each picture's mean colour), `blur`, `random`,
            `black`, a pixel value, a colour `(C,)`, or pictures, N or one: another ground.

    Returns:
        `(N, H, W, C)` of floats.

    Raises:
        ValueError: masks of another type or shape, an empty one, or another filling.
    """
    images, masks = _with_masks(images, masks)
    return np.where(masks[..., None], images, pictures.filling(images, fill))


def around_masks(images, masks, size: int | tuple[int, int], margin: float = 0.1) -> np.ndarray:
    """Pieces of pictures around their masked regions, enlarged to one size.

    Args:
        images: pictures `(H, W, C)` of any sizes, any number type, or a batch of them.
        masks: a bool mask `(H, W)` for each, True where the concept is.
        size: height and width of what is returned, in pixels; one number for a square. A piece has
            this shape, so that nothing is stretched, unless the picture is too small for it.
        margin: kept on each side of the region, as a share of its longer side.

    Returns:
        float32 `(N, height, width, C)`, in the pictures' own range.

    Raises:
        ValueError: masks of another type, shape or number, an empty one, or a negative margin.
    """
    if not margin >= 0:
        raise ValueError(f"margin is a share of the region, 0 or more, not {margin}")
    if len(images) != len(masks):
        raise ValueError(f"there are {len(images)} pictures, but {len(masks)} masks")
    found = []
    for image, mask in zip(images, masks, strict=True):
        (image,), (mask,) = _with_masks([image], [mask])
        extents = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
        low, high = np.array([(places[0], places[-1] + 1) for places in extents]).T
        wanted = high - low + 2 * margin * (high - low).max()
        shape = np.broadcast_to(size, 2)
        sides = shape * (wanted / shape).max()
        found.append(_piece(image, (low + high) / 2 - sides / 2, sides, size))
    return np.stack(found)


def crops(
    images,
    count: int,
    size: int | tuple[int, int],
    seed: int = 0,
    share: tuple[float, float] = (0.3, 0.7),
) -> np.ndarray:
    """Draw pieces of photographs, many from few: what a concept's pictures are told from.

    Each photograph gives as many pieces as the others, or one more; half of them are mirrored.
    Pieces of one photograph are alike: many of them are no more photographs.

    Args:
        images: names or paths of pictures, pictures `(H, W, C)` of any sizes, or a batch of them.
        count: pieces, at least 1.
        size: height and width of what is returned, in pixels; one number for a square.
        seed: of what is drawn.
        share: least and greatest size of a piece: how much of the picture's extent it takes, the
            greatest piece of this shape being 1.

    Returns:
        float32 `(N, height, width, C)`, in the pictures' own range.

    Raises:
        ValueError: no picture, no piece, or shares that are not two numbers in their order, above 0
            and at most 1.
        PictureError: a picture that cannot be read, or is none.
    """
    low, high = share
    if not 0 < low <= high <= 1:
        raise ValueError(f"share is the least and the greatest, above 0 and at most 1, not {share}")
    if count < 1 or not len(images):
        raise ValueError(
            f"crops draws at least 1 piece, of at least 1 picture, not {count} of {len(images)}"
        )
    whole = [
        pictures.load_image(image) if isinstance(image, (str, Path)) else np.asarray(image)
        for image in images
    ]
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.arange(count) % len(whole))
    shape = np.broadcast_to(size, 2)
    found = []
    for which, (extent, *place), mirrored in zip(
        order, rng.random((count, 3)), rng.random(count) < 0.5, strict=True
    ):
        image = whole[which]
        largest = shape * (np.array(image.shape[:2]) / shape).min()
        sides = largest * (low + extent * (high - low))
        piece = _piece(image, np.array(place) * (image.shape[:2] - sides), sides, size)
        found.append(piece[:, ::-1] if mirrored else piece)
    return np.stack(found)


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in pictures.SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _with_masks(images: Sequence, masks: Sequence) -> tuple[np.ndarray, np.ndarray]:
    images, masks = np.asarray(images), np.asarray(masks)
    if images.ndim != 4 or masks.dtype != bool or masks.shape != images.shape[:3]:
        raise ValueError(
            "masks are bool (N, H, W), one for each of the pictures (N, H, W, C), not"
            f" {masks.dtype} {masks.shape} for {images.shape}"
        )
    if (empty := ~masks.any(axis=(1, 2))).any():
        raise ValueError(f"mask {empty.argmax()} is empty: there is nothing to keep of its picture")
    return images, masks


def _piece(image: np.ndarray, corner, sides, size) -> np.ndarray:
    """The part of a picture from a corner (row, column), moved inside it, at a size."""
    extent = np.array(image.shape[:2])
    sides = np.clip(np.round(sides).astype(int), 1, extent)
    top, left = np.clip(np.round(corner).astype(int), 0, extent - sides)
    return pictures.prepare(
        image[top : top + sides[0], left : left + sides[1]], size, resizing="stretch"
    )
