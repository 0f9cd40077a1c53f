"""What the explorer computes: a state of its controls -> pictures, maps, probabilities, run files.

Nothing here draws or knows widgets: `drawing` and `controls` do that.
"""

import contextlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from xai_suite.reports import EXPLAINED_IN
from xai_utils import attribution, metrics, models, pictures
from xai_utils.attribution import CAMS
from xai_utils.engine import DATA_FOLDER, first_line, nearest, written_whole
from xai_utils.models import Classifier, load_model
from xai_utils.pictures import IMAGES_FOLDER

RUNS_FOLDER = DATA_FOLDER.parent / "reports" / "runs"

# Techniques that answer while a slider moves, and those that take a second or more. The others take
# too long here.
QUICK, SLOW = (
    tuple(name for name, about in attribution.ABOUT.items() if about.pace == pace)
    for pace in ("quick", "slow")
)


@dataclass(frozen=True)
class State:
    """What the controls say.

    Shares and places are fractions, 0 to 1, of the picture as the network sees it.

    Attributes:
        target: class that is explained.
        techniques: names; one text with spaces between is taken as well.
        layer: for techniques that read one; None is the last one that computes features.
        brightness: grey levels that are added.
        flip: left and right.
        shift: pixels to the right.
        columns: the covered region, left to right; empty where both are equal.
        rows: the same, top to bottom.
        mask: share of the picture, where a map is largest, that is covered; below 1, 0 for none.
        keep: share that alone is kept; 0 for none.
    """

    target: int
    techniques: tuple[str, ...] = ("grad_cam",)
    layer: str | None = None
    brightness: int = 0
    flip: bool = False
    shift: int = 0
    columns: tuple[float, float] = (0.0, 0.0)
    rows: tuple[float, float] = (0.0, 0.0)
    mask: float = 0.0
    keep: float = 0.0

    def __post_init__(self):
        if isinstance(self.techniques, str):
            object.__setattr__(self, "techniques", tuple(self.techniques.split()))


@dataclass(frozen=True)
class Answer:
    """What the network says in a state; pictures are float32 `(H, W, C)` in 0..255.

    Attributes:
        seen: the picture after the dials and with the region covered.
        maps: technique -> raw map `(h, w)` of `seen`.
        cut: (technique, `masked` or `kept`) -> `seen` without its top, or with its top only.
        probabilities: `(2 + len(cut), classes)`: of the unchanged picture, of `seen`, and of each
            of `cut`.
    """

    seen: np.ndarray
    maps: dict[str, np.ndarray]
    cut: dict[tuple[str, str], np.ndarray]
    probabilities: np.ndarray


def crop(image: np.ndarray, columns=(0.0, 1.0), rows=(0.0, 1.0)) -> np.ndarray:
    """A part of a picture `(H, W, C)`, its edges as fractions of width and height.

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
    """Prepared pictures `(N, H, W, C)` after brightness, flip and shift, then the region black."""
    changed = np.array(images, np.float32)
    if state.brightness:
        changed = pictures.brightness(changed, state.brightness)
    changed = pictures.flip_horizontal(changed, state.flip)
    changed = np.array(pictures.shift(changed, state.shift) if state.shift else changed)
    (left, right), (top, bottom) = region(state, changed.shape[1:3])
    changed[:, top:bottom, left:right] = 0
    return changed


def region(state: State, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The covered region in pixels of a picture `(H, W)`: `(left, right), (top, bottom)`.

    Ends are not included.
    """
    return _pixels(state.columns, size[1]), _pixels(state.rows, size[0])


def _pixels(span, extent: int) -> tuple[int, int]:
    return tuple(int(round(edge * extent)) for edge in np.clip(sorted(span), 0, 1).tolist())


def not_offered(classifier: Classifier) -> dict[str, str]:
    """Of `QUICK` and `SLOW`, the techniques that this network cannot be explained by, and why."""
    shape = (1, *classifier.input_size, classifier.channels)
    return attribution.undefined_for(classifier.model, shape, QUICK + SLOW)


def maps(classifier: Classifier, images, state: State) -> dict[str, np.ndarray]:
    """Raw maps `(N, h, w)` of the state's techniques; one pass makes all class activation maps.

    Raises:
        ValueError: a technique that is not offered, or what the technique itself raises.
    """
    names = tuple(dict.fromkeys(state.techniques))
    if unknown := [name for name in names if name not in QUICK + SLOW]:
        raise ValueError(
            f"the explorer has no technique {unknown[0]!r}; {nearest(unknown[0], QUICK + SLOW, 1)}"
        )
    made, network, layer = {}, classifier.model, state.layer
    if together := tuple(name for name in names if name in CAMS):
        by_layer = attribution.cams(network, images, (state.target,), together, (layer,))
        made = {name: by_target[0] for name, by_target in by_layer[layer].items()}
    for name in set(names) - set(together):
        method = attribution.TECHNIQUES[name]
        reads = {"layer": layer} if "layer" in inspect.signature(method).parameters else {}
        made[name] = method(network, images, state.target, **reads)
    return {name: made[name] for name in names}


def answer(
    classifier: Classifier, images: np.ndarray, state: State, untouched: np.ndarray | None = None
) -> Answer:
    """Pictures, maps and probabilities of a state: one pass for maps, one for probabilities.

    Args:
        images: one prepared picture, `(1, H, W, C)`.
        untouched: its probabilities `(classes,)` where they are known already.

    Raises:
        ValueError: a technique or layer that does not fit the network, a class out of range.
    """
    seen = change(images, state)
    made = {name: values[0] for name, values in maps(classifier, seen, state).items()}
    cut = _cut(seen, made, state)
    shown = [seen[0], *cut.values()]
    if untouched is None:
        probabilities = classifier.predict(np.stack([images[0], *shown]))
    else:
        probabilities = np.stack([untouched, *classifier.predict(np.stack(shown))])
    return Answer(seen[0], made, cut, probabilities)


def _cut(seen, made: dict[str, np.ndarray], state: State) -> dict[tuple[str, str], np.ndarray]:
    cut = {}
    if not (state.mask or state.keep):
        return cut
    for name, values in made.items():
        large = pictures.resize_map(values[None], seen.shape[1:3])
        if state.mask:
            cut[name, "masked"] = metrics.keep(seen, ~metrics.top_share(large, state.mask))[0]
        if state.keep:
            cut[name, "kept"] = metrics.keep(seen, metrics.top_share(large, state.keep))[0]
    return cut


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
        loaded = load_model(name.strip())
    except Exception as error:  # libraries raise anything: damaged files, downloads, lack of memory
        reason = f"the model {name!r} cannot be loaded: {first_line(error)}"
        raise ValueError(reason) from None
    if not isinstance(loaded, Classifier):
        raise ValueError(
            f"{name!r} detects objects: notebook 50_detection_saliency explains it, not this one"
        )
    return loaded


def layer_names(classifier: Classifier) -> list[str]:
    """The last layer of each block that has spatial extent, first to last."""
    shape = classifier.model.input_shape
    maps = models.map_layers(classifier.model, shape)
    return [name for name in models.stages(classifier.model, shape) if name in maps]


def possible_runs(classifier: Classifier, state: State, picture: str) -> dict[str, dict]:
    """Which notebooks can repeat a state, the most particular first: `{notebook: parameters}`.

    The notebooks explain the picture's top class; `14_targets` compares it with the class of the
    state.
    """
    common = {"model": classifier.name, "image": picture}
    runs = {}
    if state.keep:
        shares = sorted({0.02, 0.05, 0.1, 0.2, 0.4, 0.6, state.keep})
        runs["62_keep_only"] = {**common, "techniques": list(state.techniques), "shares": shares}
    if state.mask:
        runs["64_mask_until_flip"] = {**common, "techniques": list(state.techniques)}
    if state.brightness or state.shift or state.flip:
        levels = sorted({-100, -40, 40, 100, state.brightness} - {0})
        shifts = sorted({-64, -16, 16, 64, state.shift} - {0})
        runs["61_augmentations"] = {**common, "levels": levels, "shifts": shifts}
    for name in state.techniques:
        layer = {"layer": state.layer} if name == "grad_cam" and state.layer else {}
        runs.setdefault(EXPLAINED_IN[name], {**common, **layer})
    runs["14_targets"] = {**common, "rival": _name_of(classifier, state.target)}
    runs["25_gallery"] = {"model": classifier.name, "images": [picture]}
    return runs


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
    """Write `reports/runs/<notebook>--<name>.yaml`, whole or not at all, never over another file.

    Raises:
        ValueError: a name with other characters than a-z, 0-9 and _; or there is such a run
            already.
        OSError: the folder cannot be written.
    """
    path = check_new_run(notebook, name, folder)
    text = yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True, default_flow_style=None)
    with _new(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def save_picture(image: np.ndarray, name: str, folder: Path | None = None) -> str:
    """Put a picture, uint8 `(H, W, 3)`, into `data/images/` as PNG.

    Returns:
        The name that `pictures.load_image` knows it by.

    Raises:
        ValueError, OSError: as `save_run`.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(f"a picture's name is made of a-z, 0-9 and _; not {name!r}")
    path = Path(folder or IMAGES_FOLDER) / f"{name}.png"
    with _new(path) as temporary:
        Image.fromarray(image).save(temporary, format="png")
    return path.name


@contextlib.contextmanager
def _new(path: Path) -> Iterator[Path]:
    try:
        with written_whole(path, replace=False) as temporary:
            yield temporary
    except OSError as error:
        if path.exists():
            raise ValueError(f"there is a {path.name} already: choose another name") from None
        raise OSError(
            f"{path.parent} cannot be written ({error.strerror or error}): make it writable, or"
            " start the explorer in a copy of the suite of your own"
        ) from None
