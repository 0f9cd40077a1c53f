"""Score techniques over any number of pictures, with results that survive a kill.

Pictures are read, explained and measured in chunks, on one machine or on a Dask cluster. A chunk
depends on nothing but its rows and the plan, so it gives the same numbers wherever it is computed;
what is finished is never computed again.
"""

import functools
import hashlib
import json
import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

from xai_suite.evaluation.cluster import on_cluster
from xai_suite.evaluation.manifest import Row, digest, read_manifest
from xai_suite.evaluation.results import Results
from xai_utils import __version__, metrics, models, pictures, tf
from xai_utils.attribution import FLOORS, METHODS, parse, undefined_for
from xai_utils.engine import first_line, nearest
from xai_utils.models import logits_of

NAMES = ("imagenet", *models.EMBEDDED, *models.APPLICATIONS)  # never meant as files
GROUPS = ("deletion", "insertion", "drop", "infidelity", "sensitivity", "road", "localisation")
FAILURES = (ValueError, tf.errors.OpError)  # of a technique on some picture: its row says so

# A worker may have several threads; layers are watched while a function is traced.
_ONE_AT_A_TIME = threading.Lock()


def evaluate(
    model: str,
    techniques: str | Sequence[str],
    manifest,
    out,
    *,
    scheduler: str | None = None,
    metrics: str | Sequence[str] = GROUPS,
    explain: str = "top",
    step: float = 0.05,
    fills: str | Sequence = ("black", "blur"),
    squares: int = 32,
    copies: int = 2,
    shares: Sequence[float] = (0.2, 0.5, 0.8),
    tolerance: float = 0.0,
    at_once: int = 8,
    model_options: dict | None = None,
    progress: Callable[[int, int], None] | None = None,
    step_done: Callable[[str, int], None] | None = None,
) -> Path:
    """Measure techniques on every picture of a manifest.

    What is there already is not measured again: an earlier call with the same values that was
    stopped is gone on with, and techniques may be added; `read` gives those of the last call that
    was not refused or stopped.
    Random, centre and edge-detector maps are always measured beside the techniques.

    Args:
        model: name or file for `models.load_model`; `model_options` are its other arguments.
        techniques: names of `attribution.TECHNIQUES`, each with settings if wished,
            `rise:masks=500,grid=7`; in a list or in one string with spaces between; `all` for all
            that the network can be explained by, see `attribution.undefined_for`.
        manifest: CSV file; see `evaluation.read_manifest`.
        out: folder of the results, by custom `*.parquet`; `evaluation.read` reads it.
        scheduler: address of a Dask scheduler, such as `tcp://host:8786`; default this process.
            Workers need this package and see the pictures at the same paths.
        metrics: of `GROUPS`, in a list or in one string with spaces between; the values of a
            regression have no `drop`. `localisation:tolerance=15` sets `tolerance` as well.
        explain: `top`, the network's answer, or `label`, the manifest's.
        step: of `metrics.deletion_and_insertion`.
        fills: of deletion and of insertion, as `pictures.filling` takes them.
        squares: samples of `metrics.infidelity`, which is scaled.
        copies: noisy pictures for `metrics.max_sensitivity`; each costs every technique once more.
        shares: of `metrics.road`.
        tolerance: how far beside the object a map may point, in pixels of the whole picture as
            boxes are; the pointing game's paper takes 15 of pictures of some 500 x 375.
        at_once: pictures in one chunk, which is what a kill loses at most. Nothing is kept before
            that many were measured; see below.
        progress: called with the numbers of finished and of all pictures, after each chunk.
        step_done: called inside a chunk that is computed in this process, after each technique and
            metric, with its name and the number of pictures.

    Returns:
        The folder of the results. A picture that cannot be read, or a map that cannot be made, is a
        row with its `error`.

    Raises:
        ValueError, FileNotFoundError: a bad manifest, model, technique or setting, or results of
            other values. A bad setting may be noticed by what comes of it only: a technique with
            settings that failed for one reason on each of the first `at_once` pictures that could
            be read (or of all, if there are fewer) stops the run, and nothing of it is kept. One
            without settings does not fit the network: its rows say so, and the others go on; only
            if all that were asked for fail like that, the run is stopped as well.
        ConnectionError: no scheduler at that address, or no worker.
        OSError: the folder of the results cannot be written.
        RuntimeError: workers that died of the same pictures again and again.
    """
    metrics, said = _metrics_asked(metrics)
    tolerance, model_options = said.get("tolerance", tolerance), _options(model_options)
    asked = _names(techniques, "techniques")
    plan = {
        "model": _model_name(model),
        "model_options": model_options,
        "techniques": parse(asked),
        "left_out": {},
        "metrics": [name for name in GROUPS if name in metrics],
        "explain": explain,
        "step": _number(step, "step"),
        "fills": _fills(fills),
        "squares": _count(squares, "squares"),
        "copies": _count(copies, "copies"),
        "shares": [_number(share, "each of shares") for share in _items(shares, "shares", "0.2")],
        "tolerance": _number(tolerance, "tolerance"),
        "at_once": _count(at_once, "at_once"),
        "version": __version__,
    }
    if not metrics or (unknown := [name for name in metrics if name not in GROUPS]):
        name = unknown[0] if metrics else ""
        raise ValueError(f"no metric is called {name!r}; {nearest(name, GROUPS, 1)}")
    if explain not in ("top", "label"):
        raise ValueError(f"explain must be top or label, not {explain!r}")
    if not 0 <= plan["tolerance"] < np.inf:
        raise ValueError(f"tolerance must be 0 or more pixels, not {tolerance}")
    if min(at_once, copies) < 1:
        raise ValueError(f"at_once and copies must be at least 1, not {at_once} and {copies}")
    name = Path(plan["model"]).name
    # A worker stands in another folder: files are sent with their whole path.
    plan["model"] = _whole(plan["model"])
    plan["model_options"] = {
        name: _whole(value) if name in ("labels", "weights") else value
        for name, value in model_options.items()
    }
    classifier, plan["weights"] = _classifier_of(plan)
    if classifier.dense:
        raise ValueError(
            f"{Path(model).name} answers at every pixel; evaluate measures one answer a picture:"
            " metrics.deletion and its kin take a region as target, see 53_segmentation"
        )
    rows = read_manifest(manifest, classifier.class_index)
    if asked == ["all"]:
        plan["left_out"] = _left_out(classifier, plan["techniques"])
        for technique in plan["left_out"]:
            del plan["techniques"][technique]
    about = {**plan, "model": name, "model_options": model_options, "task": classifier.task}
    results = Results(out, {"plan": about, "manifest": digest(rows)})
    missing = {}
    for number, first in enumerate(range(0, len(rows), at_once)):
        if techniques := results.missing(number, plan["techniques"]):
            missing[number] = Chunk(rows[first : first + at_once], techniques)
    if scheduler:
        parts = on_cluster(scheduler, functools.partial(evaluate_chunk, plan), missing)
    else:
        parts = _here(plan, missing, step_done)
    if len(missing) == len(range(0, len(rows), at_once)):
        parts = _without_the_hopeless(iter(parts), at_once, {*plan["techniques"]})
    done = len(rows) - sum(len(chunk.rows) for chunk in missing.values())
    if progress:
        progress(done, len(rows))
    for number, measured in parts:
        results.write(number, missing[number].techniques, measured)
        done += len(missing[number].rows)
        if progress:
            progress(done, len(rows))
    results.finish()
    return results.folder


def _left_out(classifier: models.Classifier, techniques: Iterable[str]) -> dict[str, str]:
    """Why the network cannot be explained by some of the techniques, by name."""
    shape = (1, *classifier.input_size, classifier.channels)
    with _ONE_AT_A_TIME:
        return undefined_for(
            classifier.model, shape, [name for name in techniques if name not in FLOORS]
        )


class Chunk(NamedTuple):
    """What is computed at once: techniques on some pictures."""

    rows: list[Row]
    techniques: list[str]


def _here(plan: dict, chunks: dict, step_done: Callable | None) -> Iterator[tuple]:
    """`(number, rows)` of each chunk; the next one's pictures are read during its passes."""
    waiting = iter(chunks.items())
    with ThreadPoolExecutor(1) as reader:

        def ahead():
            number, chunk = next(waiting, (None, None))
            return (
                number,
                chunk,
                chunk and reader.submit(_read, _classifier_of(plan)[0], chunk.rows),
            )

        number, chunk, reading = ahead()
        while chunk:
            pictures_read, following = reading.result(), ahead()
            yield number, evaluate_chunk(plan, chunk, pictures_read, step_done)
            number, chunk, reading = following


# --- what was asked for ---------------------------------------------------------------------------


def _items(given, name: str, example: str) -> list:
    """What stands in a sequence, or the words of a text."""
    if isinstance(given, str):
        return given.split()
    if not isinstance(given, Iterable):
        raise ValueError(f"{name} is a list, such as [{example}], not {given!r}")
    return [*given]


def _metrics_asked(given) -> tuple[list[str], dict[str, str]]:
    """Names of metrics, and what was said about them: `localisation:tolerance=15`."""
    names, said = [], {}
    for text in _names(given, "metrics"):
        name, _, setting = text.partition(":")
        key, _, value = setting.partition("=")
        if setting and (name, key) != ("localisation", "tolerance"):
            raise ValueError(f"only localisation has a setting, tolerance=15; got {text!r}")
        names.append(name)
        if setting:
            said[key] = value
    return names, said


def _names(given, name: str) -> list[str]:
    names = _items(given, name, "'deletion'" if name == "metrics" else "'grad_cam'")
    for item in names:
        if not isinstance(item, str):
            raise ValueError(f"{name} holds names, not {item!r}")
    return names


def _fills(given) -> list:
    fills = _items(given, "fills", "'black', 'blur'")
    if len(fills) != 2:
        raise ValueError(
            "fills are two, one for deletion and one for insertion, such as 'black blur', not"
            f" {given!r}"
        )
    return [fill if isinstance(fill, str) else np.asarray(fill).tolist() for fill in fills]


def _number(given, name: str) -> float:
    try:
        return float(given)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is a number, not {given!r}") from None


def _count(given, name: str) -> int:
    try:
        return operator.index(given)
    except TypeError:
        raise ValueError(f"{name} is a whole number, not {given!r}") from None


def _options(given) -> dict:
    if not isinstance(given or {}, dict):
        raise ValueError(
            "model_options are arguments of load_model by name, such as {'preprocessing': 'unit'},"
            f" not {given!r}"
        )
    return {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in (given or {}).items()
    }


def _model_name(given) -> str:
    try:
        return os.fspath(given)
    except TypeError:
        raise ValueError(
            f"model is a name or a file, which every worker can load, not a {type(given).__name__}"
        ) from None


def _whole(value):
    """The whole path of a file or folder; anything else as it is."""
    if not isinstance(value, str) or value in NAMES:
        return value
    file = Path(value).expanduser()
    return str(file.resolve()) if file.exists() else value


# --- techniques that cannot succeed ---------------------------------------------------------------


def _without_the_hopeless(parts: Iterator[tuple], at_once: int, asked: set[str]) -> Iterator[tuple]:
    """The same parts, the first ones held back until a technique that always fails would show.

    So nothing of a run that is refused is written, and the corrected one finds its folder empty.
    `asked` holds also what was measured before.
    """
    held, measured, unmeasured = [], [], []
    for number, rows in parts:
        held.append((number, rows))
        measured += [row for row in rows if "technique" in row]
        unmeasured += [row for row in rows if "unmeasured" in row]
        if len({row["number"] for row in measured}) + len(unmeasured) >= at_once:
            break
    if unmeasured and not measured:
        raise ValueError(
            f"no picture of {len(unmeasured)} can be measured: {unmeasured[0]['error']}"
        )
    _refuse_the_hopeless(measured, asked)
    yield from held
    yield from parts


def _refuse_the_hopeless(rows: list[dict], asked: set[str]) -> None:
    """`ValueError` if a technique with settings, or all asked for, failed on all for one reason."""
    reasons = {}
    for row in rows:
        reasons.setdefault(row["technique"], set()).add(row.get("error"))
    hopeless = {
        technique: next(iter(said))
        for technique, said in reasons.items()
        if len(said) == 1 and None not in said
    }
    all_fail = asked <= {*hopeless, *FLOORS}
    for technique, reason in hopeless.items():
        if ":" in technique or all_fail:
            raise ValueError(f"{technique} fails on every picture: {reason}")


# --- one chunk, here or on a worker ---------------------------------------------------------------


class _Pictures(NamedTuple):
    """The pictures of a chunk."""

    rows: list[Row]  # of those that could be read
    images: list[np.ndarray]  # (h, w, c) each, as the network takes them
    unreadable: list[dict]  # rows of the results


def evaluate_chunk(
    plan: dict, chunk: Chunk, given: _Pictures | None = None, step_done: Callable | None = None
) -> list[dict]:
    """Rows of the results for some pictures.

    There is one for a picture and technique, and one for a picture that could not be read or
    measured, with the reason.

    Args:
        given: the pictures, if they were read before.
        step_done: see `evaluate`.
    """
    if plan["version"] != __version__:
        raise RuntimeError(
            f"a worker has xai_utils {__version__}, the evaluation {plan['version']}: install the"
            " same"
        )
    with _ONE_AT_A_TIME:
        classifier, weights = _classifier_of(plan)
        if weights != plan["weights"]:
            raise RuntimeError(
                f"a worker has other weights of {Path(plan['model']).name} than there were at the"
                " start"
            )
        rows, images, unreadable = given or _read(classifier, chunk.rows)
        measured = []
        if rows:
            told = functools.partial(_told, step_done, len(rows))
            measured = _measured(plan, chunk.techniques, classifier, rows, np.stack(images), told)
    return sorted([*measured, *unreadable], key=lambda row: row["number"])


def _told(step_done: Callable | None, count: int, name: str) -> None:
    if step_done:
        step_done(name, count)


def _read(classifier: models.Classifier, rows: list[Row]) -> _Pictures:
    read = _Pictures([], [], [])
    for row in rows:
        try:
            read.images.append(classifier.prepare(row.file)[0])
            read.rows.append(row)
        except pictures.PictureError as error:
            reason = str(error).replace(repr(row.file), repr(row.path))
            read.unreadable.append({**_which(row), "error": reason})
    return read


def _measured(plan, techniques, classifier, rows, images, told) -> list[dict]:
    """Rows of the results for pictures that could be read.

    A picture of which the network or a metric makes no number has one row, with the reason.
    """
    try:
        return _measure(plan, techniques, classifier, rows, images, told)
    except metrics.NoScoreError as error:
        if len(rows) == 1:
            return [{**_which(rows[0]), "error": first_line(error), "unmeasured": True}]
    # One picture may have spoilt it for all. What is told is how far these pictures are.
    of_each = (
        _measured(plan, techniques, classifier, [row], image[None], lambda name: None)
        for row, image in zip(rows, images)
    )
    return [row for of_one in of_each for row in of_one]


def _which(row: Row) -> dict:
    return {"number": row.number, "path": row.path, "label": row.label}


def _measure(plan, techniques, classifier, rows, images, told) -> list[dict]:
    """Rows of the results, if every picture and changed picture has a finite score."""
    logits = logits_of(classifier.model, images).astype(np.float64)
    probabilities = models.probabilities(classifier.model, logits).numpy()
    top = logits.argmax(axis=1)
    target = top if plan["explain"] == "top" else np.array([row.label for row in rows])
    whole = [scores[np.arange(len(rows)), target] for scores in (logits, probabilities)]
    if not np.isfinite([*whole, probabilities.sum(axis=1)]).all():
        raise metrics.NoScoreError("the network answers it with NaN or infinity")
    explained = {}
    for text in techniques:
        name, settings = plan["techniques"][text]
        explained[text] = _explained(
            plan, METHODS[name], settings, classifier.model, images, target
        )
        told(text)
    maps = {text: explanation.maps for text, explanation in explained.items()}
    numbers = _metrics(plan, classifier, rows, images, target, *whole, maps, told)
    if "sensitivity" in plan["metrics"]:
        for text, explanation in explained.items():
            numbers[text]["sensitivity"] = explanation.sensitivity
    return [
        {
            **_which(row),
            "technique": text,
            "top": top[i],
            "explained": target[i],
            "probability": probabilities[i, target[i]],
            **(
                {"error": explained[text].errors[i]}
                if i in explained[text].errors
                else {name: values[i] for name, values in numbers[text].items()}
            ),
        }
        for i, row in enumerate(rows)
        for text in maps
    ]


class _Explanation(NamedTuple):
    """What one technique made of the pictures of a chunk."""

    maps: np.ndarray  # (N, H, W), of the pictures' size; zeros where there is none
    sensitivity: np.ndarray  # (N,); nan where it is not asked for, or there is no map
    errors: dict[int, str]  # place in the chunk to the reason why there is no map


def _explained(plan, method, settings, model, images, target) -> _Explanation:
    run = functools.partial(_one_batch, plan, functools.partial(method, **settings), model)
    try:
        return _Explanation(*run(images, target), {})
    except FAILURES:
        pass  # one picture may have spoilt it for all
    maps = np.zeros(images.shape[:3], np.float32)
    sensitivity, errors = np.full(len(images), np.nan), {}
    for i in range(len(images)):
        one = slice(i, i + 1)
        try:
            maps[one], sensitivity[one] = run(images[one], target[one])
        except FAILURES as error:
            errors[i] = first_line(error)
    return _Explanation(maps, sensitivity, errors)


def _one_batch(plan, method, model, images, target) -> tuple[np.ndarray, np.ndarray]:
    """Maps of the pictures' size `(N, H, W)`, and their max-sensitivity `(N,)` if it is asked for.

    Raises what the technique raises.
    """
    raw = method(model, images, target)
    sized = metrics.picture_sized(raw, images.shape)
    if "sensitivity" not in plan["metrics"]:
        return sized, np.full(len(images), np.nan)
    return sized, metrics.max_sensitivity(
        method, model, images, target, samples=plan["copies"], maps=raw
    )


def _metrics(
    plan, classifier, rows, images, target, logits, probabilities, maps, told
) -> dict[str, dict]:
    """`{technique: {column: values (N,)}}` of all that is measured on maps as they are."""
    asked, names, maps = plan["metrics"], [*maps], np.stack([*maps.values()])
    model = classifier.model
    columns = {}
    if "deletion" in asked or "insertion" in asked:
        curves = metrics.deletion_and_insertion(
            model, images, maps, target, plan["step"], plan["fills"], whole=probabilities
        )
        for name, curve in zip(("deletion", "insertion"), curves):
            if name in asked:
                columns[name] = curve.area
        told("deletion and insertion")
    if "drop" in asked and classifier.task != "regression":  # whose values have none
        columns |= metrics.average_drop(model, images, maps, target, probabilities)._asdict()
        told("drop")
    if "infidelity" in asked:
        columns["infidelity"] = metrics.infidelity(
            model, images, maps, target, plan["squares"], scaled=True, whole=logits
        )
        told("infidelity")
    if "road" in asked:
        imputed = metrics.road(model, images, maps, target, plan["shares"])
        columns["road_most"] = imputed.most.mean(axis=-1)
        columns["road_least"] = imputed.least.mean(axis=-1)
        told("road")
    if "localisation" in asked:
        masks = [object_mask(row, classifier) for row in rows]
        for name in ("mass_share", "enrichment"):
            columns[name] = [_localised(getattr(metrics, name), mine, masks) for mine in maps]
        near = masks
        if plan["tolerance"]:
            near = [object_mask(row, classifier, plan["tolerance"]) for row in rows]
            near = [None if mask is None else wide for mask, wide in zip(masks, near)]
        columns["pointing"] = [_localised(metrics.pointing, mine, near) for mine in maps]
        told("localisation")
    return {
        technique: {name: values[place] for name, values in columns.items()}
        for place, technique in enumerate(names)
    }


def _localised(score: Callable, maps, masks) -> list[float]:
    """One number a map; nan where nobody said where the object is."""
    return [
        np.nan if mask is None else float(score(values, mask)) for values, mask in zip(maps, masks)
    ]


def object_mask(
    row: Row, classifier: models.Classifier, tolerance: float = 0.0
) -> np.ndarray | None:
    """Where the object is, sized as its picture: bool `(h, w)` from boxes or a drawn scene.

    With a tolerance in pixels of the whole picture what is as near belongs to it. None where
    nobody said, and where the crop has left nothing.
    """
    if row.boxes:
        whole = np.zeros(pictures.load_image(row.file, classifier.channels).shape[:2], bool)
        for left, top, right, bottom in row.boxes:
            whole[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
    elif row.file in pictures.SCENES:
        whole = pictures.load_mask(row.file)
    else:
        return None
    if tolerance:
        whole = distance_transform_edt(~whole) <= tolerance
    mask = classifier.prepare_mask(whole)
    return mask if mask.any() else None


# --- the network ----------------------------------------------------------------------------------


def _classifier_of(plan: dict) -> tuple[models.Classifier, str]:
    """The network of a plan, and a fingerprint of its weights and of what its card says."""
    options = json.dumps(plan["model_options"], sort_keys=True)
    named = [value for value in plan["model_options"].values() if isinstance(value, str)]
    files = [*models.files_of(plan["model"]), *filter(os.path.isfile, named)]
    return _loaded(plan["model"], options, tuple(os.stat(file).st_mtime_ns for file in files))


@functools.lru_cache(1)
def _loaded(name: str, options: str, times: tuple) -> tuple[models.Classifier, str]:
    classifier = models.load_model(name, **json.loads(options))
    if not isinstance(classifier, models.Classifier):
        raise ValueError(f"{name} is a detector; an evaluation takes an image classifier")
    said = [getattr(classifier, key) for key in ("labels", "task", "resizing", "value_range")]
    said += [part.mode for part in classifier.model.layers if isinstance(part, models.Preprocess)]
    said.append(models.fingerprint(classifier.model))
    return classifier, hashlib.sha256(repr(said).encode()).hexdigest()[:16]
