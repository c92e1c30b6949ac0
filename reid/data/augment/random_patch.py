"""Random patch: a rectangle of another training image pasted over the image."""

import math

import torch
from torch import Tensor

from reid.data.augment.boxes import box_mask, first_fitting, random_corner
from sparse_vit.keyed_random import bernoulli, integers, uniform

TRIES = 20


def random_patch(
    images: Tensor,
    keys: Tensor,
    donors: Tensor,
    *,
    p: float = 0.5,
    area: tuple[float, float] = (0.01, 0.5),
    min_ratio: float = 0.1,
    p_rotate: float = 0.5,
    max_degrees: int = 10,
    p_flip: float = 0.5,
    sources: Tensor | None = None,
) -> Tensor:
    """Paste a rectangle of a donor image at a random place.

    Defaults are torchreid's RandomPatch. A rotated patch keeps its size and has black corners.
    Inferred: torchreid collects patches of past images in a pool and draws from it; here the donor
    is drawn by key from all training images, which is what a full pool converges to. Without a
    pool there is no state, so resumed and distributed runs see the same patches.

    Args:
        images: (B, C, H, W) uint8.
        keys: (B,) int64.
        donors: (N, C, H, W) uint8, the training images, at best on the device of `images`.
        p: Probability of a patch.
        area: Range of the patch area as a share of the image.
        min_ratio: Height / width is uniform between this and its inverse.
        p_rotate: Probability of a rotation by a whole number of degrees.
        max_degrees: Largest rotation either way.
        p_flip: Probability that the patch is flipped.
        sources: (B, C, H, W) uint8 donor of each image, `donors[donor_rows(keys, N)]`, where they
            were read before; None takes them from `donors`.

    Returns:
        (B, C, H, W) uint8.
    """
    batch, channels, height, width = images.shape
    device = images.device
    areas = area[0] + (area[1] - area[0]) * uniform(keys, (TRIES,), stream=0)
    ratios = min_ratio + (1.0 / min_ratio - min_ratio) * uniform(keys, (TRIES,), stream=1)
    box_h, box_w = first_fitting(areas, ratios, height, width)
    source_top, source_left = random_corner(keys, box_h, box_w, height, width, stream=2)
    top, left = random_corner(keys, box_h, box_w, height, width, stream=4)
    pasted = bernoulli(keys, p, stream=6)
    flipped = bernoulli(keys, p_flip, stream=8)
    degrees = integers(keys, -max_degrees, max_degrees + 1, stream=9)
    degrees = degrees * bernoulli(keys, p_rotate, stream=10)

    def column(values: Tensor) -> Tensor:
        return values.view(batch, 1, 1)

    box_h, box_w = column(box_h), column(box_w)
    # Pixel centres relative to the centre of the patch, rotated back into the upright patch.
    y = torch.arange(height, device=device).view(1, height, 1) - column(top) + 0.5 - box_h / 2
    x = torch.arange(width, device=device).view(1, 1, width) - column(left) + 0.5 - box_w / 2
    radians = degrees * (math.pi / 180.0)
    cos, sin = column(radians.cos()), column(radians.sin())
    v = (cos * y - sin * x + box_h / 2).floor().long()
    u = (sin * y + cos * x + box_w / 2).floor().long()
    in_source = (v >= 0) & (v < box_h) & (u >= 0) & (u < box_w)
    u = torch.where(column(flipped), box_w - 1 - u, u)
    index = (column(source_top) + v) * width + column(source_left) + u
    index = (index * in_source).view(batch, 1, -1).expand(-1, channels, -1)
    if sources is None:
        sources = donors[donor_rows(keys, len(donors)).to(donors.device)].to(device)
    patch = sources.reshape(batch, channels, -1).gather(2, index).view_as(images)
    patch = patch * in_source[:, None].to(images.dtype)
    target = box_mask(top, left, box_h.view(-1), box_w.view(-1), height, width)
    return torch.where((target & column(pasted))[:, None], patch, images)


def donor_rows(keys: Tensor, count: int) -> Tensor:
    """Which of `count` donors each image gets its patch from: (B,) int64."""
    return integers(keys, 0, count, stream=7)
