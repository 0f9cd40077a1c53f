"""The ImageNet networks of `keras.applications`, with their normalisation inside the graph."""

import re
import traceback
from pathlib import Path

from xai_utils.engine import first_line, keras
from xai_utils.models import cards
from xai_utils.models.inputs import Preprocess

_EFFICIENTNET = dict(enumerate((224, 240, 260, 300, 380, 456, 528, 600)))
_EFFICIENTNET_V2 = {"b0": 224, "b1": 240, "b2": 260, "b3": 300, "s": 384, "m": 480, "l": 480}
# name -> (constructor in keras.applications, input size in pixels, what the network does to its
# pixels)
APPLICATIONS = {
    **{f"vgg{n}": (f"VGG{n}", 224, "caffe") for n in (16, 19)},
    **{f"resnet{n}": (f"ResNet{n}", 224, "caffe") for n in (50, 101, 152)},
    **{f"resnet{n}_v2": (f"ResNet{n}V2", 224, "tf") for n in (50, 101, 152)},
    **{f"densenet{n}": (f"DenseNet{n}", 224, "torch") for n in (121, 169, 201)},
    "xception": ("Xception", 299, "tf"),
    "inception_v3": ("InceptionV3", 299, "tf"),
    "inception_resnet_v2": ("InceptionResNetV2", 299, "tf"),
    "mobilenet": ("MobileNet", 224, "tf"),
    "mobilenet_v2": ("MobileNetV2", 224, "tf"),
    "mobilenet_v3_small": ("MobileNetV3Small", 224, "none"),
    "mobilenet_v3_large": ("MobileNetV3Large", 224, "none"),
    "nasnet_mobile": ("NASNetMobile", 224, "tf"),
    "nasnet_large": ("NASNetLarge", 331, "tf"),
    **{
        f"efficientnet_b{n}": (f"EfficientNetB{n}", size, "none")
        for n, size in _EFFICIENTNET.items()
    },
    **{
        f"efficientnet_v2_{n}": (f"EfficientNetV2{n.upper()}", size, "none")
        for n, size in _EFFICIENTNET_V2.items()
    },
    **{
        f"convnext_{n}": (f"ConvNeXt{'XLarge' if n == 'xlarge' else n.title()}", 224, "none")
        for n in ("tiny", "small", "base", "large", "xlarge")
    },
}


def load_application(name: str, weights=None) -> keras.Model:
    """Build a network of `APPLICATIONS`, pixels in 0..255 to logits, with its ImageNet weights.

    It is one flat graph.

    Args:
        weights: a weights file in Keras' old `.h5` layout or `.weights.h5`; None looks in
            `data/models/`, then in Keras' cache, then downloads. Keras checks the hash of what it
            caches.

    Raises:
        FileNotFoundError: no such file, or nothing on this machine and no download.
        ValueError: the file does not hold this network's weights.
    """
    constructor, size, mode = APPLICATIONS[name]
    pixels = keras.Input((size, size, 3), name="pixels")
    inputs = pixels if mode == "none" else Preprocess(mode, name="preprocess")(pixels)
    local = Path(weights).expanduser() if weights is not None else local_weights(name)
    if local is not None and not local.is_file():
        raise FileNotFoundError(f"no weights file at {weights}")
    try:
        return getattr(keras.applications, constructor)(
            input_tensor=inputs, weights=str(local or "imagenet"), classifier_activation=None
        )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        reason = first_line(error)
        if asked := _asked_for(error):
            raise FileNotFoundError(
                f"{name}: its ImageNet weights are not on this machine and could not be downloaded;"
                f" put {asked} into data/models/ (or Keras' own cache), or pass weights=PATH"
                f" ({reason})"
            ) from None
        raise ValueError(
            f"{local.name if local else name}: not a weights file for {name} ({reason})"
        ) from None


def local_weights(name: str) -> Path | None:
    """The weights file of a network of `keras.applications` in `data/models/`.

    It has the name that Keras gives it in its cache, such as `efficientnetv2-b0.h5` for
    `efficientnet_v2_b0`, or ours, `efficientnet_v2_b0.weights.h5`; hyphens, underscores and capital
    letters do not matter.

    Args:
        name: a key of `APPLICATIONS`.

    Returns:
        Its path, or None if there is no such file.
    """
    # Keras adds one of these to a whole network's name, width and size where there are several.
    ending = "(weights)?(tfdimorderingtfkernels)?(10224|10224tf|22410float)?"
    wanted = re.compile(f"(weights)?{_plain(name)}{ending}")
    files = sorted(cards.MODELS_FOLDER.glob("*.h5"))
    return next((path for path in files if wanted.fullmatch(_plain(path.stem))), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _asked_for(error: Exception) -> str | None:
    """The name under which Keras wanted to keep a file whose download failed, or None.

    The error itself names the URL only, and the file there may be called otherwise.
    """
    download = keras.utils.get_file.__code__
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((frame.f_locals["fname"] for frame in frames if frame.f_code is download), None)
