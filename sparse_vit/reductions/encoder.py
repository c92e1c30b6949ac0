"""The way through the blocks of a model that fuses or merges: the same in training and inference.

Both methods reduce between the attention and the MLP of a block, from what that attention computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparse_vit.blocks import (
    add_branch,
    class_logits,
    full_attention,
    join_heads,
    masked_softmax,
    project_heads,
)
from sparse_vit.decisions import Decision
from sparse_vit.encoder import Encoding, Tap
from sparse_vit.reductions.fuse import fuse
from sparse_vit.reductions.merge import merge
from sparse_vit.reductions.state import TokenState

if TYPE_CHECKING:
    from sparse_vit.model import SparseVisionTransformer

__all__ = ["encode_reduced"]


def encode_reduced(
    model: SparseVisionTransformer,
    blocks: nn.Sequential,
    tokens: Tensor,
    grid: tuple[int, int],
    keys: Tensor | None,
    collect: bool,
    taps: Sequence[int],
    pooled: bool,
) -> Encoding:
    """Runs the blocks; arguments as of `sparse_vit.encoder.encode_masked`.

    `keys` has no effect: nothing is drawn at random. With `pooled` only the prefix tokens are
    wanted, and the last block runs for them alone.
    """
    state = TokenState.start(tokens, model.num_prefix_tokens)
    counts = dict(zip(model.schedule.stages, model.schedule.counts(state.patches), strict=True))
    ratios = dict(zip(model.schedule.stages, model.schedule.ratios, strict=True))
    out = Encoding(tokens, grid)
    for i, block in enumerate(blocks):
        alone = pooled and i == len(blocks) - 1 and i not in taps and not collect
        state, scores = _run(model, block, state, None if alone else counts.get(i), alone)
        if collect and i in counts:
            record = _record(state, scores, out.decisions)
            out.decisions.append(
                Decision(i, ratios[i], record, state.leaders(), groups=state.groups)
            )
        if i in taps:
            out.taps.append(Tap(state.tokens, None, state.groups))
    out.tokens, out.keep = state.tokens, state.sizes
    return out


def _run(
    model: SparseVisionTransformer, block: Any, state: TokenState, count: int | None, alone: bool
) -> tuple[TokenState, Tensor | None]:
    arguments = (block, state, model.reduction, count, alone)
    if model.grad_checkpointing and torch.is_grad_enabled():
        found: tuple[TokenState, Tensor | None] = checkpoint(
            _reduced_block, *arguments, use_reentrant=False
        )
        return found
    return _reduced_block(*arguments)


def _reduced_block(
    block: Any, state: TokenState, reduction: str, count: int | None, alone: bool
) -> tuple[TokenState, Tensor | None]:
    """Runs a block and reduces in its middle.

    Args:
        block: timm's Block.
        state: tokens and sizes.
        reduction: "fuse" or "merge".
        count: patch tokens to leave; None reduces nothing.
        alone: whether to run the block for the prefix tokens alone.

    Returns:
        The state after the block, and the (B, n) class attention that decided, of "fuse".
    """
    attn, x, prefix = block.attn, block.norm1(state.tokens), state.prefix
    q, k, v = project_heads(attn, x)
    residual = state.tokens
    if alone:
        q, x, residual = q[:, :, :prefix], x[:, :prefix], residual[:, :prefix]
    y = join_heads(attn, _attend(q, k, v, attn.scale, state.sizes), x)
    tokens = add_branch(block.drop_path1(block.ls1(y)), residual)
    state = TokenState(tokens, prefix, state.groups, state.sizes)
    scores = None
    if count is not None and reduction == "fuse":
        weights = masked_softmax(class_logits(attn, q, k), None).mean(dim=1)
        scores = weights[:, prefix:]
        state = fuse(state, scores, count)
    elif count is not None:
        state = merge(state, k, count)
    x = state.tokens
    x = add_branch(block.drop_path2(block.ls2(block.mlp(block.norm2(x)))), x)
    return TokenState(x, prefix, state.groups, state.sizes), scores


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, sizes: Tensor | None) -> Tensor:
    if sizes is None:
        return full_attention(q, k, v, scale)
    bias = sizes.log().to(q.dtype)[:, None, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def _record(state: TokenState, scores: Tensor | None, earlier: list[Decision]) -> Tensor:
    """(B, N) scores of the original patches: class attention, or minus the log of their company."""
    if state.sizes is not None:
        return -state.sizes[:, state.prefix :].log().gather(1, state.groups).float()
    if scores is None:
        return torch.zeros(state.groups.shape, device=state.groups.device)
    before = earlier[-1].groups if earlier else None
    scores = scores.detach().float()
    return scores if before is None else scores.gather(1, before)
