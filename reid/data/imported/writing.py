"""Make a data set of a listing: number, divide, write."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reid.data.imported.division import CROSS_CAMERA, camera_rule, divide
from reid.data.imported.manifest import MANIFEST, ROWS, manifest_text, rows_text
from reid.data.imported.rows import Listing, Row, some
from reid.data.imported.table import image_path
from reid.data.placing import new_folder, put
from reid.data.source import open_source
from reid.errors import UserError

_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


@dataclass(frozen=True)
class Imported:
    """What an import made.

    Attributes:
        out: Folder of the data set.
        counts: Images, identities and cameras of 'train', 'query', 'gallery'.
        notes: What was decided, and what is lost by it.
        left_out: What was left out on request, and why.
    """

    out: Path
    counts: dict[str, tuple[int, int, int]]
    notes: list[str]
    left_out: list[str]

    def __str__(self) -> str:
        lines = [f"{'split':<8}{'images':>8}{'ids':>7}{'cameras':>9}"]
        for split, (images, ids, cameras) in self.counts.items():
            lines.append(f"{split:<8}{images:>8}{ids:>7}{cameras:>9}")
        lines += [f"* {note}" for note in self.notes]
        if self.left_out:
            lines.append(f"* {len(self.left_out)} images are left out: {some(self.left_out)}")
        return "\n".join(lines)


def import_images(
    listing: Listing,
    out: str | os.PathLike[str],
    *,
    copy: bool = False,
    seed: int = 0,
    test_share: float = 0.5,
    rule: str = "auto",
) -> Imported:
    """Write imported.json and imported.csv, which make the listed images a data set.

    Args:
        listing: Of `from_folders`, `from_pattern` or `from_csv`.
        out: Folder to write.
        copy: Copy the images too, into the folders and names of Market-1501, which other programs
            read as well; otherwise they stay where they are.
        seed: Of the division into training and test identities, and of the queries.
        test_share: Share of the identities held out for the test.
        rule: cross-camera, synthetic or auto, see `division.camera_rule`.

    Returns:
        What was made.

    Raises:
        UserError: `out` holds a data set already or cannot be written, or the images cannot be
            divided.
    """
    # brings torch along, which readers of the catalog do not need
    from reid.engine.checkpoint import write_atomic

    target = Path(out)
    for name in (MANIFEST, ROWS):
        if (target / name).exists():
            raise UserError(
                f"{target / name} exists already; delete it, or name another folder with --out"
            )
    rows = listing.rows
    given = any(row.split for row in rows)
    rule = camera_rule(rows, rule)
    splits = divide(rows, rule=rule, seed=seed, test_share=test_share)
    if ("query" in splits) != ("gallery" in splits):
        there, missing = ("query", "gallery") if "query" in splits else ("gallery", "query")
        raise UserError(
            f"{listing.images}: there are {there} images but no {missing} images; list both, or "
            "call them 'test' to have queries chosen"
        )
    identities = sorted({row.pid for row in rows}, key=natural)
    cameras = sorted({row.camera for row in rows if row.camera}, key=natural)
    notes = [*listing.notes, *_notes(rows, splits, rule, cameras)]
    if listing.junk:
        notes.insert(0, f"{listing.junk} images of identity -1 are junk and left out")
    counts = _counts(rows, splits)
    about = {
        "origin": listing.origin,
        "split": "as listed" if given else f"seed {seed}, test share {test_share:g}",
        "counts": {
            split: dict(zip(("images", "identities", "cameras"), found, strict=True))
            for split, found in counts.items()
        },
        "left_out": listing.left_out,
    }

    def write(folder: Path, rows: Sequence[Row], images: str) -> None:
        table = rows_text(rows, splits)
        write_atomic(folder / ROWS, table)
        # last, so that what a reader finds is complete
        text = manifest_text(
            table,
            images=images,
            identities=identities,
            cameras=cameras,
            camera_rule=rule,
            about=about,
        )
        write_atomic(folder / MANIFEST, text)

    if copy:
        with new_folder(target) as building:
            write(building, _copy(listing, splits, rule, identities, cameras, building), ".")
    else:
        write(target, rows, _place(listing.images, target))
    return Imported(target, counts, notes, listing.left_out)


def natural(label: str) -> tuple[list[tuple[int, int, str]], str]:
    """Key that sorts numbers inside of text by value: cam2 before cam10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", label)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts], label


def _place(images: Path, out: Path) -> str:
    """Where the images are, as the manifest says it: relative only when they move along."""
    inside = os.path.relpath(images.resolve(), out.resolve()) if _same_drive(images, out) else ".."
    return str(images.resolve()) if inside.startswith("..") else Path(inside).as_posix()


def _same_drive(first: Path, second: Path) -> bool:
    return first.resolve().drive == second.resolve().drive


def _copy(
    listing: Listing,
    splits: Sequence[str],
    rule: str,
    identities: Sequence[str],
    cameras: Sequence[str],
    folder: Path,
) -> list[Row]:
    """Copy the images into Market-1501's layout and return their rows there."""
    source = open_source(listing.images)
    pids = {name: number for number, name in enumerate(identities, start=1)}
    camids = {name: number for number, name in enumerate(cameras, start=1)}
    for split in sorted(set(splits)):
        (folder / _FOLDERS[split]).mkdir()
    copied = []
    for number, (row, split) in enumerate(zip(listing.rows, splits, strict=True), start=1):
        camera = camids.get(row.camera or "", 1)
        if rule != CROSS_CAMERA and split != "train":
            camera = 2 if split == "gallery" else 1
        ending = os.path.splitext(row.path)[1].lower()
        name = f"{_FOLDERS[split]}/{pids[row.pid]:04d}_c{camera}s1_{number:06d}_00{ending}"
        put(image_path(source, row.path), folder / name, link=False)
        copied.append(replace(row, path=name))
    return copied


def _counts(rows: Sequence[Row], splits: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    counts = {}
    for split in _FOLDERS:
        part = [row for row, of in zip(rows, splits, strict=True) if of == split]
        ids, cameras = {row.pid for row in part}, {row.camera for row in part} - {None}
        counts[split] = (len(part), len(ids), len(cameras))
    return counts


def _notes(
    rows: Sequence[Row], splits: Sequence[str], rule: str, cameras: Sequence[str]
) -> list[str]:
    seen: dict[str, dict[str, set[str | None]]] = {split: {} for split in _FOLDERS}
    for row, split in zip(rows, splits, strict=True):
        seen[split].setdefault(row.pid, set()).add(row.camera)
    train, query, gallery = (seen[split] for split in ("train", "query", "gallery"))
    notes = []
    if rule != CROSS_CAMERA:
        known = "nothing is known of cameras" if not cameras else "no identity crosses cameras"
        if len(cameras) > 1 and any(len(of) > 1 for of in gallery.values()):
            known = "the synthetic camera rule was asked for"
        notes.append(
            f"{known}: queries get camera 0, the gallery camera 1, so every image counts as a "
            "match; what is lost: scores say how well similar pictures are found, nothing of a "
            "change of camera, and losses that use cameras do not apply"
        )
    else:
        lone = sum(len(query[pid]) > 0 and not _crosses(pid, query, gallery) for pid in query)
        if lone:
            notes.append(
                f"{lone} of {len(query)} query identities are in the gallery only from the query's "
                "camera or not at all; their queries will be skipped"
            )
    both = train.keys() & (query.keys() | gallery.keys())
    if both:
        notes.append(
            f"{len(both)} identities are in training and in the test ({some(sorted(both))}); their "
            "scores say nothing of people who were never seen"
        )
    if query and len(gallery) < 2:
        notes.append("the gallery holds one identity: every score will be perfect")
    if not train:
        notes.append("no training images: the set can be evaluated on, not trained on")
    if not query:
        notes.append("no query and gallery images: the set can be trained on, not evaluated on")
    return notes


def _crosses(
    pid: str, query: dict[str, set[str | None]], gallery: dict[str, set[str | None]]
) -> bool:
    return any(gallery.get(pid, set()) - {camera} for camera in query[pid])
