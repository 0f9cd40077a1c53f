"""What the explorer computes: a state of its controls -> pictures, maps and probabilities; and the
run file of a state.

Nothing here draws or knows widgets: `drawing` and `controls` do that.
"""

import contextlib
import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from xai_utils import attribution, metrics, models, pictures
from xai_utils.attribution import CAMS
from xai_utils.engine import DATA_FOLDER, written_whole
from xai_utils.models import Classifier, load_model
from xai_utils.pictures import IMAGES_FOLDER

RUNS_FOLDER = DATA_FOLDER.parent / "reports" / "runs"

# Techniques that answer while a slider moves, and those that take a second or more; the others take
# too long here.
QUICK = (
    "grad_cam",
    "grad_cam_plus_plus",
    "layer_cam",
    "hires_cam",
    "xgrad_cam",
    "eigen_cam",
    "cam",
    "saliency",
    "gradient_x_input",
    "guided_backprop",
    "deconvnet",
    "guided_grad_cam",
)
SLOW = ("smooth_grad", "var_grad", "integrated_gradients", "occlusion")

# The notebook that explains a technique; a technique without one of its own is compared with the
# others in the gallery.
NOTEBOOKS = {
    "saliency": "10_saliency",
    "smooth_grad": "11_smooth_grad",
    "var_grad": "11_smooth_grad",
    "guided_backprop": "12_guided_backprop",
    "deconvnet": "12_guided_backprop",
    "guided_grad_cam": "12_guided_backprop",
    "integrated_gradients": "13_integrated_gradients",
    "cam": "20_cam",
    "grad_cam": "21_grad_cam",
    "grad_cam_plus_plus": "22_grad_cam_plus_plus",
    "layer_cam": "23_cam_family",
    "hires_cam": "23_cam_family",
    "xgrad_cam": "23_cam_family",
    "occlusion": "30_occlusion",
}


@dataclass(frozen=True)
class State:
    """What the controls say. Shares and places are fractions, 0 to 1, of the picture as the network
    sees it.
    """

    target: int  # class that is explained
    techniques: tuple[str, ...] = ("grad_cam",)
    layer: str | None = (
        None  # for techniques that read one; None is the last one that computes features
    )
    brightness: int = 0  # grey levels that are added
    flip: bool = False  # left and right
    shift: int = 0  # pixels to the right
    columns: tuple[float, float] = (
        0.0,
        0.0,
    )  # the covered region, left to right; empty where both are equal
    rows: tuple[float, float] = (0.0, 0.0)  # and top to bottom
    mask: float = (
        0.0  # share of the picture, where a map is largest, that is covered; below 1, 0 for none
    )
    keep: float = 0.0  # or that alone is kept; 0 for none


@dataclass(frozen=True)
class Answer:
    """What the network says in a state; pictures are float32 `(size, size, 3)` in 0..255."""

    seen: np.ndarray  # the picture after the dials and with the region covered
    maps: dict[str, np.ndarray]  # technique -> raw map (h, w) of `seen`
    cut: dict[
        tuple[str, str], np.ndarray
    ]  # (technique, "masked" or "kept") -> `seen` without, or with only, its top
    probabilities: (
        np.ndarray
    )  # (2 + len(cut), classes): of the unchanged picture, of `seen`, of each of `cut`


def crop(image: np.ndarray, columns=(0.0, 1.0), rows=(0.0, 1.0)) -> np.ndarray:
    """A part of a picture `(H, W, 3)`, its edges as fractions of width and height.

    Raises:
        ValueError: less than 8 pixels wide or high.
    """
    (left, right), (top, bottom) = _pixels(columns, image.shape[1]), _pixels(rows, image.shape[0])
    if right - left < 8 or bottom - top < 8:
        raise ValueError(
            f"the crop is {right - left} x {bottom - top} pixels; at least 8 x 8 are needed"
        )
    return image[top:bottom, left:right]


def change(images: np.ndarray, state: State) -> np.ndarray:
    """Prepared pictures `(N, H, W, 3)` after the dials (brightness, flip, shift), then with the
    region black.
    """
    changed = (
        pictures.brightness(images, state.brightness)
        if state.brightness
        else np.array(images, np.float32)
    )
    changed = pictures.flip_horizontal(changed, state.flip)
    changed = np.array(pictures.shift(changed, state.shift) if state.shift else changed)
    (left, right), (top, bottom) = region(state, changed.shape[1])
    changed[:, top:bottom, left:right] = 0
    return changed


def region(state: State, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The covered region in pixels of a picture of that size: `(left, right), (top, bottom)`, ends
    not included.
    """
    return _pixels(state.columns, size), _pixels(state.rows, size)


def _pixels(span, extent: int) -> tuple[int, int]:
    return tuple(int(round(min(max(each, 0), 1) * extent)) for each in sorted(span))


def maps(classifier: Classifier, images, state: State) -> dict[str, np.ndarray]:
    """Raw maps `(N, h, w)` of the state's techniques; class activation maps come from one pass
    together.

    Raises:
        ValueError: a technique that is not offered, or what the technique itself raises.
    """
    names = tuple(dict.fromkeys(state.techniques))
    if unknown := [name for name in names if name not in QUICK + SLOW]:
        raise ValueError(
            f"the explorer has no technique {unknown[0]!r}; it has {', '.join(QUICK + SLOW)}"
        )
    together = tuple(name for name in names if name in CAMS)
    found = {}
    if together:
        network, layer = classifier.model, state.layer
        found = {
            name: each[0]
            for name, each in attribution.cams(
                network, images, (state.target,), together, (layer,)
            )[layer].items()
        }
    for name in set(names) - set(together):
        method = attribution.TECHNIQUES[name]
        reads = {"layer": state.layer} if "layer" in inspect.signature(method).parameters else {}
        found[name] = method(classifier.model, images, state.target, **reads)
    return {name: found[name] for name in names}


def answer(
    classifier: Classifier, images: np.ndarray, state: State, untouched: np.ndarray | None = None
) -> Answer:
    """Pictures, maps and probabilities of a state: one pass for the maps, one for all the
    probabilities.

    Args:
        images: one prepared picture, `(1, size, size, 3)`.
        untouched: its probabilities `(classes,)` where they are known already.

    Raises:
        ValueError: a technique or layer that does not fit the network, a class out of range.
    """
    seen = change(images, state)
    found = maps(classifier, seen, state)
    cut = {}
    for name, values in found.items():
        large = pictures.resize_map(values, seen.shape[1:3]) if state.mask or state.keep else None
        if state.mask:
            cut[name, "masked"] = metrics.keep(seen, ~metrics.top_share(large, state.mask))[0]
        if state.keep:
            cut[name, "kept"] = metrics.keep(seen, metrics.top_share(large, state.keep))[0]
    shown = [seen[0], *cut.values()]
    if untouched is None:
        probabilities = classifier.predict(np.stack([images[0], *shown]))
    else:
        probabilities = np.stack([untouched, *classifier.predict(np.stack(shown))])
    return Answer(seen[0], {name: values[0] for name, values in found.items()}, cut, probabilities)


def likeliest(
    classifier: Classifier, probabilities: np.ndarray, count: int = 5
) -> list[tuple[int, str, float]]:
    """The likeliest classes of one row of probabilities, as `(index, name, probability)`."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [(int(i), classifier.labels[i], float(probabilities[i])) for i in order]


def load_classifier(name: str) -> Classifier:
    """As `load_model`, for classifiers only, with every failure as one line.

    Raises:
        ValueError: it cannot be loaded, or is no classifier.
    """
    try:
        found = load_model(name.strip())
    except (
        Exception
    ) as error:  # whatever a library says about a damaged file, a download, a lack of memory
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the model {name!r} cannot be loaded: {reason}") from None
    if not isinstance(found, Classifier):
        raise ValueError(
            f"{name!r} detects objects: notebook 50_detection_saliency explains it, not this one"
        )
    return found


def layer_names(classifier: Classifier) -> list[str]:
    """The last layer of each block of the network, first to last, as long as it has spatial
    extent.
    """
    shape = (1, classifier.input_size, classifier.input_size, 3)
    shapes, _ = models.output_shapes(classifier.model, shape)
    return [
        name for name in models.stages(classifier.model, shape) if models.is_spatial(shapes[name])
    ]


def possible_runs(classifier: Classifier, state: State, picture: str) -> dict[str, dict]:
    """Which notebooks can repeat a state, the most particular first: `{notebook: parameters}`.

    The notebooks explain the picture's top class; `14_targets` compares it with the class of the
    state.
    """
    common = {"model": classifier.name, "image": picture}
    found = {}
    if state.keep:
        shares = sorted({0.02, 0.05, 0.1, 0.2, 0.4, 0.6, state.keep})
        found["62_keep_only"] = {**common, "techniques": list(state.techniques), "shares": shares}
    if state.mask:
        found["64_mask_until_flip"] = {**common, "techniques": list(state.techniques)}
    if state.brightness or state.shift or state.flip:
        levels = sorted({-100, -40, 40, 100, state.brightness} - {0})
        shifts = sorted({-64, -16, 16, 64, state.shift} - {0})
        found["61_augmentations"] = {**common, "levels": levels, "shifts": shifts}
    for name in state.techniques:
        layer = {"layer": state.layer} if name == "grad_cam" and state.layer else {}
        notebook = NOTEBOOKS.get(name)
        if notebook:
            found.setdefault(notebook, {**common, **layer})
    found["14_targets"] = {**common, "rival": _name_of(classifier, state.target)}
    found["25_gallery"] = {"model": classifier.name, "images": [picture]}
    return found


def _name_of(classifier: Classifier, index: int) -> str:
    """The name of a class, or its index in digits where others have the same name."""
    try:
        classifier.class_index(classifier.labels[index])
    except ValueError:
        return str(index)
    return classifier.labels[index]


def check_new_run(notebook: str, name: str, folder: Path | None = None) -> Path:
    """Where a run of that name would be written; raises as `save_run`."""
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(f"a run's name is made of a-z, 0-9 and _, such as my_cat; not {name!r}")
    path = Path(folder or RUNS_FOLDER) / f"{notebook}--{name}.yaml"
    if path.exists():
        raise ValueError(f"there is a {path.name} already: choose another name")
    return path


def save_run(notebook: str, name: str, parameters: dict, folder: Path | None = None) -> Path:
    """Write `reports/runs/<notebook>--<name>.yaml`, whole or not at all, and never over another
    file.

    Raises:
        ValueError: a name with other characters than a-z, 0-9 and _; or there is such a run
            already.
    """
    path = check_new_run(notebook, name, folder)
    text = yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True, default_flow_style=None)
    with _new(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def save_picture(image: np.ndarray, name: str, folder: Path | None = None) -> str:
    """Put a picture, uint8 `(H, W, 3)`, into `data/images/` as PNG; returns the name that
    `load_image` knows it by.

    Raises:
        ValueError: as `save_run`.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(f"a picture's name is made of a-z, 0-9 and _; not {name!r}")
    path = Path(folder or IMAGES_FOLDER) / f"{name}.png"
    with _new(path) as temporary:
        Image.fromarray(image).save(temporary, format="png")
    return path.name


@contextlib.contextmanager
def _new(path: Path):
    try:
        with written_whole(path, replace=False) as temporary:
            yield temporary
    except FileExistsError:
        raise ValueError(f"there is a {path.name} already: choose another name") from None
