"""The Jaccard distance of k-reciprocal encodings, sparse.

Zhong et al., CVPR 2017, equation 10: with rows of V that sum to 1 and m = sum_t min(V_it, V_jt)

    J_ij = 1 - m / (2 - m)

It is 1 wherever two rows share no column, and such pairs are not stored.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from reid.clustering.distances import Metric, Points
from reid.clustering.k_reciprocal import Variant, encode

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
        chunk: Rows of a tile of the neighbour search.
        device: Where to search neighbours; None takes the device of the features.

    Returns:
        (N, N) CSR float32, symmetric, columns ascending. What is not stored is 1; the zeros of the
        diagonal and of equal images are stored.

    Raises:
        UserError: As `reid.clustering.neighbours.neighbours` and `encode`.
    """
    values = torch.as_tensor(features)
    points = Points(values if device is None else values.to(device), metric)
    weights = encode(points, k1, k2, variant=variant, chunk=chunk).weights
    return _mirrored(_upper(weights))


def distance_of(mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn shared mass into Jaccard distance; rounding may leave a mass just above 1."""
    return np.maximum(1.0 - mass / (2.0 - mass), 0.0)


def shared_mass(
    rows: sparse.csr_array,
    columns: sparse.csc_array,
    start: NDArray[np.int64] | None = None,
    first: int = 0,
) -> NDArray[np.float64]:
    """Return m of a block of rows with many rows, (B, N - first), as dense numbers.

    Args:
        rows: (B, T) CSR.
        columns: (N, T) CSC of the many rows, indices ascending.
        start: For each entry of `rows` where to begin in its column of `columns`; None begins at
            the top.
        first: The result begins at this one of the many rows.
    """
    width = columns.shape[0] - first
    if start is None:
        start = columns.indptr[:-1].astype(np.int64)[rows.indices]
    length = columns.indptr[1:].astype(np.int64)[rows.indices] - start
    ends = np.cumsum(length)
    start = start - (ends - length)
    shift = np.repeat(np.arange(rows.shape[0]) * width - first, np.diff(rows.indptr))
    total = np.zeros(rows.shape[0] * width)
    done, pairs = 0, 0
    while done < len(length):
        stop = max(done + 1, int(np.searchsorted(ends, pairs + _PAIRS, side="right")))
        entry = np.repeat(np.arange(done, stop), length[done:stop])
        place = np.arange(pairs, pairs + len(entry)) + start[entry]
        smaller = np.minimum(rows.data[entry], columns.data[place])
        # a whole block in one call where it can be: each call makes a dense array
        total += np.bincount(shift[entry] + columns.indices[place], smaller, minlength=len(total))
        done, pairs = stop, int(ends[stop - 1])
    return total.reshape(rows.shape[0], width)


def _upper(weights: sparse.csr_array) -> sparse.csr_array:
    """Return the entries below 1 on and above the diagonal, CSR float32."""
    count = weights.shape[0]
    columns = weights.tocsc()
    # an entry of row i begins at itself in its column, so that only rows from i on are met
    number = sparse.csr_array(
        (np.arange(weights.nnz), weights.indices, weights.indptr), shape=weights.shape
    )
    start = np.empty(weights.nnz, dtype=np.int64)
    start[number.tocsc().data] = np.arange(weights.nnz)
    met = np.cumsum(columns.indptr[1:].astype(np.int64)[weights.indices] - start)
    met = np.concatenate([[0], met])[weights.indptr]
    data, indices, counts = [], [], []
    first = 0
    while first < count:
        last = int(np.searchsorted(met, met[first] + _PAIRS, side="right")) - 1
        last = min(max(last, first + 1), first + max(1, _SUMS // (count - first)), count)
        entries = slice(weights.indptr[first], weights.indptr[last])
        mass = shared_mass(weights[first:last], columns, start[entries], first)
        row, column = np.divmod(np.flatnonzero(mass), count - first)
        data.append(distance_of(mass[row, column]).astype(np.float32))
        indices.append((column + first).astype(np.int32))
        counts.append(np.bincount(row, minlength=last - first))
        first = last
    ends = np.cumsum(np.concatenate(counts))
    return sparse.csr_array(
        (np.concatenate(data), np.concatenate(indices), _pointers(ends)), shape=(count, count)
    )


def _mirrored(upper: sparse.csr_array) -> sparse.csr_array:
    """Return the symmetric matrix of an upper triangle, stored zeros kept."""
    count = upper.shape[0]
    lower = upper.T.tocsr()
    # the diagonal is in both; a sum of matrices would drop the stored zeros
    kept = np.diff(lower.indptr) - 1
    own = np.diff(upper.indptr)
    start = _pointers(np.cumsum(kept + own))
    below = np.ones(lower.nnz, dtype=bool)
    below[lower.indptr[1:] - 1] = False
    here = np.zeros(int(start[-1]), dtype=bool)
    here[_ranges(start[:-1], kept)] = True
    data = np.empty(len(here), dtype=upper.data.dtype)
    indices = np.empty(len(here), dtype=upper.indices.dtype)
    data[here], indices[here] = lower.data[below], lower.indices[below]
    data[~here], indices[~here] = upper.data, upper.indices
    return sparse.csr_array((data, indices, start), shape=(count, count))


def _pointers(ends: NDArray[np.int64]) -> NDArray:
    """Return CSR row pointers, in 32 bits where they fit, as the column indices are."""
    pointers = np.concatenate([[0], ends])
    return pointers.astype(np.int32) if ends[-1] < 2**31 else pointers


def _ranges(start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return start_i, start_i + 1, .. of `length_i` numbers, one after another."""
    ends = np.cumsum(length)
    return np.arange(ends[-1]) + np.repeat(start - (ends - length), length)
