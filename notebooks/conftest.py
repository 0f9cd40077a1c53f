"""For nbval, which starts kernels too: one at a time, like the runner, or parallel ones may be given the same ports."""

import functools
import os

import nbval.kernel

from xai_utils.execution import kernel_start_lock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.pop("MPLBACKEND", None)
start = nbval.kernel.start_new_kernel


@functools.wraps(start)
def one_at_a_time(*args, **kwargs):
    with kernel_start_lock():
        return start(*args, **kwargs)


nbval.kernel.start_new_kernel = one_at_a_time


def pytest_collection_modifyitems(items):
    # nbstripout takes the numbers of cells whose output is kept, and nbval would say that those were never run.
    for cell in [item.cell for item in items if getattr(item, "cell", None)]:
        if cell.get("outputs") and cell.execution_count is None:
            cell.execution_count = 1
