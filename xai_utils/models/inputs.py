"""What a network does to its pixels before it looks at them.

All techniques work in one space, float32 pixels in 0..255. `Preprocess` is the way from there to
what a network was trained on, as a layer in its graph.
"""

import difflib
from collections.abc import Mapping

import numpy as np

from xai_utils.engine import PIXELS, keras, nearest
from xai_utils.models.layers import walk

PREPROCESSING = ("none", "unit", "tf", "torch", "caffe")
# of a preprocessing that is said in full
_SAID = ("range", "to", "mean", "std")


@keras.saving.register_keras_serializable("xai_utils")
class Preprocess(keras.layers.Layer):
    """Pixels in 0..255 to what a network was trained on.

    Modes: `none` keeps 0..255; `unit` 0..1; `tf` -1..1; `torch` 0..1 minus ImageNet's mean, divided
    by its deviation; `caffe` BGR minus ImageNet's mean. Or a mapping: `to`, the two values that 0
    and 255 become (default `range`); `mean` and `std`, a number or one a channel, that are then
    subtracted and divided by; and `range`, the two values that 0 and 255 are in the user's own
    files (default 0 and 255), such as [0, 10000] of a satellite's bands.

    Raises:
        ValueError: another mode, or a mapping of other keys or values.
    """

    def __init__(self, mode, **kwargs):
        super().__init__(**kwargs)
        self.scale, self.shift = None, None
        if isinstance(mode, Mapping):
            self.mode = dict(mode)
            self.scale, self.shift = _affine(mode)
        elif isinstance(mode, str) and mode in PREPROCESSING:
            self.mode = mode
        else:
            near = difflib.get_close_matches(str(mode), PREPROCESSING, n=1)
            meant = f"; nearest: {near[0]}" if near else ""
            raise ValueError(
                f"preprocessing is one of {', '.join(PREPROCESSING)} or a mapping of"
                f" {', '.join(_SAID)}, not {mode!r:.60}{meant}"
            )

    def call(self, x):
        number = x.dtype.as_numpy_dtype
        if self.scale is not None:
            return x * self.scale.astype(number) + self.shift.astype(number)
        if self.mode == "unit":
            return x / 255
        if self.mode == "tf":
            return x / 127.5 - 1
        if self.mode == "torch":
            mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
            return (x / 255 - mean.astype(number)) / deviation.astype(number)
        if self.mode == "caffe":
            return x[..., ::-1] - np.array([103.939, 116.779, 123.68], number)
        return x

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}


def _affine(said: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Factor and summand, `()` or `(C,)`, of a preprocessing said in full."""
    for key in said:
        if key not in _SAID:
            raise ValueError(f"preprocessing has no key {key!r}; {nearest(key, _SAID)}")
    low, high = value_range(said)
    first, last = _pair(said.get("to", (low, high)), "to")
    mean, deviation = (_numbers(said.get(key, at), key) for key, at in (("mean", 0), ("std", 1)))
    if (deviation == 0).any():
        raise ValueError(f"preprocessing: std must not be 0, got {said['std']!r}")
    return (last - first) / 255 / deviation, (first - mean) / deviation


def value_range(preprocessing) -> tuple[float, float]:
    """The values in the user's own files that stand for 0 and 255."""
    said = preprocessing if isinstance(preprocessing, Mapping) else {}
    low, high = _pair(said.get("range", PIXELS), "range")
    if low >= high:
        raise ValueError(f"preprocessing: range goes from low to high, not {said['range']!r}")
    return low, high


def _pair(given, key: str) -> tuple[float, float]:
    values = _numbers(given, key)
    if values.shape != (2,):
        raise ValueError(f"preprocessing: {key} is two numbers, such as [0, 1], not {given!r}")
    return float(values[0]), float(values[1])


def _numbers(given, key: str) -> np.ndarray:
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if values.ndim > 1 or not np.isfinite(values).all():
        raise ValueError(f"preprocessing: {key} is a number or one for each channel, not {given!r}")
    return values


def brings_its_own(model: keras.Model) -> bool:
    """Whether a network certainly takes 0..255: it scales or normalises such pixels itself.

    That is a Rescaling by about 1/255 or 1/127.5, or a Normalization whose mean no other range has,
    before any other layer of weights.
    """
    for _, layer in walk(model):
        if isinstance(layer, keras.Model):
            continue  # its own layers come next
        if isinstance(layer, keras.layers.Rescaling):
            reach = np.multiply(layer.scale, 255)  # how far 0..255 is spread
            return bool(np.all((reach > 0.9) & (reach < 2.1)))
        if isinstance(layer, keras.layers.Normalization):
            return bool(np.max(layer.mean) > 2)
        if layer.weights:
            return False
    return False
