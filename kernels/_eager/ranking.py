"""Ranking in plain torch: the `reference` implementation, on any device.

Holds a block of the distance matrix: as many queries as it is called with.
"""

from typing import NamedTuple

import torch
from torch import Tensor

NEGLIGIBLE = 2.0**-40
"""Distances, squared ones under `euclidean`, so small a share of the norms are rounding: 0."""
FARTHEST = 2.0
"""Of rows that share no visible part: the largest distance that parts can have."""


class Places(NamedTuple):
    """Where thresholds lie among the distances of their query.

    Attributes:
        less: (B, R) int64, countable rows nearer than the threshold.
        equal: (B, R) int64, countable rows exactly at the threshold.
        earlier: (B, R) int64, those of the latter before the threshold's column.
        nearest: (B, T) int64, the nearest rows by distance, then by column, countable or not.
        distances: (B, T) float32, theirs.
    """

    less: Tensor
    equal: Tensor
    earlier: Tensor
    nearest: Tensor
    distances: Tensor


class Gallery:
    """Rows that queries are ranked against.

    Args:
        features: (G, D) float32, or (G, W) int64 words of bits under `hamming`.
        metric: One of `kernels.ranking.METRICS`.
        countable: (G,) bool, or None for all.
        parts: P of `visible`.
    """

    def __init__(
        self, features: Tensor, metric: str, countable: Tensor | None, parts: int = 1
    ) -> None:
        self.metric = metric
        self.countable = countable
        self._parts = parts
        self._rows = self._prepare(features)
        self._last: tuple[Tensor, Tensor] | None = None

    def distances(self, queries: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the distances (P,) of pairs of a query and a row of the gallery."""
        return self._block(queries)[rows, columns]

    def places(
        self,
        queries: Tensor,
        thresholds: Tensor,
        columns: Tensor,
        sizes: Tensor,
        excluded: tuple[Tensor, Tensor] | None,
        top: int,
    ) -> Places:
        """Count the rows before thresholds and list the nearest rows.

        Args:
            queries: (B, D).
            thresholds: (B, R) float32, ascending as far as `sizes` tells.
            columns: (B, R) int64, a threshold's place among rows at its distance.
            sizes: (B,) int64, how many thresholds count.
            excluded: Query and column of pairs that are not countable, sorted by query, or None.
            top: T.
        """
        distance = self._block(queries)
        least = torch.iinfo(torch.int64).max
        order = _ordered(distance)
        index = torch.arange(distance.shape[1], device=distance.device)
        keys = torch.topk((order << 32) + index, top, dim=1, largest=False, sorted=True).values
        nearest = keys & 0x7FFFFFFF

        count, most = thresholds.shape
        used = torch.arange(most, device=sizes.device) < sizes[:, None]
        bounds = torch.where(used, _ordered(thresholds), least).contiguous()
        counted = torch.ones_like(distance, dtype=torch.bool)
        if self.countable is not None:
            counted &= self.countable
        if excluded is not None:
            counted[excluded] = False
        # A row is nearer than all thresholds from its bucket on.
        bucket = torch.searchsorted(bounds, order, right=True)
        histogram = bounds.new_zeros(count, most + 1)
        histogram.scatter_add_(1, bucket, counted.to(torch.int64))
        less = histogram.cumsum(dim=1)[:, :most]

        # Rows at a threshold, by query, by the last threshold equal to them, by column.
        own = bounds.gather(1, (bucket - 1).clamp(min=0)) if most else order
        at = (bucket > 0) & (own == order) & counted if most else torch.zeros_like(counted)
        query, column = at.nonzero(as_tuple=True)
        width = distance.shape[1]
        group = query * (most + 1) + bucket[query, column]
        same = (group * width + column).sort().values
        last = torch.searchsorted(bounds, bounds, right=True)
        line = torch.arange(count, device=distance.device)[:, None] * (most + 1) + last
        start = torch.searchsorted(same, line * width)
        equal = torch.searchsorted(same, (line + 1) * width) - start
        earlier = torch.searchsorted(same, line * width + columns) - start
        less, equal, earlier = (torch.where(used, x, 0) for x in (less, equal, earlier))
        return Places(less, equal, earlier, nearest, distance.gather(1, nearest))

    def _block(self, queries: Tensor) -> Tensor:
        """Return distances (B, G) float32; those of the last call are kept."""
        if self._last is None or self._last[0] is not queries:
            # Adding 0 turns -0 into +0, whose bits would otherwise order differently.
            self._last = queries, self._distance(self._prepare(queries)).to(torch.float32) + 0.0
        return self._last[1]

    def _prepare(self, features: Tensor) -> Tensor:
        if self.metric == "hamming":
            return _bits(features)
        values = features.to(torch.float64)
        if self.metric == "cosine":
            return values / values.norm(dim=1, keepdim=True)
        if self.metric == "visible":
            return _visible(values, self._parts)
        return values

    def _distance(self, queries: Tensor) -> Tensor:
        rows = self._rows
        if self.metric == "visible":
            split = queries.shape[1] - self._parts
            shared = queries[:, split:] @ rows[:, split:].t()
            distance = 1.0 - queries[:, :split] @ rows[:, :split].t() / shared
            return torch.where(shared > 0.0, _without_rounding(distance), FARTHEST)
        product = queries @ rows.t()
        if self.metric == "cosine":
            return _without_rounding(1.0 - product)
        own, other = (x.square().sum(dim=1) for x in (queries, rows))
        squares = own[:, None] + other
        squared = squares - 2.0 * product
        if self.metric == "hamming":
            return squared
        return torch.where(squared <= NEGLIGIBLE * squares, 0.0, squared).sqrt()


def _without_rounding(distance: Tensor) -> Tensor:
    return torch.where(distance.abs() <= NEGLIGIBLE, 0.0, distance)


def _visible(values: Tensor, parts: int) -> Tensor:
    """Return unit parts times the weight of their visibility, then the weights."""
    weights = values[:, -parts:]
    vectors = values[:, :-parts].reshape(len(values), parts, -1)
    unit = vectors / vectors.norm(dim=2, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    return torch.cat([(unit * weights[:, :, None]).flatten(1), weights], dim=1)


def _bits(words: Tensor) -> Tensor:
    """Return the bits of (N, W) int64 words as (N, 64 W) zeros and ones, float32."""
    shifts = torch.arange(64, device=words.device)
    return (words[:, :, None] >> shifts & 1).flatten(1).to(torch.float32)


def _ordered(distance: Tensor) -> Tensor:
    """Return float32 numbers as int64 of the same order."""
    bits = distance.contiguous().view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
