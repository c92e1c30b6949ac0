"""Leave out images that cannot be read, and say which."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reid.data.records import Record, ReidData
from reid.errors import UserError

LIST = "left_out.txt"
_SPLITS = ("train", "query", "gallery")
_SHOWN = 5


def readable_only(records: Sequence[Record], name: str) -> tuple[list[Record], list[str]]:
    """Decode every image once and leave out what fails.

    Args:
        records: Images.
        name: What they are, for the message.

    Returns:
        The readable images in their order, and a line for each one that was left out. Standard
        error names the first few.

    Raises:
        UserError: Nothing is left.
    """
    from reid.data.check import readable

    good, bad = readable(records)
    say_left_out(name, "unreadable images", bad)
    if records and not good:
        raise UserError(f"none of the {len(records)} images of {name} can be read; copy them again")
    return good, bad


def leave_out_unreadable(data: ReidData) -> ReidData:
    """The data set without images that cannot be read; they are added to `left_out`.

    Raises:
        UserError: A split is empty without them, or training has one identity.
    """
    records = [record for split in _SPLITS for record in getattr(data, split)]
    good, bad = readable_only(records, data.name)
    kept = set(good)
    parts = {split: [r for r in getattr(data, split) if r in kept] for split in _SPLITS}
    for split, part in parts.items():
        if getattr(data, split) and not part:
            raise UserError(
                f"no image of the {split} split of {data.root} can be read; copy them again"
            )
    if parts["train"] and len({record.pid for record in parts["train"]}) < 2:
        raise UserError(
            f"{data.root} has one training identity when unreadable images are left out; copy "
            "them again"
        )
    return replace(
        data,
        train=parts["train"],
        query=parts["query"],
        gallery=parts["gallery"],
        left_out=[*data.left_out, *bad],
    )


def write_left_out(lines: Sequence[str], path: Path) -> None:
    """Write all lines to a text file, if there are any."""
    from reid.engine.checkpoint import write_atomic

    if lines:
        write_atomic(path, ("\n".join(lines) + "\n").encode())


def say_left_out(name: str, what: str, lines: Sequence[str]) -> None:
    """Print the count and the first few lines, once for all processes of a run.

    Args:
        name: Of the data set or folder.
        what: What the lines are about.
        lines: A line for each one that was left out.
    """
    if not lines or os.environ.get("RANK", "0") != "0":
        return
    print(f"reid: {name}: left out {len(lines)} {what}", file=sys.stderr)
    for line in lines[:_SHOWN]:
        print(f"reid:   {line}", file=sys.stderr)
    if len(lines) > _SHOWN:
        print(f"reid:   and {len(lines) - _SHOWN} more", file=sys.stderr)
