"""Objects of a folder in the layout of Pascal VOC's segmentation task."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence

import numpy as np

from reid.data.occluders.instances import Annotated, Instance, Pixels
from reid.data.occluders.pictures import open_picture
from reid.data.source import open_source
from reid.errors import UserError

_MASKS = "SegmentationObject"
_VOID = 255
_IMAGES = (".jpg", ".jpeg", ".png")
_LEAST_OVERLAP = 0.5

Box = tuple[float, float, float, float]


def read_voc(root: str) -> Annotated:
    """Read every image that has object masks.

    The pixels of SegmentationObject/NAME.png hold the number of the object in
    Annotations/NAME.xml, counted from 1; 255 is the border between objects. An object whose mask
    lies elsewhere than its bounding box is a sign of another order and is left out as empty.

    Args:
        root: Folder or archive that holds SegmentationObject, Annotations and JPEGImages, at any
            depth.

    Returns:
        Its objects.

    Raises:
        UserError: There are no object masks.
    """
    source = open_source(root)
    names = set(source.names())
    masks = sorted(
        name for name in names if name.endswith(".png") and name.split("/")[-2:-1] == [_MASKS]
    )
    if not masks:
        raise UserError(
            f"{root} has no {_MASKS}/*.png; give the VOC2012 folder or archive with the "
            "segmentation masks"
        )
    result = Annotated([], [])
    for mask in masks:
        base, stem = mask.removesuffix(".png").split(_MASKS + "/")
        sheet = f"{base}Annotations/{stem}.xml"
        if sheet not in names:
            result.problems.append(f"{source.path(sheet)} is missing, the categories of {mask}")
            continue
        try:
            objects = _objects(source.read(sheet))
        except (ElementTree.ParseError, ValueError, AttributeError) as error:
            result.problems.append(f"{source.path(sheet)} is not a VOC annotation ({error})")
            continue
        files = [f"{base}JPEGImages/{stem}{ending}" for ending in _IMAGES]
        image = next((name for name in files if name in names), None)
        for number, (category, box) in enumerate(objects, start=1):
            result.instances.append(
                Instance(
                    image or files[0],
                    source.path(image) if image else None,
                    category,
                    str(number),
                    _reader(source.path(mask), number, len(objects), box),
                )
            )
    result.categories = sorted({instance.category for instance in result.instances})
    return result


def _objects(content: bytes) -> Sequence[tuple[str, Box | None]]:
    """Category and bounding box (left, top, right, bottom) of each object."""
    objects = []
    for element in ElementTree.fromstring(content).findall("object"):
        name = element.findtext("name", "").strip()
        if not name:
            raise ValueError("an object without a name")
        box = element.find("bndbox")
        corners: Box | None = None
        if box is not None:
            left, top, right, bottom = (
                float(box.findtext(side, "nan")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            corners = (left, top, right, bottom)
        objects.append((name, corners))
    return objects


def _reader(path: str, number: int, count: int, box: Box | None) -> Callable[[], Pixels]:
    def alpha() -> Pixels:
        picture = open_picture(path)
        if picture.mode not in ("P", "L"):
            raise UserError(
                f"{path} has colours ({picture.mode}) where the numbers of objects are expected; "
                "take the mask as published, with its palette"
            )
        labels = np.array(picture)
        most = int(labels[labels != _VOID].max(initial=0))
        if most > count:
            raise UserError(f"{path} has an object {most}, its annotation only {count}")
        inside = labels == number
        if box is not None and inside.any() and _overlap(inside, box) < _LEAST_OVERLAP:
            inside[:] = False
        return inside.astype(np.uint8) * 255

    return alpha


def _overlap(inside: np.ndarray, box: Box) -> float:
    """Intersection over union of a mask's extent with a box whose corners count from 1."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    wide = min(right, box[2]) - max(left, box[0] - 1)
    high = min(bottom, box[3]) - max(top, box[1] - 1)
    shared = max(0.0, wide) * max(0.0, high)
    boxes = (right - left) * (bottom - top) + (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    return float(shared / (boxes - shared))
