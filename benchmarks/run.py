"""Measure what techniques cost against a compiled forward pass, and write a page of it.

Figures are ratios to a pass of the same batch. Every round times the forward pass just before each
technique, so that a machine that slows down slows both; quick techniques get more rounds. A ratio
is that of the medians: least times would favour the shorter of the two, which a burst of the
processor covers more often. Weights are random, which does not change the arithmetic.

Backward through Lite0's depthwise convolutions TensorFlow's own operations take longer than a
second forward pass. So its gradients are held to what these operations take: to the gradient of
the network's graph with its weights made constants.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import nbformat
import nbformat.v4 as nbf
import numpy as np
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.saliency import Saliency

from xai_suite import evaluation
from xai_suite.reports import provenance, site
from xai_utils import attribution, keras, models, pictures, show, synthesis, tf
from xai_utils.attribution.gradients import PASSES_AT_ONCE
from xai_utils.engine import computed_on, forward
from xai_utils.models import code_at

REPORTS = Path(__file__).resolve().parent.parent / "reports"
OF_Z_PLUS = 3.0  # passes of relevance: forward, once more without negative weights, and back
OF_FROZEN = 1.05  # a pass with its gradient, over that on a frozen graph
SAMPLES, MASKS = 4, 4  # of SmoothGrad and integrated gradients; of RISE
SOBOL = 12  # passes of Sobol indices of one cell
UPDATES = 4  # of the masks of an extremal perturbation
COVERED, SEGMENTS = 128, 12  # pictures and superpixels of LIME and Kernel SHAP
STEPS = 8  # of an inversion that is timed
STEP_BOUND = 1.15  # one of them over a forward and input-gradient pass
AT_ONCE = 32  # masked pictures in one pass of D-RISE
AT_LEAST, MOST_ROUNDS = 12.0, 50  # seconds a technique is timed for, within so many rounds
# Memory first: a process begins with the peak of the one that started it, small until then.
SECTIONS = {
    "memory": "peak memory",
    "techniques": "techniques, over a forward pass",
    "gradients": "gradients, over those on a frozen graph",
    "steps": "one optimisation step, over a forward and input-gradient pass",
    "evaluation": "evaluation, efficientnet_lite0",
    "growth": "how time grows, efficientnet_lite0",
}
FIVE = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "xgrad_cam")


class ClassToken(keras.layers.Layer):
    """Puts a learnt token before the others, and adds their places."""

    def build(self, shape):
        self.token = self.add_weight((1, 1, shape[-1]), "random_normal")
        self.places = self.add_weight((1, shape[1] + 1, shape[-1]), "random_normal")

    def call(self, x):
        token = keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1]))
        return keras.ops.concatenate([token, x], axis=1) + self.places


def vit(size: int, patch: int = 16, width: int = 192, heads: int = 3, blocks: int = 12):
    """A vision transformer of the size of ViT-Ti, whose head reads its class token."""
    layers = keras.layers
    inputs = keras.Input((size, size, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = layers.Reshape((-1, width))(layers.Conv2D(width, patch, patch, name="patches")(x))
    x = ClassToken(name="class_token")(x)
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(heads, width // heads)(y, y)
        y = layers.Dense(4 * width, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(width)(y)
    x = layers.LayerNormalization()(x)[:, 0]
    return keras.Model(inputs, layers.Dense(1000, name="head")(x), name="vit")


def build(name: str, size: int = 224) -> keras.Model:
    keras.utils.set_random_seed(0)
    if name == "vit":
        return vit(size)
    if name == "vgg19":
        return keras.applications.VGG19(
            weights=None, classifier_activation=None, input_shape=(size, size, 3)
        )
    return models.efficientnet_lite.build(name, size)


def techniques(model: keras.Model, images: np.ndarray) -> dict:
    """name -> (call, passes it needs, bound on its ratio per pass or None)."""
    if model.name == "vit":
        return of_a_transformer(model, images)
    a = attribution
    family = partial(a.cams, model, images, methods=FIVE)
    # A layer of few channels keeps Score-CAM short; what is bounded is the price of a channel.
    narrow = "block1_conv2" if model.name == "vgg19" else "block5c_add"
    maps = keras.Model(model.input, model.get_layer(narrow).output)(images[:1]).numpy()
    live = int((maps.max(axis=(1, 2)) > maps.min(axis=(1, 2))).sum())
    active = int(maps.any(axis=(1, 2)).sum())
    half = images.shape[1] // 2
    calls = {
        "Grad-CAM": (partial(a.grad_cam, model, images), 1, 1.05),
        "five CAMs together": (family, 1, 1.08),
        "five CAMs, four classes": (partial(family, targets=(0, 1, 2, 3)), 1, 1.08 + 3 * 0.03),
        **gradients(model, images, *((2.1, 2.15) if model.name == "vgg19" else (None, None))),
        "guided backpropagation": (partial(a.guided_backprop, model, images), 1, None),
        "DeepLIFT": (
            partial(a.deep_lift, model, images, 0),
            1,
            4.5 if model.name == "vgg19" else None,
        ),
        "FullGrad": (partial(a.full_grad, model, images, 0), 1, None),
        "LRP": (partial(a.lrp, model, images), 1, None),
        "LRP, z+": (
            partial(a.lrp, model, images, composite="epsilon_plus_flat"),
            1,
            OF_Z_PLUS if model.name == "vgg19" else None,
        ),
        f"RISE, {MASKS} masks": (partial(a.rise, model, images, 0, MASKS), MASKS, 1.05),
        "occlusion, 4 patches": (partial(a.occlusion, model, images, 0, half, half), 4 + 1, 1.05),
        f"Sobol, {SOBOL} passes": (partial(a.sobol, model, images, 0, 1, SOBOL // 3), SOBOL, 1.05),
        f"Score-CAM of one image, {live} channels": (
            partial(a.score_cam, model, images[:1], 0, narrow),
            live / len(images),
            1.1,
        ),
        # of whole passes, though only the part behind the layer is run
        f"Ablation-CAM of one image, {active} channels": (
            partial(a.ablation_cam, model, images[:1], 0, narrow),
            active / len(images),
            1.1,
        ),
    }
    if model.name.startswith("efficientnet"):
        calls["CAM"] = (partial(a.cam, model, images), 1, 1.02)
        calls |= others(model, images)
    return calls | peers(model, images)


def of_a_transformer(model: keras.Model, images: np.ndarray) -> dict:
    """As `techniques`, those that read attention, and two that they are compared with."""
    a = attribution
    calls = {
        "raw attention": (a.raw_attention, 1.1),
        "attention rollout": (a.attention_rollout, 1.1),
        "gradient attention": (a.gradient_attention, 1.2),
        "attention relevance": (a.attention_relevance, 2.3),
        "Grad-CAM": (a.grad_cam, None),
        "saliency": (a.saliency, None),
    }
    return {
        label: (partial(method, model, images), 1, most) for label, (method, most) in calls.items()
    }


def others(model: keras.Model, images: np.ndarray) -> dict:
    """The other techniques, without a bound, so that the reference can state what each costs."""
    a, count = attribution, len(images)
    plain = {
        "gradient x input": a.gradient_x_input,
        "deconvnet": a.deconvnet,
        "Grad-CAM++": a.grad_cam_plus_plus,
        "LayerCAM": a.layer_cam,
        "HiResCAM": a.hires_cam,
        "XGrad-CAM": a.xgrad_cam,
        "Eigen-CAM": a.eigen_cam,
    }
    calls = {label: (partial(method, model, images), 1, None) for label, method in plain.items()}
    # LIME and Kernel SHAP explain one image; their passes are counted in batches.
    one, samples = images[:1], COVERED
    return calls | {
        "guided Grad-CAM": (partial(a.guided_grad_cam, model, images), 2, None),
        f"VarGrad, {SAMPLES} samples": (
            partial(a.var_grad, model, images, 0, SAMPLES),
            SAMPLES,
            None,
        ),
        # segments and their ranking beside two paths
        f"XRAI, {SAMPLES} steps": (
            partial(a.xrai, model, images, 0, SAMPLES),
            2 * SAMPLES,
            None,
        ),
        f"extremal perturbation, {UPDATES} steps": (
            partial(a.extremal_perturbation, model, images, 0, steps=UPDATES),
            UPDATES,
            None,
        ),
        f"LIME of one image, {samples} samples": (
            partial(a.lime, model, one, 0, samples=samples, segments=SEGMENTS),
            samples / count,
            None,
        ),
        f"Kernel SHAP of one image, {samples} samples": (
            partial(a.kernel_shap, model, one, 0, samples=samples, segments=SEGMENTS),
            samples / count,
            None,
        ),
    }


def gradients(model: keras.Model, images: np.ndarray, once: float | None, often: float | None):
    """As `techniques`, what follows gradients to the pixels: one, or several with their mean."""
    a = attribution
    return {
        "saliency": (partial(a.saliency, model, images), 1, once),
        f"SmoothGrad, {SAMPLES} samples": (
            partial(a.smooth_grad, model, images, 0, SAMPLES),
            SAMPLES,
            often,
        ),
        f"integrated gradients, {SAMPLES} steps": (
            partial(a.integrated_gradients, model, images, 0, SAMPLES),
            SAMPLES,
            often,
        ),
        f"GradientSHAP, {SAMPLES} samples": (
            partial(a.gradient_shap, model, images, 0, SAMPLES),
            SAMPLES,
            often,
        ),
    }


def peers(model: keras.Model, images: np.ndarray) -> dict:
    """tf-keras-vis in the same rounds."""

    def top(outputs):
        return [output[0] for output in outputs]

    gradcam, saliency = Gradcam(model, clone=False), Saliency(model, clone=False)
    return {
        "Grad-CAM (tf-keras-vis)": (partial(gradcam, top, images, normalize_cam=False), 1, None),
        "saliency (tf-keras-vis)": (partial(saliency, top, images, normalize_map=False), 1, None),
    }


def ratios(base, chosen: dict, rounds: int) -> tuple[float, dict[str, float]]:
    """Median seconds of a call, and each technique's over that of the same call just before it."""
    taken, bare = {name: [] for name in chosen}, {name: [] for name in chosen}
    base()
    wanted = {}
    for name, (call, *_) in chosen.items():
        call()  # compiles
        enough = int(AT_LEAST / _seconds(call)) if rounds > 2 else 0
        wanted[name] = max(rounds, min(enough, MOST_ROUNDS))
    for turn in range(max(wanted.values())):
        for name, (call, *_) in chosen.items():
            if turn < wanted[name]:
                bare[name].append(_seconds(base))
                taken[name].append(_seconds(call))
    base_time = statistics.median(seconds for times in bare.values() for seconds in times)
    return base_time, {
        name: statistics.median(taken[name]) / statistics.median(bare[name]) for name in chosen
    }


def bare_pass(model: keras.Model, images: np.ndarray):
    """A call that makes a forward pass of these pictures."""
    return partial(_forward, model, images)


def frozen_gradient(model: keras.Model, images: np.ndarray):
    """A call that returns the gradient of the top scores `(N, H, W, C)`, on a frozen graph."""

    def gradient(batch):
        return tf.gradients(tf.reduce_max(model(batch, training=False), axis=-1), batch)[0]

    spec = tf.TensorSpec(images.shape, tf.float32)
    traced = tf.function(gradient, autograph=False).get_concrete_function(spec)
    frozen = convert_variables_to_constants_v2(traced)
    return lambda: frozen(tf.constant(images))[0].numpy()


def _forward(model, images):
    return keras.tree.map_structure(np.asarray, forward(model, images))


def _seconds(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def peak_memory(name: str, technique: str, passes: int) -> float:
    """Peak memory in MB of a process of its own that explains an image with so many passes."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import run, numpy as np,"
        f" resource\nmodel = run.build({name!r}); images = np.full((1, 224, 224, 3), 99,"
        f" np.float32)\nrun.memory_case(model, images, {technique!r},"
        f" {passes})\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def memory_case(model, images, technique: str, passes: int) -> None:
    if technique == "RISE":
        attribution.rise(model, images, 0, passes)
    else:  # Score-CAM at a layer with that many channels
        wide = next(
            layer.name
            for layer in model.layers
            if layer.output.shape[-1] == passes and "conv" in layer.name
        )
        attribution.score_cam(model, images, 0, wide)


def compare(name: str, batch: int, rounds: int) -> list[tuple]:
    """Rows of one network; prints them.

    Returns:
        (label, ratio, passes, ratio per pass, bound, kept?, the library's name of the technique).
    """
    model = build(name)
    images = np.random.default_rng(0).uniform(0, 255, (batch, 224, 224, 3)).astype(np.float32)
    return measure(model, images, techniques(model, images), rounds)


def compare_gradients(name: str, batch: int, rounds: int) -> list[tuple]:
    """The same rows, over the gradient on a frozen graph, of as many pictures as one pass takes."""
    model = build(name)
    images = np.random.default_rng(0).uniform(0, 255, (batch, 224, 224, 3)).astype(np.float32)
    one, *several = gradients(model, images, OF_FROZEN, OF_FROZEN).items()
    copies = min(SAMPLES, PASSES_AT_ONCE // batch)  # of the batch, in one pass
    rows = []
    for chosen, repeats in ((dict([one]), 1), (dict(several), copies)):
        together = np.repeat(images, repeats, axis=0)
        frozen = frozen_gradient(model, together)
        same = attribution.pixel_gradient(model, together)
        np.testing.assert_allclose(frozen(), same, rtol=1e-3, atol=1e-3 * np.abs(same).max())
        each = {key: (call, passes / repeats, most) for key, (call, passes, most) in chosen.items()}
        rows += measure(model, together, each, rounds, frozen, "one gradient on a frozen graph")
    return rows


def measure(
    model: keras.Model,
    images: np.ndarray,
    chosen: dict,
    rounds: int,
    base=None,
    what: str = "one forward pass",
) -> list[tuple]:
    seconds, times = ratios(base or bare_pass(model, images), chosen, rounds)
    print(
        f"\n{model.name}, batch {len(images)}, {images.shape[1]} px: {what} takes {seconds:.3f} s"
    )
    rows = []
    for technique, (call, passes, bound) in chosen.items():
        # Score-CAM explains one image of the batch; its passes are counted in batches.
        per_pass = times[technique] / passes
        verdict = "" if bound is None else ("kept" if per_pass <= bound else "MISSED")
        known = getattr(call.func, "__name__", "")  # another library's have none
        rows.append((technique, times[technique], passes, per_pass, bound, verdict, known))
        limit = "" if bound is None else f"<= {bound:.2f}"
        print(
            f"  {technique:<34} {times[technique]:8.2f} {passes:8.1f} {per_pass:8.3f} {limit:>8}"
            f" {verdict}"
        )
    return rows


def compare_detector(masks: int, rounds: int) -> list[tuple]:
    """The same rows for D-RISE on a photo; passes are counted in batches."""
    detector = models.load_model(models.DETECTOR)
    image = detector.prepare("coffee")[0]
    call = partial(attribution.d_rise, detector, image, detector.find(image), masks)
    chosen = {f"D-RISE of one image, {masks} masks": (call, masks / AT_ONCE, 1.05)}
    return measure(detector.model, np.repeat(image[None], AT_ONCE, axis=0), chosen, rounds)


def optimisation_step(name: str, batch: int, rounds: int) -> list[tuple]:
    """Rows (network, layer, settings, ratio, bound, kept?) of one step of an inversion.

    The ratio is to a forward pass and its input gradient. Both run the network up to the layer,
    forward and back to the pixels; what a step adds is what makes it dearer.
    """
    model = build(name)
    images = np.random.default_rng(0).uniform(0, 255, (batch, 224, 224, 3)).astype(np.float32)
    stages = models.stages(model, images.shape)
    rows = []
    for layer in (stages[len(stages) // 2], stages[-1]):
        bare = partial(
            tf.function(partial(_gradient_of_code, model, layer), autograph=False),
            tf.constant(images),
        )
        for label, settings in (
            ("Fourier, jitter", {"jitter": 4}),
            ("pixels", {"parameterisation": "pixels"}),
        ):
            invert = partial(
                synthesis.invert, model, images, layer, steps=STEPS, settle=0, **settings
            )
            _step_ratios(invert, bare)  # compiles
            measured = [
                ratio for _ in range(max(rounds, 2)) for ratio in _step_ratios(invert, bare)
            ]
            ratio = statistics.median(measured)
            verdict = "kept" if ratio <= STEP_BOUND else "MISSED"
            rows.append((name, layer, label, ratio, STEP_BOUND, verdict))
            print("  {} at {}, {}: {:.3f} <= {:.2f} {}".format(*rows[-1]))
    return rows


def _step_ratios(invert, bare) -> list[float]:
    """Time of each step over that of the bare pass just after it.

    `invert` reports after each step.
    """
    marks = []

    def pause(*_):
        begun = time.perf_counter()
        bare().numpy()
        marks.append((begun, time.perf_counter()))

    invert(progress=pause)
    inner = marks[:-1]  # the last step also keeps a frame
    return [(after[0] - before[1]) / (after[1] - after[0]) for before, after in pairwise(inner)]


def _gradient_of_code(model, layer, images):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        loss = tf.reduce_sum(code_at(model, images, layer) ** 2)
    return tape.gradient(loss, images)


def evaluation_throughput(
    rounds: int, count: int = 4, squares: int = 16, step: float = 0.1
) -> list[tuple]:
    """Rows (metrics, pictures, passes, seconds, share of the bare passes' pace).

    The share is the time of the bare forward passes over that of an evaluation. Grad-CAM and the
    floors over named pictures of Lite0: reading, explaining, measuring and writing. Passes are
    those that are needed for a picture: itself, black, blurred, for Grad-CAM, and one for each
    change of it.
    """
    names, inner = list(pictures.PICTURES)[3 : 3 + count], round(1 / step) - 1
    maps = 1 + len(attribution.FLOORS)
    kinds = {
        "deletion, insertion, drop, infidelity, localisation": (
            4 + 2 * maps * inner + maps + squares
        ),
        "the same and ROAD at 3 shares": 4 + 2 * maps * inner + maps + squares + 2 * 3 * maps,
    }
    model, rows = models.load_model().model, []
    images = np.random.default_rng(0).uniform(0, 255, (16, 224, 224, 3)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder, "manifest.csv")
        manifest.write_text("\n".join(["path,label", *(f"{name},0" for name in names)]))
        for number, (label, needed) in enumerate(kinds.items()):
            chosen = [
                name
                for name in evaluation.GROUPS
                if name != "sensitivity" and (number or name != "road")
            ]
            settings = {"metrics": chosen, "squares": squares, "step": step}
            passes, runs = needed * count, []
            for turn in range(rounds + 1):
                bare = _seconds(partial(_forward, model, images)) / len(images) * passes
                out = Path(folder, f"{number}-{turn}.parquet")
                call = partial(
                    evaluation.evaluate, "efficientnet_lite0", "grad_cam", manifest, out, **settings
                )
                taken = _seconds(call)
                runs.append((taken, bare / taken))
            # the first one compiles
            rows.append((label, count, passes, *map(statistics.median, zip(*runs[1:]))))
            print(
                "  {}: {} pictures, {} passes, {:.1f} s, {:.2f} of the bare passes' pace".format(
                    *rows[-1]
                )
            )
    return rows


def growth(rounds: int) -> list[tuple]:
    """Rows (batch, size, forward seconds an image, Grad-CAM, saliency) for Lite0."""
    rows = []
    for size, batches in ((224, (1, 8, 32)), (448, (1, 8))):
        model = build("efficientnet_lite0", size)
        for batch in batches:
            images = (
                np.random.default_rng(0).uniform(0, 255, (batch, size, size, 3)).astype(np.float32)
            )
            chosen = {
                "Grad-CAM": (partial(attribution.grad_cam, model, images),),
                "saliency": (partial(attribution.saliency, model, images),),
            }
            base, times = ratios(bare_pass(model, images), chosen, rounds)
            rows.append((batch, size, base / batch, times["Grad-CAM"], times["saliency"]))
            print(
                f"  batch {batch:>2}, {size} px: {1000 * base / batch:6.1f} ms an image forward, "
                f"Grad-CAM x {times['Grad-CAM']:.2f}, saliency x {times['saliency']:.2f}"
            )
    return rows


def memory(quick: bool) -> list[tuple]:
    """Rows (network, technique, passes, MB): flat memory shows as equal rows."""
    cases = [("efficientnet_lite0", "RISE", n) for n in ((250, 500) if quick else (500, 4000))]
    cases += [("vgg19", "Score-CAM", n) for n in ((64, 128) if quick else (128, 512))]
    rows = []
    for case in cases:
        rows.append((*case, peak_memory(*case)))
        print("  {} {} with {} passes: {:.0f} MB".format(*rows[-1]))
    return rows


def page(results: dict) -> None:
    """Write the figures as JSON and as a page, `reports/site/bench/bench.html`."""
    folder = REPORTS / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(results, indent=1))
    cells = [
        nbf.new_markdown_cell("# Measure what techniques cost"),
        nbf.new_markdown_cell(__doc__),
    ]
    frozen = {"Gradients over those on a frozen graph (Lite0)": results["gradients"]}
    for name, rows in (results["techniques"] | frozen).items():
        shown = [
            (t, f"{r:.2f}", f"{p:.1f}", f"{e:.3f}", b or "", v) for t, r, p, e, b, v, _ in rows
        ]
        cells.append(
            _table(name, ("technique", "time", "passes", "per pass", "at most", ""), shown)
        )
        if name not in frozen:
            cells.append(_bars(name, rows))
    shown = [(n, cut, label, f"{r:.3f}", b, v) for n, cut, label, r, b, v in results["steps"]]
    head = ("network", "layer", "settings", "time of a step / pass", "at most", "")
    cells.append(_table("One optimisation step", head, shown))
    shown = [(m, n, p, f"{t:.1f}", f"{share:.2f}") for m, n, p, t, share in results["evaluation"]]
    head = ("metrics", "pictures", "passes", "seconds", "share of the bare passes' pace")
    cells.append(_table("Evaluation at scale (Lite0)", head, shown))
    shown = [
        (b, s, f"{1000 * f:.1f}", f"{g:.2f}", f"{c:.2f}") for b, s, f, g, c in results["growth"]
    ]
    cells.append(
        _table(
            "How time grows (Lite0)",
            ("batch", "pixels", "ms an image", "Grad-CAM", "saliency"),
            shown,
        )
    )
    shown = [(n, t, p, f"{m:.0f}") for n, t, p, m in results["memory"]]
    cells.append(_table("Peak memory", ("network", "technique", "passes", "MB"), shown))
    notebook = nbf.new_notebook(cells=cells)
    notebook.metadata["report"] = {
        "run": "bench",
        "notebook": "bench",
        "title": "Measure what techniques cost",
        "parameters": {},
        "changed": [],
        "computed_on": computed_on(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    nbformat.write(notebook, folder / "bench.ipynb")
    site.page(folder, REPORTS / "site" / "bench", "bench")


def _table(title: str, head: tuple, rows: list[tuple]):
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]
    return nbf.new_markdown_cell(f"## {title}\n\n" + "\n".join(lines))


def _bars(name: str, rows: list[tuple]):
    """A code cell that holds the plot of the ratios per pass, with the bounds as marks."""
    fig, ax = show.subplots(width=7, height=0.32 * len(rows) + 0.8)
    places = np.arange(len(rows))[::-1]
    ax.barh(places, [row[3] for row in rows], color="#4477aa")
    bounds = [(row[4], place) for row, place in zip(rows, places) if row[4]]
    ax.plot(*zip(*bounds), "k|", markersize=14, label="at most")
    ax.set(
        yticks=places, yticklabels=[row[0] for row in rows], xlabel="time of a pass / forward pass"
    )
    ax.legend(frameon=False)
    alt = (
        f"Bars of the time of each technique on {name}, per pass, against the forward pass; marks"
        " show the bounds."
    )
    bundle = {"text/html": show.picture(show.light(fig), alt), "text/plain": alt}
    output = nbf.new_output("display_data", bundle)
    return nbf.new_code_cell("# drawn by benchmarks/run.py", outputs=[output])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of each comparison, at least (default 5)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="2 rounds of batch 2: to see that it runs, not to measure",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        default=SECTIONS,
        help="these parts alone, printed; no page is written",
    )
    options = parser.parse_args()
    quick, batch = options.quick, 2 if options.quick else 8
    rounds = 2 if quick else options.rounds
    parts = {
        "memory": lambda: memory(quick),
        "techniques": lambda: {
            "vgg19": compare("vgg19", batch, rounds),
            "efficientnet_lite0": compare("efficientnet_lite0", batch, rounds),
            "vit": compare("vit", batch, rounds),
            models.DETECTOR: compare_detector(64 if quick else 512, rounds),
        },
        "gradients": lambda: compare_gradients("efficientnet_lite0", batch, rounds),
        # VGG19 takes seconds a picture
        "steps": lambda: [
            *optimisation_step("vgg19", 1, rounds),
            *optimisation_step("efficientnet_lite0", batch, rounds),
        ],
        "evaluation": lambda: evaluation_throughput(min(rounds, 3), 2 if quick else 4),
        "growth": lambda: growth(rounds),
    }
    # What a quick trial finds is no measurement: the reference does not quote it.
    batches = {"vgg19": batch, "efficientnet_lite0": batch, "vit": batch}
    batches[models.DETECTOR] = AT_ONCE
    results = {"quick": quick, "batches": batches}
    for name in (name for name in SECTIONS if name in options.only):
        print(f"\n{SECTIONS[name]}")
        results[name] = parts[name]()
    if {*options.only} == {*SECTIONS}:
        page(results)
        print("\nwritten to reports/site/bench/bench.html")


if __name__ == "__main__":
    main()
