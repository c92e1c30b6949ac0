"""One image against another: how many pairs a distance threshold accepts, rightly and wrongly.

Pairs are all of a query and a gallery row that counts for it. A pair of one person is genuine, any
other an impostor's, and a pair is accepted where its distance is below the threshold. With k the
whole part of rate x impostor pairs, the threshold of a false positive rate is the (k+1)-th smallest
distance of an impostor pair: the largest threshold that accepts no more than k of them. It is found
by counting, not by sorting: every pass counts the impostor pairs below many thresholds and keeps
the interval between two of them, until no float32 number is left between its ends. The first pass
looks where a sample of the pairs has the rate, which mostly makes two passes do; where the sample
misleads, more of them come to the same result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid.errors import UserError
from reid.evaluation import distances
from reid.evaluation.distances import Gallery, Metric
from reid.evaluation.features import Features
from reid.evaluation.matching import Ids
from reid.evaluation.ranking import check_queries, rows_at_once
from reid.evaluation.result import STATUSES

RATES = (1e-4, 1e-3, 1e-2)
# Float32 numbers from 0 on are ordered as their bits.
_LARGEST = int(np.float32(np.finfo(np.float32).max).view(np.int32))
_WRONG = STATUSES.index("wrong")
_STEPS = 511
_SAMPLE = 1 << 20
# Standard deviations of a sample's count that the first pass looks to either side.
_DEVIATIONS = 6.0


@dataclass(frozen=True)
class Verification:
    """True positive rates at false positive rates, in fractions of 1.

    Attributes:
        rates: (F,) the false positive rates asked for.
        thresholds: (F,) pairs nearer than this are accepted.
        fpr: (F,) share of the impostor pairs accepted, at most the rate; less where pairs tie.
        tpr: (F,) share of the genuine pairs accepted.
        false: (F,) impostor pairs accepted.
        true: (F,) genuine pairs accepted.
        genuine: Number of genuine pairs.
        impostors: Number of impostor pairs.
    """

    rates: NDArray[np.float64]
    thresholds: NDArray[np.float32]
    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    false: NDArray[np.int64]
    true: NDArray[np.int64]
    genuine: int
    impostors: int


def verify(
    query: Features,
    gallery: Features,
    rates: Sequence[float] = RATES,
    *,
    metric: Metric = "cosine",
    distractor_pid: int | None = 0,
    cross_camera: bool = True,
    chunk: int = 512,
    device: str | torch.device | None = None,
    impl: str | None = None,
) -> Verification:
    """Return exact true positive rates at false positive rates, over all pairs that count.

    Args:
        query: Features of the queries.
        gallery: Features of the gallery.
        rates: False positive rates, above 0 and at most 1.
        metric: As in `evaluate`.
        distractor_pid: As in `evaluate`.
        cross_camera: As in `evaluate`.
        chunk: As in `evaluate`.
        device: As in `evaluate`.
        impl: As in `evaluate`.

    Raises:
        UserError: As `evaluate`; a rate out of range; no genuine or no impostor pair, or too few
            impostor pairs for a rate.
    """
    distances.check(query, gallery, metric)
    check_queries(query, distractor_pid)
    if not rates or not all(0.0 < rate <= 1.0 for rate in rates):
        raise UserError(f"rates are above 0 and at most 1, got {list(rates)}; try {list(RATES)}")
    pairs = _Pairs(query, gallery, metric, distractor_pid, cross_camera, chunk, device, impl)
    genuine = torch.cat([values for _, _, values in pairs.genuine()]).sort().values
    if not len(genuine) or not pairs.impostors:
        raise UserError(
            f"there are {len(genuine)} genuine and {pairs.impostors} impostor pairs; rates need "
            "both: check the identities and the camera ids"
        )
    allowed = np.floor(np.asarray(rates) * pairs.impostors * (1 + 1e-12)).astype(np.int64)
    if not allowed.all():
        raise UserError(
            f"a false positive rate of {min(rates)} needs {1 / min(rates):.0f} impostor pairs, "
            f"there are {pairs.impostors}; ask for a higher rate or add gallery images"
        )
    thresholds, false = pairs.thresholds(allowed)
    true = torch.searchsorted(genuine, torch.from_numpy(thresholds).to(genuine)).cpu().numpy()
    return Verification(
        rates=np.asarray(rates, dtype=np.float64),
        thresholds=thresholds,
        fpr=false / pairs.impostors,
        tpr=true / len(genuine),
        false=false,
        true=true,
        genuine=len(genuine),
        impostors=pairs.impostors,
    )


def threshold_at(query: Features, gallery: Features, rate: float, **options: Any) -> float:
    """Return the distance below which pairs are accepted at a false positive rate.

    Args:
        query: Features of one side, of people other than those it will be used on.
        gallery: Features of the other side.
        rate: False positive rate.
        **options: Arguments of `verify`.
    """
    return float(verify(query, gallery, [rate], **options).thresholds[0])


@dataclass(frozen=True)
class PairCounts:
    """How many pairs are nearer than each of some thresholds.

    Attributes:
        genuine_below: (T,) genuine pairs.
        impostors_below: (T,) impostor pairs.
        genuine: Number of genuine pairs.
        impostors: Number of impostor pairs.
    """

    genuine_below: NDArray[np.int64]
    impostors_below: NDArray[np.int64]
    genuine: int
    impostors: int


def count_pairs(
    query: Features,
    gallery: Features,
    thresholds: NDArray[np.float32],
    *,
    metric: Metric = "cosine",
    distractor_pid: int | None = 0,
    cross_camera: bool = True,
    chunk: int = 512,
    device: str | torch.device | None = None,
    impl: str | None = None,
) -> PairCounts:
    """Count the pairs that each threshold accepts, for histograms and curves.

    Args:
        query: Features of the queries.
        gallery: Features of the gallery.
        thresholds: (T,) float32 distances.
        metric: As in `evaluate`.
        distractor_pid: As in `evaluate`.
        cross_camera: As in `evaluate`.
        chunk: As in `evaluate`.
        device: As in `evaluate`.
        impl: As in `evaluate`.

    Raises:
        UserError: As `evaluate`.
    """
    distances.check(query, gallery, metric)
    check_queries(query, distractor_pid)
    pairs = _Pairs(query, gallery, metric, distractor_pid, cross_camera, chunk, device, impl)
    genuine = torch.cat([values for _, _, values in pairs.genuine()]).sort().values
    below = torch.searchsorted(genuine, torch.from_numpy(thresholds).to(genuine))
    return PairCounts(below.cpu().numpy(), pairs.below(thresholds), len(genuine), pairs.impostors)


class _Pairs:
    def __init__(
        self,
        query: Features,
        gallery: Features,
        metric: Metric,
        distractor_pid: int | None,
        cross_camera: bool,
        chunk: int,
        device: str | torch.device | None,
        impl: str | None,
    ) -> None:
        place = torch.device(device) if device is not None else gallery.features.device
        self._ids = Ids(query, gallery, distractor_pid, cross_camera, place)
        self._gallery: Gallery = distances.gallery_of(
            gallery, metric, place, countable=self._ids.countable, impl=impl
        )
        self._rows = distances.rows_of(query, place)
        self._step = rows_at_once(self._gallery, chunk)
        left_out = sum(len(x.query) for start in self._starts() for x in self._ids.pairs(start))
        self.impostors = len(query) * int(self._ids.countable.sum()) - left_out

    def _starts(self) -> list[slice]:
        return [slice(s, s + self._step) for s in range(0, len(self._rows), self._step)]

    def genuine(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return rows and distances of the genuine pairs of each block."""
        found = []
        for block in self._starts():
            matches = self._ids.pairs(block)[0]
            values = self._gallery.distances(self._rows[block], *matches)
            found.append((*matches, values))
        return found

    def below(self, thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return how many impostor pairs are nearer than each threshold, (F,)."""
        order = np.argsort(thresholds, kind="stable")
        table = torch.from_numpy(thresholds[order]).to(self._rows.device)
        total = np.zeros(len(thresholds), dtype=np.int64)
        for block in self._starts():
            q = self._rows[block]
            both = [torch.cat(parts) for parts in zip(*self._ids.pairs(block), strict=True)]
            sort = both[0].argsort(stable=True)
            excluded = both[0][sort], both[1][sort]
            places = self._gallery.places(q, table.repeat(len(q), 1), excluded=excluded)
            total[order] += places.less.sum(dim=0).cpu().numpy()
        return total

    def thresholds(
        self, allowed: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return for each k the (k+1)-th smallest distance of an impostor pair, and the nearer."""
        # below(low) = count <= k always; below(high) > k, or high is beyond all numbers
        low, count = np.zeros((2, len(allowed)), dtype=np.int64)
        high = np.full(len(allowed), _LARGEST + 1)
        first, last = self._guess(allowed)
        while (high - low > 1).any():
            inner = np.linspace(first, last, _STEPS, dtype=np.int64, axis=1)
            counts = self.below(inner.astype(np.int32).view(np.float32).ravel())
            counts = counts.reshape(inner.shape)
            few = (counts <= allowed[:, None]).sum(axis=1)
            rows = np.arange(len(allowed))
            fits, exceeds = few > 0, few < _STEPS
            low[fits] = inner[rows, few - 1][fits]
            count[fits] = counts[rows, few - 1][fits]
            high[exceeds] = inner[rows, np.minimum(few, _STEPS - 1)][exceeds]
            first, last = _within(low, high)
        return low.astype(np.int32).view(np.float32), count

    def _guess(self, allowed: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the bits of the numbers between which each threshold probably is."""
        generator = torch.Generator().manual_seed(0)
        queries, size = len(self._rows), len(self._gallery)
        each = min(size, -(-_SAMPLE // queries))
        columns = torch.randint(0, size, (queries, each), generator=generator)
        columns = columns.to(self._rows.device)
        drawn = []
        for block in self._starts():
            rows, places = (self._ids.status(block, columns[block]) == _WRONG).nonzero().unbind(1)
            drawn.append(
                self._gallery.distances(self._rows[block], rows, columns[block][rows, places])
            )
        bits = torch.cat(drawn).sort().values.cpu().numpy().view(np.int32).astype(np.int64)
        if len(bits) == 0:
            return _within(np.zeros_like(allowed), np.full_like(allowed, _LARGEST + 1))
        place = allowed / self.impostors * len(bits)
        reach = _DEVIATIONS * np.sqrt(place) + _DEVIATIONS
        ends = [
            np.clip(place + side * reach, 0, len(bits) - 1).astype(np.int64) for side in (-1, 1)
        ]
        return np.maximum(bits[ends[0]], 1), np.maximum(bits[ends[1]], 1)


def _within(
    low: NDArray[np.int64], high: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last number to try strictly between two; none: `low` itself."""
    step = np.maximum((high - low) // (_STEPS + 1), 1)
    return np.minimum(low + step, np.maximum(high - 1, low)), np.maximum(high - step, low)
