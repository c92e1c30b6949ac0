"""How far apart the counted pairs of an evaluation are: one person's, and two persons'."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.evaluation.features import Features
from reid.evaluation.verification import count_pairs, verify

_GRID = np.concatenate([[0.0], np.geomspace(1e-6, 1e6, 200)]).astype(np.float32)
_BINS = 80
_BETWEEN = 12


@dataclass(frozen=True)
class Threshold:
    """A distance below which two images are taken for one person.

    Attributes:
        rate: Highest share of wrong pairs to accept, in fractions of 1.
        distance: Pairs nearer than this are accepted.
        fpr: Share of wrong pairs that it does accept, in fractions of 1.
        tpr: Share of true pairs accepted, in fractions of 1.
        accepted: Number of wrong pairs accepted.
    """

    rate: float
    distance: float
    fpr: float
    tpr: float
    accepted: int


@dataclass(frozen=True)
class PairDistances:
    """The pairs of an evaluation by their distance.

    Attributes:
        edges: (B + 1,) edges of the bins, ascending.
        same: (B,) pairs of one person in each bin.
        different: (B,) pairs of two persons, distractors included.
        genuine: Number of pairs of one person.
        impostors: Number of pairs of two persons.
        thresholds: One per rate that the pairs are enough for, by ascending rate.
        curve: (2, P) shares of wrong and of true pairs accepted, both ascending.
    """

    edges: NDArray[np.float64]
    same: NDArray[np.int64]
    different: NDArray[np.int64]
    genuine: int
    impostors: int
    thresholds: list[Threshold]
    curve: NDArray[np.float64]

    def at(self, rate: float) -> Threshold | None:
        """Return the threshold of a rate, None where the pairs are too few to tell."""
        return next((found for found in self.thresholds if found.rate == rate), None)


def pair_distances(
    query: Features, gallery: Features, rates: list[float], **options: Any
) -> PairDistances:
    """Count pairs by distance and find the threshold of each rate.

    Args:
        query: Features of the queries.
        gallery: Features of the gallery.
        rates: False positive rates to find thresholds for, in fractions of 1.
        **options: Arguments of `verify`.
    """
    coarse = count_pairs(query, gallery, _GRID, **options)
    nearer = coarse.genuine_below + coarse.impostors_below
    low = _GRID[max(0, int(np.searchsorted(nearer, 0, side="right")) - 1)]
    high = _GRID[int(np.searchsorted(nearer, nearer[-1]))]
    wanted = sorted(rate for rate in rates if rate * coarse.impostors >= 1.0)
    exact = verify(query, gallery, wanted, **options) if wanted else None
    marks = np.zeros(0, np.float32) if exact is None else exact.thresholds
    # the left end of the curve needs steps finer than those of the bins
    ends = zip([low, *marks], marks, strict=False)
    fine = np.concatenate([np.linspace(a, b, _BETWEEN, dtype=np.float32) for a, b in ends]
                          or [marks])  # fmt: skip
    bins = np.unique(np.linspace(low, high, _BINS + 1, dtype=np.float32))
    edges = np.unique(np.concatenate([bins, fine]))
    found = count_pairs(query, gallery, edges, **options)
    genuine, impostors = found.genuine, found.impostors
    shares = [found.impostors_below / max(1, impostors), found.genuine_below / genuine]
    curve = np.concatenate([np.zeros((2, 1)), np.stack(shares), np.ones((2, 1))], axis=1)
    thresholds = []
    if exact is not None:
        columns = (exact.rates, exact.thresholds, exact.fpr, exact.tpr, exact.false)
        thresholds = [
            Threshold(float(rate), float(distance), float(fpr), float(tpr), int(accepted))
            for rate, distance, fpr, tpr, accepted in zip(*columns, strict=True)
        ]
    places = np.searchsorted(edges, bins)
    same, different = found.genuine_below[places], found.impostors_below[places]
    # a rounded distance may lie below zero
    same[0] = different[0] = 0
    return PairDistances(
        edges=bins.astype(np.float64),
        same=np.diff(same),
        different=np.diff(different),
        genuine=genuine,
        impostors=impostors,
        thresholds=thresholds,
        curve=curve,
    )
