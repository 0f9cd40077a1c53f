"""What is read back from an executed notebook.

Light on purpose (no nbformat, no matplotlib): the index reads a hundred notebooks with it.
"""

import ast
import base64
import io
import json
import os
import re
import tokenize
from pathlib import Path

from xai_utils.show import RECORD, show_value


def read_notebook(path):
    """The notebook at `path` as plain dicts, multi-line strings joined. Raises ValueError if it is
    not one.
    """
    try:
        notebook = json.loads(Path(path).read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            cell["source"] = _join(cell["source"])
            for output in cell.get("outputs", []):
                output["text"] = _join(output.get("text", ""))
                for mime, data in output.get("data", {}).items():
                    output["data"][mime] = _join(data) if not mime.endswith("json") else data
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a notebook: {type(error).__name__}: {error}") from None
    return notebook


def about(notebook) -> dict:
    """What a notebook's metadata say of its run."""
    return notebook.get("metadata", {}).get("report", {})


def _join(text):
    return "".join(text) if isinstance(text, list) else text


def _notebook(source):
    return source if isinstance(source, dict) else read_notebook(source)


def tags(cell):
    """The set of a cell's tags."""
    return set(cell.get("metadata", {}).get("tags", []))


def _outputs(cells):
    return [output for cell in cells for output in cell.get("outputs", [])]


def read_records(notebook):
    """All recorded {name: value} of an executed notebook (path or dict); of two with one name the
    last wins.
    """
    found = {}
    for output in _outputs(_notebook(notebook)["cells"]):
        data = output.get("data", {})
        lines = "\n" + data.get(
            "text/plain", ""
        )  # in the author's order; a saved notebook sorts the names
        found.update(
            sorted(data.get(RECORD, {}).items(), key=lambda pair: lines.find(f"\n{pair[0]} = "))
        )
    return found


def records_of(runs: str) -> dict[str, dict]:
    """What the executed runs of this glob recorded, by name, for a summary:
    `records_of("6[1-5]_*")`.

    They are read where the summary itself is made, or else among the default reports.
    """
    build = Path(os.environ.get("XAI_BUILD") or "../reports/build/default")
    return {path.stem: read_records(path) for path in sorted(build.glob(f"{runs}.ipynb"))}


def thumbnail(notebook):
    """PNG bytes of the picture for the index, or None: the first image of the cell tagged
    `thumbnail`, else of any.
    """
    cells = _notebook(notebook)["cells"]
    for output in _outputs([cell for cell in cells if "thumbnail" in tags(cell)] + cells):
        data = output.get("data", {})
        found = data.get("image/png")
        if not found:  # a stepper carries its frames inside its HTML
            match = re.search(r'data:image/png;base64,([^"]+)', data.get("text/html", ""))
            found = match and match.group(1)
        if found:
            return base64.b64decode(found)
    return None


def parameters(notebook):
    """Rows {name, value, default, comment, changed} for the table at the head of a report.

    Names, defaults and comments come from the cell tagged `parameters`; values and which of them
    were changed from the run's metadata.
    """
    notebook = _notebook(notebook)
    info = notebook.get("metadata", {}).get("report", {})
    known = {}
    for cell in notebook["cells"]:
        if "parameters" in tags(cell):
            known.update(_declared(cell["source"]))
    given = info.get("parameters") or {}
    rows = []
    for name in [*known, *(name for name in given if name not in known)]:
        default, comment = known.get(name, (None, ""))
        value = given.get(name, default)
        changed = (
            name in info["changed"]
            if info.get("changed") is not None
            else name in given and value != default
        )
        rows.append(
            {
                "name": name,
                "value": show_value(value),
                "comment": comment,
                "changed": changed,
                "default": show_value(default) if name in known else "",
            }
        )
    return rows


def _declared(source):
    """{name: (default, comment)} of `name = literal  # comment` lines."""
    try:
        tree = ast.parse(source)
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, tokenize.TokenError):
        return {}
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokens
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in tree.body:
        target = getattr(node, "target", None) or (getattr(node, "targets", None) or [None])[0]
        if isinstance(target, ast.Name) and getattr(node, "value", None) is not None:
            try:
                found[target.id] = ast.literal_eval(node.value), comments.get(node.end_lineno, "")
            except ValueError:  # not a literal: the runner complains about it, a report need not
                continue
    return found
