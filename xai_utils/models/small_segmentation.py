"""A small U-Net trained on `lamp_or_buoy` scenes within seconds, and what is known about it.

It says for every pixel what is there. Whether a disc is a lamp or a buoy it can only learn from the
square beside it. It is kept on disk as the other small networks are.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from xai_utils import pictures
from xai_utils.engine import keras, tf
from xai_utils.models import keeping
from xai_utils.models.load import Classifier, load_model

layers = keras.layers

BATCH, RATE = 24, 4e-3  # scenes in a step; first learning rate
WEIGHT = 5.0  # of an object's pixel in the loss, for most pixels are ground
# From the pixels to the scores: kernels of convolutions, and changes of the resolution by 2.
STEPS = (3, 3, "down", 3, 3, "down", 3, 3, "up", 3, "up", 3, 1)


def build(seed: int = 0) -> keras.Model:
    """A U-Net for scenes, with fresh weights.

    Two convolutions at each of three resolutions, then up again with what each resolution knew
    beside it. Nothing is normalised over a picture, so that what a pixel depends on is bounded; see
    `seen_from`.

    Args:
        seed: of the weights; default 0.

    Returns:
        A flat functional model: pixels `(N, 48, 48, 3)` in 0..255 to probabilities
        `(N, 48, 48, 4)`.
    """
    numbers = iter(range(100 * seed, 100 * seed + 100))

    def convolved(x, channels, name):
        initial = keras.initializers.HeNormal(next(numbers))
        return layers.Conv2D(
            channels, 3, padding="same", activation="relu", kernel_initializer=initial, name=name
        )(x)

    size = pictures.lamp_or_buoy.SIZE
    inputs = keras.Input((size, size, 3), name="pixels")
    x = layers.Rescaling(1 / 64, offset=-2, name="rescale")(inputs)
    fine = convolved(convolved(x, 8, "fine1"), 12, "fine2")
    x = layers.MaxPooling2D(name="half")(fine)
    middle = convolved(convolved(x, 16, "middle1"), 24, "middle2")
    x = layers.MaxPooling2D(name="quarter")(middle)
    x = convolved(convolved(x, 32, "coarse1"), 32, "coarse2")
    x = layers.UpSampling2D(name="to_half")(x)
    x = convolved(layers.Concatenate(name="beside_middle")([x, middle]), 24, "middle3")
    x = layers.UpSampling2D(name="to_whole")(x)
    x = convolved(layers.Concatenate(name="beside_fine")([x, fine]), 16, "fine3")
    initial = keras.initializers.GlorotUniform(next(numbers))
    head = layers.Conv2D(4, 1, activation="softmax", kernel_initializer=initial, name="classes")
    return keras.Model(inputs, head(x), name="lamp_or_buoy")


def trained(
    steps: int = 260,
    seed: int = 0,
    count: int = 1200,
    progress: Callable | None = None,
    folder: Path | None = None,
) -> Classifier:
    """The U-Net, trained or fetched from disk.

    Args:
        steps: of training, 24 scenes each; the learning rate falls to nothing.
        seed: of the first weights and of the scenes.
        count: scenes to train on.
        progress: called as `(step, steps, [loss])`; not called when the network is fetched.
        folder: where networks are kept.

    Returns:
        A `Classifier` of the classes of `lamp_or_buoy`, its task `segmentation`.

    Raises:
        ValueError: no steps or scenes.
    """
    if steps < 1:
        raise ValueError(f"training takes at least 1 step, not {steps}")
    code = (pictures.lamp_or_buoy, pictures.bird_or_tree, build)
    name = keeping.key([steps, seed, count, BATCH, RATE, WEIGHT], code)
    (weights,) = keeping.kept(
        name, 1, lambda: [_train(steps, seed, count, progress)], folder=folder
    )
    model = build(seed)
    model.set_weights(weights)
    model.trainable = False
    return load_model(model, preprocessing="none", labels=pictures.lamp_or_buoy.CLASSES)


def seen_from(row: int, column: int) -> tuple[slice, slice]:
    """The pixels that a place of the U-Net's output can depend on: its receptive field, exactly.

    An interval of places is followed back through the steps: a convolution of k adds (k - 1) / 2
    places at both ends, a place of the lower resolution is two of the higher.

    Args:
        row, column: of the output, 0 to 47.

    Returns:
        Rows and columns of the picture; no pixel outside has any influence.
    """
    return _interval(row), _interval(column)


def _interval(place: int) -> slice:
    # What comes by a skip has seen less than what went all the way down.
    first = last = place
    for step in reversed(STEPS):
        if step == "up":
            first, last = first // 2, last // 2
        elif step == "down":
            first, last = 2 * first, 2 * last + 1
        else:
            first, last = first - step // 2, last + step // 2
    return slice(max(first, 0), min(last + 1, pictures.lamp_or_buoy.SIZE))


def overlap(found, truth, classes: int = 4) -> np.ndarray:
    """Intersection over union of each class, over all pictures together.

    Args:
        found, truth: int `(N, h, w)`, the class of every pixel.
        classes: how many there are.

    Returns:
        float64 `(classes,)` in 0..1; nan for a class that is in neither.

    Example:
        >>> overlap(np.array([[[0, 1], [1, 1]]]), np.array([[[0, 0], [1, 1]]]), 2).round(2).tolist()
        [0.5, 0.67]
    """
    pairs = [(np.asarray(found) == index, np.asarray(truth) == index) for index in range(classes)]
    both = np.array([(one & other).sum() for one, other in pairs], float)
    either = np.array([(one | other).sum() for one, other in pairs], float)
    return np.divide(both, either, out=np.full(classes, np.nan), where=either > 0)


def _train(steps: int, seed: int, count: int, progress) -> list[np.ndarray]:
    model, scenes = build(seed), pictures.lamp_or_buoy.sample(count, 1000 + seed)
    images, classes = tf.constant(scenes.images), tf.constant(scenes.classes)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps))
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng([seed, 2])
    order = np.concatenate([rng.permutation(count) for _ in range(-(-steps * BATCH // count))])
    step = _step(model, optimizer)
    for i in range(steps):
        chosen = tf.constant(order[i * BATCH : (i + 1) * BATCH])
        loss = step(tf.gather(images, chosen), tf.gather(classes, chosen))
        if progress and ((i + 1) % 20 == 0 or i + 1 == steps):
            progress(i + 1, steps, [float(loss)])
    return model.get_weights()


def _step(model, optimizer):
    @tf.function(autograph=False)
    def step(images, classes):
        with tf.GradientTape() as tape:
            shares = model(tf.cast(images, tf.float32), training=True)
            of_pixels = keras.losses.sparse_categorical_crossentropy(classes, shares)
            weights = tf.where(classes > 0, WEIGHT, 1.0)
            loss = tf.reduce_sum(weights * of_pixels) / tf.reduce_sum(weights)
        optimizer.apply(tape.gradient(loss, model.trainable_variables))
        return loss

    return step
