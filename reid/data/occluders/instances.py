"""What a set of images says about its objects, whatever its format."""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reid.data.source import Source
from reid.errors import UserError

Pixels = npt.NDArray[np.uint8]

PEOPLE = frozenset({"person", "people", "pedestrian", "pedestrians", "rider", "human", "humans"})
# Inferred: the paper names bins, bicycles and trees; the rest are like objects that the usual
# annotations have, under the names of COCO and of Pascal VOC.
PREFERRED = frozenset(
    {
        "bin", "trashcan", "bicycle", "tree", "pottedplant", "motorcycle", "motorbike", "car",
        "bench", "umbrella", "suitcase", "chair", "firehydrant", "parkingmeter",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instance:
    """One object in one image.

    Attributes:
        image: The image's name, as the annotations write it.
        path: Where it is, for `reid.data.source.read_bytes`; None if it is missing.
        category: What it is.
        key: Which annotation of the file or image it is.
        alpha: Reads its mask, (H, W) uint8, 0 outside.
        whole: The image is a cut-out of the object, so that it may touch the border.
        licence: Terms of the image, where the annotations name them.
    """

    image: str
    path: str | None
    category: str
    key: str
    alpha: Callable[[], Pixels]
    whole: bool = False
    licence: str = ""


@dataclass
class Annotated:
    """All objects of a source.

    Attributes:
        instances: Objects, in the order of the source.
        categories: Names that the source knows, also those without an object.
        crowds: Objects left out because one mask covers many.
        problems: What is wrong, one line each.
    """

    instances: list[Instance]
    categories: list[str]
    crowds: int = 0
    problems: list[str] = field(default_factory=list)


class ImageIndex:
    """Images of a source by the names that annotations use for them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._names = set(source.names())
        self._by_base: dict[str, list[str]] = {}
        for name in sorted(self._names):
            self._by_base.setdefault(name.rpartition("/")[2], []).append(name)

    def find(self, name: str) -> str | None:
        """Where an image is, for `read_bytes`; None if it is missing.

        Args:
            name: Path below the source, or below a folder of it, or with folders above it.

        Raises:
            UserError: Several images have that name.
        """
        name = name.replace("\\", "/")
        if name in self._names:
            return self._source.path(name)
        same = self._by_base.get(name.rpartition("/")[2], [])
        found = [other for other in same if other.endswith(f"/{name}")] or same
        if len(found) > 1:
            raise UserError(
                f"{self._source.root} has several images {name}: {found[0]}, {found[1]}; "
                "give the folder that holds the right ones"
            )
        return self._source.path(found[0]) if found else None


def choose(annotated: Annotated, categories: Sequence[str] | None) -> list[Instance]:
    """Objects of the categories to cut out.

    Args:
        annotated: Objects of a source.
        categories: Names, matched without regard to case and spaces; ("all",) is every one but
            people; None is the preferred ones, or all but people where the source has none.

    Returns:
        Instances in the order of the source.

    Raises:
        UserError: A category that the source does not know, or no object of any.
    """
    known = {plain(name): name for name in annotated.categories}
    if categories is None:
        held = {instance.category for instance in annotated.instances}
        wanted = {plain(name) for name in held if _is_one_of(name, PREFERRED)}
        wanted = wanted or {plain(name) for name in held if not _is_one_of(name, PEOPLE)}
        asked = "other than people"
    elif [plain(name) for name in categories] == ["all"] and "all" not in known:
        wanted = {key for key, name in known.items() if not _is_one_of(name, PEOPLE)}
        asked = "other than people"
    else:
        for name in categories:
            if plain(name) not in known:
                raise UserError(f"unknown category {name!r}{_nearest(name, known)}")
        wanted = {plain(name) for name in categories}
        asked = f"of {', '.join(categories)}"
    chosen = [i for i in annotated.instances if plain(i.category) in wanted]
    if not chosen:
        raise UserError(
            f"there is no object {asked}; categories there: "
            f"{', '.join(sorted(known.values())) or 'none'}"
        )
    return chosen


def plain(name: str) -> str:
    """A category's name without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", name.lower())


def _is_one_of(name: str, kinds: frozenset[str]) -> bool:
    """Whether a category, or a word of its name, is among some: a wheelie bin is a bin."""
    return plain(name) in kinds or not kinds.isdisjoint(re.split(r"[\W_]+", name.lower()))


def _nearest(name: str, known: dict[str, str]) -> str:
    close = difflib.get_close_matches(plain(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {known[close[0]]!r}?" if close else ""
    return f"{hint}; known: {', '.join(sorted(known.values())) or 'none'}"
