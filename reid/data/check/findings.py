"""What is wrong or worth knowing about a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

DAMAGE = "damage"
WARNING = "warning"
NOTE = "note"
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        severity: 'damage' (files are missing or broken, or nothing can be evaluated), 'warning'
            (scores may be distorted) or 'note'.
        kind: A word for programs, such as 'unreadable'.
        text: What was found and what it means, in one line.
        examples: All files, names or identities that it is about.
    """

    severity: str
    kind: str
    text: str
    examples: Sequence[str] = field(default_factory=tuple)

    def lines(self) -> list[str]:
        """The finding and its first examples as lines of text."""
        lines = [f"{self.severity}: {self.text}"]
        lines += [f"    {example}" for example in self.examples[:_SHOWN]]
        if len(self.examples) > _SHOWN:
            lines.append(f"    and {len(self.examples) - _SHOWN} more")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with all examples."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "text": self.text,
            "examples": list(self.examples),
        }


def plural(count: int, one: str, many: str = "") -> str:
    """1 image, 2 images."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
