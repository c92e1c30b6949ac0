"""Attention in which a token counts as often as it has patches.

`softmax(scale q k^T + log size)`, as merged tokens need it (ToMe, arXiv 2210.09461, Sec. 3). A bias
per key is one more dimension of the heads: `[q, 1] . [k, b / scale]`, which lets operators without
a bias serve it. In lower precision the bias goes there in two parts, which together are exact to
twice the digits.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse_vit._kernels import native_attention, ragged_attention
from sparse_vit.engine.build import Builder
from sparse_vit.engine.lengths import Lengths

__all__ = ["Biased", "biased_attention", "masked", "widened"]

EXTRA = 8
"""Dimensions added to a head, of which two carry the bias; keeps rows aligned."""

Biased = Callable[[Tensor, Tensor, Tensor, Tensor, Lengths, float], Tensor]


def masked(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, lengths: Lengths, scale: float) -> Tensor:
    """Attention with the bias as a mask of torch's fused operator.

    Args:
        q: (T, H, D).
        k: (T, H, D).
        v: (T, H, D).
        bias: (B, T / B) float32, added to the logits of a key.
        lengths: of the images, uniform.
        scale: factor of the logits.

    Returns:
        (T, H, D).
    """
    q, k, v = (lengths.pad(t, 0.0).transpose(1, 2) for t in (q, k, v))
    mask = bias.to(q.dtype)[:, None, None]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return y.transpose(1, 2).flatten(0, 1)


def widened(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, lengths: Lengths, scale: float
) -> Tensor:
    """The same with the bias in further dimensions of the heads."""
    rows, heads, dim = q.shape
    wide = q.new_empty(3, rows, heads, dim + EXTRA)
    for place, given in zip(wide, (q, k, v), strict=True):
        place[..., :dim] = given
    wide[..., dim:] = 0.0
    wide[0, ..., dim : dim + 2] = 1.0
    whole = bias.reshape(rows, 1) / scale
    wide[1, ..., dim] = whole
    wide[1, ..., dim + 1] = whole - whole.to(q.dtype)
    q, k, v = wide
    y = ragged_attention(q, k, v, lengths.cu_seqlens, lengths.longest, scale=scale)
    return y[..., :dim].contiguous()


def biased_attention(
    name: str, heads: int, dim: int, tokens: int, scale: float, build: Builder
) -> Biased:
    """The faster of the two.

    Args:
        name: of the attention, for the description.
        heads: H.
        dim: D.
        tokens: of an image.
        scale: factor of the logits.
        build: knows dtype, device and batch, and takes notes.
    """
    named: dict[str, Biased] = {"torch, fused attention with the log sizes as a mask": masked}
    sample = torch.empty(1, heads, dim + EXTRA, dtype=build.dtype, device=build.device)
    native, why = native_attention(sample, sample, sample)
    if native:
        path = f"kernels.ragged_attention, {native}, the log sizes in {EXTRA} more dimensions"
        named[path] = widened
    best = next(iter(named))
    if native and build.device.type == "cpu":
        lengths = Lengths.of(build.images, tokens, build.device)
        q, k, v = torch.randn(lengths.rows, 3, heads, dim, dtype=build.dtype).unbind(1)
        bias = torch.zeros(build.images, tokens)
        calls = {path: partial(way, q, k, v, bias, lengths, scale) for path, way in named.items()}
        found = build.probe.seconds(("biased", lengths.rows, tokens, heads, dim), calls)
        best = min(named, key=lambda path: found[path])
        why = ", ".join(f"{found[path] * 1e3:.2f} ms by {path}" for path in named)
        why = f"{why}, for {tokens} tokens of {build.images} images"
    elif native:
        why = "serves masks on this device"
    build.notes.add(f"{name} attention", best, why)
    return named[best]
