"""Exact CMC, mAP and mINP without the full distance matrix and without sorting a row.

For one query let p_1 .. p_R be its matches in ranked order and r_j the place of p_j among the
counted gallery rows, from 1. Then

    AP           = 1/R  sum_j  j / r_j
    AP_trapezoid = 1/R  sum_j  ( (j-1)/(r_j-1) + j/r_j ) / 2     with (j-1)/(r_j-1) = 1 at r_j = 1
    INP          = R / r_R
    rank-k       = 1 if r_1 <= k else 0

and mAP, mINP and CMC are the means over the counted queries, in percent. The places are counted:
a match's place is one more than the number of counted rows before it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid.errors import UserError
from reid.evaluation import distances, given, matching
from reid.evaluation import ties as policies
from reid.evaluation.distances import Gallery, Metric
from reid.evaluation.features import Features
from reid.evaluation.matching import JUNK_PID, Ids
from reid.evaluation.result import PerQuery, RankingResult
from reid.evaluation.ties import Ties

# Each query's hits are kept this far: rank-1, rank-5 and rank-10.
_FEWEST_HITS = 10


@dataclass(frozen=True)
class Block:
    """Per-query numbers of one block of queries, in fractions of 1."""

    ap: Tensor
    trapezoid: Tensor
    inp: Tensor
    hits: Tensor
    first: Tensor
    matches: Tensor
    tied: Tensor
    top: Tensor
    top_distance: Tensor
    top_status: Tensor


# takes the function that ranks the block of an index, the number of queries, and those in a block
BlockRunner = Callable[[Callable[[int], Block], int, int], list[Block]]


def run_all(rank_block: Callable[[int], Block], queries: int, rows: int) -> list[Block]:
    """Rank every block in this process.

    Args:
        rank_block: Ranks the block of an index.
        queries: Number of queries.
        rows: Queries in a block; the last may hold fewer.

    Returns:
        The blocks in order.
    """
    return [rank_block(index) for index in range(-(-queries // rows))]


def evaluate(
    query: Features,
    gallery: Features,
    *,
    metric: Metric = "cosine",
    max_rank: int = 50,
    ties: Ties = "stable",
    chunk: int = 512,
    keep_top: int = 20,
    distractor_pid: int | None = 0,
    cross_camera: bool = True,
    device: str | torch.device | None = None,
    impl: str | None = None,
    run_blocks: BlockRunner = run_all,
    need_match: bool = True,
    blocks: given.Blocks | None = None,
) -> RankingResult:
    """Rank a gallery for every query and return the field's metrics, exactly.

    Gallery rows with the query's pid and the query's camera, and rows with pid -1, are junk: they
    take no place. Rows with `distractor_pid` are wrong for everybody. Queries for which no match
    is left are skipped, and counted as skipped.

    Distances are computed in float64 and rounded to float32 before they are compared, and identical
    images tie exactly. In C++ a distance depends on its two rows alone. Elsewhere block size,
    threads and device change the order of a sum, and so a cosine distance by about 1e-16, whatever
    its size: a billionth of a float32 step at 1, a step at 1e-9. Where features are that close,
    as near-duplicates are, the implementations may order them differently.

    Args:
        query: Features of the queries.
        gallery: Features of the gallery, of the same dimension.
        metric: `cosine` (1 - cosine similarity), `euclidean`, `hamming` (differing bits of packed
            codes) or `visible` (mean cosine distance of the parts that both images show).
        max_rank: Length of the CMC curve. A gallery smaller than this is no error: the curve
            stays at its last value.
        ties: Order of gallery rows at exactly the same distance: `stable` by gallery index,
            `optimistic` matches first, `pessimistic` matches last, `expected` the mean over all
            orders.
        chunk: Most queries per block. Where the C++ operator does not serve, fewer are taken when
            the gallery is large, so that a block never exceeds 4.2 million distances.
        keep_top: How many nearest rows to keep per query for ranked lists.
        distractor_pid: Identity that marks distractors; None where 0 is a person as any other
            (MSMT17 counts from 0).
        cross_camera: Whether images of the query's own camera are junk.
        device: Where to compute; None takes the device of the gallery features.
        impl: Implementation of the ranking operator, as in `kernels.ranking.Gallery`.
        run_blocks: Works off the blocks of queries; `evaluate_sharded` spreads them over processes.
        need_match: Whether it is an error if no query has a match; otherwise scores are NaN.
        blocks: Distances to rank by instead of those of the features, such as
            `reid.evaluation.reranking.rerank` returns; their name becomes the result's metric.

    Returns:
        Percentages, a per-query table and the nearest rows of every query.

    Raises:
        UserError: Dimensions differ, an argument is out of range, a zero feature under cosine, a
            query is junk or a distractor, or no query has a match.
    """
    _check(query, gallery, metric, max_rank, ties, chunk, keep_top, distractor_pid)
    place = torch.device(device) if device is not None else gallery.features.device
    ids = Ids(query, gallery, distractor_pid, cross_camera, place)
    countable = None if bool(ids.countable.all()) else ids.countable
    prepared: Gallery
    if blocks is None:
        prepared = distances.gallery_of(gallery, metric, place, countable=countable, impl=impl)
        q = distances.rows_of(query, place)
    else:
        prepared, q = given.prepare(blocks, len(query), len(gallery), countable, place)
    rows = rows_at_once(prepared, chunk)
    top = min(keep_top, len(gallery))
    # further hits follow from the first places, unless those are uncertain
    longest = min(max_rank, len(gallery)) if ties == "expected" else 0
    length = max(longest, _FEWEST_HITS)

    def rank_block(index: int) -> Block:
        start = index * rows
        return _rank_block(q[start : start + rows], prepared, ids, start, ties, top, length)

    name = metric if blocks is None else blocks.name
    found = run_blocks(rank_block, len(query), rows)
    return _collect(found, query, gallery, name, ties, max_rank, need_match)


def rows_at_once(gallery: Gallery, chunk: int) -> int:
    """Return how many queries a block holds: the reference keeps its distances."""
    if gallery.impl != "reference":
        return chunk
    return max(1, min(chunk, distances.BLOCK // len(gallery)))


def _rank_block(
    q: Tensor, gallery: Gallery, ids: Ids, start: int, ties: Ties, top: int, length: int
) -> Block:
    block = slice(start, start + len(q))
    matches, junk = ids.pairs(block)
    values = gallery.distances(q, matches.query, matches.gallery)
    thresholds = matching.padded(matches, len(q), values, torch.inf)
    columns = matching.padded(matches, len(q), matches.gallery, 0)
    # gallery rows ascend, and a stable sort keeps them so where distances are equal
    thresholds, order = thresholds.sort(dim=1, stable=True)
    columns = columns.gather(1, order)
    count = torch.bincount(matches.query, minlength=len(q))
    found = gallery.places(
        q, thresholds, columns, sizes=count, excluded=(junk.query, junk.gallery), top=top
    )
    scores = policies.score(
        policies.Counts(thresholds, found.less, found.equal, found.earlier, count), ties, length
    )
    return Block(
        ap=scores.ap,
        trapezoid=scores.trapezoid,
        inp=scores.inp,
        hits=scores.hits,
        first=scores.first,
        matches=count,
        tied=scores.tied,
        top=found.nearest,
        top_distance=found.distances,
        top_status=ids.status(block, found.nearest),
    )


def _collect(
    blocks: list[Block],
    query: Features,
    gallery: Features,
    metric: str,
    ties: Ties,
    max_rank: int,
    need_match: bool,
) -> RankingResult:
    def join(name: str) -> NDArray:
        return torch.cat([getattr(block, name) for block in blocks]).cpu().numpy()

    matches = join("matches")
    valid = matches > 0
    if need_match and not valid.any():
        raise UserError(matching.without_match(query, gallery))
    per_query = PerQuery(
        ap=np.where(valid, 100.0 * join("ap"), np.nan),
        ap_trapezoid=np.where(valid, 100.0 * join("trapezoid"), np.nan),
        inp=np.where(valid, 100.0 * join("inp"), np.nan),
        first_rank=np.where(valid, join("first"), 0),
        matches=matches,
        valid=valid,
        tied=join("tied") & valid,
        hits=join("hits"),
    )
    return RankingResult(
        cmc=per_query.curve(valid, max_rank),
        mAP=_mean(per_query.ap[valid]),
        mAP_trapezoid=_mean(per_query.ap_trapezoid[valid]),
        mINP=_mean(per_query.inp[valid]),
        queries=int(valid.sum()),
        skipped=int((~valid).sum()),
        tied=int(per_query.tied.sum()),
        per_query=per_query,
        metric=metric,
        ties=ties,
        query_pids=query.pids,
        query_camids=query.camids,
        gallery_pids=gallery.pids,
        gallery_camids=gallery.camids,
        top_indices=join("top"),
        top_distances=join("top_distance"),
        top_status=join("top_status"),
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _check(
    query: Features,
    gallery: Features,
    metric: str,
    max_rank: int,
    ties: str,
    chunk: int,
    keep_top: int,
    distractor_pid: int | None,
) -> None:
    distances.check(query, gallery, metric)
    if ties not in policies.POLICIES:
        quoted = ", ".join(repr(name) for name in policies.POLICIES[:-1])
        raise UserError(f"ties is {quoted} or {policies.POLICIES[-1]!r}, got {ties!r}")
    for name, value in (("max_rank", max_rank), ("chunk", chunk), ("keep_top", keep_top)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    check_queries(query, distractor_pid)


def check_queries(query: Features, distractor_pid: int | None) -> None:
    """Refuse queries that can have no match.

    Raises:
        UserError: A query is junk or a distractor.
    """
    unusable = [JUNK_PID] if distractor_pid is None else [JUNK_PID, distractor_pid]
    wrong = np.isin(query.pids, unusable)
    if wrong.any():
        row = int(np.argmax(wrong))
        pid = int(query.pids[row])
        what = "junk" if pid == JUNK_PID else "the distractor identity"
        remedy = (
            "remove it from the query set"
            if pid == JUNK_PID
            else "remove it from the query set, or, if it is a person, give --distractor-pid none "
            "(distractor_pid=None)"
        )
        raise UserError(f"query {row} has pid {pid}, which is {what}; {remedy}")
