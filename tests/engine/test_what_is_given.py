"""Whatever takes a model says so in one line when it is given something else."""

import contextlib
import inspect
from pathlib import Path

import numpy as np
import pytest
from nets import batch, gap_net

from xai_utils import attribution, concepts, metrics, models, synthesis

WINGS = (attribution, metrics, concepts, synthesis, models)
# the floors do not look at the network
NO_MODEL = {*attribution.FLOORS}
# what must be given besides model and images, where a batch will not do
OTHERS = {"name": "dense", "names": ["dense"], "layer": "dense", "target": 1}
# these look first at what else they are given, or take any callable
LATER = {"concept_map", "factor_maps", "similar", "tcav", "all_boxes"}


def asking_for_a_model():
    for wing in WINGS:
        for name in wing.__all__:
            function = getattr(wing, name)
            if (
                inspect.isfunction(function)
                and next(iter(inspect.signature(function).parameters), "") == "model"
            ):
                yield f"{wing.__name__.rpartition('.')[2]}.{name}"


ASKING = [name for name in asking_for_a_model() if name.rpartition(".")[2] not in NO_MODEL | LATER]


def call(name, model):
    wing, _, name = name.partition(".")
    function = getattr(next(w for w in WINGS if w.__name__.endswith(wing)), name)
    rest = [*inspect.signature(function).parameters.values()][1:]
    named = {p.name for p in rest if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    made = function(model, **{key: OTHERS.get(key, batch()) for key in named})
    if isinstance(made, contextlib.AbstractContextManager):
        made.__enter__()
    elif inspect.isgenerator(made):
        next(made)


@pytest.fixture(scope="module")
def classifier():
    return models.load_model(gap_net(), preprocessing="none", task="classification")


def test_most_of_the_library_is_asked():
    assert {f"attribution.{name}" for name in attribution.TECHNIQUES} < {*ASKING}
    assert {"metrics.deletion", "concepts.codes", "synthesis.invert", "models.capture"} < {*ASKING}


@pytest.mark.parametrize("name", ASKING)
def test_a_classifier_in_place_of_its_model(name, classifier):
    with pytest.raises(
        ValueError, match="^model is a Keras model, not a Classifier: give its .model$"
    ):
        call(name, classifier)


@pytest.mark.parametrize("name", ASKING)
def test_a_name_in_place_of_a_model(name):
    said = r"not 'vgg19': give models\.load_model\('vgg19'\)\.model$"
    with pytest.raises(ValueError, match=f"^model is a Keras model, {said}"):
        call(name, "vgg19")


def test_anything_else_in_place_of_a_model():
    with pytest.raises(ValueError, match="^model is a Keras model, not a ndarray$"):
        attribution.saliency(batch(), batch())


@pytest.mark.parametrize("given", ["a.png", ["a.png", "b.png"], Path("a.png"), np.array("a.png")])
def test_pictures_by_name_where_their_pixels_belong(given, classifier):
    said = r"^images are numbers, not 'a\.png': give classifier\.prepare\('a\.png'\)$"
    with pytest.raises(ValueError, match=said):
        classifier.predict(given)
    with pytest.raises(ValueError, match=said):
        attribution.grad_cam(classifier.model, given)
