"""Token selection in plain torch: the `reference` implementation of calls, on any device."""

import torch
import torch.nn.functional as F
from torch import Tensor


def select(
    scores: Tensor, threshold: float, min_keep: int, max_keep: int, prefix: int, padded: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Select tokens; of all implementations this one takes any floating dtype.

    Args:
        scores: (B, N).
        threshold: Smallest score that is kept, a number of the dtype of the scores.
        min_keep: Tokens kept per image whatever their scores.
        max_keep: Most tokens kept per image; with `min_keep` equal to it the threshold is idle.
        prefix: P, leading tokens of every image that are kept and have no score.
        padded: Whether to give `B * (P + max_keep)` indices.

    Returns:
        mask (B, P + N), indices and cu_seqlens as in `kernels.TokenSelection`.
    """
    scores = scores.detach()
    ranked = scores.masked_fill(scores.isnan(), -torch.inf)
    order = ranked.sort(dim=1, descending=True, stable=True).indices
    images, tokens = scores.shape
    if min_keep == max_keep:
        chosen = order[:, :max_keep]
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, chosen, True)
    else:
        counts = (ranked >= threshold).sum(1, keepdim=True).clamp_(min_keep, max_keep)
        first = torch.arange(tokens, device=scores.device) < counts
        mask = torch.zeros_like(first).scatter_(1, order, first)
    mask = F.pad(mask, (prefix, 0), value=True).contiguous()
    if min_keep == max_keep:
        # The number of kept tokens is known, so nothing is read back from the device.
        kept, length = prefix + max_keep, prefix + tokens
        columns = (~mask).to(torch.uint8).sort(dim=1, stable=True).indices[:, :kept]
        starts = torch.arange(images, device=scores.device)[:, None] * length
        cu_seqlens = torch.arange(images + 1, dtype=torch.int32, device=scores.device) * kept
        return mask, (columns + starts).flatten(), cu_seqlens
    lengths = mask.sum(1, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    cu_seqlens = F.pad(lengths, (1, 0))
    if not padded:
        return mask, mask.flatten().nonzero().squeeze(1), cu_seqlens
    rows = (~mask).flatten().to(torch.uint8).sort(stable=True).indices
    return mask, rows[: images * (prefix + max_keep)], cu_seqlens
