"""A file that appears when it is complete and right, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["arriving"]


@contextmanager
def arriving(path: str | os.PathLike[str], suffix: str) -> Iterator[Path]:
    """Gives a path to write to, whose file comes to `path` once the block has ended well.

    Args:
        path: where the file shall be; a file there is replaced, its folder is made when missing.
        suffix: ending that the name must have.

    Raises:
        ValueError: for another ending.
        IsADirectoryError: if there is a folder at `path`.
        OSError: if the folder cannot be written.
    """
    target = Path(path)
    if target.suffix != suffix:
        raise ValueError(
            f"{target} ends in {target.suffix or 'nothing'!r}; the name of this format ends in "
            f"{suffix!r}"
        )
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; give the name of a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        temporary = Path(folder) / target.name
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
