"""Which patches are kept, stage by stage: SUReID (arXiv 2401.07469) Fig. 6."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid.errors import UserError
from reid.report.sheet import Sheet, load_image
from reid.report.style import MUTED, RULE, write_atomic

_WHITE = 0.86
_GAP = 6


@dataclass(frozen=True)
class Grid:
    """The patch grid of an image.

    Attributes:
        rows: Patches from top to bottom.
        columns: Patches from left to right.
    """

    rows: int
    columns: int

    @classmethod
    def of(cls, image_size: tuple[int, int], patch_size: int) -> "Grid":
        """Return the grid of an image of (height, width) pixels cut into square patches.

        Raises:
            UserError: The size is not a multiple of the patch.
        """
        height, width = image_size
        if patch_size < 1 or height % patch_size or width % patch_size:
            raise UserError(
                f"image size {height}x{width} is not a multiple of the patch size {patch_size}; "
                "give the size and patch that the model was built with"
            )
        return cls(height // patch_size, width // patch_size)

    @property
    def patches(self) -> int:
        """Number of patches."""
        return self.rows * self.columns


def whiten_dropped(
    image: NDArray[np.uint8], kept: NDArray[np.int64], grid: Grid
) -> NDArray[np.uint8]:
    """Fade the patches that are not kept to white.

    Args:
        image: (H, W, 3) picture of any size.
        kept: (k,) patch ids, counted along rows.
        grid: Patch grid.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UserError: A patch id lies outside the grid.
    """
    if kept.size and not 0 <= kept.min() <= kept.max() < grid.patches:
        raise UserError(
            f"kept patch ids run from {kept.min()} to {kept.max()}, but a grid of {grid.rows} by "
            f"{grid.columns} has the ids 0 to {grid.patches - 1}; check image and patch size"
        )
    keep = np.zeros(grid.patches, dtype=bool)
    keep[kept] = True
    height, width = image.shape[:2]
    row = np.arange(height) * grid.rows // height
    column = np.arange(width) * grid.columns // width
    pixels = keep.reshape(grid.rows, grid.columns)[row[:, None], column]
    faded = image * (1.0 - _WHITE) + 255.0 * _WHITE
    return np.where(pixels[:, :, None], image, faded.round()).astype(np.uint8)


def overlay_sheet(
    images: Sequence[str] | NDArray[np.uint8],
    kept: Mapping[int, NDArray[np.int64]],
    *,
    patch_size: int,
    image_size: tuple[int, int] | None = None,
    path: str | os.PathLike[str] | None = None,
    height: int = 216,
    strips: int = 2,
) -> bytes:
    """Draw each image and what is left of it after each pruning stage.

    Args:
        images: (Q) image files, or (Q, H, W, 3) uint8 pictures as the network sees them.
        kept: Block index of each pruning stage -> (Q, k) original patch ids.
        patch_size: Side of a patch, pixels.
        image_size: Height and width of the network's input, pixels; None takes that of the
            pictures, and is an error for files.
        path: Where to write the PNG as well; None writes nothing.
        height: Height of one picture on the sheet, pixels.
        strips: Images side by side.

    Returns:
        A PNG.

    Raises:
        UserError: No image, or ids for another number of images or another grid.
    """
    if len(images) == 0:
        raise UserError("no image to draw; give at least one")
    if image_size is None:
        if not isinstance(images, np.ndarray):
            raise UserError("image files were given without image_size, the network's input size")
        image_size = (images.shape[1], images.shape[2])
    grid = Grid.of(image_size, patch_size)
    stages = sorted(kept)
    for stage in stages:
        if len(kept[stage]) != len(images):
            raise UserError(
                f"stage {stage} has kept patches of {len(kept[stage])} images, but "
                f"{len(images)} images were given; pass one row per image"
            )
    width = round(height * image_size[1] / image_size[0])
    columns = 1 + len(stages)
    strip = columns * (width + _GAP) + 22
    strips = min(strips, len(images))
    lines = -(-len(images) // strips)
    head, foot = 58, 8
    sheet = Sheet(max(strips * strip + 4, 420), head + lines * (height + 16) + foot)
    for number in range(strips):
        labels = ["input", *(f"stage {place}" for place in range(1, columns))]
        counts = [grid.patches, *(kept[stage].shape[1] for stage in stages)]
        for column, (label, count) in enumerate(zip(labels, counts, strict=True)):
            x = number * strip + column * (width + _GAP) + 12 + width / 2
            sheet.text(x, 24, label, 9.5, ha="center", fontweight="bold")
            sheet.text(x, 44, f"{count} of {grid.patches}", 8.5, ha="center", color=MUTED)
    for index, image in enumerate(images):
        x = (index % strips) * strip + 12
        y = head + (index // strips) * (height + 16)
        picture = load_image(image, height, width)
        sheet.image(x, y, picture)
        sheet.frame(x, y, width, height, RULE, linewidth=0.8)
        for column, stage in enumerate(stages, start=1):
            left = x + column * (width + _GAP)
            sheet.image(left, y, whiten_dropped(picture, kept[stage][index], grid))
            sheet.frame(left, y, width, height, RULE, linewidth=0.8)
    png = sheet.png()
    if path is not None:
        write_atomic(path, png)
    return png
