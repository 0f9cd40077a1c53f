"""The small transformer: which tokens it has, what its head reads, and that it learns."""

import numpy as np
import pytest

from xai_utils import attribution, keras, models, pictures
from xai_utils.models import small_networks, small_transformer
from xai_utils.models.maps import default_layer, read_tokens

SHAPE = (1, 48, 48, 3)


@pytest.mark.parametrize(
    ("head", "registers"), [("class token", 0), ("class token", 2), ("mean", 1)]
)
def test_its_tokens_are_a_grid_between_others_and_its_head_reads_what_it_says(head, registers):
    model = small_transformer.build(head, registers)
    before = registers + (head == "class token")
    grid, read = read_tokens(model, SHAPE, before + 64)
    assert grid == (8, 8, before, 0)
    expected = np.zeros(before + 64)
    if head == "class token":
        expected[0] = 1
    else:
        expected[before:] = 1 / 64
    assert np.allclose(read, expected)
    wanted = {"class token": "block4_norm1", "mean": "norm"}  # what the last tokens are read of
    assert default_layer(model, SHAPE) == wanted[head]
    images = np.full(SHAPE, 90, np.float32)
    images[:, 10:20, 10:20] = 200
    found = attribution.attention(model, images)
    assert found.shape == (1, 4, 4, before + 64, before + 64)
    assert np.allclose(found.sum(axis=-1), 1, atol=1e-5)


def test_a_seed_fixes_the_weights_and_the_parts_of_attention_differ():
    one, same, other = (small_transformer.build(seed=seed) for seed in (3, 3, 4))
    pairs = zip(one.get_weights(), same.get_weights(), other.get_weights(), strict=True)
    differ = [np.array_equal(a, b) and not np.array_equal(a, c) for a, b, c in pairs if np.ptp(a)]
    assert all(differ)
    attention = one.get_layer("block1_attention")
    query, key = attention._query_dense.kernel, attention._key_dense.kernel
    assert not np.allclose(query, key)
    assert 140_000 < one.count_params() < 150_000


def test_it_is_saved_and_read_as_any_other_file(tmp_path):
    model = small_transformer.build("mean", 2, seed=1)
    model.save(tmp_path / "mine.keras")
    images = pictures.bird_or_tree.sample(3, 0.5, 0.5).images
    again = keras.saving.load_model(tmp_path / "mine.keras")
    logits = models.logits_of(model, images)
    assert np.allclose(models.logits_of(again, images), logits, atol=1e-4)


def test_it_learns_what_tells_the_classes_apart_and_is_kept(tmp_path):
    model, calls = small_transformer.build(), []
    given = {"count": 256, "folder": tmp_path, "progress": lambda *step: calls.append(step)}
    weights = small_transformer.trained([(1, 0, 40)], **given)
    model.set_weights(weights[-1])
    found = small_networks.behaviour(model, pictures.bird_or_tree.sample(200, 0.5, 0.5, seed=99))
    assert found["auc_tree"] > 0.9 and found["reliance"] > 0.6
    assert [step for step, *_ in calls] == [20, 40]
    again = small_transformer.trained([(1, 0, 40)], **given)
    assert len(calls) == 2, "fetched, not trained"
    assert all(np.array_equal(a, b) for a, b in zip(weights[-1], again[-1], strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small_transformer.build("max"), "head is one of class token, mean, not 'max'"),
        (lambda: small_transformer.build(registers=-1), "0 or more, not -1"),
        (lambda: small_transformer.trained([]), r"at least one; got \[\]"),
        (lambda: small_transformer.trained([(1, 0, 0)]), "steps >= 1"),
        (lambda: small_transformer.trained([(2, 0, 1)]), "not 2"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()
