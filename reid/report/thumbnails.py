"""Small JPEG pictures of the images of an evaluation; an image that is missing is no error."""

import base64
import io
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from reid._optional import require
from reid.data.source import MEMBER, open_source, read_bytes
from reid.errors import UserError

_SIDE = 176
_MOST_BYTES = 6144
_QUALITIES = (82, 60, 40, 20)


def locate(names: Sequence[str], root: str | Path) -> list[str | None]:
    """Find images below another root by the longest end of their names that exists there.

    Features are often extracted on one machine and looked at on another, where only the last
    folders of a path are the same.

    Args:
        names: (N) paths as they stand in a feature file.
        root: Folder or archive that holds the images.

    Returns:
        (N) paths for `reid.data.source.read_bytes`; None where nothing fits, or where several
        images have the same file name and the folders do not tell which one is meant.

    Raises:
        UserError: The root is neither a folder nor an archive.
    """
    source = open_source(root)
    by_name: dict[str, list[list[str]]] = {}
    for file in source.names():
        parts = file.split("/")
        by_name.setdefault(parts[-1], []).append(parts)
    found: list[str | None] = []
    for name in names:
        parts = name.replace(MEMBER, "/").replace("\\", "/").split("/")
        alike = by_name.get(parts[-1], [])
        shared = [_shared_end(parts, other) for other in alike]
        best = [other for other, length in zip(alike, shared, strict=True) if length == max(shared)]
        found.append(source.path("/".join(best[0])) if len(best) == 1 else None)
    return found


def _shared_end(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many parts two paths share at their ends."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def thumbnail(path: str | None) -> str | None:
    """Return an image as a small JPEG in a data URI; None if it is missing or damaged.

    Args:
        path: As `reid.data.source.read_bytes` takes it.

    Returns:
        At most about 8 kB of text.
    """
    if path is None:
        return None
    pil = require("PIL.Image")
    try:
        with pil.open(io.BytesIO(read_bytes(path))) as image:
            image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
            small = image.convert("RGB")
        small.thumbnail((_SIDE, _SIDE), pil.Resampling.LANCZOS)
    except (UserError, OSError, ValueError, SyntaxError, EOFError, pil.DecompressionBombError):
        return None
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        small.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= _MOST_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
