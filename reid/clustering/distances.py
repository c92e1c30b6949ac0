"""The distance of two feature rows, defined once for neighbours, re-ranking and clustering.

    cosine     d(x, y) = |x/|x| - y/|y||^2 / 2 = 1 - cos(x, y)
    euclidean  d(x, y) = |x - y|

computed in float64 term by term and rounded to float32; a cosine distance below 2^-40, which no
float64 tells from rounding, is 0. So d(x, y) = d(y, x), and rows that are equal, or multiples under
cosine, tie exactly.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from reid.errors import UserError

Metric = Literal["cosine", "euclidean"]

NEGLIGIBLE = 2.0**-40
"""Cosine distances below are 0."""

# numbers at a time: what stays in a core's cache, and what occupies a GPU
_AT_ONCE = {"cpu": 1 << 17}
_ELSEWHERE = 1 << 21


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute float32 products in float32: neither TF32, bfloat16 nor autocast."""
    with torch.autocast(device.type, enabled=False), torch.no_grad():
        try:
            before = torch.get_float32_matmul_precision()
        except RuntimeError:
            # the caller chose a precision per backend, which torch does not translate back
            every: Any = torch.backends
            backends = (every.cuda.matmul, every.mkldnn.matmul)
            chosen = [backend.fp32_precision for backend in backends]
            try:
                for backend in backends:
                    backend.fp32_precision = "ieee"
                yield
            finally:
                for backend, value in zip(backends, chosen, strict=True):
                    backend.fp32_precision = value
        else:
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(before)


class Points:
    """Feature rows under a metric.

    Args:
        features: (N, D), taken as float32.
        metric: `cosine` or `euclidean`.
        what: What the rows are called in an error.

    Raises:
        UserError: Not a table, empty, NaN or infinite, an unknown metric, or a zero row under
            cosine.
    """

    def __init__(self, features: Tensor, metric: Metric, what: str = "") -> None:
        if metric not in ("cosine", "euclidean"):
            raise UserError(f"metric is 'cosine' or 'euclidean', got {metric!r}")
        values = torch.as_tensor(features).detach().to(torch.float32)
        name = f"{what} features".strip()
        if values.ndim != 2 or 0 in values.shape:
            raise UserError(
                f"{name} must be a table (images, dimensions) with rows, got shape "
                f"{tuple(values.shape)}"
            )
        self.values = values.contiguous()
        self.metric = metric
        parts = torch.split(self.values, self._step())
        norms = torch.cat([part.double().square().sum(dim=1).sqrt() for part in parts])
        bad = (~torch.isfinite(norms)).nonzero()
        if len(bad):
            raise UserError(
                f"{len(bad)} of {len(values)} {name} hold NaN or infinite values, the first is row "
                f"{int(bad[0])}; extract them again in float32"
            )
        zero = (norms == 0.0).nonzero()
        if metric == "cosine" and len(zero):
            raise UserError(
                f"row {int(zero[0])} of the {name} is all zeros, which has no cosine; "
                "check the model that made it or use metric='euclidean'"
            )
        self.scale = (1.0 / norms)[:, None] if metric == "cosine" else None

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.values.device

    def _step(self) -> int:
        most = _AT_ONCE.get(self.values.device.type, _ELSEWHERE)
        return max(1, most // int(self.values.shape[1]))

    def rows(self, index: Tensor | slice) -> Tensor:
        """Return the rows of an index (P,) in float64, normalised under cosine, (P, D)."""
        # half the time of indexing with a tensor
        taken = (
            self.values[index] if isinstance(index, slice) else self.values.index_select(0, index)
        )
        found = taken.double()
        return found if self.scale is None else found.mul_(self.scale[index])

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield all rows in float64, a few at a time, with where they stand."""
        step = 8 * self._step()
        for start in range(0, len(self), step):
            block = slice(start, min(start + step, len(self)))
            yield block, self.rows(block)

    def from_squared(self, squared: Tensor) -> Tensor:
        """Turn squared Euclidean distances between `rows` into this metric, in float32."""
        if self.metric == "cosine":
            half = squared * 0.5
            return torch.where(half < NEGLIGIBLE, 0.0, half).to(torch.float32)
        return squared.sqrt().to(torch.float32)

    def squared(self, distance: Tensor) -> Tensor:
        """Turn distances of this metric into squared Euclidean ones between `rows`, float64."""
        wide = distance.double()
        return 2.0 * wide if self.metric == "cosine" else wide.square()


def listed_distances(query: Points, index: Tensor, gallery: Points, columns: Tensor) -> Tensor:
    """Return the distances of each query row to its own list of gallery rows.

    Args:
        query: (N, D).
        index: (P,) rows of `query`.
        gallery: (G, D) under the same metric.
        columns: (P, m) rows of `gallery`.

    Returns:
        (P, m) float32.
    """
    found = torch.empty(columns.shape, dtype=torch.float32, device=gallery.device)
    step = max(1, query._step() // max(1, columns.shape[1]))
    for start in range(0, len(index), step):
        block = slice(start, start + step)
        listed = columns[block]
        difference = gallery.rows(listed.flatten()).view(*listed.shape, -1)
        difference.sub_(query.rows(index[block])[:, None, :])
        found[block] = query.from_squared(difference.square_().sum(dim=2))
    return found
