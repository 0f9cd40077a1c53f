"""Sanity checks: does a map change when what the network has learnt is destroyed?

Source: Adebayo et al., "Sanity checks for saliency maps" (NeurIPS 2018).
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from xai_utils import models
from xai_utils.engine import check_model, keras


def cascade(model: keras.Model) -> list[str]:
    """Paths of the layers that hold weights themselves, from the logits down to the pixels.

    That is the order of the cascade. Layers of a functional model are in the order in which it was
    built, others in the order of their attributes.

    Args:
        model: a Keras model.

    Returns:
        Paths of layers, such as `block5_conv4` or `outer/inner`.
    """
    # operations between the layers have no weights
    layers = {path: part for path, part in models.walk(model) if hasattr(part, "weights")}

    def own(path):
        inside = [layer for other, layer in layers.items() if other.startswith(f"{path}/")]
        return {id(weight) for weight in layers[path].weights} - {
            id(w) for layer in inside for w in layer.weights
        }

    return [path for path in layers if own(path)][::-1]


@contextlib.contextmanager
def randomised(model: keras.Model, names: Sequence[str], seed: int = 0) -> Iterator[keras.Model]:
    """Destroy what layers have learnt, and put their weights back at the end, whatever happens.

    Every weight tensor is shuffled: it keeps its values and loses their order, so that maps do not
    differ merely because weights are larger or smaller than they were. (The paper draws new values
    as before the training.) What a tensor gets depends on the seed and its place in the model, so a
    longer cascade contains a shorter one.

    Args:
        model: a Keras model; compiled techniques see the shuffled weights at once.
        names: names or paths of its layers, with all layers inside them.
        seed: of the shuffling.

    Yields:
        The model.

    Raises:
        ValueError: no such layer, or one without weights, which nothing would happen to.
    """
    check_model(model)
    place = {id(weight): number for number, weight in enumerate(model.weights)}
    chosen = {}
    for layer in (models.find_layer(model, name) for name in names):
        if not getattr(layer, "weights", None):
            raise ValueError(
                f"layer {layer.name!r} has no weights to randomise; these have:"
                f" {', '.join(cascade(model))}"
            )
        chosen |= {id(weight): weight for weight in layer.weights}
    before = [(weight, weight.numpy()) for weight in chosen.values()]
    try:
        for weight, values in before:
            rng = np.random.default_rng([seed, place[id(weight)]])
            weight.assign(rng.permutation(values.ravel()).reshape(values.shape))
        yield model
    finally:
        for weight, values in before:
            weight.assign(values)


def similarity(one, other) -> dict[str, float]:
    """How alike two maps `(h, w)` are: by ranks, by ranks of their sizes, and by structure.

    Args:
        one, other: maps `(h, w)`, any number type.

    Returns:
        `rank`: Spearman's correlation; `rank of sizes`: of the absolute values; `SSIM`: structural
        similarity (Wang et al. 2004) of the absolute values, each scaled to a maximum of 1, in a
        window of 7 pixels or what a small map has room for. All in -1..1. A map without any
        variation is like no other: 0.

    Raises:
        ValueError: maps of different shapes, or smaller than 3 x 3.
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    side = min(7, min(one.shape) - 1 + min(one.shape) % 2)
    if one.shape != other.shape or side < 3:
        raise ValueError(
            f"similarity compares maps of one shape, 3 x 3 at least, not {one.shape} and"
            f" {other.shape}"
        )
    sizes = [np.abs(values) / max(np.abs(values).max(), 1e-30) for values in (one, other)]
    varied = min(map(np.ptp, sizes)) > 0
    return {
        "rank": float(np.nan_to_num(rank_correlation(one, other))),
        "rank of sizes": rank_correlation(*sizes) if varied else 0.0,
        "SSIM": (
            float(structural_similarity(*sizes, win_size=side, data_range=1.0)) if varied else 0.0
        ),
    }


def rank_correlation(one, other, where=None) -> float:
    """Spearman's rank correlation of two maps `(h, w)`; nan where one of them is constant.

    Args:
        one, other: maps, any number type.
        where: bool `(h, w)`, the places that count; default all.

    Returns:
        -1..1, or nan.

    Raises:
        ValueError: maps of different shapes, or fewer than two places.

    Example:
        >>> rank_correlation([[1, 2], [3, 4]], [[10, 20], [30, 400]])
        1.0
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.shape != other.shape:
        raise ValueError(
            f"rank_correlation compares maps of one shape, not {one.shape} and {other.shape}"
        )
    where = np.ones(one.shape, bool) if where is None else np.asarray(where, bool)
    if where.sum() < 2:
        raise ValueError("rank_correlation needs at least two places to compare")
    a, b = one[where], other[where]
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
