"""Scores of parts of an evaluation: queries by label, and pairs of cameras."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reid.errors import UserError
from reid.evaluation.features import Features
from reid.evaluation.ranking import evaluate
from reid.evaluation.result import RankingResult


def slices(result: RankingResult, labels: ArrayLike) -> dict[Any, RankingResult]:
    """Split an evaluation by a label of each query: camera, occlusion level, attribute.

    The galleries stay whole: a slice says how well its queries are found among everybody.

    Args:
        result: An evaluation.
        labels: (Q,) one label per query; queries labelled None, "" or NaN are in no slice.

    Returns:
        Label -> the evaluation of its queries, in the order of the labels. Scores are NaN where all
        queries of a slice were skipped.

    Raises:
        UserError: Not one label per query.
    """
    found = np.asarray(labels)
    count = len(result.query_pids)
    if found.shape != (count,):
        raise UserError(
            f"slices need one label per query: {count} queries, labels of shape {found.shape}"
        )
    named = [label for label in found.tolist() if label not in (None, "") and label == label]
    return {
        label: select(result, np.array([value == label for value in found.tolist()]))
        for label in _ordered(set(named))
    }


def _ordered(labels: Iterable[Any]) -> list[Any]:
    try:
        return sorted(labels)
    except TypeError:
        return sorted(labels, key=str)


def select(result: RankingResult, rows: NDArray[np.bool_]) -> RankingResult:
    """Return the evaluation of some queries.

    Args:
        result: An evaluation.
        rows: (Q,) bool.
    """
    table = result.per_query.select(rows)
    valid = table.valid
    scores = (
        float(values[valid].mean()) if valid.any() else float("nan")
        for values in (table.ap, table.ap_trapezoid, table.inp)
    )
    mean_ap, trapezoid, mean_inp = scores
    return replace(
        result,
        cmc=table.curve(valid, len(result.cmc)),
        mAP=mean_ap,
        mAP_trapezoid=trapezoid,
        mINP=mean_inp,
        queries=int(valid.sum()),
        skipped=int((~valid).sum()),
        tied=int(table.tied.sum()),
        per_query=table,
        query_pids=result.query_pids[rows],
        query_camids=result.query_camids[rows],
        top_indices=result.top_indices[rows],
        top_distances=result.top_distances[rows],
        top_status=result.top_status[rows],
    )


@dataclass(frozen=True)
class CameraMatrix:
    """Scores of each pair of a query camera and a gallery camera; NaN where no query counts.

    Attributes:
        query_cameras: (A,) camera ids.
        gallery_cameras: (B,) camera ids.
        rank1: (A, B) percent.
        mAP: (A, B) percent.
        mINP: (A, B) percent.
        queries: (A, B) queries counted.
    """

    query_cameras: NDArray[np.int64]
    gallery_cameras: NDArray[np.int64]
    rank1: NDArray[np.float64]
    mAP: NDArray[np.float64]
    mINP: NDArray[np.float64]
    queries: NDArray[np.int64]


def camera_matrix(query: Features, gallery: Features, **options: Any) -> CameraMatrix:
    """Evaluate the queries of each camera in the images of each camera alone.

    Args:
        query: Features of the queries.
        gallery: Features of the gallery.
        **options: Arguments of `evaluate`.

    Returns:
        Exactly what `evaluate` gives on each pair of parts. Under the camera rule the diagonal is
        NaN: nothing in it counts.

    Raises:
        UserError: As `evaluate`, but a pair without a match is no error.
    """
    own, others = np.unique(query.camids), np.unique(gallery.camids)
    shape = len(own), len(others)
    scores = {name: np.full(shape, np.nan) for name in ("rank1", "mAP", "mINP")}
    counted = np.zeros(shape, dtype=np.int64)
    options = {**options, "need_match": False, "keep_top": 1}
    for column, camera in enumerate(others):
        part = gallery.subset(gallery.camids == camera)
        whole = evaluate(query, part, **options)
        for row, query_camera in enumerate(own):
            found = select(whole, query.camids == query_camera)
            counted[row, column] = found.queries
            for name, table in scores.items():
                table[row, column] = getattr(found, name)
    return CameraMatrix(own, others, **scores, queries=counted)
