"""What the trainer needs from a method."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn


class Task(Protocol):
    """A module whose forward returns the loss, and the batches it is fed.

    `module(**batch)` returns the scalar loss and its named parts.

    Attributes:
        batches_per_epoch: Batches in one pass over the data.
    """

    batches_per_epoch: int

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        ...

    def batch(self, epoch: int, index: int) -> dict[str, Any]:
        """Return this rank's share of a batch: a pure function of (seed, epoch, index, rank)."""
        ...

    def save(self, path: Path, state: dict[str, Tensor]) -> None:
        """Write what is used after training."""
        ...
