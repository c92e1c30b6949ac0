"""Write a folder of images as a whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reid.data.source import read_bytes
from reid.errors import UserError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` at the end of the block, or vanishes when it fails.

    Raises:
        UserError: `out` exists and is not an empty folder, or cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists already; delete it, or name another folder with --out")
    building = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        building.mkdir(parents=True)
        yield building
        if out.is_dir():
            out.rmdir()
        os.replace(building, out)
    except OSError as error:
        raise UserError(
            f"cannot write {out} ({error.strerror or error}); free space there, or name another "
            "folder with --out"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def put(path: str, target: Path, *, link: bool) -> None:
    """Place the image that `path` names at `target`.

    Args:
        path: As `Record.path`: a file, or a member of an archive.
        target: File to write; its folder exists.
        link: Share the bytes with the original by a hard link where the file system can.
    """
    if link and os.path.isfile(path):
        try:
            os.link(os.path.realpath(path), target)
            return
        except OSError:
            # another file system, or one without links
            pass
    target.write_bytes(read_bytes(path))
