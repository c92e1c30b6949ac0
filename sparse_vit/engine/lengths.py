"""Which rows of a packed token matrix belong to which image."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Lengths"]


@dataclass(frozen=True)
class Lengths:
    """Images of packed tokens, one after the other.

    Attributes:
        images: B.
        cu_seqlens: (B + 1,) int32; image b owns the rows `cu_seqlens[b] .. cu_seqlens[b + 1] - 1`.
        longest: tokens that no image exceeds.
        rows: T, rows of the matrix. Those from `cu_seqlens[-1]` on belong to nobody.
        uniform: whether every image has exactly `longest` tokens, and T = B * longest.
    """

    images: int
    cu_seqlens: Tensor
    longest: int
    rows: int
    uniform: bool

    @classmethod
    def of(cls, images: int, tokens: int, device: torch.device) -> "Lengths":
        """B images of the same number of tokens."""
        total = images * tokens
        bounds = torch.arange(0, total + 1, max(tokens, 1), dtype=torch.int32, device=device)
        return cls(images, bounds, tokens, total, True)

    def image_of_row(self) -> Tensor:
        """(T,) int64: which image owns a row; the last one for rows of nobody."""
        rows = torch.arange(self.rows, device=self.cu_seqlens.device, dtype=torch.int32)
        found = torch.searchsorted(self.cu_seqlens[1:], rows, right=True)
        return found.clamp_(max=self.images - 1)

    def present(self) -> Tensor:
        """(B, longest) bool: where an image has a token."""
        counts = self.cu_seqlens.diff()
        places = torch.arange(self.longest, device=counts.device, dtype=counts.dtype)
        return places < counts[:, None]

    def pad(self, values: Tensor, fill: float) -> Tensor:
        """(T, ...) as (B, longest, ...), with `fill` behind the end of shorter images."""
        shape = (self.images, self.longest, *values.shape[1:])
        if self.uniform:
            return values.view(shape)
        places = torch.arange(self.longest, device=values.device)
        rows = (self.cu_seqlens[:-1, None] + places).clamp_(max=self.rows - 1)
        absent = ~self.present().view(*shape[:2], *[1] * (values.dim() - 1))
        return values[rows.long()].masked_fill_(absent, fill)
