"""Contenders for the k-reciprocal Jaccard distance, and the features they get.

Two public formulations are written anew from their definitions, dense as they are: Zhong's in NumPy
and the one of Cluster Contrast, PPLR and fastreid's distance module with torch products. Both hold
several N x N arrays and fill them in a loop over the rows. Each call returns a few distances, so
that the results can be compared.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SAMPLE = 64
"""Rows whose distances to the first `SAMPLE` rows are returned."""
Call = Callable[[], list[list[float]]]


def features(count: int, width: int) -> Tensor:
    """Draw L2-normalised features of persons seen by 15 cameras, 31 images of each person.

    64 numbers, to whose variance a person gives 1, the camera and the image 0.5 each, go through
    random weights and ReLU.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    pids = torch.arange(count) % max(2, count // 31)
    cameras = torch.randint(0, 15, (count,), generator=generator)
    hidden = draw(int(pids.max()) + 1, 64)[pids] + 0.5**0.5 * (draw(15, 64)[cameras])
    hidden += 0.5**0.5 * draw(count, 64)
    weights = draw(64, width) / 8.0
    found = torch.empty(count, width)
    for start in range(0, count, 1024):
        part = hidden[start : start + 1024] @ weights
        found[start : start + 1024] = torch.relu(part + 0.3 * draw(*part.shape))
    return torch.nn.functional.normalize(found)


def ours(count: int, width: int, k1: int, k2: int, variant: str, below: float = 1.0) -> Call:
    """The sparse distance of this package."""
    from reid.clustering.jaccard import jaccard_distance

    rows = features(count, width)

    def call() -> list[list[float]]:
        found = jaccard_distance(rows, k1, k2, variant=variant, below=below)  # type: ignore[arg-type]
        dense = np.ones((SAMPLE, SAMPLE), dtype=np.float32)
        part = found[:SAMPLE].tocoo()
        near = part.col < SAMPLE
        dense[part.row[near], part.col[near]] = part.data[near]
        return dense.tolist()

    return call


def zhong_numpy(count: int, width: int, k1: int, k2: int) -> Call:
    """Zhong's formulation: NumPy, whole rows sorted."""
    rows = features(count, width).numpy()

    def call() -> list[list[float]]:
        lengths = np.square(rows).sum(axis=1)
        distance = lengths[:, None] + lengths - 2.0 * (rows @ rows.T)
        distance = (distance / distance.max(axis=0)).T
        rank = np.argsort(distance).astype(np.int32)
        half = int(np.around(k1 / 2))
        weights = np.zeros_like(distance)
        for i in range(count):
            own = _reciprocal(rank, i, k1)
            every = own
            for other in own:
                close = _reciprocal(rank, other, half)
                if len(np.intersect1d(close, own)) > 2 / 3 * len(close):
                    every = np.append(every, close)
            every = np.unique(every)
            similar = np.exp(-distance[i, every])
            weights[i, every] = similar / similar.sum()
        return _jaccard(_averaged(weights, rank, k2)).tolist()

    return call


def torch_products(count: int, width: int, k1: int, k2: int) -> Call:
    """The formulation of Cluster Contrast and PPLR: neighbours and weights from torch."""
    rows = features(count, width)

    def call() -> list[list[float]]:
        # in pieces, as a library of exact search does
        pieces = [(part @ rows.t()).topk(k1, dim=1).indices for part in rows.split(1024)]
        rank = torch.cat(pieces).numpy()
        half = int(np.around(k1 / 2))
        own_sets = [_reciprocal(rank, i, k1) for i in range(count)]
        close_sets = [_reciprocal(rank, i, half) for i in range(count)]
        weights = np.zeros((count, count), dtype=np.float32)
        for i, own in enumerate(own_sets):
            every = own
            for other in own:
                close = close_sets[other]
                if len(np.intersect1d(close, own)) > 2 / 3 * len(close):
                    every = np.append(every, close)
            every = np.unique(every)
            distance = 2.0 - 2.0 * (rows[i : i + 1] @ rows[torch.from_numpy(every)].t())
            weights[i, every] = torch.softmax(-distance, dim=1).numpy()
        return _jaccard(_averaged(weights, rank, k2)).tolist()

    return call


def _reciprocal(rank: NDArray, row: int, k: int) -> NDArray:
    near = rank[row, : k + 1]
    return near[np.where(rank[near, : k + 1] == row)[0]]


def _averaged(weights: NDArray, rank: NDArray, k2: int) -> NDArray:
    averaged = np.zeros_like(weights)
    for i in range(len(weights)):
        averaged[i] = weights[rank[i, :k2]].mean(axis=0)
    return averaged


def _jaccard(weights: NDArray) -> NDArray:
    """Fill all N x N distances; return the sample."""
    count = len(weights)
    having = [np.where(weights[:, t] != 0)[0] for t in range(count)]
    distance = np.zeros_like(weights)
    for i in range(count):
        smaller = np.zeros(count, dtype=np.float32)
        for t in np.where(weights[i] != 0)[0]:
            smaller[having[t]] += np.minimum(weights[i, t], weights[having[t], t])
        distance[i] = 1.0 - smaller / (2.0 - smaller)
    return np.maximum(distance, 0.0)[:SAMPLE, :SAMPLE]
