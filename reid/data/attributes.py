"""Person attributes of Market-1501 and DukeMTMC-reID: reader, writer and tables for losses."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reid._optional import require
from reid.data.attribute_names import (
    DUKE_ATTRIBUTES,
    DUKE_ROOT,
    MARKET_ATTRIBUTES,
    MARKET_ROOT,
    colour_groups,
    value_names,
)
from reid.errors import UserError

__all__ = [
    "DUKE_ATTRIBUTES",
    "MARKET_ATTRIBUTES",
    "AttributeTable",
    "read_attributes",
    "write_market_attributes",
]

SPLITS = ("train", "test")
_HDF5_VERSION = 2


@dataclass(frozen=True)
class AttributeTable:
    """Attributes of the identities of one split; a row is an identity, not an image.

    Attributes:
        pids: (I,) int64, ascending.
        names: Columns, sorted by name because the file's own order differs between splits.
        values: (I, A) int64 as in the file (1 or 2; age 1 to 4; 0 unlabelled).
        defined: (I, A) bool; False where the file says 0, and for all colours of a group of which
            the identity has none: its colour is not among those offered, or was not labelled.
        root: Outer structure of the file, which decides what the values mean.
    """

    pids: np.ndarray
    names: tuple[str, ...]
    values: np.ndarray
    defined: np.ndarray
    root: str = MARKET_ROOT

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Colour groups; their columns are to be read together, with any number of them set."""
        return colour_groups(self.names)

    def rows(self, pids: np.ndarray) -> np.ndarray:
        """Row of each pid.

        Args:
            pids: (N,) integers.

        Returns:
            (N,) int64.

        Raises:
            UserError: A pid has no attributes.
        """
        wanted = np.asarray(pids)
        place = np.searchsorted(self.pids, wanted).clip(max=len(self.pids) - 1)
        unknown = wanted[self.pids[place] != wanted]
        if unknown.size:
            raise UserError(
                f"the attribute file has no identity {int(unknown[0]):04d} in this split, which "
                f"holds {len(self.pids)} from {self.pids[0]:04d} to {self.pids[-1]:04d}; look in "
                "the other split, and leave distractors (0) and junk (-1) out"
            )
        return np.asarray(place, np.int64)

    def describe(self, pid: int) -> dict[str, str | None]:
        """What the file says of one identity, in words.

        Args:
            pid: Identity.

        Returns:
            The word for the value of each attribute; None where it is undefined.

        Raises:
            UserError: The identity has no attributes.
        """
        row = int(self.rows(np.array([pid]))[0])
        return {
            name: value_names(self.root, name)[value - 1] if defined else None
            for name, value, defined in zip(
                self.names, self.values[row], self.defined[row], strict=True
            )
        }

    def binary(self) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        """Zeros and ones for a loss, with a mask.

        An attribute of two values is one column, 1 for the second value; one of more values
        (age) is a column for each value.

        Returns:
            (I, B) float32 in {0, 1}, 0 where undefined; (I, B) bool, True where defined;
            B names such as "hat" and "age=adult".
        """
        columns, masks, names = [], [], []
        for number, name in enumerate(self.names):
            words = value_names(self.root, name)
            for value in (2,) if len(words) == 2 else range(1, len(words) + 1):
                columns.append(self.values[:, number] == value)
                masks.append(self.defined[:, number])
                names.append(name if len(words) == 2 else f"{name}={words[value - 1]}")
        return np.stack(columns, 1).astype(np.float32), np.stack(masks, 1), tuple(names)


def read_attributes(
    path: str | os.PathLike[str], *, root: str | None = None
) -> dict[str, AttributeTable]:
    """Read an attribute file by the names of its fields.

    Args:
        path: `market_attribute.mat`, `duke_attribute.mat` (which also serves Occluded-DukeMTMC),
            or another file of the same structure.
        root: Name of the outer structure; None takes the one of these two that is there.

    Returns:
        Tables of 'train' and 'test', with the same columns.

    Raises:
        UserError: The file is missing, unreadable or of another structure.
    """
    content = _load(path)
    known = (MARKET_ROOT, DUKE_ROOT) if root is None else (root,)
    found = [name for name in known if name in content]
    if not found:
        held = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise UserError(
            f"{path} is not an attribute file with {' or '.join(known)}: it holds {held}; "
            "give the file that belongs to the data set"
        )
    try:
        tables = {
            split: _table(getattr(content[found[0]], split), found[0], f"{path}, {split}")
            for split in SPLITS
        }
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path} is not an attribute file with {found[0]}.train and {found[0]}.test, each "
            f"with image_index: {error}; copy it again"
        ) from error
    train, test = (set(tables[split].names) for split in SPLITS)
    if train != test:
        raise UserError(
            f"{path}: {', '.join(sorted(train ^ test))} is in one of train and test only; "
            "both need the same attributes"
        )
    return tables


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
    scipy_io.savemat(path, {MARKET_ROOT: content}, do_compression=True)


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    scipy_io = require("scipy.io")
    if not Path(path).is_file():
        raise UserError(
            f"no attribute file {path}; generated data sets have attribute/{MARKET_ROOT}.mat"
        )
    try:
        if scipy_io.matlab.matfile_version(str(path))[0] == _HDF5_VERSION:
            raise UserError(
                f"{path} is a MATLAB 7.3 file (HDF5), which is not read; save it again in "
                "MATLAB with the option -v7"
            )
        content: dict[str, Any] = scipy_io.loadmat(path, squeeze_me=True, struct_as_record=False)
    except UserError:
        raise
    except Exception as error:
        # The parser of a damaged file fails in many ways; all mean the same to the user.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is not a readable .mat file: {reason}; copy it again") from error
    return content


def _table(structure: Any, root: str, place: str) -> AttributeTable:
    names = tuple(sorted(name for name in structure._fieldnames if name != "image_index"))
    # ids come as text with or without leading zeros, or as numbers
    pids = np.array([int(pid) for pid in np.atleast_1d(structure.image_index)], np.int64)
    if not len(pids) or not names:
        raise ValueError("no identity or no attribute in it")
    columns = []
    for name in names:
        column = np.atleast_1d(getattr(structure, name)).astype(np.float64)
        if column.shape != pids.shape:
            raise UserError(
                f"{place}: {name} has {column.size} values for {len(pids)} identities; "
                "copy the file again"
            )
        most = len(value_names(root, name))
        wrong = ~np.isin(column, range(most + 1))
        if wrong.any():
            raise UserError(
                f"{place}: {name} of identity {pids[wrong][0]:04d} is {column[wrong][0]:g}; "
                f"expected 1 to {most}, or 0 for unlabelled"
            )
        columns.append(column.astype(np.int64))
    unique, counts = np.unique(pids, return_counts=True)
    if counts.max() > 1:
        raise UserError(f"{place}: identity {unique[counts > 1][0]:04d} occurs twice; remove one")
    order = np.argsort(pids)
    values = np.stack(columns, 1)[order]
    return AttributeTable(pids[order], names, values, _defined(names, values), root)


def _defined(names: tuple[str, ...], values: np.ndarray) -> np.ndarray:
    defined = values > 0
    for members in colour_groups(names).values():
        columns = [names.index(name) for name in members]
        colourless = ~(values[:, columns] == 2).any(1)
        defined[np.ix_(colourless, columns)] = False
    return defined
