"""Drawing in unit coordinates with supersampling, and the finish that makes shapes look lit."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]

SUPERSAMPLING = 3
LONG_SIDE = 192


def shade(color: Color, factor: float) -> Color:
    """Scale a colour, clipped to [0, 255]."""
    red, green, blue = (int(min(max(channel * factor, 0), 255)) for channel in color)
    return red, green, blue


class Canvas:
    """A transparent picture whose x runs from 0 to 1 and whose y runs from 0 to `aspect`.

    Args:
        aspect: Height / width.
    """

    def __init__(self, aspect: float) -> None:
        width = LONG_SIDE / max(aspect, 1.0)
        self.aspect = aspect
        self._unit = width * SUPERSAMPLING
        size = (math.ceil(self._unit), math.ceil(self._unit * aspect))
        self._image = Image.new("RGBA", size, (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._image)

    def _scale(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._unit, y * self._unit) for x, y in points]

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._scale(points), fill=(*color, 255))

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color, r: float = 0) -> None:
        """Fill a rectangle with corners of radius `r`."""
        corners = [value for point in self._scale([(x0, y0), (x1, y1)]) for value in point]
        self._draw.rounded_rectangle(corners, radius=r * self._unit, fill=(*color, 255))

    def disc(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        """Fill an ellipse around (x, y)."""
        corners = self._scale([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.ellipse([value for point in corners for value in point], fill=(*color, 255))

    def ring(self, x: float, y: float, radius: float, line: float, color: Color) -> None:
        """Draw a circle of line width `line`."""
        corners = self._scale([(x - radius, y - radius), (x + radius, y + radius)])
        self._draw.ellipse(
            [value for point in corners for value in point],
            outline=(*color, 255),
            width=max(1, round(line * self._unit)),
        )

    def line(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draw a polyline with rounded joints."""
        scaled = self._scale(points)
        pixels = max(1, round(width * self._unit))
        self._draw.line(scaled, fill=(*color, 255), width=pixels, joint="curve")
        for x, y in (scaled[0], scaled[-1]):
            r = pixels / 2
            self._draw.ellipse([x - r, y - r, x + r, y + r], fill=(*color, 255))

    def finish(self, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Light, stain and grain the drawing, shrink it and crop it to what is visible."""
        size = (
            max(1, round(self._image.width / SUPERSAMPLING)),
            max(1, round(self._image.height / SUPERSAMPLING)),
        )
        small = self._image.resize(size, Image.Resampling.LANCZOS)
        box = small.getchannel("A").getbbox()
        if box is None:
            raise ValueError("nothing was drawn on the canvas")
        pixels = np.asarray(small.crop(box)).astype(np.float64)
        height, width = pixels.shape[:2]
        across = np.linspace(-1, 1, width)[None, :] * rng.uniform(-0.22, 0.22)
        down = np.linspace(-1, 1, height)[:, None] * rng.uniform(-0.05, 0.2)
        stains = Image.fromarray(rng.normal(0, 1, (7, 5)).astype(np.float32))
        blotches = np.asarray(stains.resize((width, height), Image.Resampling.BICUBIC))
        grain = rng.normal(0, 5, (height, width, 1))
        light = 1.0 + across - down + 0.06 * blotches
        pixels[..., :3] = pixels[..., :3] * light[..., None] + grain
        return pixels.clip(0, 255).round().astype(np.uint8)
