"""A plain folder or archive of images, without identities: for extraction only."""

from pathlib import Path

from reid.data.records import Record
from reid.data.source import open_source
from reid.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def folder_records(folder: str | Path) -> list[Record]:
    """List the images of a folder and its subfolders, sorted by path.

    Args:
        folder: Folder or archive of images; hidden files and __MACOSX are passed over.

    Returns:
        One record for each image; pid and camid are 0, they are not known.

    Raises:
        UserError: The folder is missing or holds no image, or the archive is damaged.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UserError(f"folder {str(folder)!r} does not exist")
    source = open_source(folder)
    names = [name for name in source.names() if _is_image(name)]
    if not names:
        raise UserError(f"folder {str(folder)!r} holds no image ({', '.join(SUFFIXES)})")
    return [Record(path=source.path(name), pid=0, camid=0) for name in names]


def _is_image(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and name.lower().endswith(SUFFIXES)
