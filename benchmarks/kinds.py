"""Do techniques find what a network looks at, whatever its kind? A table for docs/kinds.md.

Small networks of every kind learn to tell birds from fish; a tree that tells nothing may stand
anywhere. The object alone decides, so the highest place of a map should lie on it. A U-Net learns
what each pixel shows; whether a disc is a lamp or a buoy only the square beside it tells, so
outside of the disc the highest place should lie on the square (as in notebook 53). The share of
pictures in which it does stands beside that of a map drawn at random. Networks are trained once and
kept (`make clean` deletes them).

    python benchmarks/kinds.py              # prints the table
    python benchmarks/kinds.py 50 hybrid    # of fewer pictures, for one kind
"""

import sys
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from xai_utils import attribution, keras, metrics, models, pictures, tf
from xai_utils.models import small_kinds, small_segmentation, small_transformer

PICTURES, SEED = 60, 4242  # whose maps the table rests on; of their drawing
TESTED = 400  # scenes whose answers are counted
AT_LEAST = 0.95  # share of right answers, up to which a network has no column
TRANSFORMERS = {
    "ViT, class token": ("class token", 0),
    "ViT, mean of tokens": ("mean", 0),
    "ViT, class token and 4 registers": ("class token", 4),
}
OTHERS = {
    "windowed": "windows, as Swin",
    "hybrid": "hybrid, as MobileViT",
    "convnext": "as ConvNeXt",
    "squeezed": "squeeze-and-excitation and hard-swish",
    "grouped": "grouped convolutions, as ResNeXt",
}
# Of training; the others take 300.
STEPS = {"transformer": 500, "registers": 900, "windowed": 900, "convnext": 1200}
SETTINGS = {
    "smooth_grad": {"samples": 8},
    "var_grad": {"samples": 8},
    "integrated_gradients": {"steps": 16},
    "gradient_shap": {"samples": 16},
    "xrai": {"steps": 16},
    "occlusion": {"patch": 9, "stride": 3},
    "rise": {"masks": 300},
    "sobol": {"samples": 8},
    "extremal_perturbation": {"steps": 40, "grid": 12, "area": 0.1},
    "lime": {"samples": 150, "segments": 30},
    "kernel_shap": {"samples": 150, "segments": 30},
}


def networks() -> dict:
    """name -> function that returns the trained network."""
    made = {}
    for name, (head, registers) in TRANSFORMERS.items():
        phases = [(0.5, 0.5, STEPS["registers" if registers else "transformer"])]
        fresh = partial(small_transformer.build, head, registers)
        weights = partial(small_transformer.trained, phases, head, registers)
        made[name] = partial(_with_weights, fresh, weights)
    for kind, name in OTHERS.items():
        phases = [(0.5, 0.5, STEPS.get(kind, 300))]
        fresh = partial(small_kinds.build, kind)
        weights = partial(small_kinds.trained, kind, phases)
        made[name] = partial(_with_weights, fresh, weights)
    made["U-Net"] = lambda: small_segmentation.trained().model
    return made


def _with_weights(fresh, weights) -> keras.Model:
    model = fresh()
    model.set_weights(weights()[-1])
    return model


@dataclass
class Question:
    """What maps of some pictures are asked: is the highest place in `searched` also in `right`?"""

    right_answers: float  # share of them that the network gives
    images: np.ndarray  # (N, h, w, 3)
    target: object  # what is explained
    right: np.ndarray  # bool (N, h, w)
    searched: np.ndarray  # bool (N, h, w)

    @property
    def chance(self) -> float:
        return float(np.mean(self.right.sum(axis=(1, 2)) / self.searched.sum(axis=(1, 2))))


def of_the_object(model: keras.Model, count: int) -> Question:
    scenes = pictures.bird_or_tree.sample(TESTED, 0.5, 0.5, seed=SEED + 1)
    right = np.mean(models.logits_of(model, scenes.images).argmax(1) == scenes.labels)
    scenes = pictures.bird_or_tree.sample(count, 0.5, 0.5, seed=SEED)
    everywhere = np.ones_like(scenes.object_mask)
    return Question(right, scenes.images, scenes.labels, scenes.object_mask, everywhere)


def of_the_square(model: keras.Model, count: int) -> Question:
    drawn = pictures.lamp_or_buoy.sample(max(TESTED, 3 * count), seed=SEED)
    called = models.logits_of(model, drawn.images.astype(np.float32)).argmax(axis=-1)
    right = np.mean((called == drawn.classes)[drawn.disc_mask])
    lamps = np.flatnonzero(drawn.kinds == 1)[:count]
    images, disc = drawn.images[lamps].astype(np.float32), drawn.disc_mask[lamps]
    outside = ~ndimage.binary_dilation(disc, np.ones((1, 5, 5)))  # what lies at a disc's edge
    why = models.region(disc, "lamp", against="buoy")
    return Question(right, images, why, drawn.beside_mask[lamps], outside)


def found(model: keras.Model, technique: str, asked: Question, sign=1, **settings) -> float | None:
    """The share of pictures in which a map's peak lies where it should; None where refused.

    With `sign=-1` it is the lowest place that is looked for.
    """
    method, settings = attribution.METHODS[technique], SETTINGS.get(technique, {}) | settings
    try:
        maps = method(model, asked.images, asked.target, **settings)
    except ValueError:
        return None
    sized = sign * metrics.picture_sized(maps, asked.images.shape)
    sized = np.abs(sized) if technique in OF_EITHER_SIGN else sized
    return hits(sized, asked)


def hits(sized: np.ndarray, asked: Question) -> float:
    """The share of maps `(N, h, w)` whose highest place among those searched is a right one."""
    left = np.where(asked.searched, sized, sized.min() - 1)
    return float(np.mean([metrics.pointing(one, mask) for one, mask in zip(left, asked.right)]))


def why(model: keras.Model, asked: Question) -> str:
    """What is behind cells near chance: other settings, other layers, the other end of a map.

    Args:
        model: one of the networks of birds and fish.
        asked: what its maps were asked.

    Returns:
        A sentence with what was measured on the same pictures, in the same way.
    """
    lowest = found(model, "eigen_cam", asked, sign=-1)
    said = f"lowest place of Eigen-CAM {lowest:.0%}"
    for copies in (8, 64):
        share = found(model, "var_grad", asked, noise=0.3, samples=copies)
        said += f"; VarGrad, noise .3, {copies} copies {share:.0%}"
    patches = [i for i, one in enumerate(model.layers) if isinstance(one, keras.layers.Conv2D)][0]
    if not isinstance(model.layers[patches + 1], keras.layers.LayerNormalization):
        return said
    steps = [one.name for one in model.layers[patches : patches + 2]]
    images = tf.constant(asked.images, tf.float32)
    with tf.GradientTape() as tape, models.capture(model, steps, tape) as recorded:
        of_label = tf.gather(model(images), asked.target, axis=1, batch_dims=1)
    for name, slope in zip(steps, tape.gradient(of_label, [recorded[one] for one in steps])):
        sizes = metrics.picture_sized(np.linalg.norm(slope.numpy(), axis=-1), images.shape)
        said += f"; largest gradient at {name} {hits(sizes, asked):.0%}"
    layers = list(models.map_layers(model, images.shape))
    at = {name: found(model, "grad_cam", asked, layer=name) for name in layers}
    best = max(at, key=at.get)
    said += f"; Grad-CAM at {steps[0]} {at[steps[0]]:.0%}, at {layers[-2]}, the last sum,"
    return f"{said} {at[layers[-2]]:.0%}, at {best}, best of {len(at)} layers, {at[best]:.0%}"


# At one pixel the sign says which way its value would have to change.
OF_EITHER_SIGN = ("gradient_x_input", "guided_backprop", "deconvnet", "guided_grad_cam")


def main(count: int = PICTURES, *chosen: str) -> None:
    """Print the table, a row for each technique and a column for each network.

    Args:
        count: pictures of each share.
        chosen: parts of names of networks; default all.
    """
    warnings.simplefilter("ignore")  # a map of zeros has no peak, and counts as a miss
    columns, chances, answers, said = {}, {}, {}, []
    for name, make in networks().items():
        if chosen and not any(part in name for part in chosen):
            continue
        model = make()
        asked = (of_the_square if name == "U-Net" else of_the_object)(model, int(count))
        right = asked.right_answers
        print(f"{name}: {right:.1%} right, {model.count_params()} weights", file=sys.stderr)
        if right <= AT_LEAST:
            print(f"  left out: it is to answer more than {AT_LEAST:.0%} right", file=sys.stderr)
            continue
        shares = {}
        for technique in attribution.TECHNIQUES:
            shares[technique] = found(model, technique, asked)
            print(f"  {technique}: {shares[technique]}", file=sys.stderr, flush=True)
        columns[name], chances[name], answers[name] = shares, asked.chance, f"{right:.1%}"
        if name != "U-Net":  # whose layers notebook 53 compares
            said.append(f"{name}: {why(model, asked)}")
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    print(f"| right answers | {' | '.join(answers.values())} |")
    for technique in attribution.TECHNIQUES:
        cells = [_cell(column[technique], chances[name]) for name, column in columns.items()]
        print(f"| {attribution.spoken(technique)} | {' | '.join(cells)} |")
    print(f"| a random map | {' | '.join(f'{chance:.0%}' for chance in chances.values())} |")
    print("\n".join(said))


def _cell(share: float | None, chance: float) -> str:
    if share is None:
        return "–"
    return f"**{share:.0%}**" if share < 2 * chance else f"{share:.0%}"


if __name__ == "__main__":
    main(*sys.argv[1:])
