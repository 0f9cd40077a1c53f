"""Networks that are no Keras models: functions, ONNX files, SavedModel folders."""

import inspect

import numpy as np
import pytest
from nets import gap_net

from xai_utils import attribution, keras, metrics, models, synthesis, tf
from xai_utils.engine import forward
from xai_utils.models import foreign

layers = keras.layers
SIDE = (8, 12)
CLASSES = 3
NEED = r"; occlusion, rise, sobol, lime, kernel_shap need only scores"
# Small enough for a tiny picture; the rest as it is.
SETTINGS = {
    "occlusion": {"patch": 4, "stride": 4},
    "rise": {"masks": 40, "grid": 3},
    "sobol": {"grid": 2, "samples": 8},
    "extremal_perturbation": {"grid": 4, "steps": 2},
    "lime": {"segments": 6, "samples": 30},
    "kernel_shap": {"segments": 6, "samples": 60},
    "smooth_grad": {"samples": 2},
    "var_grad": {"samples": 2},
    "integrated_gradients": {"steps": 2},
    "gradient_shap": {"samples": 2},
    "xrai": {"steps": 2},
}


def noise(count=3, side=SIDE, channels=3):
    """Noise on squares of 4 pixels, for superpixels to find."""
    rng = np.random.default_rng(5)
    squares = rng.uniform(0, 230, (count, side[0] // 4, side[1] // 4, channels))
    grain = rng.uniform(0, 25, (count, *side, channels))
    return (squares.repeat(4, axis=1).repeat(4, axis=2) + grain).astype(np.float32)


WEIGHTS = np.random.default_rng(3).normal(size=(*SIDE, 3, CLASSES)) / 1e3


def linear(pixels):
    return np.tensordot(pixels, WEIGHTS, 3) + [1, 2, 3]


def boxed(function=linear, **more):
    return models.black_box(function, SIDE, **more)


@pytest.fixture(scope="module")
def network():
    """A network and a black box that asks it."""
    model = gap_net(size=12)
    return model, models.black_box(lambda x: model.predict(x, verbose=0), 12, task="classification")


# --- functions ------------------------------------------------------------------------------------


def test_occlusion_of_a_linear_function_is_what_the_patch_adds():
    box, pixels = boxed(), noise()
    assert box.input_size == SIDE and box.conv_layer is None
    assert box.labels == ("class 0", "class 1", "class 2")
    maps = attribution.occlusion(box.model, pixels, 1, patch=4, stride=4)
    added = (pixels * WEIGHTS[..., 1]).sum(-1).reshape(3, 2, 4, 3, 4).sum((2, 4))
    np.testing.assert_allclose(maps, added, atol=1e-4)


@pytest.mark.parametrize("name", models.NEED_ONLY_SCORES)
def test_a_black_box_around_a_network_has_the_networks_maps(network, name):
    (model, box), pixels = network, noise(2, (12, 12))
    method, settings = attribution.METHODS[name], SETTINGS[name]
    expected = method(model, pixels, **settings)
    np.testing.assert_allclose(method(box.model, pixels, **settings), expected, atol=1e-4)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", attribution.METHODS)
def test_every_technique_explains_or_says_what_it_needs(network, name):
    box, pixels = network[1], noise(2, (12, 12))
    method = attribution.METHODS[name]
    if name in (*models.NEED_ONLY_SCORES, *attribution.FLOORS):
        maps = method(box.model, pixels, **SETTINGS.get(name, {}))
        assert len(maps) == 2 and np.ptp(maps[0]) > 0
        return
    needs = "which this needs" + NEED
    if "attention" in name:
        needs = "has no MultiHeadAttention"
    elif name == "lrp":
        needs = "relevance has no rule for .* or use " + NEED.removeprefix("; ").split(" need")[0]
    with pytest.raises(ValueError, match=needs) as told:
        method(box.model, pixels, **SETTINGS.get(name, {}))
    assert attribution.undefined_for(box.model, pixels.shape, [name]) == {name: str(told.value)}
    assert "\n" not in str(told.value)
    if "layer" in inspect.signature(method).parameters:
        with pytest.raises(ValueError, match="which this needs" + NEED):
            method(box.model, pixels, layer="black_box")


def test_metrics_ask_a_black_box_as_they_ask_its_network(network):
    (model, box), pixels = network, noise(2, (12, 12))
    ours, theirs = (metrics.deletion(m, pixels, pixels[..., 0], 1) for m in (box.model, model))
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
    flips = [
        metrics.cover_until_flip(m, pixels[0], pixels[:1, ..., 0], 3) for m in (box.model, model)
    ]
    assert flips[0][0].count == flips[1][0].count
    np.testing.assert_array_equal(flips[0][0].corners, flips[1][0].corners)


def test_pictures_are_not_optimised_without_a_gradient(network):
    with pytest.raises(
        ValueError, match="the score of black_box .* which pictures are optimised by"
    ):
        synthesis.activation_maximization(network[1].model, 1, steps=1)


def test_predict_makes_the_tasks_probabilities():
    pixels = noise()
    scores = tf.constant(linear(pixels), tf.float32)
    np.testing.assert_allclose(boxed().predict(pixels), tf.nn.softmax(scores), atol=1e-5)
    np.testing.assert_allclose(boxed().model.predict(pixels, verbose=0), scores, rtol=1e-5)
    many = boxed(labels=["a", "b", "c"], task="multilabel")
    np.testing.assert_allclose(many.predict(pixels), tf.sigmoid(scores), atol=1e-5)
    two = boxed(lambda x: linear(x)[:, 0])
    np.testing.assert_allclose(two.predict(pixels)[:, 1], tf.sigmoid(scores[:, 0]), atol=1e-5)
    assert many.class_index("c") == 2 and two.labels == ("class 0", "class 1")


@pytest.mark.parametrize("gives", [None, "probabilities"])
def test_exclusive_probabilities_become_their_logarithms(gives):
    pixels = noise()
    box = boxed(lambda x: tf.nn.softmax(linear(x)).numpy(), gives=gives)
    expected = tf.nn.log_softmax(linear(pixels))
    np.testing.assert_allclose(models.logits_of(box.model, pixels), expected, atol=1e-4)
    np.testing.assert_allclose(box.predict(pixels), tf.exp(expected), atol=1e-5)


@pytest.mark.parametrize(("task", "outputs"), [("multilabel", 3), ("classification", 1)])
def test_probabilities_each_for_itself_become_logits_once_it_is_said(task, outputs):
    def chances(pixels):
        return tf.sigmoid(linear(pixels)[:, :outputs]).numpy()

    with pytest.raises(ValueError, match=r"within 0..1: say gives='scores' or gives='prob"):
        boxed(chances, task=task)
    pixels = noise()
    said = boxed(chances, task=task, gives="probabilities")
    scores = models.logits_of(said.model, pixels)[:, -outputs:]
    np.testing.assert_allclose(scores, linear(pixels)[:, :outputs], atol=1e-4)
    kept = boxed(chances, task=task, gives="scores")
    scores = models.logits_of(kept.model, pixels)[:, -outputs:]
    np.testing.assert_allclose(scores, chances(pixels), atol=1e-5)


def test_a_function_may_change_the_pixels_it_is_given():
    def careless(pixels):
        pixels /= 255
        return linear(pixels)

    pixels = noise()
    before = pixels.copy()
    scores = models.logits_of(boxed(careless).model, pixels)
    np.testing.assert_allclose(scores, linear(pixels / 255), atol=1e-5)
    np.testing.assert_array_equal(pixels, before)


def raising(pixels):
    raise KeyError("no such thing\nin two lines")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raising, r"mine fails on pictures of shape \(3, 8, 12, 3\): KeyError: 'no such thing"),
        (lambda x: "words", "mine fails on pictures .*: ValueError: could not convert"),
        (lambda x: linear(x)[:2], r"returns shape \(2, 3\) for 3 pictures, not \(3, outputs\)"),
        (lambda x: 7, r"returns shape \(\) for 3 pictures"),
        (lambda x: x[..., 0], r"returns shape \(3, 8, 12\) for 3 pictures"),
        (lambda x: np.zeros((3, 0)), r"returns shape \(3, 0\) for 3 pictures"),
        (lambda x: linear(x) / 0, "returns 9 values that are NaN or infinite, out of 9"),
        (lambda x: linear(x - x.mean(axis=0)), "other scores among three than alone"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_is_wrong_with_a_function_is_said_in_one_line(function, message):
    with pytest.raises(ValueError, match=message) as told:
        boxed(function, name="mine")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda s: s[:, :2], r"the box returns shape \(\d+, 2\) for \d+ pictures, not \(\d+, 3\)"),
        (lambda s: s * np.nan, "the box returns [0-9]+ values that are NaN"),
        (lambda s: 1 // 0, "the box fails on pictures of shape .*: ZeroDivisionError: integer"),
    ],
)
def test_so_is_what_goes_wrong_later_inside_compiled_functions(wrong, message):
    good = True
    box = boxed(lambda x: linear(x) if good else wrong(linear(x)), name="the box")
    good = False
    for name in models.NEED_ONLY_SCORES:
        with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
            attribution.METHODS[name](box.model, noise(), **SETTINGS[name])
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        box.predict(noise())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"labels": ["a", "b"]}, "black box: 2 class names are given, but the model has 3"),
        ({"gives": "logits"}, "gives is one of scores, probabilities, not 'logits'"),
        ({"gives": "probabilities"}, "from .* that are no probabilities$"),
        ({"task": "wrong"}, "task is one of"),
        ({"task": "regression", "gives": "probabilities"}, "a regression gives values"),
        ({"size": (8, 12, 3)}, r"size is \(height, width\) or one side.* not \(8, 12, 3\), 3"),
        ({"size": 0}, "not 0, 3"),
        ({"channels": None}, r"not \(8, 12\), None"),
    ],
)
def test_bad_settings_of_a_black_box_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        models.black_box(linear, **{"size": SIDE, **more})
    with pytest.raises(ValueError, match="of exclusive classes: they do not sum to 1"):
        boxed(lambda x: 0.5 + 0 * linear(x), gives="probabilities")


def test_any_name_will_do():
    box, pixels = boxed(name="Größe 1/2"), noise()
    around = keras.Model(box.model.input, box.model(layers.Rescaling(1.0)(box.model.input)))
    np.testing.assert_allclose(models.logits_of(around, pixels), linear(pixels), rtol=1e-5)
    assert box.name == "Größe 1/2"


def test_a_black_box_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="black box is a Python function"):
        boxed().model.save(tmp_path / "box.keras")


# --- ONNX -----------------------------------------------------------------------------------------


def write_onnx(path, side=SIDE, channels_first=True, batch="N", dtype="FLOAT", ends=(), more=()):
    """A linear network: every pixel of a channel counts alike, and class k counts channel k."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, getattr(onnx.TensorProto, dtype)
    shape = (batch, 3, *side) if channels_first else (batch, *side, 3)
    given = [helper.make_tensor_value_info("pixels", kind, shape)]
    axes = helper.make_tensor("axes", 7, (2,), (2, 3) if channels_first else (1, 2))
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=1),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["means"], keepdims=0),
        *(helper.make_node(kind, ["means"], [kind.lower()]) for kind in ends),
        *(helper.make_node(*node) for node in more),
    ]
    names = ["means", *map(str.lower, ends)]
    last = names if "all" in path.stem else names[-1:]
    returned = [helper.make_tensor_value_info(name, 1, (batch, 3)) for name in last]
    graph = helper.make_graph(nodes, "graph", given, returned, [axes])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("name", "size", "settings"),
    [
        ("first", None, {}),
        ("last", None, {"channels_first": False}),
        ("free", SIDE, {"side": ("h", "w")}),
        ("free last", SIDE, {"side": ("h", "w"), "channels_first": False}),
        ("one by one", None, {"batch": 1}),
        ("two by two", None, {"batch": 2}),
        ("double", None, {"dtype": "DOUBLE"}),
        ("half", None, {"dtype": "FLOAT16"}),
        ("bytes", None, {"dtype": "UINT8"}),
    ],
)
def test_an_onnx_file_returns_what_it_computes(tmp_path, name, size, settings):
    pytest.importorskip("onnxruntime")
    model = foreign.load_onnx(write_onnx(tmp_path / f"{name}.onnx", **settings), size)
    assert model.input_shape == (None, *SIDE, 3) and model.output_shape == (None, 3)
    pixels = np.rint(noise(5))
    expected = pixels.mean(axis=(1, 2))
    tolerance = 0.1 if name == "half" else 1e-3
    np.testing.assert_allclose(forward(model, pixels), expected, atol=tolerance)
    maps = attribution.occlusion(model, pixels, 2, patch=4, stride=4)
    added = pixels[..., 2].reshape(5, 2, 4, 3, 4).sum((2, 4)) / np.prod(SIDE)
    np.testing.assert_allclose(maps, added, atol=tolerance)


def test_bytes_are_rounded_and_never_wrap(tmp_path):
    pytest.importorskip("onnxruntime")
    model = foreign.load_onnx(write_onnx(tmp_path / "bytes.onnx", dtype="UINT8"))
    scores = forward(model, np.full((1, *SIDE, 3), [-20, 99.7, 300], np.float32))
    np.testing.assert_allclose(scores, [[0, 100, 255]])


def test_a_file_that_hides_a_batch_of_one_is_asked_one_by_one(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = write_onnx(tmp_path / "hidden.onnx")
    held = onnx.load(path)
    held.graph.initializer.append(onnx.helper.make_tensor("flat", 7, (2,), (1, 3)))
    held.graph.node.append(onnx.helper.make_node("Reshape", ["means", "flat"], ["flattened"]))
    held.graph.output[0].name = "flattened"
    onnx.save(held, path)
    pixels = noise(4)
    scores = forward(foreign.load_onnx(path), pixels)
    np.testing.assert_allclose(scores, pixels.mean(axis=(1, 2)), rtol=1e-5)


def test_a_softmax_at_the_end_of_an_onnx_file_is_undone(tmp_path):
    pytest.importorskip("onnxruntime")
    path = write_onnx(tmp_path / "softmax.onnx", ends=("Softmax",))
    found = models.endings.ending(foreign.load_onnx(path), noise())
    pixels = noise()
    expected = np.maximum(tf.nn.log_softmax(pixels.mean(axis=(1, 2))), np.log(1e-7))
    assert found.function == "softmax"
    np.testing.assert_allclose(forward(found.model, pixels), expected, rtol=1e-4, atol=1e-4)


def test_of_several_outputs_one_is_chosen(tmp_path):
    pytest.importorskip("onnxruntime")
    path = write_onnx(tmp_path / "all.onnx", ends=("Neg",))
    with pytest.raises(ValueError, match="all.onnx has outputs means, neg: say output="):
        foreign.load_onnx(path)
    with pytest.raises(ValueError, match="has no output 'negs'; nearest: neg"):
        foreign.load_onnx(path, output="negs")
    pixels = noise()
    scores = forward(foreign.load_onnx(path, output="neg"), pixels)
    np.testing.assert_allclose(scores, -pixels.mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        ({"side": ("h", "w")}, None, r"takes \(any, 3, any, any\): say size=\(height, width\)"),
        ({}, 7, r"takes \(any, 3, 8, 12\), not size=7"),
        ({"dtype": "STRING"}, None, r"takes tensor\(string\), not numbers"),
    ],
)
def test_what_an_onnx_file_does_not_take_is_said(tmp_path, settings, size, message):
    pytest.importorskip("onnxruntime")
    path = write_onnx(tmp_path / "net.onnx", **settings)
    with pytest.raises(ValueError, match=f"^net.onnx {message}"):
        foreign.load_onnx(path, size)


def test_a_file_that_is_no_onnx_model_gives_its_cause(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "net.onnx").write_bytes(b"this is none")
    with pytest.raises(ValueError, match="^net.onnx cannot be loaded as an ONNX model: .*Protobuf"):
        foreign.load_onnx(tmp_path / "net.onnx")
    with pytest.raises(FileNotFoundError, match="no ONNX file at .*other.onnx"):
        foreign.load_onnx(tmp_path / "other.onnx")


def test_without_onnx_runtime_it_is_said_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(ImportError, match=r"net.onnx needs ONNX Runtime.*pip install '.\[onnx\]'"):
        foreign.load_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ((None, 3, 224, 224), ((224, 224, 3), True)),
        ((1, 48, 96, 1), ((48, 96, 1), False)),
        ((None, 9, 9, 200), ((9, 9, 200), False)),
        ((None, 16, 16, 20), ((16, 16, 20), False)),
        ((None, 13, 64, 48), ((64, 48, 13), True)),
        ((None, 3, 20, 24), ((20, 24, 3), True)),
        ((None, 8, 16, 16), ((16, 16, 8), True)),
    ],
)
def test_channels_are_found_before_or_behind_the_pixels(dims, shape):
    assert models.foreign.image_shape(dims, None, "net") == shape


@pytest.mark.parametrize("dims", [(None, 8, 8, 8), (None, None, None, None), (None, 20, 24, 16)])
def test_channels_that_cannot_be_told_are_asked_for(dims):
    with pytest.raises(ValueError, match="which are the channels. wrap it in models.black_box"):
        models.foreign.image_shape(dims, 8, "net")


# --- SavedModel -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network, and the folder that Keras exports it to."""
    model, folder = gap_net(size=12), tmp_path_factory.mktemp("saved") / "net"
    model.export(folder, verbose=False)
    return model, folder


class Module(tf.Module):
    """As TensorFlow without Keras saves a network."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(WEIGHTS, dtype=tf.float32)

    def both(self, pixels):
        scores = tf.tensordot(tf.cast(pixels, tf.float32), self.weights, 3)
        return {"scores": scores, "chances": tf.nn.softmax(scores)}


def save_module(folder, dtype=tf.float32, only=None, shape=(None, *SIDE, 3)):
    module = Module()

    def call(pixels):
        return module.both(pixels)[only] if only else module.both(pixels)

    signature = tf.function(call, [tf.TensorSpec(shape, dtype)], autograph=False)
    tf.saved_model.save(module, str(folder), signatures=signature)
    return folder


def test_a_saved_model_is_explained_by_scores_and_by_gradients(exported):
    (model, folder), pixels = exported, noise(2, (12, 12))
    saved = foreign.load_saved_model(folder)
    np.testing.assert_allclose(forward(saved, pixels), model(pixels), rtol=1e-5, atol=1e-4)
    for name in (
        "saliency",
        "gradient_x_input",
        "smooth_grad",
        "integrated_gradients",
        "occlusion",
    ):
        method, settings = attribution.METHODS[name], SETTINGS.get(name, {})
        expected = method(model, pixels, **settings)
        np.testing.assert_allclose(
            method(saved, pixels, **settings), expected, rtol=1e-3, atol=1e-4 * expected.max()
        )
    for name in ("grad_cam", "cam", "score_cam", "eigen_cam", "guided_grad_cam"):
        with pytest.raises(ValueError, match="which this needs" + NEED + "|has no ReLU"):
            attribution.METHODS[name](saved, pixels)


def test_what_a_saved_model_has_learnt_can_be_destroyed(exported):
    saved, pixels = foreign.load_saved_model(exported[1]), noise(2, (12, 12))
    before = forward(saved, pixels).numpy()
    with metrics.randomised(saved, ["saved_model"]):
        assert np.abs(forward(saved, pixels) - before).max() > 1e-2
    np.testing.assert_array_equal(forward(saved, pixels), before)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.uint8])
def test_a_saved_model_of_tensorflow_alone(tmp_path, dtype):
    pixels = np.rint(noise())
    saved = foreign.load_saved_model(save_module(tmp_path / "net", dtype, "scores"))
    scores = forward(saved, pixels)
    assert scores.dtype == tf.float32
    np.testing.assert_allclose(scores, np.tensordot(pixels, WEIGHTS, 3), atol=1e-3)


def test_outputs_and_sizes_of_a_saved_model_are_chosen(tmp_path):
    folder = save_module(tmp_path / "net", shape=(None, None, None, 3))
    with pytest.raises(ValueError, match="net has outputs chances, scores: say output="):
        foreign.load_saved_model(folder, SIDE)
    with pytest.raises(ValueError, match="any, any, 3.: say size="):
        foreign.load_saved_model(folder, output="chances")
    saved, pixels = foreign.load_saved_model(folder, SIDE, output="chances"), noise()
    assert models.endings.ending(saved, pixels).function == "softmax"
    assert saved.input_shape == (None, *SIDE, 3)


def test_shapes_that_a_saved_model_leaves_open_are_found(tmp_path):
    module = tf.Module()
    call = tf.function(
        lambda pixels: tf.reshape(pixels[..., :1], tf.shape(pixels)[:1] * [1, 0] + [0, 96]),
        [tf.TensorSpec((None, *SIDE, 3))],
        autograph=False,
    )
    tf.saved_model.save(module, str(tmp_path / "net"), signatures=call)
    saved, pixels = foreign.load_saved_model(tmp_path / "net"), noise()
    assert saved.output_shape == (None, 96)
    np.testing.assert_array_equal(forward(saved, pixels), pixels[..., 0].reshape(3, 96))


def test_folders_that_are_no_saved_model_are_refused_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no SavedModel folder at .*other"):
        foreign.load_saved_model(tmp_path / "other")
    (tmp_path / "net").mkdir()
    with pytest.raises(ValueError, match="^net is no SavedModel: the folder has no saved_model.pb"):
        foreign.load_saved_model(tmp_path / "net")
    (tmp_path / "net" / "saved_model.pb").write_bytes(b"this is none")
    with pytest.raises(ValueError, match="^net cannot be loaded .* is damaged [^\n]*$"):
        foreign.load_saved_model(tmp_path / "net")
    whole = save_module(tmp_path / "whole")
    (whole / "variables" / "variables.index").unlink()
    with pytest.raises(ValueError, match="^whole cannot be loaded as a SavedModel: [^\n]+$"):
        foreign.load_saved_model(whole, output="scores")
    fixed = save_module(tmp_path / "fixed", shape=(1, *SIDE, 3))
    with pytest.raises(ValueError, match="fixed takes 1 pictures at a time: export it for any"):
        foreign.load_saved_model(fixed)
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="empty has no signature at all; it has none: save it"):
        foreign.load_saved_model(tmp_path / "empty")


# --- fingerprints ---------------------------------------------------------------------------------


def test_a_fingerprint_tells_files_apart_whose_weights_nobody_sees(tmp_path, exported):
    pytest.importorskip("onnxruntime")
    one, same, other = (
        foreign.load_onnx(write_onnx(tmp_path / f"{i}.onnx", ends=ends))
        for i, ends in enumerate([(), (), ("Neg",)])
    )
    assert models.fingerprint(one) == models.fingerprint(same) != models.fingerprint(other)
    onnx = pytest.importorskip("onnx")
    beside = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    net = onnx.load(tmp_path / "0.onnx")
    scale = onnx.numpy_helper.from_array(np.float32([1, 2, 3]), "scale")
    net.graph.initializer.append(scale)
    net.graph.node.append(onnx.helper.make_node("Mul", ["means", "scale"], ["scaled"]))
    net.graph.output[0].name = "scaled"
    onnx.save(net, tmp_path / "split.onnx", **beside)
    split = foreign.load_onnx(tmp_path / "split.onnx")
    pixels = noise()
    np.testing.assert_allclose(forward(split, pixels), pixels.mean((1, 2)) * [1, 2, 3], rtol=1e-5)
    held = (tmp_path / "weights").read_bytes()
    changed = held.replace(np.float32([1, 2, 3]).tobytes(), np.float32([1, 2, 4]).tobytes())
    (tmp_path / "weights").write_bytes(changed)
    again = foreign.load_onnx(tmp_path / "split.onnx")
    np.testing.assert_allclose(forward(again, pixels), pixels.mean((1, 2)) * [1, 2, 4], rtol=1e-5)
    assert models.fingerprint(again) != models.fingerprint(split)
    (tmp_path / "weights").unlink()
    with pytest.raises(ValueError, match="^split.onnx cannot be loaded as [^\n]*weights[^\n]*$"):
        foreign.load_onnx(tmp_path / "split.onnx")


def test_a_fingerprint_stays_when_layers_stand_before_a_file(tmp_path, exported):
    pytest.importorskip("onnxruntime")
    other = foreign.load_onnx(write_onnx(tmp_path / "other.onnx"))
    wrapped = keras.Model(other.input, other(layers.Rescaling(1.0)(other.input)))
    assert models.fingerprint(wrapped) == models.fingerprint(other)
    net, saved = exported[0], foreign.load_saved_model(exported[1])
    assert models.fingerprint(saved) not in (models.fingerprint(net), models.fingerprint(other))
