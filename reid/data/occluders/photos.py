"""Objects of a plain folder: cut-outs with alpha, photographs with masks, or whole images."""

from collections.abc import Callable

import numpy as np

from reid._optional import require
from reid.data.occluders.bank import CONTACT_SHEET, SUFFIXES
from reid.data.occluders.instances import Annotated, Instance, Pixels
from reid.data.occluders.pictures import alpha_of, open_picture
from reid.data.source import open_source
from reid.errors import UserError

_IMAGES = "images/"
_MASKS = "masks/"
_MASK_END = "_mask.png"
_UNNAMED = "object"


def read_photos(root: str) -> Annotated:
    """Read a folder of photographs.

    The mask of NAME.jpg is NAME_mask.png beside it, or NAME.png at the same place below masks/
    (that of images/NAME.jpg is masks/NAME.png); what is not 0 is the object. Without a mask, an
    image with transparency is a cut-out, and any other is an object that fills its rectangle.

    Args:
        root: Folder or archive; the folder directly below it, or below its images/, that an image
            lies in is its category.

    Returns:
        One object for each image.

    Raises:
        UserError: It holds no image.
    """
    source = open_source(root)
    names = [
        name
        for name in source.names()
        if name.lower().endswith(SUFFIXES)
        and not name.rpartition("/")[2].startswith(".")
        and name != CONTACT_SHEET
    ]
    masks = {name for name in names if name.endswith(_MASK_END) or name.startswith(_MASKS)}
    result = Annotated([], [])
    used = set()
    for name in names:
        if name in masks:
            continue
        stem = name.rpartition(".")[0].removeprefix(_IMAGES)
        mask = next((m for m in (stem + _MASK_END, f"{_MASKS}{stem}.png") if m in masks), None)
        used.add(mask)
        folder, _, rest = name.removeprefix(_IMAGES).partition("/")
        path = source.path(name)
        result.instances.append(
            Instance(
                name,
                path,
                folder if rest else _UNNAMED,
                "mask" if mask else "image",
                _mask_reader(source.path(mask)) if mask else _own_reader(path),
                whole=mask is None,
            )
        )
    for mask in sorted(masks - used):
        result.problems.append(f"{source.path(mask)} is the mask of an image that is missing")
    if not result.instances and not result.problems:
        raise UserError(f"{root} holds no image ({', '.join(SUFFIXES)})")
    result.categories = sorted({instance.category for instance in result.instances})
    return result


def _mask_reader(path: str) -> Callable[[], Pixels]:
    def alpha() -> Pixels:
        picture = open_picture(path)
        if picture.mode not in ("1", "L", "P", "I", "I;16"):
            picture = picture.convert("L")
        return (np.array(picture) != 0).astype(np.uint8) * 255

    return alpha


def _own_reader(path: str) -> Callable[[], Pixels]:
    return lambda: alpha_of(require("PIL.ImageOps").exif_transpose(open_picture(path)))
