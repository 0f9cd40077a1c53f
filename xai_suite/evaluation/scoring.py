"""Score techniques over any number of pictures, on one machine or on a Dask cluster, with results
that survive a kill.

Pictures are read, explained and measured in chunks. A chunk depends on nothing but its rows and the
plan, so it gives the same numbers wherever it is computed; what is finished is never computed
again.
"""

import functools
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from xai_suite.evaluation.cluster import on_cluster
from xai_suite.evaluation.manifest import Row, digest, read_manifest
from xai_suite.evaluation.results import Results
from xai_utils import __version__, metrics, models, pictures, tf
from xai_utils.attribution import METHODS, parse
from xai_utils.models import logits_of

GROUPS = ("deletion", "insertion", "drop", "infidelity", "sensitivity", "road", "localisation")
FAILURES = (ValueError, tf.errors.OpError)  # of a technique on some picture: its row says so
_ONE_AT_A_TIME = (
    threading.Lock()
)  # a worker may have several threads; layers are watched while a function is traced


def evaluate(
    model: str,
    techniques: str | Sequence[str],
    manifest,
    out,
    *,
    scheduler: str | None = None,
    metrics: Sequence[str] = GROUPS,
    explain: str = "top",
    step: float = 0.05,
    fills: tuple[str, str] = ("black", "blur"),
    squares: int = 32,
    copies: int = 2,
    shares: Sequence[float] = (0.2, 0.5, 0.8),
    at_once: int = 8,
    model_options: dict | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Measure techniques on every picture of a manifest; go on where an earlier call with the same
    values stopped.

    Random, centre and edge-detector maps are always measured beside them.

    Args:
        model: name or file for `models.load_model`; `model_options` are its other arguments.
        techniques: names of `attribution.TECHNIQUES`, each with settings if wished,
            `rise:masks=500,grid=7`; in a list or in one string with spaces between; `all` for all.
        manifest: CSV file; see `manifest.read_manifest`.
        out: folder of the results, by custom `*.parquet`; `results.read` reads it.
        scheduler: address of a Dask scheduler, such as `tcp://host:8786`; default this process.
            Workers need this package and see the pictures at the same paths.
        metrics: of `GROUPS`.
        explain: `top`, the network's answer, or `label`, the manifest's.
        step, fills: of `faithfulness.deletion_and_insertion`.
        squares: samples of `infidelity.infidelity`, which is scaled.
        copies: noisy pictures for `infidelity.max_sensitivity`; each costs every technique once
            more.
        shares: of `road.road`.
        at_once: pictures in one chunk, which is what a kill loses at most.
        progress: called with the numbers of finished and of all pictures, after each chunk.

    Returns:
        The folder of the results. A picture that cannot be read, or a map that cannot be made, is a
        row with its `error`.

    Raises:
        ValueError, FileNotFoundError: a bad manifest, model, technique or setting, or results of
            other values. A bad setting may be noticed in the first chunk only, by a technique that
            fails on every picture of it.
        ConnectionError: no scheduler at that address, or no worker.
        RuntimeError: workers that died of the same pictures again and again.
    """
    plan = {
        "model": os.fspath(model),
        "model_options": model_options or {},
        "techniques": parse(techniques),
        "metrics": [name for name in GROUPS if name in metrics],
        "explain": explain,
        "step": step,
        "fills": [*fills],
        "squares": squares,
        "copies": copies,
        "shares": [*shares],
        "at_once": at_once,
        "version": __version__,
    }
    if not metrics or (unknown := [name for name in metrics if name not in GROUPS]):
        raise ValueError(
            f"no metric is called {unknown[0] if metrics else ''!r}; there are {', '.join(GROUPS)}"
        )
    if explain not in ("top", "label"):
        raise ValueError(f"explain must be top or label, not {explain!r}")
    if min(at_once, copies) < 1:
        raise ValueError(f"at_once and copies must be at least 1, not {at_once} and {copies}")
    about = {**plan, "model": Path(plan["model"]).name}
    # A worker stands in another folder: files are sent with their whole path.
    plan["model"] = _whole(plan["model"])
    plan["model_options"] = {
        k: v if k == "preprocessing" else _whole(v) for k, v in plan["model_options"].items()
    }
    classifier, plan["weights"] = _classifier_of(plan)
    rows = read_manifest(manifest, classifier.class_index)
    results = Results(
        out, {"plan": {**about, "weights": plan["weights"]}, "manifest": digest(rows)}
    )
    chunks = {
        number: rows[i : i + at_once] for number, i in enumerate(range(0, len(rows), at_once))
    }
    missing = {
        number: chunk for number, chunk in chunks.items() if not results.part(number).is_file()
    }
    done = len(rows) - sum(map(len, missing.values()))
    compute = functools.partial(evaluate_chunk, plan)
    finished = (
        on_cluster(scheduler, compute, missing)
        if scheduler
        else ((n, compute(c)) for n, c in missing.items())
    )
    if progress:
        progress(done, len(rows))
    for number, found in finished:
        if not done:
            _refuse_hopeless(found)
        results.write(number, found)
        done += len(chunks[number])
        if progress:
            progress(done, len(rows))
    return results.folder


def evaluate_chunk(plan: dict, rows: list[Row]) -> list[dict]:
    """Rows of the results for some pictures: one a picture and technique, or one with the reason
    why there are none.
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
        good, bad, prepared = [], [], []
        for row in rows:
            try:
                prepared.append(classifier.prepare(row.file)[0])
                good.append(row)
            except pictures.PictureError as error:
                reason = str(error).replace(repr(row.file), repr(row.path))
                bad.append(
                    {"number": row.number, "path": row.path, "label": row.label, "error": reason}
                )
        found = _measure(plan, classifier, good, np.stack(prepared)) if good else []
    return sorted([*found, *bad], key=lambda each: each["number"])


def _measure(plan, classifier, rows, images) -> list[dict]:
    logits = logits_of(classifier.model, images).astype(np.float64)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    top = logits.argmax(axis=1)
    target = top if plan["explain"] == "top" else np.array([row.label for row in rows])
    maps, moved, errors = {}, {}, {}
    for text, (name, settings) in plan["techniques"].items():
        run = functools.partial(
            _explained, plan, functools.partial(METHODS[name], **settings), classifier.model
        )
        try:
            found = [run(images, target)]
        except FAILURES:  # one picture may have spoilt it for all
            found = []
            for i in range(len(rows)):
                try:
                    found.append(run(images[i : i + 1], target[i : i + 1]))
                except FAILURES as error:
                    errors[text, i] = (str(error).splitlines() or ["no reason given"])[0]
                    found.append(
                        (np.zeros((1, *images.shape[1:3]), np.float32), np.full(1, np.nan))
                    )
        maps[text], moved[text] = map(np.concatenate, zip(*found))
    whole = [each[np.arange(len(rows)), target] for each in (logits, probabilities)]
    numbers = _metrics(plan, classifier.model, rows, images, target, *whole, maps)
    if "sensitivity" in plan["metrics"]:
        for text, values in moved.items():
            numbers[text]["sensitivity"] = values
    return [
        {
            "number": row.number,
            "path": row.path,
            "technique": text,
            "label": row.label,
            "top": top[i],
            "explained": target[i],
            "probability": probabilities[i, target[i]],
            **(
                {"error": errors[text, i]}
                if (text, i) in errors
                else {name: v[i] for name, v in numbers[text].items()}
            ),
        }
        for i, row in enumerate(rows)
        for text in maps
    ]


def _refuse_hopeless(rows: list[dict]) -> None:
    """`ValueError` if a technique with settings has failed on every picture of the first chunk for
    the same reason.
    """
    reasons = {}
    for row in rows:
        if ":" in row.get("technique", ""):
            reasons.setdefault(row["technique"], []).append(row.get("error"))
    for technique, each in reasons.items():
        if each[0] and len(set(each)) == 1:
            raise ValueError(f"{technique} fails on every picture: {each[0]}")


def _explained(plan, method, model, images, target) -> tuple[np.ndarray, np.ndarray]:
    """Maps of the pictures' size `(N, H, W)`, and their max-sensitivity `(N,)` if it is asked
    for.
    """
    raw = method(model, images, target)
    sized = metrics.picture_sized(raw, images.shape)
    if "sensitivity" not in plan["metrics"]:
        return sized, np.full(len(images), np.nan)
    return sized, metrics.max_sensitivity(
        method, model, images, target, samples=plan["copies"], maps=raw
    )


def _metrics(plan, model, rows, images, target, logits, probabilities, maps) -> dict[str, dict]:
    """`{technique: {column: values (N,)}}` of all that is measured on maps as they are."""
    asked, names, maps = plan["metrics"], [*maps], np.stack([*maps.values()])
    found = {}
    if "deletion" in asked or "insertion" in asked:
        both = metrics.deletion_and_insertion(
            model, images, maps, target, plan["step"], plan["fills"], whole=probabilities
        )
        found |= {
            name: curve.area
            for name, curve in zip(("deletion", "insertion"), both)
            if name in asked
        }
    if "drop" in asked:
        found |= metrics.average_drop(model, images, maps, target, probabilities)._asdict()
    if "infidelity" in asked:
        found["infidelity"] = metrics.infidelity(
            model, images, maps, target, plan["squares"], scaled=True, whole=logits
        )
    if "road" in asked:
        imputed = metrics.road(model, images, maps, target, plan["shares"])
        found |= {
            "road_most": imputed.most.mean(axis=-1),
            "road_least": imputed.least.mean(axis=-1),
        }
    if "localisation" in asked:
        masks = [object_mask(row, images.shape[1:3]) for row in rows]
        for name in ("mass_share", "enrichment", "pointing"):
            score = getattr(metrics, name)
            found[name] = [
                [
                    np.nan if mask is None else float(score(each, mask))
                    for each, mask in zip(mine, masks)
                ]
                for mine in maps
            ]
    return {
        text: {name: values[m] for name, values in found.items()} for m, text in enumerate(names)
    }


def object_mask(row: Row, size: tuple[int, int]) -> np.ndarray | None:
    """Where the object is, cropped as its picture: bool of that size from a box or a drawn scene,
    or None.

    None also where the crop has left nothing of the box.
    """
    if row.box is not None:
        whole = np.zeros(pictures.load_image(row.file).shape[:2], bool)
        left, top, right, bottom = row.box
        whole[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
    elif row.file in pictures.SCENES:
        whole = pictures.load_mask(row.file)
    else:
        return None
    mask = pictures.prepare(whole, size, nearest=True)
    return mask if mask.any() else None


def _classifier_of(plan: dict) -> tuple[models.Classifier, str]:
    """The network of a plan, and a fingerprint of its weights."""
    options = tuple(sorted(plan["model_options"].items()))
    times = tuple(
        os.stat(file).st_mtime_ns
        for file in (plan["model"], *plan["model_options"].values())
        if os.path.isfile(file)
    )
    return _loaded(plan["model"], options, times)


@functools.lru_cache(1)
def _loaded(name: str, options: tuple, times: tuple) -> tuple[models.Classifier, str]:
    classifier = models.load_model(name, **dict(options))
    if not isinstance(classifier, models.Classifier):
        raise ValueError(f"{name} is a detector; an evaluation takes an image classifier")
    found = hashlib.sha256()
    for weight in classifier.model.get_weights():
        found.update(np.ascontiguousarray(weight))
    return classifier, found.hexdigest()[:16]


def _whole(name: str) -> str:
    file = Path(name).expanduser()
    return str(file.resolve()) if file.is_file() else name
