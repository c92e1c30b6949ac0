"""A plain folder of images, without identities: for extraction only."""

from pathlib import Path

from reid.data.records import Record
from reid.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def folder_records(folder: str | Path) -> list[Record]:
    """List the images of a folder and its subfolders, sorted by path.

    Args:
        folder: Folder of images.

    Returns:
        One record for each image; pid and camid are 0, they are not known.

    Raises:
        UserError: The folder is missing or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"folder {str(folder)!r} does not exist")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"folder {str(folder)!r} holds no image ({', '.join(SUFFIXES)})")
    return [Record(path=str(path), pid=0, camid=0) for path in paths]
