"""Networks of every kind that people have, from the file to what is found out about it.

Each test is a column of the table in docs/your-network.md, each kind of `kinds.KINDS` a row.
"""

import functools
import os
from pathlib import Path
from typing import NamedTuple

import kinds
import numpy as np
import pytest

from xai_suite import evaluation
from xai_suite.reports import __main__ as make_reports
from xai_suite.reports import runner
from xai_utils import attribution, keras, metrics, models

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ("deletion", "insertion", "mass_share", "enrichment", "pointing")


class Mine(NamedTuple):
    """A kind, its network's folder, and what the network itself says about the pictures."""

    kind: kinds.Kind
    planted: kinds.Planted
    said: np.ndarray


@pytest.fixture(scope="module", params=kinds.KINDS)
def mine(request, tmp_path_factory) -> Mine:
    kind = kinds.KINDS[request.param]
    planted = kinds.planted(request.param, kinds.shelf(tmp_path_factory))
    network = keras.models.load_model(planted.model, compile=False)
    said = network.predict(kind.scaled(planted.drawn.images), verbose=0)
    return Mine(kind, planted, said[kind.card["output"]] if isinstance(said, dict) else said)


@functools.lru_cache(1)
def loaded(path) -> models.Classifier:
    return models.load_model(path)


def test_it_has_learnt_what_is_drawn(mine):
    assert kinds.rightness(mine.said, mine.planted.drawn.answers) >= 0.95


def test_it_loads(mine):
    classifier, card = loaded(mine.planted.model), mine.kind.card
    by_answers = {1: "classification", 2: "multilabel", 3: "segmentation"}
    task = card.get("task") or by_answers[mine.planted.drawn.answers.ndim]
    assert classifier.task == task and list(classifier.labels) == card["labels"]
    assert (*classifier.input_size, classifier.channels) == mine.planted.drawn.images.shape[1:]


def test_it_predicts_like_the_model(mine):
    classifier, classes = loaded(mine.planted.model), mine.said.shape[-1]
    assert classifier.dense == (mine.said.ndim == 4)
    asked = classifier.predict_pixels if classifier.dense else classifier.predict
    answers = asked(classifier.prepare(*mine.planted.files))
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers[..., -classes:], mine.said, atol=2e-3)
    if (classes, classifier.task) == (1, "classification"):  # p, and 1 - p of the other class
        np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)


def test_its_maps_find_the_object(mine):
    classifier, drawn = loaded(mine.planted.model), mine.planted.drawn
    images = classifier.prepare(*mine.planted.files)
    maps = attribution.grad_cam(classifier.model, images, drawn.targets)
    assert maps.dtype == np.float32
    found = [*map(metrics.pointing, metrics.picture_sized(maps, images.shape), drawn.masks)]
    assert np.mean(found) >= 0.9


def test_it_is_evaluated(mine, tmp_path):
    if mine.said.ndim == 4:  # what has no one answer a picture is refused in one line
        with pytest.raises(ValueError, match="^mine.keras answers at every pixel; evaluate measur"):
            evaluation.evaluate(
                mine.planted.model, "grad_cam", mine.planted.manifest, tmp_path / "results"
            )
        return
    folder = evaluation.evaluate(
        mine.planted.model,
        "grad_cam",
        mine.planted.manifest,
        tmp_path / "results",
        metrics=("deletion", "insertion", "localisation"),
        explain="label",
        step=0.25,
    )
    table = evaluation.read(folder)
    assert evaluation.errors(table) == []
    task = models.load_model(mine.planted.model).task
    assert evaluation.read_about(folder)["plan"]["task"] == task
    measured = evaluation.summary(table)
    for name in MEASURED:
        mean, _, count = measured["grad_cam"][name]
        assert np.isfinite(mean) and count == kinds.HELD_OUT, name
    assert measured["grad_cam"]["pointing"][0] >= 0.9
    assert measured["grad_cam"]["enrichment"][0] > 2 * measured["random"]["enrichment"][0]


@pytest.fixture(scope="module")
def reports():
    """`make report` in this process, so that one kernel serves all kinds."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "tests"))))
        yield make_reports.one_report
    runner.stop_kernel()


def test_it_has_a_report(mine, reports, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for key in ("MODEL", "IMAGE", "OUT", "NOTEBOOK", "PARAMS", *map(str.upper, models.TYPED)):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("PWD", str(mine.planted.folder))
    monkeypatch.setenv("NOTEBOOK", "21_grad_cam")
    monkeypatch.setenv("MODEL", mine.planted.model.name)
    monkeypatch.setenv("IMAGE", str(mine.planted.files[0]))
    monkeypatch.setenv("OUT", str(tmp_path))
    assert reports() == 0, capsys.readouterr().out
    (page,) = (tmp_path / "site" / "one-off").glob("21_grad_cam--*.html")
    text, classifier = page.read_text(), loaded(mine.planted.model)
    images = classifier.prepare(mine.planted.files[0])
    title = classifier.title(classifier.top(images, 1)[0]).partition("  ")[0]
    assert ("answers at every pixel: see 53" if classifier.dense else title) in text
    assert 'class="error"' not in text
