"""Things in front of the pedestrian: each comes from one side and reaches to a given edge."""

from collections.abc import Callable

import numpy as np

from reid._optional import require
from reid.data.mannequins import palette
from reid.data.mannequins.figure import Figure, sample_pose
from reid.data.mannequins.identity import identity
from reid.data.mannequins.labels import OCCLUDER
from reid.data.mannequins.painter import Painter
from reid.data.mannequins.palette import Colour
from reid.data.mannequins.random import Stream

cv2 = require("cv2")

STRANGERS = 1 << 30
"""Identities from here on are only ever drawn as passers-by."""

_CLOTHES = tuple(colour for shades in palette.UPPER.values() for colour in shades)
_SHIFT = 4


class Brush:
    """Draws occluder shapes in pixels into an image and its labels."""

    def __init__(self, image: np.ndarray, mask: np.ndarray) -> None:
        self.image = image
        self.mask = mask
        self.height, self.width = mask.shape

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon."""
        corners = [np.array([(x * 16, y * 16) for x, y in points]).astype(np.int32)]
        cv2.fillPoly(self.image, corners, colour, cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.mask, corners, OCCLUDER, cv2.LINE_8, _SHIFT)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        centre = (int(x * 16), int(y * 16))
        cv2.circle(self.image, centre, int(radius * 16), colour, -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(self.mask, centre, int(radius * 16), OCCLUDER, -1, cv2.LINE_8, _SHIFT)


def _paint(stream: Stream) -> Colour:
    if stream.chance(0.5):
        return stream.choice(_CLOTHES)
    level = stream.uniform(35, 215)
    return (level, level * stream.uniform(0.85, 1.1), level * stream.uniform(0.8, 1.15))


def _dim(colour: Colour, factor: float) -> Colour:
    return (
        min(255.0, colour[0] * factor),
        min(255.0, colour[1] * factor),
        min(255.0, colour[2] * factor),
    )


def _car(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    colour = _paint(stream)
    start = stream.uniform(-0.9, 0.1) * w
    long, roof = 2.4 * w, 0.34 * h * stream.uniform(0.9, 1.1)
    side = 1.0 if stream.chance(0.5) else -1.0
    x0 = start if side > 0 else w - start

    def at(x: float, y: float) -> tuple[float, float]:
        return (x0 + side * x * long, edge + y * roof)

    top = stream.uniform(0.05, 0.2)
    brush.polygon(
        [
            at(-0.2, 0.75), at(0.08, 0.62), at(0.08 + top, 0.0), at(0.75, 0.0), at(0.9, 0.6),
            at(1.0, 0.66), at(1.0, 3.0), at(-0.2, 3.0),
        ],
        colour,
    )  # fmt: skip
    glass = (58.0, 68.0, 78.0)
    brush.polygon([at(0.16, 0.6), at(0.12 + top, 0.1), at(0.45, 0.1), at(0.45, 0.6)], glass)
    brush.polygon([at(0.49, 0.6), at(0.49, 0.1), at(0.72, 0.1), at(0.82, 0.6)], glass)
    brush.polygon([at(0.0, 1.0), at(1.0, 1.0), at(1.0, 1.06), at(0.0, 1.06)], _dim(colour, 0.7))
    for x in (0.2, 0.8):
        cx, cy = at(x, 1.75)
        brush.disc(cx, cy, 0.17 * h, (28, 28, 30))
        brush.disc(cx, cy, 0.09 * h, (150, 150, 152))


def _bin(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    colour = _paint(stream)
    half = w * stream.uniform(0.4, 0.6)
    x = w * stream.uniform(0.35, 0.65)
    rows = stream.integer(4)
    brush.box(x - half * 0.92, edge + 0.03 * h, x + half * 0.92, h + 9, colour)
    brush.box(x - half, edge, x + half, edge + 0.05 * h, _dim(colour, 0.7))
    for row in range(rows):
        y = edge + (0.12 + 0.11 * row) * h
        brush.box(x - half * 0.8, y, x + half * 0.8, y + 0.03 * h, _dim(colour, 1.25))


def _bush(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    base = (stream.uniform(45, 85), stream.uniform(85, 130), stream.uniform(35, 65))
    brush.box(-5, edge + 0.08 * h, w + 5, h + 5, base)
    for _ in range(26):
        x, y = stream.uniform(-0.05, 1.05) * w, edge + 0.06 * h + stream.random() * (h - edge)
        radius = stream.uniform(0.03, 0.07) * h
        brush.disc(x, max(y, edge + radius), radius, _dim(base, stream.uniform(0.6, 1.35)))


def _bench(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    colour = _paint(stream)
    gap, thick = stream.uniform(0.004, 0.016) * h, stream.uniform(0.045, 0.075) * h
    y = edge
    while y < h:
        brush.box(-5, y, w + 5, y + thick, _dim(colour, stream.uniform(0.85, 1.1)))
        y += thick + gap
    for x in (stream.uniform(0.05, 0.2) * w, stream.uniform(0.8, 0.95) * w):
        brush.box(x - 0.03 * w, edge, x + 0.03 * w, h + 5, _dim(colour, 0.5))


def _wall(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    colour = _paint(stream)
    brush.box(-5, edge, w + 5, h + 5, colour)
    brush.box(-5, edge, w + 5, edge + 0.03 * h, _dim(colour, 1.2))
    step = stream.uniform(0.06, 0.14) * h
    if stream.chance(0.6):
        y = edge + step
        while y < h:
            brush.box(-5, y, w + 5, y + 0.008 * h, _dim(colour, 0.75))
            y += step


def _pillar(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    bark = stream.chance(0.5)
    colour = (96.0, 74.0, 56.0) if bark else _paint(stream)
    colour = _dim(colour, stream.uniform(0.7, 1.2))
    wide = w * stream.uniform(0.42, 0.7)
    brush.box(edge - wide, -5, edge, h + 5, colour)
    brush.box(edge - 0.25 * wide, -5, edge, h + 5, _dim(colour, 0.75))
    brush.box(edge - wide, -5, edge - 0.85 * wide, h + 5, _dim(colour, 1.2))
    for _ in range(8 if bark else 2):
        x, y = edge - stream.uniform(0.1, 0.9) * wide, stream.random() * h
        tall = stream.uniform(0.05, 0.2) * h if bark else 0.05 * h
        brush.box(x, y, min(edge, x + 0.06 * wide), y + tall, _dim(colour, 0.6))


def _van(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    colour = _paint(stream)
    top = stream.uniform(-0.1, 0.16) * h
    nose = (edge, top + 0.3 * h)
    brush.polygon([(-5, top), (edge - 0.15 * w, top), nose, (edge, h + 5), (-5, h + 5)], colour)
    brush.polygon(
        [
            (edge - 0.5 * w, top + 0.07 * h), (edge - 0.2 * w, top + 0.07 * h),
            (edge - 0.08 * w, top + 0.3 * h), (edge - 0.5 * w, top + 0.3 * h),
        ],
        (58, 68, 78),
    )  # fmt: skip
    brush.box(-5, top + 0.5 * h, edge, top + 0.52 * h, _dim(colour, 0.65))
    brush.disc(edge - 0.3 * w, 0.95 * h, 0.14 * h, (28, 28, 30))


def _board(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    colour, second = _paint(stream), _paint(stream)
    low = stream.uniform(0.75, 1.1) * h
    brush.box(edge - 0.32 * w, low, edge - 0.26 * w, h + 5, (90, 90, 92))
    brush.box(-5, stream.uniform(-0.1, 0.08) * h, edge, low, colour)
    for _ in range(5):
        x, y = edge - stream.uniform(0.05, 0.5) * w, stream.uniform(0.1, 0.9) * low
        brush.box(x - 0.3 * w, y, min(x, edge), y + stream.uniform(0.02, 0.09) * h, second)


def _umbrella(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    colour, second = _paint(stream), _paint(stream)
    x, half = w * stream.uniform(0.35, 0.65), w * stream.uniform(0.75, 1.0)
    tall = max(0.3 * h, edge + 0.1 * h)
    count = 8
    for k in range(count):
        a, b = -1 + 2 * k / count, -1 + 2 * (k + 1) / count
        arc = [
            (x + half * a, edge),
            (x + half * (a + b) / 2, edge - 0.02 * h),
            (x + half * b, edge),
        ]
        crown = [
            (x + half * b * 0.7, edge - 0.72 * tall), (x + half * b * 0.2, edge - tall),
            (x + half * a * 0.2, edge - tall), (x + half * a * 0.7, edge - 0.72 * tall),
        ]  # fmt: skip
        brush.polygon(arc + crown, colour if k % 2 else second)


def _branches(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    base = (stream.uniform(45, 90), stream.uniform(80, 130), stream.uniform(30, 60))
    brush.box(-5, -5, w + 5, edge - 0.08 * h, base)
    for _ in range(26):
        radius = stream.uniform(0.03, 0.07) * h
        y = min(stream.random() * (edge + 0.02 * h), edge - radius)
        brush.disc(
            stream.uniform(-0.05, 1.05) * w, y, radius, _dim(base, stream.uniform(0.6, 1.35))
        )


def _banner(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    colour, second = _paint(stream), _paint(stream)
    brush.box(-5, -5, w + 5, edge, colour)
    brush.box(-5, edge - 0.05 * h, w + 5, edge - 0.03 * h, second)
    for _ in range(4):
        x, y = stream.random() * w, stream.random() * (edge - 0.1 * h)
        brush.box(x, y, x + 0.4 * w, y + stream.uniform(0.02, 0.07) * h, second)


def _passer(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h = brush.height
    who = identity(seed, STRANGERS + stream.integer(4096))
    pose = sample_pose(stream, stream.uniform(0.0, 6.28), 0.3, 0.1)
    scale = h * stream.uniform(1.0, 1.3)
    base = h * stream.uniform(0.97, 1.12)
    x = edge - 0.115 * scale
    Figure(who, pose).draw(Painter(brush.image, brush.mask, (x, base), scale, label=OCCLUDER))


def _tall_bush(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h, w = brush.height, brush.width
    base = (stream.uniform(45, 85), stream.uniform(85, 130), stream.uniform(35, 65))
    brush.box(-5, -5, edge - 0.1 * w, h + 5, base)
    for _ in range(30):
        radius = stream.uniform(0.03, 0.06) * h
        x = min(stream.random() * edge, edge - radius)
        brush.disc(x, stream.random() * h, radius, _dim(base, stream.uniform(0.6, 1.35)))


def _panel(brush: Brush, edge: float, stream: Stream, seed: int) -> None:
    h = brush.height
    colour = _paint(stream)
    brush.box(-5, -5, edge, h + 5, colour)
    brush.box(edge - 0.06 * h, -5, edge, h + 5, _dim(colour, 0.8))


Drawer = Callable[[Brush, float, Stream, int], None]

BOTTOM: tuple[Drawer, ...] = (_car, _car, _bin, _bush, _bench, _wall)
SIDE: tuple[Drawer, ...] = (_pillar, _passer, _passer, _van, _board, _tall_bush)
TOP: tuple[Drawer, ...] = (_umbrella, _umbrella, _branches, _banner)

LOWEST, HIGHEST = 0.2, 0.6


def occlude(
    image: np.ndarray, mask: np.ndarray, stream: Stream, seed: int, step: tuple[int, int]
) -> None:
    """Put one thing in front of the figure, in place, so that it covers 20-60 % of the body.

    Args:
        image: Canvas (H, W, 3) uint8 with the figure.
        mask: Its labels (H, W) uint8.
        stream: The frame's own numbers.
        seed: Seed of the population that passers-by are drawn from.
        step: Rows and columns of the canvas per pixel of the final image.
    """
    side = stream.weighted((("bottom", 0.4), ("left", 0.22), ("right", 0.22), ("top", 0.16)))
    target = stream.uniform(0.27, 0.54)
    drawer = stream.choice({"bottom": BOTTOM, "top": TOP}.get(side, SIDE))
    body = mask > 0
    flip = side == "right"
    if flip:
        image, mask, body = image[:, ::-1], mask[:, ::-1], body[:, ::-1]
    along = body.sum(1 if side in ("bottom", "top") else 0, dtype=np.int64)
    if side == "bottom":
        along = along[::-1]
    reach = np.cumsum(along)
    total = max(int(reach[-1]), 1)
    key = int(stream.random() * (1 << 40))
    aim = target
    for attempt in range(5):
        edge = float(np.searchsorted(reach, aim * total))
        if side == "bottom":
            edge = len(along) - edge
        canvas, labels = image.copy(order="C"), mask.copy(order="C")
        tool = drawer if attempt < 4 else {"bottom": _wall, "top": _banner}.get(side, _panel)
        tool(Brush(canvas, labels), edge, Stream(key), seed)
        seen = body[:: step[0], :: step[1]]
        hidden = labels[:: step[0], :: step[1]][seen] == OCCLUDER
        covered = float(hidden.mean()) if hidden.size else 0.0
        if LOWEST + 0.02 <= covered <= HIGHEST - 0.02:
            break
        aim = min(0.95, max(0.05, target if attempt == 3 else aim + 0.8 * (target - covered)))
    image[:], mask[:] = canvas, labels
