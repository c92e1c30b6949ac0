"""Merge similar tokens.

Bolya et al., "Token Merging: Your ViT But Faster" (ToMe, ICLR 2023, arXiv 2210.09461), Sec. 3: the
patch tokens are split into two alternating sets; every token of the first finds its most similar
one of the second by the cosine of their keys, averaged over the heads; the r closest pairs are
merged into the mean of the original patches that they stand for. Attention counts a token as often
as it has patches: softmax(q k^T / sqrt(D) + log size).

Inferred: the sets alternate over the patches alone and prefix tokens take no part. With one class
token in front that is the authors' split; with more it keeps registers whole, which theirs merges.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse_vit.reductions.state import TokenState

__all__ = ["check_halving", "constant_merging", "merge"]


def check_halving(num_patches: int, counts: Sequence[int]) -> None:
    """Refuses a schedule that pairs cannot follow.

    Args:
        num_patches: N.
        counts: tokens left after each stage.

    Raises:
        ValueError: for a stage that leaves less than half of its tokens.
    """
    for present, count in pairwise((num_patches, *counts)):
        if present - count > present // 2:
            raise ValueError(
                f"cannot merge {present} tokens into {count}: one stage merges pairs and leaves "
                f"at least {present - present // 2}; use more stages or a higher keep_ratio"
            )


def constant_merging(num_patches: int, depth: int, r: int) -> tuple[range, list[float]]:
    """Stages and ratios that merge r tokens in every block, as ToMe does.

    Args:
        num_patches: N.
        depth: number of blocks.
        r: tokens merged in each block; at most half of those present, and one token stays.

    Returns:
        `stages` and `keep_ratio` for `sparsify(..., reduction="merge")`.

    Raises:
        ValueError: for a negative r.
    """
    if r < 0:
        raise ValueError(f"r is {r}; expected the number of tokens to merge in each block, e.g. 8")
    present, counts = num_patches, []
    for _ in range(depth):
        present -= min(r, present // 2)
        counts.append(present)
    return range(depth), [count / num_patches for count in counts]


def merge(state: TokenState, keys: Tensor, count: int) -> TokenState:
    """Merges the most similar pairs until `count` patch tokens are left.

    Args:
        state: (B, P + n, C) tokens after the attention of the block.
        keys: (B, H, P + n, D) keys of that attention.
        count: number of patch tokens that stay; with count >= n nothing happens.

    Returns:
        The state with P + count tokens: prefix, those of the first set that were not merged in
        their order, the second set in its order.

    Raises:
        ValueError: for a count below half of the tokens, which one round of pairs cannot reach.
    """
    prefix, present = state.prefix, state.patches
    merged = present - count
    if merged <= 0:
        return state
    check_halving(present, [count])
    source, target, stays = _match(keys[:, :, prefix:], merged)
    wide = torch.promote_types(state.tokens.dtype, torch.float32)
    sizes = state.sizes
    if sizes is None:
        sizes = torch.ones(state.tokens.shape[:2], dtype=wide, device=state.tokens.device)
    # a product with ones and zeros sums in one order, where scattered additions may not
    partner = F.one_hot(target, present - present // 2).to(wide).transpose(1, 2)

    def join(values: Tensor) -> Tensor:
        """Sums the rows of merged pairs; (B, n, C) -> (B, count, C)."""
        shape = (-1, -1, values.shape[-1])
        first, second = values[:, 1::2], values[:, 0::2]
        second = second + partner @ first.gather(1, source[:, :, None].expand(shape))
        return torch.cat((first.gather(1, stays[:, :, None].expand(shape)), second), dim=1)

    before = sizes[:, prefix:, None]
    size = join(before)
    patches = join(state.tokens[:, prefix:].to(wide) * before) / size
    places = _places(present, source, target, stays)
    return TokenState(
        tokens=torch.cat((state.tokens[:, :prefix], patches.to(state.tokens.dtype)), dim=1),
        prefix=prefix,
        groups=places.gather(1, state.groups),
        sizes=torch.cat((sizes[:, :prefix], size[:, :, 0]), dim=1),
    )


def _match(keys: Tensor, merged: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs tokens of the odd set with tokens of the even set.

    Args:
        keys: (B, H, n, D) keys of the patch tokens.
        merged: number r of pairs.

    Returns:
        (B, r) places in the odd set, (B, r) their partners' places in the even set, and (B, n // 2
        - r) ascending places in the odd set that stay.
    """
    metric = F.normalize(keys.detach().float().mean(dim=1), dim=-1)
    similarity, partner = (metric[:, 1::2] @ metric[:, 0::2].transpose(1, 2)).max(dim=-1)
    order = similarity.argsort(dim=-1, descending=True, stable=True)
    source = order[:, :merged]
    return source, partner.gather(1, source), order[:, merged:].sort(dim=-1).values


def _places(present: int, source: Tensor, target: Tensor, stays: Tensor) -> Tensor:
    """(B, n) place after merging of every token before it."""
    batch, left = stays.shape
    odd = source.new_empty(batch, present // 2)
    odd.scatter_(1, stays, torch.arange(left, device=stays.device).expand(batch, left))
    odd.scatter_(1, source, target + left)
    places = source.new_empty(batch, present)
    places[:, 1::2] = odd
    places[:, 0::2] = torch.arange(left, left + present - present // 2, device=stays.device)
    return places
