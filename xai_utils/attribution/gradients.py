"""Attribution from the gradient of a score with respect to the pixels.

Every function has the signature `method(model, images, target=None, **settings) -> maps`; see
`attribution`. Signed techniques add up the channels; those that only know sizes take the largest of
them.
"""

from numbers import Real

import numpy as np

from xai_utils.engine import (
    check_images,
    compiled,
    in_float32,
    in_parts,
    keras,
    no_gradient,
    pixel_range,
    tf,
)
from xai_utils.models import NEED_ONLY_SCORES, check_target, fixed_target, scores
from xai_utils.pictures import covers_for

PASSES_AT_ONCE = (
    16  # noisy or interpolated copies in one batch: enough to fill the processor, memory stays flat
)

ANOTHER_BASELINE = "try another baseline, or "  # for pictures without a finite map


def pixel_gradient(model: keras.Model, images, target=None) -> np.ndarray:
    """The signed gradient of the score with respect to every pixel value.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.

    Returns:
        float32 `(N, H, W, C)`, in logits per grey level for a model of pixels in 0..255.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, or a map that
            is not finite.
    """
    batch, indices, function = _checked(model, images, target)
    return finite(compiled(model, _pixel_gradient, function=function)(batch, indices), model)


def saliency(model: keras.Model, images, target=None) -> np.ndarray:
    """Saliency map: the largest absolute gradient over the colour channels, `max_c |dS/dx|`.

    Source: Simonyan, Vedaldi & Zisserman, "Deep inside convolutional networks" (2014), section 3.1.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.

    Returns:
        float32 maps `(N, H, W)`, not negative, in logits per grey level.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, or a map that
            is not finite.
    """
    batch, indices, function = _checked(model, images, target)
    return finite(compiled(model, _saliency, function=function)(batch, indices), model)


def gradient_x_input(model: keras.Model, images, target=None) -> np.ndarray:
    """Gradient times pixel value, added up over the channels: `sum_c x dS/dx`.

    On a network of ReLUs without biases the map adds up to the score itself.
    Source: Shrikumar, Greenside & Kundaje, "Learning important features" (2017), section 2.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.

    Returns:
        float32 maps `(N, H, W)`, signed, in logits.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, or a map that
            is not finite.
    """
    batch, indices, function = _checked(model, images, target)
    return finite(compiled(model, _gradient_x_input, function=function)(batch, indices), model)


def smooth_grad(
    model: keras.Model,
    images,
    target=None,
    samples: int = 32,
    noise: float = 0.1,
    input_range: float | None = None,
    seed=0,
) -> np.ndarray:
    """SmoothGrad: the mean gradient over noisy copies, its largest size over the channels.

    `max_c |mean_i dS/dx (x + e_i)|`, each `e_i` Gaussian noise.
    Source: Smilkov et al., "SmoothGrad" (2017), section 3.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
            The top class is that of the image without noise.
        samples: noisy copies of each image.
        noise: standard deviation of the noise as a fraction of `input_range`; 0 gives `saliency`.
        input_range: difference between the largest and smallest possible pixel value; default that
            of the model, see `engine.pixel_range`.
        seed: of the noise.

    Returns:
        float32 maps `(N, H, W)`, not negative, in logits per grey level.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, no samples,
            negative noise or range, or a map that is not finite.
    """
    mean, _ = _noisy_moments(model, images, target, samples, noise, input_range, seed)
    return np.abs(mean).max(axis=-1)


def var_grad(
    model: keras.Model,
    images,
    target=None,
    samples: int = 32,
    noise: float = 0.1,
    input_range: float | None = None,
    seed=0,
) -> np.ndarray:
    """VarGrad: the variance of the gradient over noisy copies, its largest over the channels.

    `max_c var_i dS/dx (x + e_i)`, each `e_i` Gaussian noise.
    Source: Adebayo et al., "Local explanation methods for deep neural networks lack sensitivity"
    (2018), section 2.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
            The top class is that of the image without noise.
        samples: noisy copies of each image, at least 2.
        noise: standard deviation of the noise as a fraction of `input_range`.
        input_range: difference between the largest and smallest possible pixel value; default that
            of the model, see `engine.pixel_range`.
        seed: of the noise.

    Returns:
        float32 maps `(N, H, W)`, not negative, in (logits per grey level) squared.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, fewer than 2
            samples, negative noise or range, or a map that is not finite.
    """
    if samples < 2:
        raise ValueError(f"var_grad needs at least 2 samples to have a variance, not {samples}")
    _, variance = _noisy_moments(model, images, target, samples, noise, input_range, seed)
    return variance.max(axis=-1)


def integrated_gradients(
    model: keras.Model,
    images,
    target=None,
    steps: int = 32,
    baseline="black",
    seed=0,
    return_gap: bool = False,
):
    """Integrated gradients: `(x - x') * integral of dS/dx` on the way from x' to x.

    The path is straight; the integral is taken by the midpoint rule. The map adds up to
    `S(x) - S(x')`; how far it misses is the completeness gap.
    Source: Sundararajan, Taly & Yan, "Axiomatic attribution for deep networks" (ICML 2017),
    equation 1.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
            The top class is that of the image, all along the path.
        steps: points on the path.
        baseline: where the path begins: `black` and `white` (the model's lowest and highest pixel
            value), `mean` (each image's mean colour), `blur` (the image blurred beyond
            recognition), `random` (uniform noise in the image's range), a value, a colour or
            images.
        seed: of the baseline `random`.
        return_gap: also return the completeness gap.

    Returns:
        float32 maps `(N, H, W)`, signed, in logits; with `return_gap` also `(N,)`: the sum of the
        map minus `S(x) - S(x')`, in logits.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, no steps, an
            unknown baseline, or a map that is not finite.
    """
    if steps < 1:
        raise ValueError(f"integrated_gradients needs at least 1 step, not {steps}")
    batch, indices, function = _checked(model, images, target, fixed=True)
    start = covers_for(model, batch, baseline, seed)
    run = compiled(model, _path_gradient, function=function)
    fractions = tf.constant((np.arange(steps) + 0.5) / steps, batch.dtype)
    total = sum(
        run(batch, indices, start, part)
        for part in in_parts(fractions, PASSES_AT_ONCE // len(batch))
    )
    maps = tf.reduce_sum((batch - start) * total / steps, axis=-1)
    found = finite(maps, model, ANOTHER_BASELINE)
    if not return_gap:
        return found
    run = compiled(model, scores, function=function)
    gap = tf.reduce_sum(maps, axis=(1, 2)) - (run(batch, indices) - run(start, indices))
    return found, in_float32(gap)


def gradient_shap(
    model: keras.Model,
    images,
    target=None,
    samples: int = 32,
    baseline=("black", "mean", "blur", "random"),
    noise: float = 0.0,
    seed=0,
) -> np.ndarray:
    """GradientSHAP, or expected gradients: the mean of `(x - x') dS/dx` at random points.

    Each sample draws one of the baselines x' and a point on the straight way from it to the image,
    uniformly; with noise, the image is a noisy copy. The expectation adds up to `S(x)` minus the
    mean of `S(x')`; with one baseline and no noise it is that of integrated gradients.
    Source: Erion et al., "Improving performance of deep learning models with axiomatic attribution
    priors and expected gradients" (2021), equation 3; the noise is that of Lundberg & Lee's
    library SHAP and of Captum.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
            The top class is that of the image without noise.
        samples: random points for each image.
        baseline: where the ways begin: `black` and `white` (the model's lowest and highest pixel
            value), `mean` (each image's mean colour), `blur` (the image blurred beyond
            recognition), `random` (uniform noise in the image's range), a value, a colour or
            images; or a list of several of these, in which a colour is a list too.
        noise: standard deviation of the noise as a fraction of the model's pixel range.
        seed: of all that is drawn.

    Returns:
        float32 maps `(N, H, W)`, signed, in logits.

    Raises:
        ValueError: bad images or target, a score that does not depend on the pixels, no samples,
            negative noise, an unknown baseline, or a map that is not finite.
    """
    if samples < 1 or noise < 0:
        raise ValueError(
            f"samples must be at least 1 and noise not negative, got {samples} and {noise:g}"
        )
    batch, indices, function = _checked(model, images, target, fixed=True)
    starts = tf.stack(starts_for(model, batch, baseline, seed))
    low, high = pixel_range(model, batch)
    run = compiled(model, _shap_sum, function=function)
    settings = tf.constant(noise * (high - low), batch.dtype), tf.constant(seed)
    parts = in_parts(tf.range(samples), PASSES_AT_ONCE // len(batch))
    total = sum(run(batch, indices, starts, *settings, part) for part in parts)
    return finite(total / samples, model, ANOTHER_BASELINE)


def starts_for(model: keras.Model, images: tf.Tensor, baseline, seed: int = 0) -> list[tf.Tensor]:
    """One baseline or a list of several, as tensors `(N, H, W, C)` each; see `covers_for`."""
    # a list of numbers is a colour
    if isinstance(baseline, (list, tuple)) and not all(isinstance(b, Real) for b in baseline):
        return [covers_for(model, images, start, seed) for start in baseline]
    return [covers_for(model, images, baseline, seed)]


def _checked(model, images, target, fixed=False):
    batch = check_images(model, images)
    return batch, *(fixed_target if fixed else check_target)(model, batch, target)


def _noisy_moments(
    model, images, target, samples, noise, input_range, seed
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (unbiased) variance of the pixel gradient over noisy copies, `(N, H, W, C)` each."""
    if samples < 1 or noise < 0 or not (input_range is None or input_range >= 0):
        raise ValueError(
            f"samples must be at least 1, noise and input_range not negative, got {samples},"
            f" {noise:g} and {input_range}"
        )
    batch, indices, function = _checked(model, images, target, fixed=True)
    if input_range is None:
        low, high = pixel_range(model, batch)
        input_range = high - low
    run = compiled(model, _noisy_sums, function=function)
    settings = tf.constant(noise * input_range, batch.dtype), tf.constant(seed)
    sums = [
        run(batch, indices, *settings, part)
        for part in in_parts(tf.range(samples), PASSES_AT_ONCE // len(batch))
    ]
    first, squares = (sum(part) / samples for part in zip(*sums, strict=True))
    variance = tf.nn.relu(squares - first**2) * samples / max(samples - 1, 1)
    return finite((first, variance), model)


def _pixel_gradient(model, images, indices, function):
    # Only the images are watched: gradients of weights would cost as much again and are not used.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        total = scores(model, images, indices, function)
    return existing(tape.gradient(total, images), model)


def existing(gradient, model: keras.Model, where: str = "the pixels"):
    """A gradient with respect to pixels or a layer.

    Raises:
        ValueError: there is none, and which techniques need none.
    """
    if gradient is None:
        techniques = ", ".join(NEED_ONLY_SCORES)
        raise ValueError(
            f"{no_gradient(model, where)}, which this needs; {techniques} need only scores"
        )
    return gradient


def finite(values, model: keras.Model, instead: str = ""):
    """Maps, or what else there is of each image, as float32 arrays without NaN or infinity.

    Args:
        values: tensors `(N, ...)`, one or a structure of some.
        model: the network.
        instead: what else may help, such as `try another baseline, or `.

    Returns:
        The same structure of arrays.

    Raises:
        ValueError: a number is not finite, of which images, and which techniques need no gradient.
    """
    found = in_float32(values)
    if images := _not_finite(found):
        raise ValueError(
            f"images {images} have no finite map: {model.name} computes something infinite or NaN,"
            f" such as the slope of a root at 0; {instead}use {', '.join(NEED_ONLY_SCORES)}, which"
            " need only scores"
        )
    return found


def finite_without_gradient(values, model: keras.Model, first: int = 0):
    """As `finite`, of techniques that need no gradient: scores, activations, or maps.

    Args:
        values: tensors or arrays `(N, ...)`, one or a structure of some.
        model: the network.
        first: number of the first image.

    Returns:
        The same structure of float32 arrays.

    Raises:
        ValueError: a number is not finite, of which images.
    """
    found = in_float32(values)
    if images := _not_finite(found):
        raise ValueError(
            f"images {[first + i for i in images]} have no finite map: {model.name} computes"
            " something infinite or NaN for them, or for copies with covered or black parts, such"
            " as the logarithm of 0"
        )
    return found


def _not_finite(found) -> list[int]:
    """Numbers of the images that have a NaN or an infinity in one of the arrays `(N, ...)`."""
    bad = [~np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in tf.nest.flatten(found)]
    return np.flatnonzero(np.any(bad, axis=0)).tolist()


def _saliency(model, images, indices, function):
    return tf.reduce_max(tf.abs(_pixel_gradient(model, images, indices, function)), axis=-1)


def _gradient_x_input(model, images, indices, function):
    return tf.reduce_sum(images * _pixel_gradient(model, images, indices, function), axis=-1)


def _stacked_gradient(model, copies, indices, function):
    """Gradients `(F, N, H, W, C)` of F copies of the batch, in one pass."""
    count = tf.shape(copies)[0]
    # pictures of several sizes have one that is known only when it runs
    flat = tf.reshape(copies, tf.concat([[-1], tf.shape(copies)[2:]], axis=0))
    flat = tf.ensure_shape(flat, (None, *copies.shape[2:]))
    tiled = tf.tile(indices, [count, *[1] * (len(indices.shape) - 1)])
    gradient = _pixel_gradient(model, flat, tiled, function)
    return tf.reshape(gradient, tf.shape(copies))


def _path_gradient(model, images, indices, start, fractions, function):
    copies = start + tf.reshape(fractions, (-1, 1, 1, 1, 1)) * (images - start)
    return tf.reduce_sum(_stacked_gradient(model, copies, indices, function), axis=0)


def _shap_sum(model, images, indices, starts, sigma, seed, samples, function):
    """Sum of `(x - x') dS/dx` over samples; what a sample draws is shared by all images."""
    kinds = tf.shape(starts)[0]

    def draw(sample):
        # a pair of its own for each of the three
        way, place, spread = (tf.stack([seed, 3 * sample + k]) for k in range(3))
        start = tf.gather(starts, tf.random.stateless_uniform((), way, 0, kinds, tf.int32))
        noise = tf.random.stateless_normal(tf.shape(images)[1:], spread)
        end = images + sigma * tf.cast(noise, images.dtype)
        fraction = tf.cast(tf.random.stateless_uniform((), place), images.dtype)
        return start + fraction * (end - start), end - start

    copies, ways = tf.map_fn(draw, samples, fn_output_signature=(images.dtype, images.dtype))
    gradient = _stacked_gradient(model, copies, indices, function)
    return tf.reduce_sum(ways * gradient, axis=(0, -1))


def _noisy_sums(model, images, indices, sigma, seed, samples, function):
    """Sums of gradients and of their squares over noisy copies.

    A sample's noise has a seed of its own and is shared by all images.
    """

    def draw(sample):
        # drawn in float32, so that a seed means the same noise in every precision
        noise = tf.random.stateless_normal(tf.shape(images)[1:], tf.stack([seed, sample]))
        return tf.cast(noise, images.dtype)

    noise = tf.map_fn(draw, samples, fn_output_signature=images.dtype)
    gradient = _stacked_gradient(model, images + sigma * noise[:, None], indices, function)
    return tf.reduce_sum(gradient, axis=0), tf.reduce_sum(gradient**2, axis=0)
