"""`make evaluate`: asked for through the environment; errors and progress are one line each.

    MANIFEST=list.csv TECHNIQUES="grad_cam rise:masks=500" python -m xai_suite.evaluation.command

MODEL, OUT, METRICS, EXPLAIN, SCHEDULER, PREPROCESSING, LABELS and TASK may be given as well; see
`evaluation.evaluate`.
"""

import os
import sys
import time
from pathlib import Path

from tqdm import tqdm

ASKED = (
    "MANIFEST",
    "MODEL",
    "TECHNIQUES",
    "OUT",
    "METRICS",
    "EXPLAIN",
    "SCHEDULER",
    "PREPROCESSING",
    "LABELS",
    "TASK",
)
NEEDED = {"MANIFEST": "pictures.csv", "TECHNIQUES": '"grad_cam saliency" (or all)'}
LOW_IS_GOOD = ("deletion", "drop", "infidelity", "sensitivity", "road_most")


def main() -> int:
    ask = {name: os.environ.get(name, "").strip() for name in ASKED}
    try:
        for name, example in NEEDED.items():
            if not ask[name]:
                raise ValueError(f"say {name}={example}")
        _evaluate(ask)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"make evaluate: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake evaluate: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _evaluate(ask: dict[str, str]) -> None:
    from xai_suite.evaluation import results
    from xai_suite.evaluation.scoring import GROUPS, evaluate

    model = ask["MODEL"] or "efficientnet_lite0"
    usual = Path("results", f"{Path(ask['MANIFEST']).stem}--{Path(model).stem}.parquet")
    options = {
        "preprocessing": ask["PREPROCESSING"],
        "labels": ask["LABELS"],
        "task": ask["TASK"],
    }
    folder = evaluate(
        model,
        ask["TECHNIQUES"],
        ask["MANIFEST"],
        ask["OUT"] or usual,
        metrics=ask["METRICS"] or GROUPS,
        explain=ask["EXPLAIN"] or "top",
        scheduler=ask["SCHEDULER"] or None,
        progress=_Progress(),
        model_options={name: value for name, value in options.items() if value},
    )
    table = results.read(folder)
    summary = results.summary(table)
    if summary:
        print(results_text(summary))
    if wrong := results.errors(table):
        path, technique, reason = wrong[0]
        what = f"{path}, {technique}" if technique else path
        print(f"rows without numbers: {len(wrong)}, the first: {what}: {reason}")
    if not summary:
        raise ValueError("no picture of the manifest could be measured")
    print(f"the results are in {folder}")


class _Progress:
    """A line for each chunk: how far it is, and how long the rest may take at this call's pace."""

    def __init__(self):
        self.started, self.before = time.monotonic(), None

    def __call__(self, done: int, total: int) -> None:
        elapsed = time.monotonic() - self.started
        if self.before is None:
            self.before, self.started = done, time.monotonic()
            text = f"{done} were there already" if done else ""
        else:
            text = f"{tqdm.format_interval(elapsed)} elapsed"
            if done < total:
                left = elapsed * (total - done) / (done - self.before)
                text += f", about {tqdm.format_interval(left)} left"
        print(f"[{done:{len(str(total))}}/{total}] pictures  {text}".rstrip(), flush=True)


def results_text(summary: dict) -> str:
    """A table of means and standard errors, one line a technique, and a line about it."""
    names = list(dict.fromkeys(name for metrics in summary.values() for name in metrics))
    wide = max(map(len, summary), default=0) + 2
    head = "".join(f"{'-' * (name in LOW_IS_GOOD) + name:>16}" for name in names)
    lines = [" " * wide + head]
    for technique, metrics in summary.items():
        lines.append(f"{technique:{wide}}" + "".join(_cell(metrics.get(name)) for name in names))
    pictures = {
        name: max(metrics[name][2] for metrics in summary.values() if name in metrics)
        for name in names
    }
    most = max(pictures.values(), default=0)
    fewer = "".join(f", of {name} over {count}" for name, count in pictures.items() if count < most)
    lines.append(f"means (standard errors) over {most} pictures{fewer}; minus: low is good")
    return "\n".join(lines)


def _cell(moments: tuple[float, float, int] | None) -> str:
    if moments is None:
        return " " * 16
    mean, error, count = moments
    return f"{f'{mean:.3f} ({error:.3f})' if count > 1 else f'{mean:.3f} (-)':>16}"


if __name__ == "__main__":
    sys.exit(main())
