"""What a generated data set holds, in numbers."""

import os
from typing import Any

import numpy as np

from reid.data.mannequins.protocols import SPLITS
from reid.data.mannequins.writing import read_manifest


def report(root: str | os.PathLike[str]) -> dict[str, Any]:
    """Counts and occlusion of a generated data set.

    Args:
        root: Folder of the data set.

    Returns:
        `protocol`, `size`, `seed`, `image_size`, `counts` (images, identities, cameras) and
        `occlusion`: for train, query and gallery the `share` of occluded images and, of those,
        `mean`, `lowest` and `highest` covered share of the body.

    Raises:
        UserError: The folder is no generated data set.
    """
    manifest = read_manifest(root)
    occlusion = {
        name: _occlusion(manifest["occlusion"][split])
        for name, split in zip(("train", "query", "gallery"), SPLITS, strict=True)
    }
    return {
        "protocol": manifest["protocol"],
        "size": manifest["size"],
        "seed": manifest["seed"],
        "image_size": manifest["image_size"],
        "counts": manifest["counts"],
        "occlusion": occlusion,
    }


def _occlusion(covered: dict[str, float]) -> dict[str, float]:
    values = np.array(list(covered.values()), np.float64)
    hidden = values[values > 0]
    if not hidden.size:
        return {"share": 0.0, "mean": 0.0, "lowest": 0.0, "highest": 0.0}
    return {
        "share": hidden.size / values.size,
        "mean": float(hidden.mean()),
        "lowest": float(hidden.min()),
        "highest": float(hidden.max()),
    }
