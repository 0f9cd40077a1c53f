"""A classifier of any function from pictures to scores: PyTorch, scikit-learn, a web service."""

from collections.abc import Callable, Sequence

import numpy as np

from xai_utils.engine import forward, keras
from xai_utils.models import endings, foreign
from xai_utils.models.load import Classifier, classifier_of

GIVES = ("scores", "probabilities")


def black_box(
    function: Callable,
    size,
    labels: Sequence[str] | None = None,
    task: str | None = "classification",
    channels: int = 3,
    name: str = "black box",
    gives: str | None = None,
) -> Classifier:
    """A classifier that asks a function; techniques that need only scores explain it.

    Those are `layers.NEED_ONLY_SCORES`: there is no layer to read and no gradient.

    Args:
        function: from float32 pixels `(N, H, W, C)` in 0..255 to numbers `(N, classes)`, for every
            N; what it does to the pixels it does to a copy. `(N,)` for one number a picture.
        size: (height, width) of the pictures, or one side.
        labels: one name for each class; default `class 0`, `class 1`, ...
        task: what the numbers mean: `classification`, `multilabel` or `regression`.
        channels: of the pictures.
        name: what figures and messages call it.
        gives: `scores`, or `probabilities`, of which the logarithms (several exclusive classes) or
            logits (else) become the scores. Without it numbers that are never negative and sum to 1
            are probabilities, others scores, and numbers that are all within 0..1 otherwise must be
            told.

    Returns:
        A `Classifier`, its model float32 pixels in 0..255 to scores `(N, classes)`.

    Raises:
        ValueError: the function fails or does not return one row of finite numbers for each
            picture; bad labels, task, size or gives; numbers that may be either.
    """
    if gives not in (None, *GIVES):
        raise ValueError(f"gives is one of {', '.join(GIVES)}, not {gives!r}")
    shape = (*(2 * [size] if np.ndim(size) == 0 else size), channels)
    if len(shape) != 3 or not all(isinstance(n, (int, np.integer)) and n > 0 for n in shape):
        raise ValueError(
            f"size is (height, width) or one side, and channels a number; not {size!r},"
            f" {channels!r}"
        )
    model = foreign.model_of(function, tuple(map(int, shape)), name)
    noise = np.random.default_rng(0).uniform(0, 255, (4, *shape))
    numbers = forward(model, noise).numpy()
    exclusive = task == "classification" and numbers.shape[1] > 1
    within = (numbers >= 0).all() and (numbers <= 1 + 1e-6).all()
    summed = exclusive and np.allclose(numbers.sum(1), 1, atol=1e-3)
    if gives == "probabilities" and task == "regression":
        raise ValueError(f"{name}: a regression gives values, not probabilities")
    if gives == "probabilities" and not (within and (summed or not exclusive)):
        raise ValueError(
            f"{name} gives numbers from {numbers.min():.3g} to {numbers.max():.3g} that are no"
            f" probabilities{' of exclusive classes: they do not sum to 1' if within else ''}"
        )
    if gives is None and within and not summed and task != "regression":
        raise ValueError(
            f"{name} gives numbers within 0..1: say gives={' or gives='.join(map(repr, GIVES))}"
        )
    if gives == "probabilities" or (gives is None and summed):
        model = endings.undone(model, "softmax" if exclusive else "sigmoid")
    return _labelled(model, labels, task, name)


def _labelled(model: keras.Model, labels, task: str | None, name: str) -> Classifier:
    found = endings.Ending(model, "linear")
    found, task = endings.with_task(found, model, task, labels is not None, name)
    return classifier_of(name, found.model, labels, task, found.function)
