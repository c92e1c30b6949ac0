"""One image from (seed, identity, camera, frame)."""

from dataclasses import dataclass
from math import floor, pi

import numpy as np

from reid._optional import require
from reid.data.mannequins.camera import Camera, camera, develop
from reid.data.mannequins.figure import Figure, sample_pose
from reid.data.mannequins.identity import identity
from reid.data.mannequins.labels import OCCLUDER
from reid.data.mannequins.occluders import STRANGERS, occlude
from reid.data.mannequins.painter import Painter
from reid.data.mannequins.random import FRAME, OCCLUSION, POSE, Stream
from reid.data.mannequins.scene import HEIGHT, WIDTH, noise_tile, scene

cv2 = require("cv2")

PERSON, BACKGROUND, FRAGMENT = "person", "background", "fragment"
_BASE_HEIGHT = 256


@dataclass(frozen=True, slots=True)
class Spec:
    """What one image shows.

    Attributes:
        seed: Seed of the population.
        identity: Number of the identity, not negative.
        camera: Number of the camera, not negative.
        frame: Number of the image within (identity, camera).
        occlude: Whether something stands in front of the figure.
        kind: 'person', 'background' (an empty box) or 'fragment' (a box beside a person).
        camera_seed: Seed of the network of cameras; None takes `seed`.
    """

    seed: int
    identity: int
    camera: int
    frame: int
    occlude: bool = False
    kind: str = PERSON
    camera_seed: int | None = None


def render(
    seed: int,
    identity: int,
    camera: int,
    frame: int,
    *,
    image_size: tuple[int, int] = (256, 128),
    occlude: bool = False,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Draw one image of one identity.

    Args:
        seed: Seed of the population and of the cameras.
        identity: Number of the identity, not negative.
        camera: Number of the camera, counted from 0.
        frame: Number of the image within (identity, camera); another frame is another pose.
        image_size: Height and width in pixels.
        occlude: Put something in front of the figure.

    Returns:
        Image (H, W, 3) uint8 RGB, mask (H, W) uint8 (0 background, 1 head, 2 torso, 3 arms,
        4 legs, 5 feet, 6 carried things, 7 occluder) and the share of the body's pixels that the
        occluder covers.
    """
    return draw(Spec(seed, identity, camera, frame, occlude), image_size)


def draw(spec: Spec, image_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, float]:
    """Draw what a spec says; returns as `render`."""
    height, width = image_size
    # Small images are drawn at twice their size, which is cheaper than it sounds and keeps the
    # same look at every size.
    factor = max(1, round(_BASE_HEIGHT / height))
    rows, columns = height * factor, width * factor
    camera_seed = spec.seed if spec.camera_seed is None else spec.camera_seed
    view = camera(camera_seed, spec.camera)
    key = (spec.seed, spec.identity, spec.camera, spec.frame)
    pose_stream = Stream(POSE, *key)
    frame_stream = Stream(FRAME, *key)

    canvas = _window(view, camera_seed, frame_stream, rows, columns)
    mask = np.zeros((rows, columns), np.uint8)
    if frame_stream.chance(0.22):
        _stranger_behind(canvas, spec.seed, frame_stream)
    if spec.kind != BACKGROUND:
        _person(canvas, mask, spec, view, pose_stream, frame_stream)
    body = mask > 0
    if spec.occlude:
        occlude(canvas, mask, Stream(OCCLUSION, *key), spec.seed, (factor, factor))
    _light(canvas, body & (mask != OCCLUDER), view, frame_stream)
    body, mask = body[::factor, ::factor], np.ascontiguousarray(mask[::factor, ::factor])
    if factor > 1:
        canvas = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    image = develop(canvas, view, frame_stream, noise_tile(0))
    hidden = mask[body] == OCCLUDER
    return image, mask, float(hidden.mean()) if hidden.size else 0.0


def _window(view: Camera, camera_seed: int, stream: Stream, rows: int, columns: int) -> np.ndarray:
    picture, horizon = scene(camera_seed, view.number)
    tall = stream.uniform(210, 300)
    wide = tall * columns / rows
    x = stream.uniform(0, WIDTH - wide)
    feet = stream.uniform(horizon + 20, HEIGHT - 8)
    y = min(max(feet - tall, 0.0), HEIGHT - tall)
    part = picture[int(y) : int(y + tall), int(x) : int(x + wide)]
    return np.asarray(cv2.resize(part, (columns, rows), interpolation=cv2.INTER_LINEAR))


def _stranger_behind(canvas: np.ndarray, seed: int, stream: Stream) -> None:
    rows, columns = canvas.shape[:2]
    who = identity(seed, STRANGERS + stream.integer(4096))
    pose = sample_pose(stream, stream.uniform(0, 2 * pi), 0.3, 0.12)
    scale = rows * stream.uniform(0.45, 0.75)
    origin = (columns * stream.choice((0.08, 0.92)), rows * stream.uniform(0.7, 0.86))
    unused = np.zeros((rows, columns), np.uint8)
    Figure(who, pose).draw(Painter(canvas, unused, origin, scale))


def _person(
    canvas: np.ndarray,
    mask: np.ndarray,
    spec: Spec,
    view: Camera,
    pose_stream: Stream,
    stream: Stream,
) -> None:
    rows, columns = mask.shape
    who = identity(spec.seed, spec.identity)
    pose = sample_pose(pose_stream, view.angle, view.spread, 0.06)
    scale = rows * 0.92 * (1.0 + view.scale * stream.normal())
    x = columns * (0.5 + 2 * view.shift * stream.normal())
    base = rows * (0.965 + view.shift * stream.normal())
    if stream.chance(0.08):
        base += rows * stream.uniform(-0.1, 0.1)
    if spec.kind == FRAGMENT:
        scale *= stream.uniform(1.1, 2.2)
        x += columns * stream.choice((-1.0, 1.0)) * stream.uniform(0.15, 0.5)
        base += rows * stream.uniform(-0.55, 0.9)
    _shadow(canvas, (x, base), scale, view)
    Figure(who, pose).draw(Painter(canvas, mask, (x, base), scale))


def _shadow(canvas: np.ndarray, foot: tuple[float, float], scale: float, view: Camera) -> None:
    top = max(0, int(foot[1] - 0.12 * scale))
    if top >= len(canvas):
        return
    region = canvas[top:]
    dark = region.copy()
    centre = (floor(foot[0] + 0.1 * scale * view.light), floor(foot[1] - top))
    axes = (int(0.2 * scale), int(0.045 * scale))
    cv2.ellipse(dark, centre, axes, 0, 0, 360, (20, 20, 24), -1, cv2.LINE_AA)
    cv2.addWeighted(dark, view.shadow, region, 1 - view.shadow, 0, dst=region)


def _light(canvas: np.ndarray, body: np.ndarray, view: Camera, stream: Stream) -> None:
    """Shade the figure like a round thing lit from the side, and the box by a soft gradient."""
    rows, columns = body.shape
    small = cv2.resize(body.view(np.uint8), (columns // 4, rows // 4), interpolation=cv2.INTER_AREA)
    small = small.astype(np.float32)
    soft = cv2.GaussianBlur(small, (0, 0), rows / 4 / 48)
    slope = cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=3)
    strength = 0.11 * (view.light + 0.3 * stream.normal())
    shade = 0.90 + 0.1 * soft + strength * slope * small
    ramp = np.linspace(-1, 1, columns // 4, dtype=np.float32)[None]
    shade += np.float32(0.07 * stream.normal()) * ramp
    field = cv2.resize(shade, (columns, rows), interpolation=cv2.INTER_LINEAR)
    cv2.multiply(canvas, cv2.merge((field, field, field)), dst=canvas, dtype=cv2.CV_8U)
