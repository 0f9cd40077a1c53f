"""Layer-wise relevance propagation as differentiation with replaced rules.

While a model runs, the gradients of what it computes are replaced: what then flows backwards is not
the gradient but the relevance itself. So paths that part and meet again need no care: relevance,
like a gradient, adds up where a tensor is used twice.

Rules stand at two levels. Layers of weights, of normalisation and of activation are wrapped, for
their rule is about several operations at once. Everything else, in a layer, in a functional graph
or in a user's `call`, is a TensorFlow operation of few kinds, and has the rule of its kind.
"""

from collections.abc import Callable
from dataclasses import dataclass

from xai_utils.attribution.activations import is_inside
from xai_utils.attribution.operations import ELEMENTWISE, again, summed_to
from xai_utils.attribution.rules import KINDS, Box, Linear, Rule, beside, rule_name
from xai_utils.engine import keras, tf, widened
from xai_utils.models import (
    NEED_ONLY_SCORES,
    activates,
    capture,
    find_layer,
    replaced_calls,
    walk,
)

RULE = "XaiUtils_relevance"
# These only move values: their own gradient moves relevance the same way back.
MOVING = {
    "Reshape",
    "Transpose",
    "ExpandDims",
    "Squeeze",
    "Identity",
    "IdentityN",
    "EnsureShape",
    "Snapshot",
    "CheckNumerics",
    "Pad",
    "PadV2",
    "MirrorPad",
    "Slice",
    "StridedSlice",
    "ConcatV2",
    "Pack",
    "Unpack",
    "Split",
    "SplitV",
    "GatherV2",
    "GatherNd",
    "Tile",
    "BroadcastTo",
    "ReverseV2",
    "Roll",
    "Cast",
    "Select",
    "SelectV2",
    "MaxPool",
    "MaxPool3D",
    "Max",
    "SpaceToDepth",
    "DepthToSpace",
    "SpaceToBatchND",
    "BatchToSpaceND",
    "ResizeNearestNeighbor",
    "MatrixBandPart",
}
# A number of its own for each input: relevance goes through as it is.
ALONE = ELEMENTWISE | {"Neg"}
# Sums of their inputs, with weights that were not learned: each gets its share.
SUMS = {
    "AddV2",
    "Add",
    "AddN",
    "Sub",
    "BiasAdd",
    "Mean",
    "Sum",
    "AvgPool",
    "AvgPool3D",
    "ResizeBilinear",
    "ResizeBicubic",
}
# Linear in each of two inputs.
PRODUCTS = {"Mul", "RealDiv", "BatchMatMulV2", "MatMul", "Einsum"}
REPLACED = ALONE | SUMS | PRODUCTS | {"Softmax"}
GATES = {"Sigmoid", "Tanh", "Erf", "Erfc", "Softmax", "Relu6"}
POSITIVE = {"Relu", "Relu6", "Sigmoid", "Softmax", "Softplus", "Exp", "Square", "Abs"}
STILL_POSITIVE = {
    "MaxPool",
    "AvgPool",
    "Mean",
    "Max",
    "Reshape",
    "Transpose",
    "Pad",
    "Identity",
    "Cast",
    "ExpandDims",
    "Squeeze",
    "Slice",
    "StridedSlice",
    "ResizeNearestNeighbor",
    "ResizeBilinear",
}

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
DENSE = (keras.layers.Dense, keras.layers.EinsumDense)
NORMS = (
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
)


@dataclass(eq=False)
class Step:
    """A place where a layer's rule stands in for its gradient: relevance goes through as it is.

    Attributes:
        path: of the layer.
        inputs, outputs: tensors, what the layer was given and what it returned.
    """

    path: str
    inputs: tf.Tensor
    outputs: tf.Tensor

    said = "identity"  # its rule, for people

    def back(self, relevance):
        """The relevance of the inputs, and of every output what was absorbed."""
        return relevance, tf.zeros_like(relevance)


@dataclass(eq=False)
class LinearStep(Step):
    """A layer, or a part of one, that is linear but for a bias.

    Attributes:
        layer: its layer; `call` counts how often that ran before.
        apply, weight, bias: of `rules.Linear`, the latter two as functions.
        rule, bounds, positive: known when the whole model has run.
        affine: factor and summand of a normalisation that was folded into it.
    """

    layer: keras.Layer
    call: int
    apply: Callable
    weight: Callable
    bias: Callable
    rule: Rule | None = None
    bounds: tuple | None = None
    positive: bool = False
    affine: tuple | None = None

    @property
    def said(self):
        return rule_name(self.rule)

    def back(self, relevance):
        inputs = widened(self.inputs)
        weight, bias = (tf.cast(of_layer(), inputs.dtype) for of_layer in (self.weight, self.bias))
        if self.affine:
            factor, summand = self.affine
            weight, bias = (
                weight * _along_outputs(self.layer, weight, factor),
                bias * factor + summand,
            )
        linear = Linear(
            self.apply,
            inputs,
            weight,
            _beside_outputs(self.layer, bias),
            widened(self.outputs),
            tf.cast(_not_padded(self.inputs), inputs.dtype),
            self.positive,
            self.bounds,
        )
        return self.rule(linear, relevance)


@dataclass(eq=False)
class Normalising(LinearStep):
    """Batch normalisation, which is a factor and a summand; `within` are its own operations."""

    within: frozenset = frozenset()
    passes: bool = False  # it is part of another step, or of what is done to the pixels

    @property
    def said(self):
        return "folded" if self.passes else rule_name(self.rule)

    def back(self, relevance):
        return Step.back(self, relevance) if self.passes else super().back(relevance)


@dataclass
class Entry:
    """What happened to relevance at a step: scalars, added up over the batch.

    `reached` is whether there was any: what was received may also cancel out.
    """

    path: str
    rule: str
    received: tf.Tensor
    passed: tf.Tensor
    absorbed: tf.Tensor
    reached: tf.Tensor


class Propagation:
    """One run of a model whose gradients are relevance, in the graph that is being traced.

    Args:
        model: a Keras model.
        composite: pairs `(kind or layer, rule)` of `rules.read_composite`.
        gate: where two inputs are multiplied: `signal` (what is gated gets all) or `half`.
        accounts: whether to keep `entries`, what each step received, passed and absorbed.
    """

    def __init__(self, model: keras.Model, composite: tuple, gate: str, accounts: bool = False):
        self.model, self.composite, self.gate = model, dict(composite), gate
        self.graph = tf.compat.v1.get_default_graph()
        self.graph.xai_utils_propagation = self  # for `_replaced`; it dies with the graph
        self.steps: dict[str, Step] = {}
        self.entries: list[Entry] | None = [] if accounts else None
        self.paths = {id(layer): path for path, layer in reversed([*walk(model)])}
        self.named = {
            id(find_layer(model, name)): rule
            for name, rule in self.composite.items()
            if name not in KINDS
        }

    def run(self, images, pixels: tuple[float, float], names=()) -> tuple:
        """What the model returns for images, and what named layers returned on the way.

        Args:
            images: tensor `(N, H, W, C)`.
            pixels: the smallest and the largest pixel value.
            names: of layers, for `capture`.

        Returns:
            The outputs in their structure and `{name: tensor}`; gradients of them are relevance.
        """
        with (
            self.graph.gradient_override_map(dict.fromkeys(REPLACED, RULE)),
            replaced_calls(self._wrappers()),
            capture(self.model, names) as activations,
        ):
            outputs = self.model(images, training=False)
        self.images, self.depending = images, _depending(images)
        reached = self._reached(outputs)
        self._fold_normalisation()
        self._choose_rules(reached)
        self._find_bounds(pixels)
        return outputs, activations

    # While the model runs

    def _wrappers(self) -> dict:
        linear = (*DENSE, *CONVOLUTIONS, *DEPTHWISE, *SEPARABLE, *TRANSPOSED)
        wrappers = {}
        for _, layer in walk(self.model):
            if not type(layer).call.__module__.startswith("keras."):
                continue  # whose call is the user's own: its operations have their rules
            if isinstance(layer, linear):
                wrappers[layer] = self._linear(layer)
            elif isinstance(layer, keras.layers.BatchNormalization):
                wrappers[layer] = self._normalising(layer)
            elif isinstance(layer, NORMS) or (activates(layer) and not _is_softmax(layer)):
                wrappers[layer] = self._passing(layer)
        return wrappers

    def _stand_in(self, step: Step):
        """The step's outputs, whose relevance goes to its inputs by the step's own rule."""
        if tf.compat.v1.get_default_graph() is not self.graph:
            return step.outputs  # the model is asked about something else
        with self.graph.gradient_override_map({"IdentityN": RULE}):
            outputs, _ = tf.identity_n([step.outputs, step.inputs])
        self.steps[outputs.op.name] = step
        return outputs

    def _passing(self, layer):
        def wrap(call):
            def run(inputs, *args, **kwargs):
                outputs = call(inputs, *args, **kwargs)
                return self._stand_in(Step(self.paths[id(layer)], inputs, outputs))

            return run

        return wrap

    def _linear(self, layer):
        *before, (apply, weight) = _linear_parts(layer)

        def step(inputs, outputs, *parts):
            # a separable convolution has two steps a call
            calls = sum(
                isinstance(known, LinearStep) and (known.layer, known.apply) == (layer, parts[0])
                for known in self.steps.values()
            )
            return self._stand_in(
                LinearStep(self.paths[id(layer)], inputs, outputs, layer, calls, *parts)
            )

        def wrap(call):
            def run(inputs, *args, **kwargs):
                activation = layer.activation
                vars(layer)["activation"] = keras.activations.linear  # past Keras' tracking
                try:
                    outputs = call(inputs, *args, **kwargs)
                finally:
                    vars(layer)["activation"] = activation
                for first, kernel in before:  # of a separable convolution
                    between = first(inputs, kernel())
                    inputs = step(inputs, between, first, kernel, _nothing)
                outputs = step(inputs, outputs, apply, weight, lambda: _bias(layer))
                if activation in (None, keras.activations.linear):
                    return outputs
                return self._stand_in(Step(self.paths[id(layer)], outputs, activation(outputs)))

            return run

        return wrap

    def _normalising(self, layer):
        def wrap(call):
            def run(inputs, *args, **kwargs):
                before = {operation.name for operation in self.graph.get_operations()}
                outputs = call(inputs, *args, **kwargs)
                after = {operation.name for operation in self.graph.get_operations()}
                factor, summand = _affine_of(layer, len(inputs.shape))
                step = Normalising(
                    self.paths[id(layer)], inputs, outputs, layer, 0, _times, factor, summand
                )
                step.within = frozenset(after - before)
                return self._stand_in(step)

            return run

        return wrap

    # When it has run

    def _reached(self, outputs) -> set[Step]:
        """The steps between images and outputs; everything there must have a rule."""
        steps, seen = set(), set()
        waiting = [tensor.op for tensor in tf.nest.flatten(outputs)]
        while waiting:
            operation = waiting.pop()
            if operation.name in seen or not self._depends(operation.outputs[0]):
                continue
            seen.add(operation.name)
            if step := self.steps.get(operation.name):
                steps.add(step)
                waiting.append(operation.inputs[1].op)
                continue
            if operation is not self.images.op:
                self._check(operation)
            waiting += [tensor.op for tensor in operation.inputs if tensor.dtype.is_floating]
        return steps

    def _check(self, operation) -> None:
        kind, where = operation.type, operation.name.rpartition("/")[0] or operation.name
        moving = [tensor for tensor in operation.inputs if self._depends(tensor)]
        if kind == "IdentityN" and _gradient_type(operation).startswith("CustomGradient"):
            # It ends a function with a gradient of its own, such as TensorFlow's SiLU: the
            # operations inside have their rules.
            try:
                operation._set_attr("_gradient_op_type", tf.compat.v1.AttrValue(s=RULE.encode()))
                return
            except AttributeError:  # it is TensorFlow's own, and not public
                kind = "an operation with a gradient of its own"
        elif kind in ("MatMul", "BatchMatMulV2", "Einsum") and len(moving) == 1:
            kind += " with weights of its own"
        elif kind in MOVING | REPLACED:
            return
        raise ValueError(
            f"relevance has no rule for what {self.model.name} computes in {where!r}: {kind}; make"
            f" it of Keras layers, or use {', '.join(NEED_ONLY_SCORES)}"
        )

    def _depends(self, tensor) -> bool:
        return tensor.dtype.is_floating and tensor.op in self.depending

    def _fold_normalisation(self) -> None:
        """Normalisation that alone reads a linear layer becomes part of that layer."""
        for name, step in self.steps.items():
            if not isinstance(step, Normalising):
                continue
            made = step.inputs.op
            while made.type in ("Cast", "Identity"):
                made = made.inputs[0].op
            linear = self.steps.get(made.name)
            if not isinstance(linear, LinearStep) or isinstance(linear, Normalising):
                continue
            readers = {reader.name for reader in made.outputs[0].consumers()}
            if readers <= step.within | {name} and _same_channels(linear.layer, step):
                flat = [tf.reshape(part(), [-1]) for part in (step.weight, step.bias)]
                linear.affine, linear.outputs, step.passes = tuple(flat), step.outputs, True

    def _choose_rules(self, reached) -> None:
        for step in self.steps.values():
            if step not in reached or not isinstance(step, LinearStep):
                continue
            first = self._reads_pixels(step.inputs)
            if isinstance(step, Normalising):
                step.passes, kind = step.passes or first, "normalisation"
            else:
                kind = "dense" if isinstance(step.layer, DENSE) else "conv"
                kind = "first" if first and "first" in self.composite else kind
            step.rule = self.named.get(id(step.layer)) or self.composite.get(kind)
            if step.rule is None:
                raise ValueError(
                    f"layer {step.path!r} ({type(step.layer).__name__}) of {self.model.name} has no"
                    f" rule: give the composite one for {kind!r} or for {step.path!r}"
                )
            step.positive = _not_negative(step.inputs)

    def _reads_pixels(self, tensor) -> bool:
        """Whether nothing that was learned lies between the pixels and a tensor."""
        seen, waiting = set(), [tensor.op]
        while waiting:
            operation = waiting.pop()
            if operation.name in seen or operation not in self.depending:
                continue
            seen.add(operation.name)
            step = self.steps.get(operation.name)
            if isinstance(step, LinearStep) and not isinstance(step, Normalising):
                return False
            given = operation.inputs[1:] if step else operation.inputs
            waiting += [part.op for part in given if part.dtype.is_floating]
        return True

    def _find_bounds(self, pixels) -> None:
        """What the darkest and the lightest picture are at the layers that a box is for."""
        boxed = [
            step
            for step in self.steps.values()
            if isinstance(step, LinearStep)
            and isinstance(step.rule, Box)
            and None in (step.rule.low, step.rule.high)
        ]
        if not boxed:
            return
        for step in boxed:
            if not self._reads_pixels(step.inputs):
                raise ValueError(
                    f"layer {step.path!r} does not read the pixels, so the bounds of its inputs are"
                    " not known: give it rules.Box(low, high)"
                )
        ends = [self._given({step.layer for step in boxed}, value) for value in pixels]
        for step in boxed:
            one, other = (given[step.layer][step.call] for given in ends)
            step.bounds = tf.minimum(one, other), tf.maximum(one, other)

    def _given(self, layers, value: float) -> dict:
        """What layers are given, call by call, for a picture of one value."""
        found = {layer: [] for layer in layers}

        def noting(layer):
            def wrap(call):
                def run(inputs, *args, **kwargs):
                    found[layer].append(widened(inputs))
                    return call(inputs, *args, **kwargs)

                return run

            return wrap

        with replaced_calls({layer: noting(layer) for layer in layers}):
            one = self.images[:1]  # pictures of several sizes have one that is known as it runs
            self.model(tf.fill(tf.shape(one), tf.cast(value, one.dtype)), training=False)
        return found

    # Backwards

    def back(self, operation, received) -> list:
        """The relevance of an operation's inputs, None where an input does not see the pixels.

        Args:
            operation: with one output; or several, which are its inputs.
            received: the relevance of each output.
        """
        if operation.type == "IdentityN" and operation.name not in self.steps:
            return list(received)
        relevance = widened(received[0])
        if step := self.steps.get(operation.name):
            passed, absorbed = step.back(relevance)
            self._note(step.path, step.said, relevance, [passed], absorbed)
            return [None, tf.cast(passed, step.inputs.dtype)]
        passed = self._back(operation, relevance)
        self._note(operation.name.rpartition("/")[0], operation.type, relevance, passed)
        return [
            None if part is None else tf.cast(part, given.dtype)
            for part, given in zip(passed, operation.inputs, strict=True)
        ]

    def _note(self, path, rule, relevance, passed, absorbed=None) -> None:
        if self.entries is None:
            return
        received = tf.reduce_sum(relevance)
        total = sum(tf.reduce_sum(part) for part in passed if part is not None)
        kept = received - total if absorbed is None else tf.reduce_sum(absorbed)
        reached = tf.reduce_any(relevance != 0)
        self.entries.append(Entry(path, rule, received, total, kept, reached))

    def _back(self, operation, relevance) -> list:
        kind, given = operation.type, [widened(tensor) for tensor in operation.inputs]
        moving = [self._depends(tensor) for tensor in operation.inputs]
        if kind == "Softmax":  # AttnLRP, equation 12: its Taylor form
            shares = widened(operation.outputs[0])
            total = tf.reduce_sum(relevance, axis=-1, keepdims=True)
            return [given[0] * (relevance - shares * total)]
        fixed = sum(tensor.dtype.is_floating for tensor in operation.inputs) > sum(moving)
        if kind in ALONE and sum(moving) > 1:  # the larger of two: it takes all
            return _own_gradient(operation, given, relevance)
        if kind in ALONE or (kind in PRODUCTS and sum(moving) == 1):
            return _to(relevance, given, moving, [1] * len(given))
        if (
            kind in SUMS
            and fixed
            and (is_inside(operation) or self._reads_pixels(operation.outputs[0]))
        ):
            return _to(relevance, given, moving, [1] * len(given))
        if kind in ("Mul", "RealDiv"):
            return _to(relevance, given, moving, self._weights(operation))
        outputs = widened(operation.outputs[0])
        shares = tf.math.divide_no_nan(relevance, beside(outputs, self.composite["sum"].epsilon))
        multipliers = _own_gradient(operation, given, shares)
        share = 1 / sum(moving) if kind in PRODUCTS else 1
        return [
            share * tensor * multiplier if moves else None
            for tensor, multiplier, moves in zip(given, multipliers, moving, strict=True)
        ]

    def _weights(self, operation) -> list[float]:
        """How two factors share relevance: halves, or all for the one that the other gates."""
        if operation.type == "RealDiv":
            return [1, 0]
        gates = [self._is_gate(tensor) for tensor in operation.inputs]
        sizes = [tensor.shape.num_elements() or 0 for tensor in _one_of_batch(operation.inputs)]
        if self.gate == "half" or (gates[0] == gates[1] and sizes[0] == sizes[1]):
            return [0.5, 0.5]
        if gates[0] != gates[1]:
            return [0, 1] if gates[0] else [1, 0]
        return [0, 1] if sizes[0] < sizes[1] else [1, 0]

    def _is_gate(self, tensor) -> bool:
        """Whether a factor comes from a function that opens and closes, such as a sigmoid."""
        for _ in range(20):
            operation = tensor.op
            if operation.type in GATES:
                return True
            if isinstance(self.steps.get(operation.name), LinearStep):
                return False
            given = [_passed_on(tensor)] if operation.type == "IdentityN" else operation.inputs
            moving = [part for part in given if self._depends(part)]
            if len(moving) != 1:
                return False
            tensor = moving[0]
        return False


@tf.RegisterGradient(RULE)
def _replaced(operation, *relevance):
    return operation.graph.xai_utils_propagation.back(operation, relevance)


def _depending(images) -> set:
    """All operations that compute floating numbers from the images."""
    found, waiting = {images.op}, [images]
    while waiting:
        for operation in waiting.pop().consumers():
            if operation not in found and operation.type not in ("ZerosLike", "OnesLike"):
                found.add(operation)
                waiting += [tensor for tensor in operation.outputs if tensor.dtype.is_floating]
    return found


def _not_padded(tensor):
    """`(1, ...)`: 1, but 0 where a padding put something beside a tensor's values."""
    operation = tensor.op
    if operation.type in ("Pad", "PadV2"):
        return tf.pad(_not_padded(operation.inputs[0]), operation.inputs[1])
    return tf.ones_like(tensor[:1])


def _passed_on(tensor):
    """What an `IdentityN` returns as that tensor; its other inputs are beside the point.

    They are what a step, or a function with a gradient of its own, was given.
    """
    return tensor.op.inputs[tensor.value_index]


def _not_negative(tensor) -> bool:
    """Whether a tensor holds no negative number, as far as its operations tell."""
    operation = tensor.op
    if operation.type in POSITIVE:
        return True
    if operation.type == "IdentityN":
        return _not_negative(_passed_on(tensor))
    if operation.type not in STILL_POSITIVE:
        return False
    return all(_not_negative(part) for part in operation.inputs if part.dtype.is_floating)


def _linear_parts(layer) -> list[tuple[Callable, Callable]]:
    """The linear maps that a layer is made of: `(x, w) -> x w` and a function that returns w."""
    ops, kernel = keras.ops, lambda: layer.kernel
    if isinstance(layer, keras.layers.Dense):
        return [(ops.matmul, kernel)]
    if isinstance(layer, keras.layers.EinsumDense):
        return [(lambda x, w: ops.einsum(layer.equation, x, w), kernel)]
    how = {
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate,
        "data_format": layer.data_format,
    }
    strides = layer.strides

    def depthwise(x, w):
        return ops.depthwise_conv(x, w, strides, **how)

    if isinstance(layer, DEPTHWISE):
        return [(depthwise, kernel)]
    if isinstance(layer, SEPARABLE):
        return [
            (depthwise, lambda: layer.depthwise_kernel),
            (
                lambda x, w: ops.conv(x, w, 1, "valid", data_format=layer.data_format),
                lambda: layer.pointwise_kernel,
            ),
        ]
    if isinstance(layer, TRANSPOSED):
        more = {"output_padding": layer.output_padding} | how
        return [(lambda x, w: ops.conv_transpose(x, w, strides, **more), kernel)]
    return [(layer.convolution_op, kernel)]


def _bias(layer):
    """What a linear layer adds: `(channels,)`, or a number beside all outputs."""
    bias = getattr(layer, "bias", None)
    return tf.zeros((), tf.float32) if bias is None else tf.convert_to_tensor(bias)


def _nothing():
    return tf.zeros(())


def _beside_outputs(layer, bias):
    """A bias in the shape in which it is added to the layer's outputs."""
    if getattr(layer, "data_format", None) == "channels_first" and len(bias.shape) == 1:
        return tf.reshape(bias, (-1, *[1] * layer.rank))
    return bias


def _along_outputs(layer, weight, factor):
    """A factor for each output channel, in a shape that broadcasts to the layer's weights."""
    if isinstance(layer, DEPTHWISE):
        return tf.reshape(factor, weight.shape[-2:])
    return factor[:, None] if isinstance(layer, TRANSPOSED) else factor


def _same_channels(layer, step: Normalising) -> bool:
    """Whether a normalisation has a number for each output channel of a linear layer."""
    last = len(step.inputs.shape) - 1
    axis = 1 if getattr(layer, "data_format", None) == "channels_first" else last
    return step.layer.axis % (last + 1) == axis and not isinstance(layer, keras.layers.EinsumDense)


def _affine_of(layer, rank: int) -> tuple[Callable, Callable]:
    """Factor and summand of a batch normalisation, as functions, for inputs of that rank."""
    shape = [1] * rank
    shape[layer.axis] = -1

    def factor():
        scale = tf.math.rsqrt(layer.moving_variance + layer.epsilon)
        return tf.reshape(scale * layer.gamma if layer.scale else scale, shape)

    def summand():
        shift = -tf.reshape(layer.moving_mean, shape) * factor()
        return shift + tf.reshape(layer.beta, shape) if layer.center else shift

    return factor, summand


def _times(x, w):
    return x * w


def _is_softmax(layer) -> bool:
    activation = getattr(layer, "activation", None)
    return "softmax" in type(layer).__name__.lower() or activation is keras.activations.softmax


def _gradient_type(operation) -> str:
    try:
        return operation.get_attr("_gradient_op_type").decode()
    except ValueError:  # it has its own
        return ""


def _one_of_batch(tensors) -> list:
    return [
        tf.TensorSpec([1, *tensor.shape[1:]] if tensor.shape.rank else []) for tensor in tensors
    ]


def _to(relevance, given, moving, weights) -> list:
    """Shares of relevance for those inputs that see the pixels, in the inputs' own shapes."""
    return [
        weight * summed_to(relevance, tensor) if moves else None
        for tensor, moves, weight in zip(given, moving, weights, strict=True)
    ]


def _own_gradient(operation, given, incoming) -> list:
    """The gradient that an operation has without any rule."""
    given = [tf.stop_gradient(tensor) for tensor in given]
    floating = [tensor for tensor in given if tensor.dtype.is_floating]
    found = iter(tf.gradients(again(operation, given), floating, incoming))
    return [next(found) if tensor.dtype.is_floating else None for tensor in given]
