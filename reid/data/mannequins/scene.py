"""The place a camera looks at: one wide picture from which every frame takes a window."""

from functools import lru_cache

import numpy as np

from reid._optional import require
from reid.data.mannequins.random import CAMERA, NOISE, Stream

cv2 = require("cv2")

WIDTH, HEIGHT = 900, 520
_GROUNDS = ("asphalt", "tiles", "grass", "slabs")
_WALLS = ("plaster", "bricks", "windows", "hedge", "fence", "glass")
_FURNITURE = ("tree", "bench", "lamp", "bin", "car", "door", "sign", "bicycle")


@lru_cache(maxsize=4)
def noise_tile(seed: int) -> np.ndarray:
    """Unit normal noise (640, 1000) float32, shared by all frames."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, NOISE))))
    return generator.standard_normal((640, 1000), dtype=np.float32)


def cloud(generator: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Smooth noise (H, W) float32 around zero with blobs of about `cell` pixels."""
    shape = (max(2, height // cell), max(2, width // cell))
    coarse = generator.standard_normal(shape, dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


@lru_cache(maxsize=64)
def scene(seed: int, camera: int) -> tuple[np.ndarray, int]:
    """Paint the place of one camera.

    Args:
        seed: Seed of the network of cameras.
        camera: Index of the camera.

    Returns:
        Picture (520, 900, 3) uint8 RGB and the row where ground and wall meet.
    """
    stream = Stream(seed, CAMERA, camera + 1, 1)
    generator = np.random.Generator(
        np.random.PCG64(np.random.SeedSequence((seed, CAMERA, camera + 1, 2)))
    )
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    horizon = int(stream.uniform(150, 300))
    _wall(image[:horizon], stream)
    _ground(image[horizon:], stream)
    for _ in range(5 + stream.integer(6)):
        _furniture(image, stream, horizon)
    texture = 7 * cloud(generator, HEIGHT, WIDTH, 90) + 5 * cloud(generator, HEIGHT, WIDTH, 14)
    texture += 4 * cloud(generator, HEIGHT, WIDTH, 4)
    return np.asarray(cv2.add(image, np.repeat(texture[..., None], 3, 2), dtype=cv2.CV_8U)), horizon


def _tone(stream: Stream, low: float, high: float, colour: float = 0.12) -> tuple[float, ...]:
    level = stream.uniform(low, high)
    return tuple(level * (1 + stream.uniform(-colour, colour)) for _ in range(3))


def _times(colour: tuple[float, ...], factor: float) -> tuple[float, ...]:
    return tuple(min(255.0, channel * factor) for channel in colour)


def _wall(region: np.ndarray, stream: Stream) -> None:
    height, width = region.shape[:2]
    x = 0
    while x < width:
        step = int(stream.uniform(180, 420))
        part = region[:, x : x + step]
        kind = stream.choice(_WALLS)
        base = _tone(stream, 95, 175, 0.1)
        part[:] = base
        if kind == "bricks":
            base = (stream.uniform(130, 165), stream.uniform(95, 120), stream.uniform(82, 108))
            part[:] = base
            tall = int(stream.uniform(9, 16))
            for row, y in enumerate(range(0, height, tall)):
                cv2.line(part, (0, y), (step, y), _times(base, 1.25), 1)
                for bx in range((row % 2) * tall, step, 2 * tall):
                    cv2.line(part, (bx, y), (bx, y + tall), _times(base, 1.25), 1)
        elif kind in ("windows", "glass"):
            w, gap = int(stream.uniform(34, 80)), int(stream.uniform(8, 40))
            pane = _tone(stream, 60, 130, 0.12)
            for y in range(int(stream.uniform(5, 30)), height, int(1.3 * w) + gap):
                for wx in range(10, step, w + gap):
                    bottom = (wx + w, y + int(1.3 * w))
                    cv2.rectangle(part, (wx, y), bottom, pane, -1)
                    cv2.rectangle(part, (wx, y), bottom, _times(base, 1.3), 2)
        elif kind == "hedge":
            base = (stream.uniform(65, 100), stream.uniform(90, 125), stream.uniform(55, 80))
            part[:] = base
            _leaves(part, stream, base, 160, (0, step), (0, height))
        elif kind == "fence":
            gap = int(stream.uniform(8, 22))
            for fx in range(0, step, gap):
                cv2.line(part, (fx, 0), (fx, height), _times(base, 0.6), 2)
            for y in (int(height * 0.35), int(height * 0.9)):
                cv2.line(part, (0, y), (step, y), _times(base, 0.5), 3)
        else:
            y = int(height * stream.uniform(0.5, 0.9))
            part[y:] = _times(base, stream.uniform(0.6, 0.9))
        x += step


def _ground(region: np.ndarray, stream: Stream) -> None:
    height, width = region.shape[:2]
    kind = stream.choice(_GROUNDS)
    base = _tone(stream, 105, 165, 0.05)
    if kind == "grass":
        base = (stream.uniform(95, 125), stream.uniform(115, 145), stream.uniform(75, 100))
    fade = np.linspace(0.85, 1.12, height, dtype=np.float32)[:, None, None]
    region[:] = np.clip(np.array(base, np.float32) * fade, 0, 255).astype(np.uint8)
    if kind == "grass":
        _leaves(region, stream, base, 220, (0, width), (0, height))
    if kind in ("tiles", "slabs"):
        joint = _times(base, stream.uniform(0.7, 0.88))
        y, step = 4.0, stream.uniform(5, 12)
        while y < height:
            cv2.line(region, (0, int(y)), (width, int(y)), joint, 1, cv2.LINE_AA)
            y, step = y + step, step * stream.uniform(1.18, 1.28)
        spread = 40 if kind == "tiles" else 85
        for x in range(-3 * width, 4 * width, spread):
            far = (width // 2 + (x - width // 2) // 2, 0)
            cv2.line(region, far, (x, height), joint, 1, cv2.LINE_AA)
    if stream.chance(0.5):
        y = int(height * stream.uniform(0.02, 0.25))
        cv2.rectangle(region, (0, y), (width, y + 6), _times(base, stream.choice((0.7, 1.3))), -1)
    if stream.chance(0.4):
        x = int(stream.uniform(0, width))
        slant = [(x, 0), (x + 24, 0), (x + 260, height), (x + 190, height)]
        cv2.fillPoly(region, [np.array(slant)], _times(base, 1.35), cv2.LINE_AA)


def _leaves(
    region: np.ndarray,
    stream: Stream,
    base: tuple[float, ...],
    count: int,
    across: tuple[int, int],
    down: tuple[int, int],
) -> None:
    for _ in range(count):
        centre = (int(stream.uniform(*across)), int(stream.uniform(*down)))
        radius = int(stream.uniform(3, 12))
        cv2.circle(region, centre, radius, _times(base, stream.uniform(0.6, 1.35)), -1, cv2.LINE_AA)


def _furniture(image: np.ndarray, stream: Stream, horizon: int) -> None:
    kind = stream.choice(_FURNITURE)
    x = int(stream.uniform(0, WIDTH))
    y = horizon + int(stream.uniform(0, 70))
    colour = _tone(stream, 60, 180, 0.25)
    dark = _times(colour, 0.6)
    if kind == "tree":
        trunk = (stream.uniform(60, 100), stream.uniform(48, 75), stream.uniform(35, 55))
        w = int(stream.uniform(8, 20))
        cv2.rectangle(image, (x - w, 0), (x + w, y), trunk, -1)
        green = (stream.uniform(65, 95), stream.uniform(90, 125), stream.uniform(50, 75))
        _leaves(image, stream, green, 60, (x - 90, x + 90), (0, max(20, horizon - 90)))
    elif kind == "bench":
        for dy in (0, 10, 28):
            cv2.rectangle(image, (x, y - 50 + dy), (x + 120, y - 44 + dy), colour, -1)
        for dx in (10, 105):
            cv2.rectangle(image, (x + dx, y - 50), (x + dx + 6, y), dark, -1)
    elif kind == "lamp":
        cv2.rectangle(image, (x, 0), (x + int(stream.uniform(5, 12)), y), dark, -1)
    elif kind == "bin":
        cv2.rectangle(image, (x, y - 70), (x + 46, y), colour, -1)
        cv2.rectangle(image, (x - 3, y - 78), (x + 49, y - 66), dark, -1)
    elif kind == "car":
        body = [
            (x, y - 40), (x + 45, y - 48), (x + 80, y - 88), (x + 190, y - 88),
            (x + 225, y - 45), (x + 265, y - 38), (x + 265, y - 8), (x, y - 8),
        ]  # fmt: skip
        cv2.fillPoly(image, [np.array(body)], colour, cv2.LINE_AA)
        glass = [(x + 58, y - 50), (x + 86, y - 82), (x + 184, y - 82), (x + 210, y - 50)]
        cv2.fillPoly(image, [np.array(glass)], (60, 70, 80), cv2.LINE_AA)
        for dx in (55, 210):
            cv2.circle(image, (x + dx, y - 10), 20, (30, 30, 32), -1, cv2.LINE_AA)
    elif kind == "door":
        cv2.rectangle(image, (x, max(0, horizon - 190)), (x + 85, horizon), colour, -1)
        cv2.rectangle(image, (x + 8, max(0, horizon - 180)), (x + 77, horizon - 90), dark, -1)
    elif kind == "sign":
        cv2.rectangle(image, (x, 0), (x + 5, y), (110, 110, 112), -1)
        cv2.rectangle(image, (x - 30, 20), (x + 34, 80), colour, -1)
        cv2.rectangle(image, (x - 24, 40), (x + 28, 52), (235, 235, 235), -1)
    else:
        for dx in (0, 74):
            cv2.circle(image, (x + dx, y - 24), 24, (40, 40, 42), 3, cv2.LINE_AA)
        for start, end in (((0, -24), (30, -60)), ((30, -60), (74, -24)), ((0, -24), (40, -26))):
            cv2.line(image, (x + start[0], y + start[1]), (x + end[0], y + end[1]), colour, 4)
