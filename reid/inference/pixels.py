"""Whatever shows a person, as the uint8 RGB pixels of the network's input."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid._optional import require
from reid.data.folder import folder_records
from reid.data.store import decode
from reid.errors import UserError

Color = Literal["rgb", "bgr"]
Pixels = NDArray[np.uint8]


def check_color(color: str | None) -> None:
    """Refuse a colour order that does not exist.

    Raises:
        UserError: Neither None, 'rgb' nor 'bgr'.
    """
    if color not in (None, "rgb", "bgr"):
        raise UserError(f"color is 'rgb' or 'bgr', got {color!r}")


def read_items(
    x: Any, image_size: tuple[int, int], interpolation: str, color: str | None
) -> Iterator[Tensor]:
    """Bring images into the size of the network, one after the other.

    Args:
        x: A path of an image or a folder, a PIL image, an (H, W, 3) or (N, H, W, 3) uint8 array,
            or a sequence of these.
        image_size: Height and width of the result.
        interpolation: bicubic or bilinear, as in training.
        color: Order of the channels of arrays; there is no default, as a swap goes unnoticed.

    Yields:
        (3, H, W) uint8 RGB.

    Raises:
        UserError: Not an image, of a wrong shape or type, or an array without a colour order.
    """
    if isinstance(x, (str, os.PathLike)):
        path = Path(x)
        records = [record.path for record in folder_records(path)] if path.is_dir() else [str(x)]
        for name in records:
            yield torch.from_numpy(decode(name, image_size, interpolation).copy())
    elif isinstance(x, np.ndarray):
        for picture in as_pictures(x, color):
            yield resize(picture, image_size, interpolation)
    elif _is_pil(x):
        yield resize(np.asarray(x.convert("RGB")), image_size, interpolation)
    elif isinstance(x, Sequence):
        for item in x:
            yield from read_items(item, image_size, interpolation, color)
    else:
        raise UserError(
            f"cannot read a {type(x).__name__} as an image; give a path, a folder, a PIL image, "
            "an (H, W, 3) uint8 array, an (N, 3, H, W) tensor, or a list of paths, PIL images and "
            "arrays"
        )


def as_pictures(array: NDArray[Any], color: str | None) -> list[Pixels]:
    """Check an array of pixels and bring its channels into the order RGB.

    Args:
        array: (H, W, 3) or (N, H, W, 3) uint8.
        color: 'rgb' or 'bgr'.

    Returns:
        (H, W, 3) pictures, views where the order is RGB already.

    Raises:
        UserError: Another type or shape, no pixel, or no colour order.
    """
    if array.dtype != np.uint8:
        raise UserError(
            f"the array is {array.dtype}; expected uint8 pixels from 0 to 255 in the layout "
            "(H, W, 3); floats from 0 to 1 go in as a torch tensor (N, 3, H, W)"
        )
    if array.ndim not in (3, 4) or array.shape[-1] != 3:
        raise UserError(
            f"the array has shape {array.shape}; expected (H, W, 3) or (N, H, W, 3), channels last"
        )
    if array.ndim == 4 and array.shape[0] == 0:
        return []
    if array.size == 0:
        raise UserError(f"the array has shape {array.shape} and holds no pixel")
    if color is None:
        raise UserError(
            "the order of an array's channels cannot be seen: pass color='bgr' for frames of "
            "OpenCV, color='rgb' for arrays of Pillow"
        )
    check_color(color)
    pictures = array[None] if array.ndim == 3 else array
    return list(pictures if color == "rgb" else pictures[..., ::-1])


def resize(picture: Pixels, image_size: tuple[int, int], interpolation: str) -> Tensor:
    """Resize (h, w, 3) RGB pixels as in training to a (3, H, W) uint8 tensor."""
    image_module = require("PIL.Image")
    height, width = image_size
    image = image_module.fromarray(np.ascontiguousarray(picture))
    if image.size != (width, height):
        image = image.resize((width, height), image_module.Resampling[interpolation.upper()])
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def from_tensor(
    x: Tensor, image_size: tuple[int, int], interpolation: str, color: str | None
) -> Tensor:
    """Bring a tensor of images into the size of the network.

    Args:
        x: (N, 3, H, W) or (3, H, W); uint8 from 0 to 255 or float from 0 to 1, not normalised.
        image_size: Height and width of the result.
        interpolation: bicubic or bilinear, with anti-aliasing.
        color: Order of the channels; None is RGB.

    Returns:
        (N, 3, H, W) float32 RGB from 0 to 1.

    Raises:
        UserError: Another shape or type, NaN, or floats outside of 0 to 1.
    """
    check_color(color)
    images = x[None] if x.ndim == 3 else x
    if images.ndim != 4 or images.shape[1] != 3:
        raise UserError(
            f"the tensor has shape {tuple(x.shape)}; expected (N, 3, H, W) or (3, H, W), "
            "channels first"
        )
    if images.dtype == torch.uint8:
        images = images.float() / 255.0
    elif images.dtype.is_floating_point:
        images = images.float()
        _check_range(images)
    else:
        raise UserError(
            f"the tensor is {str(x.dtype).removeprefix('torch.')}; expected uint8 from 0 to 255 "
            "or float from 0 to 1"
        )
    if len(images) and not images[0].numel():
        raise UserError(f"the tensor has shape {tuple(x.shape)} and holds no pixel")
    if color == "bgr":
        images = images.flip(1)
    if len(images) and tuple(images.shape[-2:]) != image_size:
        images = torch.nn.functional.interpolate(
            images, image_size, mode=interpolation, antialias=True, align_corners=False
        ).clamp(0.0, 1.0)
    return images


def _check_range(images: Tensor) -> None:
    if not images.numel():
        return
    finite = torch.isfinite(images).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise UserError(
            f"image {int((~finite).nonzero()[0])} of the tensor holds NaN or infinite pixels; "
            "every pixel must be a number from 0 to 1"
        )
    low, high = float(images.min()), float(images.max())
    if low < 0.0 or high > 1.0:
        raise UserError(
            f"pixels of the tensor go from {low:.3g} to {high:.3g}; expected floats from 0 to 1, "
            "before normalisation, which the embedder does itself (0 to 255: pass uint8)"
        )


def _is_pil(x: Any) -> bool:
    try:
        image_module = require("PIL.Image")
    except UserError:
        return False
    return isinstance(x, image_module.Image)
