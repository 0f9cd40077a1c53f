"""A drawing: pictures put on each other by an SVG, as a report stores a figure.

Without matplotlib, because the index of all reports reads its thumbnails with it.
"""

import io
import re
import xml.etree.ElementTree as ET
from base64 import b64decode, b64encode
from dataclasses import dataclass
from html import escape
from urllib.parse import unquote

from PIL import Image

SVG = "{http://www.w3.org/2000/svg}"
# red, green and blue weigh as in `pictures.grey`
GREY = (
    "<filter id='in-grey' x='0' y='0' width='1' height='1' color-interpolation-filters='sRGB'>"
    f"<feColorMatrix values='{'.299 .587 .114 0 0 ' * 3}0 0 0 1 0'/></filter>"
)
WEBP = "data:image/webp;base64,"
PNG = b"\x89PNG\r\n\x1a\n"
LAZY = 'loading="lazy" decoding="async"'  # what is far down a page waits until it is near
_SCHEME = "data:image/svg+xml,"


@dataclass(frozen=True)
class Layer:
    """One picture of a figure.

    Attributes:
        content: WebP as a data URI.
        box: `(left, top, width, height)` in dots of the figure.
        opacity: 0 to 1.
        squares: whether its pixels, magnified, are squares and not smoothed.
        grey: whether it is shown in grey, as `pictures.grey` makes it.
    """

    content: str
    box: tuple[float, float, float, float]
    opacity: float = 1.0
    squares: bool = False
    grey: bool = False


@dataclass(frozen=True)
class Drawing:
    """A figure as pictures on each other, on white.

    Attributes:
        size: width and height in dots.
        shown: width and height in CSS pixels.
        layers: the lowest first.
    """

    size: tuple[int, int]
    shown: tuple[int, int]
    layers: tuple[Layer, ...]

    def uri(self) -> str:
        """The drawing as an SVG in a data URI, for the `src` of an `img`."""
        parts = "".join(
            f"<image href='{layer.content}' {placed(layer)} preserveAspectRatio='none'/>"
            for layer in self.layers
        )
        (width, height), (wide, high) = self.size, self.shown
        svg = (
            f"<svg xmlns='{SVG[1:-1]}' viewBox='0 0 {width} {height}' width='{wide}'"
            f" height='{high}'>{GREY * any(layer.grey for layer in self.layers)}"
            f"<rect width='100%' height='100%' fill='white'/>{parts}</svg>"
        )
        for sign in '%<>#"':  # what would end an address or an attribute
            svg = svg.replace(sign, f"%{ord(sign):02X}")
        return _SCHEME + svg

    def image(self) -> Image.Image:
        """The drawing as one picture, `size` dots, much as a browser shows it."""
        page = Image.new("RGBA", self.size, "white")
        for layer in self.layers:
            part = Image.open(io.BytesIO(b64decode(layer.content.removeprefix(WEBP))))
            left, top, width, height = map(round, layer.box)
            how = Image.Resampling.NEAREST if layer.squares else Image.Resampling.BILINEAR
            part = part.convert("L" if layer.grey else "RGBA").convert("RGBA")
            part = part.resize((width, height), how)
            if layer.opacity < 1:
                part.putalpha(part.getchannel("A").point(lambda a, o=layer.opacity: round(o * a)))
            page.alpha_composite(part, (left, top))
        return page.convert("RGB")


def picture(content: bytes | Drawing, alt: str, attributes: str = "") -> str:
    """PNG bytes or a drawing as an HTML picture of known size, with a text alternative.

    JupyterLab shows a plain PNG without its alternative; ipywidgets' own Image has none, and breaks
    over a tooltip.

    Args:
        content: PNG bytes, or a drawing.
        alt: what the picture shows, for people who cannot see it.
        attributes: further ones of the HTML element, written as in HTML, `style="..."` among them
            to say more than "as wide as there is room"; default none.

    Returns:
        HTML, one `img` element that holds the picture.
    """
    if isinstance(content, Drawing):
        (width, height), source = content.shown, content.uri()
    else:
        width, height = (int.from_bytes(content[place : place + 4], "big") for place in (16, 20))
        source = f"data:image/png;base64,{b64encode(content).decode()}"
    if "style=" not in attributes:
        attributes += ' style="max-width: 100%; height: auto"'
    return (
        f'<img alt="{escape(alt)}" width="{width}" height="{height}" {attributes.strip()}'
        f' src="{source}">'
    )


def placed(layer: Layer) -> str:
    """Attributes that put a layer where it belongs in its figure.

    Args:
        layer: of a drawing.

    Returns:
        Text as in SVG, `x='0' y='0' ...`.
    """
    names = ("x", "y", "width", "height")
    found = [f"{name}='{value:g}'" for name, value in zip(names, layer.box, strict=True)]
    return " ".join([*found, *look(layer)])


def look(layer: Layer) -> list[str]:
    """Attributes that say how a layer is shown.

    Args:
        layer: of a drawing.

    Returns:
        Texts as in SVG, such as `opacity='0.6'`.
    """
    found = [f"opacity='{layer.opacity:g}'"] * (layer.opacity < 1)
    found += ["filter='url(#in-grey)'"] * layer.grey
    return found + ["style='image-rendering:pixelated'"] * layer.squares


def read_drawing(uri: str) -> Drawing:
    """The drawing that `Drawing.uri` wrote; what it returns holds nothing but layers.

    Args:
        uri: a data URI.

    Returns:
        The `Drawing`.

    Raises:
        ValueError: anything else.
    """
    try:
        root = ET.fromstring(unquote(uri.removeprefix(_SCHEME)))
        size = tuple(int(number) for number in root.attrib["viewBox"].split()[2:])
        shown = int(root.attrib["width"]), int(root.attrib["height"])
        layers = tuple(_layer(child.attrib) for child in root.iter(f"{SVG}image"))
        found = Drawing(size, shown, layers)
        if found.uri() != uri:
            raise ValueError("it holds something else too")
    except (ET.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"not a drawing of layers: {uri[:60]!r} ({error})") from None
    return found


def _layer(found: dict[str, str]) -> Layer:
    content = found["href"]
    if not re.fullmatch(WEBP.replace("+", r"\+") + r"[A-Za-z0-9+/]+=*", content):
        raise ValueError(f"a layer is WebP, not {content[:40]!r}")
    left, top, width, height = (float(found[name]) for name in ("x", "y", "width", "height"))
    opacity = float(found.get("opacity", 1))
    box = (left, top, width, height)
    return Layer(content, box, opacity, "style" in found, "filter" in found)
