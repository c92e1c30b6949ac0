"""A walking figure: skeleton of one pose, then the parts from far to near."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import cos, pi, sin

from reid.data.mannequins.carried import draw_backpack, draw_bag, draw_strap, draw_straps
from reid.data.mannequins.head import draw_head
from reid.data.mannequins.identity import Identity
from reid.data.mannequins.labels import ARMS, CARRIED, HEAD, SHOULDER_HEIGHT, TORSO
from reid.data.mannequins.legs import draw_leg, draw_skirt
from reid.data.mannequins.painter import Painter, Point, blend, ellipse, limb, shifted
from reid.data.mannequins.palette import Colour
from reid.data.mannequins.random import Stream

_TILT = 0.13


@dataclass(frozen=True, slots=True)
class Pose:
    """What changes from image to image.

    Attributes:
        angle: Radians between the walking direction and the camera; 0 shows the front.
        phase: Radians of the walking cycle.
        stride: Thigh swing in radians.
        lean: Sideways shift of the head, in body heights.
        bend: Elbow bend in radians.
        look: Extra turn of the head in radians.
        tints: Brightness and colour drift of (upper, lower, others), per channel.
    """

    angle: float
    phase: float
    stride: float
    lean: float
    bend: float
    look: float
    tints: tuple[Colour, Colour, Colour]


def sample_pose(stream: Stream, typical_angle: float, spread: float, drift: float) -> Pose:
    """A pose as seen by a camera that people pass at a typical angle."""
    angle = typical_angle + spread * stream.normal()
    if stream.chance(0.15):
        angle = stream.uniform(0.0, 2.0 * pi)
    standing = stream.chance(0.2)

    def tint() -> Colour:
        level = 1.0 + drift * stream.normal()
        return (
            level * (1.0 + 0.35 * drift * stream.normal()),
            level * (1.0 + 0.35 * drift * stream.normal()),
            level * (1.0 + 0.35 * drift * stream.normal()),
        )

    return Pose(
        angle=angle,
        phase=stream.uniform(0.0, 2.0 * pi),
        stride=stream.uniform(0.02, 0.1) if standing else stream.uniform(0.25, 0.52),
        lean=0.012 * stream.normal(),
        bend=stream.uniform(0.1, 0.75),
        look=0.35 * stream.normal(),
        tints=(tint(), tint(), tint()),
    )


class Figure:
    """One identity in one pose; `draw` puts it on a painter."""

    def __init__(self, identity: Identity, pose: Pose) -> None:
        self.who = identity
        self.pose = pose
        self.sin = sin(pose.angle)
        self.cos = cos(pose.angle)

    def project(self, forward: float, left: float, up: float) -> Point:
        """A point of the body (forward, to its left, up) as the camera sees it."""
        lean = (self.pose.lean + self.who.stoop * self.sin * 0.8) * max(up - 0.45, 0.0) * 2.0
        near = forward * self.cos - left * self.sin
        return (forward * self.sin + left * self.cos + lean, up - _TILT * near)

    def shade(self, colour: Colour, group: int, level: float = 1.0) -> Colour:
        """A colour under this image's drift; group 0 upper, 1 lower, 2 others."""
        tint = self.pose.tints[group]
        return (
            min(max(colour[0] * tint[0] * level, 0.0), 255.0),
            min(max(colour[1] * tint[1] * level, 0.0), 255.0),
            min(max(colour[2] * tint[2] * level, 0.0), 255.0),
        )

    def draw(self, painter: Painter) -> None:
        """Draw every part, the far ones first."""
        parts: list[tuple[float, Callable[[Painter], None]]] = []
        sides = sorted((-1.0, 1.0), key=lambda side: -side * self.sin)
        for rank, side in enumerate(sides):
            near_arm = rank == 1 or abs(self.sin) < 0.35
            parts.append((-2.0 + rank, partial(draw_leg, self, side=side)))
            parts.append((3.0 + rank if near_arm else -3.0, partial(self._arm, side=side)))
        parts.append((0.0, partial(draw_skirt, self)))
        parts.append((1.0, self._torso))
        back = self.cos < 0.15
        if self.who.backpack:
            parts.append((2.0 if back else -4.0, partial(draw_backpack, self)))
            if not back:
                parts.append((1.5, partial(draw_straps, self)))
        if self.who.bag:
            parts.append((2.5, partial(draw_strap, self)))
            near = -self.who.bag_side * self.sin > -0.3
            parts.append((5.5 if near else -3.5, partial(draw_bag, self)))
        parts.append((2.7, partial(draw_head, self)))
        for _, part in sorted(parts, key=lambda item: item[0]):
            part(painter)

    def half_width(self, wide: float, deep: float) -> float:
        """Half of the width that a body of this width and depth shows."""
        return ((wide * self.cos) ** 2 + (deep * self.sin) ** 2) ** 0.5

    def _torso(self, painter: Painter) -> None:
        who = self.who
        hem_up = who.leg - who.hem
        levels = (
            (SHOULDER_HEIGHT + 0.03, 0.45 * who.shoulder, 0.4 * who.girth),
            (SHOULDER_HEIGHT, 0.98 * who.shoulder, 0.8 * who.girth),
            (0.74, 0.98 * who.shoulder, who.girth),
            (0.63, 0.9 * who.girth, 0.92 * who.girth),
            (who.leg + 0.02, who.hip * 1.14, 0.86 * who.girth),
            (hem_up, who.hip * 1.2, 0.86 * who.girth),
        )
        left_side: list[Point] = []
        right_side: list[Point] = []
        for up, wide, deep in levels:
            centre = self.project(0.0, 0.0, up)
            half = self.half_width(wide, deep)
            left_side.append((centre[0] - half, centre[1]))
            right_side.append((centre[0] + half, centre[1]))
        neck = self.project(0.0, 0.0, SHOULDER_HEIGHT + 0.01)
        chin = self.project(0.0, 0.0, SHOULDER_HEIGHT + 0.075)
        painter.polygon(limb(neck, chin, 0.034, 0.03), self.shade(who.skin, 2, 0.9), HEAD)
        top = self.project(0.0, 0.0, SHOULDER_HEIGHT + 0.03)
        bottom = self.project(0.0, 0.0, hem_up)
        painter.pattern(
            left_side + right_side[::-1],
            (self.shade(who.upper, 0), self.shade(who.upper_second, 0)),
            TORSO,
            who.pattern,
            who.period,
            who.duty,
            top,
            bottom,
        )
        if who.cuff:
            painter.detail(
                [
                    left_side[-1],
                    right_side[-1],
                    (right_side[-1][0], right_side[-1][1] + 0.018),
                    (left_side[-1][0], left_side[-1][1] + 0.018),
                ],
                self.shade(who.cuff, 0),
            )
        if who.belt and who.hem < 0.04:
            painter.detail(
                [
                    shifted(left_side[-1], (0.0, 0.004)),
                    shifted(right_side[-1], (0.0, 0.004)),
                    shifted(right_side[-1], (0.0, -0.02)),
                    shifted(left_side[-1], (0.0, -0.02)),
                ],
                self.shade(who.belt, 2),
            )
        if self.cos > 0.2:
            self._front(painter, top, bottom)
        elif who.hood:
            centre = self.project(-0.5 * who.girth, 0.0, 0.79)
            half = 0.055 * max(0.4, -self.cos) + 0.015
            painter.detail(ellipse(centre, half, 0.045), self.shade(who.upper_second, 0, 0.92))
        if who.scarf:
            painter.detail(
                ellipse(self.project(0.01, 0.0, SHOULDER_HEIGHT + 0.035), 0.052, 0.028),
                self.shade(who.scarf, 2),
            )

    def _front(self, painter: Painter, top: Point, bottom: Point) -> None:
        who = self.who
        shift = who.girth * 0.85 * self.sin
        high, low = (top[0] + shift * 0.7, top[1]), (bottom[0] + shift, bottom[1])
        if who.open_front:
            half = 0.036 * self.cos + 0.004
            painter.detail(
                [
                    (high[0] - half * 0.9, high[1]),
                    (high[0] + half * 0.9, high[1]),
                    (low[0] + half, low[1]),
                    (low[0] - half, low[1]),
                ],
                self.shade(who.open_front, 0),
            )
        if who.zip_colour:
            painter.line(high, low, self.shade(who.zip_colour, 0), 0.012)
        if who.print_shape:
            centre = self.project(who.girth * 0.9, 0.0, who.print_height)
            for outline in _print(who.print_shape, centre, who.print_size, self.cos):
                painter.detail(outline, self.shade(who.print_colour, 0))

    def _arm(self, painter: Painter, side: float) -> None:
        who, pose = self.who, self.pose
        carrying = who.handbag is not None and side == who.handbag_side
        swing = -pose.stride * 0.85 * sin(pose.phase) * side
        bend = 0.12 if carrying else pose.bend
        swing = 0.3 * swing if carrying else swing
        upper, fore = 0.165, 0.155
        shoulder = (0.0, side * (who.shoulder - 0.012), SHOULDER_HEIGHT - 0.022)
        out = side * 0.028 + side * 0.02 * who.limb
        elbow = (
            upper * sin(swing),
            shoulder[1] + out,
            shoulder[2] - upper * cos(swing),
        )
        wrist = (
            elbow[0] + fore * sin(swing + bend),
            elbow[1],
            elbow[2] - fore * cos(swing + bend),
        )
        a, b, c = self.project(*shoulder), self.project(*elbow), self.project(*wrist)
        r0, r1, r2 = 0.036 * who.limb, 0.027 * who.limb, 0.02 * who.limb
        far = 0.84 if side * self.sin > 0.25 else 0.95
        skin = self.shade(who.skin, 2, far)
        hand = blend(b, c, 1.16)
        painter.polygon(limb(b, hand, r1 * 0.9, r2), skin, ARMS)
        if who.sleeve < 0.6:
            painter.polygon(limb(a, b, r0 * 0.85, r1 * 0.92), skin, ARMS)
        base, second = self.shade(who.upper, 0, far), self.shade(who.upper_second, 0, far)
        kind = who.pattern
        if who.sleeve_plain or kind in ("columns", "halves", "yoke"):
            kind = "plain"
            base = second if who.pattern == "yoke" else base
        period, duty = who.period, who.duty
        if who.sleeve < 0.6:
            end = blend(a, b, who.sleeve / 0.5) if who.sleeve < 0.5 else b
            cloth = limb(a, end, r0, r1 * 1.18)
            painter.pattern(cloth, (base, second), ARMS, kind, period, duty, a, end)
        else:
            end = blend(b, c, who.sleeve * 2 - 1)
            painter.pattern(
                limb(a, b, r0, r1 * 1.08), (base, second), ARMS, kind, period, duty, a, b
            )
            painter.pattern(
                limb(b, end, r1 * 1.08, r2 * 1.2), (base, second), ARMS, kind, period, duty, b, end
            )
        if who.cuff:
            start = blend(end, a if who.sleeve < 0.6 else b, 0.22)
            painter.detail(limb(start, end, r2 * 1.2, r2 * 1.1), self.shade(who.cuff, 0, far))
        if carrying and who.handbag:
            size = who.handbag_size
            colour = self.shade(who.handbag, 2, far)
            half = (0.028 + 0.032 * abs(self.sin)) * size
            low = (hand[0], hand[1] - 0.035)
            painter.line(hand, (low[0] - half * 0.7, low[1]), colour, 0.008)
            painter.line(hand, (low[0] + half * 0.7, low[1]), colour, 0.008)
            painter.polygon(
                [
                    (low[0] - half, low[1]),
                    (low[0] + half, low[1]),
                    (low[0] + half * 1.15, low[1] - 0.085 * size),
                    (low[0] - half * 1.15, low[1] - 0.085 * size),
                ],
                colour,
                CARRIED,
            )


def _print(shape: str, centre: Point, size: float, squeeze: float) -> list[list[Point]]:
    """Outlines of a chest print, narrowed by the viewing angle."""
    x, y = centre
    w, h = size * squeeze, size

    def box(x0: float, y0: float, x1: float, y1: float) -> list[Point]:
        return [
            (x + x0 * w, y + y0 * h), (x + x1 * w, y + y0 * h),
            (x + x1 * w, y + y1 * h), (x + x0 * w, y + y1 * h),
        ]  # fmt: skip

    if shape == "disc":
        return [ellipse(centre, w, h)]
    if shape == "ring":
        outer, inner = ellipse(centre, w, h), ellipse(centre, 0.55 * w, 0.55 * h)
        return [[*outer, outer[0], inner[0], *inner[::-1]]]
    if shape == "square":
        return [box(-1, -1, 1, 1)]
    if shape == "triangle":
        return [[(x - w, y - 0.8 * h), (x + w, y - 0.8 * h), (x, y + h)]]
    if shape == "bar":
        return [box(-1.6, -0.4, 1.6, 0.4)]
    if shape == "cross":
        return [box(-0.35, -1.1, 0.35, 1.1), box(-1.1, -0.35, 1.1, 0.35)]
    if shape == "diamond":
        return [[(x - w, y), (x, y + h * 1.2), (x + w, y), (x, y - h * 1.2)]]
    return [box(-1.5, -0.5, -0.9, 0.5), box(-0.5, -0.5, 0.1, 0.5), box(0.5, -0.5, 1.5, 0.5)]
