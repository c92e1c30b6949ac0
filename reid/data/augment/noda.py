"""Noise occlusion data augmentation (NODA): a cut-out of an object over one side of the image."""

import torch
from torch import Tensor
from torch.nn import functional as F

from reid.data.augment.boxes import box_mask
from reid.data.augment.color import color_jitter
from sparse_vit.keyed_random import bernoulli, fold, integers, uniform


def occlusion_boxes(
    keys: Tensor, vertical: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the occluders go: a third to half of the image at one of its four edges.

    Args:
        keys: (B,) int64.
        vertical: (B,) bool: full height at the left or right edge, else full width at the top or
            bottom edge.
        height: Image height in pixels.
        width: Image width in pixels.

    Returns:
        top, left, box height and box width, each (B,) int64 pixels.
    """
    tall = integers(keys, -(-height // 3), height // 2 + 1, stream=0)
    wide = integers(keys, -(-width // 3), width // 2 + 1, stream=1)
    box_h = torch.where(vertical, height, tall)
    box_w = torch.where(vertical, wide, width)
    far = bernoulli(keys, 0.5, stream=2)
    return far * (height - box_h), far * (width - box_w), box_h, box_w


def noda(
    images: Tensor,
    keys: Tensor,
    occluders: Tensor,
    aspects: Tensor,
    *,
    p: float = 1.0,
    jitter: float = 0.5,
    p_flip: float = 0.5,
    min_crop: float = 0.7,
) -> Tensor:
    """Paste a random occluder over the left, right, top or bottom of every image.

    SUReID (arXiv 2401.07469) section III-C: a cut-out with height / width above 2 covers the full
    height and a third to half of the width, any other the full width and a third to half of the
    height. It is flipped, cropped and colour-jittered first.
    Inferred: p = 1 and the jitter of 0.5 follow FED, whose rule the paper adopts; each side of
    the crop keeps 0.7 to 1 of the cut-out; the cut-out's alpha is honoured, so that pixels beside
    the object stay visible.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        keys: (B,) int64.
        occluders: (M, 4, S, S) uint8 RGBA stretched to squares, colours multiplied by alpha.
        aspects: (M,) height / width of the cut-outs before the stretch.
        p: Probability of an occluder.
        jitter: Strength of the colour jitter of the cut-out.
        p_flip: Probability that the cut-out is flipped.
        min_crop: Smallest share of each side that the crop keeps.

    Returns:
        (B, 3, H, W) float in [0, 1].
    """
    height, width = images.shape[2:]
    chosen = integers(keys, 0, occluders.shape[0], stream=3)
    boxes = occlusion_boxes(keys, aspects[chosen] > 2.0, height, width)
    top, left, box_h, box_w = (value.to(images.dtype) for value in boxes)
    keep = min_crop + (1.0 - min_crop) * uniform(keys, (2,), stream=4)
    start = (1.0 - keep) * uniform(keys, (2,), stream=5)
    sign = torch.where(bernoulli(keys, p_flip, stream=6), -1.0, 1.0).to(images.dtype)
    # Pixel centres in units of the box, then of the cut-out, then of grid_sample's [-1, 1].
    y = (torch.arange(height, device=images.device) + 0.5 - top[:, None]) / box_h[:, None]
    x = (torch.arange(width, device=images.device) + 0.5 - left[:, None]) / box_w[:, None]
    y = 2.0 * (start[:, :1] + keep[:, :1] * y) - 1.0
    x = sign[:, None] * (2.0 * (start[:, 1:] + keep[:, 1:] * x) - 1.0)
    grid = torch.stack(
        (x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)), dim=-1
    )
    cutouts = occluders[chosen].to(images.dtype)
    pasted = F.grid_sample(cutouts, grid, padding_mode="border", align_corners=False)
    shown = box_mask(*boxes, height, width) & bernoulli(keys, p, stream=7)[:, None, None]
    pasted = pasted.mul_(shown[:, None].to(images.dtype) / 255.0)
    alpha = pasted[:, 3:]
    color = color_jitter(pasted[:, :3], fold(keys, 1), jitter, alpha=alpha)
    return (images * (1.0 - alpha)).add_(color).clamp_(0.0, 1.0)
