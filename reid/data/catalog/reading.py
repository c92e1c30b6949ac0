"""Read a data set: find it, drop junk and misplaced distractors, refuse what cannot be used."""

import os

from reid.data.catalog.files import Bad
from reid.data.catalog.locate import LayoutFound, locate
from reid.data.catalog.spec import JUNK, SPLITS
from reid.data.imported.manifest import IMPORTED, read_imported
from reid.data.leaving_out import say_left_out
from reid.data.records import Record, ReidData
from reid.errors import UserError


def read(
    name: str,
    root: str | os.PathLike[str],
    *,
    protocol: str | None = None,
    skip_bad: bool = False,
) -> ReidData:
    """Read a data set by name.

    Junk (pid -1) is dropped everywhere; distractors stay in the gallery only.

    Args:
        name: One of `names()`.
        root: Its folder, a folder above it, an archive, or a folder with nothing but the archive.
        protocol: Named protocol of the data set; None or "" takes its default.
        skip_bad: Leave out files whose name does not fit, doubles and lines of lists without an
            image, and list them on standard error, instead of raising.

    Returns:
        Its training, query and gallery records, in the order of (pid, camera, name).

    Raises:
        UserError: Unknown name or protocol, no such data set there, files that do not fit, only
            junk, only one training identity, or no query with a match in the gallery.
    """
    if name == IMPORTED:
        if protocol:
            raise UserError(f"imported images have no protocol {protocol!r}; leave it out")
        return read_imported(root)
    found = locate(name, root, protocol)
    bad = [one for split in SPLITS for one in found.bad[split]]
    if bad and not skip_bad:
        raise UserError(_refusal(bad))
    say_left_out(name, "files or lines", [one.message for one in bad])
    distractor = found.entry.distractor_pid
    splits = {
        split: [
            record
            for record in found.splits[split]
            if record.pid != JUNK and (split == "gallery" or record.pid != distractor)
        ]
        for split in SPLITS
    }
    _check(found, splits)
    records = [record for split in SPLITS for record in splits[split]]
    return ReidData(
        name=name,
        root=found.root,
        train=splits["train"],
        query=splits["query"],
        gallery=splits["gallery"],
        num_cameras=max(record.camid for record in records) + 1,
        protocol=found.entry.kind,
        distractor_pid=distractor,
        layout=found.layout.name,
        version=found.version,
        camera_rule=found.entry.camera_rule,
        variant=found.protocol.name,
        left_out=[one.message for one in bad],
    )


def _refusal(bad: list[Bad]) -> str:
    more = f" ({len(bad)} such files or lines in all)" if len(bad) > 1 else ""
    return f"{bad[0].message}{more}; to leave them out, set data.skip_bad=true or give --skip-bad"


def _check(found: LayoutFound, splits: dict[str, list[Record]]) -> None:
    for split, records in splits.items():
        if not records and found.layout.parts(split, found.protocol.name):
            others = "" if found.entry.distractor_pid is None else " and distractors"
            raise UserError(
                f"{found.where(split)} holds only junk{others}; it needs images of identities"
            )
    train = splits["train"]
    if train and len({record.pid for record in train}) < 2:
        raise UserError(
            f"{found.where('train')} holds one identity ({train[0].pid:04d}); "
            "training needs at least two"
        )
    _require_match(found, splits["query"], splits["gallery"])


def _require_match(found: LayoutFound, query: list[Record], gallery: list[Record]) -> None:
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
        f"{found.root}: no match between {found.where('query')} and {found.where('gallery')}: "
        f"{reason}; check that both belong to the same data set"
    )
