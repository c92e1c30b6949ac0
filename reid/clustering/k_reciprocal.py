"""The k-reciprocal encoding: each image as a sparse, weighted set of images.

Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017. With
N(i, n) the n nearest rows of i, of which i itself is the first, and h = round(k1 / 2):

    R(i)  = { j in N(i, k1 (+1)) : i in N(j, k1 (+1)) }
    H(c)  = { j in N(c, h + 1)   : c in N(j, h + 1) }
    R*(i) = R(i) united with H(c) for every c in R(i) with |H(c) & R(i)| > 2/3 |H(c)|
    V_ij  = exp(-w_ij) / sum over R*(i),   j in R*(i), 0 elsewhere
    V_i  <- mean of V_j over N(i, k2)

Public codes differ in two points, so the variant has a name:

    zhong            k1 + 1 nearest rows; w_ij = |i - j|^2 / max_m |i - m|^2
    cluster-contrast k1 nearest rows; w_ij = |i - j|^2. The one of fastreid's distance module and of
                     Cluster Contrast, PPLR and others, written there as a softmax

Rounding is `numpy.around`'s, half to even: k1 = 25 gives h = 12, k1 = 27 gives 14.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from reid.clustering.distances import Points, full_precision, listed_distances
from reid.clustering.neighbours import Neighbours, search
from reid.errors import UserError

Variant = Literal["zhong", "cluster-contrast"]


@dataclass(frozen=True)
class Encoding:
    """The encoded rows.

    Attributes:
        weights: (N, N) CSR float64, V: rows sum to 1, columns ascending.
        farthest: (N,) float64, the largest squared distance of each row; None where the variant
            does not use it.
    """

    weights: sparse.csr_array
    farthest: NDArray[np.float64] | None


def encode(
    points: Points,
    k1: int,
    k2: int,
    *,
    variant: Variant = "zhong",
    chunk: int = 2048,
) -> Encoding:
    """Encode every row by its k-reciprocal neighbours.

    Args:
        points: (N, D); squared distances are those of the normalised rows under cosine.
        k1: Neighbours of the reciprocal sets.
        k2: Neighbours of the query expansion, itself included; 1 leaves it out.
        variant: Which of the public definitions.
        chunk: Rows of a tile of the neighbour search.

    Returns:
        The sparse weights; with k1 = 20 to 30 a row has about a hundred.

    Raises:
        UserError: `k1` or `k2` below 1, k2 above k1, or an unknown variant.
    """
    if variant not in ("zhong", "cluster-contrast"):
        raise UserError(f"variant is 'zhong' or 'cluster-contrast', got {variant!r}")
    if not 1 <= k2 <= k1:
        raise UserError(f"k1 and k2 must satisfy 1 <= k2 <= k1, got k1={k1} and k2={k2}")
    zhong = variant == "zhong"
    size = k1 + 1 if zhong else k1
    near, far = search(points, points, size, chunk=chunk, farthest=zhong)
    indices = _itself_first(near.indices.cpu().numpy())
    sets = _expanded(indices, int(np.around(k1 / 2)) + 1)
    squared = _squared_distances(points, near, sets)
    farthest = None
    if far is not None:
        farthest = points.squared(far).cpu().numpy()
        # all rows alike: every distance is 0 then
        squared /= np.repeat(np.where(farthest > 0.0, farthest, 1.0), np.diff(sets.indptr))
    weights = _normalised(sets, squared)
    if k2 > 1:
        chosen = indices[:, :k2]
        weights = _indicator(chosen) @ weights
        weights.data /= chosen.shape[1]
        weights.sort_indices()
    return Encoding(weights, farthest)


def _itself_first(lists: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put each row in front of its copies; one with too many copies is in its list at last."""
    own = np.arange(len(lists))[:, None]
    here = lists == own
    here[~here.any(axis=1), -1] = True
    lists = np.take_along_axis(lists, np.argsort(~here, axis=1, kind="stable"), axis=1)
    lists[:, :1] = own
    return lists


def _indicator(lists: NDArray[np.int64]) -> sparse.csr_array:
    """Return the (N, N) matrix with a one at (i, j) where j is in the list of i."""
    count, width = lists.shape
    start = np.arange(0, count * width + 1, width, dtype=np.int32)
    ones = np.ones(count * width)
    return sparse.csr_array((ones, lists.ravel().astype(np.int32), start), shape=(count, count))


def _reciprocal(lists: NDArray[np.int64]) -> sparse.csr_array:
    near = _indicator(lists)
    return near.multiply(near.T).tocsr()


def _expanded(indices: NDArray[np.int64], half: int) -> sparse.csr_array:
    """Return R* as the pattern of a CSR matrix with ascending columns."""
    own = _reciprocal(indices)
    close = _reciprocal(indices[:, :half])
    shared = (own @ close.T.tocsr()).multiply(own).tocoo()
    size = np.diff(close.indptr)
    # 3 |H & R| > 2 |H| in whole numbers
    joins = 3 * shared.data > 2 * size[shared.col]
    pairs = (np.ones(int(joins.sum())), (shared.row[joins], shared.col[joins]))
    joined = sparse.csr_array(pairs, shape=own.shape)
    sets = (own + joined @ close).tocsr()
    sets.sort_indices()
    return sets


def _squared_distances(
    points: Points, near: Neighbours, sets: sparse.csr_array
) -> NDArray[np.float64]:
    """Return the squared distances of the entries of a pattern: looked up, else computed."""
    count = len(points)
    row = np.repeat(np.arange(count, dtype=np.int64), np.diff(sets.indptr))
    wanted = row * count + sets.indices
    first = np.arange(count, dtype=np.int64)[:, None] * count
    known, order = torch.sort((near.indices.cpu() + torch.from_numpy(first)).flatten())
    place = np.searchsorted(known.numpy(), wanted).clip(max=len(known) - 1)
    distance = near.distances.cpu().flatten()[order].numpy()[place]
    missing = np.flatnonzero(known.numpy()[place] != wanted)
    if len(missing):
        index = torch.from_numpy(row[missing]).to(points.device)
        column = torch.from_numpy(sets.indices[missing].astype(np.int64)).to(points.device)
        with full_precision(points.device):
            found = listed_distances(points, index, points, column[:, None])[:, 0]
        distance[missing] = found.cpu().numpy()
    return points.squared(torch.from_numpy(distance)).numpy()


def _normalised(sets: sparse.csr_array, exponent: NDArray[np.float64]) -> sparse.csr_array:
    """Return exp(-exponent) with rows that sum to 1; each row holds itself, with 1."""
    start = sets.indptr[:-1]
    lengths = np.diff(sets.indptr)
    values = np.exp(-exponent)
    values /= np.repeat(np.add.reduceat(values, start), lengths)
    return sparse.csr_array((values, sets.indices, sets.indptr), shape=sets.shape)
