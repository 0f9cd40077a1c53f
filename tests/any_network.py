"""A network of known answers for any size, channels, precision and range of pixels."""

import numpy as np

from xai_utils import keras
from xai_utils.engine import cached

layers = keras.layers
# (height, width, channels) and what the network computes in
KINDS = {
    "grey": (24, 24, 1, "float32"),
    "bands": (24, 24, 5, "float32"),
    "wide": (48, 96, 3, "float32"),
    "float32": (24, 24, 3, "float32"),
    "float16": (24, 24, 3, "mixed_float16"),
    "bfloat16": (24, 24, 3, "mixed_bfloat16"),
}


def bright_net(height, width, channels, policy="float32") -> keras.Model:
    """A network of two classes; the first one's score grows with bright places, larger than 2 x 2.

    Its input has no dtype of its own, so that it is float32 under every policy.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((height, width, channels))
        x = layers.Rescaling(1 / 255)(inputs)
        x = layers.Conv2D(2, 3, padding="same", activation="relu", name="bright")(x)
        x = layers.MaxPooling2D(2)(x)
        x = layers.Conv2D(2, 1, activation="relu", name="features")(x)
        x = layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, layers.Dense(2, name="logits")(x), name="bright_net")
    finally:
        keras.config.set_dtype_policy(before)
    kernel = np.full((3, 3, channels, 2), 1 / (9 * channels))
    model.get_layer("bright").set_weights([kernel, np.full(2, -0.6)])
    model.get_layer("features").set_weights([np.eye(2)[None, None] * [[2.0], [1.0]], np.zeros(2)])
    model.get_layer("logits").set_weights([np.array([[8.0, 0.1], [4.0, 0.0]]), np.array([0, 0.05])])
    cached(model, "pixels", lambda: (0.0, 255.0))
    return model


class ClassToken(layers.Layer):
    """Puts a token of zeros and a one before the others."""

    def call(self, x):
        place = keras.ops.zeros_like(x[:, :1, 0], "int32") + 1
        token = keras.ops.one_hot(place, x.shape[-1], dtype=x.dtype)
        return keras.ops.concatenate([token, x], axis=1)


def bright_vit(height, width, channels, policy="float32") -> keras.Model:
    """As `bright_net`, a transformer: its class token attends to bright patches of 4 x 4 pixels."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((height, width, channels))
        x = layers.Rescaling(1 / 255)(inputs)
        x = layers.Conv2D(6, 4, 4, name="patches")(x)  # brightness, 1, and what nobody reads
        x = ClassToken(name="class_token")(layers.Reshape((-1, 6), name="tokens")(x))
        attend = layers.MultiHeadAttention(1, 2, use_bias=False, name="attention")
        x = layers.Add(name="sum")([x, attend(x, x)])
        x = layers.Dense(2, name="logits")(x[:, 0])
        model = keras.Model(inputs, x, name="bright_vit")
    finally:
        keras.config.set_dtype_policy(before)
    kernel = np.random.default_rng(0).normal(size=(4, 4, 1, 6)).repeat(channels, axis=2)
    kernel[..., 0], kernel[..., 1] = 1, 0
    model.get_layer("patches").set_weights([kernel / (16 * channels), np.eye(6)[1]])
    query, key, same = np.zeros((6, 1, 2)), np.zeros((6, 1, 2)), np.eye(6, 2)
    query[1, 0, 0], key[0, 0, 0] = 8, 1
    attend.set_weights([query, key, same[:, None], same.T[None]])
    model.get_layer("logits").set_weights([np.eye(6, 1) * [8, 0.1], np.array([0, 0.05])])
    cached(model, "pixels", lambda: (0.0, 255.0))
    return model


def planted(height, width, channels):
    """Two dark pictures `(2, H, W, C)` with a bright square, and where it is, bool `(2, H, W)`."""
    images = np.random.default_rng(0).uniform(0, 20, (2, height, width, channels))
    masks = np.zeros((2, height, width), bool)
    masks[0, -14:-6, -10:-2] = masks[1, 4:12, 6:14] = True
    images[masks] += 200
    return images.astype(np.float32), masks


def in_range(low, high, known=True, build=bright_net) -> keras.Model:
    """`bright_net` or `bright_vit` for pixels in another range."""
    pixels = keras.Input((24, 24, 3))
    scaled = layers.Rescaling(255 / (high - low), offset=-low * 255 / (high - low))(pixels)
    model = keras.Model(pixels, build(24, 24, 3)(scaled), name="in_range")
    if known:
        cached(model, "pixels", lambda: (low, high))
    return model
