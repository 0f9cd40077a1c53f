"""Attribution from the gradient of a score with respect to the pixels.

Every function has the signature `method(model, images, target=None, **settings) -> maps`; see `attribution`.
"""

import numpy as np

from xai_utils.backend import check_images, compiled, keras, tf
from xai_utils.targets import check_target, score


def pixel_gradient(model: keras.Model, images, target=None) -> np.ndarray:
    """The signed gradient of the score with respect to every pixel value.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), class index, N indices, or a callable `outputs -> (N,)`.

    Returns:
        float32 `(N, H, W, C)`, in logits per grey level for a model of pixels in 0..255.

    Raises:
        ValueError: bad images or target, or a score that does not depend on the pixels.
    """
    batch = check_images(model, images)
    indices, function = check_target(model, batch, target)
    run = compiled(model, _pixel_gradient, function=function)
    return run(batch, indices).numpy()


def saliency(model: keras.Model, images, target=None) -> np.ndarray:
    """Saliency map: the largest absolute gradient over the colour channels, `max_c |dS/dx|`.

    Source: Simonyan, Vedaldi & Zisserman, "Deep inside convolutional networks" (2014), section 3.1.

    Args, Raises: as `pixel_gradient`.

    Returns:
        float32 maps `(N, H, W)`, not negative, in logits per grey level.
    """
    batch = check_images(model, images)
    indices, function = check_target(model, batch, target)
    run = compiled(model, _saliency, function=function)
    return run(batch, indices).numpy()


def _pixel_gradient(model, images, indices, function):
    # Only the images are watched: gradients of weights would cost as much again and are not used.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        scores = score(model(images, training=False), indices, function)
    gradient = tape.gradient(scores, images)
    if gradient is None:
        raise ValueError(f"the score does not depend on the pixels of {model.name} through anything with a gradient")
    return gradient


def _saliency(model, images, indices, function):
    return tf.reduce_max(tf.abs(_pixel_gradient(model, images, indices, function)), axis=-1)
