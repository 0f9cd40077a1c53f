"""Which activations a network computes with, read off its graph while that is traced.

Layers, `activation=` and functions called by hand come out alike: what counts is the operations
between pixels and score. Keras gives the name where it knows it.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from xai_utils.engine import keras, tf
from xai_utils.models import replaced_calls, walk

RELUS = ("Relu", "Relu6")
# operations that are, or are a part of, no other activation
_OPERATIONS = {
    "Elu": "ELU",
    "Selu": "SELU",
    "LeakyRelu": "leaky ReLU",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Erf": "GELU",
    "Erfc": "GELU",
    "Tanh": "tanh",
}
_SPOKEN = {
    "celu": "CELU",
    "elu": "ELU",
    "gelu": "GELU",
    "hard_silu": "hard-swish",
    "leaky_relu": "leaky ReLU",
    "prelu": "PReLU",
    "selu": "SELU",
    "silu": "SiLU",
}
# Of these the graph tells: rectifiers have a rule, gates and endings keep their gradient.
_LEFT_TO_THE_GRAPH = ("linear", "relu", "relu6", "sigmoid", "hard_sigmoid", "glu", "softmax")
_WEIGHTED = ("Conv", "MatMul", "Einsum", "DepthwiseConv", "PartitionedCall")
_FORWARDED = ("Mul", "AddV2", "Sub", "RealDiv", "Neg", "Minimum", "Cast", "Identity", "Reshape")


class Call(NamedTuple):
    """A layer or operation that ran.

    Attributes:
        path: of the layer.
        layer: itself.
        first, last: of the graph's operations it made `operations[first:last]`.
    """

    path: str
    layer: keras.Operation
    first: int
    last: int


@contextlib.contextmanager
def noted_calls(model: keras.Model, graph: tf.Graph) -> Iterator[list[Call]]:
    """Note which layers make which operations of a graph, while the model is traced in the block.

    Args:
        model: a Keras model: flat, nested, Sequential or subclassed.
        graph: in which it is traced.

    Yields:
        A list, filled as the model is traced, inner layers before outer ones.
    """
    calls: list[Call] = []

    def noting(path, layer, call):
        def noted(*args, **kwargs):
            first = graph.version
            returned = call(*args, **kwargs)
            calls.append(Call(path, layer, first, graph.version))
            return returned

        return noted

    steps = {layer: functools.partial(noting, path, layer) for path, layer in walk(model)}
    with replaced_calls(steps):
        yield calls


def is_hard_sigmoid(operation: tf.Operation) -> bool:
    """Whether a ReLU6 is the middle of a hard sigmoid, `ReLU6(x + 3) / 6`."""
    if operation.type != "Relu6":
        return False
    given = operation.inputs[0].op
    return given.type == "AddV2" and 3 in map(_constant, given.inputs)


def is_inside(operation: tf.Operation) -> bool:
    """Whether a sum is part of an activation: the `x + 3` of hard sigmoid, `1 + tanh` of GELU."""
    constants = [*map(_constant, operation.inputs)]
    if 1 in constants and any(given.op.type in ("Erf", "Tanh") for given in operation.inputs):
        return True
    return 3 in constants and any(map(is_hard_sigmoid, operation.outputs[0].consumers()))


def other_than_relu(graph: tf.Graph, images, scores, calls: list[Call]) -> tuple[str, str] | None:
    """The first activation between pixels and scores that is neither ReLU nor ReLU6.

    What makes no features is passed: a sigmoid or hard sigmoid that weighs other features (a gate,
    as in squeeze-and-excitation), softmax, and whatever no weights follow. An activation that is
    written by hand with comparisons (`where`) is not recognised.

    Args:
        graph: holds all operations.
        images, scores: tensors of the graph.
        calls: of `noted_calls`.

    Returns:
        Its name for people and the path of a layer that has it, which is empty if the model's own
        `call` has it; None if there is none.
    """
    operations = graph.get_operations()
    way = _Way(operations, images, scores)
    for number, operation in enumerate(operations):
        if operation not in way.on:
            continue
        around = [call for call in calls if call.first <= number < call.last]
        found = _found(operation, way)
        # only the innermost, for a block may have an activation that this is not
        name = _named(around[0].layer) if around else None
        is_last = around and number == around[0].last - 1
        if name not in (None, *_LEFT_TO_THE_GRAPH) and (found or is_last):
            found = _SPOKEN.get(name, name.replace("_", " "))
        if found and way.weighted_after(operation):
            return found, around[0].path if around else ""
    return None


class _Way:
    """The operations of a graph that lie between pixels and scores."""

    def __init__(self, operations, images, scores):
        self.of_images, self.on = {images.op}, set()
        for operation in operations:
            if any(given.op in self.of_images for given in operation.inputs):
                self.of_images.add(operation)
        todo = [scores.op]
        while todo:
            operation = todo.pop()
            if operation in self.of_images and operation not in self.on:
                self.on.add(operation)
                todo += [given.op for given in operation.inputs]
        self._weighted = {}

    def inputs(self, operation) -> list:
        """What an operation is given that depends on the pixels."""
        return [given for given in operation.inputs if given.op in self.of_images]

    def consumers(self, operation) -> list:
        """The operations on the way that an operation's result is given to."""
        return [user for out in operation.outputs for user in out.consumers() if user in self.on]

    def weighted_after(self, operation) -> bool:
        """Whether weights follow it."""
        todo, seen = self.consumers(operation), set()
        while todo:
            user = todo.pop()
            if any(kind in user.type for kind in _WEIGHTED):
                return True
            if user not in seen:
                seen.add(user)
                todo += self.consumers(user)
        return False

    def origin(self, tensor):
        """What a tensor was made from, one number from one number, by constants or weights."""
        while tensor.op.type in _FORWARDED and len(self.inputs(tensor.op)) == 1:
            tensor = self.inputs(tensor.op)[0]
        return tensor.ref()


def _found(operation, way: _Way) -> str | None:
    """The name of the activation that an operation is, if that is neither a ReLU nor a gate."""
    if operation.type == "Sigmoid" or is_hard_sigmoid(operation):
        return _squashing(operation, way)
    if operation.type == "Tanh" and any(
        user.type == "AddV2" and 1 in map(_constant, user.inputs)
        for user in way.consumers(operation)
    ):
        return "GELU"  # as it is approximated
    if operation.type == "Maximum":
        origins = {way.origin(given) for given in way.inputs(operation)}
        if 0 in map(_constant, operation.inputs):  # the end of a ReLU's upper bound, or a ReLU
            return None if {ref.deref().op.type for ref in origins} & {*RELUS} else "maximum(x, 0)"
        return "leaky ReLU" if len(way.inputs(operation)) == 2 and len(origins) == 1 else None
    return _OPERATIONS.get(operation.type)


def _squashing(operation, way: _Way) -> str | None:
    """A (hard) sigmoid: what it is a part of; None if it weighs other features."""
    hard, origin = operation.type != "Sigmoid", way.origin(operation.inputs[0])
    todo = way.consumers(operation)
    while todo:
        user = todo.pop()
        if user.type == "Mul" and len(way.inputs(user)) == 2:
            if origin in map(way.origin, user.inputs):
                return "hard-swish" if hard else "SiLU"
            return None
        if user.type in (*_FORWARDED, "ExpandDims", "Squeeze", "BroadcastTo", "Tile"):
            todo += way.consumers(user)
    return "hard sigmoid" if hard else "sigmoid"


def _constant(tensor) -> float | None:
    value = tf.get_static_value(tensor)
    return float(value) if value is not None and value.size == 1 else None


def _named(layer: keras.Operation) -> str | None:
    """What Keras calls the activation of a layer or operation; None if it does not know."""
    function: Callable | None = getattr(layer, "activation", None)
    if callable(function) and not isinstance(function, keras.layers.Layer):
        name = getattr(function, "__name__", "")
        return name if getattr(keras.activations, name, None) is function else None
    kind = type(layer).__name__
    if kind in ("PReLU", "ELU", "ReLU", "Softmax", "LeakyReLU"):
        return {"PReLU": "prelu", "LeakyReLU": "leaky_relu"}.get(kind, kind.lower())
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
    is_layer = isinstance(layer, keras.layers.Layer)
    return name if not is_layer and hasattr(keras.activations, name) else None
