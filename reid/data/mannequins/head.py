"""Head, hair and hat."""

from __future__ import annotations

from math import cos, sin
from typing import TYPE_CHECKING

from reid.data.mannequins.labels import HEAD
from reid.data.mannequins.painter import Painter, Point, cap, ellipse, limb

if TYPE_CHECKING:
    from reid.data.mannequins.figure import Figure


def draw_head(figure: Figure, painter: Painter) -> None:
    """Draw hair, face and hat; the face only where the head is not turned away."""
    who = figure.who
    angle = figure.pose.angle + figure.pose.look
    turn, toward = sin(angle), cos(angle)
    r = who.head
    centre = figure.project(0.03 + who.stoop * 0.4, 0.0, 1.0 - r * 1.22)
    x, y = centre
    hair = figure.shade(who.hair, 2)
    skin = figure.shade(who.skin, 2)
    style = who.hair_style
    rx, ry = r * (0.8 + 0.08 * abs(turn)), r * 1.22
    facing = toward > -0.25
    if style == "tail":
        tip = (x - turn * r * 1.35, y - r * 1.7)
        root = (x - turn * r * 0.8, y + r * 0.5)
        if toward < 0.3 or abs(turn) > 0.5:
            painter.polygon(limb(root, tip, r * 0.34, r * 0.2), hair, HEAD)
    if style in ("long", "bob"):
        drop = 2.5 if style == "long" else 1.25
        back = (x - turn * r * 0.35, y + 0.1 * r)
        painter.polygon(limb(back, (back[0], y - r * drop), rx * 1.12, rx * 0.98), hair, HEAD)
    bare = style == "bald"
    painter.polygon(ellipse((x, y), rx, ry), skin if bare else hair, HEAD)
    if facing:
        lift = 0.16 if bare else 0.28
        shift = turn * r * 0.3
        width = rx * (0.86 if style in ("long", "bob") else 0.94) * (0.72 + 0.28 * toward)
        painter.polygon(ellipse((x + shift, y - lift * r), width, ry * 0.78), skin, HEAD)
        if style == "side":
            painter.detail(
                limb(
                    (x - rx * 0.7, y + ry * 0.55),
                    (x + rx * 0.6, y + ry * 0.75),
                    r * 0.3,
                    r * 0.2,
                ),
                hair,
            )
        if who.beard:
            painter.detail(ellipse((x + shift, y - 0.78 * r), width * 0.85, ry * 0.3), hair)
        eye = y - 0.05 * r
        dark = (30.0, 26.0, 26.0)
        if who.glasses:
            painter.line(
                (x + shift - width * 0.85, eye), (x + shift + width * 0.85, eye), dark, r * 0.26
            )
        else:
            for side in (-0.42, 0.42):
                painter.detail(
                    ellipse((x + shift * 1.4 + side * width, eye), r * 0.1, r * 0.1), dark
                )
    elif style == "long":
        painter.polygon(
            limb((x, y), (x - turn * r * 0.2, y - r * 2.4), rx * 1.08, rx * 0.9), hair, HEAD
        )
    if style == "bun":
        painter.polygon(
            ellipse((x - turn * r * 0.55, y + ry * 0.98), r * 0.42, r * 0.42), hair, HEAD
        )
    if who.hat:
        _hat(figure, painter, (x, y), rx, ry, turn, toward)


def _hat(
    figure: Figure,
    painter: Painter,
    centre: Point,
    rx: float,
    ry: float,
    turn: float,
    toward: float,
) -> None:
    who = figure.who
    x, y = centre
    colour = figure.shade(who.hat_colour, 2)
    if who.hat == "brim":
        painter.polygon(ellipse((x, y + ry * 0.42), rx * 1.75, ry * 0.2), colour, HEAD)
    low = 0.3 if who.hat != "beanie" else 0.12
    painter.polygon(cap((x, y + 0.02 * ry), rx * 1.12, ry * 1.12, low), colour, HEAD)
    if who.hat == "cap" and toward > -0.6:
        tip = (x + turn * rx * 1.7, y + ry * (0.32 - 0.12 * toward))
        painter.polygon(
            limb((x + turn * rx * 0.4, y + ry * 0.38), tip, ry * 0.13, ry * 0.1), colour, HEAD
        )
        if toward > 0.4:
            painter.polygon(ellipse((x, y + ry * 0.3), rx * 0.95, ry * 0.16), colour, HEAD)
    if who.hat_band:
        painter.line(
            (x - rx * 1.05, y + ry * (low + 0.12)),
            (x + rx * 1.05, y + ry * (low + 0.12)),
            figure.shade(who.hat_band, 2),
            0.018,
        )
