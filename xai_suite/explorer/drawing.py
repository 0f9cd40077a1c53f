"""How the explorer shows an answer: as strings of HTML, no widgets.

Pictures are PNG with text alternatives, probabilities are bars.
"""

import io
from html import escape

import numpy as np
from PIL import Image, ImageDraw

from xai_suite.explorer.state import Answer, State, likeliest
from xai_utils import attribution, show

SIDE = 280  # of a shown picture, in pixels
STOPS = 17  # colours of a colour bar that are given; between them the browser blends
OLD = "explorer-old"  # class of what shows an earlier answer than the one that is asked for
STYLE = f"<style>.{OLD} {{ opacity: 0.5; filter: grayscale(1) }}</style>"
INK = "color: var(--jp-ui-font-color1, inherit)"
ALERT = (
    "margin: 4px 0; padding: 6px 10px; border-left: 4px solid #b00020; background: #fdecea; color:"
    " #5f0010"
)


def plain(label: str) -> str:
    """A class as people write it."""
    return label.replace("_", " ")


def alert(text: str) -> str:
    """One line that screen readers speak at once."""
    return f'<p role="alert" style="{ALERT}">{escape(text)}</p>'


def told(text: str) -> str:
    """One line that screen readers speak when they come to it."""
    return f'<p role="status" style="{INK}; margin: 4px 0; font-weight: bold">{escape(text)}</p>'


def picture(image: np.ndarray, alt: str, frame=None) -> str:
    """A picture `(H, W, channels)` in 0..255 as an `img`.

    `frame` are the pixels to outline, `(left, right), (top, bottom)`.
    """
    drawn = Image.fromarray(np.clip(show.as_rgb(image), 0, 255).astype(np.uint8))
    if frame and all(high > low for low, high in frame):
        (left, right), (top, bottom) = frame
        ImageDraw.Draw(drawn).rectangle(
            (left, top, right - 1, bottom - 1), outline=show.COLOURS[0], width=2
        )
    buffer = io.BytesIO()
    drawn.save(buffer, format="png", compress_level=1)  # the browser is on the same machine
    width, height = size_of(image.shape)
    style = f"display: block; width: {width}px; height: {height}px; max-width: none"
    return show.picture(buffer.getvalue(), alt, f'style="{style}"')


def size_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height at which a picture `(H, W, ...)` is shown, its longer side `SIDE` pixels."""
    height, width = shape[:2]
    return round(SIDE * width / max(shape[:2])), round(SIDE * height / max(shape[:2]))


def figure(classifier, state: State, answer: Answer) -> str:
    """The maps side by side, and what is left of the picture where their top is masked or kept."""
    name = plain(classifier.labels[state.target])
    tiles = []
    for technique, values in answer.maps.items():
        about = attribution.ABOUT[technique]
        clip = show.CLIP if about.heavy_tailed else 100.0
        title = attribution.spoken(technique)
        alt = f"{title} for {name} over the picture in grey; brightest {_peak(values)}"
        drawn = picture(show.overlay(values, answer.seen, clip), alt)
        drawn += colour_bar(values, clip, about.unit.format(classifier.unit))
        tiles.append((title, drawn))
    for number, ((technique, what), image) in enumerate(answer.cut.items()):
        share = state.mask if what == "masked" else state.keep
        said = classifier.written(answer.probabilities[2 + number, state.target])
        text = f"top {100 * share:.0f} % of {attribution.spoken(technique)} {what}: {said}"
        tiles.append((text, picture(image, f"the picture with the {text} {name}")))
    cells = "".join(
        f'<figure style="margin: 0 10px 8px 0; width: {SIDE}px">{image}<figcaption style="{INK}">'
        f"{escape(title)}</figcaption></figure>"
        for title, image in tiles
    )
    return (
        f'<div style="display: flex; flex-wrap: wrap; max-width: {2 * SIDE + 24}px">{cells}</div>'
    )


def colour_bar(values: np.ndarray, clip: float, unit: str) -> str:
    """What the colours of a map mean, as `show.overlay` blends them with a medium grey.

    Args:
        values: raw map `(h, w)`.
        clip: percentile of the magnitude above which values share the last colour.
        unit: of the values.
    """
    low, limit, _ = show.scale(values, clip=clip)
    grey = np.full((1, STOPS, 3), 127.5, np.float32)
    colours = show.overlay(np.linspace(low, limit, STOPS)[None], grey)[0]
    stops = ", ".join("rgb({}, {}, {})".format(*colour) for colour in colours)
    beyond = (np.abs(values) > limit).any()
    first = f"{'≤ ' if beyond and low else ''}{low:.2g}"
    last = f"{'≥ ' if beyond else ''}{limit:.2g}"
    ends = "".join(f"<span>{text}</span>" for text in (first, escape(unit), last))
    return (
        f'<div role="img" aria-label="colours from {first} to {last} {escape(unit)}"'
        f' style="height: 10px; background: linear-gradient(to right, {stops})"></div>'
        f'<div aria-hidden="true" style="{INK}; display: flex; justify-content: space-between;'
        f' font-size: 85%">{ends}</div>'
    )


def _peak(values: np.ndarray) -> str:
    """Where a map is largest, in words."""
    row, column = np.unravel_index(np.argmax(values), values.shape)
    across = ("left", "in the middle", "right")[min(2, 3 * int(column) // values.shape[1])]
    down = ("at the top", "half way down", "at the bottom")[min(2, 3 * int(row) // values.shape[0])]
    return f"{down}, {across}"


def table(classifier, state: State, answer: Answer) -> str:
    """The likeliest classes before and now, and the explained one, as numbers with bars."""
    before, now = answer.probabilities[:2]
    shown = [index for index, _, _ in likeliest(classifier, now)]
    rows = []
    for index in dict.fromkeys([state.target, *shown]):
        share = 0 if classifier.task == "regression" else now[index]
        width = f"width: {100 * share:.0f}px"
        bar = (
            '<span style="display: inline-block; height: 10px; background: #0072b2;'
            f' {width}"></span>'
        )
        mark = "font-weight: bold" if index == state.target else ""
        values = (classifier.written(chances[index]) for chances in (before, now))
        cells = (f'<td style="text-align: right; padding: 0 8px">{text}</td>' for text in values)
        rows.append(
            f'<tr style="{mark}"><td>{escape(plain(classifier.labels[index]))}</td>{"".join(cells)}'
            f'<td style="width: 104px">{bar}</td></tr>'
        )
    titles = ("class (explained: bold)", "untouched", "now", "")
    head = "".join(
        f'<th style="text-align: left; padding-right: 12px">{title}</th>' for title in titles
    )
    head = f"<tr>{head}</tr>"
    return (
        f'<table style="{INK}; border-collapse: collapse; line-height:'
        f' 1.5">{head}{"".join(rows)}</table>'
    )


def status(classifier, answer: Answer, milliseconds: float) -> str:
    """What the network says now and how long the answer took, computed and drawn, in the kernel."""
    now = answer.probabilities[1]
    top = int(now.argmax())
    said = f"{plain(classifier.labels[top])} ({classifier.written(now[top])})"
    text = f"{classifier.name} now says {said}"
    took = f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
    return f'<p role="status" style="{INK}">{escape(text)}. Answered in <b>{took}</b>.</p>'


def saved(run: str, more: str = "") -> str:
    """That a run file was written, and the command that makes its report."""
    command = f"make reports RUNS={run}"
    text = (
        f"Saved reports/runs/{escape(run)}.yaml.{escape(more)} Its report:"
        f" <code>{escape(command)}</code>"
    )
    return f'<p role="status" style="{INK}">{text}</p>'
