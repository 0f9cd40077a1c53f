"""Evaluation at scale: the same rows here, on a cluster that loses a worker, and after a kill."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from miniature import ROOT, finish, wait_for
from nets import divided_by_spread, gap_net, with_a_black_one
from PIL import Image

from xai_suite import evaluation
from xai_suite.evaluation import cluster, command, read_manifest, results, scoring
from xai_suite.evaluation.manifest import digest
from xai_utils import attribution, keras, metrics, models, pictures, tf
from xai_utils.attribution import techniques as known

TECHNIQUES = "grad_cam smooth_grad:samples=2,noise=0.2"
QUICK = {
    "step": 0.25,
    "squares": 3,
    "copies": 1,
    "shares": (0.5,),
    "model_options": {"preprocessing": "unit", "task": "classification"},
}
PICTURES = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model of 32 pixels and five classes, pictures, one of them broken, and their manifest."""
    folder = tmp_path_factory.mktemp("it's here")
    gap_net(size=32).save(folder / "net.keras")
    rng = np.random.default_rng(0)
    lines = ["path,label,x_min,y_min,x_max,y_max"]
    for i in range(PICTURES):
        Image.fromarray(rng.integers(0, 256, (50, 60, 3), np.uint8)).save(
            folder / f"picture {i}.png"
        )
        lines.append(f"picture {i}.png,{i % 5}," + ("20,10,40,30" if i % 2 else ",,,"))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 this is no JPEG")
    lines.insert(3, "broken.jpg,class 1,,,,")
    (folder / "pictures.csv").write_text("\n".join(lines) + "\n")
    return folder


def run(place, out, **more):
    more = {"at_once": 2, **QUICK, **more}
    return evaluation.evaluate(
        str(place / "net.keras"), TECHNIQUES, place / "pictures.csv", out, **more
    )


@pytest.fixture(scope="module")
def whole(place):
    """The evaluation in one go."""
    return evaluation.read(run(place, place / "whole.parquet"))


def assert_same(one, other):
    assert one.schema == other.schema and one.num_rows == other.num_rows
    for name in one.column_names:
        mine, theirs = (table[name].to_pylist() for table in (one, other))
        if results.COLUMNS[name] == "float64":
            np.testing.assert_allclose(
                np.array(mine, float), np.array(theirs, float), atol=1e-6, err_msg=name
            )
        else:
            assert mine == theirs, name


def test_every_picture_and_technique_has_a_row(whole):
    techniques = ["grad_cam", "smooth_grad:samples=2,noise=0.2", *attribution.FLOORS]
    rows = whole.to_pylist()
    assert [row["path"] for row in rows if row["error"]] == ["broken.jpg"] and len(
        rows
    ) == PICTURES * 5 + 1
    assert [row["technique"] for row in rows if row["path"] == "picture 3.png"] == techniques
    assert [row["number"] for row in rows] == sorted(row["number"] for row in rows)
    (reason,) = evaluation.errors(whole)
    assert reason[:2] == ("broken.jpg", None) and "'broken.jpg' is" in reason[2]
    for row in rows:
        if not row["error"]:
            boxed = int(row["path"][-5]) % 2
            assert (row["mass_share"] is None) == (not boxed) or row["technique"] == "grad_cam"
            assert 0 < row["probability"] < 1 and row["explained"] == row["top"]
            assert all(
                0 <= row[name] <= 1
                for name in ("deletion", "insertion", "drop", "infidelity", "road_most")
            )


def test_numbers_are_those_of_the_metrics(place, whole):
    classifier = models.load_model(
        str(place / "net.keras"), preprocessing="unit", task="classification"
    )
    image = classifier.prepare(str(place / "picture 3.png"))
    maps = attribution.centre(classifier.model, image)
    (row,) = (
        r for r in whole.to_pylist() if (r["path"], r["technique"]) == ("picture 3.png", "centre")
    )
    deletion = metrics.deletion(classifier.model, image, maps, step=0.25).area[0]
    assert row["deletion"] == pytest.approx(float(deletion), abs=1e-6)
    whole_mask = np.zeros((50, 60), bool)
    whole_mask[10:30, 20:40] = True
    mask = classifier.prepare_mask(whole_mask)
    assert row["enrichment"] == pytest.approx(metrics.enrichment(maps[0], mask), abs=1e-6)
    assert row["label"] == 3 and row["top"] == classifier.predict(image)[0].argmax()


def test_the_summary_is_means_and_standard_errors(whole):
    edges = evaluation.summary(whole)["edges"]
    values = [r["deletion"] for r in whole.to_pylist() if r["technique"] == "edges"]
    assert edges["deletion"] == pytest.approx(
        (np.mean(values), np.std(values, ddof=1) / np.sqrt(6), 6)
    )
    assert edges["enrichment"][2] == 3


def test_a_cluster_that_loses_a_worker_gives_the_same(place, whole):
    from distributed import Client, LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as local:
        with Client(local) as client:
            pids = list(client.run(os.getpid).values())
        killed = []

        def kill_one(done, total):
            if done and not killed:
                os.kill(pids[0], signal.SIGKILL)
                killed.append(done)

        out = run(
            place, place / "cluster.parquet", scheduler=local.scheduler_address, progress=kill_one
        )
    assert killed and killed[0] < PICTURES + 1
    assert_same(evaluation.read(out), whole)


def test_kill_and_resume(place, whole):
    out = place / "killed.parquet"
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT / 'tests'), str(Path(__file__).parent)]!r}; import"
        f" test_evaluation as t, pathlib\nt.run(pathlib.Path({str(place)!r}), {str(out)!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    wait_for(lambda: list(out.glob("part-*.parquet")))
    process.kill()
    process.wait()
    before = {part: part.stat().st_mtime_ns for part in out.glob("part-*.parquet")}
    assert len(before) < 4, "it was killed too late to show anything"
    counts = []
    run(place, out, progress=lambda done, total: counts.append(done))
    assert counts[0] >= 2 and counts[-1] == PICTURES + 1
    assert {part: part.stat().st_mtime_ns for part in before} == before, (
        "a finished part was computed again"
    )
    assert_same(evaluation.read(out), whole)
    assert not [p for p in out.iterdir() if p.suffix == ".tmp" and str(process.pid) not in p.name]
    counts.clear()
    run(place, out, progress=lambda done, total: counts.append(done))
    assert counts == [PICTURES + 1], "there was nothing left to do"


def test_a_technique_that_fails_is_a_row_with_its_reason(place, whole, monkeypatch):
    picture = pictures.load_image(str(place / "picture 4.png"))
    odd = pictures.prepare(picture, 32, resizing="stretch")

    def choosy(model, images, target=None):
        if any((image == odd).all() for image in images):
            raise ValueError("not this one")
        return images[..., 0]

    batches = []

    def steady(model, images, target=None):
        batches.append(len(images))
        return images[..., 0]

    def broken(model, images, target=None):
        raise tf.errors.InvalidArgumentError(None, None, "not finite\nand a wall of text")

    def shaky(model, images, target=None):
        if (images % 1).any():  # pictures are whole numbers, noisy copies are not
            raise ValueError("too noisy")
        return images[..., 0]

    for method in (steady, choosy, shaky, broken):
        monkeypatch.setitem(attribution.METHODS, method.__name__, method)
    out = evaluation.evaluate(
        str(place / "net.keras"),
        "steady choosy shaky broken",
        place / "pictures.csv",
        place / "failing.parquet",
        at_once=7,
        **QUICK,
    )
    rows = evaluation.read(out).to_pylist()
    failed = [(row["path"], row["technique"], row["error"]) for row in rows if row["error"]]
    assert ("picture 4.png", "choosy", "not this one") in failed and len(
        failed
    ) == 1 + 1 + 2 * PICTURES
    for technique, reason in (("shaky", "too noisy"), ("broken", "not finite")):
        assert sum(row[1:] == (technique, reason) for row in failed) == PICTURES
    assert batches == [PICTURES] * 2, (
        "one that works is asked once for all pictures, and once for noisy copies"
    )
    edges, before = (
        [row for row in table if row["technique"] == "edges"] for table in (rows, whole.to_pylist())
    )
    for name, kind in results.COLUMNS.items():
        mine, theirs = ([row[name] for row in table] for table in (edges, before))
        if kind == "float64":
            np.testing.assert_allclose(
                np.array(mine, float), np.array(theirs, float), atol=1e-6, err_msg=name
            )
        else:
            assert mine == theirs, name


def test_results_of_other_values_are_refused(place, whole):
    out = place / "whole.parquet"
    for changed, told in (
        ({"step": 0.5}, "holds results of step 0.25, not 0.5; give another place, or delete it"),
        ({"explain": "label"}, 'holds results of explain "top", not "label"'),
        ({"at_once": 3}, "holds results of at_once 2, not 3"),
        ({"tolerance": 15}, "holds results of tolerance 0.0, not 15.0"),
        (
            {"metrics": ["drop", "road"]},
            "holds results of metrics deletion insertion drop infidelity sensitivity road"
            " localisation, not drop road; give another place, or delete it",
        ),
    ):
        with pytest.raises(ValueError, match=told):
            run(place, out, **changed)
    note = out / results.ABOUT
    about = json.loads(note.read_text())
    try:
        for name in ("version", "format"):
            note.write_text(json.dumps({**about, name: "0.0.9"}))
            with pytest.raises(ValueError, match=f'holds results of {name} "0.0.9", not '):
                run(place, out)
        note.write_text(json.dumps({**about, "manifest": "0"}))
        with pytest.raises(ValueError, match="another manifest"):
            run(place, out)
    finally:
        note.write_text(json.dumps(about))
    with pytest.raises(ValueError, match="holds no evaluation"):
        run(place, place)
    with pytest.raises(FileNotFoundError, match="no evaluation at"):
        evaluation.read(place)


def test_weights_that_changed_are_noticed(place, tmp_path):
    file = tmp_path / "net.keras"
    gap_net(size=32).save(file)
    given = {
        "metrics": ["drop"],
        "model_options": {"preprocessing": "unit", "task": "classification"},
    }
    before = evaluation.evaluate(
        str(file), "random", place / "pictures.csv", tmp_path / "before", **given
    )
    gap_net(size=32, seed=1).save(file)
    after = evaluation.evaluate(
        str(file), "random", place / "pictures.csv", tmp_path / "after", **given
    )
    one, other = (evaluation.read(folder)["probability"].to_pylist() for folder in (before, after))
    assert not np.allclose(np.array(one, float), np.array(other, float), equal_nan=True)
    with pytest.raises(ValueError, match="holds results of another weights; give"):
        evaluation.evaluate(str(file), "random", place / "pictures.csv", before, **given)
    plan = {
        "version": scoring.__version__,
        "model": str(file),
        "model_options": given["model_options"],
    }
    with pytest.raises(RuntimeError, match=r"a worker has other weights of net\.keras"):
        scoring.evaluate_chunk({**plan, "weights": "0"}, scoring.Chunk([], []))


def test_a_worker_is_sent_whole_paths(place, tmp_path, monkeypatch):
    (tmp_path / "names.txt").write_text("\n".join(f"class {i}" for i in range(5)))
    gap_net(size=32).save(tmp_path / "net.keras")
    monkeypatch.chdir(tmp_path)
    sent = []
    monkeypatch.setattr(
        scoring, "on_cluster", lambda address, compute, chunks: sent.append((compute, chunks)) or []
    )
    options = {"preprocessing": "unit", "task": "classification", "labels": "names.txt"}
    evaluation.evaluate(
        "net.keras", "random", place / "pictures.csv", "out", scheduler="x", model_options=options
    )
    ((compute, chunks),) = sent
    assert compute.args[0]["model"] == str(tmp_path / "net.keras")
    assert compute.args[0]["model_options"] == {
        "preprocessing": "unit",
        "task": "classification",
        "labels": str(tmp_path / "names.txt"),
    }
    assert all(os.path.isabs(row.file) for chunk in chunks.values() for row in chunk.rows)


def test_a_start_that_failed_can_be_corrected(place, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="blak"):
        run(place, out, fills=("blak", "blur"))
    (out / f".{results.ABOUT}.1.tmp").touch()  # killed while it wrote its note
    assert evaluation.read(run(place, out, metrics=["drop"])).num_rows == PICTURES * 5 + 1


def test_settings_that_fail_on_every_picture_stop_it_at_once(place, tmp_path):
    def measured(techniques, out):
        return evaluation.evaluate(
            str(place / "net.keras"),
            techniques,
            place / "pictures.csv",
            tmp_path / out,
            metrics=["drop"],
            model_options={"preprocessing": "unit", "task": "classification"},
        )

    with pytest.raises(
        ValueError, match=r"grad_cam:layer=nothere fails on every picture: .* no layer 'nothere'"
    ):
        measured("saliency grad_cam:layer=nothere", "out")
    # nothing of it was left
    assert evaluation.read(measured("saliency", "out")).num_rows == PICTURES * 4 + 1


@pytest.fixture
def late(place, tmp_path):
    """A manifest whose first pictures cannot be read."""
    (tmp_path / "late.csv").write_text(
        "path,label\n"
        + "".join(f"gone {i}.png,0\n" for i in range(5))
        + "".join(f"{place}/picture {i}.png,0\n" for i in range(PICTURES))
    )
    return tmp_path / "late.csv"


def test_pictures_that_cannot_be_read_do_not_hide_a_technique_that_always_fails(
    place, late, tmp_path, monkeypatch
):
    asked = []

    def failing(model, images, target=None, layer=""):
        asked.append(len(images))
        raise ValueError("no such layer")

    monkeypatch.setitem(attribution.METHODS, "failing", failing)

    def measured(techniques, **more):
        given = {"metrics": "drop", "at_once": 2, "model_options": QUICK["model_options"], **more}
        file, out = str(place / "net.keras"), tmp_path / "out"
        return evaluation.read(evaluation.evaluate(file, techniques, late, out, **given))

    with pytest.raises(ValueError, match="^failing:layer=x fails on every picture: no such layer$"):
        measured("saliency failing:layer=x")
    # Chunks of two: the third has one picture to measure, the fourth makes them three. What fails
    # for a batch is tried with each picture of it.
    assert asked == [1, 1, 2, 1, 1]
    with pytest.raises(ValueError, match="^failing:layer=x fails"):  # fewer pictures than at_once
        measured("saliency failing:layer=x", at_once=8)
    with pytest.raises(ValueError, match="^failing fails on every picture: no such layer$"):
        measured("failing")
    steps = []
    table = measured("saliency failing", progress=lambda done, total: steps.append(done))
    assert sum(row[1:] == ("failing", "no such layer") for row in evaluation.errors(table)) == 6
    assert steps == [0, 2, 4, 6, 8, 10, 11] and table.num_rows == 5 + PICTURES * 5


def test_a_picture_without_a_finite_score_spoils_no_other(tmp_path):
    divided_by_spread().save(tmp_path / "spread.keras")
    lines = ["path,label"]
    for i, image in enumerate(with_a_black_one()):
        Image.fromarray(image[..., 0].astype(np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,0")
    (tmp_path / "pictures.csv").write_text("\n".join(lines))

    def measured(metrics):
        given = {"preprocessing": "none", "task": "classification"}
        file, pictures = str(tmp_path / "spread.keras"), tmp_path / "pictures.csv"
        out = tmp_path / metrics
        return evaluation.read(
            evaluation.evaluate(
                file, "saliency", pictures, out, metrics=metrics, model_options=given
            )
        )

    table = measured("drop")
    [(path, technique, told)] = evaluation.errors(table)
    assert (path, technique) == ("1.png", None)
    assert told == "the network answers it with NaN or infinity"
    numbers = np.array(table["drop"].to_pylist(), float)
    assert table.num_rows == 1 + 3 * 4 and np.isfinite(numbers).sum() == 3 * 4
    # each curve of deletion ends in a black picture: told at once, before anything is written
    with pytest.raises(
        ValueError, match="^no picture of 4 can be measured: spread answers a whole"
    ):
        measured("deletion")
    assert not [*(tmp_path / "deletion").glob("*.parquet")]


def test_a_technique_that_fails_for_several_reasons_goes_on(place, late, tmp_path, monkeypatch):
    def choosy(model, images, target=None, noise=0.0):
        raise ValueError(f"{images.mean():.6f} is too much")

    monkeypatch.setitem(attribution.METHODS, "choosy", choosy)
    out = evaluation.evaluate(
        str(place / "net.keras"),
        "choosy:noise=1",
        late,
        tmp_path / "out",
        metrics="drop",
        at_once=2,
        model_options=QUICK["model_options"],
    )
    assert len(evaluation.errors(evaluation.read(out))) == 5 + PICTURES


def test_a_list_may_be_given_as_one_text(place, tmp_path):
    given = {
        "metrics": "deletion drop",
        "fills": "black black",
        "shares": np.array([0.5]),
        "squares": np.int64(3),
        "model_options": QUICK["model_options"],
    }
    out = run(place, tmp_path / "out", **given)
    made = evaluation.read_about(out)["plan"]
    assert made["metrics"] == ["deletion", "drop"] and made["fills"] == ["black", "black"]
    assert made["shares"] == [0.5] and made["squares"] == 3
    assert made["task"] == "classification"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"metrics": ""}, "no metric is called ''; there are deletion, insertion"),
        ({"metrics": "deletion, drop"}, "no metric is called 'deletion,'"),
        ({"metrics": 3}, r"metrics is a list, such as \['deletion'\], not 3"),
        ({"metrics": [3]}, "metrics holds names, not 3"),
        ({"techniques": ()}, "say which techniques: all, or some of saliency"),
        ({"techniques": None}, r"techniques is a list, such as \['grad_cam'\], not None"),
        ({"techniques": [None]}, "techniques holds names, not None"),
        ({"fills": "black"}, "fills are two, one for deletion .* 'black blur', not 'black'"),
        ({"fills": ("black", "blur", "mean")}, "fills are two"),
        ({"shares": 0.5}, r"shares is a list, such as \[0.2\], not 0.5"),
        ({"shares": "many"}, "each of shares is a number, not 'many'"),
        ({"step": "small"}, "step is a number, not 'small'"),
        ({"at_once": "eight"}, "at_once is a whole number, not 'eight'"),
        ({"copies": 1.5}, "copies is a whole number, not 1.5"),
        ({"model_options": "unit"}, "model_options are arguments of load_model by name, .* 'unit'"),
        ({"model": len}, "model is a name or a file, .* not a builtin_function_or_method"),
    ],
)
def test_what_is_no_list_or_number_is_one_line(wrong, told):
    given = {"model": "efficientnet_lite0", "techniques": "grad_cam", "manifest": "x", "out": "x"}
    with pytest.raises(ValueError, match=told) as caught:
        evaluation.evaluate(**{**given, **wrong})
    assert "\n" not in str(caught.value)


def test_results_that_cannot_be_written_are_one_line(place, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/out cannot be written \(Not a directory\): give") as e:
        run(place, tmp_path / "file" / "out")
    assert "\n" not in str(e.value) and "OUT=" in str(e.value)
    kept = results.Results(tmp_path / "out", {})

    def refuse(*_):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), "x")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match=r"out cannot be written \(Read-only file system\): give"):
        kept.write(0, ["cam"], [])
    assert os.listdir(kept.folder) == [results.ABOUT]


def test_techniques_may_be_added_and_left_out(place, tmp_path, monkeypatch):
    asked = []

    def seen(model, images, target=None, gain=1.0):
        asked.append(f"seen:{gain:g}")
        return gain * images[..., 0]

    def other(model, images, target=None):
        asked.append("other")
        return images[..., 1]

    for method in (seen, other):
        monkeypatch.setitem(attribution.METHODS, method.__name__, method)

    def measured(techniques, out="out"):
        asked.clear()
        given = {"metrics": "drop localisation", "model_options": QUICK["model_options"]}
        folder = evaluation.evaluate(
            str(place / "net.keras"), techniques, place / "pictures.csv", tmp_path / out, **given
        )
        return evaluation.read(folder)

    first = measured("seen")
    assert asked == ["seen:1"]
    both = measured("other seen")  # in one chunk
    assert asked == ["other"], "what was there is not computed again"
    assert_same(both, measured("other seen", "at once"))
    changed = measured("other seen:gain=2")
    assert asked == ["seen:2"]
    assert set(changed["technique"].to_pylist()) == {
        None,
        "other",
        "seen:gain=2",
        *attribution.FLOORS,
    }
    assert_same(measured("seen"), first)
    assert asked == [] and evaluation.read_about(tmp_path / "out")["plan"]["techniques"].keys() == {
        "seen",
        *attribution.FLOORS,
    }


def test_all_is_all_that_the_network_has(place, tmp_path, monkeypatch):
    """`all` leaves out what a network has not, says so in a line, and fails where it is named."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 8, 8, activation="tanh")(inputs)
    x = keras.layers.Reshape((16, 4))(x)
    x = keras.layers.MultiHeadAttention(2, 2)(x, x)
    x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling1D()(x))
    keras.Model(inputs, x).save(tmp_path / "vit.keras")
    quick = (
        "saliency",
        "guided_backprop",
        "cam",
        "raw_attention",
        "attention_relevance",
        "eigen_cam",
    )
    monkeypatch.setattr(known, "TECHNIQUES", dict.fromkeys(quick))

    def asked(net, named="all"):
        given = {"metrics": "drop", "model_options": QUICK["model_options"]}
        out = tmp_path / f"{Path(net).stem}-{named}"
        return evaluation.evaluate(str(net), named, place / "pictures.csv", out, **given)

    had = {
        place / "net.keras": {"saliency", "guided_backprop", "cam", "eigen_cam"},
        tmp_path / "vit.keras": {"saliency", "raw_attention", "attention_relevance", "eigen_cam"},
    }
    for net, names in had.items():
        table, plan = evaluation.read(asked(net)), evaluation.read_about(asked(net))["plan"]
        assert {*table["technique"].to_pylist()} == {None, *names, *attribution.FLOORS}
        assert {*plan["left_out"]} == {*quick} - names
        assert [technique for _, technique, _ in evaluation.errors(table)] == [None]  # broken.jpg
    told = attribution.left_out(plan["left_out"])
    assert told.startswith("left out: guided_backprop (vit has no ReLU") and "; cam (cam" in told
    with pytest.raises(ValueError, match="guided_backprop fails on every picture: .* has no ReLU"):
        asked(net, "guided_backprop")


def test_what_is_added_and_fails_stops_nothing_and_what_is_refused_hides_nothing(
    place, tmp_path, monkeypatch
):
    def failing(model, images, target=None, gain=1.0):
        raise ValueError("not of this network")

    monkeypatch.setitem(attribution.METHODS, "failing", failing)
    out, file = tmp_path / "out", str(place / "net.keras")

    def measured(techniques):
        given = {"metrics": "drop", "model_options": QUICK["model_options"]}
        evaluation.evaluate(file, techniques, place / "pictures.csv", out, **given)
        return evaluation.read(out)

    first = measured("saliency")
    for wrong in ("saliency failing:gain=2", "failing"):
        with pytest.raises(ValueError, match=f"^{wrong.split()[-1]} fails on every picture: not"):
            measured(wrong)
        assert_same(evaluation.read(out), first)
    both = measured("saliency failing")  # the first one was there and did not fail
    assert sum(row[1] == "failing" for row in evaluation.errors(both)) == PICTURES
    assert_same(evaluation.read(out, "saliency"), first)
    assert_same(evaluation.read(out, ["saliency", "failing"]), both)
    with pytest.raises(ValueError, match="no technique is called 'cam_cam'"):
        evaluation.read(out, "cam_cam")

    def refuse(*_):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), "x")

    monkeypatch.setattr(os, "replace", refuse)  # all is there: nothing has to be written
    assert_same(measured("saliency failing"), both)
    measured("saliency")
    assert_same(evaluation.read(out, "saliency"), first)
    with pytest.raises(OSError, match="cannot be written"):
        measured("edges saliency centre rise:masks=2")


def test_a_picture_that_is_mended_later_lacks_what_was_measured_before(tmp_path):
    about = {"plan": {"techniques": {name: [] for name in ("cam", "rise", "occlusion")}}}
    kept = results.Results(tmp_path / "out", about)
    whole, broken = {"number": 0, "path": "a.png"}, {"number": 1, "path": "b.png"}
    gone = {"number": 2, "path": "c.png", "error": "not there"}
    kept.write(
        0,
        ["cam", "occlusion"],
        [
            *({**whole, "technique": name, "drop": 0.5} for name in ("cam", "occlusion")),
            {**broken, "error": "cut short"},
            gone,
        ],
    )
    rise = [{**row, "technique": "rise", "drop": 0.25} for row in (whole, broken)]
    kept.write(0, ["rise"], [*rise, gone])

    def rows(*techniques):
        asked = {"techniques": {name: [] for name in techniques}}
        (kept.folder / results.ABOUT).write_text(json.dumps({"plan": asked}))
        table = evaluation.read(kept.folder).to_pylist()
        return [tuple(row[key] for key in ("number", "technique", "error")) for row in table]

    unread = (2, None, "not there")
    assert rows("cam", "rise") == [
        (0, "cam", None),
        (0, "rise", None),
        (1, "cam", "cut short"),
        (1, "rise", None),
        unread,
    ]
    assert rows("rise") == [(0, "rise", None), (1, "rise", None), unread]
    assert rows("cam", "occlusion")[2:] == [(1, None, "cut short"), unread]
    assert evaluation.errors(evaluation.read(kept.folder, "cam rise"))[0] == (
        "b.png",
        "cam",
        "cut short",
    )


def test_a_part_is_not_taken_for_another(tmp_path):
    about = {"plan": {"techniques": {"cam": [], "rise": []}}}
    first = results.Results(tmp_path / "out", about)
    first.write(3, ["cam"], [])
    again = results.Results(tmp_path / "out", about)
    assert again.missing(3, ["cam", "rise"]) == ["rise"] and again.missing(0, ["cam"]) == ["cam"]
    again.write(3, ["rise"], [])
    assert results.Results(tmp_path / "out", about).missing(3, ["rise", "cam"]) == []


def test_a_long_value_is_not_cut_inside_a_word(tmp_path):
    names = [f"word{i}" for i in range(99)]
    results.Results(tmp_path / "out", {"given": names}).write(0, ["cam"], [])
    with pytest.raises(ValueError, match=r"of given (word\d+ )+\.\.\., not none; give") as caught:
        results.Results(tmp_path / "out", {})
    assert "\n" not in str(caught.value)


def test_two_evaluations_do_not_mix_in_one_folder(tmp_path):
    first, second = (results.Results(tmp_path / "out", {"step": step}) for step in (0.1, 0.2))
    second.write(0, ["cam"], [])
    with pytest.raises(ValueError, match="results of step 0.2, not 0.1"):
        first.write(1, ["cam"], [])
    assert [path.name[:12] for path in second.folder.glob("*.parquet")] == ["part-000000-"]


def test_nobody_at_the_address_and_bad_settings(place, monkeypatch):
    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 1)
    with pytest.raises(ConnectionError, match="no Dask scheduler answers at tcp://127.0.0.1:9 "):
        run(place, place / "never.parquet", scheduler="tcp://127.0.0.1:9")
    for more, told in (
        ({"metrics": ["delete"]}, "called 'delete'; nearest: deletion$"),
        ({"explain": "both"}, "not 'both'"),
        ({"copies": 0}, "must be at least 1, not 8 and 0"),
    ):
        with pytest.raises(ValueError, match=told):
            evaluation.evaluate("efficientnet_lite0", "grad_cam", "x.csv", place / "never", **more)
    with pytest.raises(ValueError, match="address is like tcp://host:8786, not '127.0.0.1'"):
        run(place, place / "never.parquet", scheduler="127.0.0.1")
    for techniques, told in (
        ("", "say which techniques"),
        ("gradcam", "no technique is called 'gradcam'; nearest: grad_cam$"),
        ("zzz", r"no technique is called 'zzz'; there are \d+, such as saliency, "),
        ("rise:mask=3", "rise has no setting 'mask'; nearest: masks$"),
        ("rise:x=3", "rise has no setting 'x'; there are masks, grid, "),
        ("rise:masks", "setting masks has no value"),
        ("cam cam", "cam is given twice"),
        ("rise:masks=many", "rise: masks is a whole number below 2\\*\\*31, not 'many'"),
        ("rise:masks=4,grid=2.5", "grid is a whole number"),
        ("smooth_grad:samples=None", "samples is a whole number"),
        ("rise:seed=99999999999", "seed is a whole number"),
        ("rise:keep=half", "rise: keep is a number, not 'half'"),
    ):
        with pytest.raises(ValueError, match=told):
            attribution.parse(techniques)
    text = "rise:masks=9,keep=0.2"
    assert attribution.parse(text)[text] == ["rise", {"masks": 9, "keep": 0.2}]


def test_names_lose_their_settings_unless_they_would_be_the_same():
    given = ["cam", "rise:masks=9", "grad_cam", "grad_cam:layer=x"]
    assert attribution.short_names(given) == ["cam", "rise", "grad_cam", "grad_cam:layer=x"]


BOXED = "path,label,x_min,y_min,x_max,y_max\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path,class\na.png,1", "m.csv has no column 'label'; it has: path, class"),
        ("", "no column 'path'; it has: nothing"),
        ("path;label\ncat;281", "it has: path;label (commas separate columns)"),
        ("path,label\n", "m.csv lists no pictures"),
        (
            "path,label\ncat,281\nhound,lion king",
            "line 3: no class is called 'lion king'; nearest: limpkin, lion",
        ),
        ("path,label\ncat,1000", "line 2: class 1000 is out of range"),
        ("path,label\ncat,281\nhound,243\ncat,281", "line 4: cat is listed already, in line 2"),
        (f"{BOXED}cat,281,1,2,3,4\ncat,282,5,5,9,9", "line 3: cat is listed already, in line 2"),
        (f"{BOXED}cat,281,1,2,3,4\ncat,281,1,2,3,4.0", "line 3: cat is listed already, in line 2"),
        (f"{BOXED}cat,281,1,2,3,4\ncat,281,,,,", "a second line gives another box with the same"),
        ("path,label\ncat", "line 2: 2 columns are needed"),
        ("path,label\n ,3", "line 2: the path is empty"),
        ("path,label,x_min\ncat,281,4", "no column 'y_min'"),
        (
            "path,label,x_min,y_min,x_max,y_max\ncat,281,1,2,3,x",
            "four numbers or nothing, not '1', '2', '3', 'x'",
        ),
        ("path,label,x_min,y_min,x_max,y_max\ncat,281,5,2,5,9", "is empty: x_min < x_max"),
        (
            "path,label,x_min,y_min,x_max,y_max\ncat,281,0,0,452,9",
            "reaches outside the picture, 451 x 300 pixels",
        ),
    ],
)
def test_a_bad_manifest_is_one_clear_line(tmp_path, text, told):
    from xai_utils.models import class_index, imagenet_labels, imagenet_wnids

    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_manifest(path, lambda name: class_index(name, imagenet_labels(), imagenet_wnids()))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_picture_is_looked_for_beside_the_manifest_only(place, tmp_path, monkeypatch):
    (tmp_path / "m.csv").write_text("path,label\npicture 1.png,1\ncat,2\n")
    monkeypatch.chdir(place)  # where there is a picture of that name
    rows = read_manifest(tmp_path / "m.csv", int)
    assert [row.file for row in rows] == [str(tmp_path / "picture 1.png"), "cat"]


def test_a_label_is_an_index_a_wordnet_id_or_a_name(tmp_path):
    from xai_utils.models import class_index, imagenet_labels, imagenet_wnids

    path = tmp_path / "m.csv"
    path.write_text(
        "\ufeffpath, label\ncat,281\nhound,n02108422\njeep,Bull Mastiff\ndrum,541.0\n",
        encoding="utf-8",
    )
    rows = read_manifest(path, lambda name: class_index(name, imagenet_labels(), imagenet_wnids()))
    assert [row.label for row in rows] == [281, 243, 243, 541] and rows[0].boxes == ()
    assert digest(rows) != digest(rows[:2]) and len(digest(rows)) == 16


def test_where_classes_are_called_by_digits_a_label_is_a_name(tmp_path):
    from xai_utils.models import class_index

    path = tmp_path / "m.csv"
    path.write_text("path,label\ncat,2\nhound,0.0\ndrum,3\n")
    rows = read_manifest(path, lambda name: class_index(name, ("2", "1", "0", "dog")))
    assert [row.label for row in rows] == [0, 2, 3], "3 is nobody's name"


def test_a_picture_may_have_several_boxes(place, tmp_path):
    lines = ["picture 1.png,1,0,0,10,20", "picture 2.png,2,,,,", "./picture 1.png,1,30,30,60,50"]
    (place / "boxes.csv").write_text(BOXED + "\n".join(lines))
    rows = read_manifest(place / "boxes.csv", int)
    assert [(row.number, row.path) for row in rows] == [(0, "picture 1.png"), (1, "picture 2.png")]
    assert rows[0].boxes == ((0, 0, 10, 20), (30, 30, 60, 50)) and rows[1].boxes == ()
    assert digest(rows) != digest([rows[0]._replace(boxes=rows[0].boxes[:1]), rows[1]])
    net = models.load_model(str(place / "net.keras"), **QUICK["model_options"])
    expected = np.zeros((50, 60), bool)
    expected[:20, :10] = expected[30:, 30:] = True
    np.testing.assert_array_equal(scoring.object_mask(rows[0], net), net.prepare_mask(expected))


def test_a_map_may_point_a_little_beside_the_object(place, tmp_path, monkeypatch):
    def corner(model, images, target=None):  # points to the picture's first row and column
        maps = np.zeros(images.shape[:3], np.float32)
        maps[:, 0, 0] = 1
        return maps

    monkeypatch.setitem(attribution.METHODS, "corner", corner)
    # 50 x 60 pixels, squeezed to 32 x 32: the nearest box of the first is 12 pixels away, of the
    # second 25. The first has two boxes.
    lines = [
        "picture 1.png,1,40,40,50,50",
        "picture 2.png,2,25,0,60,50",
        "picture 1.png,1,0,12,9,40",
    ]
    (place / "near.csv").write_text(BOXED + "\n".join(lines))

    def pointing(metrics, **given):
        out = tmp_path / f"{metrics[-2:]}{len(given)}"
        given |= {"model_options": {**QUICK["model_options"], "resizing": "stretch"}}
        file = str(place / "net.keras")
        table = evaluation.read(
            evaluation.evaluate(file, "corner", place / "near.csv", out, metrics=metrics, **given)
        )
        rows = table.to_pylist()
        return [row["pointing"] for row in rows if row["technique"] == "corner"]

    assert pointing("localisation") == [0, 0]
    assert pointing("localisation:tolerance=15") == [1, 0]
    assert pointing("localisation", tolerance=30) == [1, 1]
    for wrong, told in (
        ("localisation:tolerance=-1", "tolerance must be 0 or more pixels, not -1"),
        ("localisation:tolerance=wide", "tolerance is a number, not 'wide'"),
        ("localisation:near=3", "only localisation has a setting, tolerance=15; got 'local"),
        ("drop:tolerance=3", "only localisation has a setting, tolerance=15; got 'drop:tol"),
    ):
        with pytest.raises(ValueError, match=told):
            pointing(wrong)


def test_pictures_are_read_ahead_in_their_order(place, monkeypatch):
    events, read, measure = [], scoring._read, scoring._measure

    def reads(classifier, rows):
        events.append(("read", rows[0].number))
        return read(classifier, rows)

    def measures(plan, techniques, classifier, rows, *rest):
        if rows[0].number < 6:  # there is one more chunk
            wait_for(lambda: ("read", rows[0].number + 3) in events)
        events.append(("measured", rows[0].number))
        return measure(plan, techniques, classifier, rows, *rest)

    monkeypatch.setattr(scoring, "_read", reads)
    monkeypatch.setattr(scoring, "_measure", measures)
    steps = []
    out = place / "ahead.parquet"
    run(place, out, metrics=["drop"], at_once=3, step_done=lambda *step: steps.append(step))
    assert events[:3] == [("read", 0), ("read", 3), ("measured", 0)] and len(events) == 6
    assert [number for kind, number in events if kind == "read"] == [0, 3, 6]
    techniques = [*TECHNIQUES.split(), *attribution.FLOORS, "drop"]
    counts = [count for name, count in steps if name == "drop"]
    assert [name for name, _ in steps] == 3 * techniques and sum(counts) == PICTURES


@pytest.fixture
def class_folders(tmp_path):
    """Called so that Keras' order is another than that of the letters in small."""
    files = ("b/2.PNG", "b/1.jpg", "Zebra/z.png", "a cat/deep/er/x.bmp", "a cat/w.png")
    passed_over = ("top.png", ".hidden/x.png", "b/.x.png", "b/notes.txt", "b/.old/x.png")
    for name in (*files, *passed_over):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "set" / name, "PNG")
    (tmp_path / "set" / "empty").mkdir()
    return tmp_path / "set"


def as_called(*names):
    return lambda name: models.class_index(name, names)


def test_a_folder_of_class_folders_is_a_manifest(class_folders):
    rows = read_manifest(class_folders, as_called("empty", "B", "a_cat", "other", "zebra"))
    assert [(row.path, row.label) for row in rows] == [
        ("Zebra/z.png", 4),
        ("a cat/w.png", 2),
        ("a cat/deep/er/x.bmp", 2),
        ("b/1.jpg", 1),
        ("b/2.PNG", 1),
    ]
    assert [row.number for row in rows] == list(range(5)) and not any(row.boxes for row in rows)
    assert all(Path(row.file).is_file() for row in rows)


def test_classes_without_names_are_the_folders_in_the_order_of_keras(class_folders):
    rows = read_manifest(class_folders, as_called(*(f"class {i}" for i in range(4))))
    shutil.rmtree(class_folders / "b" / ".old")  # Keras takes these two
    (class_folders / "b" / ".x.png").unlink()
    keras_set = keras.utils.image_dataset_from_directory(
        class_folders, shuffle=False, batch_size=None, verbose=False
    )
    assert [row.file for row in rows] == keras_set.file_paths
    assert [row.label for row in rows] == [int(label) for _, label in keras_set]


def test_folders_called_by_numbers(tmp_path):
    for number in range(11):
        (tmp_path / str(number)).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / str(number) / "x.png")
    with pytest.raises(ValueError, match="/10: is it class 10, as it is called, or 2, as Keras"):
        read_manifest(tmp_path, as_called(*(f"class {i}" for i in range(11))))
    called = as_called(*map(str, range(11)))
    as_sorted = as_called(*models.read_labels(tmp_path))
    for names, ten in ((called, 10), (as_sorted, 2)):
        labels = {row.path: row.label for row in read_manifest(tmp_path, names)}
        assert labels["10/x.png"] == ten and len(labels) == 11
    # of more classes than folders, only the number can be meant
    more = read_manifest(tmp_path, as_called(*(f"class {i}" for i in range(12))))
    assert {row.path: row.label for row in more}["10/x.png"] == 10


def test_a_folder_that_is_no_manifest_is_one_clear_line(class_folders):
    for names, told in (
        (
            ("a cat", "b", "zebra"),
            "set/empty: no class is called 'empty'; there are a cat, b, zebra$",
        ),
        ([f"class {i}" for i in range(5)], "has 4 class folders, but the network has 5 classes"),
    ):
        with pytest.raises(ValueError, match=told) as caught:
            read_manifest(class_folders, as_called(*names))
        assert "\n" not in str(caught.value)
    (class_folders / "empty" / "one").mkdir()
    with pytest.raises(ValueError, match="the class folders of empty hold no pictures"):
        read_manifest(class_folders / "empty", as_called("one"))
    with pytest.raises(ValueError, match="deep.er has no class folders"):
        read_manifest(class_folders / "a cat" / "deep" / "er", as_called("one"))


def test_make_evaluate(place):
    def make(*words):
        command = ["make", "-s", f"PY={sys.executable}", "evaluate", *words]
        return subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    assert finish(make(), code=2).startswith("make evaluate: say MANIFEST=pictures.csv")
    given = [
        f"{name}={place}/{file}"
        for name, file in (
            ("MODEL", "net.keras"),
            ("MANIFEST", "pictures.csv"),
            ("OUT", "made.parquet"),
        )
    ]
    given.append("PREPROCESSING=unit")
    given.append("TASK=classification")
    output = finish(make(*given, "TECHNIQUES=saliency random", "METRICS=drop localisation"))
    assert (
        "[7/7] pictures" in output
        and "rows without numbers: 1\n  broken.jpg: 'broken.jpg' is" in output
    )
    assert (
        evaluation.summary(evaluation.read(place / "made.parquet"))["centre"]["drop"][2] == PICTURES
    )
    assert f"means (standard errors) over {PICTURES} pictures, of mass_share over 3" in output
    output = finish(make(*given, "TECHNIQUES=saliency"), code=2)
    assert output.splitlines()[0].startswith(
        "make evaluate: made.parquet holds results of metrics drop localisation, not deletion"
    )


def test_make_evaluate_takes_a_folder_and_what_it_says_about_the_network(
    tmp_path, monkeypatch, capsys
):
    keras.utils.set_random_seed(0)
    free = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3, activation="relu", name="early"),
            keras.layers.Conv2D(4, 3, activation="relu", name="late"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    free.save(tmp_path / "free.keras")
    for name in ("dog/1.png", "cat/2.png"):
        (tmp_path / "animals" / name).parent.mkdir(parents=True)
        Image.new("RGB", (60, 40), name[:3].replace("dog", "red").replace("cat", "blue")).save(
            tmp_path / "animals" / name
        )
    monkeypatch.chdir(tmp_path / "animals")
    monkeypatch.setenv("PWD", str(tmp_path / "animals"))
    (tmp_path / "names.txt").write_text("0 dog\n1 cat\n")
    for name, value in {
        "MANIFEST": ".",
        "TECHNIQUES": "grad_cam",
        "MODEL": "../free.keras",
        "METRICS": "drop",
        "PREPROCESSING": "unit",
        "LABELS": "../names.txt",
        "RESIZING": "pad",
        "SIZE": "24x32",
        "LAYER": "early",
    }.items():
        monkeypatch.setenv(name, value)
    assert command.main() == 0
    assert "the results are in results/animals--free.parquet" in capsys.readouterr().out
    table = evaluation.read("results/animals--free.parquet").to_pylist()
    assert {row["path"]: row["label"] for row in table} == {"cat/2.png": 1, "dog/1.png": 0}
    options = {
        "preprocessing": "unit",
        "labels": str(tmp_path / "names.txt"),
        "resizing": "pad",
        "size": [24, 32],
        "layer": "early",
    }
    made = evaluation.read_about("results/animals--free.parquet")["plan"]["model_options"]
    assert made == options
    net = models.load_model("../free.keras", **options)
    for row in table:
        answer = net.predict(net.prepare(row["path"]))[0]
        assert row["probability"] == pytest.approx(answer.max(), abs=1e-6)
        assert row["top"] == answer.argmax()
    shutil.rmtree("results")  # no class of animals
    monkeypatch.chdir(tmp_path)  # the checkout; it is typed in `animals`
    monkeypatch.setenv("OUT", "../mine")
    monkeypatch.setenv("METRICS", "drop localisation:tolerance=15")
    assert command.main() == 0
    said = capsys.readouterr().out
    assert "no localisation: the manifest says of no picture where the object is" in said
    assert "the results are in ../mine" in said and (tmp_path / "mine").is_dir()
    assert evaluation.read_about(tmp_path / "mine")["plan"]["tolerance"] == 15
    monkeypatch.setenv("SIZE", "24,32")
    assert command.main() == 1
    assert "SIZE is a side, or height and width, such as 224 or 48x96" in capsys.readouterr().err


def test_output_that_nobody_reads_any_more_ends_quietly():
    code = """
import sys
from xai_suite.evaluation import command
command._evaluate = lambda ask: command._Progress()(0, 5)
sys.exit(command.main())
"""
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MANIFEST": "x", "TECHNIQUES": "x"},
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_reasons_are_counted():
    gone = [(f"{i}.png", None, f"no picture at '{i}.png'") for i in range(3)]
    odd = [("4.png", "rise", "not this one")]
    assert command.errors_text(gone).splitlines() == [
        "rows without numbers: 3",
        "  0.png: no picture at '0.png'; the same of 1.png; 2.png",
    ]
    assert command.errors_text(odd + gone).splitlines() == [
        "rows without numbers: 4",
        "  0.png: no picture at '0.png'; the same of 1.png; 2.png",
        "  4.png, rise: not this one",
    ]
    many = [("5.png", "rise", f"reason {i}") for i in range(9)]
    assert command.errors_text(3 * gone).splitlines()[1:] == [
        "  0.png: no picture at '0.png'; the same of 1.png; 2.png; 0.png; 1.png; 4 more"
    ]
    assert command.errors_text(gone + many).splitlines()[-2:] == [
        "  5.png, rise: reason 3",
        f"  and {10 - command.MOST_REASONS} reasons more",
    ]


def test_inside_a_long_chunk_the_estimate_learns(monkeypatch, capsys):
    clock = iter([0, 4, 40, 80, 90, 96, 120, 130, 140])
    monkeypatch.setattr(command.time, "monotonic", lambda: next(clock))
    progress = command._Progress()
    progress(0, 40)
    progress.step("grad_cam", 8)  # 4 s with compiling
    progress.step("rise", 8)  # 36 s
    progress.step("drop", 8)  # 40 s
    progress(8, 40)
    progress.step("grad_cam", 8)  # 6 s, as it took 10 s between
    progress.step("rise", 8)  # 24 s
    progress.step("drop", 8)  # 10 s: 40 s a chunk
    progress(16, 40)
    assert capsys.readouterr().out.splitlines() == [
        "[ 0/40] pictures  the next few take longer than the rest",
        "[ 0/40] pictures  00:40 elapsed; rise done",
        "[ 0/40] pictures  01:20 elapsed; drop done",
        "[ 8/40] pictures  01:30 elapsed, less than 05:20 left",
        "[ 8/40] pictures  02:00 elapsed, less than 04:40 left; rise done",
        "[ 8/40] pictures  02:10 elapsed, about 02:40 left; drop done",
        "[16/40] pictures  02:20 elapsed, about 02:00 left",
    ]


def test_the_time_that_is_left_is_said_from_the_second_chunk_on(monkeypatch, capsys):
    clock = iter([0, 100, 101, 120, 140, 300])
    monkeypatch.setattr(command.time, "monotonic", lambda: next(clock))
    progress = command._Progress()
    # The first eight take 100 s, eight more come with them, and then each eight 20 s.
    for done in (8, 16, 24, 32, 40, 72):
        progress(done, 72)
    assert capsys.readouterr().out.splitlines() == [
        "[ 8/72] pictures  8 were there already, the next few take longer than the rest",
        "[16/72] pictures  01:40 elapsed",
        "[24/72] pictures  01:41 elapsed",
        "[32/72] pictures  02:00 elapsed, about 00:50 left",
        "[40/72] pictures  02:20 elapsed, about 00:53 left",
        "[72/72] pictures  05:00 elapsed",
    ]


def test_make_evaluate_takes_names_as_they_were_typed(project, place):
    odd = 'it\'s "my" $net; & `x` #1'
    shutil.copy2(place / "net.keras", project.folder / f"{odd}.keras")
    (project.folder / "data").mkdir()
    shutil.copy2(ROOT / "data" / "imagenet_classes.json", project.folder / "data")
    lines = (place / "pictures.csv").read_text().replace("picture", f"{place}/picture").splitlines()
    (project.folder / f"{odd}.csv").write_text("\n".join(lines[:2]))
    (project.folder / f"{odd}.txt").write_text("\n".join(f"class {i}" for i in range(5)))

    def make(*words):
        given = [
            f"MODEL={odd}.keras",
            f"MANIFEST={odd}.csv",
            "PREPROCESSING=unit",
            "TASK=classification",
            "METRICS=drop",
        ]
        return project.make("-s", "evaluate", "TECHNIQUES=random", *given, *words)

    output = finish(make(f"OUT=new folder/{odd}", f"LABELS={odd}.txt"))
    assert f"the results are in new folder/{odd}" in output
    assert evaluation.read(project.folder / "new folder" / odd).num_rows == len(attribution.FLOORS)
    (project.folder / "results").write_text("where the folder should be")
    output = finish(make(), code=2).splitlines()[0]
    assert output == (
        f"make evaluate: results/{odd}--{odd}.parquet cannot be written (Not a directory): give"
        " another place with out= (OUT= of make evaluate)"
    )
