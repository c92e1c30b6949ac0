"""Where a file comes from, without saying on which machine."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from reid.config import RunConfig

CHUNK = 1 << 20


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def without_paths(config: RunConfig) -> RunConfig:
    """Return a configuration without the folders of the machine that trained it."""
    data = replace(config.data, root="", cache="")
    augment = replace(config.augment, occluders=config.augment.occluders and "")
    model = config.model
    if os.sep in model.init or "/" in model.init:
        model = replace(model, init=Path(model.init).name)
    return replace(
        config, data=data, augment=augment, model=model, teacher=config.teacher and "teacher"
    )
