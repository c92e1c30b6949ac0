"""From packed token rows to what the model returns."""

from typing import Any

from torch import Tensor

from sparse_vit.engine.build import Builder
from sparse_vit.engine.lengths import Lengths

__all__ = ["Head"]


class Head:
    """Final norm, pooling and classifier, by the model's own modules in their own dtype.

    Args:
        shell: the model.
        ragged: whether images may have different numbers of tokens.
        build: maker of layers, for its notes.

    Attributes:
        reads_prefix_only: whether nothing but the prefix tokens reaches the output.

    Raises:
        ValueError: for a head that returns tokens of images that have different numbers of them.
    """

    def __init__(self, shell: Any, ragged: bool, build: Builder) -> None:
        self.shell = shell
        self.prefix = int(shell.num_prefix_tokens)
        self.reads_prefix_only = shell.global_pool == "token" and self.prefix > 0
        if ragged and shell.global_pool == "":
            raise ValueError(
                "the model returns all tokens (global_pool=''), of which adaptive leaves every "
                "image another number; pool them, or use the fixed schedule"
            )
        if self.reads_prefix_only:
            build.notes.add(
                "last block", "for the prefix tokens alone", "the head reads nothing else"
            )
        build.notes.add("norm and head", "the model's own", "they see one row an image or few")

    def __call__(self, x: Tensor, lengths: Lengths, sizes: Tensor | None = None) -> Tensor:
        """To the output in float32.

        Args:
            x: (T, C) rows, or (B * P, C) of prefix tokens.
            lengths: of the images.
            sizes: (B, P + n) original patches in each token, where some were merged.
        """
        x = x.to(self.shell.patch_embed.proj.weight.dtype)
        if self.reads_prefix_only:
            tokens = x.view(lengths.images, self.prefix, -1)
            return self.shell.forward_head(self.shell.norm(tokens)).float()
        tokens = self.shell.norm(lengths.pad(x, 0.0))
        if sizes is not None:
            return self.shell.forward_head(tokens, keep=sizes).float()
        if lengths.uniform:
            return self.shell.forward_head(tokens).float()
        if self.shell.global_pool == "token":
            return self.shell.forward_head(tokens).float()
        pooled = self.shell._pool_kept(tokens, lengths.present().to(tokens.dtype))
        return self.shell.head(self.shell.head_drop(self.shell.fc_norm(pooled))).float()
