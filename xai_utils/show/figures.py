"""Figures: the only room that resizes, clips, normalises and colours maps.

Drawing functions return a matplotlib `Figure` that belongs to nobody else (no pyplot state),
`figure` displays one with its text alternative, `light` and `png` turn one into what a page or a
file holds. Colour maps are safe for colour-blind eyes: inferno for what is never negative,
blue-white-red around zero for what is signed.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from PIL import Image

from xai_utils.pictures import grey, resize_map
from xai_utils.show import layers
from xai_utils.show.drawing import LAZY, Drawing, picture

DPI = 120  # drawn finely, shown at four fifths, so that it stays sharp when magnified or projected
# Okabe and Ito's colours, told apart by colour-blind eyes too: for boxes, bright ones first; for
# lines, dark ones.
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2")
LINES = matplotlib.cycler(
    color=["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "black"]
)
STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "figure.constrained_layout.use": True,
    "axes.grid": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": LINES,
}
# percentile at which heavy-tailed maps are clipped for display; the colour bar says so by its arrow
CLIP = 99.5
OPACITY = 0.6  # of a map over a picture
LONGEST_TITLE = 24  # letters of a row's title, which stands beside its row


def subplots(rows: int = 1, columns: int = 1, width: float = 3.0, height: float = 2.8, **settings):
    """A new figure and its axes, which belong to nobody else (no pyplot state).

    Args:
        rows, columns: of axes; default one.
        width, height: of each axes, in inches.
        settings: of matplotlib's `Figure.subplots`, such as `sharex=True`.

    Returns:
        `(Figure, Axes)` for one axes, else `(Figure, array of Axes)`.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width * columns, height * rows), dpi=DPI)
        return fig, fig.subplots(rows, columns, **settings)


def png(fig: Figure) -> bytes:
    """The figure as PNG bytes, 120 dots an inch on white, for a file that any program reads.

    `figure` and `stepper` store a figure as `light` does, which is several times smaller; a PNG of
    the same figure is `Path("map.png").write_bytes(show.png(fig))`.

    Args:
        fig: a matplotlib `Figure`.

    Returns:
        PNG bytes.
    """
    fig.set(dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(fig)
    with matplotlib.rc_context(STYLE):
        canvas.draw()  # once, where `savefig` draws a figure with a layout twice
    buffer = io.BytesIO()
    colours = np.asarray(canvas.buffer_rgba())[..., :3]  # on white nothing shines through
    # 2 % larger than with level 6, in half the time
    Image.fromarray(colours).save(buffer, "png", compress_level=4)
    return buffer.getvalue()


def light(fig: Figure, encode=None) -> Drawing:
    """The figure as a report stores it: layers of WebP, put together by an SVG.

    Photographs are lossy. Maps are exact and lossless, a colour for each of their values, and
    magnified by the browser; those that are cut, turned or shrunk, or whose author chose how they
    are resampled, are stored as `png` draws them, lossy if that takes more than 257 colours. Lines
    and text are those of `png`, lossless.

    Args:
        fig: a matplotlib `Figure`.
        encode: as `layers.encoder` makes it, shared by the frames of a stepper, so that what
            recurs is encoded once; default one of its own.

    Returns:
        The `Drawing`, of the figure's size at 120 dots an inch.
    """
    fig.set(dpi=DPI, facecolor="none")  # the SVG brings the white
    size = FigureCanvasAgg(fig).get_width_height(physical=True)
    renderer = layers.Renderer(*size, DPI, encode or layers.encoder())
    images = fig.findobj(AxesImage)
    before = [image.get_interpolation() for image in images]
    try:
        for image, interpolation in zip(images, before, strict=True):
            if layers.keeps_its_pixels(image):
                image.set_interpolation("none")
            elif interpolation == "none":  # as a PNG has it
                image.set_interpolation("nearest")
        with matplotlib.rc_context(STYLE):
            fig.draw(renderer)
    finally:
        for image, interpolation in zip(images, before, strict=True):
            image.set_interpolation(interpolation)
    renderer.close()
    shown = tuple(round(side * DPI / 1.25) for side in fig.get_size_inches())
    return Drawing(size, shown, tuple(renderer.found))


def figure(fig: Figure, alt: str) -> None:
    """Display a figure with its text alternative, for people who cannot see it.

    It is displayed as `light` stores it. For a PNG, see `png`.

    Args:
        fig: a matplotlib `Figure`.
        alt: one sentence or more that says what the picture shows.

    Raises:
        ValueError: no text.
    """
    from IPython.display import display

    if not alt.strip():
        raise ValueError("figure needs alt=: one sentence that says what the picture shows")
    html = picture(light(fig), alt, LAZY)
    display({"text/html": html, "text/plain": alt}, raw=True)


def as_rgb(image, bands: Sequence[int] | None = None) -> np.ndarray:
    """A picture of any number of channels as it is drawn: `(H, W, 3)` in its own range.

    One channel is grey, of two the mean is grey, of four or more the first three are drawn.

    Args:
        image: `(H, W, C)`, or `(H, W)` for one channel.
        bands: channels to draw instead, counted from 0: three as red, green and blue, or one or
            two in grey.

    Returns:
        `(H, W, 3)`, in the picture's own range and, but for a mean of two, its type.

    Raises:
        ValueError: another shape, or bands that the picture does not have.
    """
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or not image.size:
        raise ValueError(f"a picture to draw is (H, W, C), not of shape {image.shape}")
    channels = image.shape[2]
    if bands is not None:
        if not 1 <= len(bands) <= 3 or any(not 0 <= band < channels for band in bands):
            raise ValueError(
                f"bands are one to three channels of 0 to {channels - 1}, not {bands!r:.60}"
            )
        image = image[..., list(bands)]
    if image.shape[2] > 2:
        return image[..., :3]
    return np.repeat(image if image.shape[2] == 1 else grey(image)[..., None], 3, axis=2)


def heat_map(
    ax: Axes,
    values: np.ndarray,
    image=None,
    unit: str = "",
    limit: float | None = None,
    clip: float = 100.0,
    signed: bool | None = None,
):
    """Draw one map `(h, w)`, over a picture if there is one, with a colour bar and its unit.

    Args:
        ax: where to draw.
        values: raw map; signed ones are coloured around zero, nan leaves its place empty.
        image: picture `(H, W, C)` in 0..255 to lay it over, shown in grey so that colour always
            means the map; see `as_rgb` for its channels.
        unit: label of the colour bar.
        limit: value of the last colour; default the map's largest magnitude, or its percentile
            `clip`.
        clip: percentile of the magnitude above which values share the last colour.
        signed: colours around zero, for maps that are compared with signed ones; default: only if
            a value is negative.

    Returns:
        The matplotlib `AxesImage` of the map.
    """
    values = np.asarray(values, np.float32)
    low, high, name = scale(values, limit, clip, signed)
    colours = _colours(name)
    over = bool((np.abs(values) > high * (1 + 1e-6)).any())
    if image is not None:
        ax.imshow(grey(as_rgb(image)), cmap="gray", vmin=0, vmax=255)
        values = resize_map(values, np.shape(image)[:2])
    drawn = ax.imshow(
        values, cmap=colours, vmin=low, vmax=high, alpha=None if image is None else OPACITY
    )
    extend = ("both" if low else "max") if over else "neither"
    bar_colours = colours if image is None else _colours(name, over=True)
    bar = ax.figure.colorbar(
        ScalarMappable(drawn.norm, bar_colours),
        cax=ax.inset_axes((1.03, 0, 0.05, 1)),
        label=unit,
        extend=extend,
    )
    bar.formatter.set_powerlimits((-2, 3))
    # over the numbers, clear of them and of the tile's title
    bar.ax.yaxis.get_offset_text().set_horizontalalignment("left")
    bar.ax.yaxis.OFFSETTEXTPAD = 8
    # an image is drawn sooner than a strip for each colour, and stored once for all bars
    bar.solids.remove()
    ramp = np.linspace(low, high, 4 * colours.N + 1)[1::2, None]
    bar.ax.imshow(
        ramp, bar_colours, drawn.norm, extent=(0, 1, low, high), origin="lower", aspect="auto"
    )
    bar.ax.set_title("", y=1)  # see `tiles`
    return drawn


def overlay(values: np.ndarray, image: np.ndarray, clip: float = 100.0) -> np.ndarray:
    """A map over a picture as `heat_map` draws it, uint8 `(H, W, 3)`, within milliseconds.

    Without axes and without matplotlib's drawing.

    Args:
        values: raw map `(h, w)`; signed ones are coloured around zero, nan shows the picture.
        image: picture `(H, W, C)` in 0..255; see `as_rgb` for its channels.
        clip: percentile of the magnitude above which values share the last colour.

    Returns:
        uint8 `(H, W, 3)`.
    """
    values, image = np.asarray(values, np.float32), as_rgb(image)
    low, high, colours = scale(values, None, clip)
    place = np.clip((resize_map(values, image.shape[:2]) - low) / (high - low), 0, 1)
    colour = _colours(colours)(place, bytes=True)
    opacity = OPACITY * (colour[..., 3:] > 0)  # nan has no colour
    shown = (1 - opacity) * np.clip(grey(image), 0, 255)[..., None] + opacity * colour[..., :3]
    return np.rint(shown).astype(np.uint8)


def scale(
    values: np.ndarray,
    limit: float | None = None,
    clip: float = 100.0,
    signed: bool | None = None,
) -> tuple[float, float, str]:
    """Values of the first and the last colour of a map, and its colours.

    Args:
        values: raw map `(h, w)`; values that are not finite do not count.
        limit: value of the last colour; default the map's largest magnitude, or its percentile
            `clip`.
        clip: percentile of the magnitude above which values share the last colour.
        signed: colours around zero; default: only if a value is negative.

    Returns:
        The two values, and the name of the colour map.
    """
    sizes = np.abs(values[np.isfinite(values)])
    sizes = sizes if sizes.size else np.zeros(1)
    limit = limit or float(np.percentile(sizes, clip)) or float(sizes.max()) or 1.0
    return (-limit, limit, "RdBu_r") if _is_signed(values, signed) else (0.0, limit, "inferno")


def _is_signed(values: np.ndarray, signed: bool | None) -> bool:
    """Whether a map is coloured around zero: as asked for, else if a value is negative."""
    return bool((np.asarray(values) < 0).any()) if signed is None else signed


@cache
def _colours(name: str, over: bool = False) -> ListedColormap:
    """A colour map in 128 steps, each the mean of two of its 256 and within 2 of 255 of both.

    A map in these colours is stored in three quarters of the room. `over` is how they look in a
    map that lies over a picture, where that is of a middle grey.
    """
    pairs = matplotlib.colormaps[name](np.arange(256)).reshape(-1, 2, 4)
    steps = pairs.mean(axis=1)
    if over:
        steps[:, :3] = OPACITY * steps[:, :3] + (1 - OPACITY) * 0.5
    return ListedColormap(steps, name)


@dataclass(frozen=True)
class Box:
    """A box to draw, with its text and its colour.

    Attributes:
        box: `(x_min, y_min, x_max, y_max)` in pixels of what it is drawn on.
        label: text at its edge; default none.
        colour: of its line and of its label's ground, as matplotlib takes it.
    """

    box: tuple[float, float, float, float]
    label: str = ""
    colour: str = COLOURS[0]


def boxes(detections: Sequence) -> list[Box]:
    """Detections as boxes to draw, each in a colour that it keeps in every figure.

    There are seven colours; then they come again.

    Args:
        detections: of a `models.Detector`, or objects with a `box` and a text of their own.

    Returns:
        As many `Box`, labelled with the detections' texts.
    """
    return [
        Box(detection.box, str(detection), COLOURS[i % len(COLOURS)])
        for i, detection in enumerate(detections)
    ]


def draw_boxes(ax: Axes, drawn: Sequence[Box]) -> None:
    """Draw boxes with their labels, in a dark rim that shows them on every colour.

    Labels stand in a corner of their box, where they cover no other label and stay on the picture.

    Args:
        ax: where to draw; its picture's pixels are the boxes' unit.
        drawn: the boxes.
    """
    taken = []
    for mark in drawn:
        left, top, right, bottom = mark.box
        rim = [withStroke(linewidth=4.5, foreground="black")]
        ax.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5),
                right - left,
                bottom - top,
                fill=False,
                edgecolor=mark.colour,
                linewidth=2.5,
                path_effects=rim,
            )
        )
        if mark.label:
            taken.append(_free_place(ax, mark, taken))
            ax.annotate(
                mark.label,
                taken[-1][:2],
                (4, -4),
                fontsize=10,
                textcoords="offset points",
                va="top",
                color="black",
                bbox={"facecolor": mark.colour, "edgecolor": "black", "pad": 1.5},
            )


def _free_place(ax: Axes, mark: Box, taken: Sequence[tuple]) -> tuple:
    """Where a box's label covers no other: `(x_min, y_min, x_max, y_max)`, in the picture's pixels.

    The box's corners are tried first, then lines further down; if none is free, it is the first.
    """
    across, down = ax.get_xlim()[1], ax.get_ylim()[0]  # rows are counted downwards
    point = across * ax.figure.dpi / 72 / ax.bbox.width  # the picture's pixels in a point
    wide = point * (TextPath((0, 0), mark.label, size=10).get_extents().width + 10)
    high = point * 18
    left, top, right, bottom = mark.box
    corners = [(x, y) for x in (left, right - wide) for y in (top, bottom - high)]
    corners += [(left, top + line * high) for line in range(1, 5)]
    places = []
    for x, y in corners:
        x, y = max(0, min(x, across - wide)), max(0, min(y, down - high))
        places.append((x, y, x + wide, y + high))
    return next((place for place in places if not any(_touch(place, t) for t in taken)), places[0])


def _touch(one: tuple, other: tuple) -> bool:
    """Whether two boxes have a place in common."""
    return all(one[i] < other[i + 2] and other[i] < one[i + 2] for i in (0, 1))


@dataclass(frozen=True)
class Tile:
    """One place in `tiles`: a picture, a map, or a map over a picture.

    Attributes:
        image: picture `(H, W, C)` in 0..255; default none.
        values: raw map `(h, w)`; default none.
        title: of the tile.
        unit: label of the map's colour bar.
        limit: value of the map's last colour; default its largest magnitude, or its percentile
            `clip`.
        clip: percentile of the magnitude above which values share the last colour; default 100.
        boxes: drawn over the picture, in its pixels.
        bands: channels of the picture to draw, see `as_rgb`.
        signed: colours around zero, for maps that are compared with signed ones; default: only if
            a value is negative.
    """

    image: np.ndarray | None = None
    values: np.ndarray | None = None
    title: str = ""
    unit: str = ""
    limit: float | None = None
    clip: float = 100.0
    boxes: Sequence[Box] = ()
    bands: Sequence[int] | None = None
    signed: bool | None = None


def tiles(
    rows: Sequence[Sequence[Tile]], row_titles: Sequence[str] = (), width: float = 2.9
) -> Figure:
    """A grid of tiles, every row as long as the longest.

    Args:
        rows: of tiles.
        row_titles: one text for each row, at its left; default none.
        width: of a column, in inches.

    Returns:
        A matplotlib `Figure`.
    """
    fig, axes = _grid(rows, [*row_titles], width)
    for row, row_axes in zip(rows, axes, strict=True):
        for tile, ax in zip(row, row_axes, strict=False):
            ax.set_axis_off()
            image = None if tile.image is None else as_rgb(tile.image, tile.bands)
            if tile.values is not None:
                heat_map(ax, tile.values, image, tile.unit, tile.limit, tile.clip, tile.signed)
            elif image is not None:
                ax.imshow(np.clip(image, 0, 255).astype(np.uint8))
            draw_boxes(ax, tile.boxes)
            # left to itself, matplotlib measures all ticks before it places a title
            ax.set_title(tile.title, y=1)
    for title, row_axes in zip(row_titles, axes, strict=False):
        row_axes[0].text(
            -0.06,
            0.5,
            _short(title),
            transform=row_axes[0].transAxes,
            rotation=90,
            va="center",
            ha="right",
            fontsize=12,
        )
    return fig


def _short(title: str) -> str:
    """A row's title, without its middle where it is too long to stand beside the row."""
    if len(title) <= LONGEST_TITLE:
        return title
    return f"{title[: LONGEST_TITLE // 2 - 1]}…{title[-LONGEST_TITLE // 2 :]}"


def _grid(
    rows: Sequence[Sequence[Tile]], titles: Sequence[str], width: float
) -> tuple[Figure, list[list[Axes]]]:
    """A figure and its axes by arithmetic: matplotlib's solver takes longer than all drawing."""
    columns = list(zip_longest(*rows, fillvalue=Tile()))
    right = [_beside(column, width) for column in columns]
    left = 0.36 if titles else 0.04
    side = (width * len(columns) - left - sum(right)) / len(columns)
    above = [0.1 + 0.2 * max(1 + tile.title.count("\n") for tile in row) for row in rows]
    # beside a flat picture, the bar's label is what needs height: some 0.08 inches a letter
    labels = [0.08 * max(len(tile.unit) for tile in row) - 0.3 for row in rows]
    tall = [
        max(side * max(_aspect(tile) for tile in row), label) for row, label in zip(rows, labels)
    ]
    # so does a row's title: some 0.1 inches a letter
    for i, title in enumerate(titles[: len(rows)]):
        tall[i] = max(tall[i], 0.1 * min(len(title), LONGEST_TITLE) - 0.2)
    height = sum(above) + sum(tall) + 0.12
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width * len(columns), height), dpi=DPI, layout="none")
        total, axes, bottom = fig.get_figwidth(), [], height
        for row, gap, high in zip(rows, above, tall, strict=True):
            bottom -= gap + high
            lefts = left + np.cumsum([0.0, *(side + space for space in right)])
            axes.append(
                [
                    fig.add_axes((lefts[i] / total, bottom / height, side / total, high / height))
                    for i in range(len(row))
                ]
            )
    return fig, axes


def _beside(column: Sequence[Tile], width: float) -> float:
    """Inches at the right of a column, for its colour bars, their numbers and their labels."""
    maps = [tile for tile in column if tile.values is not None]
    if not maps:
        return 0.06
    signed = any(_is_signed(tile.values, tile.signed) for tile in maps)
    if not any(tile.unit for tile in maps):
        return 0.8 + 0.15 * signed  # a number of five characters, and clear of the next tile
    # numbers and label of a bar grow with the tile
    return max(0.92 + 0.15 * signed, 0.68 + 0.1 * width)


def _aspect(tile: Tile) -> float:
    shown = tile.values if tile.image is None else tile.image
    return 0.0 if shown is None else np.shape(shown)[0] / np.shape(shown)[1]


def panel(
    classifier, images, grad_cam: np.ndarray, saliency: np.ndarray, names: Sequence[str] = ()
) -> Figure:
    """The study's panel, one row an image: predicted class, Grad-CAM over it, saliency map.

    Args:
        classifier: a `models.Classifier`, for the predictions.
        images: prepared batch `(N, H, W, C)` in 0..255.
        grad_cam, saliency: raw maps `(N, h, w)` and `(N, H, W)` of the predicted classes.
        names: titles of the rows.

    Returns:
        A matplotlib `Figure`.
    """
    rows = [
        [
            Tile(image, title=classifier.title(top)),
            Tile(image, cam, "Grad-CAM", f"{classifier.unit} per position"),
            Tile(None, gradient, "saliency", f"{classifier.unit} per grey level", clip=CLIP),
        ]
        for image, top, cam, gradient in zip(
            images, classifier.top(images, 1), grad_cam, saliency, strict=True
        )
    ]
    return tiles(rows, names, width=3.2)
