"""What an engine did with a model, and why."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Description", "Part"]


@dataclass(frozen=True)
class Part:
    """A part of the model, the path that it takes, and the reason."""

    name: str
    path: str
    why: str


@dataclass
class Description:
    """Every part of an engine; `str()` of it is a table.

    Attributes:
        device: where it runs.
        dtype: in which precision.
        schedule: which tokens stay.
        parts: the parts in the order of the model.
    """

    device: str
    dtype: str
    schedule: str
    parts: list[Part] = field(default_factory=list)

    def add(self, name: str, path: str, why: str) -> None:
        """Records a part."""
        self.parts.append(Part(name, path, why))

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "schedule": self.schedule,
            "parts": [vars(part) for part in self.parts],
        }

    def __str__(self) -> str:
        lines = [f"{self.device}, {self.dtype}; {self.schedule}"]
        merged: dict[tuple[str, str], list[str]] = {}
        for part in self.parts:
            merged.setdefault((part.path, part.why), []).append(part.name)
        wide = max((len(_span(names)) for names in merged.values()), default=0)
        for (path, why), names in merged.items():
            lines.append(f"  {_span(names).ljust(wide)}  {path}: {why}")
        return "\n".join(lines)


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
