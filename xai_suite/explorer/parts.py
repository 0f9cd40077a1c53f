"""The parts and neighbours of a picture, which the explorer shows beside its maps on request."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics.pairwise import cosine_similarity

from xai_utils import concepts
from xai_utils.concepts import Factors
from xai_utils.engine import first_line
from xai_utils.models import Classifier
from xai_utils.pictures import PictureError

FACTORS, SHOWN = 5, 4  # that the crops are sums of, and the most important of them that are shown
GRID, SAMPLES = 6, 32  # crops along each side, and points in each of the sets of the importance
BEST = 2  # crops of each factor, of the picture and of others each
LEAST = 0.01  # of the most in the picture, that another must have of a factor to be shown
NEAREST = 2 * BEST + 1  # pictures, as many as a factor's row has tiles


@dataclass(frozen=True)
class Others:
    """The pictures that are searched; M of those offered, which the network can read.

    Attributes:
        names: M names.
        images: prepared, `(M, H, W, C)`.
        codes: of their places, `(M, h, w, K)`.
        layer: whose codes they are.
        refused: why the first that cannot be read is not among them; empty if all are.
    """

    names: tuple[str, ...]
    images: np.ndarray
    codes: np.ndarray
    layer: str | None
    refused: str = ""


@dataclass(frozen=True)
class Elsewhere:
    """A place of another picture that has much of a factor.

    Attributes:
        name: of the picture.
        crop: the place, `(crop, crop, C)`.
        share: how much of the factor is there, of the most that the explained picture has: 1 for
            as much.
    """

    name: str
    crop: np.ndarray
    share: float


@dataclass(frozen=True)
class Near:
    """A near picture.

    Attributes:
        name: of the picture.
        image: prepared, `(H, W, C)`.
        similarity: the cosine of both codes, -1 to 1.
    """

    name: str
    image: np.ndarray
    similarity: float


@dataclass(frozen=True)
class Parts:
    """A picture's parts and neighbours.

    Attributes:
        seen: the picture, `(H, W, C)`.
        layer: whose codes are read.
        searched: how many other pictures were.
        factors: of the crops of this one picture, the most important first; None for none.
        crops: how many these are.
        maps: how much of each factor is where, `(h, w, R)`.
        held: share of the squares of the picture's map that the factors make up, 0 to 1.
        elsewhere: for each factor the places with most of it, one a picture.
        nearest: the nearest pictures, nearest first.
        missing: a line each for what there is not, and why.
    """

    seen: np.ndarray
    layer: str
    searched: int
    factors: Factors | None = None
    crops: int = 0
    maps: np.ndarray | None = None
    held: float = 0.0
    elsewhere: tuple[tuple[Elsewhere, ...], ...] = ()
    nearest: tuple[Near, ...] = ()
    missing: tuple[str, ...] = ()


def read_others(classifier: Classifier, names: Sequence[str], layer: str | None = None) -> Others:
    """Those of the pictures that this network can read, with their codes.

    Args:
        names: of the pictures.
        layer: whose codes are read; default the last one that computes features.

    Raises:
        ValueError: a layer without codes, or codes that are not finite.
    """
    layer = layer or classifier.conv_layer
    read, refused = {}, ""
    for name in names:
        try:
            read[name] = classifier.prepare(name)[0]
        except (PictureError, ValueError) as error:  # of other channels, or a file that is gone
            refused = refused or first_line(error)
    if not read:
        empty = np.zeros((0, *classifier.input_size, classifier.channels), np.float32)
        return Others((), empty, np.zeros((0, 0, 0, 0), np.float32), layer, refused)
    images = np.stack([*read.values()])
    codes = concepts.codes(classifier.model, images, layer, places=True)
    return Others(tuple(read), images, codes, layer, refused)


def find_parts(
    classifier: Classifier, seen: np.ndarray, target: int, others: Others, name: str = ""
) -> Parts:
    """The strongest factors of a picture for a class, and the pictures that are nearest to it.

    Factors are those of the crops of this picture alone (`concepts.craft`): the pictures that the
    explorer offers are of many classes, and crops of different classes have one factor a picture.
    What is not possible, such as factors of a layer with negative values, is said in `missing`.

    Args:
        seen: the picture, `(H, W, C)`, prepared.
        target: class whose score the factors' importance is of.
        others: pictures to search for near ones and for the factors, at the layer that is read.
        name: of the picture; the one of this name is not among the others.

    Raises:
        ValueError: a layer without codes, or codes that are not finite.
    """
    code = concepts.codes(classifier.model, seen[None], others.layer, places=True)[0]
    others = _without(others, name)
    made, missing = {}, []
    if others.names:
        made["nearest"] = _nearest(code, others)
    else:
        reason = f" ({others.refused})" if others.refused else ""
        missing.append(f"no neighbours: {classifier.name} has no other picture to search{reason}")
    try:
        made |= _factors(classifier, seen, code, target, others)
    except ValueError as error:
        missing.append(f"no factors: {first_line(error)}")
    return Parts(seen, others.layer, len(others.names), missing=tuple(missing), **made)


def _without(others: Others, name: str) -> Others:
    kept = [n for n, other in enumerate(others.names) if other != name]
    names = tuple(others.names[n] for n in kept)
    return replace(others, names=names, images=others.images[kept], codes=others.codes[kept])


def _nearest(code, others: Others) -> tuple[Near, ...]:
    cosines = cosine_similarity(code.mean((0, 1))[None], others.codes.mean((1, 2)))[0]
    nearest = np.argsort(-cosines, kind="stable")[:NEAREST]
    return tuple(Near(others.names[n], others.images[n], float(cosines[n])) for n in nearest)


def _factors(classifier, seen, code, target, others: Others) -> dict:
    count = min(FACTORS, code.shape[-1])
    sizes = {"grid": GRID, "samples": SAMPLES, "best": BEST}
    found = concepts.craft(classifier.model, seen[None], target, count, others.layer, **sizes)
    maps = concepts.factor_amounts(code, found.vectors)
    left = np.square(code - maps @ found.vectors).sum() / np.square(code).sum()
    elsewhere = ()
    if others.names:
        in_others = concepts.factor_amounts(others.codes, found.vectors)
        elsewhere = tuple(
            _elsewhere(in_others[..., r], others, found.crop, float(maps[..., r].max()))
            for r in range(count)
        )
    crops = math.prod(min(GRID, extent - found.crop + 1) for extent in seen.shape[:2])
    held = float(1 - left)
    return dict(factors=found, crops=crops, maps=maps, held=held, elsewhere=elsewhere)


def _elsewhere(maps, others: Others, crop, most) -> tuple[Elsewhere, ...]:
    """Where a factor is in other pictures; nowhere if the picture itself has none of it."""
    if not most:
        return ()
    cut, places = concepts.highest_crops(maps, others.images, min(BEST, len(maps)), crop)
    shares = maps.max(axis=(1, 2)) / most
    return tuple(
        Elsewhere(others.names[n], part, float(shares[n]))
        for part, n in zip(cut, places[:, 0], strict=True)
        if shares[n] >= LEAST
    )
