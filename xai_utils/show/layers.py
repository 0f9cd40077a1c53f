"""A figure as layers, so that a report travels: each kind of content is stored as what it is.

Photographs become lossy WebP, maps lossless WebP, lines and text one lossless WebP above them, as
sharp as in `show.png`. An SVG puts the layers together. Photographs and maps are stored in their
own resolution, and a browser magnifies them, but for those that `keeps_its_pixels` lists: they are
stored in dots of the figure, as drawn, and lossy if that takes more than 257 colours.
"""

import io
from base64 import b64encode
from collections.abc import Callable
from functools import cache

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.image import AxesImage
from PIL import Image

from xai_utils.show.drawing import WEBP, Layer

PHOTOGRAPH = {"quality": 90, "method": 1}
EXACT = {"lossless": True, "quality": 0, "method": 2}  # in as little time as the photographs
COLOURS = 257  # of a map: a colour map has 256, and one more marks what is missing
SMALL = 64 * 64  # pixels; so few are stored exactly, whatever they show
LONGEST = 16383  # pixels in one direction, all that WebP has room for
ROUGH = 3  # times magnified, pixels are shown as squares: matplotlib's rule for `imshow`


def encoder() -> Callable[[bytes, tuple[int, int]], str]:
    """A function `(RGBA bytes, (height, width)) -> data URI` that encodes equal pictures once."""
    return cache(_encoded)


def _encoded(pixels: bytes, shape: tuple[int, int]) -> str:
    picture = Image.frombytes("RGBA", shape[::-1], pixels)
    values = np.frombuffer(pixels, np.uint8).reshape(-1, 4)
    colours = picture.getcolors(COLOURS)
    grey = bool((values[:, :1] == values[:, 1:3]).all())
    # a photograph in grey has at most 256 colours too; a mask has few
    exact = len(values) < SMALL or colours and (not grey or len(colours) < 32)
    opaque = bool((values[:, 3] == 255).all())
    return _webp(picture.convert("RGB") if opaque else picture, EXACT if exact else PHOTOGRAPH)


def _webp(picture: Image.Image, settings: dict) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "webp", **settings)
    return WEBP + b64encode(buffer.getvalue()).decode()


class Renderer(RendererAgg):
    """Draws lines and text as usual, and keeps the pictures apart, below them, in `found`.

    A picture that covers what was drawn before takes its place. One through which that is seen
    comes above it: what was drawn becomes a layer of its own. What is longer than WebP has room for
    becomes several layers, side by side. Pictures arrive in their own resolution where
    `keeps_its_pixels` says so and in dots of the figure elsewhere; those that are cut by a shape
    other than a rectangle are not in `found` but drawn with the lines.
    """

    def __init__(self, width: float, height: float, dpi: float, encode: Callable):
        super().__init__(width, height, dpi)
        self.found, self.encode, self.photographs = [], encode, []
        self.draw_image = self._keep  # the class binds its own to every instance

    def option_scale_image(self) -> bool:
        return True

    def _keep(self, gc, x, y, pixels, transform=None):
        if gc.get_clip_path()[0] is not None:  # not a rectangle: it is drawn like lines
            return self._renderer.draw_image(gc, x, y, pixels)
        high, wide = pixels.shape[:2]
        opacity, squares = 1.0, True
        if transform is None:  # in dots of the figure already, the lowest row first
            left, right, bottom, top = x, x + wide, y, y + high
            pixels = pixels[::-1]
        else:
            (across, _, left), (_, up, bottom), _ = transform.get_matrix()
            left, bottom = left + x, bottom + y
            right, top = left + across, bottom + up
            if across < 0:
                left, right, pixels = right, left, pixels[:, ::-1]
            if up < 0:
                bottom, top = top, bottom
            else:
                pixels = pixels[::-1]
            opacity = 1.0 if gc.get_alpha() is None else gc.get_alpha()
            squares = all(map(_is_rough, (right - left, top - bottom), (wide, high)))
        left, right = round(left), round(right)
        top, bottom = round(self.height - top), round(self.height - bottom)
        # what lies above the figure or at its left would count from its other end
        rows, columns = slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))
        drawn = np.asarray(self.buffer_rgba())[rows, columns]
        if not drawn.size:
            return
        if opacity == 1 and (pixels[..., 3] == 255).all():
            drawn[:] = 0
        elif drawn[..., 3].any():
            self.close()
        box = (left, top, right - left, bottom - top)
        for part, place in _parts(pixels, box):
            content, grey = self._stored(part)
            self.found.append(Layer(content, place, opacity, squares, grey))

    def _stored(self, pixels: np.ndarray) -> tuple[str, bool]:
        """A picture's content, and whether that is a photograph of the figure to show in grey."""
        opaque = bool((pixels[..., 3] == 255).all())
        if (pixels[..., :1] == pixels[..., 1:3]).all():
            for content, photograph in self.photographs if opaque else ():
                if photograph.shape == pixels.shape:
                    light = np.asarray(Image.fromarray(photograph).convert("L"), np.int16)
                    if np.abs(light - pixels[..., 0]).max() < 4:  # rounded twice, cut off once
                        return content, True
            return self.encode(pixels.tobytes(), pixels.shape[:2]), False
        content = self.encode(pixels.tobytes(), pixels.shape[:2])
        if opaque:
            self.photographs.append((content, pixels))
        return content, False

    def close(self) -> None:
        """Lines and text drawn so far become a layer."""
        drawn = np.asarray(self.buffer_rgba())
        if drawn[..., 3].any():
            high, wide = drawn.shape[:2]
            for part, place in _parts(drawn, (0, 0, wide, high)):
                self.found.append(Layer(_webp(Image.fromarray(part), EXACT), place))
        self.clear()


def _parts(pixels: np.ndarray, box: tuple[int, int, int, int]) -> list[tuple[np.ndarray, tuple]]:
    """A picture and its box, in parts that WebP has room for.

    Only one that is stored in dots of the figure is so large, see `keeps_its_pixels`.
    """
    high, wide = pixels.shape[:2]
    if max(high, wide) <= LONGEST:
        return [(pixels, box)]
    places = [(x, y) for y in range(0, high, LONGEST) for x in range(0, wide, LONGEST)]
    parts = [(pixels[y : y + LONGEST, x : x + LONGEST], x, y) for x, y in places]
    return [(part, (box[0] + x, box[1] + y, *part.shape[1::-1])) for part, x, y in parts]


def _is_rough(dots: float, pixels: int) -> bool:
    return bool(dots > ROUGH * pixels or round(dots / pixels, 6) in (1, 2))


def keeps_its_pixels(image: AxesImage) -> bool:
    """Whether an image of a figure is stored as it is, and magnified where it is shown.

    Images with more than twice as many pixels as dots are not, nor those cut by their axes or by
    another shape, nor turned ones, nor those whose author chose how they are resampled or an
    opacity for each pixel, nor those longer than WebP has room for.
    """
    (high, wide), box = image.get_array().shape[:2], image.get_window_extent()
    bounds = (image.axes.bbox, image.get_clip_box() or image.axes.bbox)
    fits = all(
        bound.padded(1).contains(*corner) for bound in bounds for corner in (box.min, box.max)
    )
    small = wide <= 2 * abs(box.width) and high <= 2 * abs(box.height)
    short = max(wide, high) <= LONGEST
    chosen = image.get_interpolation() not in ("auto", "antialiased")
    cut = image.get_clip_path() is not None
    even = np.ndim(image.get_alpha()) == 0  # an opacity for each pixel would be lost
    return fits and small and short and even and not chosen and not cut and _is_upright(image)


def _is_upright(image: AxesImage) -> bool:
    """Whether rows and columns of an image are horizontal and vertical where it is drawn."""
    transform = image.get_transform()
    return transform.is_affine and not transform.get_matrix()[[0, 1], [1, 0]].any()
