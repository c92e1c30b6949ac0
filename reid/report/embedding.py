"""t-SNE of a few identities, model beside model: SUReID (arXiv 2401.07469) Fig. 4."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid._optional import require
from reid.errors import UserError
from reid.evaluation.features import Features
from reid.report.style import context, figure, to_png

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00",
    "#56B4E9", "#7f3c8d", "#8c6d31", "#1f2328", "#7f7f7f",
)  # fmt: skip


@dataclass(frozen=True)
class Cluster:
    """A plane embedding of some identities by one model.

    Attributes:
        points: (n, 2) coordinates without unit.
        labels: (n,) identity of each point, from 0.
        is_query: (n,) True for queries.
        silhouette: Mean silhouette of the identities in feature space (cosine), -1 to 1.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    is_query: NDArray[np.bool_]
    silhouette: float


def choose_identities(query: Features, gallery: Features, count: int = 10) -> list[int]:
    """Return the `count` identities with most images in both sets; smaller pid wins a tie.

    Raises:
        UserError: Fewer than two identities occur in both sets.
    """
    shared = [int(pid) for pid in np.intersect1d(query.pids, gallery.pids) if pid > 0]
    if len(shared) < 2:
        raise UserError(
            f"a t-SNE needs two identities that occur in query and gallery, found {len(shared)}"
        )
    images = {pid: int((query.pids == pid).sum() + (gallery.pids == pid).sum()) for pid in shared}
    return sorted(sorted(shared), key=lambda pid: -images[pid])[:count]


def embed(
    query: Features,
    gallery: Features,
    pids: Sequence[int],
    *,
    seed: int = 0,
    per_identity: int = 24,
) -> Cluster:
    """Embed the images of some identities in the plane.

    Args:
        query: Features of the queries.
        gallery: Features of the gallery.
        pids: Identities to show.
        seed: Seed of the embedding.
        per_identity: Most images per identity, queries first.
    """
    chosen, labels, is_query = [], [], []
    for label, pid in enumerate(pids):
        own = [(features, row, features is query) for features in (query, gallery)
               for row in np.flatnonzero(features.pids == pid)][:per_identity]  # fmt: skip
        chosen += [features.features[row].cpu().numpy() for features, row, _ in own]
        labels += [label] * len(own)
        is_query += [flag for _, _, flag in own]
    vectors = np.stack(chosen).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    if len(vectors) < 5:
        raise UserError(f"a t-SNE needs at least five images, found {len(vectors)}")
    manifold, metrics = require("sklearn.manifold"), require("sklearn.metrics")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        points = manifold.TSNE(
            n_components=2,
            perplexity=min(20.0, (len(vectors) - 1) / 3.0),
            init="pca",
            learning_rate="auto",
            random_state=seed,
        ).fit_transform(vectors)
    identity = np.asarray(labels, dtype=np.int64)
    known = len(np.unique(identity))
    silhouette = (
        float(metrics.silhouette_score(vectors, identity, metric="cosine"))
        if 1 < known < len(identity)
        else float("nan")
    )
    return Cluster(points.astype(np.float64), identity, np.asarray(is_query), silhouette)


def embedding_chart(clusters: dict[str, Cluster]) -> bytes:
    """Draw one panel per model; colour and marker are the identity, rings are queries.

    Args:
        clusters: Label of the model -> its embedding.

    Returns:
        A PNG.
    """
    with context():
        made = figure(3.7 * len(clusters), 4.15, layout="constrained")
        panels = made.subplots(1, len(clusters), squeeze=False)[0]
        for axes, (label, cluster) in zip(panels, clusters.items(), strict=True):
            for identity in np.unique(cluster.labels):
                own = cluster.labels == identity
                style = {
                    "marker": _MARKERS[identity % len(_MARKERS)],
                    "edgecolors": _COLOURS[identity % len(_COLOURS)],
                    "linewidths": 1.1,
                    "s": 28,
                }
                seen, asked = own & ~cluster.is_query, own & cluster.is_query
                axes.scatter(*cluster.points[seen].T, facecolors=style["edgecolors"], **style)
                axes.scatter(*cluster.points[asked].T, facecolors="white", **style)
            axes.set_title(f"{label}\nsilhouette {cluster.silhouette:.2f}")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.margins(0.07)
            axes.set_xlabel("t-SNE 1 (no unit)")
            for side in axes.spines.values():
                side.set_visible(True)
                side.set_edgecolor("#d5d9de")
        panels[0].set_ylabel("t-SNE 2 (no unit)")
        return to_png(made)
