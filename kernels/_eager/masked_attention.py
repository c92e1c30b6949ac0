"""Masked attention in plain torch by explicit formulas: the `reference` implementation of calls.

The mathematics is that of `kernels.reference`, which it is tested against. Between forward and
backward it keeps q, k, v, o and L instead of the N x N weights, and the backward walks through the
batch in pieces whose weights fit a processor's cache.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.reference import RATIO_LIMIT

CACHE_BYTES = 4 << 20


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Dtype of the softmax and of every sum: float64 for float64, float32 for the rest."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def unit_stride(x: Tensor) -> Tensor:
    """Return x, copied if the elements of a row are not adjacent."""
    return x if x.stride(-1) == 1 else x.contiguous()


def rows_like(q: Tensor) -> Tensor:
    """Allocate (B, H, N, D) like q in the order of (B, N, H, D) memory."""
    _, heads, tokens, dim = q.shape
    strides = (tokens * heads * dim, dim, heads * dim, 1)
    return torch.empty_strided(q.shape, strides, dtype=q.dtype, device=q.device)


def forward(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Compute the output and the log-sum-exp of every row.

    A dropped token's key and value are replaced by zeros for everybody and its own weight is put
    back from `q_i . k_i`, so that not even a NaN in it reaches another row.

    Args:
        q: (B, H, N, D).
        k: (B, H, N, D).
        v: (B, H, N, D).
        keep: (B, N) bool.
        scale: Factor of the logits.

    Returns:
        o (B, H, N, D), a view of (B, N, H, D) memory, and L (B, H, N), float32 or float64.
    """
    attend = _fused_rows if q.device.type == "cpu" else _rows
    dtype = accumulator(q.dtype)
    dropped = ~keep[:, None, :, None]
    # The fused operator reads rows as if their elements were adjacent.
    queries, keys, values = (unit_stride(x.to(dtype)) for x in (q, k, v))
    # Finite, so that a tile or an image without any kept key gives no NaN; a logit vanishes in it.
    hidden = torch.finfo(dtype).min / 2
    bias = hidden * dropped.transpose(-2, -1).to(dtype)
    mixed, lse = attend(
        queries, keys.masked_fill(dropped, 0.0), values.masked_fill(dropped, 0.0), bias, scale
    )
    own = (queries * keys).sum(-1).mul_(scale)
    total = torch.where(dropped[..., 0], torch.logaddexp(lse, own), lse)
    merged = mixed * (lse - total).exp_().unsqueeze(-1) + values * (own - total).exp_().unsqueeze(
        -1
    )
    o = rows_like(q)
    o.copy_(torch.where(dropped, merged, mixed))
    return o, total.contiguous()


def _fused_rows(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    o, lse = fused(q, k, v, 0.0, False, attn_mask=bias, scale=scale)
    return o, lse


def _rows(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    scores = (q * scale) @ k.transpose(-2, -1) + bias
    lse = scores.logsumexp(-1)
    return scores.softmax(-1) @ v, lse


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
        dq, dk, dv (B, H, N, D), views of (B, N, H, D) memory, and dkeep (B, N), float32 or float64.
    """
    batch, heads, tokens, _ = q.shape
    dtype = lse.dtype
    dq, dk, dv = (rows_like(q) for _ in range(3))
    dkeep = lse.new_empty((batch, tokens) if needs_keep else 0)
    parts = list(_parts(q))
    workspace = lse.new_empty(2, len(range(batch)[parts[0]]) if parts else 0, heads, tokens, tokens)
    for part in parts:
        kept = keep[part, None, :, None]
        qs, ks, vs = q[part].to(dtype) * scale, k[part].to(dtype), v[part].to(dtype)
        gs = grad[part].to(dtype)
        delta = (gs * o[part].to(dtype)).sum(-1, keepdim=True)
        ratios, dscores = workspace[:, : len(kept)]
        torch.matmul(qs, ks.transpose(-2, -1), out=ratios)
        ratios.sub_(lse[part].unsqueeze(-1)).clamp_(max=math.log(RATIO_LIMIT)).exp_()
        torch.matmul(gs, vs.transpose(-2, -1), out=dscores)
        dscores.sub_(delta).mul_(ratios)
        # The diagonal of G is constant: take it out, add it back row by row.
        own_weight = _take_diagonal(ratios)
        own_score = _take_diagonal(dscores)
        if needs_keep:
            dkeep[part] = dscores.sum((1, 2))
        others = ks.masked_fill(~kept, 0.0)
        dq[part] = (dscores @ others).add_(own_score * ks).mul_(scale)
        dk[part] = (dscores.transpose(-2, -1) @ qs).mul_(kept).add_(own_score * qs)
        dv[part] = (ratios.transpose(-2, -1) @ gs).mul_(kept).add_(own_weight * gs)
    return dq, dk, dv, dkeep


def _take_diagonal(matrices: Tensor) -> Tensor:
    diagonal = matrices.diagonal(dim1=-2, dim2=-1)
    values = diagonal.clone().unsqueeze(-1)
    diagonal.zero_()
    return values


def _parts(q: Tensor) -> Iterator[slice]:
    batch, heads, tokens, _ = q.shape
    matrix = max(1, heads * tokens * tokens * accumulator(q.dtype).itemsize)
    size = max(1, CACHE_BYTES // matrix) if q.device.type == "cpu" else max(1, batch)
    for start in range(0, batch, size):
        yield slice(start, start + size)
