"""D-RISE: why this box? Random masks, weighted by how much of a detection is left under each.

No gradient is needed.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from xai_utils.attribution.perturbation import mask_average, mask_sums, rise_masks
from xai_utils.engine import compiled, in_float32, in_parts, tf
from xai_utils.models import Detection, Detector, all_boxes, overlaps
from xai_utils.pictures import masked

IMAGES_AT_ONCE = 32  # masked pictures in one forward pass


def d_rise(
    detect: Detector | Callable,
    image,
    detections: Sequence[Detection],
    masks: int = 500,
    grid: int = 16,
    keep: float = 0.5,
    seed: int = 0,
    centred: bool = True,
    return_error: bool = False,
):
    """D-RISE: the mean of random soft masks, weighted by what each leaves of a detection.

    The weight of a mask is the largest, over all boxes found in the masked picture, of
    `overlap * cosine(class probabilities) * objectness`, the overlap being intersection over union
    with the detection; its mean over the masks is subtracted. All detections share the masks and
    the forward passes.
    Source: Petsiuk et al., "Black-box explanation of object detectors via saliency maps" (CVPR
    2021), section 3. The paper subtracts no mean: that is `centred=False`.

    Args:
        detect: a `Detector`, of which every anchor's answer counts, or any callable that takes
            pictures `(F, H, W, 3)`, float32, and returns F sequences of `Detection`, or of objects
            with its first three fields.
            Ask it for weak detections too: a low threshold loses less.
        image: one picture `(H, W, 3)` in 0..255.
        detections: what is explained, with boxes in pixels of this picture.
        masks: number of masks; the paper uses 5000.
        grid: cells along each side of a mask, on a coarse grid.
        keep: probability that a cell is kept.
        seed: of the masks, a 32-bit whole number; mask i depends on the seed and i alone.
        centred: subtract each detection's mean weight from its weights. The same map but for a
            constant, and less noise: otherwise each mask adds the mean wherever it is open.
        return_error: also return the standard error.

    Returns:
        float32 maps `(T, H, W)`, one a detection, signed: how far the similarity to expect when a
        place is in view is above the mean; or, not `centred`, that similarity itself. With
        `return_error` also their standard errors, of the same shape.

    Raises:
        ValueError: no picture, no detections, fewer than 2 masks, `keep` not between 0 and 1,
            `grid` below 1 or with more cells than pixels, or a callable that does not return one
            sequence for each picture, or returns numbers that are not finite.
    """
    image = np.asarray(image, np.float32)
    if image.ndim != 3 or not np.isfinite(image).all():
        raise ValueError(
            "d_rise takes one picture (H, W, 3) of finite numbers, not an array of shape"
            f" {image.shape}"
        )
    most = min(image.shape[:2])
    if masks < 2 or not 1 <= grid <= most or not 0 < keep < 1:
        raise ValueError(
            f"d_rise: masks >= 2, grid 1 to {most} and 0 < keep < 1 needed; got {masks}, {grid},"
            f" {keep}"
        )
    if not detections:
        raise ValueError(
            "d_rise got no detections to explain: find some first, at a lower threshold perhaps"
        )
    labels = list(dict.fromkeys(detection.label for detection in detections))
    boxes, classes, _ = (part[0] for part in _arrays([detections], labels, None))
    if isinstance(detect, Detector) and image.shape == detect.model.input_shape[1:]:
        one_graph = compiled(
            detect.model, _detector_sums, grid=grid, centred=centred, errors=return_error
        )
        run = functools.partial(one_graph, tf.constant(detect.anchors))
    else:
        run = functools.partial(
            _callable_sums, detect, labels, grid=grid, centred=centred, errors=return_error
        )
    sums = (0.0, 0.0, 0.0)
    for part in in_parts(np.arange(masks, dtype=np.int32), IMAGES_AT_ONCE):
        given = (
            tf.constant(value)
            for value in (image[None], boxes, classes, np.float32(keep), np.int32(seed), part)
        )
        sums = [one + more for one, more in zip(sums, run(*given))]
    maps, errors = mask_average(*sums, masks, centred)
    if not np.isfinite(maps).all():
        raise ValueError(
            "d_rise got a box, a probability or an objectness that is infinite or NaN from detect"
        )
    shape = (len(detections), *image.shape[:2])
    maps = in_float32(maps).reshape(shape)
    return (maps, in_float32(errors).reshape(shape)) if return_error else maps


def similarity(aimed, classes, boxes, probabilities, objectness) -> tf.Tensor:
    """How alike boxes are to T aimed ones: overlap times cosine of classes times objectness.

    Source: Petsiuk et al., "Black-box explanation of object detectors via saliency maps" (CVPR
    2021), equations 2 to 6.

    Args:
        aimed: boxes `(T, 4)`.
        classes: their class probabilities `(T, C)`.
        boxes, probabilities, objectness: those of F pictures with K boxes: `(F, K, 4)`,
            `(F, K, C)`, `(F, K)`.

    Returns:
        float32 `(F, T, K)` in 0..1.
    """
    shared = overlaps(boxes[:, None], aimed[None, :, None])
    lengths = tf.norm(probabilities, axis=-1)[:, None] * tf.norm(classes, axis=-1)[:, None]
    cosine = tf.math.divide_no_nan(tf.einsum("fkc,tc->ftk", probabilities, classes), lengths)
    return shared * cosine * objectness[:, None]


def _detector_sums(
    model, anchors, image, boxes, classes, keep, seed, numbers, grid, centred, errors
):
    """The sums of a part of the masks, all in one graph; of one picture `(1, H, W, 3)`."""
    masks = _masks(numbers, image.shape[1:3], grid, keep, seed)
    proposals = all_boxes(model, masked(image, masks), anchors, image.shape[1:3])
    weights = tf.reduce_max(similarity(boxes, classes, *proposals), axis=-1)
    return mask_sums(masks, weights, keep, centred, errors)


def _callable_sums(
    detect, labels, image, boxes, classes, keep, seed, numbers, grid, centred, errors
):
    masks = _compiled_masks(tuple(image.shape[1:3]), grid)(numbers, keep=keep, seed=seed)
    proposals = _proposals(detect, masked(image, masks), labels, classes.shape[-1])
    weights = tf.reduce_max(similarity(boxes, classes, *proposals), axis=-1)
    return mask_sums(masks, weights, keep, centred, errors)


def _masks(numbers, size, grid, keep, seed):
    return tf.ensure_shape(rise_masks(numbers, size, grid, keep, seed), (numbers.shape[0], *size))


@functools.lru_cache(maxsize=16)
def _compiled_masks(size: tuple[int, int], grid: int) -> Callable:
    return tf.function(functools.partial(_masks, size=tuple(size), grid=grid), autograph=False)


def _proposals(detect, pictures: tf.Tensor, labels: list[str], width: int):
    """Boxes, class vectors and objectness in each picture, of all anchors or of a callable."""
    if isinstance(detect, Detector):
        return detect.proposals(pictures)
    detections = detect(pictures.numpy())
    if len(detections) != len(pictures):
        raise ValueError(
            f"detect must return one sequence a picture, {len(pictures)} in all; it returned"
            f" {len(detections)}"
        )
    return _arrays(detections, labels, width)


def _arrays(detections, labels: list[str], width: int | None):
    """Detections of F pictures as arrays: boxes, class vectors and objectness.

    `(F, K, 4)`, `(F, K, C)` and `(F, K)`. Pictures with fewer than K are filled with boxes without
    area. A detection without probabilities has a vector that is one for its label, so that the
    cosine asks for the same label, and its score for objectness.
    """
    vectors = [[_vector(one, labels) for one in picture] for picture in detections]
    widths = {len(vector) for picture in vectors for vector in picture} | (
        {width} if width else set()
    )
    if len(widths) > 1:
        raise ValueError(
            f"detections have class vectors of lengths {sorted(widths)}: all need probabilities, or"
            " none"
        )
    many = max(1, *(len(picture) for picture in detections))
    boxes, classes, sure = (
        np.zeros((len(detections), many, *tail), np.float32) for tail in ((4,), (widths.pop(),), ())
    )
    for row, picture in enumerate(detections):
        for place, one in enumerate(picture):
            boxes[row, place], classes[row, place] = one.box, vectors[row][place]
            known = getattr(one, "probabilities", None) is not None
            sure[row, place] = one.objectness if known else one.score
    return boxes, classes, sure


def _vector(detection, labels: list[str]) -> np.ndarray:
    given = getattr(detection, "probabilities", None)
    return (
        np.array([detection.label == label for label in labels], np.float32)
        if given is None
        else given
    )
