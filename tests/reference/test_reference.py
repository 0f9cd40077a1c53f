"""Pages of the reference: whole, true to the code, and without a request to anywhere."""

import importlib.util
import inspect
import io
import json
import re
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
from miniature import ROOT
from PIL import Image
from small_reference import written

from xai_suite import reference
from xai_suite.reference import __main__ as command
from xai_suite.reference import techniques
from xai_suite.reference.names import names_of
from xai_suite.reports import EXPLAINED_IN
from xai_utils import attribution


def test_every_technique_has_a_notebook_its_equation_and_its_source():
    assert {*EXPLAINED_IN} == {*reference.TECHNIQUES}
    for name, notebook in EXPLAINED_IN.items():
        assert (ROOT / "notebooks" / f"{notebook}.ipynb").is_file(), notebook
        said = " ".join(getattr(attribution, name).__doc__.split("Args:")[0].split())
        assert re.search(r"Source: .+(\(|, )(\w+ )*\d{4}\)?", said), name
        assert re.search(r"`[^`]+ [^`]+`", said), name


def test_every_figure_has_the_unit_of_its_map():
    assert techniques.unit_of("var_grad") == "(logits per grey level)²"
    assert techniques.unit_of("full_grad") == "sum of its layers' maps, each of 0 to 1"
    assert all(techniques.unit_of(name) for name in reference.TECHNIQUES)


@pytest.mark.parametrize("name", attribution.ABOUT)
def test_a_docstring_says_that_its_map_is_in_logits_where_it_is(name):
    returned = getattr(attribution, name).__doc__.partition("Returns:")[2].partition("Raises:")[0]
    of_the_map = re.split(r"\b[Ww]ith `", " ".join(returned.split()))[0]
    in_logits = re.search(r"\bin \(?logits", of_the_map) is not None
    assert in_logits == ("{}" in attribution.ABOUT[name].unit)


def test_quick_settings_are_settings_of_their_techniques():
    for name, settings in techniques.SETTINGS.items():
        assert {*settings} <= {*inspect.signature(getattr(attribution, name)).parameters}, name


def test_a_figure_is_a_small_picture_that_says_what_was_taken_off():
    rng = np.random.default_rng(0)
    image, values = rng.uniform(0, 255, (32, 32, 3)), rng.uniform(2, 3, (4, 4))
    values[0, 0] = 2
    drawn = techniques._figure("rise", image, values, True, "noise, nobody")
    assert drawn["caption"] == "noise, nobody; masks=512; drawn from its lowest value, 2"
    content = b64decode(drawn["src"].removeprefix("data:image/webp;base64,"))
    size = Image.open(io.BytesIO(content)).size
    assert size == (drawn["width"], drawn["height"]) and len(content) < 60_000
    assert "drawn from" not in techniques._figure("cam", image, values - 2, True, "")["caption"]


def test_names_of_a_wing_are_those_of_its_face_with_methods():
    names = {name.name: name for name in names_of("models")}
    assert names["load_model"].signature.startswith("def load_model(source: str | os.PathLike | ")
    assert names["Detector.find"].summary == "The boxes of one picture, likeliest first."
    assert names["small_networks.auc"].signature == "def auc(scores, positive) -> float"
    assert names["EDGES"].doc == "`('x_min', 'y_min', 'x_max', 'y_max')`"
    assert "BlackBox.call" not in names, "Keras' own methods are not documented again"
    assert {name.name for name in names_of("engine")} >= {"forward", "PIXELS"}


def test_costs_are_those_of_the_last_bench_and_never_of_a_trial(tmp_path):
    bench = tmp_path / "bench.json"
    assert techniques.costs(bench)["rise"] == ["not measured yet: make bench"]
    rows = [["RISE, 4 masks", 4.112, 4, 1.028, 1.05, "kept", "rise"], ["other", 1, 1, 1, 1, "", ""]]
    bench.write_text(json.dumps({"quick": True, "techniques": {"vgg19": rows}}))
    assert techniques.costs(bench)["rise"] == ["not measured yet: make bench"]
    bench.write_text(json.dumps({"quick": False, "techniques": {"vgg19": rows}}))
    said = techniques.costs(bench)
    assert said["rise"] == ["RISE, 4 masks on vgg19: 4.11 forward passes of its batch (4 passes)"]
    batches = {"quick": False, "techniques": {"vgg19": rows}, "batches": {"vgg19": 8}}
    bench.write_text(json.dumps(batches))
    assert techniques.costs(bench)["rise"] == [
        "RISE, 4 masks on vgg19: 4.11 forward passes of 8 pictures (4 passes)"
    ]
    assert said["lime"] == ["not among what make bench measures"]


def test_the_bench_measures_every_technique():
    spec = importlib.util.spec_from_file_location("bench", ROOT / "benchmarks" / "run.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    measured = set()
    for name in ("efficientnet_lite0", "vit"):
        calls = bench.techniques(bench.build(name), np.full((2, 224, 224, 3), 99, np.float32))
        measured |= {getattr(call.func, "__name__", "") for call, *_ in calls.values()}
    assert measured >= {*attribution.TECHNIQUES}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The reference with empty figures, in a site of one report."""
    site = tmp_path_factory.mktemp("site")
    for name in ("index.html", "21_grad_cam--cat.html", "reference/gone.html"):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text("<p id='21_grad_cam'></p>")
    assert written(site) == len([*(site / "reference").rglob("*.html")])
    return site


class Page(HTMLParser):
    """Links, ids and what a page loads."""

    def __init__(self, path):
        super().__init__()
        self.links, self.ids, self.loads = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        self.ids |= {said["id"]} if "id" in said else set()
        self.links += [said["href"]] if tag == "a" else []
        self.loads += [said[key] for key in ("src", "srcset", "data", "poster") if key in said]
        self.loads += [said["href"]] if tag in ("link", "base", "image", "use") else []


def test_every_link_of_the_reference_leads_somewhere_and_nothing_is_loaded(site):
    read = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    inside = 0
    for path, page in read.items():
        assert all(loaded.startswith("data:image/") for loaded in page.loads), path
        for link in page.links:
            target, _, place = link.partition("#")
            if "//" in target:
                continue
            there = (path.parent / target).resolve() if target else path
            assert there in read, f"{path.name}: {link}"
            assert not place or place in read[there].ids, f"{path.name}: {link}"
            inside += 1
    assert inside > 500


def test_every_public_name_has_its_place(site):
    folder = site / "reference"
    for wing in reference.WINGS:
        held = Page(folder / f"{wing}.html").ids
        for name in names_of(wing):
            own = folder / f"{wing}.{name.name}.html"
            assert name.name in held or name.name in Page(own).ids, name


def test_a_technique_s_page_says_what_it_costs_and_leads_to_its_report(site):
    html = (site / "reference" / "attribution.grad_cam.html").read_text()
    assert '<a href="../21_grad_cam--cat.html">21_grad_cam.ipynb</a>' in html
    assert "not measured yet: make bench" in html
    assert "Selvaraju et al." in html and "<code>ReLU(sum_k mean(g_k) A_k)</code>" in html
    other = (site / "reference" / "attribution.rise.html").read_text()
    assert "<dd>31_rise.ipynb</dd>" in other, "no link to a report that is not there"
    assert not (site / "reference" / "gone.html").exists()


def test_documents_are_pages_that_link_each_other(site):
    html = (site / "reference" / "docs" / "evaluation.html").read_text()
    assert '<a href="your-network.html">your own</a>' in html and "<h1>Evaluation at scale" in html
    library = (site / "reference" / "docs" / "library.html").read_text()
    assert 'href="../attribution.html#TECHNIQUES"' in library
    readme = (site / "reference" / "README.html").read_text()
    assert 'href="docs/reports.html"' in readme and 'src="data:image/jpeg;base64,' in readme
    assert 'href="../21_grad_cam--cat.html"' in readme


def test_the_index_of_the_reports_leads_to_the_reference_at_once(tmp_path, monkeypatch):
    def write_all(folder, site, bench):
        folder.mkdir()
        (folder / "index.html").touch()
        return 1

    monkeypatch.setattr(command, "write_all", write_all)
    monkeypatch.setenv("OUT", str(tmp_path))
    index = tmp_path / "site" / "index.html"
    index.parent.mkdir()
    index.write_text("no links")
    assert command.main() == 0
    assert '<a href="reference/index.html">reference</a>' in index.read_text()
