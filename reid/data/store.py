"""Decoded images in memory: one uint8 tensor that training and extraction index."""

import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from reid._optional import require
from reid.data.records import Record
from reid.errors import UserError


def decode(path: str, image_size: tuple[int, int], interpolation: str = "bicubic") -> np.ndarray:
    """Read one image file.

    Args:
        path: Image file of any format Pillow reads.
        image_size: Height and width of the result in pixels.
        interpolation: bicubic or bilinear, both with anti-aliasing.

    Returns:
        (3, H, W) uint8 RGB.

    Raises:
        UserError: Missing, empty or damaged file; the message names it.
    """
    image_module = require("PIL.Image")
    filters = {
        "bicubic": image_module.Resampling.BICUBIC,
        "bilinear": image_module.Resampling.BILINEAR,
    }
    height, width = image_size
    try:
        if os.path.getsize(path) == 0:
            raise UserError(f"{path} is empty (0 bytes); delete it or copy it again")
        with image_module.open(path) as image:
            rgb = image.convert("RGB")
            if rgb.size != (width, height):
                rgb = rgb.resize((width, height), filters[interpolation])
            return np.asarray(rgb).transpose(2, 0, 1)
    except UserError:
        raise
    except image_module.DecompressionBombError as error:
        raise UserError(f"{path} is far larger than any image of a person ({error})") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        struct.error,
        zlib.error,
    ) as error:
        raise UserError(
            f"{path} cannot be read as an image ({error}); delete it or copy it again"
        ) from error


def load_images(
    records: Sequence[Record],
    image_size: tuple[int, int],
    interpolation: str = "bicubic",
    workers: int | None = None,
) -> Tensor:
    """Decode many images.

    Args:
        records: Images to read.
        image_size: Height and width in pixels.
        interpolation: bicubic or bilinear.
        workers: Threads; None uses one for each core.

    Returns:
        (N, 3, H, W) uint8 on the CPU, in the order of `records`.

    Raises:
        UserError: Names every unreadable file, up to five.
    """
    images = np.empty((len(records), 3, *image_size), dtype=np.uint8)
    problems: list[str] = []

    def read(number: int) -> None:
        try:
            images[number] = decode(records[number].path, image_size, interpolation)
        except UserError as error:
            problems.append(str(error))

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        list(pool.map(read, range(len(records))))
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise UserError("; ".join(sorted(problems)[:5]) + more)
    return torch.from_numpy(images)


def relabel(records: Sequence[Record]) -> tuple[list[int], dict[int, int]]:
    """Number the identities of a training set from 0, in ascending order of pid.

    Returns:
        The label of each record and the mapping from pid to label.
    """
    mapping = {pid: label for label, pid in enumerate(sorted({r.pid for r in records}))}
    return [mapping[record.pid] for record in records], mapping


def place(images: Tensor, device: torch.device, policy: str = "auto") -> Tensor:
    """Move a decoded set to the device, if it fits.

    Args:
        images: (N, 3, H, W) uint8 on the CPU.
        device: Where training happens.
        policy: auto (when it takes at most half of the free memory), yes or no.

    Returns:
        The images on the device, or pinned on the CPU.
    """
    if device.type != "cuda" or policy == "no":
        return images
    if policy == "auto":
        free, _ = torch.cuda.mem_get_info(device)
        if images.numel() > free // 2:
            return images.pin_memory()
    return images.to(device)
