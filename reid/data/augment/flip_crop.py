"""Horizontal flip, zero padding and random crop back to the same size."""

import torch
from torch import Tensor

from sparse_vit.keyed_random import bernoulli, integers

REFERENCE_HEIGHT = 256


def scaled_padding(pad: int, height: int) -> int:
    """Padding in pixels at an image height, from the padding at a height of 256.

    Inferred: 10 pixels belong to 256x128 images; smaller images get the same share, so that 128x64
    images are padded by 5.
    """
    return round(pad * height / REFERENCE_HEIGHT)


def flip_crop(images: Tensor, keys: Tensor, *, flip: float = 0.5, pad: int = 10) -> Tensor:
    """Flip with a probability, pad with zeros on all sides and crop at a random place.

    Args:
        images: (B, C, H, W), any dtype.
        keys: (B,) int64.
        flip: Probability of the flip, done first.
        pad: Padding in pixels of this image size.

    Returns:
        (B, C, H, W) of the same dtype.
    """
    batch, channels, height, width = images.shape
    device = images.device
    top = integers(keys, -pad, pad + 1, stream=0)
    left = integers(keys, -pad, pad + 1, stream=1)
    flipped = bernoulli(keys, flip, stream=2)
    rows = torch.arange(height, device=device) + top[:, None]
    columns = torch.arange(width, device=device) + left[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None, :]
    columns = torch.where(flipped[:, None], width - 1 - columns, columns)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    index = (rows[:, :, None] * width + columns[:, None, :]).view(batch, 1, -1)
    moved = images.reshape(batch, channels, -1).gather(2, index.expand(-1, channels, -1))
    return moved.view_as(images) * inside[:, None].to(images.dtype)
