"""The data sets known by name: where their folders lie and how their files are called."""

import re
from dataclasses import dataclass

from reid.errors import UserError

_MARKET_NAME = r"^(?P<pid>-1|\d{4})_c(?P<camera>\d{1,2})s\d+_\d+_\d+(?:\.jpg)?\.(?:jpg|jpeg|png)$"
_DUKE_NAME = r"^(?P<pid>\d{4})_c(?P<camera>\d{1,2})_f\d+(?:\.jpg)?\.(?:jpg|jpeg|png)$"


@dataclass(frozen=True, slots=True)
class Entry:
    """One data set.

    Attributes:
        name: What a user calls it.
        folders: Places below the root where the three folders may lie, tried in order.
        pattern: Regular expression of a base name with groups `pid` and `camera` (from 1).
        example: A file name that matches.
        protocol: What the queries are: 'holistic', 'occluded' or 'partial'.
        train: Folder of the training images.
        query: Folder of the queries.
        gallery: Folder of the gallery.
    """

    name: str
    folders: tuple[str, ...]
    pattern: re.Pattern[str]
    example: str
    protocol: str
    train: str = "bounding_box_train"
    query: str = "query"
    gallery: str = "bounding_box_test"


def _market(name: str, protocol: str, *folders: str) -> Entry:
    return Entry(name, folders, re.compile(_MARKET_NAME), "0002_c1s1_000451_03.jpg", protocol)


def _duke(name: str, protocol: str, *folders: str) -> Entry:
    return Entry(name, folders, re.compile(_DUKE_NAME), "0001_c2_f0046182.jpg", protocol)


_ENTRIES = (
    _market("mannequins", "holistic", ".", "mannequins"),
    _market("occluded-mannequins", "occluded", ".", "occluded-mannequins"),
    _market("partial-mannequins", "partial", ".", "partial-mannequins"),
    _market(
        "market1501",
        "holistic",
        ".",
        "Market-1501-v15.09.15",
        "market1501/Market-1501-v15.09.15",
        "market1501",
        "Market-1501",
    ),
    _duke(
        "dukemtmc-reid",
        "holistic",
        ".",
        "DukeMTMC-reID",
        "dukemtmc-reid/DukeMTMC-reID",
        "dukemtmcreid",
        "dukemtmc-reid",
    ),
    _duke(
        "occluded-duke",
        "occluded",
        ".",
        "Occluded_Duke",
        "Occluded-DukeMTMC-reID",
        "dukemtmcreid/Occluded_Duke",
        "occluded-duke",
    ),
)
ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def entry(name: str) -> Entry:
    """The entry of this name.

    Raises:
        UserError: Unknown name.
    """
    if name not in ENTRIES:
        raise UserError(f"unknown data set {name!r}; choose one of {', '.join(ENTRIES)}")
    return ENTRIES[name]
