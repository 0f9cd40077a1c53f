"""What an optimised picture may look like: parameterisations, regularisers, movements.

All functions take and return batches, treat every picture of a batch by itself, and can be traced
by `tf.function`.
"""

import functools
import math

import numpy as np

from xai_utils.engine import tf
from xai_utils.pictures import load_image, prepare, warped

MIDDLE = 127.5  # grey, and half the range of pixel values
TYPICAL = (
    80.0  # length of a typical pixel's colour from grey, in grey levels; unit of the regularisers
)
FLAT = (
    1e-8  # inside the root of total variation: keeps its gradient finite where the picture is flat
)
PARAMETERISATIONS = ("pixels", "fourier", "maco")
NATURAL = ("cat", "coffee", "astronaut", "rocket", "motorcycle")  # their spectrum is that of `maco`

# Grey, red against blue, green against magenta: nearly independent in photographs. Their spreads
# are measured on this suite's photographs (a test measures them again), relative to grey.
COLOURS = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
SPREADS = np.array([1.0, 0.28, 0.16])


def start(parameterisation: str, seeds, shape: tuple, noise: float, dtype) -> tf.Tensor:
    """Parameters of noise pictures, one for each seed.

    Args:
        parameterisation: `pixels` (white noise), `fourier` (coefficients; noise that is as smooth
            as photographs) or `maco` (phases, drawn evenly).
        seeds: N whole numbers. A picture depends on its own seed alone.
        shape: `(H, W, C)` of a picture.
        noise: standard deviation of the pictures, in grey levels; that of `maco` is photographs'.
        dtype: of the parameters.

    Returns:
        `(N, H, W, C)` for pixels, from -1 (black) to 1; `(N, C, H, W // 2 + 1, 2)` for Fourier
        coefficients, real and imaginary, of which each has the same spread and is of one frequency
        of one decorrelated colour; `(N, C, H, W // 2 + 1)` phases in radians.
    """
    height, width, channels = shape
    if parameterisation == "maco":
        size = (channels, height, width // 2 + 1)
        drawn = [
            tf.random.stateless_uniform(size, (int(seed), -1), -math.pi, math.pi, dtype)
            for seed in seeds
        ]
        return tf.stack(drawn)
    fourier = parameterisation == "fourier"
    size = (2, channels, height, width // 2 + 1) if fourier else shape
    drawn = tf.stack(
        [tf.random.stateless_normal(size, (int(seed), -1), dtype=dtype) for seed in seeds]
    )
    drawn = tf.transpose(drawn, (0, 2, 3, 4, 1)) if fourier else drawn
    # A sigmoid turns a small number into a quarter of it, as a share of the range.
    return project(
        parameterisation, drawn * tf.cast(noise / (MIDDLE / 2 if fourier else MIDDLE), dtype)
    )


def to_images(parameterisation: str, values: tf.Tensor, shape: tuple) -> tf.Tensor:
    """Pictures from parameters.

    `fourier`: `255 sigmoid(colour matrix x inverse FFT(coefficients / frequency))`.
    `maco`: the coefficients have the phases given, and the mean magnitudes of photographs.
    Source: Olah, Mordvintsev & Schubert, "Feature visualization" (Distill 2017), section
    "Preconditioning"; Fel et al., "Unlocking feature visualization for deeper networks with
    magnitude constrained optimization" (NeurIPS 2023).

    Args:
        parameterisation: `pixels`, `fourier` or `maco`.
        values: parameters, of the shape that `start` makes.
        shape: `(H, W, C)` of a picture.

    Returns:
        `(N, H, W, C)` in 0..255, of the parameters' type.
    """
    if parameterisation == "pixels":
        return MIDDLE + MIDDLE * values
    height, width, channels = shape
    if parameterisation == "maco":
        magnitudes = tf.constant(natural_magnitudes(height, width, channels), values.dtype)
        phases = _of_real_pictures(values, width)
        parts = [magnitudes * tf.cos(phases), magnitudes * tf.sin(phases)]
        coefficients = tf.stack(parts, axis=-1)
    else:
        coefficients = values * tf.constant(
            _frequency_scale(height, width)[..., None], values.dtype
        )
    pictures = tf.transpose(_inverse_fft(height, width, coefficients), (0, 2, 3, 1))
    if channels == 3:
        mixing = tf.constant(_mixing(), values.dtype)
        pictures = tf.einsum("nhwd,cd->nhwc", pictures, mixing)
    return 2 * MIDDLE * tf.sigmoid(pictures)


def from_images(parameterisation: str, images: tf.Tensor) -> tf.Tensor:
    """Parameters of given pictures: `to_images` turned around.

    Args:
        parameterisation: `pixels` or `fourier`.
        images: tensor `(N, H, W, C)` in 0..255. The sigmoid of `fourier` never reaches black or
            white: values come back no nearer to either than half a grey level.

    Returns:
        Parameters, of the shape that `start` makes and the images' type.

    Raises:
        ValueError: `maco`, whose magnitudes are not free to be a given picture's.
    """
    if parameterisation == "pixels":
        return images / MIDDLE - 1
    if parameterisation == "maco":
        raise ValueError("maco holds magnitudes: it cannot begin with a picture; use fourier")
    transformed = spectrum(images)
    scale = _frequency_scale(*images.shape[1:3])[..., None]
    parts = tf.stack([tf.math.real(transformed), tf.math.imag(transformed)], axis=-1)
    return parts / tf.constant(scale, images.dtype)


def spectrum(images: tf.Tensor) -> tf.Tensor:
    """The Fourier coefficients that `to_images` makes a picture of, before the sigmoid.

    Args:
        images: tensor `(N, H, W, C)` in 0..255; values come no nearer to either end than half a
            grey level.

    Returns:
        Complex `(N, C, H, W // 2 + 1)`, of decorrelated colours where there are three.
    """
    return tf.signal.rfft2d(_planes(images))


def _planes(images: tf.Tensor) -> tf.Tensor:
    """Decorrelated colours before the sigmoid, `(N, C, H, W)`."""
    share = tf.clip_by_value(images, 0.5, 254.5) / (2 * MIDDLE)
    pictures = tf.math.log(share / (1 - share))
    if images.shape[3] == 3:
        unmixing = tf.constant(np.linalg.inv(_mixing()), images.dtype)
        pictures = tf.einsum("nhwc,dc->nhwd", pictures, unmixing)
    return tf.transpose(pictures, (0, 3, 1, 2))


@functools.lru_cache(maxsize=8)
def natural_magnitudes(height: int, width: int, channels: int) -> np.ndarray:
    """The mean magnitude of each Fourier coefficient over five photographs of the suite.

    They are faded out towards their edges (Hann's window): the jump from one edge to the opposite
    one would else be in the spectrum, and draws a cross in every picture.

    Args:
        height, width: of the pictures, in pixels.
        channels: of the pictures; where there are not three, all have the spectrum of grey.

    Returns:
        float64 `(C, H, W // 2 + 1)`, as of `spectrum`. That of frequency 0 is 0: the mean colour is
        grey.
    """
    photographs = np.stack(
        [prepare(load_image(name), (height, width), resizing="crop") for name in NATURAL]
    )
    planes = _planes(tf.constant(photographs, tf.float64)).numpy()
    planes -= planes.mean(axis=(2, 3), keepdims=True)
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
    faded = planes * window / np.sqrt((window**2).mean())
    magnitudes = np.abs(np.fft.rfft2(faded)).mean(axis=0)
    magnitudes[:, 0, 0] = 0
    return magnitudes if channels == 3 else np.repeat(magnitudes[:1], channels, axis=0)


def _of_real_pictures(phases: tf.Tensor, width: int) -> tf.Tensor:
    """Phases `(N, C, H, W // 2 + 1)` such that coefficients keep their magnitudes in a picture.

    A column that is its own mirror image, the first and of an even width the last, holds pairs of
    rows whose phases must be opposite.
    """
    opposite = tf.roll(tf.reverse(phases, [2]), 1, 2)
    mirrored = tf.constant(_mirrored(width) == 1)
    return tf.where(mirrored, (phases - opposite) / 2, phases)


def _mixing() -> np.ndarray:
    """From independent colours to red, green and blue, `(3, 3)`."""
    return COLOURS.T * SPREADS * math.sqrt(3 / (SPREADS**2).sum())


def project(parameterisation: str, values: tf.Tensor) -> tf.Tensor:
    """The nearest parameters whose picture is within 0..255.

    Pixels are clipped; the sigmoid needs nothing.

    Args:
        parameterisation: `pixels` or `fourier`.
        values: parameters, of the shape that `start` makes.

    Returns:
        Parameters of the same shape.
    """
    return tf.clip_by_value(values, -1, 1) if parameterisation == "pixels" else values


def _frequency_scale(height: int, width: int) -> np.ndarray:
    """What a coefficient of each frequency is multiplied with, `(H, W // 2 + 1)`.

    1 / frequency, as in photographs. Scaled so that coefficients of unit variance (real and
    imaginary part) give pictures of unit variance.
    """
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    scale = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    # Variance = sum |coefficient|^2 / (HW)^2; a column that stands for its mirror image as well
    # counts four times.
    power = (scale**2 * _mirrored(width) ** 2).sum()
    return scale * height * width / math.sqrt(power)


def _mirrored(width: int) -> np.ndarray:
    """How many columns of the full transform each of the half one stands for: 2, 1 at the ends."""
    twice = np.full(width // 2 + 1, 2.0)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    return twice


def _inverse_fft(height: int, width: int, values: tf.Tensor) -> tf.Tensor:
    """`irfft2d`, `(..., H, W)`, of real and imaginary parts `(..., H, W // 2 + 1, 2)`.

    Pairs lie in memory as complex numbers do, so nothing is copied, and the gradient is one
    `rfft2d`: with TensorFlow's own a step of an inversion takes a tenth longer.
    """
    pair = tf.complex64 if values.dtype == tf.float32 else tf.complex128

    @tf.custom_gradient
    def inverse(values):
        def gradient(incoming):
            weights = np.repeat(_mirrored(width)[:, None] / (height * width), 2, axis=1)
            return tf.constant(weights, incoming.dtype) * tf.bitcast(
                tf.signal.rfft2d(incoming), incoming.dtype
            )

        return tf.signal.irfft2d(tf.bitcast(values, pair), (height, width)), gradient

    return inverse(values)


def alpha_norm(images: tf.Tensor, alpha: float = 6.0) -> tf.Tensor:
    """Mean over the pixels of `(|x - grey| / 80)^alpha`, |.| the length of a colour.

    Source: Mahendran & Vedaldi, "Visualizing deep convolutional neural networks using natural
    pre-images" (IJCV 2016), section 3.2.

    Args:
        images: tensor `(N, H, W, C)` in 0..255.
        alpha: power; default 6.

    Returns:
        `(N,)`, not negative.
    """
    squared = tf.reduce_sum(((images - MIDDLE) / TYPICAL) ** 2, axis=-1)
    return tf.reduce_mean((squared + FLAT) ** (alpha / 2), axis=(1, 2))


def total_variation(images: tf.Tensor, beta: float = 2.0) -> tf.Tensor:
    """Mean over the pixels, sum over the colours, of `(dx^2 + dy^2 + epsilon)^(beta / 2)`.

    dx and dy are differences to the next pixel, in units of 80 / 6.5 grey levels; past the border
    they are 0. With beta < 2 the root has no gradient where the picture is flat; epsilon gives it
    one.
    Source: Mahendran & Vedaldi, "Visualizing deep convolutional neural networks using natural
    pre-images" (IJCV 2016), section 3.2.

    Args:
        images: tensor `(N, H, W, C)` in 0..255.
        beta: power; default 2.

    Returns:
        `(N,)`, not negative.
    """
    scaled = images * (6.5 / TYPICAL)
    down = tf.pad(scaled[:, 1:] - scaled[:, :-1], ((0, 0), (0, 1), (0, 0), (0, 0)))
    right = tf.pad(scaled[:, :, 1:] - scaled[:, :, :-1], ((0, 0), (0, 0), (0, 1), (0, 0)))
    squared = down**2 + right**2
    varied = squared if beta == 2 else (squared + FLAT) ** (beta / 2)
    return tf.reduce_mean(tf.reduce_sum(varied, axis=-1), axis=(1, 2))


def draw_moves(seeds: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Random numbers for `move`.

    Those of a picture depend on its seed and the step alone.

    Args:
        seeds: int32 `(N,)`.
        step: int32, number of the step.

    Returns:
        float32 `(N, 4)` in -1..1.
    """
    drawn = [
        tf.random.stateless_uniform((4,), tf.stack([seed, step]), -1.0, 1.0)
        for seed in tf.unstack(seeds)
    ]
    return tf.stack(drawn)


def shift(images: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    """Each picture moved by its own whole pixels; what leaves on one side comes back on the other.

    Args:
        images: tensor `(N, H, W, C)` of any values.
        pixels: int32 `(N, 2)`, down and right.

    Returns:
        Tensor of the same shape.
    """
    pairs = zip(tf.unstack(images), tf.unstack(pixels), strict=True)
    return tf.stack([tf.roll(image, by, (0, 1)) for image, by in pairs])


def move(images: tf.Tensor, drawn: tf.Tensor, jitter, scale, rotate) -> tf.Tensor:
    """Each picture shifted, enlarged and turned about its middle by amounts of its own.

    Bilinear, mirrored at the edge.

    Args:
        images: tensor `(N, H, W, C)` of any values.
        drawn: `(N, 4)` in -1..1: shift down and right, enlargement, turn.
        jitter: largest shift in pixels.
        scale: largest enlargement or reduction, as a fraction.
        rotate: largest turn, in degrees.

    Returns:
        Tensor of the same shape.
    """
    height, width = images.shape[1:3]
    drawn = tf.cast(drawn, tf.float32)
    jitter, scale, rotate = (tf.cast(amount, tf.float32) for amount in (jitter, scale, rotate))
    zoom, angle = (1 + scale) ** -drawn[:, 2], drawn[:, 3] * rotate * (math.pi / 180)
    cos, sin = zoom * tf.cos(angle), zoom * tf.sin(angle)
    origin = (width - 1) / 2 - jitter * drawn[:, 1], (height - 1) / 2 - jitter * drawn[:, 0]
    return warped(images, ((cos, -sin), (sin, cos)), origin, fill_mode="reflect")
