"""How a network ends: its task, the scores before its probabilities, and the function between them.

Techniques explain scores before any softmax or sigmoid: a probability near 1 has no gradient left.
So the softmax or sigmoid is looked for in the network's graph, wherever it stands, and taken off a
copy of the graph; the layers are shared and none is changed. Where there is no graph to follow
(subclassed models), the layer that ran last is left without it; where no layer did it, it is
undone: the logarithm of a softmax, the logit of a sigmoid.
"""

import warnings
from typing import NamedTuple

import numpy as np

from xai_utils.engine import cached, check_model, forward, keras, tf
from xai_utils.models.layers import replaced_calls, walk

TASKS = ("classification", "multilabel", "regression", "segmentation")
DENSE = ("segmentation", "regression")  # tasks of networks that answer at every pixel
FUNCTIONS = {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid, "linear": tf.identity}
# Layers behind the probabilities that leave numbers as they are, and those that only order them.
_PASSING = ("Dropout", "Identity", "ActivityRegularization", "Cast")
_ORDERING = ("Flatten", "Reshape", "Permute")
_OF_PICTURES = TASKS[:3]  # tasks of networks that give one answer a picture
_BOTH = "scores_of_both"  # the layer that makes two scores of one
_TINY = 1e-7  # keeps the logarithm of a probability finite


class Ending(NamedTuple):
    """What stands at a network's end.

    Attributes:
        model: the same network up to its scores, `(N, units)` or `(N, h, w, units)`.
        function: what the network made of them, `softmax`, `sigmoid` or `linear`.
        undone: whether the scores are computed back from probabilities.
        bounded: whether a network whose graph does not tell returned nothing outside 0..1.
    """

    model: keras.Model
    function: str
    undone: bool = False
    bounded: bool = False


def ending(model: keras.Model, images: np.ndarray) -> Ending:
    """The scores of a network and the function behind them.

    Args:
        model: a built Keras model of one input and one output, `(N, units)` or `(N, h, w, units)`.
        images: a batch in the model's input range, on which it is tried.

    Raises:
        ValueError: outputs that are not finite.
    """
    found = _in_graph(model) or _that_ran_last(model, images) or Ending(model, "linear")
    outputs = forward(found.model, images).numpy().astype(np.float64)
    if not np.isfinite(outputs).all():
        raise ValueError(f"{model.name} returns values that are NaN or infinite")
    if found.function != "linear" or (outputs < 0).any():
        return found
    # Outputs that are never negative and sum to 1 are no scores, whatever the graph says.
    if outputs.shape[-1] > 1 and np.allclose(outputs.sum(-1), 1, atol=1e-3):
        return Ending(undone(model, "softmax"), "softmax", undone=True)
    return found._replace(bounded=bool((outputs <= 1).all()) and not _ends_linear(model))


def check_task(task, name: str) -> None:
    """Check a task that was said, or None where none was.

    Raises:
        ValueError: it is none of `TASKS`.
    """
    if task is not None and task not in TASKS:
        raise ValueError(f"{name}: task is one of {', '.join(TASKS)}, not {task!r}")


def with_task(
    found: Ending, whole: keras.Model, task: str | None, named: bool, name: str
) -> tuple[Ending, str]:
    """What a network's outputs mean, and the network with one score for each class.

    A softmax is a classification, a sigmoid for each of several units a multilabel network. One
    sigmoid unit is a classification of two: its score s is that of the second class and -s that of
    the first, of probabilities p and 1 - p. A regression's values are its scores. Where there is an
    answer at every pixel, a softmax is a segmentation, and everything else must be said: a sigmoid
    may as well be a depth.

    Args:
        found: of `ending`.
        whole: the network that `ending` was asked about.
        task: of `TASKS`, where the ending does not tell: linear units are scores of classes if they
            have names, or if the task says so.
        named: whether the classes have names.
        name: what messages call the network.

    Returns:
        An ending whose function is the task's own, and the task.

    Raises:
        ValueError: an unknown task, one that contradicts the ending, or one that must be said.
    """
    shape, function = found.model.output_shape, found.function
    units, dense = shape[-1], len(shape) == 4
    check_task(task, name)
    if dense:
        return _with_dense_task(found, whole, task, name)
    if task == "segmentation":
        raise ValueError(
            f"{name} returns {shape}, one answer a picture; a segmentation returns (None, h, w,"
            " classes)"
        )
    if task == "regression" and function != "softmax":
        return Ending(whole, "linear"), task
    allowed = {
        "softmax": ("classification",),
        "sigmoid": ("multilabel",) if units > 1 else ("classification", "multilabel"),
    }.get(function, _OF_PICTURES)
    if task and task not in allowed:
        raise ValueError(f"{name} ends in a {function} of {units} units: {allowed[0]}, not {task}")
    if function == "linear" and task is None and (units == 1 or not named or found.bounded):
        kind = "unit" if units == 1 else "units"
        what = (
            f"{units} {kind} whose values lie in 0..1"
            if found.bounded
            else f"{units} linear {kind}"
        )
        names = "" if named or units == 1 else " without names"
        raise ValueError(
            f"{name} ends in {what}{names}: say task={' or '.join(_OF_PICTURES)}, which its values"
            " are"
        )
    if found.bounded and (task == "multilabel" or units == 1):
        found = Ending(undone(whole, "sigmoid"), "sigmoid", undone=True)
    task = task or allowed[0]
    _warn_if_undone(found, name)
    if task == "multilabel":
        return found._replace(function="sigmoid"), task
    return (_of_both(found) if units == 1 else found._replace(function="softmax")), task


def _with_dense_task(
    found: Ending, whole: keras.Model, task: str | None, name: str
) -> tuple[Ending, str]:
    """`with_task` of a network that answers at every pixel."""
    (*_, units), function = found.model.output_shape, found.function
    if task is None and function != "softmax":
        channels = f"{function} channel{'s' * (units > 1)}"
        raise ValueError(
            f"{name} returns {units} {channels} at every pixel: say task={' or '.join(DENSE)},"
            " which its values are"
        )
    allowed = DENSE[:1] if function == "softmax" else DENSE
    if task and task not in allowed:
        raise ValueError(
            f"{name} gives {found.model.output_shape}, a {function} answer at every pixel: its task"
            f" is {' or '.join(allowed)}, not {task}"
        )
    if task == "regression":
        return Ending(whole, "linear"), task
    if found.bounded and units == 1:
        found = Ending(undone(whole, "sigmoid"), "sigmoid", undone=True)
    _warn_if_undone(found, name)
    if units == 1:
        return _of_both(found), "segmentation"
    function = "sigmoid" if function == "sigmoid" else "softmax"
    return found._replace(function=function), "segmentation"


def _warn_if_undone(found: Ending, name: str) -> None:
    if found.undone:
        warnings.warn(
            f"{name}: the scores are computed back from its probabilities, for its graph does not"
            f" show the {found.function}; very small and very large ones are cut",
            stacklevel=3,
        )


def _of_both(found: Ending) -> Ending:
    """Two scores of one, s for the second class and -s for the first."""
    inputs, score = found.model.inputs[0], found.model.outputs[0]
    both = keras.layers.Concatenate(name=_BOTH, dtype="float32")([-score, score])
    return Ending(keras.Model(inputs, both, name=found.model.name), "sigmoid")


def remember_task(model: keras.Model, task: str, function: str) -> None:
    """Keep with a model what its scores mean, as long as it lives."""
    cached(model, "task", lambda: (task, function))


def task_of(model: keras.Model) -> str:
    """A model's task, of `TASKS`.

    A model that `load_model` has not seen is taken for a classifier of exclusive classes.

    Args:
        model: a Keras model.

    Returns:
        `classification`, `multilabel`, `regression` or `segmentation`.
    """
    return _remembered(model)[0]


def is_dense(model: keras.Model) -> bool:
    """Whether a model answers at every pixel.

    Args:
        model: a Keras model; of one without a graph (subclassed) it is not known.

    Returns:
        True if it returns one tensor `(N, h, w, units)`.

    Raises:
        ValueError: not a Keras model.
    """
    check_model(model)
    shape = getattr(model, "output_shape", None) if getattr(model, "outputs", None) else None
    return isinstance(shape, tuple) and len(shape) == 4


def pixel_classes(model: keras.Model, scores) -> tf.Tensor:
    """Which classes a segmentation network finds at every pixel.

    The one with the highest score; of several sigmoids each whose probability is above one half.

    Args:
        model: a Keras model.
        scores: `(N, h, w, classes)`, before any softmax or sigmoid.

    Returns:
        Tensor, bool `(N, h, w, classes)`.
    """
    if function_of(model) == "sigmoid" and not _has_both(model):
        return scores > 0
    return tf.one_hot(tf.argmax(scores, axis=-1), scores.shape[-1], True, False, dtype=tf.bool)


def _has_both(model) -> bool:
    """Whether one sigmoid stands for two exclusive classes."""
    return cached(model, "both", lambda: any(part.name == _BOTH for _, part in walk(model)))


def _remembered(model) -> tuple[str, str]:
    """A model's task, and the function between its scores and its answers."""
    return cached(model, "task", lambda: ("classification", "softmax"))


def function_of(model: keras.Model) -> str:
    """What makes a model's answers of its scores.

    A classification's is `sigmoid` where one unit stands for two classes.

    Args:
        model: a Keras model.

    Returns:
        `softmax`, `sigmoid`, or `linear` for nothing.
    """
    return _remembered(model)[1]


def probabilities(model: keras.Model, scores) -> tf.Tensor:
    """What a model's task makes of its scores.

    Args:
        model: a Keras model.
        scores: `(N, classes)` or `(N, h, w, classes)`, before any softmax or sigmoid; the values of
            a regression.

    Returns:
        Tensor of that shape: a softmax, a sigmoid of each, or the values themselves; see
        `task_of`.
    """
    return FUNCTIONS[function_of(model)](scores)


def still_says(model: keras.Model, scores, classes) -> np.ndarray:
    """Whether a network still gives an answer.

    A classification does while its top class is one of `classes`, a multilabel network while the
    first of them has a probability above one half.

    Args:
        model: a Keras model.
        scores: `(N, classes)`, before any softmax or sigmoid; the values of a regression.
        classes: class indices, or one.

    Returns:
        bool `(N,)`.

    Raises:
        ValueError: a regression or a segmentation, which gives no one answer that could fall.
    """
    scores, classes = np.asarray(scores), np.atleast_1d(classes)
    task = task_of(model)
    if scores.ndim > 2:
        raise ValueError(
            f"{model.name} answers at every pixel: it has no one label that could fall; look at how"
            " far the score of a region moves"
        )
    if task == "regression":
        raise ValueError(
            f"{model.name} is a regression: its values have no label that could fall; look at how"
            " far they move"
        )
    if task == "multilabel":
        return scores[:, classes[0]] > 0
    return np.isin(scores.argmax(axis=1), classes)


def _in_graph(model) -> Ending | None:
    """The ending of a Functional or Sequential model whose last steps make probabilities."""
    outputs = getattr(model, "outputs", None) or []
    if len(outputs) != 1:
        return None
    tensor, behind = outputs[0], []
    while True:
        step, node, _ = tensor._keras_history
        given = step._inbound_nodes[node].input_tensors
        if len(given) != 1:
            return None
        if isinstance(step, keras.Model):
            inner = _in_graph(step)
            scores, function = inner and inner.model(given[0]), inner and inner.function
        else:
            function = _function_of(step)
            if getattr(step, "axis", -1) not in (-1, len(given[0].shape) - 1):
                function = "linear"  # a softmax over something else than classes
            scores = None if function == "linear" else _without(step, given[0])
        if scores is not None:
            for layer in reversed(behind):
                scores = type(layer).from_config(layer.get_config())(scores)
            return Ending(keras.Model(model.inputs, scores, name=model.name), function)
        if not _passes(step):
            return None
        behind += [step] if type(step).__name__ in _ORDERING else []
        tensor = given[0]


def _function_of(step) -> str:
    """`softmax` or `sigmoid` if that is what a layer or operation ends in, else `linear`."""
    kind = type(step).__name__.lower()
    activation = getattr(step, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__).lower()
    for function in ("softmax", "sigmoid"):
        if kind == function or name.removesuffix("_v2") == function:
            return function
    return "linear"


def _without(step, given):
    """What a layer or operation that ends in a softmax or sigmoid returns without it."""
    if not getattr(step, "weights", None):  # an activation by itself
        return given
    return _Linear(step, name=f"{step.name}_scores")(given)


def _passes(step) -> bool:
    kind = type(step).__name__
    return kind in _PASSING + _ORDERING or (kind == "Activation" and _is_linear(step.activation))


def _is_linear(activation) -> bool:
    return getattr(activation, "__name__", "") == "linear"


def _that_ran_last(model, images) -> Ending | None:
    """The ending of a model without a graph whose output is that of a softmax or sigmoid layer."""
    returned = {}

    def recorder(layer):
        def wrap(call):
            def recorded(*args, **kwargs):
                returned[layer] = call(*args, **kwargs)
                return returned[layer]

            return recorded

        return wrap

    with replaced_calls({layer: recorder(layer) for _, layer in walk(model)}):
        outputs = model(images, training=False)
    for layer, output in reversed(returned.items()):
        if output is outputs and (function := _function_of(layer)) != "linear":
            inputs = keras.Input(images.shape[1:])
            scores = _Linear(layer, model, name=f"{model.name}_scores")(inputs)
            return Ending(keras.Model(inputs, scores, name=model.name), function)
    return None


@keras.saving.register_keras_serializable("xai_utils")
class _Linear(keras.layers.Layer):
    """A network, or one layer, that runs without that layer's activation; it is left as it is."""

    def __init__(self, layer, whole=None, **kwargs):
        super().__init__(dtype=(whole or layer).dtype_policy, **kwargs)
        self.whole = whole or layer
        self.ending = lambda: layer  # not an attribute of its own: it is inside the whole

    def get_config(self):
        if self.whole is not self.ending():
            raise ValueError(
                f"{self.whole.name} has no graph, so that it cannot be copied without its"
                f" {self.ending().name}"
            )
        layer = keras.saving.serialize_keras_object(self.whole)
        return {**super().get_config(), "layer": layer}

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(layer, name=config["name"])

    def call(self, inputs):
        layer = self.ending()
        if not layer.weights:  # an activation by itself
            with replaced_calls({layer: lambda call: lambda values, *_, **__: values}):
                return self.whole(inputs)
        held = vars(layer)["activation"]
        vars(layer)["activation"] = keras.activations.linear  # past Keras' tracking
        try:
            return self.whole(inputs)
        finally:
            vars(layer)["activation"] = held


class _Undone(keras.layers.Layer):
    """Scores of probabilities: the logarithm of a softmax, the logit of a sigmoid."""

    def __init__(self, function, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.function = function

    def call(self, probabilities):
        kept = tf.clip_by_value(probabilities, _TINY, 1 - _TINY)
        scores = tf.math.log(kept)
        return scores if self.function == "softmax" else scores - tf.math.log1p(-kept)


def _ends_linear(model) -> bool:
    """Whether the graph ends in a layer of weights without an activation."""
    outputs = getattr(model, "outputs", None) or []
    while len(outputs) == 1:
        step = outputs[0]._keras_history[0]
        if isinstance(step, keras.Model):
            outputs = getattr(step, "outputs", None) or []
        elif _passes(step):
            node = step._inbound_nodes[outputs[0]._keras_history[1]]
            outputs = node.input_tensors
        else:
            return _is_linear(getattr(step, "activation", None))
    return False


def undone(model: keras.Model, function: str) -> keras.Model:
    """A model that returns scores where this one returns their `softmax` or `sigmoid`."""
    inputs = (
        model.inputs[0] if getattr(model, "inputs", None) else keras.Input(model.input_shape[1:])
    )
    outputs = model.outputs[0] if getattr(model, "inputs", None) else model(inputs)
    return keras.Model(inputs, _Undone(function, name="scores")(outputs), name=model.name)
