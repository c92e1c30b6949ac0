"""Decode the images that objects are cut from."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from reid._optional import require
from reid.data.source import read_bytes
from reid.errors import UserError

Pixels = npt.NDArray[np.uint8]


def open_picture(path: str) -> Any:
    """Decode an image.

    Args:
        path: A file, or a member of an archive, as `read_bytes` takes it.

    Returns:
        A loaded PIL image, as stored.

    Raises:
        UserError: Missing or damaged.
    """
    image = require("PIL.Image")
    try:
        with image.open(io.BytesIO(read_bytes(path))) as opened:
            opened.load()
            return opened
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        struct.error,
        zlib.error,
        image.DecompressionBombError,
    ) as error:
        raise UserError(
            f"{path} cannot be read as an image ({error}); delete it or copy it again"
        ) from error


def read_rgb(path: str, size: tuple[int, int]) -> Pixels:
    """Colours under a mask.

    Args:
        path: Image file.
        size: Height and width of the mask. An image whose camera recorded a rotation is taken as
            stored or rotated, whichever the mask fits.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        UserError: Unreadable, or of another size than the mask.
    """
    picture = open_picture(path)
    width, height = picture.size
    if (height, width) != size:
        picture = require("PIL.ImageOps").exif_transpose(picture)
    if picture.size != (size[1], size[0]):
        raise UserError(
            f"{path} is {width} x {height}, but its mask {size[1]} x {size[0]}; they belong to "
            "different versions of the image"
        )
    return np.array(picture.convert("RGB"))


def alpha_of(picture: Any) -> Pixels:
    """Alpha of a PIL image, (H, W) uint8; 255 everywhere if it has none."""
    return np.array(picture.convert("RGBA").getchannel("A"))
