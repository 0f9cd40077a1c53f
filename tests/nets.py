"""Small networks whose explanations are known beforehand, in every shape a Keras model comes in."""

import numpy as np

from xai_utils import keras

layers = keras.layers


def gap_net(
    classes: int = 5, size: int = 12, channels: int = 6, seed: int = 0, bias: bool = True
) -> keras.Model:
    """Two convolutions, global average pooling, one Dense layer: CAM is exact on `features`."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((size, size, 3), dtype=keras.config.dtype_policy().compute_dtype)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="early")(inputs)
    x = layers.Conv2D(channels, 3, strides=2, padding="same", activation="relu", name="features")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    initial = keras.initializers.RandomNormal(stddev=0.1, seed=seed)
    head = layers.Dense(classes, use_bias=bias, bias_initializer=initial, name="logits")
    return keras.Model(inputs, head(x), name="gap")


def colour_net(head, scale: float = 1) -> keras.Model:
    """Channels `seen` are a picture's red, green and blue over `scale`, pooled into two classes."""
    inputs = keras.Input((8, 8, 3))
    seen = layers.Conv2D(3, 1, use_bias=False, name="seen")(inputs)
    pooled = layers.GlobalAveragePooling2D()(seen)
    model = keras.Model(inputs, layers.Dense(2, use_bias=False, name="head")(pooled))
    model.get_layer("seen").set_weights([np.eye(3, dtype=np.float32)[None, None] / scale])
    model.get_layer("head").set_weights([np.float32(head)])
    return model


def sequential(seed: int = 0) -> keras.Sequential:
    """Without an Input layer: built by its first batch."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            layers.Conv2D(4, 3, activation="relu", name="features"),
            layers.Flatten(),
            layers.Dense(5, name="logits"),
        ]
    )


def nested(seed: int = 0) -> keras.Model:
    """A functional model inside a functional model, as transfer learning makes it."""
    inner = gap_net(seed=seed)
    body = keras.Model(inner.input, inner.get_layer("features").output, name="body")
    inputs = keras.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(body(inputs))
    return keras.Model(inputs, layers.Dense(5, name="logits")(x), name="nested")


class Block(layers.Layer):
    """A layer of layers, so that a subclassed model has some at depth two."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(6, 3, padding="same", name="features")
        self.relu = layers.ReLU(name="features_relu")

    def call(self, x):
        return self.relu(self.conv(x))


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = Block(name="block")
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(5, name="logits")

    def call(self, x):
        return self.head(self.pool(self.block(x)))


def subclassed(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return Subclassed(name="subclassed")


SHAPES = {"flat": gap_net, "sequential": sequential, "nested": nested, "subclassed": subclassed}


def two_outputs() -> keras.Model:
    """Logits and a box, as a detector has them."""
    net = gap_net()
    box = layers.Dense(4, name="box")(net.get_layer("pool").output)
    return keras.Model(net.input, {"logits": net.output, "box": box}, name="two_outputs")


def captum_net() -> tuple[keras.Model, np.ndarray]:
    """The tiny convolutional network of Captum's tests and its input, in channels-last."""
    inputs = keras.Input((4, 4, 1))
    conv = layers.Conv2D(2, 3, name="conv")
    x = layers.ReLU(name="relu")(conv(inputs))
    x = layers.Flatten()(layers.Permute((3, 1, 2))(x))
    head = layers.Dense(1, use_bias=False, name="head")
    model = keras.Model(inputs, head(x), name="captum")
    conv.set_weights([np.ones((3, 3, 1, 2)), np.array([-50.0, -75.0])])
    head.set_weights([np.array([1, 1, 1, 1, 1, -1, -1, -1], float)[:, None]])
    return model, np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)


def divided_by_spread(classes: int = 3) -> keras.Model:
    """12 x 12 pictures of one channel over their standard deviation: NaN where all pixels agree."""
    inputs = keras.Input((12, 12, 1))
    x = inputs / keras.ops.std(inputs, axis=(1, 2, 3), keepdims=True)
    x = layers.Activation("linear", name="features")(layers.Conv2D(4, 1)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name="spread")


def with_a_black_one(count: int = 4) -> np.ndarray:
    """Pictures for `divided_by_spread`, the second of them black."""
    images = np.random.default_rng(0).uniform(0, 255, (count, 12, 12, 1)).astype(np.float32)
    images[1] = 0
    return images


def batch(size: int = 12, count: int = 3, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, size, size, 3)).astype(np.float32)
