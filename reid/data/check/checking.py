"""`check`: read every file of a data set once and report what is wrong."""

import os
from dataclasses import asdict, dataclass
from typing import Any

from reid.data.check import rules
from reid.data.check.files import look_at_all
from reid.data.check.findings import DAMAGE, NOTE, WARNING, Finding, plural
from reid.data.check.gathering import gather
from reid.data.check.subject import SPLITS, Numbers


@dataclass(frozen=True)
class DatasetCheck:
    """What a data set holds.

    Attributes:
        name: Catalog name.
        about: Title, protocol and layout.
        root: Folder or archive that holds the images.
        splits: What was found, by 'train', 'query' and 'gallery'.
        expected: What is expected of each split, where that is known.
        findings: Damage first, then warnings, then notes.
        files: Number of files read.
        bytes: Their size together.
    """

    name: str
    about: str
    root: str
    splits: dict[str, Numbers]
    expected: dict[str, Numbers]
    findings: list[Finding]
    files: int
    bytes: int

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.of(DAMAGE)

    def of(self, severity: str) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def find(self, kind: str) -> Finding | None:
        """The finding of this kind, if there is one."""
        return next((finding for finding in self.findings if finding.kind == kind), None)

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Counts, one split in each line, then the findings and a last line that sums them up."""
        lines = [f"{self.about}", f"in {self.root}", ""]
        head = f"{'split':<8}"
        for name in ("images", "ids", "cameras"):
            head += f"{name:>9}{'expected' if self.expected else '':>10}"
        lines.append(f"{head}{'junk':>7}{'distractors':>13}")
        for split, found in self.splits.items():
            line = f"{split:<8}"
            wanted = self.expected.get(split)
            for name in ("images", "identities", "cameras"):
                want = getattr(wanted, name, None) if wanted else None
                shown = "-" if want is None else f"{want:,}"
                line += f"{getattr(found, name):>9,}{shown if self.expected else '':>10}"
            lines.append(f"{line}{found.junk:>7,}{found.distractors:>13,}")
        lines.append("")
        for finding in self.findings:
            lines += finding.lines()
        damage, warnings = len(self.of(DAMAGE)), len(self.of(WARNING))
        verdict = f"{plural(damage, 'kind')} of damage" if damage else "no damage"
        if warnings:
            verdict += f", {plural(warnings, 'warning')}"
        size = f"{self.bytes / 1e6:,.1f} MB" if self.bytes else "nothing"
        lines.append(f"{verdict}; read {plural(self.files, 'file')}, {size}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with all examples of every finding."""

        found = {split: asdict(numbers) for split, numbers in self.splits.items()}
        for numbers in found.values():
            del numbers["verified"]
        return {
            "name": self.name,
            "about": self.about,
            "root": self.root,
            "ok": self.ok,
            "splits": found,
            "expected": {split: asdict(numbers) for split, numbers in self.expected.items()},
            "findings": [finding.as_dict() for finding in self.findings],
            "files": self.files,
            "bytes": self.bytes,
        }


def check(
    name: str,
    root: str | os.PathLike[str],
    *,
    protocol: str | None = None,
    decode: bool = True,
    skip_bad: bool = False,
    workers: int | None = None,
) -> DatasetCheck:
    """Count a data set, read every file once, and look for what distorts an evaluation.

    Damage is what makes a copy incomplete or unusable: files that cannot be read or taken, counts
    other than the published ones, no query that can be evaluated. What may distort scores is a
    warning: duplicates, identities in training and test, camera ids.

    Args:
        name: Catalog name, or 'imported'.
        root: Folder or archive.
        protocol: Named protocol of the data set; None takes its default.
        decode: Decode every image; otherwise only empty and missing files are found.
        skip_bad: Count without what training leaves out on request; it becomes a warning, as does
            the count of a split that lacks no more and no less than was left out of it.
        workers: Threads; None takes one for each core.

    Returns:
        Counts and findings.

    Raises:
        UserError: Nothing there that could be checked.
    """
    subject = gather(name, root, protocol)
    paths = [record.path for split in SPLITS for record in subject.lists[split]]
    seen = look_at_all(paths, decode=decode, workers=workers)
    findings = [*rules.unreadable(subject, seen, skip_bad), *rules.misfits(subject, skip_bad)]
    if skip_bad:
        subject = subject.without({path for path, found in seen.items() if found.problem})
    findings += [
        *rules.counts(subject, skip_bad),
        *rules.duplicates(subject, seen),
        *rules.overlap(subject),
        *rules.matches(subject),
        *rules.camera_ids(subject),
    ]
    findings.sort(key=lambda finding: (DAMAGE, WARNING, NOTE).index(finding.severity))
    return DatasetCheck(
        name=subject.name,
        about=subject.about,
        root=subject.root,
        splits={split: subject.count(split) for split in SPLITS},
        expected=subject.expected,
        findings=findings,
        files=len(seen),
        bytes=sum(found.size for found in seen.values()),
    )
