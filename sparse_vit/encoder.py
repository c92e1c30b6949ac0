"""The two ways through the blocks: masked for training, compacted for inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparse_vit._kernels import gather_rows, select_tokens
from sparse_vit.blocks import block_forward, prefix_forward
from sparse_vit.decisions import Decision
from sparse_vit.selectors import StageInput

if TYPE_CHECKING:
    from sparse_vit.model import SparseVisionTransformer

__all__ = ["Encoding", "Tap", "encode_compacted", "encode_masked"]


@dataclass
class Tap:
    """Tokens after a block.

    Attributes:
        tokens: (B, P + n, C).
        indices: (B, n) original places of the patch tokens; None when all are there.
        groups: (B, N) patch token that each original patch went into; None without fusing.
    """

    tokens: Tensor
    indices: Tensor | None
    groups: Tensor | None = None


@dataclass
class Encoding:
    """What the blocks produced.

    Attributes:
        tokens: (B, P + n, C).
        grid: rows and columns of the original patches.
        keep: (B, P + N) 0/1 in training once a stage has passed; (B, P + n) original patches in
            each token once some were merged; else None.
        indices: (B, n) original places of the patch tokens; None when all are there.
        class_attention: (B, n) of the class token in the last block, if it was asked for.
        decisions: one per stage, if they were asked for.
        taps: tokens after the blocks asked for, in order.
    """

    tokens: Tensor
    grid: tuple[int, int]
    keep: Tensor | None = None
    indices: Tensor | None = None
    class_attention: Tensor | None = None
    decisions: list[Decision] = field(default_factory=list)
    taps: list[Tap] = field(default_factory=list)


def encode_masked(
    model: SparseVisionTransformer,
    blocks: nn.Sequential,
    tokens: Tensor,
    grid: tuple[int, int],
    keys: Tensor | None,
    collect: bool,
    taps: Sequence[int],
    pooled: bool,
) -> Encoding:
    """Training: all tokens stay in place and dropped ones are hidden behind a mask.

    Args:
        model: the model, for its schedule and selectors.
        blocks: the blocks to run.
        tokens: (B, P + N, C) embedded tokens.
        grid: rows and columns of patches.
        keys: (B,) int64 or None; see `forward_with_decisions`.
        collect: whether to record decisions.
        taps: blocks whose output to record.
        pooled: whether a head follows that reads the prefix tokens alone; of use in inference.

    Returns:
        The encoding, before the final norm.
    """
    out = Encoding(tokens, grid)
    prefix, total = model.num_prefix_tokens, grid[0] * grid[1]
    counts = model.schedule.counts(total)
    ordinals = {stage: s for s, stage in enumerate(model.schedule.stages)}
    wanted = _attention_wanted(model)
    mask: Tensor | None = None
    for i, block in enumerate(blocks):
        if i in ordinals:
            s = ordinals[i]
            stage = StageInput(
                ordinal=s,
                tokens=out.tokens[:, prefix:],
                keep=mask,
                indices=None,
                count=counts[s],
                grid_tokens=total,
                class_attention=out.class_attention,
                keys=keys,
            )
            scores, decision = model.selector(s).sample(stage)
            mask = decision if mask is None else mask * decision
            out.keep = torch.cat((mask.new_ones(mask.shape[0], prefix), mask), dim=1)
            if collect:
                target = model.schedule.ratios[s]
                out.decisions.append(Decision(i, target, scores.float(), mask))
        _run_block(model, i, block, out, i in wanted)
        if i in taps:
            out.taps.append(Tap(out.tokens, None))
    return out


def encode_compacted(
    model: SparseVisionTransformer,
    blocks: nn.Sequential,
    tokens: Tensor,
    grid: tuple[int, int],
    keys: Tensor | None,
    collect: bool,
    taps: Sequence[int],
    pooled: bool,
) -> Encoding:
    """Inference: the best tokens are gathered and the others are gone; see `encode_masked`.

    With `pooled` only the prefix tokens are wanted, and the last block runs for them alone.
    """
    out = Encoding(tokens, grid)
    prefix, total = model.num_prefix_tokens, grid[0] * grid[1]
    counts = model.schedule.counts(total)
    ordinals = {stage: s for s, stage in enumerate(model.schedule.stages)}
    wanted = _attention_wanted(model)
    record = torch.empty(0)
    for i, block in enumerate(blocks):
        if i in ordinals:
            s = ordinals[i]
            stage = StageInput(
                ordinal=s,
                tokens=out.tokens[:, prefix:],
                keep=None,
                indices=out.indices,
                count=counts[s],
                grid_tokens=total,
                class_attention=out.class_attention,
                keys=keys,
            )
            scores = model.selector(s).score(stage)
            before = out.indices
            out.tokens, out.indices = _compact(out.tokens, scores, before, counts[s], prefix)
            if collect:
                # Tokens dropped earlier keep the score they were dropped with.
                scores = scores.float()
                record = scores if before is None else record.scatter(1, before, scores)
                mask = torch.zeros_like(record).scatter(1, out.indices, 1.0)
                target = model.schedule.ratios[s]
                out.decisions.append(Decision(i, target, record, mask, out.indices))
        if pooled and i == len(blocks) - 1 and i not in wanted and i not in taps:
            # the head reads the prefix tokens alone, and nothing comes after this block
            out.tokens = prefix_forward(block, out.tokens, prefix)
            break
        _run_block(model, i, block, out, i in wanted)
        if i in taps:
            out.taps.append(Tap(out.tokens, out.indices))
    return out


def _compact(
    tokens: Tensor, scores: Tensor, indices: Tensor | None, count: int, prefix: int
) -> tuple[Tensor, Tensor]:
    """Gathers prefix tokens and the best patch tokens in one pass over the rows.

    Returns:
        (B, P + k, C) tokens and (B, k) original indices, ascending.
    """
    batch, length, dim = tokens.shape
    rows = select_tokens(scores, count, prefix=prefix).indices
    starts = torch.arange(batch, device=tokens.device)[:, None] * length
    local = rows.view(batch, prefix + count)[:, prefix:] - starts - prefix
    kept = local if indices is None else indices.gather(1, local)
    compacted = gather_rows(tokens.flatten(0, 1), rows).view(batch, prefix + count, dim)
    return compacted, kept


def _attention_wanted(model: SparseVisionTransformer) -> set[int]:
    """Blocks whose class-token attention somebody reads."""
    stages = enumerate(model.schedule.stages)
    wanted = {stage - 1 for s, stage in stages if model.selector(s).needs_class_attention}
    if model.training and model.reweight == "pooled":
        wanted.add(len(model.blocks) - 1)
    return wanted


def _run_block(
    model: SparseVisionTransformer, index: int, block: nn.Module, out: Encoding, attention: bool
) -> None:
    if model.grad_checkpointing and torch.is_grad_enabled():
        result = checkpoint(
            block_forward, block, out.tokens, out.keep, attention, use_reentrant=False
        )
    else:
        result = block_forward(block, out.tokens, out.keep, attention)
    out.tokens, row = result
    out.class_attention = None if row is None else row[:, model.num_prefix_tokens :]
