"""What lies between the pixels and a score, operation by operation, in a graph being traced.

A layer may compute several things, and a network things outside its layers. Its graph has them all:
`between` lists them, `carried_back` goes through them from the score to the pixels with a rule for
each. It also goes where TensorFlow's own gradient would take a short cut, as through its SiLU.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xai_utils.engine import keras, tf, widened
from xai_utils.models import NEED_ONLY_SCORES, score, walk

# Linear in all they take, taken together; but for a constant that an input adds.
LINEAR = frozenset(
    str.split(
        "Add AddN AddV2 AvgPool BatchToSpaceND BiasAdd BroadcastTo Cast CheckNumerics"
        " ConcatV2 Conv2DBackpropInput CropAndResize Cumsum DepthToSpace EnsureShape"
        " ExpandDims FusedBatchNormV3 GatherNd GatherV2 Identity IdentityN"
        " ImageProjectiveTransformV3 Mean MirrorPad Neg Pack Pad PadV2 Reshape ResizeArea"
        " ResizeBicubic ResizeBilinear ResizeNearestNeighbor ReverseV2 Roll"
        " ScaleAndTranslate Select SelectV2 Slice SpaceToBatchND SpaceToDepth Split SplitV"
        " Squeeze StopGradient StridedSlice Sub Sum Tile Transpose Unpack"
    )
)
# Linear in each of two things that they multiply.
PRODUCTS = frozenset(
    str.split("BatchMatMulV2 BatchMatMulV3 Conv2D DepthwiseConv2dNative Einsum MatMul Mul")
)
# A function of each number by itself; where it takes two tensors, one of them is constant.
ELEMENTWISE = frozenset(
    str.split(
        "Abs Atan ClipByValue Cos Elu Erf Erfc Exp Expm1 Inv LeakyRelu Log Log1p Maximum"
        " Minimum Pow Reciprocal Relu Relu6 Rsqrt Selu Sigmoid Sin Softplus Softsign Sqrt"
        " Square Tanh"
    )
)
_CONVOLUTION = {
    "Const",
    "Conv2D",
    "DepthwiseConv2dNative",
    "Identity",
    "NoOp",
    "ReadVariableOp",
}
CALLS = ("PartitionedCall", "StatefulPartitionedCall")  # Keras compiles grouped convolutions so
# What they give does not depend on the values, or nobody sees how.
_OPAQUE = ("EagerPyFunc", "OnesLike", "PyFunc", "Rank", "Shape", "ShapeN", "Size", "ZerosLike")


@dataclass(frozen=True)
class Step:
    """An operation on the way from the pixels to a score.

    Attributes:
        operation: the operation of the graph.
        wanted: which of its inputs depend on the pixels.
        incoming: for each output, what came back to it from the score, or None.
    """

    operation: tf.Operation
    wanted: tuple[int, ...]
    incoming: tuple

    @property
    def inputs(self) -> list:
        return list(self.operation.inputs)

    def pulled_back(self, inputs: Sequence | None = None, incoming: Sequence | None = None) -> list:
        """What comes back to the wanted inputs by the operation's own derivative.

        Args:
            inputs: where the derivative is taken; default the operation's own inputs.
            incoming: what comes to each output, or None; default the step's own.

        Returns:
            A tensor, or None, for each of `wanted`.
        """
        inputs = self.inputs if inputs is None else inputs
        incoming = self.incoming if incoming is None else incoming
        if self.operation.type == "StopGradient":
            return list(incoming)
        if self.operation.type in CALLS:
            sources = [inputs[k] for k in self.wanted]
            # once differentiated, a call also returns what its derivative needs
            outputs = self.operation.outputs[: len(incoming)]
            return self._gradients(outputs, sources, incoming)
        fresh = [tf.identity(x) if k in self.wanted else x for k, x in enumerate(inputs)]
        came = self._gradients(
            again(self.operation, fresh), [fresh[k] for k in self.wanted], incoming
        )
        if self.operation.type in ELEMENTWISE and came[0].shape.as_list() == incoming[0].shape:
            # where nothing came nothing goes on, though the slope be infinite, as of a root at 0
            came[0] = tf.where(incoming[0] == 0, tf.zeros_like(came[0]), came[0])
        return came

    @staticmethod
    def _gradients(outputs, sources, incoming):
        came = [(y, g) for y, g in zip(outputs, incoming, strict=True) if g is not None]
        return tf.gradients([y for y, _ in came], sources, [g for _, g in came])


def again(operation: tf.Operation, inputs: Sequence) -> list:
    """The outputs of an operation once more, on other inputs, with TensorFlow's own gradient."""
    make = getattr(tf.raw_ops, operation.type)
    settings = inspect.signature(make).parameters
    names = [argument.name for argument in operation.op_def.input_arg]
    given = {
        a.name: operation.get_attr(a.name) for a in operation.op_def.attr if a.name in settings
    }
    # the public names of a few inputs differ, as `axis` of Mean
    others = [name for name in settings if name not in names and name not in given]
    left = list(inputs)
    for argument in operation.op_def.input_arg:
        value, left = left[0], left[1:]
        if argument.number_attr or argument.type_list_attr:
            more = operation.get_attr(argument.number_attr or argument.type_list_attr)
            more = (more if argument.number_attr else len(more)) - 1
            value, left = [value, *left[:more]], left[more:]
        given[argument.name if argument.name in settings else others.pop(0)] = value
    return tf.nest.flatten(make(**given))


def summed_to(value: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    """What comes back to a tensor that was repeated to the shape of a value.

    Args:
        value: what came to the repeated tensor.
        tensor: of a shape that broadcasts to that of `value`.

    Returns:
        The value added up over the repeats, of the tensor's shape.
    """
    if value.shape.as_list() == tensor.shape.as_list():
        return value
    fresh = tf.zeros_like(tensor, value.dtype)
    return tf.gradients(fresh + tf.zeros_like(value), fresh, value)[0]


def between(start: tf.Tensor, end: tf.Tensor) -> list[tf.Operation]:
    """The operations that depend on the values of one tensor and lead to another, as they run."""
    leading, waiting = set(), [end.op]
    while waiting:
        operation = waiting.pop()
        if operation not in leading:
            leading.add(operation)
            waiting += [tensor.op for tensor in operation.inputs]
    found, reached = [], {start.ref()}
    for operation in end.graph.get_operations():  # listed after those they take from
        takes = operation in leading and operation.type not in _OPAQUE
        if takes and any(tensor.ref() in reached for tensor in operation.inputs):
            found.append(operation)
            reached |= {tensor.ref() for tensor in operation.outputs}
    return found


def carried_back(start: tf.Tensor, end: tf.Tensor, rule: Callable[[Step], Sequence]) -> dict:
    """Go from a score back to the pixels, with a rule for each operation in between.

    Args:
        start: the pixels `(N, H, W, C)`.
        end: the scores `(N,)`; they begin with ones.
        rule: from a step to what comes back to each of its `wanted` inputs, a tensor or None. What
            comes to a tensor from several operations is added up.

    Returns:
        `{tensor.ref(): what came back to it}`, without tensors that nothing came back to.
    """
    steps = between(start, end)
    reached = {start.ref(), *(tensor.ref() for step in steps for tensor in step.outputs)}
    came = {end.ref(): tf.ones_like(end)}
    for operation in reversed(steps):
        incoming = tuple(came.get(tensor.ref()) for tensor in operation.outputs)
        if all(value is None for value in incoming):
            continue
        wanted = tuple(k for k, x in enumerate(operation.inputs) if x.ref() in reached)
        for k, value in zip(wanted, rule(Step(operation, wanted, incoming)), strict=True):
            key = operation.inputs[k].ref()
            if value is not None:
                came[key] = came[key] + value if key in came else value
    return came


def is_linear(step: Step) -> bool:
    """Whether an operation is linear, up to a constant, in what depends on the pixels."""
    operation = step.operation
    if operation.type in CALLS:
        return len(step.wanted) == 1 and _called(operation) <= LINEAR | _CONVOLUTION
    if operation.type == "FusedBatchNormV3" and operation.get_attr("is_training"):
        return False
    taken = [operation.inputs[k] for k in step.wanted]
    if not all(tensor.dtype.is_floating for tensor in [*taken, operation.outputs[0]]):
        return False  # a choice, or whole numbers
    return operation.type in LINEAR or operation.type in PRODUCTS and len(step.wanted) == 1


def is_convolution(step: Step) -> bool:
    """Whether an operation calls a function that is a convolution and nothing else."""
    operation = step.operation
    return operation.type in CALLS and _called(operation) <= _CONVOLUTION


def _called(operation) -> set[str]:
    """The types of operations inside a function that is called."""
    name = operation.get_attr("f").name
    functions = operation.graph.as_graph_def().library.function
    body = next(one for one in functions if one.signature.name == name)
    return {node.op for node in body.node_def}


def known_scores(model: keras.Model, images, indices, function: Callable | None):
    """Scores as `models.scores`, of classes that are known, in the graph that is being traced.

    Without a search for the top class and without a call of a compiled function, so that every
    operation on the way is one of the network's.
    """
    if function is None and len(indices.shape) == 1:  # not the classes of places

        def function(outputs):
            return tf.gather(outputs, indices, batch_dims=1)

    return score(widened(model(images, training=False)), indices, function)


def no_rule(technique: str, model: keras.Model, step: Step) -> ValueError:
    """The error that an operation has no rule, with the layer that it belongs to."""
    operation = step.operation
    several = f" of {len(step.wanted)} things that all depend on the pixels"
    return ValueError(
        f"{technique} has no rule for {operation.type}{several if len(step.wanted) > 1 else ''}, in"
        f" {layer_of(model, operation)}; {', '.join(NEED_ONLY_SCORES)} need only scores"
    )


def layer_of(model: keras.Model, operation: tf.Operation) -> str:
    """The path of the layer that an operation was made in; its own name where none was."""
    paths = {path for path, _ in walk(model)}
    found = ""
    for part in operation.name.split("/")[1:]:
        # TensorFlow numbers what is made again
        names = (f"{found}/{re.sub('_[0-9]+$', '', part)}".strip("/"), f"{found}/{part}".strip("/"))
        known = next((name for name in names if name in paths), None)
        if known is None:
            break
        found = known
    return found or operation.name
