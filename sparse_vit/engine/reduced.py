"""The blocks of a model that fuses or merges tokens, on packed rows.

Every image has the same number of tokens at any time, so that rows are a batch for the reductions
and a matrix for everything else.
"""

from typing import Any, NamedTuple

from torch import Tensor

from sparse_vit.engine.block import EngineBlock
from sparse_vit.engine.build import Builder
from sparse_vit.engine.lengths import Lengths
from sparse_vit.reductions import TokenState, fuse, merge
from sparse_vit.schedule import PruningSchedule

__all__ = ["Reduced", "ReducedBlocks"]


class Reduced(NamedTuple):
    """What the blocks made of an image batch.

    Attributes:
        x: (T, C) rows, or (B * P, C) of the prefix tokens alone.
        lengths: of the images.
        sizes: (B, P + n) original patches in each token; None where none was merged.
        kept: per stage, (B, N) bool: the first original patch of every token.
    """

    x: Tensor
    lengths: Lengths
    sizes: Tensor | None
    kept: list[Tensor]


class ReducedBlocks:
    """All blocks.

    Args:
        blocks: timm's blocks.
        reduction: "fuse" or "merge".
        schedule: in which blocks, and how many tokens stay.
        patches: N of the images to expect.
        prefix: P.
        few: None, or P if nothing but the prefix tokens is read after the last block.
        build: maker of layers.
    """

    def __init__(
        self,
        blocks: Any,
        reduction: str,
        schedule: PruningSchedule,
        patches: int,
        prefix: int,
        few: int | None,
        build: Builder,
    ) -> None:
        self.reduction, self.schedule, self.prefix = reduction, schedule, prefix
        self.few = few
        self.blocks: list[EngineBlock] = []
        counts = dict(zip(schedule.stages, schedule.counts(patches), strict=True))
        present, weighted = patches, False
        for i, block in enumerate(blocks):
            entering, name = prefix + present, f"blocks.{i}"
            if counts.get(i, present) < present:
                present = counts[i] + (reduction == "fuse")
                how = "class attention, then the kept rows and a weighted sum of the others"
                if reduction == "merge":
                    how = "most similar keys, then means of pairs"
                build.notes.add(f"{name} {reduction}", "torch", f"{how}, as the model does it")
            # Fusing asks what the class token of the whole block looks at.
            last = i == len(blocks) - 1 and not (reduction == "fuse" and i in counts)
            alone = few if last else None
            made = EngineBlock(name, block, entering, alone, build, prefix + present, weighted)
            self.blocks.append(made)
            weighted = reduction == "merge" and present < patches

    def __call__(self, x: Tensor, lengths: Lengths, grid: int) -> Reduced:
        """Runs the blocks on rows x (T, C) of images of `grid` patches."""
        counts = dict(zip(self.schedule.stages, self.schedule.counts(grid), strict=True))
        state = TokenState.start(lengths.pad(x, 0.0), self.prefix)
        kept: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            bias = None if state.sizes is None else state.sizes.log()
            x, qkv = block.attention(x, block.norm1(x), lengths, bias)
            alone = block.attention.prefix is not None
            if i in counts:
                # Where the prefix tokens alone go on, it is for the record.
                tokens = state.tokens if alone else lengths.pad(x, 0.0)
                state = TokenState(tokens, self.prefix, state.groups, state.sizes)
                state = self._reduce(block, state, qkv, lengths, counts[i])
                kept.append(state.leaders().bool())
                if not alone:
                    x = state.tokens.flatten(0, 1)
                    lengths = Lengths.of(lengths.images, state.tokens.shape[1], x.device)
            x = block.mlp(x, block.norm2(x))
            if not alone:
                state.tokens = lengths.pad(x, 0.0)
        if self.few is not None and self.blocks[-1].attention.prefix is None:
            x = state.tokens[:, : self.few].flatten(0, 1)
        return Reduced(x, lengths, state.sizes, kept)

    def _reduce(
        self, block: EngineBlock, state: TokenState, qkv: Tensor, lengths: Lengths, count: int
    ) -> TokenState:
        if self.reduction == "merge":
            keys = lengths.pad(block.attention.keys(qkv), 0.0).transpose(1, 2)
            return merge(state, keys, count)
        return fuse(state, block.class_attention(qkv, lengths)[:, self.prefix :], count)
