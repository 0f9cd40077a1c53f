"""EfficientNet-Lite as a Keras functional model: ReLU6, no squeeze-and-excite, plain pooling.

Source: Tan & Le, "EfficientNet" (ICML 2019) for the block table; the Lite variants fix the stem and
the head and replace swish by ReLU6. The head is global average pooling and one Dense layer, so CAM
is exact on these networks.
"""

import math
from functools import partial

from xai_utils.engine import keras
from xai_utils.models.labels import name_classes

layers = keras.layers

# kernel, repeats, output channels, expansion, stride of the first block in the group
BLOCKS = [
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
]
EPSILON = 1e-3  # of the batch normalisation
# width multiplier, depth multiplier, input size in pixels
VARIANTS = {"efficientnet_lite0": (1.0, 1.0, 224), "efficientnet_lite2": (1.1, 1.2, 260)}


def build(name: str, size: int | None = None, normalisation: bool = False) -> keras.Model:
    """Build a variant with fresh weights.

    Args:
        name: a key of `VARIANTS`.
        size: side of the input in pixels; default the one the variant was trained on.
        normalisation: with batch normalisation as it was trained; without, each convolution has a
            bias instead, which is the same function once the normalisation is folded in:
            `models.load_model` does that.

    Returns:
        A flat functional model: float32 RGB pixels `(N, size, size, 3)` in 0..255 to logits
        `(N, 1000)`.
    """
    width, depth, trained_on = VARIANTS[name]
    size = size or trained_on
    conv = partial(_conv, normalisation=normalisation)
    inputs = keras.Input((size, size, 3), name="pixels")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(inputs)
    x = conv(x, layers.Conv2D(32, 3, 2, "same", name="stem_conv"))
    last = len(BLOCKS) - 1
    for group, (kernel, repeats, channels, expansion, stride) in enumerate(BLOCKS):
        # Lite: the first and the last group keep their number of blocks.
        repeats = repeats if group in (0, last) else math.ceil(depth * repeats)
        for index in range(repeats):
            block = f"block{group + 1}{chr(ord('a') + index)}"
            x = _block(
                x,
                block,
                kernel,
                _scaled(channels, width),
                expansion,
                stride if index == 0 else 1,
                conv,
            )
    x = conv(x, layers.Conv2D(1280, 1, name="top_conv"))
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    logits = layers.Dense(1000, name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def _scaled(channels: int, width: float) -> int:
    """Scale a channel count, rounded to a multiple of 8 and never down by more than 10 %."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def _conv(x, layer: layers.Layer, activation: bool = True, *, normalisation: bool):
    """Convolution, batch normalisation or bias, and ReLU6 if asked for, named after the first."""
    layer.use_bias, stem = not normalisation, layer.name.removesuffix("_conv")
    x = layer(x)
    if normalisation:
        x = layers.BatchNormalization(epsilon=EPSILON, name=f"{stem}_bn")(x)
    return layers.ReLU(6.0, name=f"{stem}_relu")(x) if activation else x


def _block(x, name: str, kernel: int, channels: int, expansion: int, stride: int, conv):
    """Inverted residual block: expand, depthwise, project; a shortcut where the shapes allow it."""
    shortcut, width = x, x.shape[-1] * expansion
    if expansion != 1:
        x = conv(x, layers.Conv2D(width, 1, name=f"{name}_expand_conv"))
    x = conv(x, layers.DepthwiseConv2D(kernel, stride, "same", name=f"{name}_depthwise_conv"))
    x = conv(x, layers.Conv2D(channels, 1, name=f"{name}_project_conv"), activation=False)
    if stride == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def enlarged(classifier, factor: int = 2) -> keras.Model:
    """The same network for pictures `factor` times as large, with the same weights.

    Its global average pooling reads more places.

    Args:
        classifier: of `models.load_model`, an EfficientNet-Lite.
        factor: how many times its own input size.

    Returns:
        A frozen Keras model, pixels in 0..255 to logits.

    Raises:
        ValueError: a network for which that is not known to work: one that flattens its last map
            has a fixed size.
    """
    if classifier.name not in VARIANTS:
        known = ", ".join(VARIANTS)
        raise ValueError(
            f"{classifier.name} is not rebuilt for another size, only {known} are: shrink the"
            " pictures"
        )
    model = build(classifier.name, factor * classifier.input_size[0])
    model.set_weights(classifier.model.get_weights())
    model.trainable = False
    name_classes(model, classifier.labels)
    return model
