"""Which images a generated data set holds: sizes, protocols and the plan of one set."""

from dataclasses import dataclass

from reid.data.mannequins.picture import BACKGROUND, FRAGMENT, Spec
from reid.data.mannequins.random import PLAN, Stream
from reid.errors import UserError

PROTOCOLS = ("mannequins", "occluded-mannequins", "partial-mannequins")
SPLITS = ("bounding_box_train", "query", "bounding_box_test")

_DISTRACTORS = 1 << 28


@dataclass(frozen=True, slots=True)
class SizeSpec:
    """How much of everything a generated data set holds.

    Attributes:
        train_ids: Identities in training.
        train_images: Images in training.
        test_ids: Identities in query and gallery; none of them is in training.
        query_images: Queries.
        gallery_images: Images of the test identities in the gallery.
        distractors: Gallery boxes of pid 0.
        junk: Gallery boxes of pid -1.
        cameras: Number of cameras.
    """

    train_ids: int
    train_images: int
    test_ids: int
    query_images: int
    gallery_images: int
    distractors: int
    junk: int
    cameras: int = 6


SIZES = {
    "tiny": SizeSpec(8, 48, 8, 24, 48, 6, 6),
    "demo": SizeSpec(160, 1920, 160, 640, 1280, 160, 60),
    "market": SizeSpec(751, 12_936, 750, 3_368, 13_115, 2_798, 3_819),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One file of the data set.

    Attributes:
        split: Folder.
        name: File name without its ending.
        pid: Identity in the file name; 0 distractor, -1 junk.
        spec: What is drawn.
        cropped: Keep only the part that is not hidden.
    """

    split: str
    name: str
    pid: int
    spec: Spec
    cropped: bool = False


def resolve_size(size: "str | SizeSpec") -> SizeSpec:
    """A named size, or the given one after a check.

    Raises:
        UserError: Unknown name, or numbers from which no protocol can be built.
    """
    if isinstance(size, str):
        if size not in SIZES:
            raise UserError(f"unknown size {size!r}; choose one of {', '.join(SIZES)}")
        return SIZES[size]
    if size.train_ids < 2 or size.test_ids < 2 or size.cameras < 2:
        raise UserError(f"{size}: at least two training ids, two test ids and two cameras needed")
    if size.train_images < size.train_ids or size.query_images < size.test_ids:
        raise UserError(f"{size}: fewer images than identities in training or query")
    if size.query_images > size.test_ids * size.cameras:
        raise UserError(f"{size}: at most one query per identity and camera")
    if size.gallery_images < 2 * size.test_ids:
        raise UserError(f"{size}: the gallery needs two images of every test identity")
    if size.train_ids + size.test_ids > 9999 or size.cameras > 99:
        raise UserError(f"{size}: file names hold at most 9999 identities and 99 cameras")
    return size


def plan(protocol: str, size: SizeSpec, seed: int, first_identity: int) -> list[Item]:
    """Every image of a data set, in the order of the folders.

    Args:
        protocol: One of PROTOCOLS.
        size: Counts.
        seed: Seed of the population, the cameras and the plan.
        first_identity: Added to the pid to give the number of the identity drawn.

    Returns:
        The items; names are unique within a folder.

    Raises:
        UserError: Unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
    whole = protocol == "mannequins"
    items: list[Item] = []
    for index in range(size.train_ids):
        pid = index + 1
        stream = Stream(PLAN, seed, first_identity + pid)
        order = stream.shuffled(range(size.cameras))
        for frame in range(_share(size.train_images, size.train_ids, index)):
            spec = Spec(
                seed, first_identity + pid, order[frame % len(order)], frame, stream.chance(0.1)
            )
            items.append(_item(SPLITS[0], pid, spec))
    for index in range(size.test_ids):
        pid = size.train_ids + index + 1
        stream = Stream(PLAN, seed, first_identity + pid)
        order = stream.shuffled(range(size.cameras))
        for frame in range(_share(size.query_images, size.test_ids, index)):
            hidden = not whole or stream.chance(0.1)
            spec = Spec(seed, first_identity + pid, order[frame], frame, hidden)
            items.append(_item(SPLITS[1], pid, spec, protocol == "partial-mannequins"))
        # Two cameras come first whatever the count, so that every query has a cross-camera match.
        for frame in range(_share(size.gallery_images, size.test_ids, index)):
            spec = Spec(
                seed,
                first_identity + pid,
                order[frame % len(order)],
                100 + frame,
                stream.chance(0.1),
            )
            items.append(_item(SPLITS[2], pid, spec))
    for number in range(size.distractors + size.junk):
        stream = Stream(PLAN, seed, _DISTRACTORS + first_identity + number)
        junk = number >= size.distractors
        kind = stream.weighted(
            ((FRAGMENT, 0.9), (BACKGROUND, 0.1)) if junk else ((BACKGROUND, 0.5), (FRAGMENT, 0.5))
        )
        camera = stream.integer(size.cameras)
        spec = Spec(seed, _DISTRACTORS + first_identity + number, camera, 0, False, kind)
        items.append(_item(SPLITS[2], -1 if junk else 0, spec, serial=number))
    return items


def _share(total: int, parts: int, index: int) -> int:
    return total // parts + (index < total % parts)


def _item(split: str, pid: int, spec: Spec, cropped: bool = False, serial: int = 0) -> Item:
    shown = "-1" if pid < 0 else f"{pid:04d}"
    sequence = 1 + spec.frame % 6
    frame = 1000 + 17 * spec.frame + serial
    name = f"{shown}_c{spec.camera + 1}s{sequence}_{frame:06d}_{1 + serial % 9:02d}"
    return Item(split, name, pid, spec, cropped)
