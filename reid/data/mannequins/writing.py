"""Write a generated data set in Market-1501's layout, all of it or nothing."""

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reid._optional import require
from reid.data.attributes import write_market_attributes
from reid.data.mannequins.batch import map_processes
from reid.data.mannequins.identity import identity
from reid.data.mannequins.labels import OCCLUDER
from reid.data.mannequins.picture import draw
from reid.data.mannequins.protocols import SPLITS, Item, SizeSpec, plan, resolve_size
from reid.errors import UserError

cv2 = require("cv2")

VERSION = 1
MANIFEST = "mannequins.json"
_JPEG_QUALITY = 95
_UNFINISHED = ".part"


def generate(
    root: str | os.PathLike[str],
    *,
    protocol: str = "occluded-mannequins",
    size: str | SizeSpec = "demo",
    seed: int = 0,
    image_size: tuple[int, int] = (256, 128),
    workers: int = 1,
    first_identity: int = 0,
    with_masks: bool = True,
) -> Path:
    """Generate a data set, or recognise that the same one is already there.

    Args:
        root: Folder to create.
        protocol: 'mannequins', 'occluded-mannequins' or 'partial-mannequins'.
        size: 'tiny', 'demo', 'market' or counts of your own.
        seed: Seed of the population and of the cameras.
        image_size: Height and width in pixels.
        workers: Number of processes; the files do not depend on it.
        first_identity: Offset of the identities in the population of this seed.
        with_masks: Write the part labels of every image too.

    Returns:
        The folder.

    Raises:
        UserError: The folder holds something else, or an argument is out of range.
    """
    target = Path(root)
    counts = resolve_size(size)
    height, width = image_size
    if not (32 <= height <= 1024 and 16 <= width <= 1024):
        raise UserError(f"image_size is {height}x{width}; heights 32-1024, widths 16-1024 work")
    if seed < 0 or first_identity < 0:
        raise UserError(f"seed {seed} and first_identity {first_identity} must not be negative")
    if workers < 1:
        raise UserError(f"workers is {workers}; it must be at least 1")
    wanted = {
        "version": VERSION,
        "protocol": protocol,
        "size": size if isinstance(size, str) else "custom",
        "seed": seed,
        "image_size": [height, width],
        "first_identity": first_identity,
        "with_masks": with_masks,
        "parameters": asdict(counts),
    }
    items = plan(protocol, counts, seed, first_identity)
    if _already_there(target, wanted):
        return target

    building = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}{_UNFINISHED}"
    try:
        building.mkdir(parents=True)
        _write(building, items, wanted, workers)
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        try:
            os.replace(building, target)
        except OSError:
            # Another process may have finished the same data set in the meantime.
            if not _already_there(target, wanted):
                raise
    except OSError as error:
        raise UserError(
            f"cannot write the data set to {target}: {error}; free space or name another folder"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def read_manifest(root: str | os.PathLike[str]) -> dict[str, Any]:
    """What `mannequins.json` of a generated data set says.

    Raises:
        UserError: The folder is no generated data set.
    """
    path = Path(root) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{root} has no {MANIFEST}; generate a data set there first") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); generate the data set again") from None
    if not isinstance(manifest, dict):
        raise UserError(f"{path} is not a description of a data set; generate it again")
    return manifest


def mask_path(image: str | os.PathLike[str]) -> Path:
    """Where the part labels of an image of a generated data set lie."""
    path = Path(image)
    return path.parents[1] / "masks" / path.parent.name / f"{path.stem}.png"


def _already_there(target: Path, wanted: dict[str, Any]) -> bool:
    if not target.exists():
        return False
    if not target.is_dir():
        raise UserError(f"{target} is a file; name a folder to generate into")
    if not any(target.iterdir()):
        return False
    if not (target / MANIFEST).is_file():
        raise UserError(f"{target} holds something else; name a new or an empty folder")
    found = read_manifest(target)
    different = [key for key, value in wanted.items() if found.get(key) != value]
    if different:
        key = different[0]
        raise UserError(
            f"{target} holds a data set with {key} {found.get(key)!r}, not {wanted[key]!r}; "
            "delete it or name another folder"
        )
    for split, key in zip(SPLITS, ("train_images", "query_images", "gallery_images"), strict=True):
        there = sum(1 for _ in (target / split).glob("*.jpg"))
        if there != found["counts"][key]:
            raise UserError(
                f"{target / split} holds {there} of {found['counts'][key]} images; "
                f"delete {target} and generate it again"
            )
    return True


def _write(root: Path, items: list[Item], wanted: dict[str, Any], workers: int) -> None:
    with_masks = bool(wanted["with_masks"])
    # No reader takes the folders for a data set before the last image is there.
    for split in SPLITS:
        (root / f"{split}{_UNFINISHED}").mkdir()
        if with_masks:
            (root / "masks" / split).mkdir(parents=True)
    height, width = wanted["image_size"]
    chunks = [items[start : start + 64] for start in range(0, len(items), 64)]
    work = partial(_write_chunk, root=root, image_size=(height, width), with_masks=with_masks)
    digests: list[tuple[str, str, float]] = []
    for written in map_processes(work, chunks, workers):
        digests += written
    content = hashlib.sha256()
    for name, digest, _ in digests:
        content.update(f"{name} {digest}\n".encode())
    (root / "attribute").mkdir()
    write_market_attributes(root / "attribute" / "market_attribute.mat", *_attributes(items))
    kinds = {split: [item for item in items if item.split == split] for split in SPLITS}
    counts = {
        "train_images": len(kinds[SPLITS[0]]),
        "train_ids": len({item.pid for item in kinds[SPLITS[0]]}),
        "query_images": len(kinds[SPLITS[1]]),
        "query_ids": len({item.pid for item in kinds[SPLITS[1]]}),
        "gallery_images": len(kinds[SPLITS[2]]),
        "gallery_ids": len({item.pid for item in kinds[SPLITS[2]] if item.pid > 0}),
        "distractors": sum(item.pid == 0 for item in kinds[SPLITS[2]]),
        "junk": sum(item.pid < 0 for item in kinds[SPLITS[2]]),
        "cameras": len({item.spec.camera for item in items}),
    }
    occlusion = {name: round(share, 4) for name, _, share in digests}
    manifest = {
        **wanted,
        "counts": counts,
        "content_sha256": content.hexdigest(),
        "occlusion": {
            split: {
                f"{item.name}.jpg": occlusion[f"{split}/{item.name}.jpg"] for item in kinds[split]
            }
            for split in SPLITS
        },
    }
    for split in SPLITS:
        os.replace(root / f"{split}{_UNFINISHED}", root / split)
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _write_chunk(
    items: list[Item], root: Path, image_size: tuple[int, int], with_masks: bool
) -> list[tuple[str, str, float]]:
    written = []
    for item in items:
        image, mask, share = draw(item.spec, image_size)
        if item.cropped:
            top, bottom, left, right = visible_box(mask)
            image, mask = image[top:bottom, left:right], mask[top:bottom, left:right]
        image = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
        name = f"{item.split}/{item.name}.jpg"
        digest = hashlib.sha256(image.tobytes())
        digest.update(mask.tobytes())
        folder = root / f"{item.split}{_UNFINISHED}"
        _save(folder / f"{item.name}.jpg", ".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
        if with_masks:
            _save(root / "masks" / item.split / f"{item.name}.png", ".png", mask, ())
        written.append((name, digest.hexdigest(), share))
    return written


def _save(path: Path, ending: str, image: np.ndarray, options: tuple[int, ...]) -> None:
    _, packed = cv2.imencode(ending, image, options)
    path.write_bytes(packed.tobytes())


def visible_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box that a person would crop to leave the occluder out.

    Of all cuts from one side, the one with the most visible body less occluder.

    Args:
        mask: Part labels (H, W) uint8.

    Returns:
        Top, bottom, left, right in pixels; at least a sixth of each side.
    """
    height, width = mask.shape
    worth = ((mask > 0) & (mask < OCCLUDER)).astype(np.int64) - (mask == OCCLUDER)
    boxes = []
    for axis, length in ((0, height), (1, width)):
        reach = np.concatenate(([0], np.cumsum(worth.sum(1 - axis))))
        least = max(8, length // 6)
        head = least + int(np.argmax(reach[least:]))
        tail = int(np.argmin(reach[: length - least + 1]))
        for start, stop in ((0, head), (tail, length)):
            box = (start, stop, 0, width) if axis == 0 else (0, height, start, stop)
            boxes.append((int(reach[stop] - reach[start]), box))
    return max(boxes)[1]


def _attributes(items: list[Item]) -> tuple[dict[int, dict[str, int]], dict[int, dict[str, int]]]:
    train: dict[int, dict[str, int]] = {}
    test: dict[int, dict[str, int]] = {}
    for item in items:
        if item.pid > 0:
            table = train if item.split == SPLITS[0] else test
            table[item.pid] = identity(item.spec.seed, item.spec.identity).attributes
    return train, test
