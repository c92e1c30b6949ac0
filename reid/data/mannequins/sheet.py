"""Contact sheet of generated images: `python -m reid.data.mannequins.sheet sheet.png`."""

import argparse
from pathlib import Path

import numpy as np

from reid._optional import require
from reid.data.mannequins.picture import Spec, draw

_MASK_COLOURS = np.array(
    (
        (246, 246, 244), (230, 159, 0), (86, 180, 233), (0, 158, 115), (0, 114, 178),
        (204, 121, 167), (240, 228, 66), (90, 90, 90),
    ),
    np.uint8,
)  # fmt: skip


def contact_sheet(
    identities: int = 5, *, cameras: int = 6, seed: int = 0, image_size: tuple[int, int] = (128, 64)
) -> np.ndarray:
    """Draw one identity per row.

    Args:
        identities: Number of rows.
        cameras: Number of cameras.
        seed: Seed of the population and of the cameras.
        image_size: Height and width of one image.

    Returns:
        (H, W, 3) uint8 RGB. A row shows the identity whole in every camera, then occluded in
        three of them, each beside its mask.
    """
    height, width = image_size
    rows = []
    for number in range(1, identities + 1):
        row = [draw(Spec(seed, number, view, 0), image_size)[0] for view in range(cameras)]
        row.append(np.full((height, width // 4, 3), 255, np.uint8))
        for turn in range(3):
            spec = Spec(seed, number, (number + 2 * turn) % cameras, 1 + turn, True)
            image, mask, _ = draw(spec, image_size)
            row += [image, _MASK_COLOURS[mask]]
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)


def main() -> None:
    """Write a contact sheet as a PNG of 256 colours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--identities", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sheet = contact_sheet(arguments.identities, seed=arguments.seed)
    image = require("PIL.Image").fromarray(sheet).quantize(256)
    arguments.path.parent.mkdir(parents=True, exist_ok=True)
    image.save(arguments.path, optimize=True)


if __name__ == "__main__":
    main()
