"""Keep the tokens that the class token looks at, and fuse all others into one.

Liang et al., "Not All Patches Are What You Need" (EViT, ICLR 2022, arXiv 2202.07800), Eq. 3-4: with
a_i the attention of the class token to patch i, averaged over the heads, the k highest stay and

    x_fused = sum over the others of a_i x_i

joins them as one more token, to be judged like any other at the next stage. The weights are not
normalised, as in the authors' code.
"""

import torch
from torch import Tensor

from sparse_vit._kernels import gather_rows, select_tokens
from sparse_vit.reductions.state import TokenState

__all__ = ["fuse"]


def fuse(state: TokenState, attention: Tensor, count: int) -> TokenState:
    """Keeps the best patch tokens and fuses the others.

    Args:
        state: (B, P + n, C) tokens after the attention of the block.
        attention: (B, n) attention of the class token to the patch tokens.
        count: number k of patch tokens that stay; with k >= n nothing happens.

    Returns:
        The state with P + k + 1 tokens: prefix, kept in their order, fused.
    """
    batch, _, dim = state.tokens.shape
    prefix, present = state.prefix, state.patches
    if count >= present:
        return state
    selection = select_tokens(attention.detach(), count, prefix=prefix)
    kept = gather_rows(state.tokens.flatten(0, 1), selection.indices).view(batch, -1, dim)
    stays = selection.mask[:, -present:].bool()
    weights = attention.masked_fill(stays, 0.0).to(state.tokens.dtype)
    fused = weights[:, None] @ state.tokens[:, prefix:]
    place = torch.where(stays, stays.cumsum(1) - 1, count)
    return TokenState(
        tokens=torch.cat((kept, fused), dim=1),
        prefix=prefix,
        groups=place.gather(1, state.groups),
    )
