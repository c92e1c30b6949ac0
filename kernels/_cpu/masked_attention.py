"""Calls of the C++ kernels of masked attention.

Keys and values of dropped tokens are left out of the products; a dropped row adds its own weight.
"""

import torch
from torch import Tensor

from kernels._cpu import build
from kernels._cpu.operands import TYPES, attention_reasons, flat, images
from kernels._eager.masked_attention import rows_like, unit_stride


def reasons(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    """List why these kernels cannot serve a call; empty when they can."""
    return attention_reasons(q)


def _sequences(q: Tensor, keep: Tensor, scale: float) -> tuple[int | float, ...]:
    batch, heads, tokens, dim = q.shape
    return 0, 0, 0, keep.data_ptr(), batch, heads, tokens, dim, TYPES[q.dtype], scale


def forward(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Compute the output and the log-sum-exp of every row.

    Args:
        q: (B, H, N, D).
        k: (B, H, N, D).
        v: (B, H, N, D).
        keep: (B, N) bool.
        scale: Factor of the logits.

    Returns:
        o (B, H, N, D), a view of (B, N, H, D) memory, and L (B, H, N), float32.
    """
    batch, heads, tokens, _ = q.shape
    q, k, v, keep = unit_stride(q), unit_stride(k), unit_stride(v), keep.contiguous()
    o = rows_like(q)
    lse = q.new_empty(batch, heads, tokens, dtype=torch.float32)
    build.load().attention_forward(
        *_sequences(q, keep, scale), *flat(map(images, (q, k, v, o, lse)))
    )
    return o, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor,
    o: Tensor,
    lse: Tensor,
    scale: float,
    needs_keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients from what the forward saved.

    Args:
        grad: (B, H, N, D), gradient of o.
        q: (B, H, N, D).
        k: (B, H, N, D).
        v: (B, H, N, D).
        keep: (B, N) bool.
        o: (B, H, N, D) from the forward.
        lse: (B, H, N) from the forward.
        scale: Factor of the logits.
        needs_keep: Whether to compute dkeep, which is empty, (0,), if not.

    Returns:
        dq, dk, dv (B, H, N, D), views of (B, N, H, D) memory, and dkeep (B, N), float32.
    """
    batch, _, tokens, _ = q.shape
    q, k, v, o, grad = (unit_stride(x) for x in (q, k, v, o, grad))
    keep = keep.contiguous()
    dq, dk, dv = (rows_like(q) for _ in range(3))
    dkeep = lse.new_empty((batch, tokens) if needs_keep else 0)
    build.load().attention_backward(
        *_sequences(q, keep, scale),
        *flat(map(images, (q, k, v, o, lse, grad, dq, dk, dv))),
        dkeep.data_ptr() if needs_keep else 0,
    )
    return dq, dk, dv, dkeep
