"""Ranking by distances that are given in blocks of queries instead of computed from features."""

from typing import Protocol

import torch
from torch import Tensor

from kernels._eager import ranking as eager
from reid.errors import UserError
from reid.evaluation.distances import Gallery, Places


class Blocks(Protocol):
    """Distances of queries to a gallery, such as `reid.evaluation.reranking.rerank` returns.

    Attributes:
        name: What the result calls the metric.
        shape: Numbers of queries and gallery rows.
    """

    name: str
    shape: tuple[int, int]

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the distances of queries start .. stop, (stop - start, G) float32."""


class Given(Gallery):
    """A gallery whose queries are numbers of rows of given distances, (B,) int64.

    Args:
        blocks: The distances.
        countable: (G,) bool, rows that take a place; None for all.
        device: Where to rank.
    """

    def __init__(self, blocks: Blocks, countable: Tensor | None, device: torch.device) -> None:
        self.metric, self.impl, self.shape = blocks.name, "reference", torch.Size(blocks.shape[1:])
        self._gallery = _Given(blocks, countable, device)

    def _check(self, x: Tensor, name: str) -> None:
        """Numbers of rows need no check against the gallery's."""


class _Given(eager.Gallery):
    def __init__(self, blocks: Blocks, countable: Tensor | None, device: torch.device) -> None:
        self._blocks, self._device = blocks, device
        self.countable = countable
        self._last: tuple[Tensor, Tensor] | None = None

    def _block(self, queries: Tensor) -> Tensor:
        if self._last is None or self._last[0] is not queries:
            rows = self._blocks.rows(int(queries[0]), int(queries[-1]) + 1)
            self._last = queries, rows.to(self._device)
        return self._last[1]


def prepare(
    blocks: Blocks, queries: int, gallery: int, countable: Tensor | None, device: torch.device
) -> tuple[Given, Tensor]:
    """Return a gallery and the queries to rank against it.

    Raises:
        UserError: The distances are of other numbers of images.
    """
    if blocks.shape != (queries, gallery):
        raise UserError(
            f"the given distances are of {blocks.shape[0]} queries to {blocks.shape[1]} gallery "
            f"rows, the features are {queries} and {gallery}; re-rank the same features"
        )
    return Given(blocks, countable, device), torch.arange(queries)


__all__ = ["Blocks", "Given", "Places", "prepare"]
