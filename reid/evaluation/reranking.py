"""k-reciprocal re-ranking: distances that also count what query and gallery image share.

Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017, equation
12, over the union of queries and gallery:

    d*(q, g) = (1 - lambda) J(q, g) + lambda w(q, g)

with J the Jaccard distance of their encodings and w the squared distance that the encoding weighs
by; under `zhong` the largest of a query's row is 1. The result is transductive: every query's
ranking depends on all other queries, which a system that answers one query at a time does not have.
"""

import torch
from torch import Tensor

from reid.clustering.distances import NEGLIGIBLE, Metric, Points, full_precision
from reid.clustering.jaccard import distance_of, shared_mass
from reid.clustering.k_reciprocal import Variant, encode
from reid.errors import UserError
from reid.evaluation.features import Features


class Reranked:
    """Re-ranked distances of queries to a gallery, a block of queries at a time.

    Attributes:
        name: The definition in words, as a result names its metric.
        shape: Numbers of queries and gallery rows.
    """

    def __init__(
        self,
        points: Points,
        queries: int,
        k1: int,
        k2: int,
        lambda_value: float,
        variant: Variant,
        chunk: int,
    ) -> None:
        encoding = encode(points, k1, k2, variant=variant, chunk=chunk)
        count = len(points)
        self.shape = queries, count - queries
        self.name = (
            f"{points.metric}, k-reciprocal re-ranking ({variant}, k1={k1}, k2={k2}, "
            f"lambda={lambda_value:g}), transductive"
        )
        self._lambda = lambda_value
        self._query_weights = encoding.weights[:queries]
        self._holders = encoding.weights[queries:].T.tocsr()
        unit = torch.ones(queries, dtype=torch.float64)
        if encoding.farthest is not None:
            unit = torch.from_numpy(encoding.farthest[:queries].copy())
        self._unit = torch.where(unit > 0.0, unit, 1.0).to(points.device)
        self._query = points.rows(slice(0, queries))
        self._gallery = points.rows(slice(queries, count))
        self._squares = self._gallery.square().sum(dim=1)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the distances of some queries, (stop - start, G) float32.

        Computed in float64 and rounded at the end, so that equal images tie.
        """
        block = slice(start, min(stop, self.shape[0]))
        query = self._query[block]
        with full_precision(self._squares.device):
            sizes = query.square().sum(dim=1, keepdim=True) + self._squares
            squared = torch.addmm(sizes, query, self._gallery.t(), alpha=-2.0)
            # what a product cannot tell from 0
            squared[squared <= NEGLIGIBLE * sizes] = 0.0
            squared.mul_((self._lambda / self._unit[block])[:, None])
            mass = shared_mass(self._query_weights[block], self._holders)
            jaccard = torch.from_numpy(distance_of(mass)).to(squared.device)
            return squared.add_(jaccard, alpha=1.0 - self._lambda).to(torch.float32)


def rerank(
    query: Features | Tensor,
    gallery: Features | Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    variant: Variant = "zhong",
    metric: Metric = "cosine",
    chunk: int = 2048,
) -> Reranked:
    """Re-rank a gallery for all queries together, exactly and without a matrix of all distances.

    Args:
        query: Features of the queries, or (Q, D).
        gallery: Features of the gallery, or (G, D).
        k1: Neighbours of the reciprocal sets.
        k2: Neighbours of the query expansion; 1 leaves it out.
        lambda_value: Share of the original distance, 0 to 1.
        variant: `zhong`, as published, or `cluster-contrast`; see `reid.clustering.k_reciprocal`.
        metric: `cosine` or `euclidean`.
        chunk: Rows of a tile of the neighbour search.

    Returns:
        The distances by blocks of queries, for `evaluate(..., blocks=...)`.

    Raises:
        UserError: `lambda_value` outside 0 to 1, codes or parts, two widths, or as
            `reid.clustering.k_reciprocal.encode`.
    """
    if not 0.0 <= lambda_value <= 1.0:
        raise UserError(
            f"lambda must lie between 0 and 1, got {lambda_value}; the usual one is 0.3"
        )
    first, second = (
        Points(_vectors(x, what), metric, what)
        for x, what in ((query, "query"), (gallery, "gallery"))
    )
    if first.values.shape[1] != second.values.shape[1]:
        raise UserError(
            f"query features have {first.values.shape[1]} dimensions and gallery features "
            f"{second.values.shape[1]}; extract both with the same model"
        )
    values = torch.cat([first.values.to(second.device), second.values])
    return Reranked(Points(values, metric), len(first), k1, k2, lambda_value, variant, chunk)


def _vectors(x: Features | Tensor, what: str) -> Tensor:
    values = x.features if isinstance(x, Features) else torch.as_tensor(x)
    if not values.is_floating_point() or values.ndim != 2:
        raise UserError(
            f"re-ranking compares one vector per image, (N, dimensions) float32; the {what} "
            f"features are {tuple(values.shape)} {values.dtype}"
        )
    return values
