"""README's table of the notebooks, written from them: `python -m xai_suite.workshop.table`.

Between the lines `<!-- notebooks -->` and `<!-- /notebooks -->` of README.md stands a row for each
notebook: its file, the question it answers, and the minutes of a whole run. With `--check` nothing
is written, and a README that says something else ends with an error.
"""

import argparse
import re
import sys
from pathlib import Path

from xai_suite.reports import RunError
from xai_suite.workshop.copies import WorkshopError, read_notebooks
from xai_suite.workshop.guide import measured
from xai_utils.engine import written_whole

README, NOTEBOOKS = Path("README.md"), Path("notebooks")  # commands run in the project's folder
BEGIN, END = "<!-- notebooks -->", "<!-- /notebooks -->"


def question(notebook, where: str = "this notebook") -> str:
    """The question a notebook answers: what is bold below its title.

    Raises:
        WorkshopError: it has none.
    """
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    bold = re.search(r"^# .+\n+\*\*((?:.+\n)*?.+?)\*\*", "\n\n".join(prose), re.MULTILINE)
    if bold is None:
        raise WorkshopError(
            f"{where}: below its title stands no bold question, such as **Where does it look?**"
        )
    return " ".join(bold[1].split())


def table(notebooks: dict[Path, object]) -> str:
    """Lines of Markdown, one a notebook."""
    rows = ["| notebook | the question it answers | minutes |", "|---|---|---|"]
    for path, notebook in notebooks.items():
        asks = question(notebook, str(path)).replace("|", r"\|")
        rows.append(
            f"| [`{path.stem}`]({path.as_posix()}) | {asks} | {measured(notebook, str(path)):g} |"
        )
    return "\n".join(rows)


def with_table(readme: str, rows: str) -> str:
    """The README with these rows between its marks.

    Raises:
        WorkshopError: it has no such marks, or not one pair of them.
    """
    before, begin, rest = readme.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(f"{END}\n")
    if not end or BEGIN in before + after or END in before + after:
        raise WorkshopError(
            f"README.md: its table of the notebooks stands between a line {BEGIN} and a line {END},"
            " once"
        )
    return f"{before}{begin}\n{rows}\n\n{end}{after}"


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m xai_suite.workshop.table", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if it differs")
    given = parser.parse_args(arguments)
    # nbformat's check of a notebook would load it for nothing, for three seconds.
    sys.modules["rfc3987_syntax"] = None
    try:
        readme = README.read_text(encoding="utf-8")
        right = with_table(readme, table(read_notebooks(NOTEBOOKS)))
        if given.check and readme != right:
            raise WorkshopError(
                "README.md: its table of the notebooks is not what they say; write it with python"
                " -m xai_suite.workshop.table"
            )
        if readme != right:
            with written_whole(README) as temporary:
                temporary.write_text(right, encoding="utf-8")
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"README.md cannot be read and written: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
