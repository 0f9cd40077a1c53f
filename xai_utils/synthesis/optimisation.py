"""Optimise pictures from noise: one compiled step for pre-images and for activation maximisation.

A step goes from parameters to pictures, moves them at random, runs the network, and updates the
parameters against the gradient. Pictures of a batch do not know of each other: each has its own
loss, its own random numbers and an update that works element by element, so that a batch gives what
its pictures give one by one. Pictures are made in 0..255, whatever the network takes; they are
brought to its pixel range where it is asked, and at the end.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from xai_utils.engine import compiled, float_type, keras, no_gradient, pixel_range, tf
from xai_utils.synthesis import image_priors

RATES = {"adam": 0.05, "sgd": 1.0}  # optimisers and their default learning rates
MOMENTUM, SECOND = 0.9, 0.999  # what is kept a step of the momentum and, by Adam, of the squares
TINY = 1e-20  # keeps Adam from dividing by 0
SETTLING = 0.5  # learning rate of the last steps, over that of the others


class Synthesis(NamedTuple):
    """What an optimisation made.

    Attributes:
        images: `(N, H, W, C)` in the model's pixel range, float32 (float64 of a model that computes
            so): each picture at the step where its objective was least.
        losses: `(steps + 1, N)`: loss of the moved picture, without regularisers, before the first
            step and after each.
        frames: `(F, N, H, W, C)`: the pictures on their way, the noise they started from first.
        frame_steps: `(F,)`: after how many steps each frame was taken.
        stopped: why it ended before its last step, or an empty string.
    """

    images: np.ndarray
    losses: np.ndarray
    frames: np.ndarray
    frame_steps: np.ndarray
    stopped: str


class State(NamedTuple):
    """What one step hands to the next, as tensors."""

    values: tf.Tensor  # parameters of the pictures
    first: tf.Tensor  # momentum: running sum of the gradient, for Adam mean
    second: tf.Tensor  # for Adam: running mean of its square
    best: tf.Tensor  # pictures (N, H, W, C)
    least: tf.Tensor  # and their objectives (N,)


def optimise(
    model: keras.Model,
    objective: tuple,
    constants: tf.Tensor,
    shape: tuple,
    *,
    steps: int = 300,
    parameterisation: str = "fourier",
    optimiser: str = "adam",
    rate: float | None = None,
    alpha_weight: float = 0.0,
    alpha: float = 6.0,
    tv_weight: float = 0.0,
    beta: float = 2.0,
    jitter: int = 0,
    scale: float = 0.0,
    rotate: float = 0.0,
    settle: float = 0.2,
    noise: float = 20.0,
    seed: int = 0,
    restarts: int = 1,
    every: int = 0,
    pixels: tuple[float, float] | None = None,
    begin=None,
    progress: Callable | None = None,
) -> Synthesis:
    """Minimise an objective over pictures, from noise or from given ones.

    Interrupting the kernel ends it as if the steps had been fewer. So does a loss that is not
    finite, with a warning.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        objective: `(function, *settings)`, hashable; losses `(N,)` are
            `function(model, images, constants, *settings)`.
        constants: one for each picture, along the first axis; a tensor or a tuple of them.
        shape: `(H, W, C)` of a picture.
        steps: updates; the objective is looked at once more.
        parameterisation: `pixels`, clipped to the pixel range at every step, `fourier`, or `maco`,
            whose phases alone are free, see `image_priors.to_images`.
        optimiser: `adam`, or `sgd` with momentum.
        rate: learning rate. `adam`: step of a parameter, of which 1 is half the range of pixel
            values (`pixels`), the natural size of a coefficient (`fourier`) or a radian (`maco`);
            default .05. `sgd`:
            as if a picture were a vector of length 1, so that it does not depend on the number of
            pixels; default 1.
        alpha_weight, alpha: weight and power of `image_priors.alpha_norm`.
        tv_weight, beta: weight and power of `image_priors.total_variation`.
        jitter, scale, rotate: before each step a picture is moved by up to so many pixels, enlarged
            or reduced by up to this fraction, turned by up to so many degrees.
        settle: the last share of the steps has half the rate, fresh momentum and no movement.
        noise: standard deviation of the start, in grey levels, of which there are 255 in any range.
        seed: of start and movements; restart r has seed + r.
        restarts: pictures for each constant, one after the other.
        every: take a frame every so many steps; 0 takes only the first and the last.
        pixels: the smallest and the largest pixel value of the model; default what is known of it,
            see `engine.pixel_range`.
        begin: pictures to begin from, one for each constant, in the model's pixel range; default
            noise.
        progress: called as `progress(step, steps, losses)` before the first step and after each.

    Returns:
        A `Synthesis`, pictures in the model's pixel range.

    Raises:
        ValueError: a setting out of its range; an objective without gradient to the pixels.
    """
    low, high = pixels = pixel_range(model) if pixels is None else tuple(map(float, pixels))
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"pixels are the smallest and the largest value, not {low:g}, {high:g}")
    _check_names(parameterisation, optimiser)
    _check_numbers(
        steps=(steps, 1),
        restarts=(restarts, 1),
        every=(every, 0),
        jitter=(jitter, 0),
        noise=(noise, 0),
        alpha_weight=(alpha_weight, 0),
        alpha=(alpha, 0),
        tv_weight=(tv_weight, 0),
        beta=(beta, 0),
        scale=(scale, 0),
        rotate=(rotate, 0),
        settle=(settle, 0),
        rate=(rate or 0, 0),
    )
    dtype, rate = float_type(model), RATES[optimiser] if rate is None else rate
    count = len(tf.nest.flatten(constants)[0])
    seeds = np.tile(seed + np.arange(restarts), count)
    constants = tf.nest.map_structure(lambda of: tf.repeat(of, restarts, axis=0), constants)
    run = compiled(
        model,
        step,
        objective=objective,
        parameterisation=parameterisation,
        optimiser=optimiser,
        pixels=pixels,
        shape=(len(seeds), *shape),
        moves="warp" if scale or rotate else "jitter" if jitter else "",
        powers=(alpha if alpha_weight else None, beta if tv_weight else None),
    )
    weights = tf.constant((alpha_weight, tv_weight), dtype)
    amounts = tf.constant((jitter, scale, rotate), dtype)
    if begin is None:
        values = image_priors.start(parameterisation, seeds, shape, noise, dtype)
    else:
        begun = (tf.cast(tf.repeat(begin, restarts, axis=0), dtype) - low) * (255 / (high - low))
        values = image_priors.from_images(parameterisation, begun)
    state = _start(parameterisation, values, shape)
    settling = steps - round(settle * steps)
    losses, frames, taken, stopped = [], [], [], ""
    try:
        for number in range(steps + 1):
            settled = number >= settling > 0
            if settled and number == settling:
                state = state._replace(
                    first=tf.zeros_like(state.first), second=tf.zeros_like(state.second)
                )
            now = (number - settling, rate * SETTLING) if settled else (number, rate)
            after, loss, slope, images = run(
                state,
                constants,
                tf.constant(seeds, tf.int32),
                tf.constant(number),
                tf.constant(now, dtype),
                weights,
                tf.zeros_like(amounts) if settled else amounts,
            )
            loss = loss.numpy()
            if not np.isfinite(loss).all():
                stopped = (
                    f"the loss is not finite after step {number} of {steps}; the best pictures"
                    " before it are kept"
                )
                warnings.warn(stopped, stacklevel=3)
                break
            if number == 0 and not np.all(slope):
                flat = int(np.argmin(slope))
                where = "noise" if begin is None else "picture"
                raise ValueError(
                    f"the loss of picture {flat} has no gradient at the {where} it starts from:"
                    " dead units?"
                )
            state = after
            losses.append(loss)
            if number in (0, steps) or (every and number % every == 0):
                frames.append(images.numpy())
                taken.append(number)
            if progress:
                progress(number, steps, loss)
    except KeyboardInterrupt:
        stopped = (
            f"interrupted after step {len(losses) - 1} of {steps}; the best pictures so far are"
            " kept"
        )
    found, on_the_way = (
        in_range(pictures, pixels) for pictures in (state.best.numpy(), np.array(frames))
    )
    return Synthesis(found, np.array(losses), on_the_way, np.array(taken), stopped)


def in_range(images, pixels: tuple[float, float]):
    """Pictures in 0..255, array or tensor, brought to a range of pixel values."""
    low, high = pixels
    return images if (low, high) == (0, 255) else low + images * ((high - low) / 255)


def step(
    model,
    state,
    constants,
    seeds,
    number,
    age_and_rate,
    weights,
    amounts,
    *,
    objective,
    parameterisation,
    optimiser,
    pixels,
    shape,
    moves,
    powers,
):
    """One step, for `compiled`.

    Args:
        state: a `State`.
        constants, objective, parameterisation, optimiser: what `optimise` was given.
        pixels: range of pixel values of the model.
        shape: of the pictures, `(N, H, W, C)`: movement needs to know N when it is traced.
        seeds: int32 `(N,)`; number: of the step; age_and_rate: steps since the momentum was fresh,
            and learning rate.
        weights: of the two regularisers; powers: theirs, None where a regulariser is not used.
        amounts: jitter, scale, rotate; moves: which movement they need, `warp`, `jitter` or none.

    Returns:
        The next `State`; losses `(N,)`; at the first step the largest gradient of each loss, later
        ones, `(N,)`; the pictures `(N, H, W, C)` in 0..255.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(state.values)
        images = image_priors.to_images(parameterisation, state.values, shape[1:])
        moved = tf.identity(images)
        if moves:
            drawn = image_priors.draw_moves(seeds, number)
            drawn = tf.cast(drawn, images.dtype)
            if moves == "jitter":
                moved = image_priors.shift(
                    images, tf.cast(tf.round(drawn[:, :2] * amounts[0]), tf.int32)
                )
            else:
                moved = image_priors.move(images, drawn, *tf.unstack(amounts))
        losses = objective[0](model, in_range(moved, pixels), constants, *objective[1:])
        total = losses
        if powers[0] is not None:
            total += weights[0] * image_priors.alpha_norm(images, powers[0])
        if powers[1] is not None:
            total += weights[1] * image_priors.total_variation(images, powers[1])
    gradient, at_network = tape.gradient(total, (state.values, moved))
    if at_network is None:
        raise ValueError(f"{no_gradient(model)}, which pictures are optimised by")
    slope = tf.cond(
        number == 0,
        lambda: tf.reduce_max(tf.abs(at_network), (1, 2, 3)),
        lambda: tf.ones_like(total),
    )
    better = total < state.least
    best = tf.where(better[:, None, None, None], images, state.best)
    least = tf.where(better, total, state.least)
    values, first, second = UPDATES[optimiser](
        state, gradient, age_and_rate[0], age_and_rate[1], np.prod(shape[1:])
    )
    return (
        State(image_priors.project(parameterisation, values), first, second, best, least),
        losses,
        slope,
        images,
    )


def _adam(state, gradient, age, rate, _size):
    first = MOMENTUM * state.first + (1 - MOMENTUM) * gradient
    second = SECOND * state.second + (1 - SECOND) * gradient**2
    # Means of the gradient and its square, which the zeros they began with have pulled down.
    mean, square = first / (1 - MOMENTUM ** (age + 1)), second / (1 - SECOND ** (age + 1))
    return state.values - rate * mean * tf.math.rsqrt(square + TINY), first, second


def _sgd(state, gradient, _age, rate, size):
    # For u = values / sqrt(size), of length about 1, the gradient is sqrt(size) larger, and so is
    # the way back.
    first = MOMENTUM * state.first + gradient
    return state.values - rate * size * first, first, state.second


UPDATES = {"adam": _adam, "sgd": _sgd}


def _start(parameterisation, values, shape) -> State:
    zeros = tf.zeros_like(values)
    least = tf.fill([len(values)], tf.constant(np.inf, values.dtype))
    return State(
        values, zeros, zeros, image_priors.to_images(parameterisation, values, shape), least
    )


def _check_names(parameterisation, optimiser) -> None:
    for name, value, known in (
        ("parameterisation", parameterisation, image_priors.PARAMETERISATIONS),
        ("optimiser", optimiser, tuple(UPDATES)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")


def _check_numbers(**numbers) -> None:
    for name, (value, least) in numbers.items():
        if not least <= value < np.inf:
            raise ValueError(f"{name} must be at least {least} and finite, not {value}")
    if numbers["settle"][0] > 1:
        raise ValueError(f"settle is a share of the steps, 0 to 1, not {numbers['settle'][0]}")
