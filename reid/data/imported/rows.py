"""What a listing of one's own images is, and what has to hold for all of them."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from reid.errors import UserError

SPLITS = {
    "train": "train",
    "bounding_box_train": "train",
    "query": "query",
    "probe": "query",
    "gallery": "gallery",
    "bounding_box_test": "gallery",
    "test": "test",
}
_JUNK = "-1"


@dataclass(frozen=True, slots=True)
class Row:
    """One image as it was listed.

    Attributes:
        path: Posix path below the images' root; a row of a CSV file may also leave it.
        pid: Identity, any text.
        camera: Camera, any text; None when nothing is known of cameras.
        split: train, query, gallery, or test (divided into query and gallery later); or None.
    """

    path: str
    pid: str
    camera: str | None = None
    split: str | None = None


@dataclass
class Listing:
    """What a source of images holds.

    Attributes:
        images: Folder or archive that the paths are relative to.
        rows: Sorted by path, junk left out.
        origin: How they were listed, in words.
        junk: Number of images with identity -1, which the field calls junk.
        left_out: What was left out on request, and why.
        notes: What was decided on the way and a user should know.
    """

    images: Path
    rows: list[Row]
    origin: str
    junk: int = 0
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def finish(
    images: Path, rows: list[Row], origin: str, left_out: list[str], notes: list[str]
) -> Listing:
    """Make a listing of rows of any source.

    Raises:
        UserError: Nothing is left, one identity only, identities that differ in leading zeros, or
            cameras or splits that only some of the images have.
    """
    rows = sorted((_cleaned(row) for row in rows), key=lambda row: row.path)
    kept = [row for row in rows if row.pid != _JUNK]
    if not kept:
        raise UserError(f"{images}: no image is left; {len(left_out)} were left out")
    for label in ("camera", "split"):
        without = [row.path for row in kept if not getattr(row, label)]
        if without and len(without) < len(kept):
            raise UserError(
                f"{len(without)} of {len(kept)} images have no {label}, the others have one: "
                f"{some(without)}; give all of them one, or none"
            )
    known = {row.pid for row in kept}
    numbers: dict[int, str] = {}
    for pid in sorted(known):
        if pid.isdecimal() and numbers.setdefault(int(pid), pid) != pid:
            raise UserError(
                f"the identities {numbers[int(pid)]!r} and {pid!r} differ only in leading zeros; "
                "write both alike if they are one person, or name them apart"
            )
    if len(known) < 2:
        raise UserError(
            f"{images} holds one identity ({next(iter(known))!r}); re-identification needs at "
            "least two"
        )
    return Listing(images, kept, origin, len(rows) - len(kept), left_out, notes)


def split_of(word: str, where: str) -> str:
    """The split that a word of a file or folder stands for.

    Raises:
        UserError: Unknown word.
    """
    if word.lower() not in SPLITS:
        raise UserError(
            f"{where}: the split {word!r} is unknown; choose one of {', '.join(SPLITS)}"
        )
    return SPLITS[word.lower()]


def leave_out(
    names: list[str], total: int, *, what: str, reason: str, remedy: str, skip_bad: bool
) -> list[str]:
    """Return the names with the reason, or raise when nothing may be left out.

    Raises:
        UserError: There are names and `skip_bad` is off.
    """
    if names and not skip_bad:
        raise UserError(
            f"{len(names)} of {total} {what}: {some(names)}; {remedy}, or leave these out with "
            "--skip-bad"
        )
    return [f"{name}: {reason}" for name in names]


def _cleaned(row: Row) -> Row:
    """The row with labels that compare equal when they look equal."""
    pid, camera = (
        label and unicodedata.normalize("NFC", label).strip() for label in (row.pid, row.camera)
    )
    return Row(row.path, pid or "", camera or None, row.split or None)


def some(names: Iterable[str]) -> str:
    """Up to five names and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return ", ".join(listed[:5]) + more
