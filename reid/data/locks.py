"""A lock between processes that the system drops when its holder ends, however it ends."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

NOTICE_SECONDS = 1.0
_POLL_SECONDS = 0.05


@contextlib.contextmanager
def locked(path: Path, purpose: str) -> Iterator[bool]:
    """Hold the lock of a file while the body runs.

    Args:
        path: Made when missing and left behind.
        purpose: What another process does that holds it, for the notice of a long wait.

    Yields:
        Whether the lock is held: False where the file cannot be made or the file system has no
        locks.
    """
    try:
        file = path.open("ab")
    except OSError:
        yield False
        return
    with file:
        try:
            _wait(file, purpose)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            _unlock(file)


def _wait(file: IO[bytes], purpose: str) -> None:
    started, told = time.monotonic(), False
    while not _try(file):
        if not told and time.monotonic() - started > NOTICE_SECONDS:
            print(f"reid: waiting for another process that {purpose}", file=sys.stderr)
            told = True
        time.sleep(_POLL_SECONDS)


if sys.platform == "win32":
    import msvcrt

    def _try(file: IO[bytes]) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
