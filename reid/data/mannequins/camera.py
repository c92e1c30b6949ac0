"""A camera: its place, its light and what its sensor does to an image."""

from dataclasses import dataclass
from functools import lru_cache
from math import pi

import numpy as np

from reid._optional import require
from reid.data.mannequins.random import CAMERA, Stream

cv2 = require("cv2")

_ANGLES = (0.15, pi - 0.1, pi / 2, -pi / 2 + 0.1, 0.75, pi + 0.7, -0.7, pi - 0.8)


@dataclass(frozen=True, slots=True)
class Camera:
    """Parameters of one camera.

    Attributes:
        number: Index, counted from 0.
        angle: Typical viewing angle in radians, and its spread.
        gain: Factor per channel (R, G, B).
        saturation: Factor on the distance from gray.
        gamma: Exponent of the tone curve.
        contrast: Slope around middle gray.
        lift: Offset of black, 0-255.
        exposure: Deviation of the exposure from frame to frame.
        blur: Deviation of the blur in pixels at height 128.
        zoom: Share of the height in pixels that the sensor really resolves.
        noise: Deviation of the noise, 0-255.
        quality: Quality of the camera's JPEG stream.
        shift: Detector jitter of the position, in box sizes.
        scale: Detector jitter of the size.
        light: Direction and strength of the side light, -1 to 1.
        shadow: Darkness of the shadow on the ground, 0-1.
    """

    number: int
    angle: float
    spread: float
    gain: tuple[float, float, float]
    saturation: float
    gamma: float
    contrast: float
    lift: float
    exposure: float
    blur: float
    zoom: float
    noise: float
    quality: int
    shift: float
    scale: float
    light: float
    shadow: float


@lru_cache(maxsize=64)
def camera(seed: int, number: int) -> Camera:
    """The camera of this number in the network of cameras of this seed."""
    order = Stream(seed, CAMERA).shuffled(range(len(_ANGLES)))
    stream = Stream(seed, CAMERA, number + 1)
    warm = stream.uniform(-0.08, 0.08)
    tint = stream.uniform(-0.04, 0.04)
    level = stream.uniform(0.9, 1.1)
    return Camera(
        number=number,
        angle=_ANGLES[order[number % len(_ANGLES)]] + stream.uniform(-0.2, 0.2),
        spread=stream.uniform(0.35, 0.7),
        gain=(level * (1 + warm), level * (1 + tint), level * (1 - warm)),
        saturation=stream.uniform(0.7, 1.15),
        gamma=stream.uniform(0.92, 1.1),
        contrast=stream.uniform(0.9, 1.12),
        lift=stream.uniform(-3.0, 8.0),
        exposure=stream.uniform(0.03, 0.07),
        blur=stream.uniform(0.15, 0.55),
        zoom=stream.uniform(0.55, 1.0),
        noise=stream.uniform(1.5, 6.0),
        quality=int(stream.uniform(55, 92)),
        shift=stream.uniform(0.015, 0.045),
        scale=stream.uniform(0.03, 0.08),
        light=stream.uniform(-1.0, 1.0),
        shadow=stream.uniform(0.15, 0.5),
    )


def develop(image: np.ndarray, view: Camera, stream: Stream, noise: np.ndarray) -> np.ndarray:
    """What the camera records of a drawn image.

    Args:
        image: (H, W, 3) uint8, RGB.
        view: The camera.
        stream: The frame's own numbers.
        noise: A tile of unit noise (N, M) float32, N > H and M > 3 W.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    height, width = image.shape[:2]
    sigma = view.blur * height / 128 * stream.uniform(0.7, 1.3)
    zoom = min(1.0, view.zoom * stream.uniform(0.85, 1.15))
    if zoom < 0.97:
        small = (max(8, round(width * zoom)), max(16, round(height * zoom)))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if sigma > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), sigma)

    s = view.saturation
    grey = np.array((0.3, 0.59, 0.11), np.float32) * (1 - s)
    mix = np.tile(grey, (3, 1)) + np.eye(3, dtype=np.float32) * s
    image = cv2.transform(image, mix)
    exposure = 1.0 + view.exposure * stream.normal()
    warm = 0.03 * stream.normal()
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    gain = np.array(view.gain, np.float32) * exposure * np.array((1 + warm, 1, 1 - warm))
    curve = np.minimum(levels * gain, 1.3) ** view.gamma
    curve = (curve - 0.45) * view.contrast + 0.45
    table = np.clip(curve * 255 + view.lift, 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table[None])

    amount = view.noise * stream.uniform(0.7, 1.3)
    y = stream.integer(noise.shape[0] - height)
    x = stream.integer(noise.shape[1] - 3 * width)
    grain = noise[y : y + height, x : x + 3 * width].reshape(height, width, 3)
    image = cv2.add(image, grain * np.float32(amount), dtype=cv2.CV_8U)

    quality = int(min(95, max(30, view.quality + 8 * stream.normal())))
    _, packed = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, quality)
    )
    return np.asarray(cv2.cvtColor(cv2.imdecode(packed, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
