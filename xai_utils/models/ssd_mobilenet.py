"""SSDLite on MobileNetV2 as a Keras functional model: pixels in, encoded boxes and logits out.

Sources: Sandler et al., "MobileNetV2" (CVPR 2018), section 6.2 (SSDLite) and table 2; Liu et al.,
"SSD" (ECCV 2016) for the anchors. The published graph has the batch normalisation of ordinary
convolutions folded into their kernels, that of depthwise ones not; so the weights are stored. Each
activation is its own layer.
"""

from functools import partial

from xai_utils.engine import keras

layers = keras.layers

SIZE = 300  # side of the input in pixels
EPSILON = 0.0  # of the batch normalisation: the stored variance holds it
CLASSES = 91  # COCO's 90 ids and, in column 0, the background
# output channels, expansion, stride of MobileNetV2's blocks
BLOCKS = [
    (16, 1, 1),
    (24, 6, 2),
    (24, 6, 1),
    (32, 6, 2),
    *[(32, 6, 1)] * 2,
    (64, 6, 2),
    *[(64, 6, 1)] * 3,
    *[(96, 6, 1)] * 3,
    (160, 6, 2),
    *[(160, 6, 1)] * 2,
    (320, 6, 1),
]
# channels of the two convolutions of each further level
EXTRAS = [(256, 512), (128, 256), (128, 256), (64, 128)]
# The feature maps that boxes are read from: layer, positions along a side, anchors at each
# position.
LEVELS = [
    ("block13_expand_relu", 19, 3),
    ("top_relu", 10, 6),
    ("extra0_relu", 5, 6),
    ("extra1_relu", 3, 6),
    ("extra2_relu", 2, 6),
    ("extra3_relu", 1, 6),
]
ANCHORS = sum(side * side * anchors for _, side, anchors in LEVELS)  # 1917


def build(normalisation: bool = False) -> keras.Model:
    """Build the network with fresh weights.

    Args:
        normalisation: with the published graph's batch normalisation; see
            `efficientnet_lite.build`.

    Returns:
        A flat functional model: float32 RGB pixels `(N, 300, 300, 3)` in 0..255 to a dict of
        `boxes`, encodings
        `(N, 1917, 4)` relative to the anchors, and `logits` `(N, 1917, 91)`. Class column c is
        COCO's id c.
    """
    depthwise = partial(_depthwise, normalisation=normalisation)
    pixels = keras.Input((SIZE, SIZE, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescale")(pixels)
    x = _relu(x, layers.Conv2D(32, 3, 2, "same", name="stem_conv"))
    for index, (channels, expansion, stride) in enumerate(BLOCKS):
        x = _block(x, f"block{index}", channels, expansion, stride, depthwise)
    x = _relu(x, layers.Conv2D(1280, 1, name="top_conv"))
    for index, (narrow, wide) in enumerate(EXTRAS):
        x = _relu(x, layers.Conv2D(narrow, 1, name=f"extra{index}_reduce_conv"))
        x = depthwise(x, f"extra{index}", stride=2)
        x = _relu(x, layers.Conv2D(wide, 1, name=f"extra{index}_conv"))
    body, boxes, logits = keras.Model(pixels, x), [], []
    for level, (name, _, anchors) in enumerate(LEVELS):
        maps = body.get_layer(name).output
        boxes.append(_head(maps, f"box{level}", anchors, 4, depthwise))
        logits.append(_head(maps, f"class{level}", anchors, CLASSES, depthwise))
    outputs = {
        "boxes": layers.Concatenate(axis=1, name="boxes")(boxes),
        "logits": layers.Concatenate(axis=1, name="logits")(logits),
    }
    return keras.Model(pixels, outputs, name="ssd_mobilenet_v2")


def _relu(x, layer: layers.Layer):
    """A convolution or normalisation and its ReLU6, which is named after it."""
    return layers.ReLU(6.0, name=layer.name.rpartition("_")[0] + "_relu")(layer(x))


def _depthwise(x, name: str, stride: int = 1, *, normalisation: bool):
    conv = layers.DepthwiseConv2D(
        3, stride, "same", use_bias=not normalisation, name=f"{name}_depthwise_conv"
    )
    if not normalisation:
        return _relu(x, conv)
    return _relu(conv(x), layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_depthwise_bn"))


def _block(x, name: str, channels: int, expansion: int, stride: int, depthwise):
    """Inverted residual block: expand, depthwise, project; a shortcut where the shapes allow it."""
    shortcut = x
    if expansion != 1:
        x = _relu(x, layers.Conv2D(x.shape[-1] * expansion, 1, name=f"{name}_expand_conv"))
    x = layers.Conv2D(channels, 1, name=f"{name}_project_conv")(depthwise(x, name, stride))
    if stride == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _head(x, name: str, anchors: int, width: int, depthwise):
    """`width` numbers for each anchor of each position: `(N, positions * anchors, width)`."""
    x = layers.Conv2D(anchors * width, 1, name=f"{name}_conv")(depthwise(x, name))
    return layers.Reshape((-1, width), name=f"{name}_flat")(x)
