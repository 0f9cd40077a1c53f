"""Techniques as a command or a notebook names them: `rise`, or `rise:masks=500,grid=7`."""

import contextlib
import inspect
import typing
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from xai_utils.attribution.attending import (
    attention_relevance,
    attention_rollout,
    gradient_attention,
    raw_attention,
)
from xai_utils.attribution.baselines import FLOORS
from xai_utils.attribution.class_activation import (
    ablation_cam,
    cam,
    eigen_cam,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    score_cam,
    xgrad_cam,
)
from xai_utils.attribution.deep_lift import deep_lift
from xai_utils.attribution.extremal import extremal_perturbation
from xai_utils.attribution.full_grad import full_grad
from xai_utils.attribution.gradients import (
    gradient_shap,
    gradient_x_input,
    integrated_gradients,
    saliency,
    smooth_grad,
    var_grad,
)
from xai_utils.attribution.guided import deconvnet, guided_backprop, guided_grad_cam
from xai_utils.attribution.perturbation import occlusion, rise, sobol
from xai_utils.attribution.regions import xrai
from xai_utils.attribution.relevance import lrp
from xai_utils.attribution.superpixels import kernel_shap, lime
from xai_utils.engine import cached, first_line, keras, nearest, pixel_range
from xai_utils.models import NEED_ONLY_SCORES


@dataclass(frozen=True)
class Technique:
    """What is known of a technique beforehand; whoever lists techniques reads it here.

    Attributes:
        method: the function.
        unit: of a map's values; `{}` is where the unit of the scores belongs.
        pace: how long it takes with its own settings, for a picture of 224 pixels on two
            processors: `quick` (an answer while a slider moves), `slow` (seconds), `long`.
        heavy_tailed: few values are far larger than all others; clip them where they are shown.
        like: a quicker technique that asks the same of a network, and is tried in its place where
            `undefined_for` asks whether a network has that; default the technique itself.
    """

    method: Callable
    unit: str
    pace: str = "quick"
    heavy_tailed: bool = False
    like: Callable | None = None


PER_LEVEL, PER_PLACE, ACTIVATION = "{} per grey level", "{} per position", "units of activations"
SHARE = "share of attention"

ABOUT = {
    about.method.__name__: about
    for about in (
        Technique(saliency, PER_LEVEL, heavy_tailed=True),
        Technique(gradient_x_input, "{}", heavy_tailed=True, like=saliency),
        Technique(smooth_grad, PER_LEVEL, pace="slow", heavy_tailed=True, like=saliency),
        Technique(var_grad, f"({PER_LEVEL})²", pace="slow", heavy_tailed=True, like=saliency),
        Technique(integrated_gradients, "{}", pace="slow", heavy_tailed=True, like=saliency),
        Technique(deep_lift, "{}", heavy_tailed=True),
        Technique(gradient_shap, "{}", pace="slow", heavy_tailed=True, like=saliency),
        Technique(xrai, "{} per pixel", pace="slow", like=saliency),
        Technique(full_grad, "sum of its layers' maps, each of 0 to 1"),
        Technique(guided_backprop, PER_LEVEL, heavy_tailed=True),
        Technique(deconvnet, PER_LEVEL, heavy_tailed=True, like=guided_backprop),
        Technique(guided_grad_cam, "product of its two maps", heavy_tailed=True),
        Technique(lrp, "{}", heavy_tailed=True),
        Technique(cam, "{}"),
        Technique(grad_cam, PER_PLACE),
        Technique(grad_cam_plus_plus, PER_PLACE, like=grad_cam),
        Technique(layer_cam, PER_PLACE, like=grad_cam),
        Technique(hires_cam, PER_PLACE, like=grad_cam),
        Technique(xgrad_cam, PER_PLACE, like=grad_cam),
        Technique(score_cam, ACTIVATION, pace="long", like=eigen_cam),
        Technique(ablation_cam, ACTIVATION, pace="slow", like=eigen_cam),
        Technique(eigen_cam, ACTIVATION),
        Technique(raw_attention, SHARE),
        Technique(attention_rollout, SHARE, like=raw_attention),
        Technique(gradient_attention, "{}"),
        Technique(attention_relevance, "relevance", like=gradient_attention),
        Technique(occlusion, "{}", pace="slow"),
        Technique(rise, "{}", pace="long"),
        Technique(sobol, "share of the variance", pace="long"),
        Technique(extremal_perturbation, "mask, 0 to 1", pace="long", like=saliency),
        Technique(lime, "{}", pace="long"),
        Technique(kernel_shap, "{}", pace="long"),
    )
}
TECHNIQUES = {name: about.method for name, about in ABOUT.items()}
METHODS = TECHNIQUES | FLOORS


def undefined_for(
    model: keras.Model, shape: tuple, techniques: Iterable[str] = tuple(TECHNIQUES)
) -> dict[str, str]:
    """The techniques that a network cannot be explained by, for want of what they read in it.

    Found by trying: a technique, or the quicker one that its `Technique.like` names, explains one
    picture of noise. Each is tried once for a model. Those of `models.NEED_ONLY_SCORES` fit every
    network.

    Args:
        model: Keras model, images `(N, H, W, C)` to one output `(N, classes)`.
        shape: shape of a batch, `(N, H, W, C)`; N does not matter.
        techniques: names of `TECHNIQUES`; default all.

    Returns:
        `{technique: why not, in one line}`, in the order of `techniques`; `left_out` says it in one
        line.
    """
    reasons = {}
    for name in techniques:
        if name not in NEED_ONLY_SCORES:
            tried = ABOUT[name].like or ABOUT[name].method
            key = ("refused", tried.__name__, *shape[1:])
            reasons[name] = cached(model, key, lambda tried=tried: _refused(tried, model, shape))
    return {name: reason for name, reason in reasons.items() if reason}


def _refused(technique: Callable, model: keras.Model, shape: tuple) -> str | None:
    """What a technique says that cannot explain a picture of noise."""
    noise = np.random.default_rng(0).uniform(*pixel_range(model), (1, *shape[1:]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about the picture
        try:
            technique(model, noise)
        except ValueError as error:
            return first_line(error)
    return None


def left_out(undefined: dict[str, str]) -> str:
    """One line about techniques that a network cannot be explained by.

    Args:
        undefined: as `undefined_for` returns them.

    Returns:
        `left out: cam (why); deconvnet, guided_backprop (why)`, or an empty text if there are none.
    """
    alike = defaultdict(list)
    for name, reason in undefined.items():
        alike[reason].append(name)
    told = [f"{', '.join(names)} ({reason})" for reason, names in alike.items()]
    return f"left out: {'; '.join(told)}" if told else ""


def parse(techniques: str | Sequence[str]) -> dict[str, list]:
    """Techniques with their settings, `{name as given: [technique, settings]}`, and the floors.

    Args:
        techniques: names in a text with spaces between them, or a list; `all` is every one of
            `TECHNIQUES`.

    Returns:
        `{name as given: [technique, {setting: value}]}`, with the floors at the end.

    Raises:
        ValueError: none, an unknown one, a setting it does not have or whose value is of another
            kind (a number, true or false), or one given twice.

    Example:
        >>> parse("rise:masks=500,grid=7")["rise:masks=500,grid=7"]
        ['rise', {'masks': 500, 'grid': 7}]
    """
    given = techniques.split() if isinstance(techniques, str) else [*techniques]
    given = [*TECHNIQUES] if given == ["all"] else given
    if not given:
        raise ValueError(f"say which techniques: all, or some of {', '.join(TECHNIQUES)}")
    parsed = {}
    for text in [*given, *(name for name in FLOORS if name not in given)]:
        name, _, settings = text.partition(":")
        if name not in METHODS:
            raise ValueError(f"no technique is called {name!r}; {nearest(name, METHODS, 1)}")
        if text in parsed:
            raise ValueError(f"technique {text} is given twice")
        all_settings = list(inspect.signature(METHODS[name]).parameters.items())[3:]
        known = {key: about for key, about in all_settings if not key.startswith("return_")}
        parsed[text] = [
            name,
            dict(_setting(part, known, name) for part in settings.split(",") if part),
        ]
    return parsed


def short_names(names: Sequence[str]) -> list[str]:
    """These names without their settings, but for those that would then be the same.

    Args:
        names: as given to `parse`.

    Returns:
        As many names, in their order.

    Example:
        >>> short_names(["rise:masks=500", "lime:samples=9", "lime:samples=99"])
        ['rise', 'lime:samples=9', 'lime:samples=99']
    """
    heads = [name.partition(":")[0] for name in names]
    return [head if heads.count(head) == 1 else name for head, name in zip(heads, names)]


def _setting(text: str, known: dict[str, inspect.Parameter], technique: str) -> tuple:
    name, _, given = text.partition("=")
    if name not in known:
        raise ValueError(f"{technique} has no setting {name!r}; {nearest(name, known, 1)}")
    if not given:
        raise ValueError(f"{technique}: setting {name} has no value; write {name}=...")
    # An unannotated setting may take more than what its default is, but for whole numbers.
    default, kind = known[name].default, known[name].annotation
    kind = type(default) if kind is inspect.Parameter.empty and type(default) is int else kind
    kinds = typing.get_args(kind) or (kind,)
    if kind is bool:
        if given.lower() not in ("true", "false"):
            raise ValueError(f"{technique}: {name} is true or false, not {given!r}")
        return name, given.lower() == "true"
    value = None if given == "None" else given
    for read in (int, float) if {int, float, inspect.Parameter.empty} & {*kinds} else ():
        with contextlib.suppress(ValueError):
            value = read(given)
            break
    if kind is int and (type(value) is not int or abs(value) >= 2**31):
        raise ValueError(f"{technique}: {name} is a whole number below 2**31, not {given!r}")
    if float in kinds and type(value) not in (int, float, *kinds):
        raise ValueError(f"{technique}: {name} is a number, not {given!r}")
    return name, value
