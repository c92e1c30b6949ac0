"""DBSCAN on a sparse distance."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from reid.errors import UserError


def dbscan(distance: sparse.csr_array, eps: float, min_samples: int = 4) -> NDArray[np.int64]:
    """Cluster rows by the density of their neighbours (Ester et al., KDD 1996).

    Args:
        distance: (N, N) symmetric, such as `jaccard_distance` returns: its zeros are stored, and
            what is not stored is farther than `eps`.
        eps: Rows up to this far are neighbours; below 1, the Jaccard distance that is not stored.
        min_samples: Neighbours, itself included, that make a row a core of a cluster.

    Returns:
        (N,) cluster of each row from 0, in the order of the first core; -1 is an outlier. The
        labels are those of scikit-learn on the dense matrix.

    Raises:
        UserError: `eps` is not between 0 and 1, or `min_samples` is below 1.
    """
    if not 0.0 < eps < 1.0:
        raise UserError(
            f"eps must lie between 0 and 1, got {eps}: pairs at Jaccard distance 1 are not stored"
        )
    if min_samples < 1:
        raise UserError(f"min_samples must be at least 1, got {min_samples}")
    # imported here: it takes half a second
    from sklearn.cluster import DBSCAN

    near = distance.data <= eps
    start = np.concatenate([[0], np.cumsum(near)])[distance.indptr]
    graph = sparse.csr_matrix(
        (distance.data[near], distance.indices[near], start), shape=distance.shape
    )
    clusters = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
    return clusters.fit(_by_distance(graph)).labels_.astype(np.int64)


def _by_distance(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """Sort each row by distance, as scikit-learn wants its graphs."""
    row = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    order = np.lexsort((graph.indices, graph.data, row))
    return sparse.csr_matrix(
        (graph.data[order], graph.indices[order], graph.indptr), shape=graph.shape
    )
