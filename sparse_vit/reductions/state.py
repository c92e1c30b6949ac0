"""Tokens on their way through the blocks, and what became of the original patches."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["TokenState"]


@dataclass
class TokenState:
    """Tokens of a batch.

    Attributes:
        tokens: (B, P + n, C), prefix tokens first.
        prefix: P.
        groups: (B, N) int64, the patch token that each original patch went into.
        sizes: (B, P + n) number of original patches in each token, 1 for prefix tokens; None
            where tokens do not count for more than one.
    """

    tokens: Tensor
    prefix: int
    groups: Tensor
    sizes: Tensor | None = None

    @classmethod
    def start(cls, tokens: Tensor, prefix: int) -> "TokenState":
        """Every patch with a token to itself."""
        batch, total = tokens.shape[0], tokens.shape[1] - prefix
        groups = torch.arange(total, device=tokens.device).expand(batch, total)
        return cls(tokens, prefix, groups)

    @property
    def patches(self) -> int:
        """Number n of patch tokens."""
        return self.tokens.shape[1] - self.prefix

    def leaders(self) -> Tensor:
        """(B, N) float, 1 for the first original patch of every token."""
        batch, total = self.groups.shape
        places = torch.arange(total, device=self.groups.device).expand(batch, total)
        first = places.new_full((batch, self.patches), total)
        first = first.scatter_reduce(1, self.groups, places, "amin")
        return (first.gather(1, self.groups) == places).to(torch.float32)
