"""Small networks trained on `bird_or_tree` scenes within seconds, and what they rely on.

They are kept on disk. A network is one Keras model with weights put in: all techniques keep what
they compiled for it when the weights change (`model.set_weights`), so a dozen networks cost little
more than one.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from xai_utils import pictures
from xai_utils.engine import keras, tf
from xai_utils.models import keeping
from xai_utils.models.labels import name_classes
from xai_utils.models.targets import logits_of
from xai_utils.pictures import load_image

layers = keras.layers

BATCH, RATE = 64, 3e-3  # pictures in a step; first learning rate


def build(seed: int = 0) -> keras.Model:
    """A convolutional network for scenes, with fresh weights.

    It ends in global average pooling and one Dense layer, so CAM is exact on `features`. The first
    layer's channels are normalised, each over one picture, so that the ground's colour hardly
    matters; batch normalisation would mix pictures, and miscalibrates when the data change.

    Args:
        seed: of the weights; default 0.

    Returns:
        A flat functional model: pixels `(N, 48, 48, 3)` in 0..255 to logits `(N, 2)`.
    """
    inputs = keras.Input((pictures.bird_or_tree.SIZE, pictures.bird_or_tree.SIZE, 3), name="pixels")
    x = layers.Rescaling(1 / 64, offset=-2, name="rescale")(inputs)
    for number, (kernel, stride, channels) in enumerate(
        [(5, 2, 16), (3, 2, 32), (3, 1, 32), (3, 1, 48)], 1
    ):
        initial = keras.initializers.HeNormal(10 * seed + number)
        x = layers.Conv2D(
            channels, kernel, stride, "same", kernel_initializer=initial, name=f"conv{number}"
        )(x)
        if number == 1:
            x = layers.GroupNormalization(-1, name="norm")(x)
        x = layers.ReLU(name="features" if number == 4 else f"relu{number}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    head = layers.Dense(
        2, kernel_initializer=keras.initializers.GlorotUniform(10 * seed), name="logits"
    )
    model = keras.Model(inputs, head(x), name="bird_or_tree")
    name_classes(model, pictures.bird_or_tree.CLASSES)
    return model


def draw_kernels(model: keras.Model, seed: int):
    """Draw all kernels of a network anew, each from a seed of its own.

    Args:
        model: any Keras model; attention's parts too, which Keras would give one seed.
        seed: of them all.
    """
    for number, weights in enumerate(model.trainable_variables):
        if weights.path.endswith("kernel"):
            glorot = keras.initializers.GlorotUniform(1000 * seed + number)
            weights.assign(glorot(weights.shape))


def adam(steps: int) -> keras.optimizers.Optimizer:
    """Adam, whose learning rate falls to nothing.

    Args:
        steps: within which it falls.

    Returns:
        A Keras optimizer.
    """
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps))


def checked_phases(phases) -> list[tuple[float, float, int]]:
    """Phases of a training as plain numbers.

    Args:
        phases: as `trained` is given them.

    Returns:
        As many `(P(tree | bird), P(tree | fish), steps)`.

    Raises:
        ValueError: no phase, or one without steps.
    """
    phases = [(float(p), float(q), int(steps)) for p, q, steps in phases]
    if not phases or min(steps for *_, steps in phases) < 1:
        raise ValueError(
            f"phases are (P(tree | bird), P(tree | fish), steps >= 1), at least one; got {phases}"
        )
    return phases


def trained(
    phases: Sequence[tuple[float, float, int]],
    seed: int = 0,
    count: int = 2000,
    ground: str = "texture",
    shuffled_labels: bool = False,
    progress: Callable | None = None,
    folder: Path | None = None,
) -> list[list[np.ndarray]]:
    """Train a network, or fetch it from disk.

    It is there if it was trained before with the same parameters by the same code.

    Args:
        phases: one after another, `(P(tree | bird), P(tree | fish), steps)`: so a network can be
            repaired with other data than it began with. Each phase has a learning rate that falls
            to nothing.
        seed: of the first weights, of the scenes and of their order.
        count: scenes in each phase's training set.
        ground: `texture` (smooth noise in a random colour) or `photos` (pieces of photographs).
        shuffled_labels: give the scenes each other's labels: all that can be learnt is by heart.
        progress: called as `(step, steps, [loss])`; not called when the network is fetched.
        folder: where networks are kept.

    Returns:
        The weights after each phase, for `model.set_weights`. The two columns of the last layer are
        opposite numbers, which no probability notices: each logit is half the log odds of its
        class.

    Raises:
        ValueError: no phase, no steps, or what `bird_or_tree.sample` finds wrong.
    """
    phases = checked_phases(phases)
    data = (seed, count, ground, shuffled_labels)
    return keeping.kept(
        key(build, phases, *data, BATCH, RATE),
        len(phases),
        lambda: fitted(build(seed), phases, data, progress=progress),
        folder=folder,
    )


def key(made: Callable, *parameters) -> str:
    """A name for all that weights depend on: parameters, and the code that draws and trains.

    Args:
        made: the function that builds the network.
        parameters: what can be written as JSON.

    Returns:
        24 hexadecimal digits.
    """
    return keeping.key(parameters, (pictures.bird_or_tree, load_image, fitted, made))


def training_scenes(
    tree_given_bird,
    tree_given_fish,
    seed=0,
    count=2000,
    ground="texture",
    shuffled_labels=False,
    phase=0,
) -> pictures.bird_or_tree.Scenes:
    """The scenes and labels that `trained` uses in one phase.

    Args:
        tree_given_bird, tree_given_fish: probability of a tree beside a bird, and beside a fish.
        seed: of the scenes, as it was given to `trained`.
        count: scenes in the set.
        ground: `texture` or `photos`, see `bird_or_tree.draw`.
        shuffled_labels: give the scenes each other's labels.
        phase: its number, from 0.

    Returns:
        `Scenes`, of 48 x 48 pixels each.
    """
    number = 100 * seed + phase
    scenes = pictures.bird_or_tree.sample(count, tree_given_bird, tree_given_fish, number, ground)
    if not shuffled_labels:
        return scenes
    return scenes._replace(labels=np.random.default_rng([number, 3]).permutation(scenes.labels))


def fitted(
    model: keras.Model,
    phases: Sequence[tuple[float, float, int]],
    data: tuple = (0,),
    batch: int = BATCH,
    make_optimizer: Callable = adam,
    progress: Callable | None = None,
) -> list[list[np.ndarray]]:
    """Train a network on scenes, phase after phase.

    Args:
        model: scenes to two logits, of a Dense layer that is its last; it is changed.
        phases: one after another, `(P(tree | bird), P(tree | fish), steps)`.
        data: what `training_scenes` is given of the scenes: `(seed, count, ground,
            shuffled_labels)`, or the first of them.
        batch: scenes in a step.
        make_optimizer: called with the steps of a phase, returns a Keras optimizer.
        progress: called as `(step, steps, [loss])`.

    Returns:
        The weights after each phase, the last layer's less their mean over the classes.
    """
    rng = np.random.default_rng([data[0], 2])
    total, done, kept = sum(steps for *_, steps in phases), 0, []
    for number, (*trees, steps) in enumerate(phases):
        scenes = training_scenes(*trees, *data, phase=number)
        images, labels = tf.constant(scenes.images), tf.constant(scenes.labels)
        optimizer, count = make_optimizer(steps), len(scenes.labels)
        optimizer.build(model.trainable_variables)
        step = _step(model, optimizer)
        order = np.concatenate([rng.permutation(count) for _ in range(-(-steps * batch // count))])
        for i in range(steps):
            chosen = tf.constant(order[i * batch : (i + 1) * batch])
            loss = step(tf.gather(images, chosen), tf.gather(labels, chosen))
            done += 1
            if progress and (done % 20 == 0 or done == total):
                progress(done, total, [float(loss)])
        kept.append(_centred(model))
    return kept


def behaviour(model: keras.Model, scenes: pictures.bird_or_tree.Scenes) -> dict[str, float]:
    """What a network relies on, measured on scenes in which trees and objects are independent.

    Args:
        model: scenes to two logits.
        scenes: of `bird_or_tree.sample(count, 0.5, 0.5, ...)`.

    Returns:
        `auc_object`: of the score for bird against bird or fish; `auc_tree`: of the same score
        against tree or none;
        `auc_conflict`: against bird or fish, among birds without and fish with a tree.
        `bird_removed` and
        `tree_removed`: how far the log odds of bird fall when the bird, or the tree, is taken out
        of pictures with
        both. `reliance`: of the sizes of the two, the tree's share.
    """
    odds, *without = (
        log_odds(model, images)
        for images in (scenes.images, scenes.without_object, scenes.without_tree)
    )
    bird = scenes.labels == 0
    conflict = bird != scenes.tree
    gone = [(odds - others)[bird & scenes.tree].mean() for others in without]
    return {
        "auc_object": auc(odds, bird),
        "auc_tree": auc(odds, scenes.tree),
        "auc_conflict": auc(odds[conflict], bird[conflict]),
        "bird_removed": float(gone[0]),
        "tree_removed": float(gone[1]),
        "reliance": float(abs(gone[1]) / (abs(gone[0]) + abs(gone[1]))),
    }


def log_odds(model: keras.Model, images) -> np.ndarray:
    """Log odds of bird against fish.

    Args:
        model: scenes to two logits, of `build`.
        images: `(N, 48, 48, 3)` in 0..255.

    Returns:
        float32 `(N,)`, above 0 for a bird.
    """
    logits = logits_of(model, images)
    return logits[:, 0] - logits[:, 1]


def auc(scores, positive) -> float:
    """Area under the ROC curve: how often a positive case scores higher than a negative one.

    A tie counts half.

    Args:
        scores: `(N,)`, any number type.
        positive: bool `(N,)`.

    Returns:
        0..1, one half by chance.

    Raises:
        ValueError: no positive case, or none that is not.

    Example:
        >>> auc([0.9, 0.8, 0.3], [True, False, False])
        1.0
    """
    positive = np.asarray(positive, bool)
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        raise ValueError(f"auc compares positive with negative cases: there are {ones} and {zeros}")
    return float(roc_auc_score(positive, scores))


def _step(model, optimizer):
    @tf.function(autograph=False)
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(tf.cast(images, tf.float32), training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables))
        return loss

    return step


def _centred(model) -> list[np.ndarray]:
    """The weights, the last layer's less their mean over the classes: softmax does not notice."""
    *rest, kernel, bias = model.get_weights()
    return [*rest, kernel - kernel.mean(axis=1, keepdims=True), bias - bias.mean()]
