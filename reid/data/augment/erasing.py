"""Random erasing: a rectangle of the normalised image replaced by noise."""

import math

import torch
from torch import Tensor

from reid.data.augment.boxes import box_mask, first_fitting, random_corner
from sparse_vit.keyed_random import bernoulli, fold, normal, uniform

TRIES = 10


def random_erasing(
    images: Tensor,
    keys: Tensor,
    *,
    p: float = 0.5,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> Tensor:
    """Fill one rectangle with standard normal noise, drawn per pixel and channel.

    Zhong et al. (AAAI 2020) in the form of timm's RandomErasing with mode "pixel".

    Args:
        images: (B, C, H, W) float, already normalised.
        keys: (B,) int64.
        p: Probability of erasing.
        area: Range of the erased area as a share of the image.
        aspect: Range of height / width, uniform in its logarithm.

    Returns:
        (B, C, H, W) of the same dtype.
    """
    batch, _, height, width = images.shape
    areas = area[0] + (area[1] - area[0]) * uniform(keys, (TRIES,), stream=0)
    low, high = math.log(aspect[0]), math.log(aspect[1])
    aspects = (low + (high - low) * uniform(keys, (TRIES,), stream=1)).exp()
    box_h, box_w = first_fitting(areas, aspects, height, width)
    top, left = random_corner(keys, box_h, box_w, height, width, stream=2)
    erased = box_mask(top, left, box_h, box_w, height, width)
    erased = (erased & bernoulli(keys, p, stream=4)[:, None, None]).view(batch, -1)
    # Picking the erased pixels saves time on a CPU, but would make an accelerator wait.
    fill = _fill_picked if images.device.type == "cpu" else _fill_everywhere
    return fill(images, erased, fold(keys, 1))


def _fill_picked(images: Tensor, erased: Tensor, keys: Tensor) -> Tensor:
    """Draw noise for the pixels of `erased` (B, H*W) only."""
    batch, channels = images.shape[:2]
    image, pixel = erased.nonzero(as_tuple=True)
    noise = _pixel_noise(keys[image], pixel, channels)
    out = images.clone(memory_format=torch.contiguous_format)
    out.view(batch, channels, -1)[image, :, pixel] = noise.to(images.dtype)
    return out


def _fill_everywhere(images: Tensor, erased: Tensor, keys: Tensor) -> Tensor:
    """Draw noise for every pixel and use that of `erased` (B, H*W): the same result."""
    batch, channels, height, width = images.shape
    pixel = torch.arange(height * width, device=images.device).repeat(batch)
    noise = _pixel_noise(keys.repeat_interleave(height * width), pixel, channels)
    noise = noise.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return torch.where(erased.view(batch, 1, height, width), noise.to(images.dtype), images)


def _pixel_noise(keys: Tensor, pixel: Tensor, channels: int) -> Tensor:
    """Noise of single pixels, a function of the image's key and the pixel: (T, channels)."""
    return normal(fold(keys, pixel), (channels,))
