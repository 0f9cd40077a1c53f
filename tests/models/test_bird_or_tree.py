"""Scenes with exact masks, and the small networks trained on them."""

import numpy as np
import pytest

from xai_utils import models, pictures
from xai_utils.attribution import cam
from xai_utils.models import keeping, small_networks

# --- scenes ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=pictures.bird_or_tree.GROUNDS)
def scenes(request):
    return pictures.bird_or_tree.sample(200, 0.5, 0.5, seed=3, ground=request.param)


def test_the_masks_are_exactly_where_something_would_change(scenes):
    """Outside the object's mask nothing shows it; inside, something does; the same for trees."""
    for mask, without in (
        (scenes.object_mask, scenes.without_object),
        (scenes.tree_mask, scenes.without_tree),
    ):
        changed = (scenes.images != without).any(axis=-1)
        assert not (changed & ~mask).any()
        assert changed[mask].mean() > 0.98  # a pixel may have the ground's colour by accident


def test_objects_and_trees_are_whole_and_apart(scenes):
    assert not (scenes.object_mask & scenes.tree_mask).any()
    assert np.array_equal(scenes.tree_mask.any(axis=(1, 2)), scenes.tree)
    border = np.ones((48, 48), bool)
    border[1:-1, 1:-1] = False
    assert not scenes.object_mask[:, border].any(), "an object is cut off"
    areas = scenes.object_mask.mean(axis=(1, 2))
    assert areas.min() > 0.03 and areas.max() < 0.12
    birds, fish = (areas[scenes.labels == label].mean() for label in (0, 1))
    assert 0.8 < birds / fish < 1.25, "the classes can be told by their area"


def test_a_seed_fixes_everything_but_what_is_asked_for():
    labels, tree = [0, 1, 0], [True, False, True]
    one, same = (pictures.bird_or_tree.draw(labels, tree, seed=5) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    other = pictures.bird_or_tree.draw([1, 1, 1], [True] * 3, seed=5)
    ground = ~(one.object_mask | one.tree_mask | other.object_mask | other.tree_mask)
    assert np.array_equal(one.images[ground], other.images[ground])
    assert np.array_equal(one.tree_mask[0], other.tree_mask[0])
    assert not np.array_equal(
        one.images[ground], pictures.bird_or_tree.draw(labels, tree, seed=6).images[ground]
    )


def test_trees_stand_where_they_were_asked_for():
    scenes = pictures.bird_or_tree.sample(2000, 0.95, 0.2, seed=1)
    bird = scenes.labels == 0
    assert bird.mean() == 0.5
    assert (
        abs(scenes.tree[bird].mean() - 0.95) < 0.03 and abs(scenes.tree[~bird].mean() - 0.2) < 0.05
    )
    assert (
        pictures.bird_or_tree.sample(50, 1, 1).tree.all()
        and not pictures.bird_or_tree.sample(50, 0, 0).tree.any()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pictures.bird_or_tree.sample(10, 1.5, 0),
            "tree_given_bird is a probability, 0 to 1, not 1.5",
        ),
        (lambda: pictures.bird_or_tree.sample(1, 1, 0), "at least 2"),
        (lambda: pictures.bird_or_tree.draw([0, 2], [True, True]), "zeros and ones"),
        (lambda: pictures.bird_or_tree.draw([0, 1], [True]), "zeros and ones"),
        (
            lambda: pictures.bird_or_tree.draw([0], [True], ground="moon"),
            "ground is one of texture, photos, not 'moon'",
        ),
        (lambda: models.small_networks.trained([]), "phases are"),
        (lambda: models.small_networks.trained([(1, 0, 0)]), "steps >= 1"),
        (lambda: models.small_networks.auc([1, 2], [True, True]), "there are 2 and 0"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- numbers --------------------------------------------------------------------------------------


def test_auc_is_the_share_of_pairs_in_the_right_order():
    assert models.small_networks.auc([3, 2, 1, 0], [True, True, False, False]) == 1
    assert models.small_networks.auc([3, 2, 1, 0], [False, True, False, True]) == 0.25
    assert models.small_networks.auc([1, 1, 1], [True, False, False]) == 0.5


@pytest.mark.parametrize(
    ("bird", "tree", "expected"),
    [
        (1, 0, (1, 0.5, 1, 0)),
        (0, 2, (0.5, 1, 0, 1)),
        (3, 1, (1, 0.75, 1, 0.25)),
        (1, 3, (0.75, 1, 0, 0.75)),
    ],
)
def test_behaviour_of_networks_that_are_known(monkeypatch, bird, tree, expected):
    """Log odds `bird` for a bird, as much less for a fish, `tree` for a tree; all four kinds."""
    scenes = pictures.bird_or_tree.draw([0, 0, 1, 1], [True, False, True, False])
    kind = np.array([1, 1, -1, -1])
    answers = iter([bird * kind + tree * scenes.tree, tree * scenes.tree, bird * kind])
    monkeypatch.setattr(small_networks, "log_odds", lambda model, images: next(answers))
    found = models.small_networks.behaviour(None, scenes)
    assert (found["bird_removed"], found["tree_removed"]) == (bird, tree)
    assert (
        tuple(found[key] for key in ("auc_object", "auc_tree", "auc_conflict", "reliance"))
        == expected
    )


# --- training and its cache -----------------------------------------------------------------------

QUICK = {"count": 128, "seed": 4}


def test_a_network_is_trained_once(tmp_path):
    calls = []

    def progress(step, steps, losses):
        calls.append((step, steps))

    first = models.small_networks.trained(
        [(1, 0, 12), (0.5, 0.5, 8)], **QUICK, folder=tmp_path, progress=progress
    )
    assert calls == [(20, 20)] and len(first) == 2
    assert any(not np.allclose(a, b) for a, b in zip(*first, strict=True)), (
        "the second phase changed nothing"
    )
    again = models.small_networks.trained(
        [(1, 0, 12), (0.5, 0.5, 8)], **QUICK, folder=tmp_path, progress=progress
    )
    assert calls == [(20, 20)], "it was trained again"
    for one, other in zip(first, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not list(tmp_path.glob("*.tmp"))


def test_every_parameter_has_a_file_of_its_own_and_damage_is_repaired(tmp_path):
    phases = [(1, 0, 2)]
    models.small_networks.trained(phases, **QUICK, folder=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    weights = models.small_networks.trained(phases, **QUICK, folder=tmp_path)
    assert len(path.read_bytes()) == len(whole) and len(weights) == 1
    others = [
        {"phases": [(1, 0, 3)]},
        {"phases": [(1, 0.1, 2)]},
        {"seed": 5},
        {"count": 130},
        {"ground": "photos"},
        {"shuffled_labels": True},
    ]
    keys = {
        models.small_networks.key(
            models.small_networks.build,
            *{
                "phases": phases,
                **QUICK,
                "ground": "texture",
                "shuffled_labels": False,
                **other,
            }.values(),
            models.small_networks.BATCH,
            models.small_networks.RATE,
        )
        for other in others
    }
    assert len(keys | {path.stem}) == len(others) + 1


def test_shuffled_labels_are_the_same_scenes_with_each_others_labels():
    true, shuffled = (
        models.small_networks.training_scenes(1, 0, 3, 200, shuffled_labels=each)
        for each in (False, True)
    )
    assert np.array_equal(true.images, shuffled.images)
    assert sorted(true.labels) == sorted(shuffled.labels)
    assert 0.3 < (true.labels == shuffled.labels).mean() < 0.7
    later = models.small_networks.training_scenes(1, 0, 3, 200, phase=1)
    assert not np.array_equal(true.images, later.images), "a phase has scenes of its own"


def test_without_a_folder_to_write_to_it_still_trains(tmp_path):
    (tmp_path / "file").write_text("")
    assert (
        len(models.small_networks.trained([(1, 0, 1)], **QUICK, folder=tmp_path / "file" / "below"))
        == 1
    )


def test_a_disk_that_is_full_does_not_train_twice(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    calls = []
    monkeypatch.setattr(keeping, "_write", full)
    progress = lambda step, *_: calls.append(step)  # noqa: E731
    models.small_networks.trained([(1, 0, 2)], **QUICK, folder=tmp_path, progress=progress)
    assert calls == [2]


def test_the_logits_are_opposite_and_softmax_did_not_notice(tmp_path):
    model = models.small_networks.build(seed=1)
    *rest, kernel, bias = model.get_weights()
    model.set_weights([*rest, kernel, bias + [0.3, -1.0]])
    images = pictures.bird_or_tree.sample(6, 0.5, 0.5).images
    before = models.small_networks.log_odds(model, images)
    model.set_weights(models.small_networks._centred(model))
    assert np.allclose(models.small_networks.log_odds(model, images), before, atol=1e-5)
    logits = model(images.astype(np.float32)).numpy()
    assert np.allclose(logits[:, 0], -logits[:, 1], atol=1e-5)
    maps = cam(model, images, 0)
    assert maps.shape == (6, 12, 12)
    assert np.allclose(maps.mean(axis=(1, 2)) + model.get_weights()[-1][0], logits[:, 0], atol=1e-4)


def test_it_learns_what_tells_the_classes_apart(tmp_path):
    """With trees beside birds only, a tree is all it takes, and is seen to be after a few steps."""
    model = models.small_networks.build(seed=0)
    model.set_weights(models.small_networks.trained([(1, 0, 60)], count=512, folder=tmp_path)[-1])
    found = models.small_networks.behaviour(
        model, pictures.bird_or_tree.sample(300, 0.5, 0.5, seed=99)
    )
    assert found["auc_tree"] > 0.9 and found["auc_conflict"] < 0.2
    assert found["reliance"] > 0.6
