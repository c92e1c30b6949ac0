"""Read folders in Market-1501's layout: three folders, identity and camera in the file name."""

import os
import re
from pathlib import Path

from reid.data.catalog.entries import ENTRIES, Entry
from reid.data.records import Record, ReidData
from reid.errors import UserError

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
_JUNK = -1
_DISTRACTOR = 0


def read_market(
    root: str | os.PathLike[str], *, name: str = "market1501", entry: Entry | None = None
) -> ReidData:
    """Read a data set in Market-1501's layout.

    Junk (pid -1) is dropped everywhere; distractors (pid 0) stay in the gallery only.

    Args:
        root: The folder that holds the three folders, or one that holds it under a usual name.
        name: Name of the catalog entry, unless `entry` is given.
        entry: Another description of folders and file names.

    Returns:
        Records in the order of (pid, camera, file name).

    Raises:
        UserError: A folder is missing or empty, a file name does not fit, only one identity, or no
            query has a match in the gallery.
    """
    spec = entry or ENTRIES[name]
    base = locate(root, spec)
    train = [r for r in read_folder(base / spec.train, spec) if r.pid > _DISTRACTOR]
    query = [r for r in read_folder(base / spec.query, spec) if r.pid > _DISTRACTOR]
    gallery = [r for r in read_folder(base / spec.gallery, spec) if r.pid >= _DISTRACTOR]
    for folder, records in ((spec.train, train), (spec.query, query), (spec.gallery, gallery)):
        if not records:
            raise UserError(
                f"{base / folder} holds only junk and distractors; it needs images of identities"
            )
    if len({record.pid for record in train}) < 2:
        raise UserError(
            f"{base / spec.train} holds one identity ({train[0].pid:04d}); "
            "training needs at least two"
        )
    _require_match(base, spec, query, gallery)
    cameras = max(record.camid for record in train + query + gallery) + 1
    return ReidData(spec.name, str(base), train, query, gallery, cameras, spec.protocol)


def locate(root: str | os.PathLike[str], spec: Entry) -> Path:
    """The folder below `root` that holds the data set's three folders.

    Raises:
        UserError: There is none.
    """
    top = Path(root)
    if not top.exists():
        raise UserError(f"{top} does not exist; give the folder that holds {spec.query}/")
    if not top.is_dir():
        raise UserError(f"{top} is a file; give the folder that holds {spec.query}/")
    wanted = (spec.train, spec.query, spec.gallery)
    best: tuple[int, Path] = (0, top)
    for folder in spec.folders:
        base = top / folder
        found = sum((base / part).is_dir() for part in wanted)
        if found == len(wanted):
            return base
        if found > best[0]:
            best = (found, base)
    missing = [part for part in wanted if not (best[1] / part).is_dir()]
    raise UserError(
        f"{best[1]} has no folder {missing[0]!r}; {spec.name} needs {', '.join(wanted)} there"
    )


def read_folder(folder: Path, spec: Entry) -> list[Record]:
    """Every image of one folder, junk included.

    Raises:
        UserError: The folder holds no image, or an image whose name does not fit.
    """
    records = []
    for name in image_names(folder):
        parsed = parse_name(name, spec.pattern)
        if parsed is None:
            raise UserError(
                f"{folder / name}: the name does not fit {spec.name}, whose files are called like "
                f"{spec.example} (pattern {spec.pattern.pattern}); rename or remove it"
            )
        records.append(Record(str(folder / name), *parsed))
    if not records:
        raise UserError(f"{folder} holds no images; expected files like {spec.example}")
    records.sort(key=lambda record: (record.pid, record.camid, record.path))
    return records


def image_names(folder: Path) -> list[str]:
    """Sorted names of the images in a folder; other files (Thumbs.db) are passed over."""
    with os.scandir(folder) as found:
        return sorted(
            item.name
            for item in found
            if os.path.splitext(item.name)[1].lower() in _IMAGES
            and not item.name.startswith(".")
            and item.is_file()
        )


def parse_name(name: str, pattern: re.Pattern[str]) -> tuple[int, int] | None:
    """pid and camid (from 0) of a base name, or None if it does not fit the pattern."""
    match = pattern.match(name)
    if match is None or int(match["camera"]) < 1:
        return None
    return int(match["pid"]), int(match["camera"]) - 1


def _require_match(base: Path, spec: Entry, query: list[Record], gallery: list[Record]) -> None:
    cameras: dict[int, set[int]] = {}
    for record in gallery:
        cameras.setdefault(record.pid, set()).add(record.camid)
    if any(cameras.get(record.pid, set()) - {record.camid} for record in query):
        return
    shared = sum(record.pid in cameras for record in query)
    reason = (
        f"{shared} of {len(query)} queries have their identity in the gallery, "
        "but all from the same camera, which does not count"
        if shared
        else f"none of the {len(query)} queries has its identity in the gallery"
    )
    raise UserError(
        f"{base}: no match between {spec.query} and {spec.gallery}: {reason}; "
        "check that both folders belong to the same data set"
    )
