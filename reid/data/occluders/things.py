"""What people leave about: bicycles, crates, luggage, furniture."""

import math

import numpy as np

from reid.data.occluders.canvas import Canvas, Color, shade
from reid.data.occluders.plants import pick
from reid.data.occluders.street import DARK, PAINT, STEEL

WOOD: tuple[Color, ...] = ((168, 128, 84), (138, 98, 62), (190, 160, 118))


def bicycle(rng: np.random.Generator) -> Canvas:
    """A bicycle seen from the side, at times with a basket."""
    canvas = Canvas(0.66)
    frame = pick(rng, (*PAINT, (210, 210, 206)))
    rear, front, hub = (0.2, 0.46), (0.8, 0.46), (0.45, 0.46)
    for x, y in (rear, front):
        for spoke in range(10):
            angle = math.pi * spoke / 10 + rng.uniform(0, 0.2)
            dx, dy = 0.17 * math.cos(angle), 0.17 * math.sin(angle)
            canvas.line([(x - dx, y - dy), (x + dx, y + dy)], 0.005, (150, 152, 154))
        canvas.ring(x, y, 0.19, 0.03, DARK)
        canvas.disc(x, y, 0.025, 0.025, (110, 110, 112))
    seat, head = (0.37, 0.18), (0.71, 0.16)
    for start, end in ((rear, hub), (rear, seat), (hub, seat), (hub, head), (seat, head)):
        canvas.line([start, end], 0.028, frame)
    canvas.line([head, front], 0.026, shade(frame, 0.85))
    canvas.line([(0.36, 0.18), (0.35, 0.1)], 0.02, (120, 122, 124))
    canvas.box(0.27, 0.06, 0.43, 0.11, DARK, r=0.025)
    canvas.line([head, (0.7, 0.06), (0.63, 0.04)], 0.022, (96, 98, 100))
    canvas.ring(hub[0], hub[1], 0.055, 0.014, (90, 92, 94))
    canvas.line([(hub[0], hub[1]), (hub[0] + 0.06, hub[1] + 0.08)], 0.016, DARK)
    if rng.uniform() < 0.6:
        canvas.box(0.74, 0.08, 0.94, 0.22, pick(rng, WOOD), r=0.02)
    if rng.uniform() < 0.6:
        canvas.box(0.06, 0.2, 0.3, 0.24, (80, 82, 84))
        canvas.box(0.08, 0.22, 0.28, 0.4, pick(rng, PAINT), r=0.02)
    return canvas


def crates(rng: np.random.Generator) -> Canvas:
    """Stacked slatted crates."""
    rows = int(rng.integers(2, 5))
    canvas = Canvas(rows * 0.46)
    for row in range(rows):
        wood = pick(rng, (*WOOD, (62, 96, 140), (150, 56, 48)))
        shift = rng.uniform(0, 0.08)
        x0, x1, y0 = shift, 0.92 + shift, row * 0.46
        canvas.box(x0, y0 + 0.01, x1, y0 + 0.45, shade(wood, 0.42))
        for slat in range(3):
            top = y0 + 0.02 + slat * 0.145
            canvas.box(x0, top, x1, top + 0.115, shade(wood, rng.uniform(0.85, 1.1)))
        for x in (x0, x1 - 0.1):
            canvas.box(x, y0 + 0.01, x + 0.1, y0 + 0.45, shade(wood, 0.75))
    return canvas


def parcel(rng: np.random.Generator) -> Canvas:
    """Cardboard boxes of different sizes, piled up."""
    canvas = Canvas(rng.uniform(0.9, 1.5))
    bottom = canvas.aspect
    while bottom > 0.25:
        card = pick(rng, ((186, 146, 100), (164, 124, 84), (206, 176, 136)))
        height = min(rng.uniform(0.3, 0.6), bottom)
        x0, x1 = rng.uniform(0.0, 0.15), rng.uniform(0.8, 1.0)
        side = x0 + (x1 - x0) * rng.uniform(0.6, 0.75)
        top = bottom - height
        canvas.box(x0, top, side, bottom, card)
        canvas.box(side, top, x1, bottom, shade(card, 0.72))
        tape = (x0 + side) / 2
        canvas.box(tape - 0.04, top, tape + 0.04, bottom, shade(card, 1.22))
        canvas.line([(x0, top + 0.01), (x1, top + 0.01)], 0.012, shade(card, 0.5))
        bottom = top
    return canvas


def suitcase(rng: np.random.Generator) -> Canvas:
    """A suitcase on wheels with its handle pulled out."""
    aspect = rng.uniform(1.5, 2.5)
    canvas = Canvas(aspect)
    shell = pick(rng, (*PAINT, (136, 60, 92), (180, 182, 186), (48, 120, 126)))
    top = aspect * 0.3
    for x in (0.34, 0.66):
        canvas.line([(x, top + 0.05), (x, 0.05)], 0.035, (140, 142, 144))
    canvas.box(0.28, 0.0, 0.72, 0.09, DARK, r=0.04)
    canvas.box(0.04, top, 0.96, aspect - 0.08, shell, r=0.1)
    for rib in range(6):
        x = 0.13 + rib * 0.145
        canvas.box(x, top + 0.08, x + 0.03, aspect - 0.16, shade(shell, 0.72))
    canvas.box(0.38, top - 0.04, 0.62, top + 0.04, DARK, r=0.03)
    for x in (0.16, 0.84):
        canvas.disc(x, aspect - 0.06, 0.07, 0.06, DARK)
    return canvas


def trolley(rng: np.random.Generator) -> Canvas:
    """A shopping trolley of wire."""
    canvas = Canvas(rng.uniform(1.0, 1.25))
    a = canvas.aspect
    wire = pick(rng, STEEL)
    top_left, top_right, low_left, low_right = (
        (0.1, 0.2 * a),
        (0.98, 0.26 * a),
        (0.24, 0.64 * a),
        (
            0.92,
            0.6 * a,
        ),
    )
    if rng.uniform() < 0.7:
        for _ in range(5):
            x, y = rng.uniform(0.25, 0.75), rng.uniform(0.3, 0.48) * a
            canvas.box(x, y, x + 0.18, y + 0.16, pick(rng, (*PAINT, *WOOD)), r=0.02)
    for step in range(11):
        t = step / 10
        start = (top_left[0] * (1 - t) + top_right[0] * t, top_left[1] * (1 - t) + top_right[1] * t)
        end = (low_left[0] * (1 - t) + low_right[0] * t, low_left[1] * (1 - t) + low_right[1] * t)
        canvas.line([start, end], 0.013, wire)
    for step in range(6):
        t = step / 5
        start = (top_left[0] * (1 - t) + low_left[0] * t, top_left[1] * (1 - t) + low_left[1] * t)
        end = (top_right[0] * (1 - t) + low_right[0] * t, top_right[1] * (1 - t) + low_right[1] * t)
        canvas.line([start, end], 0.016, shade(wire, 0.85))
    canvas.line([(0.0, 0.06 * a), top_left, low_left, (0.16, 0.86 * a)], 0.03, wire)
    canvas.line([(0.16, 0.86 * a), (0.9, 0.82 * a)], 0.03, wire)
    canvas.line([(0.0, 0.06 * a), (0.08, 0.05 * a)], 0.05, pick(rng, PAINT))
    for x, y in ((0.2, 0.93 * a), (0.86, 0.92 * a)):
        canvas.disc(x, y, 0.06, 0.06, DARK)
        canvas.disc(x, y, 0.025, 0.025, (140, 140, 140))
    return canvas


def barrel(rng: np.random.Generator) -> Canvas:
    """A drum with hoops."""
    aspect = rng.uniform(1.2, 1.6)
    canvas = Canvas(aspect)
    body = pick(rng, (*PAINT, *WOOD))
    strips = 14
    for strip in range(strips):
        x = strip / strips
        tone = 0.55 + 0.6 * math.sin(math.pi * (0.15 + 0.75 * (x + 0.5 / strips)))
        canvas.box(x, 0.08, x + 1 / strips + 0.004, aspect - 0.08, shade(body, tone))
    canvas.disc(0.5, aspect - 0.08, 0.5, 0.08, shade(body, 0.7))
    canvas.disc(0.5, 0.08, 0.5, 0.08, shade(body, 1.2))
    canvas.disc(0.5, 0.08, 0.42, 0.06, shade(body, 0.9))
    for share in (0.33, 0.64):
        canvas.box(0, share * aspect, 1, share * aspect + 0.06, shade(body, 0.5), r=0.02)
    return canvas


def ladder(rng: np.random.Generator) -> Canvas:
    """A step ladder, slightly open."""
    aspect = rng.uniform(2.2, 2.8)
    canvas = Canvas(aspect)
    metal = pick(rng, (*STEEL, *WOOD))
    for x_top, x_low in ((0.36, 0.2), (0.64, 0.8)):
        canvas.line([(x_top, 0.06), (x_low, aspect - 0.03)], 0.05, shade(metal, 0.6))
    steps = int(rng.integers(5, 8))
    for step in range(steps):
        t = (step + 0.6) / steps
        half = 0.2 + 0.26 * t
        y = t * aspect * 0.95
        canvas.box(0.5 - half, y, 0.5 + half, y + 0.09, metal)
        canvas.box(0.5 - half, y + 0.06, 0.5 + half, y + 0.09, shade(metal, 0.6))
    for side in (-1, 1):
        canvas.line([(0.5 + side * 0.2, 0.05), (0.5 + side * 0.46, aspect - 0.03)], 0.07, metal)
    canvas.box(0.24, 0.0, 0.76, 0.12, shade(metal, 1.15), r=0.03)
    return canvas


def bench(rng: np.random.Generator) -> Canvas:
    """A park bench from the front."""
    canvas = Canvas(rng.uniform(0.55, 0.7))
    a = canvas.aspect
    wood, iron = pick(rng, WOOD), pick(rng, STEEL)
    for x in (0.08, 0.86):
        canvas.box(x, 0.02, x + 0.06, a, shade(iron, 0.7))
    for slat in range(4):
        y = 0.02 + slat * 0.085
        canvas.box(0, y, 1, y + 0.065, shade(wood, rng.uniform(0.85, 1.1)), r=0.01)
    canvas.box(0, 0.6 * a, 1, 0.6 * a + 0.1, shade(wood, 1.1), r=0.02)
    canvas.box(0, 0.6 * a + 0.075, 1, 0.6 * a + 0.1, shade(wood, 0.55))
    for x in (0.03, 0.9):
        canvas.box(x, 0.42 * a, x + 0.08, 0.47 * a, iron, r=0.01)
    return canvas
