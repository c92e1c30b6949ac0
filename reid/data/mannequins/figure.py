"""A walking figure: skeleton of one pose, then the parts from far to near."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import cos, pi, sin

from reid.data.mannequins.identity import Identity
from reid.data.mannequins.painter import Painter, Point, blend, cap, ellipse, limb
from reid.data.mannequins.palette import Colour
from reid.data.mannequins.random import Stream

HEAD, TORSO, ARMS, LEGS, FEET, CARRIED, OCCLUDER = range(1, 8)

SHOULDER_HEIGHT = 0.815
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
            parts.append((-2.0 + rank, partial(self._leg, side=side)))
            parts.append((3.0 + rank if near_arm else -3.0, partial(self._arm, side=side)))
        parts.append((0.0, self._skirt))
        parts.append((1.0, self._torso))
        back = self.cos < 0.15
        if self.who.backpack:
            parts.append((2.0 if back else -4.0, self._backpack))
            if not back:
                parts.append((1.5, self._straps))
        if self.who.bag:
            parts.append((2.5, self._strap))
            near = -self.who.bag_side * self.sin > -0.3
            parts.append((5.5 if near else -3.5, self._bag))
        parts.append((2.7, self._head))
        for _, part in sorted(parts, key=lambda item: item[0]):
            part(painter)

    def _leg(self, painter: Painter, side: float) -> None:
        who, pose = self.who, self.pose
        swing = pose.stride * sin(pose.phase) * side
        knee_bend = 0.1 + pose.stride * 1.1 * max(0.0, cos(pose.phase) * side)
        thigh, shank = 0.5 * (who.leg - 0.035), 0.5 * (who.leg - 0.035)
        hip = (0.0, side * who.hip * 0.62, who.leg)
        knee = (thigh * sin(swing), hip[1], hip[2] - thigh * cos(swing))
        lower = swing - knee_bend
        ankle = (knee[0] + shank * sin(lower), hip[1], knee[2] - shank * cos(lower))
        a, b, c = self.project(*hip), self.project(*knee), self.project(*ankle)
        width = who.limb * (0.85 + 0.15 * who.hip / 0.08)
        rh, rk, ra = 0.056 * width, 0.037 * width, 0.024 * width
        far = 0.86 if side * self.sin > 0.25 else 1.0

        toe = self.project(ankle[0] + 0.085, hip[1] * 1.1, ankle[2] - 0.026)
        heel = self.project(ankle[0] - 0.015, hip[1], ankle[2] - 0.022)
        painter.polygon(
            limb((heel[0], heel[1] - 0.008), (toe[0], toe[1] - 0.006), 0.024, 0.019),
            self.shade(who.sole, 2, far),
            FEET,
        )
        painter.polygon(limb(heel, toe, 0.025, 0.019), self.shade(who.shoes, 2, far), FEET)
        skin = self.shade(who.skin, 2, far)
        painter.polygon(limb(a, b, rh * 0.9, rk * 0.95), skin, LEGS)
        painter.polygon(limb(b, c, rk, ra), skin, LEGS)
        painter.polygon(
            limb(blend(b, c, 0.72), c, ra * 1.1, ra), self.shade(who.socks, 2, far), LEGS
        )

        if who.skirt:
            if who.boot:
                self._boot(painter, b, c, rk, ra, far)
            return
        cloth = self.shade(who.lower, 1, far)
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
        if who.lower_stripe and side * self.sin < 0.3:
            offset = (side * self.cos * rh * 0.75, 0.0)
            shift = (offset[0] * 0.7, 0.0)
            colour = self.shade(who.lower_stripe, 1, far)
            painter.line(_add(a, offset), _add(b, shift), colour, 0.018)
            if length >= 0.7:
                painter.line(_add(b, shift), _add(hem, (shift[0] * 0.6, 0)), colour, 0.018)
        if who.lower_band:
            top = blend(hem, b if length > 0.5 else a, 0.16)
            painter.detail(limb(top, hem, radius, radius), self.shade(who.lower_band, 1, far))
        if who.boot:
            self._boot(painter, b, c, rk, ra * (0.6 + 0.7 * loose), far)

    def _boot(
        self, painter: Painter, knee: Point, ankle: Point, rk: float, ra: float, far: float
    ) -> None:
        top = blend(ankle, knee, self.who.boot)
        painter.polygon(
            limb(top, ankle, max(rk, ra) * 1.02, 0.026), self.shade(self.who.shoes, 2, far), FEET
        )

    def _skirt(self, painter: Painter) -> None:
        who = self.who
        if not who.skirt:
            return
        reach = who.leg * (1.0 - who.lower_length)
        waist_half = self._half_width(who.hip * 0.95, who.girth * 0.75)
        spread = self.pose.stride * abs(cos(self.pose.phase - pi / 2)) * abs(self.sin)
        hem_half = waist_half * (0.95 + 0.25 * who.lower_width) + 0.15 * spread * who.lower_length
        top = self.project(0.0, 0.0, who.leg + 0.07)
        low = self.project(0.0, 0.0, reach)
        colour = self.shade(who.lower, 1)
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
                self.shade(who.lower_band, 1),
            )
        if who.lower_stripe:
            painter.line(top, low, self.shade(who.lower_stripe, 1), 0.018)

    def _half_width(self, wide: float, deep: float) -> float:
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
            half = self._half_width(wide, deep)
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
                    _add(left_side[-1], (0.0, 0.004)),
                    _add(right_side[-1], (0.0, 0.004)),
                    _add(right_side[-1], (0.0, -0.02)),
                    _add(left_side[-1], (0.0, -0.02)),
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

    def _backpack(self, painter: Painter) -> None:
        who = self.who
        if not who.backpack:
            return
        size = who.backpack_size
        centre = self.project(-who.girth - 0.03 * size, 0.0, 0.685)
        half = self._half_width(0.082 * size, 0.05 * size)
        tall = 0.115 * size
        colour = self.shade(who.backpack, 2)
        x, y = centre
        painter.polygon(
            [
                (x - half, y - tall), (x + half, y - tall), (x + half, y + 0.6 * tall),
                (x + 0.6 * half, y + tall), (x - 0.6 * half, y + tall), (x - half, y + 0.6 * tall),
            ],
            colour,
            CARRIED,
        )  # fmt: skip
        if self.cos < 0.15:
            shift = 0.25 * half * -self.sin
            painter.detail(
                [
                    (x + shift - 0.62 * half, y - 0.8 * tall),
                    (x + shift + 0.62 * half, y - 0.8 * tall),
                    (x + shift + 0.62 * half, y - 0.1 * tall),
                    (x + shift - 0.62 * half, y - 0.1 * tall),
                ],
                self.shade(who.backpack_pocket, 2, 0.9),
            )

    def _straps(self, painter: Painter) -> None:
        if not self.who.backpack:
            return
        colour = self.shade(self.who.backpack, 2)
        for side in (-1.0, 1.0):
            left = side * 0.62 * self.who.shoulder
            start = self.project(self.who.girth * 0.7, left, SHOULDER_HEIGHT + 0.015)
            painter.line(start, self.project(self.who.girth * 0.9, left, 0.67), colour, 0.02)

    def _strap(self, painter: Painter) -> None:
        who = self.who
        if not who.bag:
            return
        front = 1.0 if self.cos >= 0 else -1.0
        start = self.project(0.0, -who.bag_side * 0.6 * who.shoulder, SHOULDER_HEIGHT + 0.01)
        middle = self.project(front * who.girth * 0.9, 0.0, 0.68)
        end = self.project(0.0, who.bag_side * who.hip * 1.2, who.leg + 0.04)
        colour = self.shade(who.bag, 2, 0.9)
        painter.line(start, middle, colour, 0.014)
        painter.line(middle, end, colour, 0.014)

    def _bag(self, painter: Painter) -> None:
        who = self.who
        if not who.bag:
            return
        size = who.bag_size
        x, y = self.project(0.0, who.bag_side * (who.hip + 0.05), who.leg + 0.01)
        half = self._half_width(0.035 * size, 0.07 * size)
        tall = 0.058 * size
        painter.polygon(
            [
                (x - half, y - tall),
                (x + half, y - tall),
                (x + half, y + tall),
                (x - half, y + tall),
            ],
            self.shade(who.bag, 2),
            CARRIED,
        )
        painter.line((x - half, y + 0.2 * tall), (x + half, y + 0.2 * tall), (20, 20, 20), 0.006)

    def _head(self, painter: Painter) -> None:
        who = self.who
        angle = self.pose.angle + self.pose.look
        turn, toward = sin(angle), cos(angle)
        r = who.head
        centre = self.project(0.03 + who.stoop * 0.4, 0.0, 1.0 - r * 1.22)
        x, y = centre
        hair = self.shade(who.hair, 2)
        skin = self.shade(who.skin, 2)
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
            self._hat(painter, (x, y), rx, ry, turn, toward)

    def _hat(
        self, painter: Painter, centre: Point, rx: float, ry: float, turn: float, toward: float
    ) -> None:
        who = self.who
        x, y = centre
        colour = self.shade(who.hat_colour, 2)
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
                self.shade(who.hat_band, 2),
                0.018,
            )


def _add(point: Point, shift: Point) -> Point:
    return (point[0] + shift[0], point[1] + shift[1])


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
