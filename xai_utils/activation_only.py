"""Class activation without gradients: CAM, Score-CAM and Eigen-CAM.

Every function has the signature `method(model, images, target=None, **settings) -> maps`; see `attribution`.
"""

import numpy as np

from xai_utils import layers
from xai_utils.backend import check_images, compiled, in_parts, keras, tf
from xai_utils.capture import capture, code_at
from xai_utils.layers import check_layer
from xai_utils.targets import check_target, classes, fixed_target, scores
from xai_utils.transforms import masked

IMAGES_AT_ONCE = 32  # masked pictures in one forward pass of Score-CAM


def cam(model: keras.Model, images, target=None, layer: str | None = None) -> np.ndarray:
    """CAM: activations weighted by the target's column of the last Dense layer, `sum_k w_k A_k`; no gradient needed.

    Exact where the network ends in global average pooling and one Dense layer; that is checked on the batch itself.
    Source: Zhou et al., "Learning deep features for discriminative localization" (CVPR 2016), equation 2.

    Args:
        model, images, layer: as for `grad_cam`.
        target: None (top class), class index or N indices; a callable has no column of weights.

    Returns:
        float32 maps `(N, h, w)`, signed, in logits: their mean over the positions is the logit minus its bias.

    Raises:
        ValueError: as `grad_cam`, and where the network does not end in global average pooling and one Dense layer.
    """
    batch = check_images(model, images)
    indices, function = check_target(model, batch, target)
    if function is not None:
        raise ValueError("cam explains classes only: its weights are a class's column of the last Dense layer")
    layer = check_layer(model, batch.shape, layer)
    maps, gap = compiled(model, _cam, layer=layer)(batch, indices)
    if not gap.numpy() < 1e-3:
        raise ValueError(_NOT_GAP.format(model.name, layer))
    return maps.numpy()


_NOT_GAP = (
    "cam is exact only where global average pooling and one Dense layer follow the layer; {0} does something else "
    "after {1!r}: use grad_cam, or another layer"
)


def score_cam(model: keras.Model, images, target=None, layer: str | None = None, relu: bool = True) -> np.ndarray:
    """Score-CAM: each channel, scaled to 0..1 and enlarged, masks the picture; its weight is the score that is left.

    `alpha = softmax_k(f(x * norm(up A_k)))`, `ReLU(sum_k alpha_k A_k)`. The paper subtracts f(baseline) from every f;
    the softmax drops what all have in common, so it is left out. Dead channels are skipped: their mask is empty and
    leaves a black picture, which is scored once. Pictures are masked and scored in chunks, so that memory does not grow
    with the channels.
    Source: Wang et al., "Score-CAM" (CVPRW 2020), equations 4 to 7, with the logit as f.

    Args:
        model, images, target, layer: as for `grad_cam`.
        relu: keep only evidence for the target.

    Returns:
        float32 maps `(N, h, w)`, in units of the activations.

    Raises:
        ValueError: as `grad_cam`.
    """
    batch = check_images(model, images)
    indices, function = fixed_target(model, batch, target)
    layer = check_layer(model, batch.shape, layer)
    maps = compiled(model, code_at, layer=layer)(batch)
    low, high = (limit(maps, axis=(1, 2)) for limit in (tf.reduce_min, tf.reduce_max))
    alive = np.argwhere((high > low).numpy()).astype(np.int32)  # (image, channel), image by image
    norm = tf.math.divide_no_nan(maps - low[:, None, None], (high - low)[:, None, None])
    run = compiled(model, _masked_by_channel, function=function)
    kept = [run(batch, norm, indices, tf.constant(part)) for part in in_parts(alive, IMAGES_AT_ONCE)]
    left = np.zeros((len(batch), maps.shape[-1]), np.float32)
    if len(alive) < left.size:
        left += compiled(model, scores, function=function)(tf.zeros_like(batch), indices).numpy()[:, None]
    left[tuple(alive.T)] = np.concatenate(kept or [np.zeros(0)])
    result = tf.einsum("nhwk,nk->nhw", maps, tf.nn.softmax(tf.cast(left, maps.dtype)))
    return (tf.nn.relu(result) if relu else result).numpy()


def eigen_cam(model: keras.Model, images, target=None, layer: str | None = None) -> np.ndarray:
    """Eigen-CAM: the activations projected on their first principal direction; no class, no gradient.

    The direction's sign is chosen so that the map adds up to something positive.
    Source: Muhammad & Yeasin, "Eigen-CAM" (IJCNN 2020), equation 3.

    Args, Raises: as `grad_cam`; `target` is checked and has no effect: the map is the same for every class.

    Returns:
        float32 maps `(N, h, w)`, in units of the activations.
    """
    batch = check_images(model, images)
    check_target(model, batch, target)
    return compiled(model, _eigen_cam, layer=check_layer(model, batch.shape, layer))(batch).numpy()


def _eigen_cam(model, images, layer):
    maps = code_at(model, images, layer)
    flat = tf.reshape(maps, (tf.shape(maps)[0], -1, maps.shape[-1]))
    # (h w)^2 is far smaller than K^2: the first left singular vector, scaled, is the projection.
    values, vectors = tf.linalg.eigh(tf.matmul(flat, flat, transpose_b=True))
    first = vectors[..., -1] * tf.sqrt(tf.nn.relu(values[..., -1:]))
    first *= tf.where(tf.reduce_sum(first, axis=1, keepdims=True) < 0, -1.0, 1.0)
    return tf.reshape(first, tf.shape(maps)[:3])


def _dense_head(model, layer: str) -> keras.layers.Dense:
    """The last Dense layer, whose weights CAM reads."""
    dense = [each for _, each in layers.walk(model) if isinstance(each, keras.layers.Dense)]
    if not dense:
        raise ValueError(_NOT_GAP.format(model.name, layer))
    return dense[-1]


def _cam(model, images, indices, layer):
    """Maps, and the largest distance of their mean over positions from the logit, relative to the spread of logits."""
    with capture(model, [layer]) as activations:
        logits = model(images, training=False)
    dense, maps = _dense_head(model, layer), activations[layer]
    if dense.kernel.shape != (maps.shape[-1], logits.shape[-1]):
        return maps[..., 0], tf.constant(np.inf)
    indices = classes(logits, indices)
    cams = tf.einsum("nhwk,kn->nhw", maps, tf.gather(dense.kernel, indices, axis=1))
    mean = tf.reduce_mean(cams, axis=(1, 2)) + (tf.gather(dense.bias, indices) if dense.use_bias else 0)
    gap = tf.abs(mean - tf.gather(logits, indices, batch_dims=1)) / (tf.math.reduce_std(logits) + 1e-12)
    return cams, tf.reduce_max(gap)


def _masked_by_channel(model, images, norm, indices, pairs, function):
    """Scores `(F,)` of F pictures, each masked by one channel of its own map."""
    masks = tf.gather_nd(tf.transpose(norm, (0, 3, 1, 2)), pairs)[..., None]
    masks = tf.image.resize(masks, images.shape[1:3])[..., 0]
    return scores(model, masked(tf.gather(images, pairs[:, 0]), masks), tf.gather(indices, pairs[:, 0]), function)
