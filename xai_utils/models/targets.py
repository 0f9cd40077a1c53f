"""What is explained: a target turns a model's outputs into one score for each image.

A class becomes an index for each image. Where a model answers at every pixel, what is asked for
becomes a class for each place of its output (see `dense`); both go to compiled code as tensors, so
that another class or another mask is not traced anew.
"""

from collections.abc import Callable

import numpy as np

from xai_utils.engine import check_images, forward, in_parts, keras, tf
from xai_utils.models import dense, shapes
from xai_utils.models.endings import probabilities
from xai_utils.models.labels import model_class

PICTURES_AT_ONCE = 64  # in one pass of `logits_of`
TOP = -1  # stands for the top class in a tensor of class indices


def check_target(
    model: keras.Model, images: tf.Tensor, target
) -> tuple[tf.Tensor, Callable | None]:
    """Turn a target into class indices and, if it is one, a callable.

    Args:
        model: a Keras model.
        images: the batch `(N, H, W, C)`, of which the shape counts.
        target: None (each image's top class); a class index or name; N of them; or a callable from
            the model's outputs to scores `(N,)`, such as the difference of two classes. Names need
            a model of `load_model`. Of a model that returns `(N, h, w, classes)`: a `region`,
            `pixel` or `component`; a class, for all places that the model gives it; or None, for
            the class of most places (of values at every pixel, their mean).

    Returns:
        int32 indices `(N,)`, `TOP` where the top class is meant; and the callable or None. Of a
        model that returns `(N, h, w, classes)` the indices are those of `dense.places_of`.

    Raises:
        ValueError: an index out of range, an unknown name, a wrong number of either, a model that
            does not return one `(N, classes)` tensor, without a callable to choose from what it
            returns; or what `dense.places_of` finds wrong.
    """
    count = int(images.shape[0])
    top = np.full(count, TOP, np.int32)
    if callable(target) and not isinstance(target, dense.ASKED):
        return tf.constant(top), target
    _, outputs = shapes.traced_shapes(model, images.shape)
    if isinstance(outputs, tuple) and len(outputs) == 4:
        return dense.places_of(model, images, target), None
    if isinstance(target, dense.ASKED):
        raise ValueError(
            f"{model.name} returns {outputs}, one answer a picture: {target} is for a model that"
            " answers at every pixel"
        )
    if not (isinstance(outputs, tuple) and len(outputs) == 2 and outputs[0] is None):
        raise ValueError(
            f"{model.name} returns {outputs}, not one (N, classes) tensor: give target= as a"
            " callable on it"
        )
    if target is None:
        return tf.constant(top), None
    indices = np.asarray(target)
    if indices.dtype.kind == "U" and indices.shape in ((), (count,)):
        indices = np.reshape(
            [model_class(model, str(name)) for name in indices.flat], indices.shape
        )
    if indices.dtype.kind not in "iu" or indices.shape not in ((), (count,)):
        raise ValueError(
            f"target must be None, a class, {count} classes (one an image) or a callable, not"
            f" {target!r}"
        )
    if np.any((indices < 0) | (indices >= outputs[1])):
        raise ValueError(
            f"target {target!r} is out of range: {model.name} has classes 0 to {outputs[1] - 1}"
        )
    return tf.constant(np.broadcast_to(indices, count), tf.int32), None


def fixed_target(
    model: keras.Model, images: tf.Tensor, target
) -> tuple[tf.Tensor, Callable | None]:
    """Turn a target into class indices, the top class looked up on these images, and a callable.

    Changed copies of the images are then asked for the same class.

    Args:
        model: a Keras model.
        images: the batch, a tensor `(N, H, W, C)` of `check_images`.
        target: None (each image's top class); a class index or name; N of them; or a callable from
            the model's outputs to scores `(N,)`. Names need a model of `load_model`. See
            `check_target` for models that answer at every pixel.

    Returns:
        int32 class indices `(N,)`, `TOP` with a callable; and the callable or None. Of a model that
        returns `(N, h, w, classes)` the indices are those of `dense.places_of`.

    Raises:
        ValueError: an index out of range, an unknown name, a wrong number of either, or a model
            that does not return one `(N, classes)` tensor, without a callable to choose from what
            it returns.
    """
    indices, function = check_target(model, images, target)
    if function is None and target is None and len(indices.shape) == 1:
        indices = target_classes(forward(model, images), indices)
    return indices, function


def score(outputs, indices: tf.Tensor, function: Callable | None) -> tf.Tensor:
    """Scores of a batch, from what a model returned for it; for compiled code.

    Args:
        outputs: logits `(N, classes)`, or any structure that the callable takes.
        indices: int32 `(N,)` of `check_target` or `fixed_target`: class indices, or `TOP`; or the
            classes of places, `(N, 2, h, w)`.
        function: None, or a callable from the outputs to scores `(N,)`.

    Returns:
        Tensor `(N,)`, of the outputs' type.

    Raises:
        ValueError: the callable did not return one number for each image.
    """
    if function is None and len(indices.shape) > 1:
        return dense.mean_score(outputs, indices)
    if function is None:
        return tf.gather(outputs, target_classes(outputs, indices), batch_dims=1)
    scores = function(outputs)
    if not tf.is_tensor(scores) or not scores.shape.is_compatible_with(indices.shape):
        got = getattr(scores, "shape", type(scores).__name__)
        raise ValueError(
            "the target callable must return one score for each image, shape"
            f" ({indices.shape[0]},); got {got}"
        )
    return scores


def scores(
    model: keras.Model,
    images: tf.Tensor,
    indices: tf.Tensor,
    function: Callable | None,
    probability: bool = False,
) -> tf.Tensor:
    """Scores of images, in one pass; for compiled code.

    Args:
        model: a Keras model.
        images: tensor `(N, H, W, C)` of `float_type`.
        indices: int32 `(N,)` of `check_target` or `fixed_target`: class indices, or `TOP`; or the
            classes of places, `(N, 2, h, w)`.
        function: None, or a callable from the outputs to scores `(N,)`.
        probability: without a callable, probabilities of the class instead of logits.

    Returns:
        Tensor `(N,)`, float32 or wider.

    Raises:
        ValueError: the callable did not return one number for each image.
    """
    outputs = outputs_of(model, images)
    if probability and function is None:
        outputs = probabilities(model, outputs)
    return score(outputs, indices, function)


def outputs_of(model: keras.Model, images: tf.Tensor):
    """What a model returns; in a traced function, without tracing it anew for every target.

    Args:
        model: a Keras model.
        images: tensor `(N, H, W, C)` in the model's pixel range.

    Returns:
        The outputs in their structure, such as logits `(N, classes)`, float32 or wider.
    """
    outputs = forward(model, images)
    for output in tf.nest.flatten(outputs):
        # a callable may rely on it
        output.set_shape(images.shape[:1].concatenate(output.shape[1:]))
    return outputs


def target_classes(logits, indices: tf.Tensor) -> tf.Tensor:
    """The classes that are meant, with `TOP` replaced by each image's top class.

    Args:
        logits: `(N, classes)`.
        indices: int32 `(N,)`: class indices, or `TOP`.

    Returns:
        int32 `(N,)`.

    Example:
        >>> target_classes([[0.1, 0.9], [0.1, 0.9]], tf.constant([TOP, 0])).numpy().tolist()
        [1, 0]
    """
    return tf.where(indices == TOP, tf.argmax(logits, axis=1, output_type=tf.int32), indices)


def logits_of(model: keras.Model, images) -> np.ndarray:
    """Logits of any number of pictures, some dozens at a time.

    Args:
        model: a Keras model that returns one tensor.
        images: one batch `(N, H, W, C)`, any number type, in the model's pixel range.

    Returns:
        `(N, classes)`, or `(N, h, w, classes)`, float32 or wider.

    Raises:
        ValueError: bad images; see `check_images`.
    """
    parts = in_parts(images, PICTURES_AT_ONCE)
    return np.concatenate([forward(model, check_images(model, part)).numpy() for part in parts])
