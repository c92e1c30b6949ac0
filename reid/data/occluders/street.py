"""What stands on a pavement: bins, posts, fences, cones."""

import numpy as np

from reid.data.occluders.canvas import Canvas, Color, shade
from reid.data.occluders.plants import pick

PAINT: tuple[Color, ...] = (
    (46, 92, 60),
    (52, 58, 66),
    (40, 70, 128),
    (150, 44, 40),
    (196, 160, 48),
)
STEEL: tuple[Color, ...] = ((130, 134, 138), (84, 88, 92), (58, 60, 62), (166, 168, 170))
DARK: Color = (34, 34, 36)


def wheelie_bin(rng: np.random.Generator) -> Canvas:
    """A household bin on wheels."""
    aspect = rng.uniform(1.4, 1.9)
    canvas = Canvas(aspect)
    body, lid = pick(rng, PAINT), pick(rng, PAINT)
    base = aspect - 0.06
    canvas.polygon([(0.08, 0.3), (0.92, 0.3), (0.8, base), (0.2, base)], body)
    for x in (0.32, 0.5, 0.68):
        canvas.line([(x, 0.45), (0.5 + (x - 0.5) * 0.8, base - 0.08)], 0.02, shade(body, 0.75))
    canvas.box(0.03, 0.14, 0.97, 0.32, lid, r=0.06)
    canvas.box(0.3, 0.06, 0.7, 0.16, shade(lid, 0.7), r=0.03)
    for x in (0.26, 0.74):
        canvas.disc(x, base - 0.04, 0.09, 0.1, DARK)
        canvas.disc(x, base - 0.04, 0.04, 0.045, (120, 120, 120))
    label = pick(rng, ((232, 232, 224), (228, 196, 60)))
    canvas.box(0.4, 0.6, 0.62, 0.8, label)
    return canvas


def litter_bin(rng: np.random.Generator) -> Canvas:
    """A round bin of slats with a hood."""
    aspect = rng.uniform(1.3, 1.8)
    canvas = Canvas(aspect)
    body = pick(rng, (*PAINT, (128, 92, 60)))
    canvas.box(0.1, 0.3, 0.9, aspect - 0.03, shade(body, 0.55))
    for slat in range(7):
        x = 0.1 + 0.8 * slat / 7
        tone = 0.8 + 0.4 * np.sin(np.pi * (slat + 0.5) / 7)
        canvas.box(x + 0.008, 0.36, x + 0.104, aspect - 0.1, shade(body, tone))
    canvas.disc(0.5, aspect - 0.05, 0.4, 0.05, shade(body, 0.5))
    canvas.disc(0.5, 0.32, 0.44, 0.09, shade(body, 1.1))
    canvas.disc(0.5, 0.31, 0.34, 0.06, DARK)
    for x in (0.16, 0.84):
        canvas.line([(x, 0.3), (x, 0.12)], 0.04, shade(body, 0.8))
    canvas.box(0.06, 0.03, 0.94, 0.15, shade(body, 0.95), r=0.05)
    return canvas


def bollard(rng: np.random.Generator) -> Canvas:
    """A short post with a cap and bands."""
    aspect = rng.uniform(2.8, 4.0)
    canvas = Canvas(aspect)
    metal = pick(rng, STEEL)
    canvas.box(0.2, 0.3, 0.8, aspect - 0.2, metal)
    canvas.box(0.2, 0.3, 0.34, aspect - 0.2, shade(metal, 1.3))
    canvas.box(0.66, 0.3, 0.8, aspect - 0.2, shade(metal, 0.65))
    canvas.disc(0.5, 0.3, 0.34, 0.28, shade(metal, 1.1))
    canvas.box(0.04, aspect - 0.28, 0.96, aspect, shade(metal, 0.8), r=0.08)
    band = pick(rng, ((226, 226, 220), (214, 62, 46), (236, 190, 50)))
    for y in (0.8, 1.25):
        canvas.box(0.19, y, 0.81, y + 0.2, band)
    return canvas


def lamp_post(rng: np.random.Generator) -> Canvas:
    """A street lamp of the old kind."""
    aspect = rng.uniform(3.2, 4.2)
    canvas = Canvas(aspect)
    iron = shade(pick(rng, (*STEEL, (44, 66, 54))), 0.7)
    canvas.polygon([(0.4, 0.9), (0.6, 0.9), (0.66, aspect), (0.34, aspect)], iron)
    canvas.box(0.44, 0.9, 0.5, aspect, shade(iron, 1.5))
    for y in (0.95, aspect * 0.6, aspect - 0.5):
        canvas.box(0.3, y, 0.7, y + 0.1, shade(iron, 1.15), r=0.04)
    canvas.box(0.16, aspect - 0.3, 0.84, aspect, iron, r=0.06)
    canvas.polygon([(0.24, 0.85), (0.76, 0.85), (0.9, 0.28), (0.1, 0.28)], (226, 220, 186))
    for x0, x1 in ((0.24, 0.1), (0.5, 0.5), (0.76, 0.9)):
        canvas.line([(x0, 0.85), (x1, 0.28)], 0.04, iron)
    canvas.polygon([(0.04, 0.3), (0.96, 0.3), (0.5, 0.02)], iron)
    return canvas


def sign_post(rng: np.random.Generator) -> Canvas:
    """A plate on a pole."""
    aspect = rng.uniform(2.3, 3.2)
    canvas = Canvas(aspect)
    metal = pick(rng, STEEL)
    face = pick(rng, ((36, 84, 160), (226, 226, 222), (186, 40, 40), (46, 112, 70)))
    ink = (236, 236, 232) if sum(face) < 450 else (150, 36, 36)
    canvas.box(0.43, 0.5, 0.57, aspect, metal)
    canvas.box(0.43, 0.5, 0.47, aspect, shade(metal, 1.3))
    if rng.uniform() < 0.5:
        canvas.disc(0.5, 0.5, 0.48, 0.48, ink)
        canvas.disc(0.5, 0.5, 0.42, 0.42, face)
        canvas.box(0.24, 0.43, 0.76, 0.57, ink)
    else:
        canvas.box(0.03, 0.04, 0.97, 1.1, ink, r=0.08)
        canvas.box(0.08, 0.09, 0.92, 1.05, face, r=0.06)
        for row in range(4):
            canvas.box(0.2, 0.25 + row * 0.19, rng.uniform(0.5, 0.8), 0.32 + row * 0.19, ink)
    return canvas


def fence(rng: np.random.Generator) -> Canvas:
    """Pickets, boards or bars with gaps to see through."""
    aspect = rng.uniform(0.8, 1.3)
    canvas = Canvas(aspect)
    wood = rng.uniform() < 0.6
    color = (
        pick(rng, ((150, 112, 76), (204, 200, 190), (104, 86, 70))) if wood else pick(rng, STEEL)
    )
    count = int(rng.integers(5, 8)) if wood else int(rng.integers(8, 12))
    share = rng.uniform(0.7, 0.92) if wood else 0.35
    for y in (0.2, 0.75):
        canvas.box(0, y * aspect, 1, y * aspect + 0.07, shade(color, 0.7))
    for picket in range(count):
        x0 = (picket + 0.5 - share / 2) / count
        x1 = (picket + 0.5 + share / 2) / count
        tone = shade(color, rng.uniform(0.85, 1.1))
        top = 0.1 if wood else 0.03
        canvas.box(x0, top, x1, aspect, tone)
        canvas.polygon([(x0, top + 0.005), ((x0 + x1) / 2, 0.0), (x1, top + 0.005)], tone)
    return canvas


def barrier(rng: np.random.Generator) -> Canvas:
    """A striped board of a road works barrier on feet."""
    aspect = rng.uniform(0.7, 0.95)
    canvas = Canvas(aspect)
    light, dark = (232, 230, 224), pick(rng, ((206, 58, 40), (228, 148, 36), (40, 40, 44)))
    for x in (0.14, 0.82):
        canvas.box(x, 0.02, x + 0.05, aspect, (150, 152, 154))
    for y0, y1 in ((0.04, 0.26), (0.34, 0.52)):
        canvas.box(0, y0, 1, y1, light)
        for stripe in range(-1, 5):
            x = stripe * 0.24
            lean = y1 - y0
            corners = [(x, y1), (x + 0.12, y1), (x + 0.12 + lean, y0), (x + lean, y0)]
            canvas.polygon([(min(max(px, 0.0), 1.0), py) for px, py in corners], dark)
    for x in (0.06, 0.72):
        canvas.box(x, aspect - 0.07, x + 0.22, aspect, DARK, r=0.02)
    return canvas


def cone(rng: np.random.Generator) -> Canvas:
    """A traffic cone."""
    aspect = rng.uniform(1.2, 1.6)
    canvas = Canvas(aspect)
    orange = pick(rng, ((232, 96, 34), (222, 72, 40), (238, 200, 50)))
    base = aspect - 0.12

    def half(y: float) -> float:
        return 0.06 + 0.3 * y / base

    def stripe(y0: float, y1: float, color: Color) -> None:
        left = [(0.5 - half(y0), y0), (0.5 + half(y0), y0)]
        canvas.polygon([*left, (0.5 + half(y1), y1), (0.5 - half(y1), y1)], color)
        right = [(0.5 + 0.4 * half(y0), y0), (0.5 + half(y0), y0)]
        right += [(0.5 + half(y1), y1), (0.5 + 0.4 * half(y1), y1)]
        canvas.polygon(right, shade(color, 0.78))

    canvas.box(0.02, base - 0.02, 0.98, aspect, shade(orange, 0.75), r=0.04)
    stripe(0.0, base, orange)
    for low, high in ((0.22, 0.42), (0.56, 0.76)):
        stripe(low * base, high * base, (234, 234, 230))
    return canvas


def mailbox(rng: np.random.Generator) -> Canvas:
    """A pillar box or cabinet."""
    aspect = rng.uniform(2.1, 2.7)
    canvas = Canvas(aspect)
    paint = pick(rng, PAINT)
    canvas.box(0.1, 0.12, 0.9, aspect - 0.1, paint, r=0.05)
    canvas.box(0.1, 0.3, 0.22, aspect - 0.12, shade(paint, 1.25))
    canvas.box(0.78, 0.3, 0.9, aspect - 0.12, shade(paint, 0.7))
    canvas.disc(0.5, 0.2, 0.48, 0.17, shade(paint, 1.1))
    canvas.box(0.02, 0.2, 0.98, 0.3, shade(paint, 0.85), r=0.03)
    canvas.box(0.24, 0.5, 0.76, 0.6, DARK, r=0.02)
    canvas.box(0.3, 0.75, 0.7, 1.1, (226, 222, 206))
    for row in range(3):
        canvas.box(0.35, 0.82 + row * 0.08, 0.62, 0.85 + row * 0.08, (90, 90, 90))
    canvas.box(0.04, aspect - 0.14, 0.96, aspect, shade(paint, 0.6), r=0.03)
    return canvas
