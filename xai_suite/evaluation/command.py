"""`make evaluate`: what is asked for comes from the environment, errors are one line, progress is
one line a chunk.

    MANIFEST=pictures.csv TECHNIQUES="grad_cam rise:masks=500" python -m
    xai_suite.evaluation.command

MODEL, OUT, METRICS, EXPLAIN, SCHEDULER, PREPROCESSING and LABELS may be given as well; see
`evaluation.evaluate`.
"""

import os
import sys
import time
from pathlib import Path

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
)
LOW_IS_GOOD = ("deletion", "drop", "infidelity", "sensitivity", "road_most")


def main() -> int:
    ask = {name: os.environ.get(name, "").strip() for name in ASKED}
    try:
        for name, example in (
            ("MANIFEST", "pictures.csv"),
            ("TECHNIQUES", '"grad_cam saliency" (or all)'),
        ):
            if not ask[name]:
                raise ValueError(f"say {name}={example}")
        model = ask["MODEL"] or "efficientnet_lite0"
        out = ask["OUT"] or Path(
            "results", f"{Path(ask['MANIFEST']).stem}--{Path(model).stem}.parquet"
        )
        _evaluate(ask, model, out)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(
            f"make evaluate: {(str(error).splitlines() or [type(error).__name__])[0]}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\nmake evaluate: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _evaluate(ask: dict, model: str, out) -> None:
    from xai_suite.evaluation import results
    from xai_suite.evaluation.scoring import GROUPS, evaluate

    options = {"preprocessing": ask["PREPROCESSING"], "label_file": ask["LABELS"]}
    folder = evaluate(
        model,
        ask["TECHNIQUES"],
        ask["MANIFEST"],
        out,
        metrics=ask["METRICS"].split() or GROUPS,
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
        print(
            f"rows without numbers: {len(wrong)}, the first:"
            f" {path}{f', {technique}' if technique else ''}: {reason}"
        )
    if not summary:
        raise ValueError("no picture of the manifest could be measured")
    print(f"the results are in {folder}")


class _Progress:
    """A line for each chunk: how far it is, and how long the rest may take, from the pace of this
    call.
    """

    def __init__(self):
        self.started, self.before = time.monotonic(), None

    def __call__(self, done: int, total: int) -> None:
        elapsed = time.monotonic() - self.started
        if self.before is None:
            self.before, self.started = done, time.monotonic()
            text = f"{done} were there already" if done else ""
        else:
            text = f"{_clock(elapsed)} elapsed"
            if done < total:
                text += f", about {_clock(elapsed * (total - done) / (done - self.before))} left"
        print(f"[{done:{len(str(total))}}/{total}] pictures  {text}".rstrip(), flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
        if minutes >= 60
        else f"{minutes}:{seconds:02}"
    )


def results_text(summary: dict) -> str:
    """A table of means and standard errors, one line a technique, and a line about it."""
    names = list(dict.fromkeys(name for metrics in summary.values() for name in metrics))
    wide = max(map(len, summary), default=0) + 2
    head = "".join(f"{'-' * (name in LOW_IS_GOOD) + name:>16}" for name in names)
    lines = [" " * wide + head] + [
        f"{technique:{wide}}" + "".join(_cell(metrics.get(name)) for name in names)
        for technique, metrics in summary.items()
    ]
    pictures = {
        name: max(metrics[name][2] for metrics in summary.values() if name in metrics)
        for name in names
    }
    most = max(pictures.values(), default=0)
    fewer = "".join(f", of {name} over {count}" for name, count in pictures.items() if count < most)
    return "\n".join(
        [*lines, f"means (standard errors) over {most} pictures{fewer}; minus: low is good"]
    )


def _cell(found) -> str:
    if not found:
        return " " * 16
    mean, error, count = found
    return f"{f'{mean:.3f} ({error:.3f})' if count > 1 else f'{mean:.3f} (-)':>16}"


if __name__ == "__main__":
    sys.exit(main())
