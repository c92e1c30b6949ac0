"""Objects of a COCO instances file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reid.data.occluders.instances import Annotated, ImageIndex, Instance, Pixels
from reid.data.occluders.masks import segmentation_mask
from reid.data.occluders.pictures import open_picture
from reid.data.source import MEMBER, open_source, read_bytes
from reid.errors import UserError


def read_coco(annotations: str, images: str) -> Annotated:
    """Read `instances_*.json`.

    Args:
        annotations: The file, also as a member "<archive>!/<member>".
        images: Folder or archive of the images.

    Returns:
        Its objects; those marked as crowds are counted and left out.

    Raises:
        UserError: The file is missing, no JSON or no instances file, or no image of it is there.
    """
    tree = _load(annotations)
    index = ImageIndex(open_source(images))
    result = Annotated([], [])
    try:
        categories = {entry["id"]: str(entry["name"]) for entry in tree["categories"]}
        licences = {
            entry["id"]: str(entry.get("url") or entry.get("name", ""))
            for entry in tree.get("licenses") or ()
        }
        files = {entry["id"]: entry for entry in tree["images"]}
        result.categories = list(categories.values())
        paths: dict[Any, str | None] = {}
        for number, entry in enumerate(tree["annotations"]):
            key = str(entry.get("id", number))
            if entry.get("iscrowd"):
                result.crowds += 1
                continue
            image = files.get(entry["image_id"])
            if image is None or entry["category_id"] not in categories:
                lacking = "image" if image is None else "category"
                result.problems.append(
                    f"annotation {key} names {lacking} {entry[f'{lacking}_id']}, "
                    "which is not listed"
                )
                continue
            if entry["image_id"] not in paths:
                paths[entry["image_id"]] = index.find(image["file_name"])
            path = paths[entry["image_id"]]
            result.instances.append(
                Instance(
                    image["file_name"],
                    path,
                    categories[entry["category_id"]],
                    key,
                    _reader(entry["segmentation"], image, path),
                    licence=licences.get(image.get("license"), ""),
                )
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{annotations} is not a COCO instances file ({type(error).__name__}: {error}); it "
            "needs images, categories, and annotations with image_id, category_id, segmentation"
        ) from error
    if result.instances and all(instance.path is None for instance in result.instances):
        raise UserError(
            f"{images} has none of the images of {annotations}, such as "
            f"{result.instances[0].image}; give the folder or archive that belongs to it"
        )
    return result


def _load(annotations: str) -> Any:
    path = Path(annotations)
    if MEMBER not in annotations and not path.is_file():
        raise UserError(f"no annotation file {annotations}; give instances_*.json")
    # read directly: the instances of a training set are larger than read_bytes allows
    payload = path.read_bytes() if path.is_file() else read_bytes(annotations)
    try:
        tree = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{annotations} is not valid JSON ({error}); copy or unpack it again"
        ) from error
    lacking = [
        name
        for name in ("images", "categories", "annotations")
        if not isinstance(tree, dict) or not isinstance(tree.get(name), list)
    ]
    if lacking:
        raise UserError(
            f"{annotations} has no list {lacking[0]!r}; give an instances file, not captions, "
            "keypoints or results"
        )
    return tree


def _reader(segmentation: Any, image: dict[str, Any], path: str | None) -> Callable[[], Pixels]:
    def alpha() -> Pixels:
        height, width = image.get("height"), image.get("width")
        if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
            # some converters leave the size out
            width, height = open_picture(str(path)).size
        return segmentation_mask(segmentation, (height, width)).astype(np.uint8) * 255

    return alpha
