"""For nbval, which runs every notebook with its solutions, and here every check a first time
without.

- Kernels start one at a time, like the runner's, or parallel ones may be given the same ports.
- After each cell tagged `exercise` one more item runs the exercise's check in the same kernel,
  where only the stub has been run: it must fail, and say in a sentence what to do. The solution and
  the check proper follow as always. So every check is run twice in one execution of the notebook;
  failing takes no time, as checks look at the stub's value first.
"""

import functools
import os
from collections import defaultdict

import nbval.kernel
from nbval.plugin import IPyNbCell

from xai_suite.reports import kernel_start_lock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.pop("MPLBACKEND", None)
start = nbval.kernel.start_new_kernel


@functools.wraps(start)
def one_at_a_time(*args, **kwargs):
    with kernel_start_lock():
        return start(*args, **kwargs)


nbval.kernel.start_new_kernel = one_at_a_time


class CheckOfTheStub(IPyNbCell):
    def runtest(self):
        super().runtest()
        errors = [output for output in self.test_outputs if output.output_type == "error"]
        if not errors:
            self.raise_cell_error("the check passes on the stub")
        kind, text = errors[0].ename, errors[0].evalue
        if kind not in ("AssertionError", "NotImplementedError") or len(text.split()) < 4:
            self.raise_cell_error(
                f"on the stub the check should say what to do; it says {kind}: {text}"
            )


def tagged(item, tag: str) -> bool:
    return tag in item.cell.metadata.get("tags", [])


def with_checks_of_stubs(items):
    """The items, and after each stub one for the check that comes next in its notebook."""
    for place, item in enumerate(items):
        yield item
        if isinstance(item, IPyNbCell) and tagged(item, "exercise"):
            later = [
                other
                for other in items[place:]
                if other.parent is item.parent and tagged(other, "check")
            ]
            for check in later[:1]:
                about = {
                    "cell_num": check.cell_num,
                    "cell": check.cell,
                    "name": f"{check.name} on the stub",
                }
                yield CheckOfTheStub.from_parent(
                    item.parent, options=defaultdict(bool, check_exception=True), **about
                )


def pytest_collection_modifyitems(items):
    # nbstripout takes the numbers of cells whose output is kept, and nbval would say that those
    # were never run.
    for cell in [item.cell for item in items if getattr(item, "cell", None)]:
        if cell.get("outputs") and cell.execution_count is None:
            cell.execution_count = 1
    items[:] = with_checks_of_stubs(list(items))
