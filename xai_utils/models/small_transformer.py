"""A small vision transformer for `bird_or_tree` scenes, trained within half a minute.

Its head reads a class token or the mean of the places' tokens, and it may have registers: tokens of
no place, which the head does not read. What it relies on is measured as for `small_networks`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from xai_utils import pictures
from xai_utils.engine import keras
from xai_utils.models import keeping, small_networks
from xai_utils.models.labels import name_classes

layers = keras.layers

HEADS = ("class token", "mean")  # what the head may read
PATCH, WIDTH, DEPTH, HEAD_COUNT = 6, 64, 4, 4  # pixels; numbers a token; blocks; heads a block
BATCH, RATE, DECAY = 32, 2e-3, 0.05  # pictures in a step; highest learning rate; of the weights


@keras.saving.register_keras_serializable("xai_utils")
class Tokens(layers.Layer):
    """Tells tokens their places, and puts tokens of no place before them.

    Args:
        extra: how many tokens of no place.
        seed: of the first weights.
        kwargs: those of every Keras layer.
    """

    def __init__(self, extra: int = 0, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.extra, self.seed = extra, seed

    def build(self, shape):
        """Create the weights of tokens `(N, tokens, width)`."""
        normal = keras.initializers.RandomNormal
        first, second = (normal(0, 0.02, 2 * self.seed + number) for number in (0, 1))
        self.places = self.add_weight((1, *shape[1:]), first, name="places")
        if self.extra:
            self.before = self.add_weight((1, self.extra, shape[2]), second, name="before")

    def call(self, tokens):
        """Tokens `(N, tokens, width)` to `(N, extra + tokens, width)`."""
        tokens = tokens + self.places
        if not self.extra:
            return tokens
        before = keras.ops.repeat(self.before, keras.ops.shape(tokens)[0], axis=0)
        return keras.ops.concatenate([before, tokens], axis=1)

    def get_config(self):
        """What the layer was made with."""
        return {**super().get_config(), "extra": self.extra, "seed": self.seed}


def build(head: str = "class token", registers: int = 0, seed: int = 0) -> keras.Model:
    """A vision transformer for scenes, with fresh weights.

    Patches of 6 pixels make 8 x 8 tokens of 64 numbers, which pass four blocks of attention (four
    heads) and two Dense layers each, normalised before. As in `small_networks` the pixels'
    channels are normalised, each over one picture, so that the ground's colour hardly matters.

    Args:
        head: what the last layer reads: `class token` or `mean`, of the tokens that are places.
        registers: how many tokens of no place it has besides.
        seed: of the weights; default 0.

    Returns:
        A flat functional model of about 145 000 weights: pixels `(N, 48, 48, 3)` in 0..255 to
        logits `(N, 2)`. Before the places' tokens are the class token, if there is one, and the
        registers.

    Raises:
        ValueError: an unknown head, or a number of registers that is none.

    Source: Dosovitskiy et al., "An image is worth 16x16 words" (ICLR 2021), equations 1 to 4;
        registers: Darcet et al., "Vision transformers need registers" (ICLR 2024).
    """
    if head not in HEADS:
        raise ValueError(f"head is one of {', '.join(HEADS)}, not {head!r}")
    if not isinstance(registers, int) or registers < 0:
        raise ValueError(f"registers are a whole number of tokens, 0 or more, not {registers!r}")
    size, extra = pictures.bird_or_tree.SIZE, registers + (head == "class token")
    inputs = keras.Input((size, size, 3), name="pixels")
    x = layers.Rescaling(1 / 64, offset=-2, name="rescale")(inputs)
    x = layers.GroupNormalization(-1, name="light")(x)
    x = layers.Conv2D(WIDTH, PATCH, PATCH, name="patches")(x)
    x = layers.Reshape((-1, WIDTH), name="row_by_row")(x)
    x = Tokens(extra, seed, name="tokens")(x)
    for number in range(1, DEPTH + 1):
        x = _block(x, f"block{number}")
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    if head == "class token":
        x = x[:, 0]
    else:
        x = layers.Cropping1D((extra, 0), name="places")(x) if extra else x
        x = layers.GlobalAveragePooling1D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(2, name="logits")(x), name="small_transformer")
    small_networks.draw_kernels(model, seed)
    name_classes(model, pictures.bird_or_tree.CLASSES)
    return model


def trained(
    phases: Sequence[tuple[float, float, int]],
    head: str = "class token",
    registers: int = 0,
    seed: int = 0,
    count: int = 2000,
    ground: str = "texture",
    progress: Callable | None = None,
    folder: Path | None = None,
) -> list[list[np.ndarray]]:
    """Train a transformer, or fetch it from disk.

    It is there if it was trained before with the same parameters by the same code.

    Args:
        phases: one after another, `(P(tree | bird), P(tree | fish), steps)`: so a network can be
            repaired with other data than it began with. Each phase has a learning rate that rises
            during its first tenth and then falls to nothing.
        head, registers: as `build` is given them.
        seed: of the first weights, of the scenes and of their order.
        count: scenes in each phase's training set.
        ground: `texture` (smooth noise in a random colour) or `photos` (pieces of photographs).
        progress: called as `(step, steps, [loss])`; not called when the network is fetched.
        folder: where networks are kept; default as of `small_networks.trained`.

    Returns:
        The weights after each phase, for `model.set_weights`.

    Raises:
        ValueError: no phase, no steps, or what `build` or `bird_or_tree.sample` finds wrong.
    """
    phases = small_networks.checked_phases(phases)
    model, data = build(head, registers, seed), (seed, count, ground)
    return keeping.kept(
        small_networks.key(build, phases, head, registers, *data),
        len(phases),
        lambda: small_networks.fitted(model, phases, data, BATCH, _adamw, progress),
        folder=folder,
    )


def _block(x, name: str):
    """Attention, then two Dense layers at each token; what each returns is added."""
    normal = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm1")(x)
    attention = layers.MultiHeadAttention(HEAD_COUNT, WIDTH // HEAD_COUNT, name=f"{name}_attention")
    x = layers.Add(name=f"{name}_add1")([x, attention(normal, normal)])
    normal = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm2")(x)
    wide = layers.Dense(2 * WIDTH, activation="gelu", name=f"{name}_dense1")(normal)
    return layers.Add(name=f"{name}_add2")([x, layers.Dense(WIDTH, name=f"{name}_dense2")(wide)])


def _adamw(steps: int) -> keras.optimizers.Optimizer:
    """AdamW, whose rate rises during the first tenth of the steps, then falls to nothing."""
    warm = max(1, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        RATE / 20, max(1, steps - warm), warmup_target=RATE, warmup_steps=warm
    )
    return keras.optimizers.AdamW(rate, weight_decay=DECAY, global_clipnorm=1.0)
