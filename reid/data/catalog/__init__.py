"""Data sets by name."""

import os

from reid.data.catalog.check import DatasetCheck, SplitCheck, check
from reid.data.catalog.entries import ENTRIES, Entry, entry
from reid.data.catalog.market import read_market
from reid.data.records import ReidData

__all__ = [
    "ENTRIES",
    "DatasetCheck",
    "Entry",
    "SplitCheck",
    "check",
    "entry",
    "names",
    "read",
    "read_market",
]


def names() -> list[str]:
    """Names that `read` knows."""
    return list(ENTRIES)


def read(name: str, root: str | os.PathLike[str]) -> ReidData:
    """Read a data set by name.

    Args:
        name: One of `names()`.
        root: Folder of the data set.

    Returns:
        Its training, query and gallery records.

    Raises:
        UserError: Unknown name, or a folder that does not hold this data set.
    """
    return read_market(root, entry=entry(name))
