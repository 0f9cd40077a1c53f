"""DeepLIFT: a score's difference from that of a baseline, carried back to the pixels.

Both pictures go through the network. Each operation has a multiplier, how much its output changed
for what its input changed, where a gradient has a derivative; they multiply as derivatives do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xai_utils.attribution.gradients import ANOTHER_BASELINE, existing, finite, starts_for
from xai_utils.attribution.operations import (
    ELEMENTWISE,
    PRODUCTS,
    Step,
    carried_back,
    is_linear,
    known_scores,
    no_rule,
    summed_to,
)
from xai_utils.engine import check_images, compiled, keras, tf, widened
from xai_utils.models import fixed_target

NEAR = 1e-6  # two numbers that differ by less, relative to their sizes, are a point


def deep_lift(model: keras.Model, images, target=None, baseline="black", seed=0) -> np.ndarray:
    """DeepLIFT with the rescale rule: `sum_c (x - x') m`, which adds up to `S(x) - S(x')`.

    The multiplier m of a function of one number is `(f(x) - f(x')) / (x - x')`, and its derivative
    where x is x'; that of a linear layer its weights. Products, as of a gate, of attention and of a
    normalisation by the picture's own statistics, take the mean of both orders: `a b` has
    `(b + b') / 2` for a. A largest value, as in max-pooling, gives its change to the number that
    was the largest where the largest is larger. A softmax has its derivative, with the logarithmic
    means of its values in both pictures for its values. Each of these is complete, and so is the
    map. With several baselines it is the mean of their maps, as DeepSHAP has it.
    Source: Shrikumar, Greenside & Kundaje, "Learning important features through propagating
    activation differences" (ICML 2017), section 3; Lundberg & Lee, "A unified approach to
    interpreting model predictions" (NeurIPS 2017), section 4.2.

    Args:
        model: Keras model, images `(N, H, W, C)` to outputs.
        images: one batch, any number type, in the model's pixel range.
        target: None (top class), a class index or name, N of them, or a callable `outputs -> (N,)`.
            The top class is that of the image.
        baseline: what the images are compared with: `black` and `white` (the model's lowest
            and highest pixel value), `mean` (each image's mean colour), `blur` (the image blurred
            beyond recognition), `random` (uniform noise in the image's range), a value, a colour or
            images; or a list of several of these, in which a colour is a list too.
        seed: of the baseline `random`.

    Returns:
        float32 maps `(N, H, W)`, signed, in logits.

    Raises:
        ValueError: bad images or target, an unknown baseline, a score that does not depend on the
            pixels, an operation without a rule, which is named with its layer, or a map that is
            not finite.
    """
    batch = check_images(model, images)
    indices, function = fixed_target(model, batch, target)
    run = compiled(model, _deep_lift, function=function)
    starts = starts_for(model, batch, baseline, seed)
    maps = sum(run(batch, indices, start) for start in starts) / len(starts)
    return finite(maps, model, ANOTHER_BASELINE)


def _deep_lift(model, images, indices, start, function):
    here, there = (known_scores(model, pictures, indices, function) for pictures in (images, start))
    other = _twins(model, here, there)

    def rule(step):
        pair = _Pair(step, other)
        if is_linear(step):
            return step.pulled_back()
        if step.operation.type not in _RULES:
            raise no_rule("deep_lift", model, step)
        return _RULES[step.operation.type](pair)

    multipliers = carried_back(images, here, rule).get(images.ref())
    return tf.reduce_sum((images - start) * existing(multipliers, model), axis=-1)


def _twins(model, here, there) -> Callable:
    """A function from the tensors that lead to one score to those that lead to the other."""
    pairs, waiting = {}, [(here.op, there.op)]
    while waiting:
        one, other = waiting.pop()
        if one is other or one in pairs:
            continue
        if one.type != other.type:
            raise ValueError(f"{model.name} computes something else whenever it is called")
        pairs[one] = other
        waiting += zip([t.op for t in one.inputs], [t.op for t in other.inputs], strict=True)

    def twin(tensor):
        return pairs[tensor.op].outputs[tensor.value_index] if tensor.op in pairs else tensor

    return twin


@dataclass(frozen=True)
class _Pair:
    """A step of the picture and what the same operation took and gave for the baseline."""

    step: Step
    twin: Callable

    @property
    def others(self) -> list:
        return [self.twin(x) for x in self.step.inputs]

    def change(self, tensor):
        ours, theirs = widened(tensor), widened(self.twin(tensor))
        # two infinite numbers that are the same have no difference
        return tf.where(ours == theirs, tf.zeros_like(ours), ours - theirs)

    @property
    def rise(self):
        """How much larger the output is than the baseline's."""
        return self.change(self.step.operation.outputs[0])

    def divided(self, k, product, slope):
        """A product of multipliers and changes over the change of input k; `slope` at a point."""
        x = self.step.inputs[k]
        run = self.change(x)
        sizes = tf.abs(widened(x)) + tf.abs(widened(self.twin(x)))
        is_point = tf.math.is_finite(run) & (tf.abs(run) <= NEAR * sizes)
        quotient = widened(product) / tf.where(is_point, tf.ones_like(run), run)
        # a change over an infinite one is no 0 that may be multiplied with the infinite one again
        lost = tf.math.is_inf(run) & (quotient == 0) & (widened(product) != 0)
        quotient = tf.where(lost, np.nan * quotient, quotient)
        return tf.cast(tf.where(is_point, widened(slope), quotient), x.dtype)


def _rescaled(pair: _Pair):
    """A function of each number by itself: the change of the output over that of the input."""
    step = pair.step
    (k,), (incoming,) = step.wanted, step.incoming
    product = summed_to(tf.math.multiply_no_nan(pair.rise, widened(incoming)), step.inputs[k])
    return [pair.divided(k, product, step.pulled_back()[0])]


def _product(pair: _Pair):
    """Of `a b`, a takes `(b + b') / 2`, and b `(a + a') / 2`."""
    step = pair.step
    means = [
        (x + other) / 2 if k in step.wanted else x
        for k, (x, other) in enumerate(zip(step.inputs, pair.others))
    ]
    for k, x in enumerate(step.inputs if step.operation.type == "Mul" else []):
        if roots := _capped_roots(x):
            means[k], means[1 - k] = _of_a_norm(pair, k, roots[0])
    came = step.pulled_back(means)
    return [summed_to(value, step.inputs[k]) for k, value in zip(step.wanted, came)]


def _capped_roots(x) -> list:
    """Of a tensor that is 1 over a norm, but no more than so much: 1 over the norm itself."""
    return [y for y in x.op.inputs if y.op.type == "Rsqrt"] if x.op.type == "Minimum" else []


def _of_a_norm(pair: _Pair, k: int, root) -> tuple:
    """The means of 1 over a norm, which is input k of a product, and of what it normalises.

    A norm of 0 normalises zeros, which stay zeros whatever stands in for its reciprocal: such a
    picture is left out of the mean, and the change is all of what is normalised.
    """
    factors, given = ((pair.step.inputs[j], pair.others[j]) for j in (k, 1 - k))
    empty = [tf.math.is_inf(y) & (x == 0) for y, x in zip((root, pair.twin(root)), given)]
    counts = [tf.cast(~left_out, root.dtype) for left_out in empty]
    kept = sum(tf.math.multiply_no_nan(*both) for both in zip(factors, counts))
    middle = (given[0] + given[1]) / 2
    return (
        tf.math.divide_no_nan(kept, counts[0] + counts[1]),
        tf.where(empty[0] | empty[1], tf.zeros_like(middle), middle),
    )


def _quotient(pair: _Pair):
    """Of `a / b`, the product of a and of `1 / b`, whose own multiplier is `-1 / (b b')`."""
    (a, b), (a_other, b_other) = pair.step.inputs, pair.others
    fresh = [tf.identity((a + a_other) / 2), tf.identity((1 / b + 1 / b_other) / 2)]
    of_a, of_b = tf.gradients(fresh[0] * fresh[1], fresh, pair.step.incoming)
    return [(of_a, -of_b / (b * b_other))[k] for k in pair.step.wanted]


def _squared_difference(pair: _Pair):
    """Of `(a - b)²`, the product of the difference with itself."""
    step = pair.step
    doubled = [x + other for x, other in zip(step.inputs, pair.others)]
    fresh = [tf.identity(x) for x in step.inputs]
    incoming = step.incoming[0] * (doubled[0] - doubled[1])
    both = tf.gradients(fresh[0] - fresh[1], fresh, incoming)
    return [both[k] for k in step.wanted]


def _extreme(pair: _Pair, sign: int = 1):
    """Of the largest of several, what was the largest in the picture with the larger one."""
    step, incoming = pair.step, widened(pair.step.incoming[0])
    dtype = step.operation.outputs[0].dtype
    ours = tf.cast(incoming * sign * tf.nn.relu(sign * pair.rise), dtype)
    theirs = tf.cast(incoming * pair.rise, dtype) - ours
    shares = zip(step.pulled_back(incoming=[ours]), step.pulled_back(pair.others, [theirs]))
    slopes = step.pulled_back()
    return [
        pair.divided(k, one + other, slope)
        for k, (one, other), slope in zip(step.wanted, shares, slopes)
    ]


def _smallest(pair: _Pair):
    return _extreme(pair, -1)


def _either(pair: _Pair):
    """The larger of two: as of one number where the other is constant."""
    if len(pair.step.wanted) == 1:
        return _rescaled(pair)
    return _extreme(pair, -1 if pair.step.operation.type == "Minimum" else 1)


def _softmax(pair: _Pair):
    """`L_j (g_j - sum L g / sum L)`, L the logarithmic mean of a probability in both pictures.

    For `p_i - p_i' = L_i (log p_i - log p_i')`, and the probabilities add up to one in both.
    """
    mean, incoming = _mean_probability(pair), pair.step.incoming[0]
    share = tf.reduce_sum(mean * incoming, -1, keepdims=True) / tf.reduce_sum(
        mean, -1, keepdims=True
    )
    return [mean * (incoming - share)]


def _log_softmax(pair: _Pair):
    mean, incoming = _mean_probability(pair), pair.step.incoming[0]
    weights = mean / tf.reduce_sum(mean, -1, keepdims=True)
    return [incoming - weights * tf.reduce_sum(incoming, -1, keepdims=True)]


def _mean_probability(pair: _Pair):
    one, other = (tf.nn.log_softmax(x) for x in (pair.step.inputs[0], pair.others[0]))
    change, middle = one - other, (one + other) / 2
    # (e^a - e^b) / (a - b), by its series where a is close to b
    close = tf.abs(change) < 0.01
    wide = (tf.exp(one) - tf.exp(other)) / tf.where(close, tf.ones_like(change), change)
    return tf.where(close, tf.exp(middle) * (1 + change**2 / 24), wide)


_RULES = (
    dict.fromkeys(ELEMENTWISE, _rescaled)
    | dict.fromkeys(PRODUCTS, _product)
    | dict.fromkeys(("Maximum", "Minimum"), _either)
    | dict.fromkeys(("Max", "MaxPool"), _extreme)
    | {
        "LogSoftmax": _log_softmax,
        "Min": _smallest,
        "RealDiv": _quotient,
        "Softmax": _softmax,
        "SquaredDifference": _squared_difference,
    }
)
