"""`make evaluate`: asked for through the environment; errors and progress are one line each.

    MANIFEST=list.csv TECHNIQUES="grad_cam rise:masks=500" python -m xai_suite.evaluation.command

MODEL, OUT, METRICS, EXPLAIN, SCHEDULER, PREPROCESSING, LABELS, TASK, RESIZING, SIZE, LAYER, TOKENS
and OUTPUT may be given as well; see `evaluation.evaluate` and `models.load_model`.
"""

import os
import sys
import time
from collections import defaultdict
from pathlib import Path

from tqdm import tqdm

from xai_suite.reports import where_typed
from xai_utils.models import TYPED, typed

DESCRIBE = [key.upper() for key in TYPED]  # a network of one's own
ASKED = ("MANIFEST", "MODEL", "TECHNIQUES", "OUT", "METRICS", "EXPLAIN", "SCHEDULER", *DESCRIBE)
NEEDED = {"MANIFEST": "pictures.csv", "TECHNIQUES": '"grad_cam saliency" (or all)'}
LOW_IS_GOOD = ("deletion", "drop", "infidelity", "sensitivity", "road_most")
MOST_REASONS = 5  # why rows have no numbers; there may be as many reasons as rows


class _NobodyReads(Exception):
    """Whoever reads the output has closed it, as `head` does."""


def main() -> int:
    ask = {name: os.environ.get(name, "").strip() for name in ASKED}
    try:
        for name, example in NEEDED.items():
            if not ask[name]:
                raise ValueError(f"say {name}={example}")
        for name in ("MANIFEST", "MODEL", "LABELS"):  # where `make -C` was typed
            ask[name] = where_typed(ask[name])
        _evaluate(ask)
    except _NobodyReads:  # what was measured is kept; the same command goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at its end
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
    manifest = Path(os.path.abspath(Path(ask["MANIFEST"]).expanduser()))  # also of a folder, `.`
    usual = Path("results", f"{manifest.stem}--{Path(model).stem}.parquet")
    options = typed({name.lower(): ask[name] for name in DESCRIBE})
    folder = evaluate(
        model,
        ask["TECHNIQUES"],
        ask["MANIFEST"],
        ask["OUT"] or usual,
        metrics=ask["METRICS"] or GROUPS,
        explain=ask["EXPLAIN"] or "top",
        scheduler=ask["SCHEDULER"] or None,
        progress=_Progress(),
        model_options=options,
    )
    table = results.read(folder)
    summary = results.summary(table)
    if summary:
        _say(results_text(summary))
    if wrong := results.errors(table):
        _say(errors_text(wrong))
    if not summary:
        raise ValueError("no picture of the manifest could be measured")
    _say(f"the results are in {folder}")


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise _NobodyReads from None


class _Progress:
    """A line for each chunk: how far it is, and how long the rest may take at this call's pace.

    The pace is that of the chunks after the first, in which everything is compiled.
    """

    def __init__(self):
        self.started = self.first = None  # when it was, and how many pictures were done then

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.started is None:
            self.started = (now, done)
            text = f"{done} were there already" if done else ""
            if done < total:
                text += f"{', ' * bool(text)}the next few take longer than the rest"
        else:
            text = f"{tqdm.format_interval(now - self.started[0])} elapsed"
            self.first = self.first or (now, done)
            # Chunks that were held back, or that other workers did, come together with the first.
            enough = (self.first[0] - self.started[0]) / 10
            if done < total and now - self.first[0] > enough:
                left = (now - self.first[0]) * (total - done) / (done - self.first[1])
                text += f", about {tqdm.format_interval(left)} left"
        _say(f"[{done:{len(str(total))}}/{total}] pictures  {text}".rstrip())


def results_text(summary: dict) -> str:
    """A table of means and standard errors, one line a technique, and a line about it."""
    names = list(dict.fromkeys(name for metrics in summary.values() for name in metrics))
    wide = max(map(len, summary), default=0) + 2
    head = "".join(f"{name + ' ↓' * (name in LOW_IS_GOOD):>16}" for name in names)
    lines = [" " * wide + head]
    for technique, metrics in summary.items():
        lines.append(f"{technique:{wide}}" + "".join(_cell(metrics.get(name)) for name in names))
    pictures = {
        name: max(metrics[name][2] for metrics in summary.values() if name in metrics)
        for name in names
    }
    most = max(pictures.values(), default=0)
    fewer = "".join(f", of {name} over {count}" for name, count in pictures.items() if count < most)
    lines.append(f"means (standard errors) over {most} pictures{fewer}; ↓: low is good")
    return "\n".join(lines)


def errors_text(wrong: list[tuple[str, str | None, str]]) -> str:
    """Why rows have no numbers: for each reason the number of rows, and the first one's words."""
    alike = defaultdict(list)
    for row in wrong:
        path, _, reason = row
        alike[reason.replace(repr(path), "it")].append(row)
    lines = []
    for rows in sorted(alike.values(), key=len, reverse=True):
        path, technique, reason = rows[0]
        what = f"{path}, {technique}" if technique else path
        lines.append(f"{len(rows)}, the first: {what}: {reason}")
    if len(lines) == 1:
        return f"rows without numbers: {lines[0]}"
    if len(lines) > MOST_REASONS:
        lines[MOST_REASONS:] = [f"and {len(lines) - MOST_REASONS} reasons more"]
    return "\n  ".join([f"rows without numbers: {len(wrong)}", *lines])


def _cell(moments: tuple[float, float, int] | None) -> str:
    if moments is None:
        return " " * 16
    mean, error, count = moments
    return f"{f'{mean:.3f} ({error:.3f})' if count > 1 else f'{mean:.3f} (-)':>16}"


if __name__ == "__main__":
    sys.exit(main())
