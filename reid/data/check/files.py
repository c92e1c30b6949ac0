"""Every image file read once: a hash of its bytes, and whether it can be decoded."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from reid._optional import require
from reid.data import usable_cores
from reid.data.records import Record
from reid.data.source import read_bytes
from reid.data.store import decode_bytes
from reid.errors import UserError


@dataclass(frozen=True, slots=True)
class FileSeen:
    """One file.

    Attributes:
        digest: Hash of its bytes; empty where they cannot be read.
        size: Number of bytes.
        problem: Why it is no image, in one line that names it; empty for a good one.
    """

    digest: bytes
    size: int
    problem: str


def look(path: str, decode: bool = True) -> FileSeen:
    """Read one file, hash it, and decode it as training does.

    Args:
        path: As `Record.path`.
        decode: Whether to decode; otherwise only files that are empty or cannot be read are found.
    """
    try:
        content = read_bytes(path)
    except UserError as error:
        return FileSeen(b"", 0, str(error))
    digest = hashlib.blake2b(content, digest_size=16).digest()
    problem = ""
    if not content:
        problem = f"{path} is empty (0 bytes); delete it or copy it again"
    elif decode:
        try:
            decode_bytes(content, path, None)
        except UserError as error:
            problem = str(error)
    return FileSeen(digest, len(content), problem)


def look_at_all(
    paths: Sequence[str], *, decode: bool = True, workers: int | None = None, label: str = "check"
) -> dict[str, FileSeen]:
    """Read many files in threads.

    Args:
        paths: Files, each read once however often it occurs.
        decode: As in `look`.
        workers: Threads; None takes one for each core.
        label: Shown in front of the progress bar.

    Returns:
        What was seen, by path.
    """
    once = list(dict.fromkeys(paths))
    bar = require("tqdm").tqdm(total=len(once), desc=label, unit="img", disable=None, leave=False)
    seen = {}
    with bar, ThreadPoolExecutor(workers or usable_cores()) as pool:
        for path, found in zip(once, pool.map(lambda p: look(p, decode), once), strict=True):
            seen[path] = found
            bar.update()
    return seen


def readable(
    records: Sequence[Record], workers: int | None = None
) -> tuple[list[Record], list[str]]:
    """Divide records into those whose image can be decoded and the others.

    Args:
        records: Any images.
        workers: Threads; None takes one for each core.

    Returns:
        The good records in their order, and a line for each unreadable file.
    """
    seen = look_at_all([record.path for record in records], workers=workers, label="skip bad")
    good = [record for record in records if not seen[record.path].problem]
    return good, [found.problem for found in seen.values() if found.problem]
