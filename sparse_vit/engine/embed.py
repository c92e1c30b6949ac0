"""From images to packed token rows."""

from typing import Any

import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from sparse_vit.checks import check_divisible
from sparse_vit.engine.build import Builder

__all__ = ["Embedding"]


class Embedding:
    """Patches, prefix tokens and positions.

    Patches that tile the image are rows of a matrix, so that the convolution is one product.

    Args:
        shell: the model, for everything around its blocks.
        build: maker of layers.
    """

    def __init__(self, shell: Any, build: Builder) -> None:
        self.shell, self.dtype = shell, build.dtype
        self.embed = shell.patch_embed
        self.prefix = int(shell.num_prefix_tokens)
        self.norm_pre = (
            None if isinstance(shell.norm_pre, nn.Identity) else build.norm(shell.norm_pre)
        )
        self.linear = None
        self._positions: dict[tuple[int, int], Tensor] = {}
        why = _not_tiles(self.embed)
        if why:
            build.notes.add("patch_embed", "the model's own", why)
            return
        conv = self.embed.proj
        patches = int(self.embed.num_patches or 196)
        self.linear = build.linear(
            "patch_embed.proj", conv.weight.flatten(1), conv.bias, patches, exact=True
        )

    def check(self, x: Any, device: torch.device) -> None:
        """Refuses what is not a batch of images for this model.

        Raises:
            ValueError: saying what was expected.
        """
        if not isinstance(x, Tensor):
            raise ValueError(f"images are a {type(x).__name__}; pass a tensor (B, C, H, W)")
        channels = self.embed.proj.weight.shape[1]
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"images have shape {tuple(x.shape)}; expected (B, {channels}, H, W)")
        if x.dtype not in (torch.float32, self.dtype):
            raise ValueError(
                f"images are {x.dtype}; pass float32, normalised as the model was trained"
            )
        if x.device != device:
            raise ValueError(f"images are on {x.device} but the engine is on {device}; move them")
        size, wanted = tuple(x.shape[-2:]), self.embed.img_size
        if getattr(self.embed, "strict_img_size", True) and size != tuple(wanted):
            raise ValueError(
                f"images are {size[0]}x{size[1]} but the model takes {wanted[0]}x{wanted[1]}; "
                "resize them, or optimize a model made with dynamic_img_size=True"
            )
        check_divisible(self.embed, size)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images to (B * (P + N), C) rows, prefix tokens first in every image."""
        positions = self._table(images)
        batch, total = images.shape[0], positions.shape[0]
        first, rest = positions[: self.prefix], positions[self.prefix :]
        patches = self._patches(images).view(batch, total - self.prefix, -1)
        if torch.compiler.is_compiling():
            rows = torch.cat((first.expand(batch, -1, -1), patches + rest), dim=1)
        else:
            rows = patches.new_empty(batch, total, positions.shape[1])
            rows[:, : self.prefix] = first
            torch.add(patches, rest, out=rows[:, self.prefix :])
        packed = rows.flatten(0, 1)
        return packed if self.norm_pre is None else self.norm_pre(packed)

    def _patches(self, images: Tensor) -> Tensor:
        if self.linear is None:
            found = self.embed(images.to(self.embed.proj.weight.dtype))
            return found.to(self.dtype)
        high, wide = self.embed.patch_size
        batch, channels, rows, columns = images.shape
        grid = batch, channels, rows // high, high, columns // wide, wide
        tiles = images.contiguous().view(grid).permute(0, 2, 4, 1, 3, 5)
        matrix = images.new_empty(tiles.shape, dtype=self.dtype).copy_(tiles)
        return self.linear(matrix.view(-1, channels * high * wide))

    def _table(self, images: Tensor) -> Tensor:
        """(P + N, C): what an image starts from before its patches are added."""
        size = (int(images.shape[2]), int(images.shape[3]))
        if size not in self._positions:
            blank = self.embed(images.new_zeros(1, *images.shape[1:], dtype=self._own_dtype()))
            table = self.shell._pos_embed(torch.zeros_like(blank))[0]
            self._positions[size] = table.to(self.dtype).contiguous()
        return self._positions[size]

    def _own_dtype(self) -> torch.dtype:
        return self.embed.proj.weight.dtype


def _not_tiles(embed: Any) -> str:
    """Why patches are no rows of a matrix; empty when they are."""
    conv = embed.proj
    if type(embed) is not PatchEmbed or type(conv) is not nn.Conv2d:
        return f"it is a {type(embed).__name__} with a {type(conv).__name__}"
    if not isinstance(embed.norm, nn.Identity):
        return "it normalises patches"
    if getattr(embed, "dynamic_img_pad", False):
        return "it pads images"
    if conv.kernel_size != conv.stride or conv.groups != 1 or any(conv.padding):
        return "its patches overlap"
    return ""
