"""The lists that are checked, of whatever kind of data set."""

import os
from dataclasses import dataclass, field, replace

from reid.data.records import Record

SPLITS = ("train", "query", "gallery")
JUNK = -1


@dataclass(frozen=True, slots=True)
class Numbers:
    """Counts of one split, found or expected.

    Attributes:
        images: Without junk.
        identities: Without distractors.
        cameras: Cameras; None where nothing is expected, as below.
        junk: Further images of pid -1.
        distractors: Images of the distractor pid.
        verified: Whether an expected count was counted in the published files.
    """

    images: int
    identities: int
    cameras: int | None
    junk: int | None = 0
    distractors: int | None = 0
    verified: bool = True


@dataclass(frozen=True)
class Subject:
    """A data set before anything is dropped.

    Attributes:
        name: Catalog name, or 'imported'.
        about: Title, protocol, layout and version in words.
        root: Folder or archive.
        lists: All records by split, junk included.
        misfits: A line for each file or list line that cannot be taken.
        left_out: How many files and list lines are missing from each list.
        others: Files among the images that are none.
        expected: Published counts by split, where there are any.
        expected_by: Who expects them, in words.
        camera_rule: 'cross-camera' or 'synthetic'.
        distractor_pid: Identity of images that match nobody; None where there is none.
        shared_pids: Whether training and test number the same identities alike.
    """

    name: str
    about: str
    root: str
    lists: dict[str, list[Record]]
    misfits: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    expected: dict[str, Numbers] = field(default_factory=dict)
    expected_by: str = ""
    camera_rule: str = "cross-camera"
    distractor_pid: int | None = None
    shared_pids: bool = True

    def used(self, split: str) -> list[Record]:
        """What `reid.data.load` keeps: no junk, distractors in the gallery only."""
        return [
            record
            for record in self.lists[split]
            if record.pid != JUNK and (split == "gallery" or record.pid != self.distractor_pid)
        ]

    def identities(self, split: str) -> set[int]:
        """Identities of a split, without distractors."""
        return {record.pid for record in self.used(split)} - {self.distractor_pid}

    def count(self, split: str) -> Numbers:
        """Counts of one split."""
        used = self.used(split)
        return Numbers(
            images=len(used),
            identities=len(self.identities(split)),
            cameras=len({record.camid for record in used}),
            junk=sum(record.pid == JUNK for record in self.lists[split]),
            distractors=sum(record.pid == self.distractor_pid for record in used),
        )

    def without(self, paths: set[str]) -> "Subject":
        """The same without some files."""
        lists = {
            split: [record for record in records if record.path not in paths]
            for split, records in self.lists.items()
        }
        left_out = {
            split: self.left_out.get(split, 0) + len(records) - len(lists[split])
            for split, records in self.lists.items()
        }
        return replace(self, lists=lists, left_out=left_out)

    def short(self, path: str) -> str:
        """A path below the root."""
        for separator in ("!/", os.sep, "/"):
            if path.startswith(self.root + separator):
                return path[len(self.root) + len(separator) :]
        return path
