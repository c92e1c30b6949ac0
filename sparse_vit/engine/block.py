"""Timm's transformer block on packed rows."""

from typing import Any

import torch
from torch import Tensor, nn

from sparse_vit.blocks import TOKENWISE_MLPS
from sparse_vit.engine.attention import EngineAttention
from sparse_vit.engine.build import Builder
from sparse_vit.engine.lengths import Lengths
from sparse_vit.engine.mlp import build_mlp

__all__ = ["EngineBlock", "check_blocks"]


class EngineBlock:
    """One block.

    Args:
        name: of the block, for the description.
        block: timm's Block.
        tokens: tokens of an image in this block.
        prefix: None, or the number P of leading tokens that alone are wanted.
        build: maker of layers.
        leaving: tokens of an image in the MLP, where the block reduces them before it.
        weighted: whether a token counts as often as it has patches.
    """

    def __init__(
        self,
        name: str,
        block: Any,
        tokens: int,
        prefix: int | None,
        build: Builder,
        leaving: int | None = None,
        weighted: bool = False,
    ) -> None:
        self.norm1, self.norm2 = build.norm(block.norm1), build.norm(block.norm2)
        scale = _layer_scale(block.ls1)
        self.attention = EngineAttention(
            f"{name}.attn", block.attn, scale, tokens, prefix, build, weighted
        )
        few = (leaving or tokens) if prefix is None else prefix
        self.mlp = build_mlp(f"{name}.mlp", block.mlp, _layer_scale(block.ls2), few, build)

    def __call__(
        self, x: Tensor, normed: Tensor | None, lengths: Lengths, class_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Runs the block.

        Args:
            x: (T, C) tokens.
            normed: `norm1` of them, if it is there already.
            lengths: of the images.
            class_attention: whether to return the attention of the first token.

        Returns:
            (T, C) tokens, or (B * P, C) of the prefix alone; and (B, longest) attention of the
            first token averaged over the heads, zero behind the end of an image, or None.
        """
        normed = self.norm1(x) if normed is None else normed
        x, qkv = self.attention(x, normed, lengths)
        row = self.class_attention(qkv, lengths) if class_attention else None
        return self.mlp(x, self.norm2(x)), row

    def class_attention(self, qkv: Tensor, lengths: Lengths) -> Tensor:
        """(B, longest) attention of the first token, from what `attention` returned."""
        logits = self.attention.class_logits(qkv, lengths)
        return lengths.pad(logits, -torch.inf).softmax(dim=1).mean(dim=-1)


def _layer_scale(module: nn.Module) -> Tensor | None:
    return None if isinstance(module, nn.Identity) else module.gamma  # type: ignore[return-value]


def check_blocks(blocks: nn.Sequential) -> None:
    """Refuses blocks that the engine cannot run.

    Raises:
        TypeError: naming the block and what is wrong with it.
    """
    from timm.models.vision_transformer import Attention, Block  # type: ignore[attr-defined]

    for index, block in enumerate(blocks):
        supported: tuple[tuple[str, Any, tuple[type, ...]], ...] = (
            ("", block, (Block,)),
            (".attn", getattr(block, "attn", None), (Attention,)),
            (".mlp", getattr(block, "mlp", None), TOKENWISE_MLPS),
        )
        for part, module, kinds in supported:
            if type(module) not in kinds:
                raise TypeError(
                    f"blocks.{index}{part} is a {type(module).__name__}; optimize supports "
                    f"{', '.join(kind.__name__ for kind in kinds)} there"
                )
