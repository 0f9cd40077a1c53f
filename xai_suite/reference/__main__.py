"""`make docs`: the library's names, every technique with a figure, and the suite's documents.

    python -m xai_suite.reference     (OUT)

Pages go to `reports/site/reference/`, or `OUT/site/reference/`. They load nothing from anywhere.
"""

import sys

from xai_suite.reference.pages import write_all
from xai_suite.reports import RunError, folders, refresh


def main() -> int:
    try:
        build, site = folders("default")
        count = write_all(site / "reference", site, build.parent / "bench" / "bench.json")
        refresh(build, site)
    except ModuleNotFoundError as error:
        print(f"make docs: {error.name} is missing: see requirements-dev.lock", file=sys.stderr)
        return 1
    except (RunError, OSError) as error:
        print(f"make docs: {error}", file=sys.stderr)
        return 1
    print(f"{count} pages of reference are in {site / 'reference' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
