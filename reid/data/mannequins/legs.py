"""Legs, feet and what covers them."""

from __future__ import annotations

from math import cos, pi, sin
from typing import TYPE_CHECKING

from reid.data.mannequins.labels import FEET, LEGS
from reid.data.mannequins.painter import Painter, Point, blend, limb, shifted

if TYPE_CHECKING:
    from reid.data.mannequins.figure import Figure


def draw_leg(figure: Figure, painter: Painter, side: float) -> None:
    """Draw one leg, side 1 the left and -1 the right: shoe, bare leg, then what covers it."""
    who, pose = figure.who, figure.pose
    swing = pose.stride * sin(pose.phase) * side
    knee_bend = 0.1 + pose.stride * 1.1 * max(0.0, cos(pose.phase) * side)
    thigh, shank = 0.5 * (who.leg - 0.035), 0.5 * (who.leg - 0.035)
    hip = (0.0, side * who.hip * 0.62, who.leg)
    knee = (thigh * sin(swing), hip[1], hip[2] - thigh * cos(swing))
    lower = swing - knee_bend
    ankle = (knee[0] + shank * sin(lower), hip[1], knee[2] - shank * cos(lower))
    a, b, c = figure.project(*hip), figure.project(*knee), figure.project(*ankle)
    width = who.limb * (0.85 + 0.15 * who.hip / 0.08)
    rh, rk, ra = 0.056 * width, 0.037 * width, 0.024 * width
    far = 0.86 if side * figure.sin > 0.25 else 1.0

    toe = figure.project(ankle[0] + 0.085, hip[1] * 1.1, ankle[2] - 0.026)
    heel = figure.project(ankle[0] - 0.015, hip[1], ankle[2] - 0.022)
    painter.polygon(
        limb((heel[0], heel[1] - 0.008), (toe[0], toe[1] - 0.006), 0.024, 0.019),
        figure.shade(who.sole, 2, far),
        FEET,
    )
    painter.polygon(limb(heel, toe, 0.025, 0.019), figure.shade(who.shoes, 2, far), FEET)
    skin = figure.shade(who.skin, 2, far)
    painter.polygon(limb(a, b, rh * 0.9, rk * 0.95), skin, LEGS)
    painter.polygon(limb(b, c, rk, ra), skin, LEGS)
    painter.polygon(limb(blend(b, c, 0.72), c, ra * 1.1, ra), figure.shade(who.socks, 2, far), LEGS)

    if who.skirt:
        if who.boot:
            _boot(figure, painter, b, c, rk, ra, far)
        return
    cloth = figure.shade(who.lower, 1, far)
    loose = who.lower_width
    length = who.lower_length
    if length < 0.7:
        knee_share = min(1.0, length / 0.5)
        end = blend(a, b, knee_share) if length <= 0.5 else blend(b, c, length * 2 - 1)
        painter.polygon(limb(a, end, rh, rk * (0.8 + 0.45 * loose)), cloth, LEGS)
        hem = end
        radius = rk * (0.8 + 0.45 * loose)
    else:
        end = blend(b, c, length * 2 - 1)
        painter.polygon(limb(a, b, rh, rk * (0.7 + 0.4 * loose)), cloth, LEGS)
        painter.polygon(
            limb(b, end, rk * (0.7 + 0.4 * loose), ra * (0.6 + 0.7 * loose)), cloth, LEGS
        )
        hem = end
        radius = ra * (0.6 + 0.7 * loose)
    if who.lower_stripe and side * figure.sin < 0.3:
        offset = (side * figure.cos * rh * 0.75, 0.0)
        shift = (offset[0] * 0.7, 0.0)
        colour = figure.shade(who.lower_stripe, 1, far)
        painter.line(shifted(a, offset), shifted(b, shift), colour, 0.018)
        if length >= 0.7:
            painter.line(shifted(b, shift), shifted(hem, (shift[0] * 0.6, 0)), colour, 0.018)
    if who.lower_band:
        top = blend(hem, b if length > 0.5 else a, 0.16)
        painter.detail(limb(top, hem, radius, radius), figure.shade(who.lower_band, 1, far))
    if who.boot:
        _boot(figure, painter, b, c, rk, ra * (0.6 + 0.7 * loose), far)


def _boot(
    figure: Figure, painter: Painter, knee: Point, ankle: Point, rk: float, ra: float, far: float
) -> None:
    top = blend(ankle, knee, figure.who.boot)
    painter.polygon(
        limb(top, ankle, max(rk, ra) * 1.02, 0.026), figure.shade(figure.who.shoes, 2, far), FEET
    )


def draw_skirt(figure: Figure, painter: Painter) -> None:
    """Draw the skirt over both legs, if the identity wears one."""
    who = figure.who
    if not who.skirt:
        return
    reach = who.leg * (1.0 - who.lower_length)
    waist_half = figure.half_width(who.hip * 0.95, who.girth * 0.75)
    spread = figure.pose.stride * abs(cos(figure.pose.phase - pi / 2)) * abs(figure.sin)
    hem_half = waist_half * (0.95 + 0.25 * who.lower_width) + 0.15 * spread * who.lower_length
    top = figure.project(0.0, 0.0, who.leg + 0.07)
    low = figure.project(0.0, 0.0, reach)
    colour = figure.shade(who.lower, 1)
    outline = [
        (top[0] - waist_half, top[1]),
        (top[0] + waist_half, top[1]),
        (low[0] + hem_half, low[1]),
        (low[0] - hem_half, low[1]),
    ]
    painter.polygon(outline, colour, LEGS)
    if who.lower_band:
        height = 0.025
        painter.detail(
            [
                (low[0] - hem_half, low[1]),
                (low[0] + hem_half, low[1]),
                (low[0] + hem_half * 0.98, low[1] + height),
                (low[0] - hem_half * 0.98, low[1] + height),
            ],
            figure.shade(who.lower_band, 1),
        )
    if who.lower_stripe:
        painter.line(top, low, figure.shade(who.lower_stripe, 1), 0.018)
