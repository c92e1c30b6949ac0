"""Data sets by name: generated ones are written on demand, others are read as they are found."""

import os
from pathlib import Path

from reid.config import DataConfig
from reid.data.records import Record, ReidData
from reid.errors import UserError

GENERATED = ("mannequins", "occluded-mannequins", "partial-mannequins")

__all__ = ["GENERATED", "Record", "ReidData", "load", "prepare", "usable_cores"]


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
        named = {"name": "protocol", "size": "size", "seed": "seed"}
        for key, entry in named.items():
            found, wanted = manifest.get(entry), getattr(config, key)
            if found != wanted:
                raise UserError(
                    f"{config.root} holds a generated set with {entry} {found}, the run asks for "
                    f"data.{key}={wanted}; set data.{key}={found}, or choose another folder with "
                    "data.root"
                )
        drawn = manifest.get("image_size", config.image_size)
        if drawn[0] < config.image_size[0] or drawn[1] < config.image_size[1]:
            raise UserError(
                f"{config.root} was drawn at {tuple(drawn)} pixels, the run asks for "
                f"data.image_size={config.image_size}; draw it again in another folder given as "
                "data.root"
            )
    elif not Path(config.root).exists():
        mannequins.generate(
            config.root,
            protocol=config.name,
            size=config.size,
            seed=config.seed,
            image_size=config.image_size,
            workers=usable_cores(),
        )


def usable_cores() -> int:
    """Return the number of processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load(
    name: str, root: str | Path, *, protocol: str | None = None, skip_bad: bool = False
) -> ReidData:
    """Read a data set of the catalog.

    Args:
        name: Such as "market1501" or "occluded-mannequins".
        root: Its folder or archive.
        protocol: Named protocol of the data set; None or "" takes its default.
        skip_bad: Leave out what does not fit and what cannot be decoded, and list it on standard
            error, instead of raising.

    Raises:
        UserError: Unknown name, missing or empty folder, or lists that cannot be evaluated.
    """
    from reid.data import catalog

    data = catalog.read(name, root, protocol=protocol, skip_bad=skip_bad)
    if not skip_bad:
        return data
    from reid.data.leaving_out import leave_out_unreadable

    return leave_out_unreadable(data)
