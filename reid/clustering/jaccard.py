"""The Jaccard distance of k-reciprocal encodings, sparse.

Zhong et al., CVPR 2017, equation 10: with rows of V that sum to 1 and m = sum_t min(V_it, V_jt)

    J_ij = 1 - m / (2 - m)

It is 1 wherever two rows share no column, and such pairs are not stored.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from reid.clustering.distances import Metric, Points
from reid.clustering.k_reciprocal import Variant, encode
from reid.errors import UserError

_ROUNDING = 2.0**-40

# pairs of entries, and dense sums, at a time: a few arrays of 8 bytes each
_PAIRS = 1 << 18
_SUMS = 1 << 19


def jaccard_distance(
    features: Tensor,
    k1: int = 30,
    k2: int = 6,
    *,
    variant: Variant = "cluster-contrast",
    metric: Metric = "cosine",
    below: float = 1.0,
    chunk: int = 2048,
    device: str | torch.device | None = None,
) -> sparse.csr_array:
    """Return the k-reciprocal Jaccard distance of every two rows, exactly.

    Args:
        features: (N, D), taken as float32.
        k1: Neighbours of the reciprocal sets.
        k2: Neighbours of the query expansion, itself included; 1 leaves it out.
        variant: `cluster-contrast` or `zhong`; see `reid.clustering.k_reciprocal`.
        metric: `cosine` or `euclidean`.
        below: Store distances below this one only. A clustering needs no larger ones than its
            `eps`, and most are close to 1.
        chunk: Rows of a tile of the neighbour search.
        device: Where to search neighbours; None takes the device of the features.

    Returns:
        (N, N) CSR float32, symmetric, columns ascending. What is not stored is `below` or more, by
        default 1; the zeros of the diagonal and of equal images are stored.

    Raises:
        UserError: `below` outside 0 to 1, or as `reid.clustering.neighbours.neighbours` and
            `reid.clustering.k_reciprocal.encode`.
    """
    if not 0.0 < below <= 1.0:
        raise UserError(f"below must lie above 0 and up to 1, got {below}")
    values = torch.as_tensor(features)
    points = Points(values if device is None else values.to(device), metric)
    weights = encode(points, k1, k2, variant=variant, chunk=chunk).weights
    return _pairs(weights, below)


def distance_of(mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn shared mass into Jaccard distance; what only rounding tells from 0 is 0."""
    found = 1.0 - mass / (2.0 - mass)
    found[found < _ROUNDING] = 0.0
    return found


def shared_mass(rows: sparse.csr_array, holders: sparse.csr_array) -> NDArray[np.float64]:
    """Return m of a block of rows with many rows, (B, N), as dense numbers.

    Args:
        rows: (B, T) encoded rows.
        holders: (T, N) the many rows, transposed: who holds a column, and with which weight.
    """
    count = holders.shape[1]
    total: Any = None
    first = np.repeat(np.arange(rows.shape[0]) * count, np.diff(rows.indptr))
    ends = np.cumsum(np.diff(holders.indptr)[rows.indices])
    done, pairs = 0, 0
    while done < len(ends):
        stop = max(done + 1, int(np.searchsorted(ends, pairs + _PAIRS, side="right")))
        met = holders[rows.indices[done:stop]]
        length = np.diff(met.indptr)
        place = met.indices + np.repeat(first[done:stop], length)
        smaller = np.minimum(met.data, np.repeat(rows.data[done:stop], length))
        found = np.bincount(place, smaller, minlength=rows.shape[0] * count)
        total = found if total is None else total + found
        done, pairs = stop, int(ends[stop - 1])
    return total.reshape(rows.shape[0], count)


def _pairs(weights: sparse.csr_array, below: float) -> sparse.csr_array:
    """Return the Jaccard distances below a bound, CSR float32."""
    count = weights.shape[0]
    holders = weights.T.tocsr()
    met = np.cumsum(np.diff(holders.indptr)[weights.indices])
    met = np.concatenate([[0], met])[weights.indptr]
    # J < below where m > 2 (1 - below) / (2 - below)
    least = 2.0 * (1.0 - below) / (2.0 - below)
    data, indices, counts = [], [], [np.zeros(1, dtype=np.int64)]
    first = 0
    while first < count:
        last = int(np.searchsorted(met, met[first] + _PAIRS, side="right")) - 1
        last = max(first + 1, min(last, first + _SUMS // count, count))
        mass = shared_mass(weights[first:last], holders).ravel()
        # four times as fast as the places of a table
        place = np.flatnonzero(mass > least)
        edges = np.arange(last - first + 1) * count
        count_of = np.diff(np.searchsorted(place, edges))
        data.append(distance_of(mass[place]).astype(np.float32))
        indices.append((place - np.repeat(edges[:-1], count_of)).astype(np.int32))
        counts.append(count_of)
        first = last
    ends = np.cumsum(np.concatenate(counts))
    # row pointers in 32 bits where they fit, as the columns are
    start = ends.astype(np.int32) if ends[-1] < 2**31 else ends
    joined = np.concatenate(data)
    del data
    return sparse.csr_array((joined, np.concatenate(indices), start), shape=(count, count))
