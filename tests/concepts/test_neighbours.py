"""Nearest pictures against a slow search, codes that are kept, prototypes of known groups."""

import tracemalloc

import nets
import numpy as np
import pytest
from PIL import Image

from xai_utils import concepts, keras, models
from xai_utils.concepts import neighbours


def colours(model=None, size=12):
    """A classifier of small pictures; its code at `features` is 6 numbers."""
    model = model or nets.gap_net()
    return models.Classifier(
        "gap", model, (size, size), tuple("abcde"), "features", resizing="stretch"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty pictures, some deeper, one hidden, one no picture."""
    at = tmp_path_factory.mktemp("many")
    (at / "deep").mkdir()
    rng = np.random.default_rng(0)
    for n in range(40):
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(at / ("deep" if n % 4 == 0 else "") / f"{n:02d}.png")
    Image.fromarray(pixels).save(at / ".hidden.png")
    (at / "notes.txt").write_text("no picture")
    return at


def slow(codes, code, count, metric):
    """The numbers and distances of the nearest codes, one by one."""
    away = []
    for n, other in enumerate(codes.astype(float)):
        if metric == "cosine":
            away.append((1 - code @ other / np.sqrt(code @ code * (other @ other)), n))
        else:
            away.append((np.sqrt(((code - other) ** 2).sum()), n))
    return sorted(away)[:count]


@pytest.mark.parametrize("metric", neighbours.METRICS)
def test_the_nearest_are_those_of_a_slow_search(folder, tmp_path, metric):
    classifier = colours()
    index = concepts.index_of(classifier, folder, folder=tmp_path)
    assert len(index.names) == 40 and index.codes.shape == (40, 6) and index.layer == "features"
    images = classifier.prepare(*index.names[:3])
    got = concepts.similar(classifier.model, images, index, 4, metric)
    assert got.numbers.shape == (3, 4) and got.distances.dtype == np.float64
    for n in range(3):
        expected = slow(index.codes, index.codes[n].astype(float), 4, metric)
        assert [number for _, number in expected] == got.numbers[n].tolist()
        np.testing.assert_allclose([d for d, _ in expected], got.distances[n], atol=2e-2)
        assert got.names[n][0] == index.names[n], "a picture is its own nearest"
        one = concepts.similar(classifier.model, images[n : n + 1], index, 4, metric)
        np.testing.assert_array_equal(one.numbers[0], got.numbers[n])


def test_codes_are_computed_once_for_each_content(folder, tmp_path, monkeypatch):
    asked, real = [], neighbours.codes

    def count(model, images, layer):
        asked.append(len(images))
        return real(model, images, layer)

    monkeypatch.setattr(neighbours, "codes", count)
    classifier, names = colours(), concepts.listed(folder)
    first = concepts.index_of(classifier, folder, folder=tmp_path / "kept")
    assert sum(asked) == 40
    again = concepts.index_of(classifier, [*names, names[0]], folder=tmp_path / "kept")
    assert sum(asked) == 40, "all were known"
    np.testing.assert_array_equal(again.codes, first.codes[[*range(40), 0]])

    changed = tmp_path / "changed.png"
    Image.fromarray(np.full((12, 12, 3), 9, np.uint8)).save(changed)
    concepts.index_of(classifier, [names[0], changed], folder=tmp_path / "kept")
    assert sum(asked) == 41, "one picture is new"
    concepts.index_of(classifier, names[:2], "early", folder=tmp_path / "kept")
    concepts.index_of(colours(nets.gap_net(seed=1)), names[:2], folder=tmp_path / "kept")
    assert sum(asked) == 45, "another layer, and another network, know nothing"
    kept = sorted((tmp_path / "kept").glob("*.npz"))
    assert len(kept) == 3
    for file in kept:
        file.write_bytes(file.read_bytes()[:50])
    concepts.index_of(classifier, names[:2], folder=tmp_path / "kept")
    assert sum(asked) == 47, "half a file is none"


def test_two_thousand_pictures_of_a_manifest_and_ten_thousand_codes(tmp_path):
    """Read in batches: far less memory than all pictures take; the codes are repeated."""
    rng, names = np.random.default_rng(0), [f"{n}.npy" for n in range(2000)]
    for name in names:
        np.save(tmp_path / name, rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    manifest = tmp_path / "many.csv"
    manifest.write_text("path, label\n" + "".join(f"{name}, 0\n" for name in names))
    classifier, steps = colours(nets.gap_net(size=24), 24), []
    concepts.index_of(classifier, [tmp_path / names[0]], folder=tmp_path / "few")  # compiled
    tracemalloc.start()
    index = concepts.index_of(
        classifier, manifest, folder=tmp_path / "new", progress=lambda *done: steps.append(done)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert index.codes.shape == (2000, 6) and steps[-1] == (2000, 2000) and len(steps) > 50
    assert peak < 2000 * 24 * 24 * 3 * 4 / 4, "less than a quarter of all pictures"

    large = index._replace(codes=np.tile(index.codes, (5, 1)), names=index.names * 5)
    got = concepts.similar(classifier.model, classifier.prepare(tmp_path / names[7]), large)
    assert {*got.names[0]} == {str(tmp_path / names[7])} and got.distances.max() < 1e-5


def test_the_index_of_another_network_is_refused(folder, tmp_path):
    classifier = colours()
    index = concepts.index_of(classifier, folder, folder=tmp_path)
    images = classifier.prepare(index.names[0])
    with pytest.raises(ValueError, match="codes of another network .*: make one with index_of"):
        concepts.similar(nets.gap_net(seed=1), images, index)
    weights = classifier.model.get_weights()
    classifier.model.set_weights([weight + 1 for weight in weights])
    with pytest.raises(ValueError, match="codes of another network"):
        concepts.similar(classifier.model, images, index)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, i: concepts.similar(c.model, nets.batch(), i, metric="taxi"), "cosine, eucl"),
        (lambda c, i: concepts.similar(c.model, nets.batch(), i, 41), "of 40 pictures has no 41"),
        (lambda c, i: concepts.similar(c.model, nets.batch()[0], i), "takes a batch"),
        (lambda c, i: concepts.index_of(c, []), "no pictures"),
        (lambda c, i: concepts.index_of(c, "nowhere"), "no folder and no file at 'nowhere'"),
        (lambda c, i: concepts.index_of(c, ["nobody"]), "no picture is called 'nobody'"),
        (lambda c, i: concepts.index_of(c, ["cat"], "nolayer"), "nolayer"),
        (lambda c, i: concepts.prototypes(i.codes[0]), r"\(N, K\) finite numbers"),
        (lambda c, i: concepts.prototypes(np.nan * i.codes), "finite numbers"),
        (lambda c, i: concepts.prototypes(i.codes, 39, 2), "no 39 prototypes and 2 criticisms"),
        (lambda c, i: concepts.prototypes(0 * i.codes), "are the same: give gamma"),
    ],
)
def test_what_cannot_be_done_says_so(folder, tmp_path, call, message):
    classifier = colours()
    index = concepts.index_of(classifier, folder, folder=tmp_path)
    with pytest.raises(ValueError, match=message) as told:
        call(classifier, index)
    assert "\n" not in str(told.value)


def test_a_table_without_paths_says_so(tmp_path):
    (tmp_path / "other.csv").write_text("file,label\ncat,0\n")
    with pytest.raises(ValueError, match="other.csv is not a CSV file with a column path"):
        concepts.listed(tmp_path / "other.csv")
    (tmp_path / "good.csv").write_text("path,label\ncat,0\nmine.png,1\n")
    assert concepts.listed(tmp_path / "good.csv") == ["cat", str(tmp_path / "mine.png")]


def groups(seed=0):
    """Three groups of codes, of 30, 20 and 10, far apart, and one code alone."""
    rng = np.random.default_rng(seed)
    middles = np.array([[0, 0], [20, 0], [0, 20.0]]).repeat([30, 20, 10], axis=0)
    return np.concatenate([middles + rng.normal(size=(60, 2)), [[20, 20]]])


def test_each_group_has_a_prototype_and_the_odd_one_is_criticised():
    """Three prototypes of three groups, the largest first; what they say nothing of is alone."""
    got = concepts.prototypes(groups(), 3, 1, gamma=0.02)
    group = np.repeat([0, 1, 2, 3], [30, 20, 10, 1])
    assert group[got.prototypes].tolist() == [0, 1, 2]
    wide = concepts.prototypes(groups(), 1, 2, gamma=0.02)
    assert group[wide.prototypes].tolist() == [0] and 1 in group[wide.criticisms]
    assert got.distance < np.quantile(got.by_chance, 0.05)


def test_the_distance_is_that_of_the_equation_and_greedy_is_best_for_one():
    codes = groups()[::4]
    got = concepts.prototypes(codes, 1, 0, gamma=0.01)

    def distance(chosen):
        def mean(xs, ys):
            return np.mean([np.exp(-0.01 * ((x - y) ** 2).sum()) for x in xs for y in ys])

        return mean(codes, codes) - 2 * mean(codes, chosen) + mean(chosen, chosen)

    each = [distance(codes[[n]]) for n in range(len(codes))]
    assert got.prototypes[0] == np.argmin(each)
    np.testing.assert_allclose(got.distance, min(each))
    three = concepts.prototypes(codes, 3, 0, gamma=0.01)
    np.testing.assert_allclose(three.distance, distance(codes[three.prototypes]))


def test_a_layer_without_places_has_codes_too(folder, tmp_path):
    model = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(4, activation="relu", name="flat"))
    model.add(keras.layers.Dense(2))
    classifier = models.Classifier("flat", model, (12, 12), ("a", "b"), None, resizing="stretch")
    index = concepts.index_of(classifier, folder, "flat", tmp_path)
    assert index.codes.shape == (40, 4)
