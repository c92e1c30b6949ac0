"""Trees, shrubs and stones."""

import math

import numpy as np

from reid.data.occluders.canvas import Canvas, Color, Point, shade

LEAVES: tuple[Color, ...] = ((58, 104, 44), (84, 122, 52), (38, 82, 58), (120, 128, 58))
BARK: tuple[Color, ...] = ((98, 78, 58), (122, 108, 92), (74, 58, 46))
CLAY: tuple[Color, ...] = ((164, 96, 66), (120, 122, 124), (70, 74, 82))


def pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    """One of several colours, a little lighter or darker."""
    return shade(colors[rng.integers(len(colors))], rng.uniform(0.85, 1.15))


def foliage(
    canvas: Canvas,
    rng: np.random.Generator,
    center: Point,
    radii: Point,
    color: Color,
    leaves: int = 220,
) -> None:
    """Scatter leaves over an ellipse, dark ones first, light ones towards the top."""
    for step in range(leaves):
        angle, reach = rng.uniform(0, 2 * math.pi), math.sqrt(rng.uniform(0, 1))
        x = center[0] + radii[0] * reach * math.cos(angle)
        y = center[1] + radii[1] * reach * math.sin(angle)
        high = 0.5 - 0.5 * (y - center[1]) / radii[1]
        size = min(radii) * rng.uniform(0.1, 0.2)
        tone = 0.55 + 0.35 * step / leaves + 0.25 * high * rng.uniform(0.5, 1)
        canvas.disc(x, y, size * rng.uniform(0.6, 1.2), size, shade(color, tone))


def broadleaf(rng: np.random.Generator) -> Canvas:
    """A tree with a round crown."""
    aspect = rng.uniform(2.2, 3.0)
    canvas = Canvas(aspect)
    bark, leaf = pick(rng, BARK), pick(rng, LEAVES)
    fork = aspect * rng.uniform(0.45, 0.55)
    lean = rng.uniform(-0.06, 0.06)
    canvas.polygon([(0.38, aspect), (0.44 + lean, fork), (0.56 + lean, fork), (0.62, aspect)], bark)
    for side in (-1, 1):
        canvas.line([(0.5 + lean, fork + 0.1), (0.5 + side * 0.3, fork - 0.35)], 0.07, bark)
    foliage(canvas, rng, (0.5, fork * 0.55), (0.42, fork * 0.5), leaf, leaves=320)
    return canvas


def conifer(rng: np.random.Generator) -> Canvas:
    """A narrow evergreen in tiers."""
    aspect = rng.uniform(2.3, 3.4)
    canvas = Canvas(aspect)
    leaf = shade(pick(rng, LEAVES), 0.8)
    canvas.box(0.44, aspect * 0.9, 0.56, aspect, pick(rng, BARK))
    tiers = int(rng.integers(5, 9))
    for tier in range(tiers):
        top = aspect * 0.9 * tier / (tiers + 1)
        bottom = aspect * 0.93 * (tier + 2) / (tiers + 1)
        half = 0.12 + 0.36 * (tier + 1) / tiers
        teeth: list[Point] = [(0.5, top)]
        for step in range(9):
            drop = rng.uniform(0.0, 0.09) * aspect / tiers
            teeth.append((0.5 + half * (1 - step / 4), bottom - drop - 0.05 * (step % 2)))
        canvas.polygon(teeth, shade(leaf, 0.7 + 0.5 * rng.uniform(0, 1)))
    return canvas


def shrub(rng: np.random.Generator) -> Canvas:
    """A loose round bush."""
    aspect = rng.uniform(0.7, 1.3)
    canvas = Canvas(aspect)
    leaf = pick(rng, LEAVES)
    for x in (0.4, 0.5, 0.6):
        canvas.line([(0.5, aspect), (x, aspect * 0.6)], 0.03, pick(rng, BARK))
    for _ in range(4):
        center = (rng.uniform(0.35, 0.65), aspect * rng.uniform(0.38, 0.62))
        foliage(canvas, rng, center, (0.3, 0.32 * aspect), leaf, leaves=110)
    if rng.uniform() < 0.5:
        blossom = pick(rng, ((214, 80, 110), (236, 208, 92), (226, 226, 232)))
        for _ in range(24):
            canvas.disc(
                rng.uniform(0.15, 0.85), aspect * rng.uniform(0.15, 0.8), 0.02, 0.02, blossom
            )
    return canvas


def hedge(rng: np.random.Generator) -> Canvas:
    """A trimmed hedge."""
    aspect = rng.uniform(0.5, 0.9)
    canvas = Canvas(aspect)
    leaf = pick(rng, LEAVES)
    canvas.box(0.03, 0.06, 0.97, aspect, shade(leaf, 0.5), r=0.06)
    for _ in range(700):
        x, y = rng.uniform(0.03, 0.97), rng.uniform(0.05, aspect)
        tone = rng.uniform(0.55, 1.0) + 0.3 * (1 - y / aspect)
        canvas.disc(x, y, 0.022, 0.018, shade(leaf, tone))
    return canvas


def potted_plant(rng: np.random.Generator) -> Canvas:
    """A plant with long leaves in a tapered pot."""
    aspect = rng.uniform(1.3, 2.6)
    canvas = Canvas(aspect)
    leaf, clay = pick(rng, LEAVES), pick(rng, CLAY)
    rim = aspect - rng.uniform(0.5, 0.65)
    for _ in range(26):
        tip = (rng.uniform(0.02, 0.98), rng.uniform(0.02, rim * 0.8))
        side = rng.uniform(0.03, 0.06)
        middle = ((0.5 + tip[0]) / 2, (rim + tip[1]) / 2 - 0.1)
        blade = [(0.5, rim), (middle[0] - side, middle[1]), tip, (middle[0] + side, middle[1])]
        canvas.polygon(blade, shade(leaf, rng.uniform(0.6, 1.25)))
    canvas.polygon([(0.16, rim), (0.84, rim), (0.72, aspect), (0.28, aspect)], clay)
    canvas.box(0.12, rim - 0.04, 0.88, rim + 0.1, shade(clay, 1.12))
    return canvas


def trunk(rng: np.random.Generator) -> Canvas:
    """The stem of a large tree, crown out of sight."""
    aspect = rng.uniform(2.6, 3.6)
    canvas = Canvas(aspect)
    bark = pick(rng, BARK)
    left = [(0.2 + rng.uniform(-0.04, 0.04), aspect * step / 8) for step in range(8)]
    right = [(0.8 + rng.uniform(-0.04, 0.04), aspect * step / 8) for step in range(8)]
    canvas.polygon([*left, (0.02, aspect), (0.98, aspect), *reversed(right)], bark)
    for _ in range(45):
        x, y = rng.uniform(0.24, 0.76), rng.uniform(0, aspect * 0.9)
        end = (x + rng.uniform(-0.05, 0.05), y + rng.uniform(0.1, 0.4))
        canvas.line([(x, y), end], rng.uniform(0.01, 0.03), shade(bark, rng.uniform(0.6, 1.25)))
    return canvas


def boulder(rng: np.random.Generator) -> Canvas:
    """A rock with a lit and a dark face."""
    aspect = rng.uniform(0.55, 1.0)
    canvas = Canvas(aspect)
    stone = pick(rng, ((140, 138, 132), (122, 112, 104), (160, 152, 140)))
    outline = []
    for step in range(12):
        angle = 2 * math.pi * step / 12
        reach = rng.uniform(0.82, 1.0)
        y = aspect * (0.5 + 0.5 * reach * math.sin(angle))
        outline.append((0.5 + 0.49 * reach * math.cos(angle), y))
    canvas.polygon(outline, stone)
    ridge = (rng.uniform(0.4, 0.6), aspect * rng.uniform(0.35, 0.5))
    canvas.polygon([ridge, *outline[0:5]], shade(stone, 0.72))
    canvas.polygon([ridge, *outline[7:11]], shade(stone, 1.16))
    for _ in range(5):
        start = (rng.uniform(0.25, 0.75), aspect * rng.uniform(0.3, 0.7))
        end = (start[0] + rng.uniform(-0.12, 0.12), start[1] + rng.uniform(0, 0.15))
        canvas.line([start, end], 0.008, shade(stone, 0.55))
    return canvas
