"""`make evaluate`: asked for through the environment; errors and progress are one line each.

    MANIFEST=list.csv TECHNIQUES="grad_cam rise:masks=500" python -m xai_suite.evaluation.command

MODEL, OUT, METRICS, EXPLAIN, SCHEDULER, PREPROCESSING, LABELS, TASK, RESIZING, SIZE, LAYER, TOKENS
and OUTPUT may be given as well; see `evaluation.evaluate` and `models.load_model`.
"""

import math
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

from tqdm import tqdm

from xai_suite.reports import typed_in, where_typed
from xai_utils import show
from xai_utils.engine import first_line
from xai_utils.models import TYPED, typed

DESCRIBE = [key.upper() for key in TYPED]  # a network of one's own
ASKED = ("MANIFEST", "MODEL", "TECHNIQUES", "OUT", "METRICS", "EXPLAIN", "SCHEDULER", *DESCRIBE)
NEEDED = {"MANIFEST": "pictures.csv", "TECHNIQUES": '"grad_cam saliency" (or all)'}
LOW_IS_GOOD = ("deletion", "drop", "infidelity", "sensitivity", "road_most")
PLACES = ("mass_share", "enrichment", "pointing")  # what localisation measures
MOST_NAMES = 5  # of rows that have no numbers for the same reason
MOST_REASONS = 5  # why rows have no numbers; there may be as many reasons as rows
SECONDS_A_LINE = 10  # inside a chunk


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
    except (ValueError, OSError, RuntimeError, ImportError, ArithmeticError) as error:
        print(f"make evaluate: {first_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmake evaluate: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _evaluate(ask: dict[str, str]) -> None:
    from xai_suite.evaluation import results
    from xai_suite.evaluation.scoring import GROUPS, evaluate
    from xai_utils.attribution import left_out

    model = ask["MODEL"] or "efficientnet_lite0"
    manifest = Path(os.path.abspath(Path(ask["MANIFEST"]).expanduser()))  # also of a folder, `.`
    usual = Path("results", f"{manifest.stem}--{Path(model).stem}.parquet")
    options = typed({name.lower(): ask[name] for name in DESCRIBE})
    progress = _Progress()
    folder = evaluate(
        model,
        ask["TECHNIQUES"],
        ask["MANIFEST"],
        typed_in() / Path(ask["OUT"]).expanduser() if ask["OUT"] else usual,
        metrics=ask["METRICS"] or GROUPS,
        explain=ask["EXPLAIN"] or "top",
        scheduler=ask["SCHEDULER"] or None,
        progress=progress,
        step_done=progress.step,
        model_options=options,
    )
    # Another call may have written to the same folder meanwhile.
    table = results.read(folder, ask["TECHNIQUES"])
    summary = results.summary(table)
    if summary:
        _say(results_text(summary))
    plan = results.read_about(folder)["plan"]
    if without := left_out(plan.get("left_out", {})):
        _say(without)
    if "localisation" in plan["metrics"] and not any(
        table[name].null_count < table.num_rows for name in PLACES
    ):
        _say("no localisation: the manifest says of no picture where the object is (x_min, ...)")
    if wrong := results.errors(table):
        _say(errors_text(wrong))
    if not summary:
        raise ValueError("no picture of the manifest could be measured")
    _say(f"the results are in {ask['OUT'] or folder}")


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise _NobodyReads from None


class _Progress:
    """Lines that say how far it is, and how long the rest may take at the pace so far.

    There is one for each chunk, and in a long one some more. The pace is that of each technique's
    and metric's last chunk, for in its first one everything is compiled; where they are not told,
    that of the chunks after the first.
    """

    def __init__(self):
        self.started = self.first = None  # when it was, and how many pictures were done then
        self.done = self.total = 0
        self.paces, self.again = {}, set()  # seconds a picture, and of which not for the first time

    def __call__(self, done: int, total: int) -> None:
        now = self.since = time.monotonic()
        self.done, self.total = done, total
        if self.started is None:
            self.started = (now, done)
            text = f"{done} were there already" if done else ""
            if done < total:
                text += f"{', ' * bool(text)}the next few take longer than the rest"
            self._line(now, text)
        else:
            self.first = self.first or (now, done)
            self._line(now, self._times(now))

    def step(self, name: str, pictures: int) -> None:
        """After a technique or a metric inside a chunk."""
        now = time.monotonic()
        if name in self.paces:
            self.again.add(name)
        self.paces[name] = (now - self.since) / pictures
        self.since = now
        if now - self.spoken >= SECONDS_A_LINE:
            self._line(now, f"{self._times(now)}; {name} done")

    def _times(self, now: float) -> str:
        said = f"{tqdm.format_interval(now - self.started[0])} elapsed"
        pictures = self.total - self.done
        if not (self.first and pictures):
            return said
        if self.paces:
            about = "about" if self.paces.keys() == self.again else "less than"
            left = math.ceil(pictures * sum(self.paces.values()))
            return f"{said}, {about} {tqdm.format_interval(left)} left"
        # Chunks that were held back, or that other workers did, come together with the first.
        since, done = now - self.first[0], self.done - self.first[1]
        if since > (self.first[0] - self.started[0]) / 10:
            said += f", about {tqdm.format_interval(since * pictures / done)} left"
        return said

    def _line(self, now: float, text: str) -> None:
        self.spoken = now
        _say(f"[{self.done:{len(str(self.total))}}/{self.total}] pictures  {text}".rstrip())


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
    over = show.counted(most, "picture")
    lines.append(f"means (standard errors) over {over}{fewer}; ↓: low is good")
    return "\n".join(lines)


def errors_text(wrong: list[tuple[str, str | None, str]]) -> str:
    """Why rows have no numbers: a line for each reason, with the first ones that it holds for."""
    alike = defaultdict(list)
    for path, technique, reason in wrong:
        name = f"{path}, {technique}" if technique else path
        alike[reason.replace(repr(path), "it")].append((name, reason))
    lines = []
    for rows in sorted(alike.values(), key=len, reverse=True):
        name, reason = rows[0]
        others = [name for name, _ in rows[1:MOST_NAMES]]
        if len(rows) > MOST_NAMES:
            others.append(f"{len(rows) - MOST_NAMES} more")
        also = f"; the same of {'; '.join(others)}" if others else ""
        lines.append(f"{name}: {reason}{also}")
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
