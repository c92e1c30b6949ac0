"""Calls of the C++ kernels of ranking."""

import math

import torch
from torch import Tensor

from kernels import _backend
from kernels._cpu import build
from kernels._eager.ranking import Places

METRICS = {"cosine": 0, "euclidean": 1, "hamming": 2}
_PANEL = 64
_CHUNK = 4096


def reasons(features: Tensor, metric: str) -> list[str]:
    """List why these kernels cannot serve a gallery; empty when they can."""
    if metric not in METRICS:
        return [f"the metric is {metric}, the C++ kernels know {', '.join(METRICS)}"]
    return _backend.cpu_reasons(features.device)


class Gallery:
    """As `kernels._eager.ranking.Gallery`; what it computes is prepared once.

    Rows are centred at their mean, which moves no distance and makes scores in float32 as exact as
    the spread of the rows allows, however far from zero they lie.
    """

    def __init__(self, features: Tensor, metric: str, countable: Tensor | None) -> None:
        self.features = features.contiguous()
        self.metric = metric
        self.countable = None if countable is None else countable.contiguous()
        self._extension = build.load()
        if metric == "hamming":
            return
        rows, width = features.shape
        self._norms = self._norms_of(self.features)
        self._divisors = self._norms if metric == "cosine" else None
        self._centre = self._mean()
        largest = float(self._norms.max()) if metric == "euclidean" else 1.0
        # A power of two, so that no row leaves the range of float32.
        self._scale = 2.0 ** -math.ceil(math.log2(largest)) if 0.0 < largest < math.inf else 1.0
        padded = -(-rows // _PANEL) * _PANEL
        self._panels = features.new_empty(padded, width)
        self._bias = features.new_empty(padded)
        lengths = self._centred(self.features, self._divisors, self._panels, self._bias)
        self._longest = float(lengths.max())

    def distances(self, queries: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the distances (P,) of pairs of a query and a row of the gallery."""
        out = torch.empty(len(rows), dtype=torch.float32)
        rows, columns = rows.contiguous(), columns.contiguous()
        kept, numbers = self._sets(queries, scan=False)
        self._extension.ranking_pairs(
            *numbers, rows.data_ptr(), columns.data_ptr(), len(rows), out.data_ptr()
        )
        del kept
        return out

    def places(
        self,
        queries: Tensor,
        thresholds: Tensor,
        columns: Tensor,
        sizes: Tensor,
        excluded: tuple[Tensor, Tensor] | None,
        top: int,
    ) -> Places:
        """Count and list; arguments and results as in `kernels._eager.ranking`."""
        count, most = thresholds.shape
        thresholds, columns, sizes = (x.contiguous() for x in (thresholds, columns, sizes))
        kept, numbers = self._sets(queries, scan=True)
        starts = others = None
        if excluded is not None:
            starts = torch.zeros(count + 1, dtype=torch.int64)
            starts[1:] = torch.bincount(excluded[0], minlength=count).cumsum(0)
            others = excluded[1].contiguous()
        less, equal, earlier = torch.empty(3, count, most, dtype=torch.int64)
        nearest = torch.empty(count, top, dtype=torch.int64)
        distances = torch.empty(count, top, dtype=torch.float32)
        self._extension.ranking_places(
            *numbers,
            thresholds.data_ptr(),
            columns.data_ptr(),
            sizes.data_ptr(),
            most,
            _address(self.countable),
            _address(others),
            _address(starts),
            less.data_ptr(),
            equal.data_ptr(),
            earlier.data_ptr(),
            top,
            nearest.data_ptr(),
            distances.data_ptr(),
        )
        del kept
        return Places(less, equal, earlier, nearest, distances)

    def _norms_of(self, x: Tensor) -> Tensor:
        norms = torch.empty(len(x), dtype=torch.float64)
        self._extension.ranking_norms(x.data_ptr(), *x.shape, norms.data_ptr())
        return norms

    def _mean(self) -> Tensor:
        total = torch.zeros(self.features.shape[1], dtype=torch.float64)
        for start in range(0, len(self.features), _CHUNK):
            part = self.features[start : start + _CHUNK].double()
            if self._divisors is not None:
                part /= self._divisors[start : start + _CHUNK, None]
            total += part.sum(dim=0)
        return total / len(self.features)

    def _centred(self, x: Tensor, norms: Tensor | None, out: Tensor, bias: Tensor | None) -> Tensor:
        lengths = torch.empty(len(x), dtype=torch.float64)
        self._extension.ranking_centre(
            x.data_ptr(),
            *x.shape,
            _address(norms),
            self._centre.data_ptr(),
            self._scale,
            out.data_ptr(),
            lengths.data_ptr(),
            _address(bias),
        )
        return lengths

    def _sets(self, queries: Tensor, scan: bool) -> tuple[list[Tensor], list[int | float]]:
        """Return tensors to be kept alive during a call, and the numbers that tell of them."""
        queries = queries.contiguous()
        shape = [METRICS[self.metric], queries.data_ptr(), self.features.data_ptr(), len(queries)]
        shape += [*self.features.shape]
        if self.metric == "hamming":
            return [queries], [*shape, 0, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0]
        norms = self._norms_of(queries)
        if not scan:
            rest: list[int | float] = [0, 0, 0, 0, 0.0, 0.0, 0.0]
            return [queries, norms], [*shape, norms.data_ptr(), self._norms.data_ptr(), *rest]
        centred = torch.empty_like(queries)
        lengths = self._centred(queries, norms if self.metric == "cosine" else None, centred, None)
        return [queries, norms, centred, lengths], [
            *shape,
            norms.data_ptr(),
            self._norms.data_ptr(),
            centred.data_ptr(),
            lengths.data_ptr(),
            self._panels.data_ptr(),
            self._bias.data_ptr(),
            self._longest,
            float(self._norms.max()),
            self._scale,
        ]


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()
