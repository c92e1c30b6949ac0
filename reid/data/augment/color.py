"""Brightness, contrast and saturation jitter."""

import torch
from torch import Tensor

from sparse_vit.keyed_random import uniform

LUMA = (0.299, 0.587, 0.114)


def color_jitter(
    images: Tensor, keys: Tensor, strength: float, *, alpha: Tensor | None = None
) -> Tensor:
    """Change brightness, contrast and saturation by factors in [1 - strength, 1 + strength].

    Inferred: the order is fixed (brightness, contrast, saturation), which makes the three one
    linear map of the channels; hue is left alone.

    Args:
        images: (B, 3, H, W) float in [0, 1]; multiplied by alpha if there is one.
        keys: (B,) int64.
        strength: In [0, 1).
        alpha: (B, 1, H, W) float coverage: contrast is then relative to the visible mean, and
            colours stay multiplied by alpha.

    Returns:
        (B, 3, H, W) float in [0, 1], or in [0, alpha].
    """
    height, width = images.shape[2:]
    factors = 1.0 + strength * (2.0 * uniform(keys, (3, 1, 1, 1)) - 1.0)
    brightness, contrast, saturation = factors.to(images.dtype).unbind(1)
    gray = LUMA[0] * images[:, :1] + LUMA[1] * images[:, 1:2] + LUMA[2] * images[:, 2:]
    total = float(height * width)
    visible = total if alpha is None else alpha.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)
    mean = brightness * gray.sum(dim=(2, 3), keepdim=True) / visible
    gain = brightness * contrast
    offset = (1.0 - contrast) * mean
    if alpha is not None:
        offset = offset * alpha
    out = images * (gain * saturation) + (gray * (gain * (1.0 - saturation)) + offset)
    return out.clamp_(0.0, 1.0) if alpha is None else torch.minimum(out.clamp_min_(0.0), alpha)
