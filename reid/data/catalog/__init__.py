"""Data sets by name."""

from reid.data.catalog.entries import ENTRIES, entry
from reid.data.catalog.locate import LayoutFound, locate
from reid.data.catalog.reading import read
from reid.data.catalog.spec import Count, Entry, Layout, Part, Protocol
from reid.data.imported.manifest import IMPORTED

__all__ = [
    "ENTRIES",
    "Count",
    "Entry",
    "Layout",
    "LayoutFound",
    "Part",
    "Protocol",
    "entry",
    "locate",
    "names",
    "read",
]


def names() -> list[str]:
    """Names that `read` knows."""
    return [*ENTRIES, IMPORTED]
