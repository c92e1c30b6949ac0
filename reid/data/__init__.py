"""Data sets by name: generated ones are written on demand, others are read as they are found."""

import os
from pathlib import Path

from reid.config import DataConfig
from reid.data.records import Record, ReidData
from reid.errors import UserError

GENERATED = ("mannequins", "occluded-mannequins", "partial-mannequins")

__all__ = ["GENERATED", "Record", "ReidData", "load", "prepare"]


def prepare(config: DataConfig) -> None:
    """Write a generated data set if its folder does not exist yet; leave others alone.

    Raises:
        UserError: The folder holds a generated set of another size or seed, or something else, or
            the disk is full.
    """
    if config.name not in GENERATED:
        return
    from reid.data import mannequins

    if (Path(config.root) / mannequins.MANIFEST).is_file():
        manifest = mannequins.read_manifest(config.root)
        for key, wanted in (("size", config.size), ("seed", config.seed)):
            if manifest[key] != wanted:
                raise UserError(
                    f"{config.root} holds a generated set with {key} {manifest[key]}, the run asks "
                    f"for data.{key}={wanted}; set data.{key}={manifest[key]}, or choose another "
                    "folder with data.root"
                )
    elif not Path(config.root).exists():
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
