"""What recurs in a page's figures is stored once: the picture under every map, equal frames."""

import contextlib
import re
from collections import Counter
from functools import partial

from xai_utils.show import GREY, look, placed, read_drawing

_DRAWING = re.compile(r'<img [^>]*src="data:image/svg\+xml,[^>]*>')
_KEPT = ("data-label", "hidden")  # of an `img`, beside its size and its words


def store_once(html):
    """HTML of a page whose drawings share the pictures that recur in them.

    What an `img` holds, no other can use. So a drawing with a picture that recurs becomes a part of
    the page, `svg.drawing` with the words of its `img`, and uses what `svg.parts` holds at the end.
    All other pictures stay as they are.
    """
    drawings = {}
    for tag in _DRAWING.findall(html):
        with contextlib.suppress(ValueError):
            drawings[tag] = read_drawing(_attributes(tag)["src"])
    found = [drawings[tag] for tag in _DRAWING.findall(html) if tag in drawings]
    times = Counter(layer.content for drawing in found for layer in drawing.layers)
    recurring = [content for content, count in times.items() if count > 1]
    names = {content: f"shared-picture-{number}" for number, content in enumerate(recurring)}
    if not names:
        return html
    parts = "".join(
        f'<image id="{name}" width="1" height="1" preserveAspectRatio="none" href="{content}"/>'
        for content, name in names.items()
    )
    return (
        _DRAWING.sub(partial(_inline, drawings=drawings, names=names), html)
        + '<svg class="parts" width="0" height="0" aria-hidden="true"><defs>'
        + f"{GREY}{parts}</defs></svg>"
    )


def _inline(match, drawings, names):
    """The drawing of one `img` as a part of the page, if it has a picture that recurs."""
    drawing = drawings.get(match[0])
    if not drawing or not any(layer.content in names for layer in drawing.layers):
        return match[0]
    image = _attributes(match[0])
    kept = "".join(f' {name}="{image[name]}"' for name in _KEPT if name in image)
    (across, down), (width, height) = drawing.size, drawing.shown
    layers = "".join(_layer(layer, names.get(layer.content)) for layer in drawing.layers)
    return (
        f'<svg class="drawing" role="img" aria-label="{image["alt"]}"{kept} width="{width}"'
        f' height="{height}" viewBox="0 0 {across} {down}">'
        f'<rect width="100%" height="100%" fill="white"/>{layers}</svg>'
    )


def _layer(layer, name):
    if name is None:
        return f"<image href='{layer.content}' {placed(layer)} preserveAspectRatio='none'/>"
    left, top, width, height = layer.box
    where = f"transform='translate({left:g} {top:g}) scale({width:g} {height:g})'"
    return f"<use href='#{name}' {' '.join([where, *look(layer)])}/>"


def _attributes(tag):
    return dict(re.findall(r' ([\w-]+)="([^"]*)"', tag))
