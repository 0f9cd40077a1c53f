"""How the explorer shows an answer: as strings of HTML, no widgets.

Pictures are PNG with text alternatives, probabilities are bars.
"""

import io
from html import escape

import numpy as np
from PIL import Image, ImageDraw

from xai_suite.explorer.parts import SHOWN, Parts
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


def parts(classifier, name: str, found: Parts, target: int) -> str:
    """The strongest factors, a row each, and the nearest pictures below them, as one figure.

    Above it stands what there is not, and why.

    Args:
        name: of the picture, for the text alternative.
        found: of `find_parts`.
        target: class whose score the importance is of.
    """
    rows, titles = [], []
    for r in range(_shown(found)):
        here = show.Tile(found.seen, found.maps[..., r], "" if r else "where it is", "amount")
        own = [show.Tile(crop, title="" if r else "most of it") for crop in found.factors.crops[r]]
        other = [
            show.Tile(place.crop, title=f"{_short(place.name)} {100 * place.share:.0f} %")
            for place in (found.elsewhere[r] if found.elsewhere else ())
        ]
        rows.append([here, *own, *other])
        titles.append(f"{r + 1}: {_index(found, r)}")
    if found.nearest:
        near = [
            show.Tile(one.image, title=f"{_short(one.name)} {one.similarity:.2f}")
            for one in found.nearest
        ]
        rows.append(near)
        titles.append("nearest")
    missing = alert("; ".join(found.missing)) if found.missing else ""
    if not rows:
        return missing
    drawn = show.light(show.tiles(rows, titles, width=1.6))
    explained = plain(classifier.labels[target])
    said = escape(" ".join(_rests_on(found, explained)))
    image = show.picture(drawn, " ".join(_in_words(found, name, explained)))
    return (
        f'{missing}<figure style="margin: 8px 0">{image}<figcaption style="{INK}; max-width: 90ch">'
        f"{said}</figcaption></figure>"
    )


def _shown(found: Parts) -> int:
    return min(SHOWN, len(found.factors.vectors)) if found.factors else 0


def _short(name: str) -> str:
    """A picture's name for a small tile: the file's, at most 10 letters."""
    name = plain(name.split("/")[-1])
    return name if len(name) <= 10 else f"{name[:9]}…"


def _index(found: Parts, r: int) -> str:
    return f"{found.factors.importance[r]:.2f} ± {found.factors.errors[r]:.2f}"


def _rests_on(found: Parts, explained: str) -> list[str]:
    """What the figure shows and how little it rests on."""
    said = []
    if found.factors:
        count = len(found.factors.vectors)
        said += [
            f"Parts for {explained} at layer {found.layer}: {found.crops} crops of this one picture"
            f" as sums of {count} factors, the {_shown(found)} most important shown. Left of each"
            " row stands how much the score rests on it (total Sobol index ± error).",
            f"The factors make up {100 * found.held:.0f} % of the picture's own map; the index says"
            " nothing of the rest.",
        ]
    if found.elsewhere:
        said.append(
            f"Right: the places with most of it in {found.searched} other pictures, in % of the"
            " most in this one."
        )
    if found.nearest:
        said.append(
            f"{'Last row: the' if found.factors else 'The'} nearest of {found.searched} other"
            f" pictures, with the cosine of their codes and this one's at layer {found.layer}; of"
            " so few even the nearest may be far."
        )
    return said


def _in_words(found: Parts, name: str, explained: str) -> list[str]:
    """The text alternative: order and place of the factors, and the nearest pictures."""
    said, name = [], name.split("/")[-1]
    for r in range(_shown(found)):
        where = f"most of it {_peak(found.maps[..., r])}"
        places = found.elsewhere[r] if found.elsewhere else ()
        other = " and ".join(f"{place.name} ({100 * place.share:.0f} %)" for place in places)
        elsewhere = f"; elsewhere in {other}" if other else ""
        said.append(
            f"Factor {r + 1} of {name} for {explained}, {_index(found, r)}: {where}{elsewhere}."
        )
    if found.nearest:
        near = ", ".join(f"{one.name} {one.similarity:.2f}" for one in found.nearest)
        said.append(f"Nearest to {name}, by the cosine: {near}.")
    return said


def saved(run: str, more: str = "") -> str:
    """That a run file was written, and the command that makes its report."""
    command = f"make reports RUNS={run}"
    text = (
        f"Saved reports/runs/{escape(run)}.yaml.{escape(more)} Its report:"
        f" <code>{escape(command)}</code>"
    )
    return f'<p role="status" style="{INK}">{text}</p>'
