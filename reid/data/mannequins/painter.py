"""Filled shapes with sub-pixel corners, drawn into an image and its label mask together."""

from collections.abc import Sequence
from math import cos, hypot, pi, sin

import numpy as np

from reid._optional import require
from reid.data.mannequins.palette import Colour

cv2 = require("cv2")
cv2.setNumThreads(0)

Point = tuple[float, float]

_SHIFT = 4
_ONE = 1 << _SHIFT
# A box of 2:1 leaves a figure of natural width too little of the picture.
_STRETCH = 1.2
_HALF_CIRCLE = [(cos(pi * i / 5), sin(pi * i / 5)) for i in range(6)]
_CIRCLE = [(cos(2 * pi * i / 16), sin(2 * pi * i / 16)) for i in range(16)]


class Painter:
    """Draws in body coordinates: x to the right, y up, 1 = the figure's height.

    Args:
        image: Canvas (H, W, 3) uint8, drawn in place.
        mask: Labels (H, W) uint8, drawn in place.
        origin: Pixel (x, y) of the point between the feet.
        scale: Pixels per body height.
        label: Label written whatever the part, or None to write the part's own.
    """

    def __init__(
        self,
        image: np.ndarray,
        mask: np.ndarray,
        origin: Point,
        scale: float,
        label: int | None = None,
    ) -> None:
        self.image = image
        self.mask = mask
        self.origin = origin
        self.scale = scale
        self.label = label

    def polygon(self, points: Sequence[Point], colour: Colour, label: int) -> None:
        """Fill a polygon with one colour."""
        corners = self._fixed(points)
        cv2.fillPoly(self.image, [corners], colour, cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.mask, [corners], self.label or label, cv2.LINE_8, _SHIFT)

    def detail(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon in the image only: an ornament on a part already labelled."""
        cv2.fillPoly(self.image, [self._fixed(points)], colour, cv2.LINE_AA, _SHIFT)

    def line(self, start: Point, end: Point, colour: Colour, width: float) -> None:
        """Draw a line in the image only."""
        corners = self._fixed((start, end))
        thickness = max(1, round(width * self.scale))
        cv2.line(
            self.image,
            tuple(map(int, corners[0])),
            tuple(map(int, corners[1])),
            colour,
            thickness,
            cv2.LINE_AA,
            _SHIFT,
        )

    def pattern(
        self,
        points: Sequence[Point],
        colours: tuple[Colour, Colour],
        label: int,
        kind: str,
        period: float,
        duty: float,
        start: Point,
        end: Point,
    ) -> None:
        """Fill a polygon with a repeating pattern laid along the axis from start to end."""
        if kind == "plain":
            self.polygon(points, colours[0], label)
            return
        corners = self._fixed(points)
        height, width = self.mask.shape
        left, top = (int(value) for value in corners.min(0) // _ONE)
        right, bottom = (int(value) + 2 for value in corners.max(0) // _ONE)
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, width), min(bottom, height)
        if left >= right or top >= bottom:
            return
        inside = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(inside, [corners - (left * _ONE, top * _ONE)], 1, cv2.LINE_8, _SHIFT)
        x0, y0 = self.pixel(start)
        x1, y1 = self.pixel(end)
        length = hypot(x1 - x0, y1 - y0) or 1.0
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        columns = np.arange(left, right, dtype=np.float32)[None] - x0
        rows = np.arange(top, bottom, dtype=np.float32)[:, None] - y0
        along = columns * ux + rows * uy
        across = rows * ux - columns * uy
        step = period * self.scale
        if kind == "bands":
            second = along / step % 1 < duty
        elif kind == "columns":
            second = (across / step + 0.5 * duty) % 1 < duty
        elif kind == "checks":
            second = (along / step % 1 < 0.5) ^ (across / step % 1 < 0.5)
        elif kind == "diagonal":
            second = (along + across) / (1.4 * step) % 1 < duty
        elif kind == "halves":
            second = along > (0.35 + 0.45 * duty) * length
        else:
            second = along < (0.12 + 0.25 * duty) * length
        region = self.image[top:bottom, left:right]
        labels = self.mask[top:bottom, left:right]
        inside = inside.view(bool)
        region[inside & ~second] = colours[0]
        region[inside & second] = colours[1]
        labels[inside] = self.label or label

    def pixel(self, point: Point) -> Point:
        """Body coordinates to pixels."""
        return (
            self.origin[0] + point[0] * self.scale * _STRETCH,
            self.origin[1] - point[1] * self.scale,
        )

    def _fixed(self, points: Sequence[Point]) -> np.ndarray:
        x0, y0 = self.origin[0] * _ONE, self.origin[1] * _ONE
        scale = self.scale * _ONE
        wide = scale * _STRETCH
        return np.array([(x0 + x * wide, y0 - y * scale) for x, y in points]).astype(np.int32)


def limb(start: Point, end: Point, r0: float, r1: float) -> list[Point]:
    """Outline of a tapered limb with round ends of radius r0 and r1."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = hypot(dx, dy) or 1e-6
    dx, dy = dx / length, dy / length
    outline = [
        (end[0] + r1 * (s * dx + c * dy), end[1] + r1 * (s * dy - c * dx)) for c, s in _HALF_CIRCLE
    ]
    outline += [
        (start[0] - r0 * (s * dx + c * dy), start[1] - r0 * (s * dy - c * dx))
        for c, s in _HALF_CIRCLE
    ]
    return outline


def ellipse(centre: Point, rx: float, ry: float) -> list[Point]:
    """Outline of an upright ellipse."""
    return [(centre[0] + rx * c, centre[1] + ry * s) for c, s in _CIRCLE]


def cap(centre: Point, rx: float, ry: float, low: float = 0.0) -> list[Point]:
    """Outline of the upper part of an ellipse, cut at `low` half-heights above its centre."""
    outline = [
        (centre[0] + rx * cos(pi * i / 8), centre[1] + ry * max(low, sin(pi * i / 8)))
        for i in range(9)
    ]
    return outline


def blend(first: Point, second: Point, share: float) -> Point:
    """The point at `share` of the way from first to second."""
    return (
        first[0] + (second[0] - first[0]) * share,
        first[1] + (second[1] - first[1]) * share,
    )


def shifted(point: Point, shift: Point) -> Point:
    """The point moved by a shift."""
    return (point[0] + shift[0], point[1] + shift[1])
