"""Small networks of the kinds that are built today, for `bird_or_tree` scenes.

Each has what sets its kind apart, a few blocks deep, and ends in the mean of its last map and one
Dense layer, so that CAM and HiResCAM are exact on that map. None can tell left from right by how it
is built: a network with mirrored weights looks at mirrored pictures as the network itself does at
the pictures.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from xai_utils import pictures
from xai_utils.engine import keras
from xai_utils.models import keeping, small_networks
from xai_utils.models.labels import name_classes

layers, ops = keras.layers, keras.ops

register = keras.saving.register_keras_serializable("xai_utils")


@register
class StochasticDepth(layers.Layer):
    """Drops a residual branch of some pictures while the network is trained.

    Source: Huang et al., "Deep networks with stochastic depth" (ECCV 2016).

    Args:
        rate: probability that a picture's branch is dropped.
        seed: of the choice.
        kwargs: those of every Keras layer.
    """

    def __init__(self, rate: float = 0.1, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.seed = rate, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, branch, training=False):
        """A branch `(N, h, w, channels)`; in training 0 or larger, so that its mean stays."""
        if not training:
            return branch
        shape = (ops.shape(branch)[0], 1, 1, 1)
        kept = keras.random.uniform(shape, seed=self.generator) >= self.rate
        return branch * ops.cast(kept, branch.dtype) / (1 - self.rate)

    def get_config(self):
        """What the layer was made with."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@register
class LayerScale(layers.Layer):
    """Multiplies every channel by a number that is learnt, small at first.

    Source: Touvron et al., "Going deeper with image transformers" (ICCV 2021), section 2.

    Args:
        first: the number at first.
        kwargs: those of every Keras layer.
    """

    def __init__(self, first: float = 0.3, **kwargs):
        super().__init__(**kwargs)
        self.first = first

    def build(self, shape):
        """Create the numbers of maps `(N, h, w, channels)`."""
        self.scale = self.add_weight((shape[-1],), keras.initializers.Constant(self.first))

    def call(self, x):
        """Maps `(N, h, w, channels)`, channel by channel."""
        return x * self.scale

    def get_config(self):
        """What the layer was made with."""
        return {**super().get_config(), "first": self.first}


@register
class WindowAttention(layers.Layer):
    """Attention among the places of each window of a map; windows may lie shifted.

    A shifted map is rolled, so that some windows hold places of two or four sides of the picture:
    they attend to their own side alone.
    Source: Liu et al., "Swin transformer" (ICCV 2021), section 3.2, with places that are learnt in
    the place of a bias.

    Args:
        window: side of a window, in places; it divides the map.
        shift: by how many places the windows lie shifted, down and to the right.
        heads: of the attention.
        kwargs: those of every Keras layer.
    """

    def __init__(self, window: int, shift: int = 0, heads: int = 3, **kwargs):
        super().__init__(**kwargs)
        self.window, self.shift, self.heads = window, shift, heads

    def build(self, shape):
        """Create the attention of maps `(N, h, w, channels)`."""
        width, tokens = shape[-1], self.window**2
        self.attention = layers.MultiHeadAttention(self.heads, width // self.heads, name="mha")
        self.attention.build((None, tokens, width), (None, tokens, width))
        self.places = self.add_weight((1, tokens, width), keras.initializers.RandomNormal(0, 0.02))

    def call(self, x):
        """Maps `(N, h, w, channels)` to maps of the same shape."""
        height, width, channels = x.shape[1:]
        if self.shift:
            x = ops.roll(x, (-self.shift, -self.shift), (1, 2))
        tokens = self._windows(x) + self.places
        mask = None
        if self.shift:
            side = self._windows(_sides(height, width, self.shift))[:, :, 0]
            same = side[:, :, None] == side[:, None, :]  # (windows, tokens, tokens)
            mask = ops.tile(same, (ops.shape(x)[0], 1, 1))
        tokens = self.attention(tokens, tokens, attention_mask=mask)
        rows, columns, side = height // self.window, width // self.window, self.window
        x = ops.reshape(tokens, (-1, rows, columns, side, side, channels))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height, width, channels))
        return ops.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x

    def _windows(self, x):
        """Maps `(N, h, w, channels)` as `(N windows, tokens, channels)`."""
        (height, width, channels), side = x.shape[1:], self.window
        x = ops.reshape(x, (-1, height // side, side, width // side, side, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, side**2, channels))

    def get_config(self):
        """What the layer was made with."""
        own = {"window": self.window, "shift": self.shift, "heads": self.heads}
        return {**super().get_config(), **own}


def _sides(height: int, width: int, shift: int):
    """To which side of the picture each place of a rolled map belongs, `(1, h, w, 1)`."""
    down, right = (np.arange(size) >= size - shift for size in (height, width))
    return ops.convert_to_tensor((2 * down[:, None] + right)[None, ..., None].astype("int32"))


@register
class Unfolded(layers.Layer):
    """A transformer block among the places of a map that lie alike in their patches.

    Source: Mehta & Rastegari, "MobileViT" (ICLR 2022), section 3.1: a map is unfolded into tokens,
    and folded back.

    Args:
        patch: side of a patch, in places; it divides the map.
        heads: of the attention.
        kwargs: those of every Keras layer.
    """

    def __init__(self, patch: int = 2, heads: int = 4, **kwargs):
        super().__init__(**kwargs)
        self.patch, self.heads = patch, heads

    def build(self, shape):
        """Create the parts for maps `(N, h, w, channels)`."""
        width = shape[-1]
        tokens = (None, shape[1] * shape[2] // self.patch**2, width)
        self.before, self.between = (layers.LayerNormalization(epsilon=1e-6) for _ in range(2))
        self.attention = layers.MultiHeadAttention(self.heads, width // self.heads, name="mha")
        self.wide, self.narrow = layers.Dense(2 * width, "silu"), layers.Dense(width)
        self.attention.build(tokens, tokens)
        for part in (self.before, self.between, self.wide):
            part.build(tokens)
        self.narrow.build((*tokens[:2], 2 * width))

    def call(self, x):
        """Maps `(N, h, w, channels)` to maps of the same shape."""
        (height, width, channels), side = x.shape[1:], self.patch
        rows, columns = height // side, width // side
        x = ops.reshape(x, (-1, rows, side, columns, side, channels))
        x = ops.reshape(ops.transpose(x, (0, 2, 4, 1, 3, 5)), (-1, rows * columns, channels))
        normal = self.before(x)
        x = x + self.attention(normal, normal)
        x = x + self.narrow(self.wide(self.between(x)))
        x = ops.reshape(x, (-1, side, side, rows, columns, channels))
        x = ops.transpose(x, (0, 3, 1, 4, 2, 5))
        return ops.reshape(x, (-1, height, width, channels))

    def get_config(self):
        """What the layer was made with."""
        return {**super().get_config(), "patch": self.patch, "heads": self.heads}


def _conv(x, channels, kernel=1, stride=1, activation=None, **settings):
    """A convolution with batch normalisation; even kernels where it strides, which see both sides
    alike."""
    x = layers.Conv2D(channels, kernel, stride, "same", use_bias=False, **settings)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.Activation(activation)(x) if activation else x


def _grouped(x):
    """As ResNeXt: grouped convolutions between 1 x 1 ones."""
    x = _conv(x, 32, 4, 2, "relu")
    for stride in (2, 1):
        branch = _conv(_conv(x, 32, activation="relu"), 32, 4 if stride > 1 else 3, stride, "relu")
        branch = _conv(branch, 32, 3, activation="relu", groups=4)
        shortcut = _conv(layers.AveragePooling2D(2)(x), 48) if stride > 1 else x
        x = layers.ReLU()(layers.Add()([_conv(branch, 48), shortcut]))
    return x


def _squeezed(x):
    """As MobileNetV3: inverted bottlenecks with hard-swish and squeeze-and-excitation."""
    x = _conv(x, 16, 4, 2, "hard_silu")
    for channels, stride in ((24, 2), (24, 1)):
        branch = _conv(x, 64, activation="hard_silu")
        kernel = 4 if stride > 1 else 3
        branch = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False)(branch)
        branch = layers.BatchNormalization(momentum=0.9)(branch)
        branch = layers.Activation("hard_silu")(branch)
        gate = layers.GlobalAveragePooling2D(keepdims=True)(branch)
        gate = layers.Conv2D(16, 1, activation="relu")(gate)
        gate = layers.Conv2D(64, 1, activation="hard_sigmoid")(gate)
        branch = _conv(layers.Multiply()([branch, gate]), channels)
        x = layers.Add()([x, branch]) if stride == 1 else branch
    return _conv(x, 64, activation="hard_silu")


def _convnext(x):
    """As ConvNeXt: LayerNorm, GELU, LayerScale and stochastic depth; normalised before the mean."""
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(48, 4, 4)(x))
    for number in range(3):
        branch = layers.DepthwiseConv2D(7, padding="same")(x)
        branch = layers.LayerNormalization(epsilon=1e-6)(branch)
        branch = layers.Dense(48)(layers.Dense(96, activation="gelu")(branch))
        branch = StochasticDepth(0.05, number)(LayerScale()(branch))
        x = layers.Add()([x, branch])
    return layers.LayerNormalization(epsilon=1e-6, name="norm")(x)


def _windowed(x):
    """As Swin: attention in windows that are shifted every second time, places merged between."""
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(48, 4, 4)(x))
    for window, shift in ((4, 0), (4, 2), (6, 0)):
        if window == 6:
            x = layers.Conv2D(72, 2, 2, use_bias=False)(layers.LayerNormalization(epsilon=1e-6)(x))
        branch = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, WindowAttention(window, shift)(branch)])
        branch = layers.LayerNormalization(epsilon=1e-6)(x)
        branch = layers.Dense(x.shape[-1])(layers.Dense(2 * x.shape[-1], activation="gelu")(branch))
        x = layers.Add()([x, branch])
    return layers.LayerNormalization(epsilon=1e-6, name="norm")(x)


def _hybrid(x):
    """As MobileViT: convolutions, and transformer blocks between them."""
    x = _conv(_conv(x, 16, 4, 2, "silu"), 32, 4, 2, "silu")
    near = _conv(x, 32, 3, activation="silu")
    far = layers.Conv2D(48, 1)(near)
    for _ in range(2):
        far = Unfolded()(far)
    far = _conv(layers.LayerNormalization(epsilon=1e-6)(far), 32, activation="silu")
    x = _conv(layers.Concatenate()([x, far]), 32, 3, activation="silu")
    return _conv(x, 64, activation="silu")


KINDS = {
    "grouped": _grouped,
    "squeezed": _squeezed,
    "convnext": _convnext,
    "windowed": _windowed,
    "hybrid": _hybrid,
}
BATCH = 32  # pictures in a step


def build(kind: str, seed: int = 0) -> keras.Model:
    """A small network of a kind for scenes, with fresh weights.

    Args:
        kind: `grouped` (convolutions in groups, as ResNeXt), `squeezed` (squeeze-and-excitation and
            hard-swish, as MobileNetV3), `convnext`, `windowed` (attention in shifted windows, as a
            Swin transformer) or `hybrid` (convolutions and attention, as MobileViT).
        seed: of the weights; default 0.

    Returns:
        A flat functional model: pixels `(N, 48, 48, 3)` in 0..255 to logits `(N, 2)`. Its last map
        has 12 x 12 places, of `windowed` 6 x 6.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    size = pictures.bird_or_tree.SIZE
    inputs = keras.Input((size, size, 3), name="pixels")
    x = layers.Rescaling(1 / 64, offset=-2, name="rescale")(inputs)
    x = KINDS[kind](layers.GroupNormalization(-1, name="light")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(2, name="logits")(x), name=f"small_{kind}")
    small_networks.draw_kernels(model, seed)
    name_classes(model, pictures.bird_or_tree.CLASSES)
    return model


def trained(
    kind: str,
    phases: Sequence[tuple[float, float, int]],
    seed: int = 0,
    count: int = 2000,
    progress: Callable | None = None,
    folder: Path | None = None,
) -> list[list[np.ndarray]]:
    """Train a network of a kind, or fetch it from disk.

    It is there if it was trained before with the same parameters by the same code.

    Args:
        kind: as `build` is given it.
        phases: one after another, `(P(tree | bird), P(tree | fish), steps)`.
        seed: of the first weights, of the scenes and of their order.
        count: scenes in each phase's training set.
        progress: called as `(step, steps, [loss])`; not called when the network is fetched.
        folder: where networks are kept; default as of `small_networks.trained`.

    Returns:
        The weights after each phase, for `model.set_weights`.

    Raises:
        ValueError: an unknown kind, no phase, no steps, or what `bird_or_tree.sample` finds wrong.
    """
    phases = small_networks.checked_phases(phases)
    data = (seed, count, "texture", False)
    return keeping.kept(
        small_networks.key(build, kind, phases, *data, BATCH, small_networks.RATE),
        len(phases),
        lambda: small_networks.fitted(build(kind, seed), phases, data, BATCH, progress=progress),
        folder=folder,
    )
