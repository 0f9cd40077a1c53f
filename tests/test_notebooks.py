"""The contract every notebook keeps (CONTRIBUTING, "A notebook")."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xai_utils import keras, models, show

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MOST_STATEMENTS = 15  # in a cell of code, those inside of others counted too; ruff minds its lines

# above the outputs that nbval compares, on the pages of all networks
COARSE = "Results of this run; those of the default parameters are kept in git to compare:"

TRAIN_BESIDE_YOURS = [
    path
    for path in NOTEBOOKS
    if ".trained(" in path.read_text(encoding="utf-8") and '"model = ' in path.read_text("utf-8")
]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def tags(cell):
    return cell["metadata"].get("tags", [])


def tagged(notebook, tag):
    return [cell for cell in notebook["cells"] if tag in tags(cell)]


def prose(notebook):
    return [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_there_are_notebooks_and_their_names_sort():
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem), path.name
    numbers = [path.stem[:2] for path in NOTEBOOKS]
    assert len(numbers) == len(set(numbers)), "two notebooks share a number"


def test_the_parameters_are_literals_with_a_comment(notebook):
    (cell,) = tagged(notebook, "parameters")
    lines, statements = source(cell).splitlines(), ast.parse(source(cell)).body
    taken = [n for s in statements for n in range(s.lineno, s.end_lineno + 1)]
    assert taken == list(range(1, len(lines) + 1)), "a line of its own for each, and nothing else"
    for statement in statements:
        last = lines[statement.end_lineno - 1]  # where reports look for the comment
        assert isinstance(statement, ast.Assign) and len(statement.targets) == 1, last
        ast.literal_eval(statement.value)
        assert re.search(r"  # \S", last), f"say what it is, in a comment: {last}"


def test_it_runs_on_the_kernel_that_every_installation_has(notebook):
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_outputs_are_stripped_but_for_those_that_are_compared(notebook):
    kept = 0
    for cell in code(notebook):
        assert cell["execution_count"] is None
        if cell["metadata"].get("keep_output"):
            assert "nbval-check-output" in tags(cell) and cell["outputs"]
            kept += 1
        else:
            assert not cell["outputs"] and "nbval-check-output" not in tags(cell), source(cell)
    assert 1 <= kept <= 3, "keep one to three outputs, or nbval compares nothing"
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info", "report"}


def prints(statements):
    """Whether they print whatever the network is: in a condition both ways must."""
    for one in statements:
        if isinstance(one, ast.Expr) and ast.unparse(one).startswith("print("):
            return True
        if isinstance(one, (ast.For, ast.With)) and prints(one.body):
            return True
        if isinstance(one, ast.If) and prints(one.body) and prints(one.orelse):
            return True
    return False


def test_what_is_compared_is_said_to_be_of_this_run(notebook):
    """A page of any network has numbers of its own there, and never none."""
    for before, cell in zip([None, *notebook["cells"]], notebook["cells"], strict=False):
        if "nbval-check-output" in tags(cell):
            assert prints(ast.parse(source(cell)).body), "prints nothing for some networks"
            if before["cell_type"] == "markdown":
                assert source(before) == COARSE
    assert not any("your own machine" in text for text in prose(notebook))


def test_cells_are_short_and_introduced_by_prose(notebook):
    for before, cell in zip([None, *notebook["cells"]], notebook["cells"], strict=False):
        if cell["cell_type"] == "code":
            nodes = ast.walk(ast.parse(source(cell)))
            count = sum(isinstance(node, ast.stmt) for node in nodes)
            assert count <= MOST_STATEMENTS, f"{count} statements: {source(cell).splitlines()[0]}"
            assert before is not None, "a notebook starts with its title"


def test_headings(notebook):
    first = prose(notebook)[0].splitlines()
    assert re.fullmatch(r"# [A-Z].+", first[0]) and not first[0].endswith("."), first[0]
    assert re.search(r"\*\*.+\?\*\*", prose(notebook)[0]), (
        "the title is followed by one bold question"
    )
    headings = [
        line for text in prose(notebook) for line in text.splitlines() if re.match(r"#+ ", line)
    ]
    assert sum(line.startswith("# ") for line in headings) == 1
    for wanted in ("## Where", "## Exercise 1", "## Exercise 2", "## Further reading"):
        assert any(line.startswith(wanted) for line in headings), f"no heading {wanted!r}"
    text = "\n".join(prose(notebook))
    for wanted in (
        "**What you will do.**",
        "**What you will learn.**",
        "**What you need.**",
        "**Before you look:**",
    ):
        assert wanted in text, f"no {wanted!r}"
    assert "$$" in text, "the idea has an equation"


def test_thumbnail_and_figures_have_text_alternatives(notebook):
    (thumbnail,) = tagged(notebook, "thumbnail")
    assert "show.figure(" in source(thumbnail)
    everything = "\n".join(source(cell) for cell in code(notebook))
    assert "show.stepper(" in everything, "every notebook has something to step through"
    assert "plt." not in everything and "pyplot" not in everything, (
        "figures go through show, with a text alternative"
    )


def test_by_hand_equals_the_module(notebook):
    if "attribution" in "\n".join(source(cell) for cell in code(notebook)):
        assert any(
            re.search(r"^assert ", source(cell), re.M)
            for cell in code(notebook)
            if "check" not in tags(cell)
        )


def test_exercises_come_as_stub_solution_check(notebook):
    order = [
        tag
        for cell in notebook["cells"]
        for tag in tags(cell)
        if tag in ("exercise", "solution", "check")
    ]
    assert order and order == ["exercise", "solution", "check"] * (len(order) // 3)
    assert len(order) >= 6, "two exercises at least"
    assert "\n".join(prose(notebook)).count("*Hint:*") >= len(order) // 3
    for cell in tagged(notebook, "check"):
        nodes = ast.walk(ast.parse(source(cell)))
        asserted = [node for node in nodes if isinstance(node, ast.Assert)]
        assert asserted, "a check asserts something"
        for node in asserted:
            assert node.msg is not None, f"say what is wrong: {ast.unparse(node)}"


@pytest.fixture(scope="module")
def unsuited(tmp_path_factory) -> str:
    """A network for none of them: one Dense layer, so no map of features and no attention."""
    pixels = keras.Input((8, 8, 3))
    value = keras.layers.Dense(1)(keras.layers.Flatten()(pixels))
    path = tmp_path_factory.mktemp("unsuited") / "mine.keras"
    keras.Model(pixels, value).save(path)
    path.with_suffix(".yaml").write_text("task: regression\npreprocessing: none\nlabels: [value]\n")
    return str(path)


@pytest.mark.parametrize("notebook", TRAIN_BESIDE_YOURS, indirect=True, ids=lambda path: path.stem)
def test_a_network_that_a_notebook_cannot_take_is_named_before_any_training(
    notebook, unsuited, monkeypatch
):
    def trained(*args, **settings):
        raise AssertionError("trained before the network was looked at")

    for room in (models.small_networks, models.small_transformer, models.small_segmentation):
        monkeypatch.setattr(room, "trained", trained)
    monkeypatch.chdir(ROOT / "notebooks")
    given = {}
    with pytest.raises(show.Ended):
        for cell in code(notebook):
            exec(source(cell), given)
            if "parameters" in tags(cell):
                given["model"] = unsuited


@pytest.fixture(scope="module")
def smooth_is_better(tmp_path_factory) -> str:
    """A network whose first class loses by all that blurring takes away."""
    pixels = keras.Input((32, 32, 3))
    edges = keras.layers.Conv2D(2, 3, padding="same", activation="relu", use_bias=False)
    head = keras.layers.Dense(2)
    network = keras.Model(pixels, head(keras.layers.GlobalAveragePooling2D()(edges(pixels))))
    laplacian = np.float32([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[..., None, None] / 3
    edges.set_weights([np.tile(laplacian, (1, 1, 3, 1)) * [1, -1]])
    head.set_weights([np.float32([[-0.01, 0], [-0.01, 0]]), np.float32([10, 0])])
    path = tmp_path_factory.mktemp("smooth") / "mine.keras"
    network.save(path)
    path.with_suffix(".yaml").write_text(
        "task: classification\npreprocessing: none\nlabels: [smooth, rough]\n"
    )
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(path.with_suffix(".png"))
    return str(path)


def test_33_speaks_of_scores_where_the_blurred_copy_scores_higher(smooth_is_better, monkeypatch):
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith("33"))
    said, given = [], {}
    monkeypatch.setattr(show, "text", said.append)
    for cell in code(json.loads(path.read_text(encoding="utf-8"))):
        if cell["id"] in ("33-01", "33-02", "33-03", "33-10", "33-13"):
            exec(source(cell), given)
        if "parameters" in tags(cell):
            given |= {"model": smooth_is_better, "steps": 2}
            given["image"] = str(Path(smooth_is_better).with_suffix(".png"))
    assert given["bare"] > given["whole"]
    assert "% of the difference" not in said[0] and "there is no share to keep" in said[1]


@pytest.mark.parametrize("sign", [1, -1])
def test_15_balances_the_books_of_either_class_of_one_sigmoid_unit(sign, tmp_path, monkeypatch):
    pixels = keras.Input((16, 16, 3))
    features = keras.layers.Conv2D(4, 3, activation="relu", bias_initializer="ones")(pixels)
    one = keras.layers.Dense(1, activation="sigmoid", kernel_initializer="ones")
    network = keras.Model(pixels, one(keras.layers.GlobalAveragePooling2D()(features)))
    one.set_weights([np.full((4, 1), 0.01 * sign, np.float32), np.float32([0.5 * sign])])
    network.save(tmp_path / "mine.keras")
    (tmp_path / "mine.yaml").write_text(
        "task: classification\npreprocessing: none\nlabels: [a, b]\n"
    )
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "mine.png")
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith("15"))
    given = {}
    monkeypatch.setattr(show, "text", str)
    for cell in code(json.loads(path.read_text(encoding="utf-8"))):
        if cell["id"] in ("15-01", "15-02", "15-19"):
            exec(source(cell), given)
        if "parameters" in tags(cell):
            given |= {"model": str(tmp_path / "mine.keras"), "image": str(tmp_path / "mine.png")}
    assert given["target"] == (sign == 1) and given["score"] > 0.5


def test_nothing_depends_on_the_machine(notebook):
    for cell in notebook["cells"]:
        text = source(cell)
        assert not re.search(r"^\s*[%!]", text, re.M) or cell["cell_type"] == "markdown", (
            "no magics"
        )
        assert not re.search(r"/home/|/root|/tmp|/work|[A-Z]:\\\\", text), text
        assert "](http://" not in text


def test_every_notebook_has_a_run():
    runs = {path.stem.split("--")[0] for path in (ROOT / "reports" / "runs").glob("*.yaml")}
    assert {path.stem for path in NOTEBOOKS} == runs


def test_the_readme_lists_every_notebook():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"[`{path.stem}`](notebooks/{path.name})" in readme, path.name
