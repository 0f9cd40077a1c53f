"""What is read back from an executed notebook.

Light on purpose (no nbformat, no matplotlib): the index reads a hundred notebooks with it.
"""

import ast
import base64
import contextlib
import io
import json
import os
import re
import tokenize
from pathlib import Path

from xai_utils.show import RECORD, USED, read_drawing, show_value


def read_notebook(path):
    """The notebook at `path` as plain dicts, multi-line strings joined.

    Raises ValueError if it is not one.
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


def one_line(text) -> str:
    """The first line with words of a text (anything; None has none), 400 characters at most and
    without terminal colours.
    """
    plain = re.sub(r"\x1b\[[\d;]*m", "", str(text or "")).strip().partition("\n")[0].strip()
    return plain if len(plain) <= 400 else f"{plain[:399]}…"


def tags(cell):
    """The set of a cell's tags."""
    return set(cell.get("metadata", {}).get("tags", []))


def _outputs(cells):
    return [output for cell in cells for output in cell.get("outputs", [])]


def read_records(notebook):
    """All recorded {name: value} of an executed notebook.

    Of two with one name the last wins.
    """
    found = {}
    for output in _outputs(notebook["cells"]):
        data = output.get("data", {})
        # in the author's order; a saved notebook sorts the names
        lines = "\n" + data.get("text/plain", "")
        found.update(
            sorted(data.get(RECORD, {}).items(), key=lambda pair: lines.find(f"\n{pair[0]} = "))
        )
    return found


def used(notebook) -> dict[str, str]:
    """What an executed notebook says that took the place of parameters; see `show.used`."""
    found = {}
    for output in _outputs(notebook["cells"]):
        found |= output.get("data", {}).get(USED, {})
    return found


def records_of(runs: str, model: str = "default") -> dict[str, dict]:
    """What executed runs recorded, by name, for a summary: `records_of("6[1-5]_*")`.

    Args:
        runs: a glob of their names.
        model: whose reports; while reports are made, those are read that are being made.
    """
    build = os.environ.get("XAI_BUILD") or f"../reports/build/{Path(model).stem}"
    paths = sorted(Path(build).glob(f"{runs}.ipynb"))
    return {path.stem: read_records(read_notebook(path)) for path in paths}


def thumbnail(notebook):
    """The picture for the index, as bytes that Pillow opens, or None.

    The first image of the cell tagged `thumbnail`, else of any.
    """
    chosen = [cell for cell in notebook["cells"] if "thumbnail" in tags(cell)]
    for output in _outputs(chosen + notebook["cells"]):
        data = output.get("data", {})
        if found := data.get("image/png"):
            return base64.b64decode(found)
        # a figure, and each frame of a stepper, stands in HTML
        for source in re.findall(r'src="(data:image/[^"]+)"', data.get("text/html", "")):
            scheme, _, content = source.partition(";base64,")
            if scheme == "data:image/png":
                return base64.b64decode(content)
            with contextlib.suppress(ValueError):
                read_drawing(source).image().save(drawn := io.BytesIO(), "png", compress_level=1)
                return drawn.getvalue()
    return None


def parameters(notebook):
    """Rows {name, value, default, comment, changed} for the table at the head of a report.

    Names, defaults and comments come from the cell tagged `parameters`; values and which of them
    were changed from the run's metadata. In place of a parameter that counted for nothing stands
    what was used.
    """
    info, known, instead = about(notebook), {}, used(notebook)
    with contextlib.suppress(SyntaxError, ValueError, tokenize.TokenError):  # the run said so
        known = declared(notebook)
    given = info.get("parameters") or {}
    rows = []
    for name in {**known, **given}:
        default, comment = known.get(name, (None, ""))
        value = given.get(name, default)
        rows.append(
            {
                "name": name,
                "value": instead.get(name) or show_value(value),
                "comment": comment,
                "changed": name in instead
                or name in info.get("changed", ())
                or (name in known and value != default),
                "default": show_value(default) if name in known else "",
            }
        )
    return rows


def declared(notebook) -> dict[str, tuple]:
    """`{name: (default, comment)}` of the lines `name = literal  # comment` in the cells tagged
    `parameters`.

    Raises:
        SyntaxError, ValueError, tokenize.TokenError: something else stands there.
    """
    found = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code" or "parameters" not in tags(cell):
            continue
        tokens = tokenize.generate_tokens(io.StringIO(cell["source"]).readline)
        comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
        for node in ast.parse(cell["source"]).body:
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            if not isinstance(targets[0], ast.Name) or node.value is None:
                raise ValueError(f"{ast.unparse(node)} is not like steps = 32")
            value = ast.literal_eval(node.value), comments.get(node.end_lineno, "")
            found |= {target.id: value for target in targets}
    return found
