"""What the index finds a report by."""

import nbformat.v4 as v4
import pytest
from pages import displayed, output

from xai_suite.reports import finding
from xai_utils import attribution, show


def notebook(*sources, **parameters):
    made = v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources])
    made.metadata["report"] = {"parameters": parameters}
    return made


def test_every_technique_has_one_name_for_people():
    assert set(attribution.NAMES) == {*attribution.METHODS, "d_rise"}
    assert len(set(attribution.NAMES.values())) == len(attribution.NAMES)
    assert [*attribution.TECHNIQUES] == finding.OF_PICTURES


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("grad_cam", "Grad-CAM"),
        ("gradient_x_input", "gradient × input"),
        ("rise:masks=500,grid=7", "RISE (masks=500, grid=7)"),
        ("my_own", "my own"),
    ],
)
def test_names_are_spoken(name, said):
    assert attribution.spoken(name) == said


@pytest.mark.parametrize("name", attribution.NAMES)
def test_a_name_in_code_and_one_for_people_are_found_by_each_other(name):
    found = f" {finding.searchable(finding.words(f'10_{name}--cat', notebook()))}"
    for typed in (name, attribution.spoken(name), name.replace("_", " "), name.replace("_", "-")):
        assert all(f" {word}" in found for word in finding.searchable([typed]).split()), typed


def test_spellings_are_alike():
    for typed in ("grad cam", "Grad-CAM", "grad_cam", "  GRAD--cam "):
        assert finding.searchable([typed]) == "grad cam"
    assert finding.searchable(["Grad-CAM++"]) == "grad cam plus plus"
    assert finding.searchable(["Kätzchen", "grün×rot"]) == "katzchen grun x rot"


def test_topics():
    assert finding.topic("22_grad_cam_plus_plus") == "Grad-CAM++"
    assert finding.topic("10_saliency") == "Saliency"
    assert finding.topic("23_cam_family") == "CAM family"
    assert finding.topic("64_mask_until_flip") == "Mask until flip"


def test_techniques_are_those_called_given_and_printed():
    used = notebook(
        "maps = attribution.grad_cam(network, images)\ncam = maps[0]",
        "for name in ['lime', 'rise:masks=9']:\n    print(name)",
        "from xai_utils.attribution import d_rise, rise_masks",
        "'the edges rise'",
        techniques=["occlusion", "smooth_grad:samples=4"],
        image="cam",
    )
    table = "name        drop\neigen_cam   0.1\nsaliency rises  too"
    used.cells[0].outputs = [v4.new_output("stream", name="stdout", text=table)]
    found = finding.techniques("20_var_grad--cat", used)
    expected = {"grad_cam", "lime", "rise", "d_rise", "occlusion", "smooth_grad", "eigen_cam"}
    assert {*found} == expected | {"var_grad", "cam"}  # cam: a parameter's value
    assert found == [name for name in attribution.NAMES if name in found]


def test_a_loop_over_all_techniques_uses_all():
    every = notebook("for name, method in attribution.TECHNIQUES.items():\n    pass")
    assert finding.techniques("25_gallery--x", every) == [*attribution.TECHNIQUES]
    undefined = {
        "deconvnet": "net has no ReLU: use saliency",
        "cam": "use grad_cam (N, h, w)",
        "raw_attention": "net has none; rise needs only scores",
        "attention_rollout": "net has none; rise needs only scores",
    }
    told = attribution.left_out(undefined) + "\nlayer_cam (all of it)"
    every.cells[0].outputs = [v4.new_output("stream", name="stdout", text=told)]
    shown = [name for name in attribution.TECHNIQUES if name not in undefined]
    assert finding.techniques("25_gallery--x", every) == shown
    one = notebook("maps = attribution.TECHNIQUES[technique](network, images)")
    assert finding.techniques("02_your_network--x", one) == []


def test_pictures_and_networks_are_called_as_people_call_them():
    run = notebook(
        image="../holiday/cat.JPG",
        images=["cat", "umbrella", "/data/birds/"],
        error_image="rocket",
        fill="black",
        model="default",
        detector="../nets/mine.onnx",
    )
    assert finding.pictures(run) == ["cat.JPG", "cat", "umbrella", "birds", "rocket"]
    assert finding.networks(run) == ["mine.onnx"]
    run.metadata["report"]["model"] = "../nets/other.keras"
    assert finding.networks(run) == ["other.keras", "mine.onnx"]


def test_results_of_a_network_are_its_own_and_not_the_parameters(monkeypatch):
    run = notebook("", model="tiny", results="../results/all.parquet")
    run.metadata["report"]["model"] = "tiny"
    assert finding.network(run) == "tiny" and finding.networks(run) == ["tiny"]
    said = displayed(monkeypatch, show.used, model="/nets/mine.keras", images="3 pictures")
    run.cells[0].outputs = [output(said)]
    assert finding.network(run) == "mine.keras" and finding.networks(run) == ["mine.keras"]
    run.metadata["report"]["model"] = None
    run.cells[0].outputs = []
    assert finding.network(run) == ""


def test_files_among_parameters():
    given = {"image": "my.jgp", "images": ["cat", "birds"], "model": "vgg19", "fill": "black.png"}
    assert finding.files(given) == ["my.jgp", "birds"]
    assert finding.files({"model": "../a/b.keras", "detector": "nets/mine"}) == [
        "../a/b.keras",
        "nets/mine",
    ]
