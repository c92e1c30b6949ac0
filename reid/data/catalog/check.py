"""Look over a data set: counts, and files that cannot be read."""

import os
from dataclasses import dataclass

from reid._optional import require
from reid.data.catalog.reading import read
from reid.data.records import Record
from reid.data.source import read_bytes


@dataclass(frozen=True)
class SplitCheck:
    """What one split holds.

    Attributes:
        images: Number of images, without junk.
        identities: Number of identities, without distractors.
        cameras: Number of cameras.
        distractors: Number of images of pid 0.
    """

    images: int
    identities: int
    cameras: int
    distractors: int


@dataclass(frozen=True)
class DatasetCheck:
    """What a data set holds.

    Attributes:
        name: Catalog name.
        root: Folder of the three splits.
        splits: By 'train', 'query', 'gallery'.
        queries_without_match: Queries whose identity no other camera of the gallery has seen.
        unreadable: Files that are empty or no image.
    """

    name: str
    root: str
    splits: dict[str, SplitCheck]
    queries_without_match: int
    unreadable: list[str]

    @property
    def ok(self) -> bool:
        """Whether every file can be read."""
        return not self.unreadable

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """The counts as aligned text, one split per line."""
        lines = [f"{self.name} in {self.root}"]
        lines.append(f"{'split':<8}{'images':>8}{'ids':>7}{'cameras':>9}{'distractors':>13}")
        for split, found in self.splits.items():
            lines.append(
                f"{split:<8}{found.images:>8}{found.identities:>7}{found.cameras:>9}"
                f"{found.distractors:>13}"
            )
        lines.append(f"queries without a match: {self.queries_without_match}")
        lines.append(f"unreadable files: {len(self.unreadable)}")
        lines += [f"  {path}" for path in self.unreadable]
        return "\n".join(lines)


def check(name: str, root: str | os.PathLike[str], *, decode: bool = True) -> DatasetCheck:
    """Count a data set and try to decode every image.

    Args:
        name: Catalog name.
        root: Folder.
        decode: Decode every image; otherwise only empty files are found.

    Returns:
        Counts and unreadable files.

    Raises:
        UserError: As `read`.
    """
    data = read(name, root)
    cameras: dict[int, set[int]] = {}
    for record in data.gallery:
        cameras.setdefault(record.pid, set()).add(record.camid)
    unmatched = sum(not cameras.get(r.pid, set()) - {r.camid} for r in data.query)
    parts = {"train": data.train, "query": data.query, "gallery": data.gallery}
    unreadable = [
        record.path
        for records in parts.values()
        for record in records
        if not _readable(record.path, decode)
    ]
    return DatasetCheck(
        name=data.name,
        root=data.root,
        splits={split: _count(records) for split, records in parts.items()},
        queries_without_match=unmatched,
        unreadable=unreadable,
    )


def _count(records: list[Record]) -> SplitCheck:
    return SplitCheck(
        images=len(records),
        identities=len({record.pid for record in records if record.pid > 0}),
        cameras=len({record.camid for record in records}),
        distractors=sum(record.pid == 0 for record in records),
    )


def _readable(path: str, decode: bool) -> bool:
    content = read_bytes(path)
    if not content or not decode:
        return bool(content)
    cv2, numpy = require("cv2"), require("numpy")
    return cv2.imdecode(numpy.frombuffer(content, numpy.uint8), cv2.IMREAD_COLOR) is not None
