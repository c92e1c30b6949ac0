"""Calls of the C++ kernels of ragged attention."""

import torch
from torch import Tensor

from kernels._cpu import build
from kernels._cpu.operands import TYPES, attention_reasons, flat, tokens
from kernels._eager.masked_attention import unit_stride
from kernels._eager.ragged_attention import spread


def reasons(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    """List why these kernels cannot serve a call; empty when they can."""
    return attention_reasons(q)


def _sequences(
    q: Tensor, cu_seqlens: Tensor, rows: Tensor | None, scale: float
) -> tuple[int | float, ...]:
    gathered = (0, 0) if rows is None else (rows.data_ptr(), int(rows.dtype == torch.int64))
    batch, (_, heads, dim) = cu_seqlens.shape[0] - 1, q.shape
    return cu_seqlens.data_ptr(), *gathered, 0, batch, heads, 0, dim, TYPES[q.dtype], scale


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    rows: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Compute the output and the log-sum-exp of every row.

    Args:
        q: (R, H, D).
        k: (R, H, D).
        v: (R, H, D).
        cu_seqlens: (B + 1,) int32.
        max_seqlen: Upper bound of the lengths; not needed here.
        rows: (T,) rows of q, k and v that the tokens are read from; None when R is T.
        scale: Factor of the logits.

    Returns:
        o (T, H, D), contiguous, and L (H, T), float32; undefined from `cu_seqlens[-1]` on.
    """
    q, k, v = unit_stride(q), unit_stride(k), unit_stride(v)
    cu_seqlens = cu_seqlens.contiguous()
    count, heads, dim = q.shape
    if rows is not None:
        rows = rows.contiguous()
        count = rows.shape[0]
    o = q.new_empty((count, heads, dim))
    lse = q.new_empty((heads, count), dtype=torch.float32)
    build.load().attention_forward(
        *_sequences(q, cu_seqlens, rows, scale),
        *tokens(q),
        *tokens(k),
        *tokens(v),
        *(o.data_ptr(), 0, dim, heads * dim),
        *(lse.data_ptr(), 0, count, 1),
    )
    return o, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    rows: Tensor | None,
    o: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients from what the forward saved.

    Args:
        grad: (T, H, D), gradient of o; not read from `cu_seqlens[-1]` on.
        q: (R, H, D).
        k: (R, H, D).
        v: (R, H, D).
        cu_seqlens: (B + 1,) int32.
        max_seqlen: Upper bound of the lengths; not needed here.
        rows: (T,) or None.
        o: (T, H, D) from the forward.
        lse: (H, T) from the forward.
        scale: Factor of the logits.

    Returns:
        dq, dk, dv (R, H, D), contiguous, zero wherever no token was read.
    """
    q, k, v, o, grad = (unit_stride(x) for x in (q, k, v, o, grad))
    cu_seqlens = cu_seqlens.contiguous()
    gathered = None if rows is None else rows.contiguous()
    dq, dk, dv = (q.new_zeros(grad.shape) for _ in range(3))
    build.load().attention_backward(
        *_sequences(q, cu_seqlens, gathered, scale),
        *flat(map(tokens, (q, k, v, o, lse.t(), grad, dq, dk, dv))),
        0,
    )
    return spread((dq, dk, dv), cu_seqlens, rows, q.shape[0])
