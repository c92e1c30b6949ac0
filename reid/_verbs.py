"""What the modules that define verbs share."""

import argparse
from pathlib import Path
from typing import Any

from reid.errors import UserError


def add_verb(verbs: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    """Add a verb whose parsed arguments are given to `run`.

    Args:
        verbs: What `add_subparsers` returned.
        name: The word on the command line.
        run: Called with the namespace; returns None or an exit code.
        text: One line for the help.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def root_of(name: str, root: str | None) -> str:
    """The folder of a data set: as given, or where a generated one is written.

    Raises:
        UserError: None is given and the set is not a generated one.
    """
    from reid.data import GENERATED

    if root is not None:
        return root
    if name in GENERATED:
        return f"data/{name}"
    raise UserError(f"--root is missing: give the folder of {name}")


def refuse_folder(option: str, path: Path | None) -> None:
    """Refuse a folder where a file is to be written, before the work that fills it.

    Raises:
        UserError: There is a folder of this name.
    """
    if path is not None and path.is_dir():
        raise UserError(f"{option} {path} is a folder; name a file, such as {path / 'out'}")
