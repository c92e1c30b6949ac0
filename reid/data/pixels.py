"""A file of decoded images: written once, never changed, mapped into memory.

Layout: (N, 3, H, W) uint8 pixels, (N, 16) BLAKE2b digests of the files they were decoded from, (N,)
uint32 CRC-32 of the pixels, a JSON description, and its length with a mark at the very end, so that
a file that was cut off is known by its end.
"""

import json
import mmap
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid.data.store import each

SUFFIX = ".pixels"
DIGEST_BYTES = 16
SAMPLES = 16
"""Rows that are checked each time a file is opened."""
_END = struct.Struct("<Q8s")
_MARK = b"reidpix1"


class Damaged(Exception):
    """A file of pixels that is cut off, changed, or no such file."""


@dataclass(frozen=True)
class Pixels:
    """One file of decoded images.

    Attributes:
        path: The file.
        shape: (N, 3, H, W).
        digests: (N, 16) uint8, of the bytes of the image files.
        checksums: (N,) uint32, of the pixels of each image.
        decoder: What decoded them, with versions.
    """

    path: Path
    shape: tuple[int, int, int, int]
    digests: NDArray[np.uint8]
    checksums: NDArray[np.uint32]
    decoder: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one image."""
        _, channels, height, width = self.shape
        return channels * height * width

    def row(self, number: int) -> NDArray[np.uint8]:
        """Read one image, (3, H, W) uint8.

        Raises:
            Damaged: Its pixels are not those that were written.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(number * self.row_bytes)
                content = file.read(self.row_bytes)
        except OSError as error:
            raise Damaged(f"{self.path} cannot be read ({error.strerror})") from error
        if zlib.crc32(content) != self.checksums[number]:
            raise Damaged(f"{self.path} holds other pixels than were written")
        return np.frombuffer(content, np.uint8).reshape(self.shape[1:])

    def verify(self, *, whole: bool) -> None:
        """Compare pixels with their checksums: of some images, or of all.

        Raises:
            Damaged: They differ.
        """
        count = self.shape[0]
        rows = np.arange(count)
        if not whole:
            rows = np.unique(np.linspace(0, count - 1, min(count, SAMPLES)).astype(np.int64))
        each(lambda place: _ignore(self.row(int(rows[place]))), len(rows))

    def map(self) -> Tensor:
        """Return the images, (N, 3, H, W) uint8, backed by the file.

        Nothing is read until it is used, and processes share what is. Writing into the tensor
        leaves the file as it is.
        """
        if self.shape[0] == 0:
            return torch.empty(self.shape, dtype=torch.uint8)
        length = self.shape[0] * self.row_bytes
        with self.path.open("rb") as file:
            try:
                view = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_COPY)
            except OSError:
                # some systems want memory for every page that could be written
                view = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ)
        pixels = np.frombuffer(view, np.uint8).reshape(self.shape)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(pixels)


def tail(pixels: Pixels) -> bytes:
    """Return what stands behind the pixels in the file."""
    text = json.dumps({"shape": pixels.shape, "decoder": pixels.decoder}).encode()
    arrays = pixels.digests.tobytes() + pixels.checksums.astype("<u4").tobytes()
    return arrays + text + _END.pack(len(text), _MARK)


def read(path: Path) -> Pixels:
    """Read the description of a file of pixels.

    Raises:
        Damaged: It is cut off, or no such file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _END.size:
                raise Damaged(f"{path} is cut off")
            file.seek(size - _END.size)
            length, mark = _END.unpack(file.read(_END.size))
            if mark != _MARK or length > size - _END.size:
                raise Damaged(f"{path} is cut off, or no file of decoded images")
            file.seek(size - _END.size - length)
            found: Any = json.loads(file.read(length))
            count, channels, height, width = (int(number) for number in found["shape"])
            shape, decoder = (count, channels, height, width), str(found["decoder"])
            pixel_bytes = count * channels * height * width
            if size != pixel_bytes + count * (DIGEST_BYTES + 4) + length + _END.size:
                raise Damaged(f"{path} has {size} bytes, not those of {count} images")
            file.seek(pixel_bytes)
            digests = np.frombuffer(file.read(count * DIGEST_BYTES), np.uint8)
            checksums = np.frombuffer(file.read(count * 4), "<u4").astype(np.uint32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path} cannot be read ({error})") from error
    return Pixels(path, shape, digests.reshape(count, DIGEST_BYTES), checksums, decoder)


def _ignore(_: Any) -> None:
    return None
