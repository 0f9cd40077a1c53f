"""Every notebook with a network of the reader's own: it runs through, or ends and says why.

Each takes one kind of network, in turn, so that all notebooks and all kinds are seen.
"""

from pathlib import Path

import kinds
import nbformat
import pytest

from xai_suite.reports import runner, runs

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("grey", "multilabel", "small", "wide", "regression")


def takes_a_model(path: Path) -> bool:
    return "model" in runs.default_parameters(runs.read_notebook(path), path)


NOTEBOOKS = [path for path in sorted(ROOT.glob("notebooks/*.ipynb")) if takes_a_model(path)]
TURNS = [(path.stem, KINDS[turn % len(KINDS)]) for turn, path in enumerate(NOTEBOOKS)]


@pytest.fixture(scope="module", autouse=True)
def one_kernel():
    yield
    runner.stop_kernel()


@pytest.mark.parametrize(("notebook", "kind"), TURNS)
def test_a_notebook_takes_a_network_of_ones_own(
    notebook, kind, tmp_path, tmp_path_factory, monkeypatch
):
    monkeypatch.chdir(ROOT)
    mine = kinds.planted(kind, kinds.shelf(tmp_path_factory))
    path = runs.find_notebook(notebook, "NOTEBOOK")
    defaults = runs.default_parameters(runs.read_notebook(path), path)
    given = {"model": str(mine.model)}
    if "image" in defaults:
        given["image"] = str(mine.files[0])
    elif "images" in defaults:
        several = isinstance(defaults["images"], list)
        given["images"] = [*map(str, mine.files[:2])] if several else str(mine.manifest)
    run = runs.make_run(f"{notebook}--own", given, notebook)
    error = runner.execute(lambda: run, run.name, tmp_path)
    assert not error, f"{kind}: {error}"
    executed = nbformat.read(tmp_path / f"{run.name}.ipynb", as_version=4)
    if kind == "regression":
        shown = [
            output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
            for cell in executed.cells
            for output in cell.get("outputs", [])
        ]
        assert not [text for text in shown if "%" in text and "age" in text]
