"""Market-1501's 27 person attributes: the reader and the writer of market_attribute.mat."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid._optional import require
from reid.errors import UserError

MARKET_ATTRIBUTES = tuple(
    sorted(
        (
            "age", "backpack", "bag", "handbag", "hat", "hair", "gender", "up", "down", "clothes",
            "upblack", "upwhite", "upred", "uppurple", "upyellow", "upgray", "upblue", "upgreen",
            "downblack", "downwhite", "downpink", "downpurple", "downyellow", "downgray",
            "downblue", "downgreen", "downbrown",
        )
    )
)  # fmt: skip


@dataclass(frozen=True)
class AttributeTable:
    """Attributes of the identities of one split.

    Attributes:
        pids: (I,) int64, ascending.
        names: Columns, sorted by name because the file's own order differs between splits.
        values: (I, A) int64 as in the file (1 or 2; age 1 to 4).
        defined: (I, A) bool; False where the file says 0, that is unlabelled.
    """

    pids: np.ndarray
    names: tuple[str, ...]
    values: np.ndarray
    defined: np.ndarray

    def rows(self, pids: np.ndarray) -> np.ndarray:
        """Row of each pid.

        Args:
            pids: (N,) integers.

        Returns:
            (N,) int64.

        Raises:
            UserError: A pid has no attributes.
        """
        place = np.searchsorted(self.pids, pids).clip(max=len(self.pids) - 1)
        unknown = np.asarray(pids)[self.pids[place] != pids]
        if unknown.size:
            raise UserError(f"the attribute file has no identity {int(unknown[0]):04d}")
        return np.asarray(place, np.int64)


def read_attributes(
    path: str | os.PathLike[str], *, root: str = "market_attribute"
) -> dict[str, AttributeTable]:
    """Read an attribute file by the names of its fields.

    Args:
        path: `market_attribute.mat`, or another file of the same structure.
        root: Name of the outer structure.

    Returns:
        Tables of 'train' and 'test'.

    Raises:
        UserError: The file is missing, unreadable or of another structure.
    """
    scipy_io = require("scipy.io")
    if not Path(path).is_file():
        raise UserError(f"no attribute file {path}; generated data sets have attribute/{root}.mat")
    try:
        content = scipy_io.loadmat(path, squeeze_me=True, struct_as_record=False)
    except Exception as error:
        # The parser of a damaged file fails in many ways; all mean the same to the user.
        raise UserError(f"{path} is not a readable .mat file: {error}; copy it again") from error
    try:
        structure = content[root]
        return {split: _table(getattr(structure, split)) for split in ("train", "test")}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} is not an attribute file with {root}.train and {root}.test: {error}"
        ) from error


def write_market_attributes(
    path: str | os.PathLike[str],
    train: Mapping[int, Mapping[str, int]],
    test: Mapping[int, Mapping[str, int]],
) -> None:
    """Write attributes in the structure of `market_attribute.mat`.

    Args:
        path: File to write.
        train: Values by pid, then by attribute name.
        test: The same for the test identities.
    """
    scipy_io = require("scipy.io")
    content = {}
    for split, table in (("train", train), ("test", test)):
        pids = sorted(table)
        fields: dict[str, np.ndarray] = {
            name: np.array([[table[pid][name] for pid in pids]], np.float64)
            for name in MARKET_ATTRIBUTES
        }
        index = np.empty((1, len(pids)), object)
        index[0] = [f"{pid:04d}" for pid in pids]
        content[split] = {**fields, "image_index": index}
    scipy_io.savemat(path, {"market_attribute": content}, do_compression=True)


def _table(structure: object) -> AttributeTable:
    fields: list[str] = structure._fieldnames  # type: ignore[attr-defined]
    names = tuple(sorted(name for name in fields if name != "image_index"))
    pids = np.array([int(pid) for pid in np.atleast_1d(structure.image_index)], np.int64)  # type: ignore[attr-defined]
    values = np.stack(
        [np.atleast_1d(getattr(structure, name)).astype(np.int64) for name in names], 1
    )
    order = np.argsort(pids, kind="stable")
    return AttributeTable(pids[order], names, values[order], values[order] > 0)
