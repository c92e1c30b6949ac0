"""From scores to kept tokens: a mask, flat row indices and cumulative lengths."""

from typing import NamedTuple

import torch
from torch import Tensor

from kernels import reference
from kernels._library import register


class TokenSelection(NamedTuple):
    """The kept tokens of a batch.

    Attributes:
        mask: (B, N) bool, True where kept.
        indices: (T,) int64, rows `b * N + i` of the flattened (B * N) tokens, ascending. After a
            top-k selection T = B * k and `indices.view(B, k)` is one row per image.
        cu_seqlens: (B + 1,) int32; image b owns `indices[cu_seqlens[b]:cu_seqlens[b + 1]]`.
    """

    mask: Tensor
    indices: Tensor
    cu_seqlens: Tensor


def select_tokens(
    scores: Tensor,
    k: int | None = None,
    *,
    threshold: float | None = None,
    min_keep: int = 1,
) -> TokenSelection:
    """Select tokens by rank or by threshold; exactly one of `k` and `threshold` is given.

    Equal scores go to the lower index, NaN ranks below everything; no gradient flows to the scores.

    Args:
        scores: (B, N), any floating dtype.
        k: Keep the k largest scores of every image, 1..N.
        threshold: Keep every score at or above it. The number of indices then depends on the data.
        min_keep: With `threshold`, keep at least that many of the largest scores, 1..N.

    Returns:
        The selection, on the device of the scores.

    Raises:
        ValueError: Scores are not (B, N), not exactly one rule is given, or a count is outside
            1..N.
    """
    if scores.dim() != 2:
        raise ValueError(f"select_tokens: scores must be (B, N), got shape {tuple(scores.shape)}")
    if not scores.is_floating_point():
        raise ValueError(f"select_tokens: scores must be floating point, got {scores.dtype}")
    if (k is None) == (threshold is None):
        raise ValueError(
            f"select_tokens: give either k or threshold, got k={k} and threshold={threshold}"
        )
    images, tokens = scores.shape
    name, count = ("min_keep", min_keep) if k is None else ("k", k)
    if not 1 <= count <= tokens:
        raise ValueError(f"select_tokens: {name}={count} is outside 1..{tokens} tokens per image")
    if images * tokens >= 2**31:
        raise ValueError(
            f"select_tokens: {images} x {tokens} tokens overflow the int32 cu_seqlens; "
            "split the batch"
        )
    if threshold is None:
        return TokenSelection(*_top_k_op(scores.detach(), count))
    return TokenSelection(*_threshold_op(scores.detach(), threshold, count))


def _top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    mask = reference.select_top_k(scores, k)
    images, tokens = scores.shape
    # The number of kept tokens is known, so no nonzero() and no synchronisation with the device.
    columns = (~mask).to(torch.uint8).sort(dim=1, stable=True).indices[:, :k]
    starts = torch.arange(images, device=scores.device)[:, None] * tokens
    cu_seqlens = torch.arange(images + 1, dtype=torch.int32, device=scores.device) * k
    return mask, (columns + starts).flatten(), cu_seqlens


def _top_k_fake(scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    images = scores.shape[0]
    return (
        torch.empty_like(scores, dtype=torch.bool, memory_format=torch.contiguous_format),
        scores.new_empty(images * k, dtype=torch.int64),
        scores.new_empty(images + 1, dtype=torch.int32),
    )


def _threshold(scores: Tensor, threshold: float, min_keep: int) -> tuple[Tensor, Tensor, Tensor]:
    mask = reference.select_threshold(scores, threshold, min_keep).contiguous()
    return mask, *reference.pack(mask)


def _threshold_fake(
    scores: Tensor, threshold: float, min_keep: int
) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.library.get_ctx().new_dynamic_size()
    return (
        torch.empty_like(scores, dtype=torch.bool, memory_format=torch.contiguous_format),
        scores.new_empty(total, dtype=torch.int64),
        scores.new_empty(scores.shape[0] + 1, dtype=torch.int32),
    )


_top_k_op = register(
    "select_top_k(Tensor scores, SymInt k) -> (Tensor, Tensor, Tensor)", _top_k, _top_k_fake
)
_threshold_op = register(
    "select_threshold(Tensor scores, float threshold, SymInt min_keep) -> (Tensor, Tensor, Tensor)",
    _threshold,
    _threshold_fake,
)
