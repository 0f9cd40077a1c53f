"""Which training pictures made an answer: the last layer as ridge regression, in closed form."""

from typing import NamedTuple

import numpy as np

from xai_utils.concepts.codes import checked_layer, codes
from xai_utils.engine import check_images, keras
from xai_utils.models import fixed_target, is_dense, logits_of


class Influence(NamedTuple):
    """What each training picture did to the answers about other pictures.

    Attributes:
        effects: float64 `(M, N)`: the score of picture m with training picture n, less the score
            without it. Above 0 it helped, below 0 it harmed.
        scores: float64 `(M,)`: what the ridge regression says of the output that was asked for; it
            was taught 1 for the class and 0 for the others, or the values that were given.
        answers: float64 `(M, outputs)`: what it says of all, to be compared with the network's.
        outputs: int `(M,)`: which output was asked for.
        layer: whose codes it reads.
    """

    effects: np.ndarray
    scores: np.ndarray
    answers: np.ndarray
    outputs: np.ndarray
    layer: str


def influence(
    model: keras.Model,
    training,
    labels,
    images,
    target=None,
    layer: str | None = None,
    penalty: float = 0.01,
) -> Influence:
    """The effect of leaving each training picture out on the answers about other pictures.

    What is above the codes is replaced by ridge regression with an intercept: `W = B Z'Y`, `B =
    (Z'Z + penalty)^-1`. Without picture n it is `W - B z_n (y_n - z_n W) / (1 - z_n' B z_n)`,
    exactly what fitting it anew gives. The codes stay as they are: what a picture did to the layers
    below is not counted.
    Source: Cook, "Detection of influential observation in linear regression" (Technometrics 1977),
    here with a penalty. For whole networks Koh & Liang, "Understanding black-box predictions
    via influence functions" (ICML 2017), approximate what is exact here.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        training: the training pictures `(N, H, W, C)`, at least 2, in the model's pixel range.
        labels: their classes, int `(N,)`; or what each output should be, `(N, outputs)`, of a
            multilabel network or a regression.
        images: pictures `(M, H, W, C)` whose answers are asked about.
        target: None (the network's top class), a class index or name, or M of them.
        layer: name or path of a layer or operation that returns `(N, h, w, K)`, of which the mean
            over the places is taken, or `(N, K)`; default the one whose map is pooled or flattened
            before the head.
        penalty: above 0, in units of N times the mean variance of a channel, so that it means the
            same at every layer; it does not change when a picture is left out. Default 0.01.

    Returns:
        An `Influence`.

    Raises:
        ValueError: bad images, labels or target, a class that no training picture shows, an unknown
            layer or one without a code, codes that are all the same, a penalty not above 0.
    """
    batch = check_images(model, images)
    if callable(target) or is_dense(model):
        raise ValueError(
            f"influence asks for one output of {model.name} a picture: target is a class or None"
        )
    outputs = fixed_target(model, batch, target)[0].numpy()
    values = _wanted(model, training, labels)
    if (untaught := ~values.any(axis=0)[outputs]).any():
        raise ValueError(f"class {outputs[untaught][0]} is on none of the {len(values)} labels")
    layer = checked_layer(model, batch.shape, layer, places=False)
    seen = codes(model, training, layer)
    solved, outside = _ridge(seen, values, penalty)
    asked = _augmented(codes(model, batch, layer), seen)
    answers = asked @ (solved @ values)
    scores = answers[np.arange(len(outputs)), outputs]
    return Influence(asked @ solved * outside[:, outputs].T, scores, answers, outputs, layer)


def self_influence(
    model: keras.Model, training, labels, layer: str | None = None, penalty: float = 0.01
) -> np.ndarray:
    """The effect of each training picture on the answer about itself: what is known by heart.

    It is large where the other pictures would say something else: of a picture that is mislabelled,
    or unlike the others.
    Source: Koh & Liang (ICML 2017), section 5.4, there an approximation; see `influence`.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        training: the training pictures `(N, H, W, C)`, at least 2, in the model's pixel range.
        labels: their classes, int `(N,)`; or what each output should be, `(N, outputs)`.
        layer: as of `influence`.
        penalty: as of `influence`; default 0.01.

    Returns:
        float64 `(N,)`, not negative: how far the picture's own presence moves the outputs of the
        ridge regression, the length over all of them.

    Raises:
        ValueError: bad images or labels, an unknown layer or one without a code, codes that are all
            the same, a penalty not above 0.
    """
    values = _wanted(model, training, labels)
    seen = codes(model, training, layer)
    solved, outside = _ridge(seen, values, penalty)
    leverage = np.einsum("nk,kn->n", _augmented(seen, seen), solved)
    return leverage * np.linalg.norm(outside, axis=1)


def _wanted(model, training, labels) -> np.ndarray:
    """What the outputs should be for the training pictures, float64 `(N, outputs)`."""
    labels, count = np.asarray(labels), len(training)
    width = logits_of(model, training[:1]).shape[-1]
    if count < 2:
        raise ValueError(f"leaving one out needs at least 2 training pictures, not {count}")
    if labels.shape == (count, width) and np.isfinite(labels).all():
        return labels.astype(np.float64)
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or width < 2:
        raise ValueError(
            f"labels are {count} classes, or what the outputs should be ({count}, {width}); got"
            f" {labels.dtype} {labels.shape}"
        )
    if (wrong := labels[(labels < 0) | (labels >= width)]).size:
        raise ValueError(
            f"label {wrong[0]} is out of range: {model.name} has classes 0 to {width - 1}"
        )
    return np.eye(width)[labels]


def _augmented(found: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Codes less the mean of the training pictures', which costs no accuracy, and a one."""
    centred = found.astype(np.float64) - seen.mean(axis=0, dtype=np.float64)
    return np.column_stack([centred, np.ones(len(found))])


def _ridge(seen: np.ndarray, values: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """`B Z'`, `(K + 1, N)`, and what is wanted of each picture less what the others say of it."""
    if not 0 < penalty < np.inf:
        raise ValueError(f"penalty must be above 0 and finite, not {penalty}")
    spread = seen.var(axis=0, dtype=np.float64).mean()
    if not spread:
        raise ValueError("the codes of the training pictures are all the same")
    known = _augmented(seen, seen)
    weights = np.full(known.shape[1], penalty * len(seen) * spread)
    weights[-1] = 0  # the intercept is free
    solved = np.linalg.solve(known.T @ known + np.diag(weights), known.T)
    leverage = np.einsum("nk,kn->n", known, solved)
    return solved, (values - known @ (solved @ values)) / (1 - leverage)[:, None]
