"""Data sets by name: generated ones are written on demand, others are read as they are found."""

import os
from pathlib import Path

from reid.config import DataConfig
from reid.data.records import Record, ReidData

GENERATED = ("mannequins", "occluded-mannequins", "partial-mannequins")

__all__ = ["GENERATED", "Record", "ReidData", "load", "prepare"]


def prepare(config: DataConfig) -> None:
    """Write a generated data set if its folder does not exist yet; leave others alone.

    Raises:
        UserError: The folder holds something else, or the disk is full.
    """
    if config.name in GENERATED and not Path(config.root).exists():
        from reid.data import mannequins

        mannequins.generate(
            config.root,
            protocol=config.name,
            size=config.size,
            seed=config.seed,
            image_size=config.image_size,
            workers=os.cpu_count() or 1,
        )


def load(name: str, root: str | Path) -> ReidData:
    """Read a data set of the catalog.

    Args:
        name: Such as "market1501" or "occluded-mannequins".
        root: Its folder.

    Raises:
        UserError: Unknown name, missing or empty folder, or lists that cannot be evaluated.
    """
    from reid.data import catalog

    return catalog.read(name, root)
