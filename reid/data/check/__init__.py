"""Look over a data set: counts, damage, duplicates, leaks, cameras."""

from reid.data.check.checking import DatasetCheck, check
from reid.data.check.files import look_at_all, readable
from reid.data.check.findings import DAMAGE, NOTE, WARNING, Finding
from reid.data.check.subject import Numbers

__all__ = [
    "DAMAGE",
    "NOTE",
    "WARNING",
    "DatasetCheck",
    "Finding",
    "Numbers",
    "check",
    "look_at_all",
    "readable",
]
