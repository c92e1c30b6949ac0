"""Rectangles: drawing their size at random, and the pixels inside."""

import torch
from torch import Tensor

from sparse_vit.keyed_random import integers


def first_fitting(areas: Tensor, aspects: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Size of the first rectangle of each row of tries that is smaller than the image.

    Args:
        areas: (B, T) wanted areas as shares of the image.
        aspects: (B, T) wanted height / width.
        height: Image height in pixels.
        width: Image width in pixels.

    Returns:
        box height (B,) and box width (B,) int64 pixels; both 0 where no try fits.
    """
    pixels = areas * float(height * width)
    heights = (pixels * aspects).sqrt().round()
    widths = (pixels / aspects).sqrt().round()
    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(dim=1, keepdim=True)
    some = fits.gather(1, first)[:, 0]
    box_h = heights.gather(1, first)[:, 0].long()
    box_w = widths.gather(1, first)[:, 0].long()
    return box_h * some, box_w * some


def random_corner(
    keys: Tensor, box_h: Tensor, box_w: Tensor, height: int, width: int, *, stream: int
) -> tuple[Tensor, Tensor]:
    """Top-left corner of a rectangle, uniform over the places inside the image.

    Args:
        keys: (B,) int64.
        box_h: (B,) int64 pixels, at most `height`.
        box_w: (B,) int64 pixels, at most `width`.
        height: Image height in pixels.
        width: Image width in pixels.
        stream: Number of the first of two streams used.

    Returns:
        top (B,) and left (B,) int64 pixels.
    """
    top = integers(keys, 0, height - box_h + 1, stream=stream)
    left = integers(keys, 0, width - box_w + 1, stream=stream + 1)
    return top, left


def box_mask(
    top: Tensor, left: Tensor, box_h: Tensor, box_w: Tensor, height: int, width: int
) -> Tensor:
    """Pixels inside each rectangle.

    Args:
        top: (B,) int64 pixels.
        left: (B,) int64 pixels.
        box_h: (B,) int64 pixels.
        box_w: (B,) int64 pixels.
        height: Image height in pixels.
        width: Image width in pixels.

    Returns:
        (B, height, width) bool.
    """
    rows = torch.arange(height, device=top.device) - top[:, None]
    columns = torch.arange(width, device=top.device) - left[:, None]
    in_rows = (rows >= 0) & (rows < box_h[:, None])
    in_columns = (columns >= 0) & (columns < box_w[:, None])
    return in_rows[:, :, None] & in_columns[:, None, :]
