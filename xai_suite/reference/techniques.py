"""What a technique's page shows besides its docstring: a figure, and what it costs."""

import io
import json
from base64 import b64encode
from pathlib import Path

import numpy as np
from PIL import Image

from xai_utils import attribution, models, pictures, show

NETWORK, PICTURE = "efficientnet_lite0", "cat"
# A transformer for techniques that read attention: trained as `80_attention` trains it.
PHASES = [(0.5, 0.5, 400)]
THUMBNAIL = 480  # pixels wide
DETECTED = "coffee"  # the picture of D-RISE, which explains a detector's box
TECHNIQUES = (*attribution.TECHNIQUES, "d_rise")
# What draws a figure within seconds, where the defaults take longer.
SETTINGS = {
    "smooth_grad": {"samples": 16},
    "var_grad": {"samples": 16},
    "integrated_gradients": {"steps": 16},
    "gradient_shap": {"samples": 16},
    "xrai": {"steps": 16},
    "score_cam": {"layer": "block5c_add"},
    "occlusion": {"patch": 48, "stride": 24},
    "rise": {"masks": 512},
    "sobol": {"grid": 7, "samples": 8},
    "extremal_perturbation": {"steps": 80},
    "lime": {"samples": 128},
    "kernel_shap": {"samples": 128, "segments": 20},
    "d_rise": {"masks": 256},
}
FINE = ("gradients", "guided", "deep_lift", "relevance")  # rooms whose maps are of single pixels


def figures() -> dict[str, dict]:
    """A figure of every technique: the picture and its map, for the network's top class.

    Returns:
        By technique `src`, a WebP as a data URI, with `width` and `height`; `thumbnail`, a smaller
        one; `alt`; and `caption`.
    """
    classifier = models.load_model(NETWORK)
    batch = classifier.prepare(PICTURE)
    title = " ".join(classifier.title(classifier.top(batch, 1)[0]).split())
    usual = classifier.model, batch, f"{PICTURE}, {NETWORK}, {title}"
    without, drawn = attribution.undefined_for(classifier.model, batch.shape), {}
    other = _transformer() if without else None
    for name, method in attribution.TECHNIQUES.items():
        network, images, where = other if name in without else usual
        values = method(network, images, **SETTINGS.get(name, {}))[0]
        # Maps of single pixels hide what lies below them.
        fine = method.__module__.rpartition(".")[2] in FINE
        drawn[name] = _figure(name, images[0], values, not fine, where)
    return drawn | {"d_rise": _of_a_box()}


def _transformer() -> tuple:
    """A small trained transformer, a scene with a bird and a tree, and what both are in words."""
    network = models.small_transformer.build()
    network.set_weights(models.small_transformer.trained(PHASES)[-1])
    scenes = pictures.bird_or_tree.sample(8, 1.0, 1.0, seed=77)
    bird = int(np.argmax(scenes.labels == 0))
    images = scenes.images[bird : bird + 1].astype(np.float32)
    answer = pictures.bird_or_tree.CLASSES[int(network(images).numpy().argmax())]
    return network, images, f"a drawn scene, a small transformer trained on such, {answer}"


def _of_a_box() -> dict:
    """The figure of D-RISE: the likeliest box of a picture."""
    detector = models.load_model(models.DETECTOR)
    image = detector.prepare(DETECTED)[0]
    found = detector.find(image)[:1]
    values = attribution.d_rise(detector, image, found, **SETTINGS["d_rise"])[0]
    where = f"{DETECTED}, {models.DETECTOR}, {found[0]}"
    return _figure("d_rise", image, values, True, where, show.boxes(found))


def _figure(name: str, image, values, over: bool, where: str, boxes=()) -> dict:
    """The picture and its map side by side; `over` lays the map over the picture."""
    lowest, settings = float(values.min()), SETTINGS.get(name, {})
    notes = [where, *(f"{key}={value!r}" for key, value in settings.items())]
    if lowest > values.max() / 2:  # what all places have in common would wash the colours out
        values = values - lowest
        notes.append(f"drawn from its lowest value, {lowest:.3g}")
    below = image if over else None
    tile = show.Tile(below, values, name, unit_of(name), clip=show.CLIP)
    row = [show.Tile(image, boxes=boxes), tile]
    png = Image.open(io.BytesIO(show.png(show.tiles([row], width=3.4)))).convert("RGB")
    return {
        "src": _webp(png),
        "width": png.width,
        "height": png.height,
        "thumbnail": _webp(png.resize((THUMBNAIL, THUMBNAIL * png.height // png.width))),
        "alt": f"A picture, and beside it the map of {name}: {where}.",
        "caption": "; ".join(notes),
    }


def unit_of(name: str) -> str:
    """What a technique's values are counted in, of a network whose scores are logits."""
    if name == "d_rise":
        return "similarity"
    return attribution.ABOUT[name].unit.format("logits")


def _webp(picture: Image.Image) -> str:
    """A picture as the data URI of a WebP."""
    picture.save(small := io.BytesIO(), "WEBP", quality=85)
    return f"data:image/webp;base64,{b64encode(small.getvalue()).decode()}"


def costs(bench: Path) -> dict[str, list[str]]:
    """What each technique cost when `make bench` measured last, in words.

    Args:
        bench: the file it wrote; of a quick trial, which measures nothing, nothing is taken.
    """
    measured = json.loads(bench.read_text(encoding="utf-8")) if bench.is_file() else {}
    if measured.get("quick", True):
        return {name: ["not measured yet: make bench"] for name in TECHNIQUES}
    said = {name: [] for name in TECHNIQUES}
    for network, rows in measured["techniques"].items():
        batch = measured.get("batches", {}).get(network)  # older files do not say
        of = f"of {batch} pictures" if batch else "of its batch"
        for label, ratio, passes, _, _, _, technique in rows:
            if technique in said:
                needs = f" ({passes:.3g} passes)" if passes != 1 else ""
                said[technique].append(
                    f"{label} on {network}: {ratio:.2f} forward passes {of}{needs}"
                )
    return {name: lines or ["not among what make bench measures"] for name, lines in said.items()}
