"""`make reports`: a notebook's runs in one kernel, what is out of date only, a true site.

    python -m xai_suite.reports [--all] [--dry-run]     (RUNS, MODEL, JOBS, LAUNCH, OUT)
    python -m xai_suite.reports one                     (NOTEBOOK, IMAGE, MODEL, PARAMS, OUT)

Values come from the environment, as they were typed: no quoting to get wrong. CELL_LIMIT is how
many seconds a cell may take (600, or what its notebook says), START_LIMIT a kernel's start (60).

Each page is written as soon as its run is done, and the index says what is running and what is
left. A run that fails is a red card and no good notebook, so the next call tries it again; so it
does what a killed one left.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from tqdm import tqdm

from xai_suite.reports import finding, reading, runner, runs, site, staleness
from xai_suite.reports.runs import RunError
from xai_utils.engine import nearest

OF_A_GPU = 0.9  # of its memory, for TensorFlow; CUDA needs some beside it in every process


def main() -> int:
    command = argparse.ArgumentParser(
        prog="python -m xai_suite.reports",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("what", nargs="?", choices=["all", "one"], default="all")
    command.add_argument("--all", action="store_true", help="run what is up to date as well")
    command.add_argument("--dry-run", action="store_true", help="say what would run, and why")
    asked = command.parse_args()
    runner.stop_when_told()
    try:
        return one_report() if asked.what == "one" else Reports(asked.all).make(asked.dry_run)
    except (RunError, OSError) as error:
        print(f"make report{'' if asked.what == 'one' else 's'}: {error}", file=sys.stderr)
        return 1
    finally:
        runner.stop_kernel()


class Reports:
    """The runs of one `make reports`.

    Attributes:
        stale: the runs to execute, and why.
        left: of these, by notebook, all that have not ended, in their order.
        running: by notebook, the runners at work.
        failed: what went wrong besides the runs themselves, as (name, error).
    """

    def __init__(self, everything: bool):
        self.selected = selected(os.environ.get("RUNS") or "*")
        model = runs.asked_model()
        self.model = runs.from_notebooks(model)
        self.launch = split("LAUNCH")
        self.jobs = jobs()
        self.build, self.site = runs.folders(runs.in_a_name(model) or "default")
        self.stale = staleness.out_of_date(self.selected, self.build)
        if everything:
            self.stale = {name: ["asked for"] for name in self.selected} | self.stale
        self.left, self.failed = by_notebook(self.stale), []
        self.running: dict[str, subprocess.Popen] = {}
        self.writing = threading.RLock()  # of pages, the index and lines
        self.started = time.time()

    def make(self, dry_run: bool) -> int:
        if dry_run:
            for name, why in self.stale.items():
                print(f"{name}: {', '.join(why[:3])}{', ...' if len(why) > 3 else ''}")
            return 0
        fresh = [name for name in self.selected if name not in self.stale]
        pages = [name for name in fresh if not site.is_current(self.build, self.site, name)]
        if not self.stale and not pages and site.lists(self.site, self.shown()):
            count, where = len(self.selected), f"{self.site}/index.html"
            print(f"nothing to do: {count} reports are up to date ({where})")
            return 0
        if not self.stale:
            print(f"no run is out of date, of {len(self.selected)}: only pages are written anew")
        try:
            self.work(pages)
        finally:
            self.running = {}
            failed = [*self.index(), *self.failed]
            refresh_default(self.site)
        for name, error in failed:
            print(f"FAILED {name}: {error}", file=sys.stderr)
        print(f"the reports are in {self.site}/index.html", flush=True)
        return 1 if failed else 0

    def work(self, pages: list[str]) -> None:
        """Execute what is out of date; meanwhile write pages that are."""
        runner.remove_left_over(self.build)
        runner.remove_left_over(self.site)
        self.index()
        self.bar = tqdm(total=len(self.stale), unit="run", disable=None, leave=False)
        pool, sent = ThreadPoolExecutor(self.jobs), {}
        try:
            for notebook in self.left:
                before = {other.partition("--")[0] for other in staleness.needed_by(notebook)}
                first = [sent[other] for other in before if other in sent]
                sent[notebook] = pool.submit(self.send, notebook, first)
            for name in pages:
                self.page(name)
            for future in sent.values():
                future.result()
        finally:
            for worker in [*self.running.values()]:
                worker.terminate()
            pool.shutdown(cancel_futures=True)
            self.bar.close()

    def send(self, notebook: str, first: list[Future]) -> None:
        """Send a notebook's runs through a runner of their own, after those that they need."""
        wait(first)
        names = self.left[notebook]
        own = [sys.executable, "-m", "xai_suite.reports.runner", str(self.build), *names]
        own += ["--model", self.model] if self.model else []
        env = {**os.environ, "XAI_BUILD": str(self.build.resolve()), "PYTHONUNBUFFERED": "1"}
        side_by_side = 1 if self.launch else min(self.jobs, sum(map(bool, self.left.values())))
        if side_by_side > 1:  # TensorFlow would take all: too many threads wait for each other
            env.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, os.cpu_count() // side_by_side)))
            if share := int(OF_A_GPU * gpu_memory() / side_by_side):
                env.setdefault("XAI_GPU_MEMORY", str(share))
        said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "errors": "replace"}
        with subprocess.Popen([*self.launch, *own], env=env, text=True, **said) as worker:
            self.running[notebook] = worker
            self.index()
            for line in worker.stdout:
                self.line(line.rstrip("\n"), names)
        lost = [] if runner.stopping.is_set() else [*names]
        for name in lost:
            why = "its runner died (killed, out of memory, or never started)"
            site.lost(self.build, name, why)
            self.line(f"FAILED {name}: {why}", names)
        del self.running[notebook]

    def line(self, line: str, names: list[str]) -> None:
        """What the runner of these runs says: that one has ended; other words are passed on."""
        ended = re.match(r"(FAILED )?([\w.-]+--[\w.-]+)(?:: |  +\d+ s$)", line)
        with self.writing:
            if not ended or ended[2] not in names:
                return self.bar.write(line, file=sys.stdout)
            names.remove(ended[2])
            left, total = sum(map(len, self.left.values())), len(self.stale)
            line = f"[{total - left:{len(str(total))}}/{total}] {line}"
            if not ended[1]:
                elapsed = tqdm.format_interval(time.time() - self.started)
                line += f"   ({left} left, {elapsed} elapsed)"
            self.bar.write(line, file=sys.stdout)
            sys.stdout.flush()
            self.bar.update()
            self.page(ended[2])

    def page(self, name: str) -> None:
        with self.writing:
            try:
                site.page(self.build, self.site, name)
            except Exception as error:  # the others go on
                self.failed.append((name, f"its page: {reading.one_line(error)}"))
            self.index()

    def index(self) -> list[tuple[str, str]]:
        with self.writing:
            begun = [self.left[notebook] for notebook in [*self.running]]
            now = {names[0] for names in begun if names}
            waiting = {name for names in self.left.values() for name in names} - now
            return site.index(self.build, self.site, self.shown(), now, waiting)

    def shown(self) -> list[str]:
        """What the index shows: the selected runs, and others that were made before."""
        made = {path.stem for path in self.build.glob("*--*.ipynb")}
        return sorted({*self.selected, *self.stale, *(made & {*staleness.run_names()})})


def one_report() -> int:
    """`make report`: any notebook on any picture, to site/one-off/ in `OUT` or reports/."""
    ask = {key: os.environ.get(key, "") for key in ("NOTEBOOK", "IMAGE", "PARAMS")}
    ask["MODEL"] = runs.asked_model()
    notebook = Path(ask["NOTEBOOK"]).name.removesuffix(".ipynb")
    if not notebook:
        raise RunError("say which notebook: make report NOTEBOOK=21_grad_cam IMAGE=my.jpg")
    defaults = runs.make_run(f"{notebook}--default", {}, "NOTEBOOK").defaults
    given = dict(runs.parse_setting(text, defaults) for text in split("PARAMS"))
    if isinstance(defaults.get("images"), str) and ask["IMAGE"]:  # a folder or a table of pictures
        given["images"] = runs.where_typed(ask["IMAGE"])
    elif image := runs.from_notebooks(ask["IMAGE"]):
        several = "images" in defaults and "image" not in defaults
        given |= {"images": [image]} if several else {"image": image}
    if model := runs.from_notebooks(ask["MODEL"]):
        given["model"] = model
    words = [*map(runs.in_a_name, filter(None, (ask["IMAGE"], ask["MODEL"], ask["PARAMS"])))]
    name = f"{notebook}--{'--'.join(words) or 'default'}"
    run = runs.make_run(name, given, notebook)
    build, pages = runs.folders("one-off")
    staleness.modules()  # as they are now, before the kernel loads any
    error = runner.execute(lambda: run, name, build)
    site.page(build, pages, name)
    forget_lost(build, name)
    made = {file.stem for file in build.glob("**/*--*.ipynb")}
    site.index(build, pages, sorted(made))
    refresh_default(pages)
    print(f"the report is in {pages / name}.html", flush=True)
    return 1 if error else 0


def refresh_default(pages: Path) -> None:
    """Let the default model's index lead to another site, these pages, that lies inside its own."""
    build, around = runs.folders("default")
    if pages != around:
        site.refresh(build, around)


def forget_lost(build: Path, name: str) -> None:
    """Remove what failed reports left whose picture or network is no more, or never was.

    Such a file was mistyped or is gone, so that nobody can make the report under its name.

    Args:
        name: of the report that was just made; it stays.
    """
    for left in (build / "failed").glob("*--*.ipynb"):
        given = staleness.metadata(left).get("parameters") or {}
        if left.stem != name and not all(map(staleness.is_there, finding.files(given))):
            left.unlink(missing_ok=True)
            left.with_suffix(".log").unlink(missing_ok=True)


def split(variable: str) -> list[str]:
    """The words of a variable of the environment, as a shell takes them."""
    text = os.environ.get(variable, "")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise RunError(f"{variable}: {error} in {text}") from None


def selected(globs: str) -> list[str]:
    """Names of the run files that match one of these patterns.

    Raises:
        RunError: a pattern that matches none, or a file's name that cannot be a run's.
    """
    for file in runs.RUNS.iterdir():
        good = re.fullmatch(r"[\w.-]+\.yaml", file.name, re.ASCII)
        if file.suffix in (".yml", ".yaml") and not good:
            raise RunError(
                f"{file}: a run file is named <notebook>--<run>.yaml, with letters, digits, '_',"
                " '-' and '.' only"
            )
    known, patterns = staleness.run_names(), globs.split() or ["*"]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in known):
            raise RunError(f"no run is called {pattern!r}; {nearest(pattern.strip('*'), known, 1)}")
    return [name for name in known if any(fnmatch(name, pattern) for pattern in patterns)]


def jobs() -> int:
    text = os.environ.get("JOBS") or "2"
    if not re.fullmatch(r"[1-9]\d*", text):
        raise RunError(f"JOBS is how many notebooks run at a time, such as 2; not {text!r}")
    return int(text)


@cache
def gpu_memory() -> int:
    """MiB of the smallest GPU that runs may use; 0 without any, or where nobody can say."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    if chosen := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command.append(f"--id={chosen}")
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return min((int(line) for line in asked.stdout.split() if line.isdigit()), default=0)


def by_notebook(names) -> dict[str, list[str]]:
    """Runs by notebook, in the order in which they start.

    First what comes first in the suite, so that there is soon something to see; then what others
    need, what takes longest, so that no processor idles at the end, and what needs others.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(name.partition("--")[0], []).append(name)
    needed = {other.partition("--")[0] for name in found for other in staleness.needed_by(name)}

    def place(notebook):
        cost = len(found[notebook]) * staleness.about(notebook).get("minutes", 0.5)
        return bool(staleness.needed_by(notebook)), notebook not in needed, -cost

    first, rest = [*found][:1], [*found][1:]
    return {notebook: found[notebook] for notebook in first + sorted(rest, key=place)}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        os._exit(130)  # no wall of text about what was going on
