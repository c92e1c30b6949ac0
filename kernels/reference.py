"""Every operator of the package in plain torch: this file defines what is correct.

Any floating dtype, any device, differentiable by autograd, written for reading rather than speed.
The implementations that serve calls are tested against these functions in float64.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

RATIO_LIMIT = 1e6
"""Upper bound of `exp(S_ij - L_i)` in the gradient of the mask."""


def gate(keep: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a keep mask into the gate `G_ij = 1 if i = j else keep_j`.

    Args:
        keep: (B, N), 0 or 1, float or bool.
        dtype: Dtype of the gate.

    Returns:
        (B, 1, N, N). The diagonal is a constant: no gradient flows to `keep` through it.
    """
    keep = keep.to(dtype)
    eye = torch.eye(keep.shape[1], dtype=torch.bool, device=keep.device)
    columns = keep[:, None, :].expand(-1, keep.shape[1], -1)
    return torch.where(eye, torch.ones_like(columns), columns)[:, None]


def masked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor,
    *,
    scale: float | None = None,
    eps: float | None = None,
) -> Tensor:
    """Softmax attention in which dropped tokens are seen by nobody but themselves.

    With `S_ij = scale * q_i . k_j` and `G_ij = 1 if i = j else keep_j`,
    `O_i = sum_j e^{S_ij} G_ij v_j / sum_j e^{S_ij} G_ij` (SUReID, arXiv 2401.07469, Eq. 4-6,
    after DynamicViT, arXiv 2106.02034). The value is analytic in `keep`, whose gradient is
    `dkeep_j = sum_h sum_{i != j} R_ij (dP_ij - delta_i)` with `R_ij = min(e^{S_ij - L_i}, 1e6)`,
    `dP_ij = dO_i . v_j`, `delta_i = dO_i . O_i` and `L_i` the log-sum-exp over the kept set of
    row i.

    Args:
        q: (B, H, N, D) queries.
        k: (B, H, N, D) keys.
        v: (B, H, N, D) values.
        keep: (B, N), 0 or 1, float or bool; one mask for all heads.
        scale: Factor of the logits; None means `D ** -0.5`.
        eps: None for the formula above. A positive number gives DynamicViT's released code instead:
            the maximum is taken over all keys and `eps` is shared out over the N entries of a row.

    Returns:
        (B, H, N, D).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = scale * (q @ k.transpose(-2, -1))
    gates = gate(keep, scores.dtype)
    if eps is not None:
        weights = (scores - scores.amax(-1, keepdim=True)).exp() * gates
        tokens = scores.shape[-1]
        return ((weights + eps / tokens) / (weights.sum(-1, keepdim=True) + eps)) @ v
    # Subtracting a detached L_i leaves the ratio unchanged and bounds every kept weight by one.
    kept_scores = scores.detach().masked_fill(gates <= 0.5, -math.inf)
    shift = torch.logsumexp(kept_scores, dim=-1, keepdim=True)
    ratios = (scores - shift).clamp(max=math.log(RATIO_LIMIT)).exp()
    weights = ratios * gates
    return (weights / weights.sum(-1, keepdim=True)) @ v


def ragged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    *,
    rows: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Softmax attention within every sequence of a packed batch.

    Token i of sequence b, `i = cu_seqlens[b] .. cu_seqlens[b + 1] - 1`, gets
    `O_i = sum_j e^{S_ij} v_j / sum_j e^{S_ij}`, `S_ij = scale * q_i . k_j`, with j over that
    sequence. With `rows`, q_i stands for `q[rows[i]]`, k_j and v_j likewise.

    Args:
        q: (R, H, D) queries.
        k: (R, H, D) keys.
        v: (R, H, D) values.
        cu_seqlens: (B + 1,) integers from 0, never falling.
        rows: (T,) integers in [0, R), or None when R is T.
        scale: Factor of the logits; None means `D ** -0.5`.

    Returns:
        (T, H, D), zero from `cu_seqlens[-1]` on.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    bounds = cu_seqlens.tolist()
    tokens = q.shape[0] if rows is None else rows.shape[0]
    outputs = []
    for start, end in pairwise(bounds):
        members = slice(start, end) if rows is None else rows[start:end].long()
        queries, keys, values = (x[members].transpose(0, 1) for x in (q, k, v))
        weights = (scale * (queries @ keys.transpose(-2, -1))).softmax(-1)
        outputs.append((weights @ values).transpose(0, 1))
    outputs.append(q.new_zeros(tokens - bounds[-1], *q.shape[1:]))
    return torch.cat(outputs)


def select_top_k(scores: Tensor, k: int) -> Tensor:
    """Mark the k largest scores of every row.

    Equal scores go to the lower index; NaN counts as negative infinity.

    Args:
        scores: (B, N).
        k: Tokens to keep per image, 1..N.

    Returns:
        (B, N) bool.
    """
    ranked = scores.detach().masked_fill(scores.isnan(), -math.inf)
    order = ranked.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, True)


def select_threshold(
    scores: Tensor, threshold: float, min_keep: int, max_keep: int | None = None
) -> Tensor:
    """Mark scores at or above a threshold, between `min_keep` and `max_keep` of every row.

    Args:
        scores: (B, N); NaN counts as negative infinity.
        threshold: Smallest score that is kept.
        min_keep: Tokens kept per image whatever their scores, 1..N; the largest ones.
        max_keep: Most tokens kept per image, min_keep..N; the largest ones. None means N.

    Returns:
        (B, N) bool.
    """
    most = scores.shape[1] if max_keep is None else max_keep
    reached = scores.detach().masked_fill(scores.isnan(), -math.inf) >= threshold
    return (reached & select_top_k(scores, most)) | select_top_k(scores, min_keep)


def pack(mask: Tensor) -> tuple[Tensor, Tensor]:
    """List the marked tokens of a batch as flat rows.

    Args:
        mask: (B, N) bool.

    Returns:
        indices (T,) int64, rows `b * N + i` in ascending order, and cu_seqlens (B + 1,) int32,
        where image b owns `indices[cu_seqlens[b]:cu_seqlens[b + 1]]`.
    """
    indices = mask.flatten().nonzero().squeeze(1)
    counts = mask.sum(1, dtype=torch.int32)
    cu_seqlens = torch.cat([counts.new_zeros(1), counts.cumsum(0, dtype=torch.int32)])
    return indices, cu_seqlens


def gather_rows(x: Tensor, indices: Tensor) -> Tensor:
    """Return `x[indices]`: x (R, C), indices (T,) int64, result (T, C)."""
    return x[indices]


def scatter_rows(y: Tensor, indices: Tensor, num_rows: int, fill: float = 0.0) -> Tensor:
    """Put the rows of y (T, C) at distinct places `indices` of a (num_rows, C) tensor of `fill`."""
    return torch.full((num_rows, y.shape[1]), fill, dtype=y.dtype, device=y.device).index_put(
        (indices,), y
    )


def gather_layer_norm(
    x: Tensor,
    indices: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Return rows `r = x[indices]` and `weight (r - mean) / sqrt(var + eps) + bias`.

    Args:
        x: (R, C).
        indices: (T,) int64.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        eps: Added to the variance, the mean of the squared distances to the mean of a row.

    Returns:
        Two (T, C) tensors.
    """
    rows = x[indices]
    centred = rows - rows.mean(1, keepdim=True)
    normed = centred / (centred.square().mean(1, keepdim=True) + eps).sqrt()
    if weight is not None:
        normed = normed * weight
    if bias is not None:
        normed = normed + bias
    return rows, normed
