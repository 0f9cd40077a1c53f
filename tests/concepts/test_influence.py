"""Influence: what leaving a picture out and fitting anew gives, and planted wrong labels."""

import numpy as np
import pytest
from nets import SHAPES, gap_net
from sklearn.linear_model import Ridge

from xai_utils import concepts, keras, models, pictures

RNG = np.random.default_rng(0)
TRAINING = RNG.uniform(0, 255, (20, 12, 12, 3)).astype(np.float32)
LABELS = np.arange(20) % 5
ASKED = RNG.uniform(0, 255, (3, 12, 12, 3)).astype(np.float32)


def fitted_anew(seen, values, penalty, without=None):
    """Ridge regression of scikit-learn, without one picture; the penalty stays that of all."""
    amount = penalty * len(seen) * seen.var(axis=0, dtype=np.float64).mean()
    kept = np.arange(len(seen)) != without
    return Ridge(amount).fit(seen[kept].astype(np.float64), values[kept])


@pytest.mark.parametrize("penalty", [0.01, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_leaving_one_out_is_fitting_anew_without_it(shape, penalty):
    model, targets = SHAPES[shape](), [4, 0, 2]
    model(ASKED)
    layer = {"sequential": "features", "subclassed": "block"}.get(shape)
    found = concepts.influence(model, TRAINING, LABELS, ASKED, targets, layer, penalty=penalty)
    seen, asked = (concepts.codes(model, of, layer) for of in (TRAINING, ASKED))
    values = np.eye(5)[LABELS]
    whole = fitted_anew(seen, values, penalty).predict(asked)
    np.testing.assert_allclose(found.answers, whole, atol=1e-9)
    np.testing.assert_allclose(found.scores, whole[np.arange(3), targets], atol=1e-9)
    for n in range(len(TRAINING)):
        without = fitted_anew(seen, values, penalty, n).predict(asked)
        expected = (whole - without)[np.arange(3), targets]
        np.testing.assert_allclose(found.effects[:, n], expected, atol=1e-9)


def test_self_influence_is_how_far_the_answer_about_itself_moves():
    model, wanted = gap_net(), RNG.normal(size=(20, 5))  # as of a regression, or a multilabel net
    seen = concepts.codes(model, TRAINING)
    for labels, values in ((LABELS, np.eye(5)[LABELS]), (wanted, wanted)):
        found = concepts.self_influence(model, TRAINING, labels)
        whole = fitted_anew(seen, values, 0.01).predict(seen)
        for n in range(len(TRAINING)):
            moved = whole[n] - fitted_anew(seen, values, 0.01, n).predict(seen[[n]])[0]
            assert np.isclose(found[n], np.linalg.norm(moved), atol=1e-9)


def test_an_output_without_a_class_is_asked_by_its_values():
    single = gap_net(classes=1)
    values = np.float32(LABELS[:, None] > 2)
    found = concepts.influence(single, TRAINING, values, ASKED)
    expected = fitted_anew(concepts.codes(single, TRAINING), values, 0.01)
    whole = expected.predict(concepts.codes(single, ASKED)).ravel()
    np.testing.assert_allclose(found.scores, whole, atol=1e-9)


def test_the_answer_asked_for_is_the_networks_and_a_batch_is_its_pictures():
    model = gap_net()
    found = concepts.influence(model, TRAINING, LABELS, ASKED)
    assert found.outputs.tolist() == models.logits_of(model, ASKED).argmax(axis=1).tolist()
    for m in range(3):
        alone = concepts.influence(model, TRAINING, LABELS, ASKED[[m]])
        np.testing.assert_allclose(alone.effects[0], found.effects[m], rtol=1e-4, atol=1e-9)


def test_the_same_picture_again_with_another_label_is_the_most_harmful():
    model = gap_net()
    training = np.concatenate([TRAINING, ASKED[:1], ASKED[:1]])
    labels = np.concatenate([LABELS, [1, 3]])
    effects = concepts.influence(model, training, labels, ASKED[:1], 1).effects[0]
    assert effects.argmax() == 20 and effects.argmin() == 21


def test_planted_wrong_labels_have_the_largest_self_influence():
    """Known truth: a trained network; a fifth of the labels is the other class."""
    model = models.small_networks.build()
    scenes = pictures.bird_or_tree.sample(600, 0.5, 0.5, seed=5)
    planted = np.random.default_rng(1).random(600) < 0.2
    labels = np.where(planted, 1 - scenes.labels, scenes.labels)
    model.compile(
        keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(scenes.images.astype(np.float32), labels, batch_size=32, epochs=8, verbose=0)
    found = concepts.self_influence(model, scenes.images, labels)
    assert models.small_networks.auc(found, planted) > 0.85
    chance = models.small_networks.auc(np.random.default_rng(2).random(600), planted)
    assert 0.4 < chance < 0.6


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": LABELS[:-1]}, "labels are 20 classes"),
        ({"labels": LABELS + 0.5}, "labels are 20 classes"),
        ({"labels": LABELS + 1}, "label 5 is out of range: gap has classes 0 to 4"),
        ({"labels": LABELS - 1}, "label -1 is out of range"),
        ({"labels": LABELS % 2, "target": 3}, "class 3 is on none of the 20 labels"),
        ({"training": TRAINING[:1], "labels": LABELS[:1]}, "at least 2 training pictures, not 1"),
        ({"training": TRAINING[[0] * 20]}, "all the same"),
        ({"training": np.full_like(TRAINING, np.nan)}, "finite"),
        ({"penalty": 0}, "penalty must be above 0 and finite, not 0"),
        ({"target": lambda outputs: outputs[:, 0]}, "target is a class or None"),
        ({"target": 7}, "out of range"),
        ({"layer": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(changed, message):
    given = {"training": TRAINING, "labels": LABELS, "images": ASKED} | changed
    with pytest.raises(ValueError, match=message) as error:
        concepts.influence(gap_net(), **given)
    assert "\n" not in str(error.value)
