"""Pictures of the kept tokens: arrays in, arrays out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["kept_mask", "overlay_kept", "overlay_stages"]

Image = NDArray[np.uint8]


def kept_mask(
    indices: Any, grid_size: tuple[int, int], image_size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Marks the pixels of kept patches.

    Args:
        indices: (k,) kept patch indices, row by row; a tensor, an array or a list.
        grid_size: rows and columns of patches.
        image_size: height and width of the image in pixels.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: for an index outside the grid.
    """
    rows, columns = grid_size
    kept = np.asarray(indices, dtype=np.int64).reshape(-1)
    if kept.size and not 0 <= kept.min() <= kept.max() < rows * columns:
        raise ValueError(
            f"kept indices run from {kept.min()} to {kept.max()}, outside a grid of {rows}x"
            f"{columns} patches; pass the grid of the model that made them"
        )
    patches = np.zeros(rows * columns, dtype=bool)
    patches[kept] = True
    height, width = image_size
    y = np.arange(height) * rows // height
    x = np.arange(width) * columns // width
    return patches.reshape(rows, columns)[y[:, None], x[None, :]]


def overlay_kept(
    image: Image,
    indices: Any,
    grid_size: tuple[int, int],
    *,
    style: str = "whiten",
    strength: float = 0.85,
) -> Image:
    """Whitens or darkens the patches that were dropped, as SUReID (arXiv 2401.07469) Fig. 6.

    Args:
        image: (H, W, 3) uint8.
        indices: (k,) kept patch indices.
        grid_size: rows and columns of patches.
        style: "whiten" or "dim".
        strength: 0 leaves dropped patches as they are, 1 paints them over.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        ValueError: for an image of another kind, an unknown style or an index outside the grid.
    """
    if image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError(
            f"image is {image.dtype} of shape {image.shape}; expected uint8 of shape (H, W, 3)"
        )
    if style not in ("whiten", "dim"):
        raise ValueError(f"style {style!r} is unknown; expected 'whiten' or 'dim'")
    paint = 255.0 if style == "whiten" else 0.0
    faded = np.rint(image * (1.0 - strength) + paint * strength).astype(np.uint8)
    kept = kept_mask(indices, grid_size, image.shape[:2])
    return np.where(kept[:, :, None], image, faded)


def overlay_stages(
    image: Image,
    stages: Sequence[Any],
    grid_size: tuple[int, int],
    *,
    style: str = "whiten",
    strength: float = 0.85,
    gap: int = 4,
) -> Image:
    """The image and its overlay after each stage, side by side.

    Args:
        image: (H, W, 3) uint8.
        stages: kept patch indices (k_s,) of every stage.
        grid_size: rows and columns of patches.
        style: as of `overlay_kept`.
        strength: as of `overlay_kept`.
        gap: white pixels between two pictures.

    Returns:
        (H, (S + 1) W + S gap, 3) uint8.
    """
    spacer = np.full((image.shape[0], gap, image.shape[2]), 255, dtype=np.uint8)
    strip = [image]
    for indices in stages:
        overlay = overlay_kept(image, indices, grid_size, style=style, strength=strength)
        strip += [spacer, overlay]
    return np.concatenate(strip, axis=1)
