"""Many images at once, on several processes, in memory."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from reid.data.attributes import MARKET_ATTRIBUTES
from reid.data.mannequins.identity import identity
from reid.data.mannequins.picture import Spec, draw
from reid.data.mannequins.random import PLAN, Stream
from reid.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Rendered:
    """Images in memory with everything known about them.

    Attributes:
        images: (N, 3, H, W) uint8, RGB.
        masks: (N, H, W) uint8, part labels.
        pids: (N,) int64, numbers of the identities.
        camids: (N,) int64, counted from 0.
        attributes: (N, 27) int64, values as in Market-1501, columns as MARKET_ATTRIBUTES.
        occlusion: (N,) float32, share of the body that is covered.
    """

    images: np.ndarray
    masks: np.ndarray
    pids: np.ndarray
    camids: np.ndarray
    attributes: np.ndarray
    occlusion: np.ndarray


def render_many(
    specs: Sequence[Spec], workers: int = 1, *, image_size: tuple[int, int] = (256, 128)
) -> Rendered:
    """Draw many images; the result does not depend on `workers`.

    Args:
        specs: What each image shows.
        workers: Number of processes; 1 draws in this one.
        image_size: Height and width in pixels.

    Returns:
        The images in the order of `specs`.

    Raises:
        UserError: No specs, or fewer than one worker.
    """
    if not specs:
        raise UserError("no image to draw: give at least one Spec")
    count, (height, width) = len(specs), image_size
    images = np.empty((count, 3, height, width), np.uint8)
    masks = np.empty((count, height, width), np.uint8)
    occlusion = np.empty(count, np.float32)
    chunks = [list(specs[start : start + 256]) for start in range(0, count, 256)]
    start = 0
    for drawn in map_processes(partial(_draw_chunk, image_size=image_size), chunks, workers):
        stop = start + len(drawn[0])
        images[start:stop], masks[start:stop], occlusion[start:stop] = drawn
        start = stop
    columns = {
        key: [identity(*key).attributes[name] for name in MARKET_ATTRIBUTES]
        for key in {(spec.seed, spec.identity) for spec in specs}
    }
    return Rendered(
        images=images,
        masks=masks,
        pids=np.array([spec.identity for spec in specs], np.int64),
        camids=np.array([spec.camera for spec in specs], np.int64),
        attributes=np.array([columns[spec.seed, spec.identity] for spec in specs], np.int64),
        occlusion=occlusion,
    )


def training_specs(
    identities: int,
    images_per_identity: int,
    *,
    seed: int = 1000,
    first_identity: int = 100_000,
    cameras: int = 12,
    occluded: float = 0.2,
) -> list[Spec]:
    """Specs of a training set in memory, apart from every generated data set by its seed.

    Args:
        identities: Number of identities.
        images_per_identity: Images of each, spread over the cameras.
        seed: Seed of the population and of the cameras; the data sets on disk use small ones.
        first_identity: Number of the first identity.
        cameras: Number of cameras.
        occluded: Share of the images with something in front of the figure.

    Returns:
        `identities * images_per_identity` specs, identity by identity.
    """
    specs = []
    for number in range(first_identity, first_identity + identities):
        stream = Stream(PLAN, seed, number)
        order: list[int] = []
        for frame in range(images_per_identity):
            order = order or stream.shuffled(range(cameras))
            specs.append(Spec(seed, number, order.pop(), frame, stream.chance(occluded)))
    return specs


def map_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Yield function(item) in order, on `workers` processes when more than one.

    Raises:
        UserError: Fewer than one worker.
    """
    if workers < 1:
        raise UserError(f"workers is {workers}; it must be at least 1")
    if workers == 1 or len(items) < 2:
        yield from map(function, items)
        return
    # Forked children only run drawing code, and a script without a main guard keeps working.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else None)
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=context) as pool:
        yield from pool.map(function, items)


def _draw_chunk(
    specs: list[Spec], image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    drawn = [draw(spec, image_size) for spec in specs]
    images = np.stack([image for image, _, _ in drawn]).transpose(0, 3, 1, 2)
    masks = np.stack([mask for _, mask, _ in drawn])
    return np.ascontiguousarray(images), masks, np.array([share for _, _, share in drawn])
