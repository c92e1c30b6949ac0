"""Ragged attention in plain torch by explicit formulas: the `reference` implementation of calls.

On a processor, where reading `cu_seqlens` costs nothing, sequences of one length form a dense
batch. Elsewhere sequences are padded to `max_seqlen`, so that nothing waits for the device. Either
way batches are walked through in pieces of bounded memory.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from kernels._eager.masked_attention import CACHE_BYTES, accumulator

PADDED_BYTES = 256 << 20


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
        max_seqlen: Upper bound of the lengths.
        rows: (T,) rows of q, k and v that the tokens are read from; None when R is T.
        scale: Factor of the logits.

    Returns:
        o (T, H, D), contiguous, and L (H, T), float32 or float64; undefined from `cu_seqlens[-1]`.
    """
    tokens, heads, dim = len(q if rows is None else rows), q.shape[1], q.shape[2]
    dtype = accumulator(q.dtype)
    # One row more, for padding to be written to.
    o = q.new_empty(tokens + 1, heads, dim)
    lse = q.new_empty(tokens + 1, heads, dtype=dtype)
    for index, valid in _pieces(cu_seqlens, max_seqlen, tokens, heads, dtype):
        source = _source(index, valid, rows)
        qs, ks, vs = (_take(x, source, valid).to(dtype) for x in (q, k, v))
        scores = (qs * scale) @ ks.transpose(-2, -1)
        if valid is not None:
            scores.masked_fill_(~valid[:, None, None, :], -torch.inf)
        part = scores.logsumexp(-1, keepdim=True)
        mixed = scores.sub_(part).exp_() @ vs
        o[index] = mixed.transpose(1, 2).to(q.dtype)
        lse[index] = part.squeeze(-1).transpose(1, 2)
    return o[:tokens], lse[:tokens].t().contiguous()


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
        max_seqlen: Upper bound of the lengths.
        rows: (T,) or None.
        o: (T, H, D) from the forward.
        lse: (H, T) from the forward.
        scale: Factor of the logits.

    Returns:
        dq, dk, dv (R, H, D), contiguous, zero wherever no token was read.
    """
    tokens, heads, dim = grad.shape
    dtype = lse.dtype
    dq, dk, dv = (q.new_zeros(tokens + 1, heads, dim) for _ in range(3))
    for index, valid in _pieces(cu_seqlens, max_seqlen, tokens, heads, dtype):
        source, packed = _source(index, valid, rows), _source(index, valid, None)
        qs, ks, vs = (_take(x, source, valid).to(dtype) for x in (q, k, v))
        gs, os = (_take(x, packed, valid).to(dtype) for x in (grad, o))
        delta = (gs * os).sum(-1, keepdim=True)
        weights = (qs * scale) @ ks.transpose(-2, -1)
        weights.sub_(_take(lse.t()[..., None], packed, valid)).exp_()
        if valid is not None:
            weights.masked_fill_(~(valid[:, None, None, :] & valid[:, None, :, None]), 0.0)
        dscores = (gs @ vs.transpose(-2, -1)).sub_(delta).mul_(weights).mul_(scale)
        for out, part in (
            (dq, dscores @ ks),
            (dk, dscores.transpose(-2, -1) @ qs),
            (dv, weights.transpose(-2, -1) @ gs),
        ):
            out[index] = part.transpose(1, 2).to(q.dtype)
    return spread((dq[:tokens], dk[:tokens], dv[:tokens]), cu_seqlens, rows, q.shape[0])


def spread(
    packed: tuple[Tensor, Tensor, Tensor], cu_seqlens: Tensor, rows: Tensor | None, num_rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Add the gradient of every token to the row that it was read from.

    Args:
        packed: dq, dk, dv (T, H, D), zero from `cu_seqlens[-1]` on.
        cu_seqlens: (B + 1,) int32.
        rows: (T,), entries from `cu_seqlens[-1]` on may be anything; or None.
        num_rows: R.

    Returns:
        dq, dk, dv (R, H, D).
    """
    if rows is None:
        return packed
    token = torch.arange(len(rows), device=rows.device)
    # The zeros beyond the last sequence may go anywhere: apart, so that no two adds wait in turn.
    target = torch.where(token < cu_seqlens[-1], rows, token % num_rows)
    dq, dk, dv = (x.new_zeros(num_rows, *x.shape[1:]).index_add_(0, target, x) for x in packed)
    return dq, dk, dv


def _pieces(
    cu_seqlens: Tensor, max_seqlen: int, tokens: int, heads: int, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield (b, L) token numbers, `tokens` for padding, and which of them are no padding."""
    on_host = cu_seqlens.device.type == "cpu"
    divide = _pieces_by_length if on_host else _padded_pieces
    return divide(cu_seqlens, max_seqlen, tokens, heads, dtype)


def _pieces_by_length(
    cu_seqlens: Tensor, max_seqlen: int, tokens: int, heads: int, dtype: torch.dtype
) -> Iterator[tuple[Tensor, None]]:
    bounds = cu_seqlens.tolist()
    starts: dict[int, list[int]] = {}
    for start, end in pairwise(bounds):
        starts.setdefault(end - start, []).append(start)
    starts.pop(0, None)
    for length, group in starts.items():
        size = max(1, CACHE_BYTES // (heads * length * length * dtype.itemsize))
        steps = torch.arange(length, device=cu_seqlens.device)
        for part in torch.split(torch.tensor(group, device=cu_seqlens.device), size):
            yield part[:, None] + steps, None


def _padded_pieces(
    cu_seqlens: Tensor, max_seqlen: int, tokens: int, heads: int, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    position = cu_seqlens[:-1, None] + torch.arange(max_seqlen, device=cu_seqlens.device)
    valid = position < cu_seqlens[1:, None]
    index = position.masked_fill(~valid, tokens)
    size = max(1, PADDED_BYTES // (heads * max_seqlen * max_seqlen * dtype.itemsize))
    yield from zip(torch.split(index, size), torch.split(valid, size), strict=True)


def _source(index: Tensor, valid: Tensor | None, rows: Tensor | None) -> Tensor:
    """Return the rows that tokens are read from; 0 for padding."""
    if valid is None:
        return index if rows is None else rows[index]
    if rows is None:
        return index.masked_fill(~valid, 0)
    return rows[index.clamp(max=len(rows) - 1)].masked_fill(~valid, 0)


def _take(x: Tensor, source: Tensor, valid: Tensor | None) -> Tensor:
    """Collect (b, H, L, D) rows of x (R, H, D), zeros for padding."""
    taken = x[source] if valid is None else x[source].masked_fill(~valid[..., None, None], 0.0)
    return taken.transpose(1, 2)
