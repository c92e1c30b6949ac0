"""Numbers of the page that no other module has: the band of a CMC curve, slices, who counts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid.errors import UserError
from reid.evaluation.bootstrap import bootstrap
from reid.evaluation.result import RankingResult
from reid.evaluation.slices import slices
from reid.report.evaluation_charts import SliceRow

_JUNK_PID = -1
_BLOCK = 1 << 22
_MOST_LABELS = 24


def cmc_band(
    result: RankingResult, n: int = 1000, seed: int = 0, level: float = 0.95
) -> NDArray[np.float64]:
    """Bootstrap interval of every rank of the CMC curve, from the draws that `bootstrap` makes.

    Args:
        result: An evaluation.
        n: Number of bootstrap samples.
        seed: Seed of the resampling.
        level: Coverage of the interval.

    Returns:
        (2, max_rank) lower and upper ends, percent.
    """
    hits = result.per_query.reached(result.per_query.valid, len(result.cmc))
    count = len(hits)
    generator = np.random.default_rng(seed)
    step = max(1, _BLOCK // count)
    curves = []
    for start in range(0, n, step):
        rows = min(step, n - start)
        drawn = generator.integers(0, count, size=(rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        curves.append(100.0 * (times @ hits) / count)
    tail = 50.0 * (1.0 - level)
    return np.percentile(np.concatenate(curves), [tail, 100.0 - tail], axis=0)


def slice_rows(result: RankingResult, groups: Mapping[str, Sequence[str]]) -> list[SliceRow]:
    """Score the queries of every label of every group.

    Args:
        result: An evaluation.
        groups: Name of a group -> (Q) label of each query; an empty label is in no slice.

    Returns:
        Labels in natural order; the rarest of more than 24 are put together.

    Raises:
        UserError: A group has not one label per query.
    """
    found = []
    for group, given in groups.items():
        labels = np.asarray([str(label) for label in given])
        if len(labels) != len(result.query_pids):
            raise UserError(
                f"the slices {group!r} have {len(labels)} labels for {len(result.query_pids)} "
                "queries; give one per query, empty where it is unknown"
            )
        parts = slices(result, _fewer(labels))
        for label in sorted(parts, key=_natural):
            part = parts[label]
            scores = bootstrap(part) if part.queries else {}
            found.append(
                SliceRow(group, label, part.queries, part.skipped, scores.get("rank1"),
                         scores.get("mAP"))
            )  # fmt: skip
    return found


def _fewer(labels: NDArray[np.str_]) -> NDArray[np.str_]:
    names, counts = np.unique(labels[labels != ""], return_counts=True)
    if len(names) <= _MOST_LABELS:
        return labels
    kept = names[np.argsort(-counts, kind="stable")[: _MOST_LABELS - 1]]
    rest = f"other ({len(names) - len(kept)} labels)"
    return np.where((labels == "") | np.isin(labels, kept), labels, rest)


def _natural(label: str) -> tuple[bool, float, int, str]:
    """By the first number in the label, those without one after it, `other` last."""
    number = re.search(r"\d+(\.\d+)?", label)
    other = label.startswith("other (")
    if other or number is None:
        return (other, float("inf"), 0, label)
    return (False, float(number[0]), len(label), label)


@dataclass(frozen=True)
class Counting:
    """What counts for nobody, or for no query, in an evaluation.

    Attributes:
        distractors: Gallery images that are wrong for everybody.
        junk: Gallery images that count for nobody.
        removed: Pairs of query and gallery image left out by the camera rule.
    """

    distractors: int
    junk: int
    removed: int


def count(result: RankingResult, distractor_pid: int | None) -> Counting:
    """Count what the protocol leaves out.

    Args:
        result: An evaluation.
        distractor_pid: As it was given to `evaluate`.
    """
    pids = result.gallery_pids
    usable = pids != _JUNK_PID
    if distractor_pid is not None:
        usable &= pids != distractor_pid
    seen: dict[tuple[int, int], int] = {}
    cameras = result.gallery_camids[usable]
    for pair in zip(pids[usable].tolist(), cameras.tolist(), strict=True):
        seen[pair] = seen.get(pair, 0) + 1
    pairs = zip(result.query_pids.tolist(), result.query_camids.tolist(), strict=True)
    return Counting(
        distractors=0 if distractor_pid is None else int((pids == distractor_pid).sum()),
        junk=int((pids == _JUNK_PID).sum()),
        removed=sum(seen.get(pair, 0) for pair in pairs),
    )
