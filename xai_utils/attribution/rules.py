"""The rules of layer-wise relevance propagation, and composites that map layers to them.

A layer with inputs `a`, weights `w`, bias `b` and outputs `z_k = sum_j a_j w_jk + b_k` received the
relevance `R_k`; a rule says which share of it every input gets. Whatever the rule, relevance is
passed to the inputs in proportion to terms `x_j v_jk`, in which `x` stands for the inputs and `v`
for the weights:

`R_j = sum_k x_j v_jk / (sum_j x_j v_jk + bias_k + epsilon) R_k`

so that nothing is lost but what belongs to the bias and to epsilon.
Source: Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise
relevance propagation" (2015); Montavon et al., "Layer-wise relevance propagation: an overview"
(2019), table 10.1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from xai_utils.engine import tf


@dataclass(frozen=True)
class Linear:
    """What a rule must know of a layer that is linear but for its bias, for one batch.

    Attributes:
        apply: `(x, v) -> x v`, the layer with other inputs and weights, without bias.
        inputs: tensor `(N, ...)`, what the layer was given.
        weight: its weights.
        bias: what it adds, of a shape that broadcasts to the outputs.
        outputs: what it returned, with the bias.
        ones: `(1, ...)`, 1 for each input and 0 where the inputs were padded.
        positive: whether the inputs are known not to be negative, which saves half of the work.
        bounds: the least and the greatest inputs that pixels can make, `(1, ...)` each, where the
            layer reads the pixels; else None.
    """

    apply: Callable
    inputs: tf.Tensor
    weight: tf.Tensor
    bias: tf.Tensor
    outputs: tf.Tensor
    ones: tf.Tensor
    positive: bool
    bounds: tuple | None

    def back(self, shares: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """What shares of the outputs are worth at the inputs: the transposed of `apply`.

        Args:
            shares: a tensor of the outputs' shape.
            weight: in the place of the layer's weights, of their shape.

        Returns:
            A tensor of the inputs' shape.
        """
        inputs = tf.stop_gradient(self.inputs)
        return tf.gradients(self.apply(inputs, weight), inputs, shares)[0]


class Rule:
    """A rule: called with a `Linear` and the relevance of its outputs.

    It returns the relevance of the inputs, and of every output what bias and epsilon have absorbed.
    """

    def __call__(self, layer: Linear, relevance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        raise NotImplementedError


@dataclass(frozen=True)
class Epsilon(Rule):
    """Shares of `a w`, with epsilon beside the outputs so that none of them is divided by zero.

    Attributes:
        epsilon: added to an output with the output's sign; in units of outputs.
    """

    epsilon: float = 1e-6

    def __call__(self, layer, relevance):
        terms = [(layer.inputs, layer.weight)]
        return _shared(layer, terms, layer.bias, relevance, self.epsilon, layer.outputs)


@dataclass(frozen=True)
class Zero(Epsilon):
    """Shares of `a w` (LRP-0): gradient times input, if no layer has a bias.

    Attributes:
        epsilon: 0.
    """

    epsilon: float = 0.0


@dataclass(frozen=True)
class Gamma(Rule):
    """Shares in which those contributions that have the output's sign count `1 + gamma` times.

    With inputs that are not negative and a positive output that is `a (w + gamma w+)`.
    Source for inputs of both signs: Andéol et al., "Learning domain invariant representations by
    joint Wasserstein distance minimization" (2021), appendix.

    Attributes:
        gamma: 0 is `Zero`; without end it is z+.
    """

    gamma: float = 0.25

    def __call__(self, layer, relevance):
        # What has the sign of an output is half of `a w + sign |a| |w|`: one pass for both signs.
        sizes = layer.apply(tf.abs(layer.inputs), tf.abs(layer.weight))
        negative = layer.outputs < 0
        signs = tf.where(negative, -tf.ones_like(sizes), tf.ones_like(sizes))
        bias = layer.bias + self.gamma * tf.where(
            negative, *(_part(layer.bias, s) for s in (-1, 1))
        )
        plain = layer.outputs - layer.bias
        shared = plain + self.gamma / 2 * (plain + signs * sizes)
        shares = tf.math.divide_no_nan(relevance, shared + bias)
        of_plain = layer.inputs * layer.back((1 + self.gamma / 2) * shares, layer.weight)
        of_sizes = tf.abs(layer.inputs) * layer.back(signs * shares, tf.abs(layer.weight))
        return of_plain + self.gamma / 2 * of_sizes, relevance - shares * shared


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """Shares of the positive contributions, `alpha` times, less `beta` times the negative ones.

    With 1 and 0 it is the z+ rule: only what speaks for an output gets relevance.

    Attributes:
        alpha, beta: not negative, `alpha - beta = 1`.

    Raises:
        ValueError: others.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self):
        if self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise ValueError(
                "alpha_beta conserves relevance where alpha - beta is 1 and beta is not negative,"
                f" not with {self.alpha:g} and {self.beta:g}"
            )

    def __call__(self, layer, relevance):
        passed, absorbed = 0.0, 0.0
        for weight, sign in ((self.alpha, 1), (-self.beta, -1)):
            if weight:
                terms = _contributions(layer, sign)
                bias = _part(layer.bias, sign)
                more, kept = _shared(layer, terms, bias, weight * relevance)
                passed, absorbed = passed + more, absorbed + kept
        return passed, absorbed


@dataclass(frozen=True)
class Flat(Rule):
    """The same share for every input of an output, whatever it holds: for the first layer."""

    def __call__(self, layer, relevance):
        return _shared(layer, [(layer.ones, tf.ones_like(layer.weight))], 0.0, relevance)


@dataclass(frozen=True)
class WSquare(Rule):
    """Shares of `w²`, whatever the inputs hold: for a first layer of inputs without bounds."""

    def __call__(self, layer, relevance):
        return _shared(layer, [(layer.ones, layer.weight**2)], 0.0, relevance)


@dataclass(frozen=True)
class Box(Rule):
    """Shares of `a w - low w+ - high w-` (z^B): for a first layer of inputs between two bounds.

    Source: Montavon et al., "Explaining nonlinear classification decisions with deep Taylor
    decomposition" (2017), section 4.2.

    Attributes:
        low, high: the bounds of the layer's inputs; default what the darkest and the lightest
            pixels become on their way to it.
    """

    low: float | None = None
    high: float | None = None

    def __call__(self, layer, relevance):
        ones = tf.ones_like(layer.inputs[:1])
        low, high = layer.bounds or (0.0, 0.0)
        low = low if self.low is None else tf.cast(self.low, ones.dtype)
        high = high if self.high is None else tf.cast(self.high, ones.dtype)
        terms = [
            (layer.inputs, layer.weight),
            (-low * ones, _part(layer.weight, 1)),
            (-high * ones, _part(layer.weight, -1)),
        ]
        return _shared(layer, terms, 0.0, relevance)


RULES = {
    "zero": Zero(),
    "epsilon": Epsilon(),
    "gamma": Gamma(),
    "alpha_beta": AlphaBeta(),
    "z_plus": AlphaBeta(1.0, 0.0),
    "flat": Flat(),
    "w_square": WSquare(),
    "box": Box(),
}

KINDS = ("first", "conv", "dense", "normalisation", "sum")
USUAL = {"normalisation": "epsilon", "sum": "epsilon"}

COMPOSITES = {
    "epsilon_plus_flat": {"first": "flat", "conv": "z_plus", "dense": "epsilon"},
    "epsilon_gamma_box": {"first": "box", "conv": "gamma", "dense": "epsilon"},
    "epsilon_alpha2_beta1": {"conv": "alpha_beta", "dense": "epsilon"},
}


def read_composite(composite) -> tuple:
    """A composite in one form, as pairs that can be a key.

    Args:
        composite: a name of `COMPOSITES`, a rule or a name of `RULES` for all layers, or a mapping
            of kinds (`KINDS`) and of layers' names or paths to rules or their names.

    Returns:
        Pairs `(kind or layer, rule)`; normalisation that cannot be folded into another layer, and
        sums (adding, averaging), have `Epsilon` if nothing is said of them.

    Raises:
        ValueError: an unknown name, or something that is no rule.
    """
    if isinstance(composite, str) and composite in COMPOSITES:
        said = COMPOSITES[composite]
    elif isinstance(composite, Mapping):
        said = composite
    elif isinstance(composite, Rule) or isinstance(composite, str) and composite in RULES:
        said = dict.fromkeys(("conv", "dense", "normalisation"), composite)
        said |= {"sum": composite} if isinstance(_rule(composite), Epsilon) else {}
    else:
        known = ", ".join([*COMPOSITES, *RULES])
        raise ValueError(f"composite is one of {known}, a rule or a dict, not {composite!r}")
    rules = {name: _rule(rule) for name, rule in (USUAL | dict(said)).items()}
    if not isinstance(rules["sum"], Epsilon):
        raise ValueError(f"sums have the rule zero or epsilon, not {rule_name(rules['sum'])}")
    return tuple(rules.items())


def _rule(said) -> Rule:
    if isinstance(said, Rule):
        try:
            hash(said)
        except TypeError as error:
            raise ValueError(
                f"{type(said).__name__} holds what cannot be a key, such as an array: make it a"
                " frozen dataclass of numbers"
            ) from error
        return said
    if not isinstance(said, str) or said not in RULES:
        raise ValueError(f"there is no rule {said!r}: it is one of {', '.join(RULES)}")
    return RULES[said]


def rule_name(rule: Rule) -> str:
    """A rule as people write it, such as `gamma 0.25` or `alpha_beta 1, 0`.

    Args:
        rule: a dataclass of numbers.

    Returns:
        Its name in `RULES`, or that of its class, and its numbers.
    """
    kinds = {type(known): name for name, known in RULES.items() if name != "z_plus"}
    values = [getattr(rule, field.name) for field in fields(rule)]
    told = ", ".join(f"{value:g}" for value in values if value is not None)
    return f"{kinds.get(type(rule), type(rule).__name__)} {told}".strip()


def beside(outputs, epsilon: float):
    """Outputs with epsilon added, of the sign that they have.

    Args:
        outputs: tensor of any shape.
        epsilon: not negative, in units of outputs.

    Returns:
        A tensor of the same shape; where an output is 0, epsilon itself.
    """
    return tf.where(outputs < 0, outputs - epsilon, outputs + epsilon) if epsilon else outputs


def _shared(layer, terms, bias, relevance, epsilon=0.0, outputs=None):
    """Relevance of the inputs in proportion to `x v` of these terms, and what was not passed."""
    if outputs is None:
        outputs = sum(layer.apply(x, v) for x, v in terms) + bias
    shares = tf.math.divide_no_nan(relevance, beside(outputs, epsilon))
    passed = sum(x * layer.back(shares, v) for x, v in terms)
    return passed, relevance - shares * (outputs - bias)


def _contributions(layer, sign: int) -> list[tuple]:
    """Terms that add up to the positive (or, by sign, the negative) parts of `a w`."""
    if layer.positive:
        return [(layer.inputs, _part(layer.weight, sign))]
    return [(_part(layer.inputs, s), _part(layer.weight, s * sign)) for s in (1, -1)]


def _part(values, sign: int):
    """The positive part of values, or the negative one, which is not positive."""
    return tf.maximum(values, 0) if sign > 0 else tf.minimum(values, 0)
