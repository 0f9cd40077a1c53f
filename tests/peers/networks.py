"""Small networks that are built alike in Keras and in PyTorch, from the same seeded numbers.

`tools/peers.py` computes with them what PyTorch's libraries say, in an environment of its own; only
NumPy is imported here before a network is built.
"""

from pathlib import Path

import numpy as np

STORED = Path(__file__).with_name("numbers.npz")
SIDE, CLASSES, TARGET = 16, 4, 2


def conv(channels, out, kernel=3, stride=1, groups=1):
    return "conv", {
        "channels": channels,
        "out": out,
        "kernel": kernel,
        "stride": stride,
        "groups": groups,
    }


def norm(channels):
    return "norm", {"channels": channels}


def dense(size, out):
    return "dense", {"size": size, "out": out}


def branch(*steps, shortcut=()):
    """`steps(x) + shortcut(x)`."""
    return "branch", {"steps": steps, "shortcut": shortcut}


RELU, RELU6, POOL, MEAN, FLAT = ((name, {}) for name in ("relu", "relu6", "pool", "mean", "flat"))


def _vgg(*after):
    """Convolutions, each followed by these, and two dense layers."""

    def block(channels, out):
        return (conv(channels, out), *(norm(out) for _ in after), RELU)

    features = (*block(3, 8), *block(8, 8), POOL, *block(8, 12), POOL)
    return (*features, FLAT, dense(12 * 16, 16), RELU, dense(16, CLASSES))


def _deep(channels, out, stride):
    """A depthwise block, with the shortcut where it fits."""
    steps = (conv(channels, 2 * channels, 1), norm(2 * channels), RELU6)
    steps += (conv(2 * channels, 2 * channels, 3, stride, 2 * channels), norm(2 * channels), RELU6)
    steps += (conv(2 * channels, out, 1), norm(out))
    return (branch(*steps),) if stride == 1 else steps


NETWORKS = {
    "vgg": _vgg(),
    "vgg_norm": _vgg(norm),
    "residual": (
        *(conv(3, 8), norm(8), RELU),
        branch(conv(8, 8), norm(8), RELU, conv(8, 8), norm(8)),
        RELU,
        branch(
            *(conv(8, 12, 3, 2), norm(12), RELU, conv(12, 12), norm(12)),
            shortcut=(conv(8, 12, 1, 2), norm(12)),
        ),
        *(RELU, MEAN, dense(12, CLASSES)),
    ),
    "depthwise": (
        *(conv(3, 8, 3, 2), norm(8), RELU6),
        *_deep(8, 8, 1),
        *_deep(8, 12, 2),
        *(RELU6, MEAN, dense(12, CLASSES)),
    ),
}


def numbers(name):
    """The weights of a network in the order of its steps, as float32 arrays of Keras' shapes."""
    rng = np.random.default_rng([*NETWORKS].index(name))

    def of(steps):
        for kind, about in steps:
            if kind == "conv":
                per_group = about["channels"] // about["groups"]
                shape = (about["kernel"], about["kernel"], per_group, about["out"])
                scale = (2 / np.prod(shape[:3])) ** 0.5
                yield rng.normal(0, scale, shape)
                yield rng.normal(0, 0.2, about["out"])
            elif kind == "dense":
                yield rng.normal(0, (2 / about["size"]) ** 0.5, (about["size"], about["out"]))
                yield rng.normal(0, 0.2, about["out"])
            elif kind == "norm":  # gamma, beta, mean, variance
                yield rng.uniform(0.6, 1.6, about["channels"])
                yield rng.normal(0, 0.4, about["channels"])
                yield rng.normal(0, 0.4, about["channels"])
                yield rng.uniform(0.5, 1.5, about["channels"])
            elif kind == "branch":
                yield from of(about["steps"])
                yield from of(about["shortcut"])

    return (array.astype(np.float32) for array in of(NETWORKS[name]))


def pictures(count, seed):
    """Pictures `(N, 16, 16, 3)` in -1..1, in Keras' order of axes."""
    values = np.random.default_rng(seed).uniform(-1, 1, (count, SIDE, SIDE, 3))
    return values.astype(np.float32)


IMAGES, BASELINES = pictures(2, 100), pictures(3, 200)  # DeepLIFT has the first baseline


def in_keras(name):
    """A network as a Keras model."""
    from xai_utils import keras

    layers, made = keras.layers, []

    def of(steps, x):
        for kind, about in steps:
            if kind == "conv":
                x = layers.ZeroPadding2D(about["kernel"] // 2)(x)
                settings = {"strides": about["stride"]}
                if about["groups"] > 1:
                    made.append(layers.DepthwiseConv2D(about["kernel"], **settings))
                else:
                    made.append(layers.Conv2D(about["out"], about["kernel"], **settings))
            elif kind == "dense":
                made.append(layers.Dense(about["out"]))
            elif kind == "norm":
                made.append(layers.BatchNormalization(epsilon=1e-5))
            if kind in ("conv", "dense", "norm"):
                x = made[-1](x)
            elif kind == "branch":
                x = layers.add([of(about["steps"], x), of(about["shortcut"], x)])
            elif kind in ("relu", "relu6"):
                x = layers.ReLU(6.0 if kind == "relu6" else None)(x)
            elif kind == "pool":
                x = layers.MaxPool2D(2)(x)
            else:
                x = (layers.GlobalAveragePooling2D() if kind == "mean" else layers.Flatten())(x)
        return x

    inputs = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(inputs, of(NETWORKS[name], inputs), name=name)
    arrays = numbers(name)
    for layer in made:
        weights = [next(arrays) for _ in layer.weights]
        if isinstance(layer, layers.DepthwiseConv2D):
            weights[0] = weights[0].swapaxes(2, 3)
        layer.set_weights(weights)
    return model
