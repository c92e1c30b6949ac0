"""Decoded images on disk: built once, mapped by every process, valid as long as the files are.

A folder holds two kinds of files. Pixels (`reid.data.pixels`) are named by their content: a digest
of the bytes of every image file, in order, with size and filter. An index, named by the paths of a
list of images, remembers size and time of every file and which pixels belong to them. When a size
or a time differs, the file is read and its digest decides: images that were touched, moved or
copied are found again, and what did change is decoded alone.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from reid._optional import require
from reid.config import DataConfig
from reid.data.locks import locked
from reid.data.pixels import DIGEST_BYTES, SUFFIX, Damaged, Pixels, read, tail
from reid.data.records import Record
from reid.data.source import MEMBER, read_bytes
from reid.data.store import decode_bytes, each, load_images
from reid.engine.checkpoint import write_atomic
from reid.errors import UserError

_VERSION = 1
_MISSING = (-1, -1)
Stamp = tuple[int, int]


class Unwritable(UserError):
    """The folder of the cache cannot take the images."""


def images_of(records: Sequence[Record], data: DataConfig) -> Tensor:
    """Decode a list of images into memory, or open it from the cache that `data.cache` names.

    Args:
        records: Images to read.
        data: Image size, filter and cache.

    Returns:
        (N, 3, H, W) uint8 on the CPU, in the order of `records`.

    Raises:
        UserError: Names every unreadable file, up to five; or the folder that was given for the
            cache cannot be written.
    """
    found = mapped(records, data)
    return load_images(records, data.image_size, data.interpolation) if found is None else found


def mapped(records: Sequence[Record], data: DataConfig) -> Tensor | None:
    """Open a list of images from the cache that `data.cache` names; None when there is none.

    Where "auto" is given and the user's folder of caches cannot take the images, a line on
    standard error says so.

    Raises:
        UserError: As `images_of`.
    """
    if not data.cache:
        return None
    folder = users_folder() if data.cache == "auto" else Path(data.cache)
    try:
        return open_cached(records, data.image_size, data.interpolation, folder=folder)
    except Unwritable as error:
        if data.cache != "auto":
            raise
        print(f"reid: {error}; going on without a cache", file=sys.stderr)
        return None


def users_folder() -> Path:
    """Return the folder of data.cache=auto: `reid` in the user's folder of caches."""
    if sys.platform == "win32":
        caches = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "reid" / "images"


def open_cached(
    records: Sequence[Record],
    image_size: tuple[int, int],
    interpolation: str = "bicubic",
    *,
    folder: str | os.PathLike[str],
) -> Tensor:
    """Open a list of images from a cache, which is built or brought up to date first.

    Several processes may call this at once: one decodes, the others wait for it.

    Args:
        records: Images to read.
        image_size: Height and width in pixels.
        interpolation: bicubic or bilinear.
        folder: Of the cache; made when missing.

    Returns:
        (N, 3, H, W) uint8 mapped from a file, in the order of `records`, equal to `load_images`.

    Raises:
        UserError: Names every unreadable file, up to five.
        Unwritable: The cache is not up to date and the folder cannot be written or is full.
    """
    cache = _Cache(records, image_size, interpolation, Path(folder))
    found = cache.find()
    if found is None:
        try:
            cache.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cache.unwritable(error) from error
        with locked(cache.folder / f"{cache.key}.lock", f"decodes into {cache.folder}") as alone:
            # who held the lock before may have built it
            found = cache.find() or cache.renew(alone)
    return found.map()


class _Cache:
    """What a folder knows of one list of images."""

    def __init__(
        self,
        records: Sequence[Record],
        image_size: tuple[int, int],
        interpolation: str,
        folder: Path,
    ) -> None:
        self.paths = [_absolute(record.path) for record in records]
        self.size = (int(image_size[0]), int(image_size[1]))
        self.interpolation = interpolation
        self.folder = folder
        features = require("PIL.features")
        versions = f"Pillow {require('PIL').__version__}, libjpeg {features.version('jpg')}"
        self.decoder = f"{versions}, {interpolation}"
        self.prefix = f"{self.size[0]}x{self.size[1]}-{interpolation}-"
        about = [_VERSION, self.decoder, self.size, self.paths]
        self.key = _digest(json.dumps(about).encode()).hex()
        self.index = folder / f"{self.key}.json"
        self._told: set[str] = set()

    def find(self) -> Pixels | None:
        """Return the pixels if sizes and times of all files are those of the index."""
        index = self._read_index()
        if index is None or _changed(index, _stamps(self.paths)):
            return None
        target = self.folder / index["pixels"]
        pixels = self._open(target, index["pixels_stamp"])
        if pixels is not None and index["pixels_stamp"] != list(_stamp(target)):
            self._write_index({**index, "pixels_stamp": _stamp(target)})
        return pixels

    def renew(self, alone: bool) -> Pixels:
        """Compare contents, decode what is new and write pixels and index.

        Args:
            alone: Whether no other process builds this list, so that what one left can go.
        """
        index = self._read_index()
        # before the files are read: a change in between is noticed next time
        stamps = _stamps(self.paths)
        digests = self._digests(index, stamps)
        name = _digest(f"{self.decoder} {self.size} {_VERSION}".encode() + digests.tobytes()).hex()
        target = self.folder / f"{self.prefix}{name}{SUFFIX}"
        if alone:
            for left in self.folder.glob(f".building-{self.key}-*"):
                left.unlink(missing_ok=True)
        pixels = self._open(target, None) if target.exists() else None
        if pixels is None:
            try:
                pixels = self._build(target, digests)
            except OSError as error:
                raise self.unwritable(error) from error
        self._write_index(
            {
                "stamps": stamps,
                "digests": digests.tobytes().hex(),
                "pixels": target.name,
                "pixels_stamp": _stamp(target),
            }
        )
        if index is not None and index["pixels"] != target.name:
            self._drop(index["pixels"])
        return pixels

    def unwritable(self, error: OSError) -> Unwritable:
        """Return the error of a folder that does not take the images."""
        needed = len(self.paths) * 3 * self.size[0] * self.size[1] / 1e6
        return Unwritable(
            f"{self.folder} cannot take {needed:.0f} MB of decoded images "
            f"({error.strerror or error}); free space or give another folder as data.cache, or "
            "set data.cache='' to hold them in memory"
        )

    def _read_index(self) -> dict[str, Any] | None:
        try:
            index = json.loads(self.index.read_text(encoding="utf-8"))
            size = len(self.paths)
            digests = bytes.fromhex(index["digests"])
            whole = len(index["stamps"]) == size and len(digests) == size * DIGEST_BYTES
            plain = index["pixels"] == Path(index["pixels"]).name and "pixels_stamp" in index
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._tell(f"{self.index} cannot be read ({error}); comparing all files by content")
            return None
        return index if whole and plain else None

    def _write_index(self, content: dict[str, Any]) -> None:
        # pixels can be used without an index, from a folder that is only readable for example
        with contextlib.suppress(UserError):
            write_atomic(self.index, json.dumps(content).encode())

    def _open(self, path: Path, stamp: list[int] | None) -> Pixels | None:
        """Return a file of pixels; None when it is missing or damaged, which is said."""
        if not path.exists():
            return None
        try:
            pixels = read(path)
            pixels.verify(whole=stamp != list(_stamp(path)))
        except Damaged as error:
            self._tell(f"{error}; decoding again what is lost")
            return None
        return pixels

    def _digests(self, index: dict[str, Any] | None, stamps: list[Stamp]) -> NDArray[np.uint8]:
        """Digests of all files; those whose size and time are in the index are not read."""
        found = np.zeros((len(self.paths), DIGEST_BYTES), np.uint8)
        changed = list(range(len(self.paths)))
        if index is not None:
            content = np.frombuffer(bytes.fromhex(index["digests"]), np.uint8)
            found = content.reshape(found.shape).copy()
            changed = _changed(index, stamps)

        def look(number: int) -> None:
            row = changed[number]
            found[row] = np.frombuffer(_digest(read_bytes(self.paths[row])), np.uint8)

        each(look, len(changed))
        return found

    def _build(self, target: Path, digests: NDArray[np.uint8]) -> Pixels:
        """Write a file of pixels; rows that another file holds are copied."""
        shape = (len(self.paths), 3, *self.size)
        checksums = np.zeros(shape[0], np.uint32)
        pixels = Pixels(target, shape, digests, checksums, self.decoder)
        needed = shape[0] * (pixels.row_bytes + DIGEST_BYTES + 4)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(f"{free / 1e6:.0f} MB are free")
        known = self._known()
        writing = threading.Lock()
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=f".building-{self.key}-")
        try:
            with (
                os.fdopen(handle, "wb", buffering=0) as file,
                require("tqdm").tqdm(
                    total=shape[0], desc="decode", unit="img", mininterval=1.0, dynamic_ncols=True
                ) as bar,
            ):

                def put(number: int) -> None:
                    image = self._image(number, digests[number].tobytes(), known)
                    checksums[number] = zlib.crc32(image.data)
                    with writing:
                        file.seek(number * pixels.row_bytes)
                        _write(file, image.data)
                        bar.update()

                each(put, shape[0])
                file.seek(shape[0] * pixels.row_bytes)
                _write(file, tail(pixels))
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner may read
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        return pixels

    def _image(
        self, number: int, digest: bytes, known: dict[bytes, tuple[Pixels, int]]
    ) -> NDArray[np.uint8]:
        if digest in known:
            pixels, row = known[digest]
            with contextlib.suppress(Damaged):
                return pixels.row(row)
        path = self.paths[number]
        content = read_bytes(path)
        if _digest(content) != digest:
            raise UserError(f"{path} changed while it was read; start again when it is complete")
        image = decode_bytes(content, path, self.size, self.interpolation)
        return np.ascontiguousarray(image)

    def _known(self) -> dict[bytes, tuple[Pixels, int]]:
        """Images of this size in other files of the folder, by digest."""
        known: dict[bytes, tuple[Pixels, int]] = {}
        for path in sorted(self.folder.glob(f"{self.prefix}*{SUFFIX}")):
            with contextlib.suppress(Damaged):
                pixels = read(path)
                if pixels.decoder == self.decoder and pixels.shape[2:] == self.size:
                    for row, digest in enumerate(pixels.digests):
                        known.setdefault(digest.tobytes(), (pixels, row))
        return known

    def _drop(self, name: str) -> None:
        """Remove pixels that no index names any longer."""
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                if json.loads(path.read_text(encoding="utf-8"))["pixels"] == name:
                    return
        # on Windows a file that is in use stays
        with contextlib.suppress(OSError):
            (self.folder / name).unlink(missing_ok=True)

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            print(f"reid: {text}", file=sys.stderr)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _write(file: Any, content: bytes | memoryview) -> None:
    """Write all of the content; an unbuffered file may take a part of it at a time."""
    view = memoryview(content).cast("B")
    while len(view):
        view = view[file.write(view) :]


def _stamp(path: str | Path) -> Stamp:
    """Size in bytes and time of the last change in nanoseconds."""
    try:
        status = os.stat(path)
    except OSError:
        return _MISSING
    return status.st_size, status.st_mtime_ns


def _changed(index: dict[str, Any], stamps: Sequence[Stamp]) -> list[int]:
    """Rows whose file has another size or time than in the index, or is not there."""
    return [
        row
        for row, (old, new) in enumerate(zip(index["stamps"], stamps, strict=True))
        if new == _MISSING or old != list(new)
    ]


def _absolute(path: str) -> str:
    # the separator of members stays as it is on every system
    head, mark, member = path.partition(MEMBER)
    return os.path.abspath(head) + mark + member


def _stamps(paths: Sequence[str]) -> list[Stamp]:
    """Stamps of files; that of a member is its archive's."""
    archives: dict[str, Stamp] = {}
    found = []
    for path in paths:
        head, mark, _ = path.partition(MEMBER)
        if mark and head not in archives:
            archives[head] = _stamp(head) if os.path.isfile(head) else _MISSING
        stamp = archives[head] if mark else _MISSING
        found.append(stamp if stamp != _MISSING else _stamp(path))
    return found
