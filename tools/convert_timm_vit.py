"""Make a Keras network, with its card, of a vision transformer's weights as timm names them.

Where PyTorch is, `np.savez("vit.npz", **{k: v.numpy() for k, v in model.state_dict().items()})`;
here, where it need not be:

    python tools/convert_timm_vit.py vit.npz vit.keras --heads 12 --labels imagenet

Taken are plain ones (`vit_tiny` to `vit_large`) of square pictures, whose head reads the class
token or, with `global_pool="avg"`, the mean of the others. Other kinds (registers, LayerScale,
distilled) have weights that this program names and refuses.
"""

import argparse
import re
from pathlib import Path

import numpy as np

from xai_utils import keras, models
from xai_utils.models import small_transformer

layers = keras.layers
EPSILON = 1e-6  # of timm's normalisation
BLOCKS = re.compile(r"blocks\.(\d+)\.")


def network(state: dict, heads: int, epsilon: float = EPSILON) -> keras.Model:
    """The transformer in Keras: pictures `(N, H, W, 3)`, normalised as in training, to logits.

    Args:
        state: arrays by the names that timm gives them.
        heads: of attention; no weight tells how many there are.
        epsilon: of the layer normalisation.

    Raises:
        ValueError: weights that are missing, or of another transformer.
    """
    left = dict(state)

    def taken(name):
        if name not in left:
            raise ValueError(f"no weights {name!r}: this is no plain vision transformer of timm's")
        return np.asarray(left.pop(name))

    def weighted(layer, x, *weights):
        returned = layer(*x) if isinstance(x, tuple) else layer(x)
        layer.set_weights(weights)
        return returned

    def normal(name, x):
        layer = layers.LayerNormalization(epsilon=epsilon, name=_called(name))
        return weighted(layer, x, taken(f"{name}.weight"), taken(f"{name}.bias"))

    def dense(name, x, activation=None):
        kernel, bias = taken(f"{name}.weight").T, taken(f"{name}.bias")
        return weighted(layers.Dense(len(bias), activation, name=_called(name)), x, kernel, bias)

    def attention(name, x):
        width, parts = x.shape[-1], []
        kernels = np.split(taken(f"{name}.qkv.weight"), 3)
        for kernel, bias in zip(kernels, np.split(taken(f"{name}.qkv.bias"), 3)):
            parts += [kernel.T.reshape(width, heads, -1), bias.reshape(heads, -1)]
        parts.append(taken(f"{name}.proj.weight").T.reshape(heads, -1, width))
        layer = layers.MultiHeadAttention(heads, width // heads, name=_called(name))
        return weighted(layer, (x, x), *parts, taken(f"{name}.proj.bias"))

    kernel, token, places = (
        taken(name) for name in ("patch_embed.proj.weight", "cls_token", "pos_embed")
    )
    width, channels, patch, _ = kernel.shape
    side = round((places.shape[1] - 1) ** 0.5)
    inputs = keras.Input((side * patch, side * patch, channels), name="picture")
    patches = layers.Conv2D(width, patch, patch, name="patches")
    bias = taken("patch_embed.proj.bias")
    x = weighted(patches, inputs, kernel.transpose(2, 3, 1, 0), bias)
    x = layers.Reshape((side * side, width), name="row_by_row")(x)
    tokens = small_transformer.Tokens(1, name="tokens")
    x = weighted(tokens, x, places[:, 1:], token + places[:, :1])
    for number in sorted({int(found[1]) for name in state if (found := BLOCKS.match(name))}):
        block = f"blocks.{number}"
        y = attention(f"{block}.attn", normal(f"{block}.norm1", x))
        x = layers.Add(name=f"block{number}_add1")([x, y])
        y = dense(f"{block}.mlp.fc1", normal(f"{block}.norm2", x), "gelu")
        x = layers.Add(name=f"block{number}_add2")([x, dense(f"{block}.mlp.fc2", y)])
    if "fc_norm.weight" in state:
        x = layers.Cropping1D((1, 0), name="places")(x)
        x = normal("fc_norm", layers.GlobalAveragePooling1D(name="pool")(x))
    else:
        x = normal("norm", x)[:, 0]
    outputs = dense("head", x)
    if left:
        raise ValueError(f"weights {', '.join(map(repr, left))} belong to another transformer")
    return keras.Model(inputs, outputs, name="vit")


def _called(name: str) -> str:
    return name.replace("blocks.", "block").replace(".", "_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="the .npz file")
    parser.add_argument("network", type=Path, help="the .keras file to write, a card beside it")
    parser.add_argument("--heads", type=int, required=True, help="of attention")
    parser.add_argument("--preprocessing", default="tf", help="as in a card (default tf)")
    parser.add_argument("--labels", default=None, help="as in a card")
    given = parser.parse_args()
    with np.load(given.weights) as state:
        network(dict(state), given.heads, EPSILON).save(given.network)
    about = {"labels": given.labels} if given.labels else {}
    models.write_card(
        given.network.with_suffix(".yaml"),
        task="classification",
        preprocessing=given.preprocessing,
        custom_objects=["xai_utils.models.small_transformer.Tokens"],
        **about,
    )


if __name__ == "__main__":
    main()
