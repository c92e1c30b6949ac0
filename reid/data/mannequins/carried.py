"""Backpack and shoulder bag."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reid.data.mannequins.labels import CARRIED, SHOULDER_HEIGHT
from reid.data.mannequins.painter import Painter

if TYPE_CHECKING:
    from reid.data.mannequins.figure import Figure


def draw_backpack(figure: Figure, painter: Painter) -> None:
    """Draw the backpack; its pocket shows from behind."""
    who = figure.who
    if not who.backpack:
        return
    size = who.backpack_size
    centre = figure.project(-who.girth - 0.03 * size, 0.0, 0.685)
    half = figure.half_width(0.082 * size, 0.05 * size)
    tall = 0.115 * size
    colour = figure.shade(who.backpack, 2)
    x, y = centre
    painter.polygon(
        [
            (x - half, y - tall), (x + half, y - tall), (x + half, y + 0.6 * tall),
            (x + 0.6 * half, y + tall), (x - 0.6 * half, y + tall), (x - half, y + 0.6 * tall),
        ],
        colour,
        CARRIED,
    )  # fmt: skip
    if figure.cos < 0.15:
        shift = 0.25 * half * -figure.sin
        painter.detail(
            [
                (x + shift - 0.62 * half, y - 0.8 * tall),
                (x + shift + 0.62 * half, y - 0.8 * tall),
                (x + shift + 0.62 * half, y - 0.1 * tall),
                (x + shift - 0.62 * half, y - 0.1 * tall),
            ],
            figure.shade(who.backpack_pocket, 2, 0.9),
        )


def draw_straps(figure: Figure, painter: Painter) -> None:
    """Draw the straps of a backpack worn by somebody seen from the front."""
    if not figure.who.backpack:
        return
    colour = figure.shade(figure.who.backpack, 2)
    for side in (-1.0, 1.0):
        left = side * 0.62 * figure.who.shoulder
        start = figure.project(figure.who.girth * 0.7, left, SHOULDER_HEIGHT + 0.015)
        painter.line(start, figure.project(figure.who.girth * 0.9, left, 0.67), colour, 0.02)


def draw_strap(figure: Figure, painter: Painter) -> None:
    """Draw the strap of a shoulder bag across the chest or the back."""
    who = figure.who
    if not who.bag:
        return
    front = 1.0 if figure.cos >= 0 else -1.0
    start = figure.project(0.0, -who.bag_side * 0.6 * who.shoulder, SHOULDER_HEIGHT + 0.01)
    middle = figure.project(front * who.girth * 0.9, 0.0, 0.68)
    end = figure.project(0.0, who.bag_side * who.hip * 1.2, who.leg + 0.04)
    colour = figure.shade(who.bag, 2, 0.9)
    painter.line(start, middle, colour, 0.014)
    painter.line(middle, end, colour, 0.014)


def draw_bag(figure: Figure, painter: Painter) -> None:
    """Draw a shoulder bag at the hip."""
    who = figure.who
    if not who.bag:
        return
    size = who.bag_size
    x, y = figure.project(0.0, who.bag_side * (who.hip + 0.05), who.leg + 0.01)
    half = figure.half_width(0.035 * size, 0.07 * size)
    tall = 0.058 * size
    painter.polygon(
        [
            (x - half, y - tall),
            (x + half, y - tall),
            (x + half, y + tall),
            (x - half, y + tall),
        ],
        figure.shade(who.bag, 2),
        CARRIED,
    )
    painter.line((x - half, y + 0.2 * tall), (x + half, y + 0.2 * tall), (20, 20, 20), 0.006)
