"""Zip and tar archives read in place: an index of members, and their bytes by offset."""

import bz2
import gzip
import lzma
import os
import re
import struct
import sys
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from reid.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MEMBER = "!/"
LIMIT = 64 * 2**20
# Photographs hardly shrink; deflate cannot shrink anything more than 1,032 times.
RATIO = 200
_SMALL = 2**20
_BLOCK = 512
_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_ZSTD = b"\x28\xb5\x2f\xfd"
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True, slots=True)
class Member:
    """Where one file lies in an archive.

    Attributes:
        offset: Of its local header (zip) or of its bytes (tar).
        stored: Bytes it takes in the archive.
        size: Bytes it has when unpacked, as the archive declares.
        method: Compression method of the zip format; None in a tar.
        crc: CRC-32 of the unpacked bytes; None in a tar.
    """

    offset: int
    stored: int
    size: int
    method: int | None = None
    crc: int | None = None


class Archive:
    """The members of one archive.

    Nothing is unpacked to disk, except that a compressed tar is decompressed once into a temporary
    file without a name. Reading keeps no position, so threads and forked processes may share it.

    Attributes:
        path: The archive.
        members: By posix path.
    """

    def __init__(self, path: Path) -> None:
        """Index an archive.

        Raises:
            UserError: Damaged, encrypted, in an unknown format, or with members that leave it.
        """
        self.path = path
        self._unpacked: IO[bytes] | None = None
        self._lock = threading.Lock()
        try:
            if path.name.lower().endswith(".zip"):
                self.members = self._index_zip()
            else:
                self._unpacked = _decompress(path)
                self.members = self._index_tar()
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.strerror:
                raise UserError(f"{path} cannot be read ({error.strerror})") from error
            raise UserError(
                f"{path} is no complete archive ({error}); copy or download it again"
            ) from error

    def read(self, name: str) -> bytes:
        """Unpack one member.

        Args:
            name: Key of `members`.

        Returns:
            Its bytes.

        Raises:
            UserError: No such member, damaged, too large or compressed beyond belief.
        """
        member = self.members.get(name)
        if member is None:
            raise UserError(f"{self.path} has no member {name!r}; was the archive replaced?")
        where = f"{self.path}{MEMBER}{name}"
        if member.size > LIMIT:
            raise UserError(
                f"{where} unpacks to {member.size} bytes, more than the {LIMIT} of any image of a "
                "person; remove it from the archive"
            )
        if member.size > max(_SMALL, RATIO * member.stored):
            raise UserError(
                f"{where} unpacks {member.stored} bytes to {member.size}, as a zip bomb does; "
                "remove it from the archive"
            )
        try:
            if member.method is None:
                return self._bytes(member.offset, member.size)
            return self._inflate(member)
        except _DAMAGE as error:
            raise UserError(
                f"{where} cannot be unpacked ({error}); copy or download the archive again"
            ) from error

    def _inflate(self, member: Member) -> bytes:
        magic, name_length, extra_length = _LOCAL_HEADER.unpack(
            self._bytes(member.offset, _LOCAL_HEADER.size)
        )
        if magic != b"PK\x03\x04":
            raise ValueError("its header is missing")
        start = member.offset + _LOCAL_HEADER.size + name_length + extra_length
        content = self._bytes(start, member.stored)
        if member.method == zipfile.ZIP_DEFLATED:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
        elif member.method != zipfile.ZIP_STORED:
            raise ValueError(f"compression method {member.method} is neither stored nor deflate")
        if len(content) != member.size:
            raise ValueError(f"it does not hold the {member.size} bytes that it declares")
        if zlib.crc32(content) != member.crc:
            raise ValueError("its checksum is wrong")
        return content

    def _bytes(self, offset: int, size: int) -> bytes:
        if self._unpacked is None:
            with open(self.path, "rb") as file:
                file.seek(offset)
                content = file.read(size)
        elif hasattr(os, "pread"):
            content = os.pread(self._unpacked.fileno(), size, offset)
        else:
            with self._lock:
                self._unpacked.seek(offset)
                content = self._unpacked.read(size)
        if len(content) != size:
            raise EOFError("the archive ends in the middle of it")
        return content

    def _index_zip(self) -> dict[str, Member]:
        members: dict[str, Member] = {}
        with zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                name = self._checked(info.filename, members)
                if info.is_dir() or info.filename.endswith("\\"):
                    continue
                if info.flag_bits & _ENCRYPTED:
                    raise UserError(
                        f"{self.path} is encrypted (member {info.filename!r}); unpack it with its "
                        "password and give the folder"
                    )
                members[name] = Member(
                    info.header_offset,
                    info.compress_size,
                    info.file_size,
                    info.compress_type,
                    info.CRC,
                )
        return members

    def _index_tar(self) -> dict[str, Member]:
        members: dict[str, Member] = {}
        with tarfile.open(self.path, "r:", fileobj=self._unpacked) as opened:
            archive: Any = opened
            while (info := archive.next()) is not None:
                # tarfile would keep every header in memory
                archive.members = []
                name = self._checked(info.name, members)
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    kind = "a link" if info.issym() or info.islnk() else "no regular file"
                    raise UserError(
                        f"{self.path}: member {info.name!r} is {kind}; pack the folder again "
                        "with the files themselves (tar --dereference --hard-dereference)"
                    )
                members[name] = Member(info.offset_data, info.size, info.size)
            end = archive.offset
        # tarfile takes a damaged header for the end of the archive
        if self._bytes(end, _BLOCK) != bytes(_BLOCK):
            raise EOFError(f"byte {end} is neither a member nor the end of the archive")
        return members

    def _checked(self, name: str, members: dict[str, Member]) -> str:
        """Return the name as a relative posix path, and refuse one that leaves the archive."""
        posix = name.replace("\\", "/")
        parts = [part for part in posix.split("/") if part not in ("", ".")]
        if posix.startswith("/") or re.match(r"[A-Za-z]:", posix) or ".." in parts:
            raise UserError(
                f"{self.path}: member {name!r} leaves the folder of the archive; do not trust this "
                "archive, or pack it again with relative names"
            )
        clean = "/".join(parts)
        if clean in members:
            raise UserError(
                f"{self.path} holds {name!r} twice; pack the folder again so that one is left"
            )
        return clean


def is_archive(path: Path) -> bool:
    """Whether the name ends as that of an archive that can be read."""
    return path.name.lower().endswith(SUFFIXES)


def _decompress(path: Path) -> IO[bytes] | None:
    """Return a compressed tar as a temporary file that has no name; None for a plain tar."""
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(_ZSTD):
        raise UserError(f"{path} is compressed with zstd, which is not read; unpack it first")
    opener = next((open_ for magic, open_ in _COMPRESSED.items() if start.startswith(magic)), None)
    if opener is None:
        return None
    packed = path.stat().st_size
    print(
        f"reid: {path} is compressed: unpacking it once into a temporary file "
        f"(at least {packed / 2**20:.0f} MiB in {tempfile.gettempdir()}); a zip or a plain tar "
        "needs none",
        file=sys.stderr,
    )
    unpacked = tempfile.TemporaryFile(prefix="reid-")  # noqa: SIM115
    try:
        with opener(path, "rb") as source:
            while block := source.read(_SMALL):
                if unpacked.tell() > LIMIT + RATIO * packed:
                    raise UserError(
                        f"{path} unpacks to more than {RATIO} times its size, as a bomb does; "
                        "do not trust this archive"
                    )
                _write(unpacked, block, path)
        unpacked.flush()
        unpacked.seek(0)
    except BaseException:
        unpacked.close()
        raise
    return unpacked


def _write(file: IO[bytes], block: bytes, path: Path) -> None:
    try:
        file.write(block)
    except OSError as error:
        raise UserError(
            f"{path} cannot be unpacked into {tempfile.gettempdir()} ({error.strerror}); free "
            "space there, name another folder in TMPDIR, or unpack the archive and give its folder"
        ) from error
