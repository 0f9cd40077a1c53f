"""Examples: pictures whose codes are like a picture's, and examples that stand for many."""

import csv
import hashlib
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel
from sklearn.neighbors import NearestNeighbors

from xai_utils.concepts.codes import checked_layer, codes
from xai_utils.engine import DATA_FOLDER, check_images, in_parts, keras, written_whole
from xai_utils.models import Classifier, fingerprint
from xai_utils.pictures import IMAGES_FOLDER, PICTURES, SUFFIXES, PictureError, load_image

FOLDER = DATA_FOLDER.parent / "reports" / "build" / "codes"
METRICS = ("cosine", "euclidean")
AT_ONCE = 32  # pictures that are read before their codes are computed


class Index(NamedTuple):
    """The codes of pictures, for `similar`.

    Attributes:
        codes: float32 `(N, K)`, means over the layer's places.
        names: of the pictures, N names or paths.
        network: what tells the network from others, of its weights.
        layer: whose codes they are.
    """

    codes: np.ndarray
    names: tuple[str, ...]
    network: str
    layer: str


class Neighbours(NamedTuple):
    """The pictures of an index that are nearest to each of N pictures, nearest first.

    Attributes:
        numbers: int `(N, count)`, places in the index.
        distances: float64 `(N, count)`: 1 less the cosine, 0 to 2, or Euclid's, in units of the
            layer.
        names: N tuples of their names.
    """

    numbers: np.ndarray
    distances: np.ndarray
    names: tuple[tuple[str, ...], ...]


class Examples(NamedTuple):
    """Pictures that stand for a set, of `prototypes`; places in it.

    Attributes:
        prototypes: int `(count,)`, together most like the whole set, the first alone the most.
        criticisms: int `(criticisms,)`, where the prototypes tell least of the set.
        distance: of prototypes and set, the squared maximum mean discrepancy, from 0.
        by_chance: float64 `(100,)`, the distances of as many pictures drawn by chance.
    """

    prototypes: np.ndarray
    criticisms: np.ndarray
    distance: float
    by_chance: np.ndarray


def index_of(
    classifier: Classifier,
    source: Sequence[str] | str | Path,
    layer: str | None = None,
    folder: Path | None = None,
    progress: Callable | None = None,
) -> Index:
    """The codes of many pictures, read a few at a time; what was computed before is fetched.

    Codes are kept by the content of picture, network and layer, one file for each network, layer
    and way of preparing pictures: a picture that changed, or a network, has another code.

    Args:
        classifier: of `load_model`.
        source: names and paths of pictures; or the path of a folder, of whose pictures all are
            taken, however deep; or that of a CSV file with a column `path`, a manifest of
            `make evaluate`.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`, tokens that are a
            grid of places, or `(N, K)`; default the one whose map is pooled or flattened before the
            head.
        folder: where codes are kept; default `reports/build/codes`.
        progress: called as `(done, all)`.

    Returns:
        An `Index`, in the order of the source.

    Raises:
        ValueError: no pictures, no such folder or file, a CSV file without `path`; an unknown
            layer, one without a code, or codes that are not finite; a picture that cannot be read.
    """
    names = listed(source)
    model = classifier.model
    layer = checked_layer(model, (1, *classifier.input_size, classifier.channels), layer, False)
    network = fingerprint(model)
    prepared = classifier.input_size, classifier.resizing, classifier.value_range
    way = f"{network} {layer} {prepared}"
    path = (folder or FOLDER) / f"{hashlib.sha256(way.encode()).hexdigest()[:24]}.npz"
    known, keys, new = _read(path), [], 0
    for part in in_parts(names, AT_ONCE):
        of_part = [_content(name) for name in part]
        missing = {key: name for key, name in zip(of_part, part, strict=True) if key not in known}
        if missing:
            batch = classifier.prepare(*missing.values())
            known.update(zip(missing, codes(model, batch, layer), strict=True))
            new += len(missing)
        keys += of_part
        if progress:
            progress(len(keys), len(names))
    if new:
        with suppress(OSError):  # a folder nobody can write to: keep nothing
            _write(path, known)
    return Index(np.stack([known[key] for key in keys]), tuple(names), network, layer)


def similar(
    model: keras.Model, images, index: Index, count: int = 5, metric: str = "cosine"
) -> Neighbours:
    """The pictures of an index whose codes are nearest to those of pictures.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs; the one of the index.
        images: one batch, any number type, in the model's pixel range.
        index: of `index_of`, for this network.
        count: how many; a picture that is in the index itself is the first, at distance 0.
        metric: `cosine`, which minds the direction of a code, or `euclidean`, its length too.

    Returns:
        `Neighbours`.

    Raises:
        ValueError: bad images, an index of another network, an unknown metric, or more neighbours
            than pictures.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is one of {', '.join(METRICS)}, not {metric!r}")
    if not 1 <= count <= len(index.names):
        raise ValueError(f"an index of {len(index.names)} pictures has no {count} neighbours")
    batch = check_images(model, images)
    if (network := fingerprint(model)) != index.network:
        raise ValueError(
            f"the index holds codes of another network ({index.network[:8]}, {model.name} is"
            f" {network[:8]}): make one with index_of"
        )
    nearest = NearestNeighbors(n_neighbors=count, metric=metric).fit(index.codes)
    distances, numbers = nearest.kneighbors(codes(model, batch, index.layer))
    names = tuple(tuple(index.names[n] for n in row) for row in numbers)
    return Neighbours(numbers, distances.astype(np.float64), names)


def prototypes(
    found, count: int = 4, criticisms: int = 4, gamma: float | None = None, seed: int = 0
) -> Examples:
    """MMD-critic: examples that stand for a set, and those that they do not tell of.

    Prototypes are added one by one, each the one that brings `MMD^2`, the squared distance of the
    means of prototypes and set under a Gaussian kernel, down most; criticisms are where the two
    densities differ most, `|mean k(x, set) - mean k(x, prototypes)|`, and unlike each other (the
    log determinant of their kernel).
    Source: Kim et al., "Examples are not enough, learn to criticize!" (NeurIPS 2016), equations 2
    to 4 and algorithm 1.

    Args:
        found: codes of the set, such as a class's, `(N, K)`.
        count: prototypes.
        criticisms: how many, none of them a prototype.
        gamma: of the kernel `exp(-gamma |x - y|^2)`; default 1 over the median squared distance.
        seed: of the sets drawn by chance, that are the floor.

    Returns:
        `Examples`.

    Raises:
        ValueError: not `(N, K)` finite numbers, fewer of them than examples asked for, or all the
            same.
    """
    found = np.asarray(found, np.float64)
    if found.ndim != 2 or not found.size or not np.isfinite(found).all():
        raise ValueError(f"codes are (N, K) finite numbers, got shape {found.shape}")
    if not (count >= 1 and criticisms >= 0 and count + criticisms <= len(found)):
        raise ValueError(
            f"{len(found)} pictures have no {count} prototypes and {criticisms} criticisms"
        )
    kernel = _kernel(found, gamma)
    to_set, chosen = kernel.mean(axis=1), []
    for size in range(1, count + 1):
        between = (to_set[chosen].sum() + to_set) / size
        within = kernel[np.ix_(chosen, chosen)].sum() + 2 * kernel[:, chosen].sum(axis=1)
        left = (within + kernel.diagonal()) / size**2 - 2 * between  # of each, if it came next
        left[chosen] = np.inf
        chosen.append(int(np.argmin(left)))
    witness = np.abs(to_set - kernel[:, chosen].mean(axis=1))
    critics = []
    for _ in range(criticisms):
        free = [i for i in range(len(found)) if i not in chosen + critics]
        apart = [np.linalg.slogdet(kernel[np.ix_(c, c)])[1] for c in ([*critics, i] for i in free)]
        critics.append(free[int(np.argmax(witness[free] + apart))])
    rng = np.random.default_rng(seed)
    drawn = [_mmd(kernel, rng.choice(len(found), count, replace=False)) for _ in range(100)]
    return Examples(np.array(chosen), np.array(critics, int), _mmd(kernel, chosen), np.array(drawn))


def listed(source: Sequence[str] | str | Path) -> list[str]:
    """Names and paths of the pictures of a source.

    Args:
        source: names and paths; the path of a folder; or that of a CSV file with a column `path`.

    Returns:
        Names and paths; those of a folder sorted.

    Raises:
        ValueError: none, no such folder or file, or a file without the column.
    """
    if not isinstance(source, str | Path):
        names = [str(name) for name in source]
    elif (path := Path(source).expanduser()).is_dir():
        found = (f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES)
        seen = (f for f in found if not any(part[0] == "." for part in f.relative_to(path).parts))
        names = sorted(map(str, seen))
    elif path.is_file():
        names = _of_table(path)
    else:
        raise ValueError(f"no folder and no file at {str(source)!r}")
    if not names:
        raise ValueError(f"no pictures in {str(source)!r}")
    return names


def _of_table(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = [row["path"].strip() for row in csv.DictReader(file, skipinitialspace=True)]
    except (UnicodeDecodeError, csv.Error, KeyError, AttributeError):
        raise ValueError(f"{path.name} is not a CSV file with a column path") from None
    files = (str(path.parent / Path(name).expanduser()) for name in names)
    return [name if name in PICTURES else file for name, file in zip(names, files, strict=True)]


def _content(name: str) -> str:
    """A digest of a picture: of its file, or of its pixels if it has a name."""
    files = [] if name in PICTURES else [Path(name).expanduser(), IMAGES_FOLDER / name]
    found = next(filter(Path.is_file, files), None)
    if found is None:
        return hashlib.sha256(load_image(name).tobytes()).hexdigest()
    try:
        with found.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PictureError(f"{name!r} cannot be read: {error.strerror}") from None


def _read(path: Path) -> dict[str, np.ndarray]:
    """Codes by the digests of their pictures; none where there is no whole file."""
    bad = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
    with suppress(*bad), np.load(path, allow_pickle=False) as kept:
        return dict(zip(kept["keys"].tolist(), kept["codes"], strict=True))
    return {}


def _write(path: Path, known: dict[str, np.ndarray]) -> None:
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, keys=np.array([*known]), codes=np.stack([*known.values()]))


def _kernel(found: np.ndarray, gamma: float | None) -> np.ndarray:
    if gamma is None:
        apart = euclidean_distances(found, squared=True)
        middle = np.median(apart[np.triu_indices(len(found), 1)])
        if not middle:
            raise ValueError(f"half of the {len(found)} codes or more are the same: give gamma")
        gamma = 1 / middle
    return rbf_kernel(found, gamma=gamma)


def _mmd(kernel: np.ndarray, chosen) -> float:
    """Squared distance of the means of the chosen and of all."""
    between, within = kernel[:, chosen].mean(), kernel[np.ix_(chosen, chosen)].mean()
    return float(kernel.mean() - 2 * between + within)
