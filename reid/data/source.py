"""Where the files of a data set lie: a folder, or an archive that is read in place."""

import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path

from reid.data.archives import LIMIT, MEMBER, SUFFIXES, Archive, is_archive
from reid.errors import UserError

__all__ = ["MEMBER", "FolderSource", "Source", "open_source", "read_bytes"]


class Source(ABC):
    """Files by posix path relative to a root.

    Attributes:
        root: The folder or the archive.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def names(self) -> list[str]:
        """Sorted posix paths of all files, relative to the root."""

    @abstractmethod
    def files(self, folder: str) -> list[str]:
        """Sorted base names of the files directly in a folder; "" is the root."""

    @abstractmethod
    def folders(self, folder: str) -> list[str]:
        """Sorted base names of the folders directly in a folder; "" is the root."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Bytes of one file.

        Raises:
            UserError: Missing, damaged or too large.
        """

    @abstractmethod
    def path(self, name: str) -> str:
        """What `Record.path` holds for this file, and `read_bytes` reads."""


class FolderSource(Source):
    """A folder on disk; links are followed."""

    def names(self) -> list[str]:
        """Sorted posix paths of all files, relative to the root."""
        found: list[str] = []
        self._walk("", found, frozenset())
        return sorted(found)

    def files(self, folder: str) -> list[str]:
        """Sorted base names of the files directly in a folder; a broken link counts as a file."""
        return sorted(e.name for e in self._scan(folder) if e.is_file() or _broken(e))

    def folders(self, folder: str) -> list[str]:
        """Sorted base names of the folders directly in a folder."""
        return sorted(entry.name for entry in self._scan(folder) if entry.is_dir())

    def read(self, name: str) -> bytes:
        """Bytes of one file."""
        return _read_file(self.path(name))

    def path(self, name: str) -> str:
        """The path as the operating system writes it."""
        return str(self.root.joinpath(*name.split("/")))

    def _scan(self, folder: str) -> list[os.DirEntry[str]]:
        path = self.path(folder) if folder else str(self.root)
        try:
            with os.scandir(path) as entries:
                return list(entries)
        except OSError as error:
            raise UserError(
                f"{path} cannot be listed ({error.strerror}); check its permissions"
            ) from error

    def _walk(self, folder: str, found: list[str], above: frozenset[str]) -> None:
        real = os.path.realpath(self.path(folder) if folder else self.root)
        if real in above:
            return
        prefix = f"{folder}/" if folder else ""
        for entry in self._scan(folder):
            if entry.is_dir():
                self._walk(prefix + entry.name, found, above | {real})
            elif entry.is_file() or _broken(entry):
                found.append(prefix + entry.name)


class _ArchiveSource(Source):
    """An archive; folders are those that hold a file."""

    def __init__(self, root: Path, archive: Archive) -> None:
        super().__init__(root)
        self._archive = archive
        self._files: dict[str, list[str]] = {"": []}
        self._folders: dict[str, set[str]] = {"": set()}
        for name in archive.members:
            folder, _, base = name.rpartition("/")
            self._files.setdefault(folder, []).append(base)
            while folder:
                parent, _, base = folder.rpartition("/")
                self._folders.setdefault(parent, set()).add(base)
                folder = parent

    def names(self) -> list[str]:
        return sorted(self._archive.members)

    def files(self, folder: str) -> list[str]:
        return sorted(self._files.get(folder, ()))

    def folders(self, folder: str) -> list[str]:
        return sorted(self._folders.get(folder, ()))

    def read(self, name: str) -> bytes:
        return self._archive.read(name)

    def path(self, name: str) -> str:
        return f"{self.root}{MEMBER}{name}"


class _Archives:
    """Open archives of this process, indexed once and again when the file changes."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[tuple[int, int], Archive]] = {}
        self.renew_lock()

    def renew_lock(self) -> None:
        self._lock = threading.Lock()

    def get(self, path: str) -> Archive:
        try:
            status = os.stat(path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}); put the archive back"
            ) from error
        stamp = (status.st_mtime_ns, status.st_size)
        with self._lock:
            known = self._open.get(path)
            if known is None or known[0] != stamp:
                known = self._open[path] = (stamp, Archive(Path(path)))
            return known[1]


_ARCHIVES = _Archives()
if hasattr(os, "register_at_fork"):
    # another thread may hold the lock when the process forks
    os.register_at_fork(after_in_child=_ARCHIVES.renew_lock)


def open_source(root: str | os.PathLike[str]) -> Source:
    """Open a folder or an archive.

    A compressed tar is decompressed once per process into a temporary file without a name, and a
    line on standard error says so; zip and plain tar are read by offset.

    Args:
        root: A folder, or a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz file.

    Returns:
        Its files.

    Raises:
        UserError: Missing, of another kind, damaged, encrypted, or with members that are links or
            leave the archive.
    """
    top = Path(root)
    if top.is_dir():
        return FolderSource(top)
    if not top.exists():
        raise UserError(f"{top} does not exist; give the folder or the archive of the data set")
    if not is_archive(top):
        raise UserError(
            f"{top} is a file; give a folder, or an archive that ends in {', '.join(SUFFIXES)}"
        )
    return _ArchiveSource(top, _ARCHIVES.get(str(top)))


def read_bytes(path: str) -> bytes:
    """Read what `Record.path` names; threads and forked processes may call it at once.

    Args:
        path: A file, or "<archive>!/<member>".

    Returns:
        Its bytes.

    Raises:
        UserError: Missing, damaged or larger than 64 MiB.
    """
    start = path.find(MEMBER)
    while start >= 0:
        archive = path[:start]
        # a folder may be called x! as well
        if os.path.isfile(archive):
            return _ARCHIVES.get(archive).read(path[start + len(MEMBER) :])
        start = path.find(MEMBER, start + 1)
    return _read_file(path)


def _read_file(path: str) -> bytes:
    try:
        size = os.path.getsize(path)
        if size > LIMIT:
            raise UserError(
                f"{path} has {size} bytes, more than the {LIMIT} of any image of a person; "
                "remove it"
            )
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); check that it exists and may be read"
        ) from error


def _broken(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)
