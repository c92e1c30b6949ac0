"""Exact CMC, mAP and mINP without the full distance matrix and without sorting a row.

For one query let p_1 .. p_R be its matches in ranked order and r_j the place of p_j among the
counted gallery rows, from 1. Then

    AP           = 1/R  sum_j  j / r_j
    AP_trapezoid = 1/R  sum_j  ( (j-1)/(r_j-1) + j/r_j ) / 2     with (j-1)/(r_j-1) = 1 at r_j = 1
    INP          = R / r_R
    rank-k       = 1 if r_1 <= k else 0

and mAP, mINP and CMC are the means over the counted queries, in percent. The places are counted:
every gallery row is looked up among the few sorted matches and the counts are summed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid.errors import UserError
from reid.evaluation.features import Features
from reid.evaluation.result import PerQuery, RankingResult

Metric = Literal["cosine", "euclidean"]
Ties = Literal["stable", "optimistic", "pessimistic"]

_JUNK_PID = -1
_MAX_BLOCK = 1 << 22
_LAST = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Block:
    """Per-query numbers of one block of queries, in fractions of 1."""

    ap: Tensor
    trapezoid: Tensor
    inp: Tensor
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
    device: str | torch.device | None = None,
    run_blocks: BlockRunner = run_all,
) -> RankingResult:
    """Rank a gallery for every query and return the field's metrics, exactly.

    Gallery rows with the query's pid and the query's camera, and rows with pid -1, are junk: they
    take no place. Rows with `distractor_pid` are wrong for everybody. Queries for which no match
    is left are skipped, and counted as skipped.

    Distances are computed in float64 and rounded to float32 before they are compared. What block
    size, threads and device change in a sum is about a billionth of a float32 step, so in
    practice they do not change the result, and identical images tie exactly.

    Args:
        query: Features of the queries.
        gallery: Features of the gallery, of the same dimension.
        metric: `cosine` (1 - cosine similarity) or `euclidean`.
        max_rank: Length of the CMC curve. A gallery smaller than this is no error: the curve
            stays at its last value.
        ties: Order of gallery rows at exactly the same distance: `stable` by gallery index,
            `optimistic` matches first, `pessimistic` matches last.
        chunk: Most queries per block; fewer are taken when the gallery is large, so that a block
            never exceeds 4.2 million distances.
        keep_top: How many nearest rows to keep per query for ranked lists.
        distractor_pid: Identity that marks distractors; None where 0 is a person as any other
            (MSMT17 counts from 0).
        device: Where to compute; None takes the device of the gallery features.
        run_blocks: Works off the blocks of queries; `evaluate_sharded` spreads them over processes.

    Returns:
        Percentages, a per-query table and the nearest rows of every query.

    Raises:
        UserError: Dimensions differ, an argument is out of range, a zero feature under cosine, a
            query is junk or a distractor, or no query has a match.
    """
    _check(query, gallery, metric, max_rank, ties, chunk, keep_top, distractor_pid)
    place = torch.device(device) if device is not None else gallery.features.device
    q = _prepare(query.features, metric, place, "query")
    g = _prepare(gallery.features, metric, place, "gallery")
    ids = _Ids(query, gallery, distractor_pid, place)
    rows = max(1, min(chunk, _MAX_BLOCK // len(gallery)))
    top = min(keep_top, len(gallery))

    def rank_block(index: int) -> Block:
        start = index * rows
        return _rank_block(q[start : start + rows], g, ids, start, metric, ties, top)

    blocks = run_blocks(rank_block, len(query), rows)
    return _collect(blocks, query, gallery, metric, ties, max_rank)


class _Ids:
    """Identities and cameras on the device, and which gallery rows can be a match at all."""

    def __init__(
        self,
        query: Features,
        gallery: Features,
        distractor_pid: int | None,
        device: torch.device,
    ) -> None:
        self.query_pids = torch.from_numpy(query.pids).to(device)
        self.query_camids = torch.from_numpy(query.camids).to(device)
        self.pids = torch.from_numpy(gallery.pids).to(device)
        self.camids = torch.from_numpy(gallery.camids).to(device)
        self.junk = self.pids == _JUNK_PID
        self.matchable = ~self.junk
        if distractor_pid is not None:
            self.matchable &= self.pids != distractor_pid


def _rank_block(
    q: Tensor, g: Tensor, ids: _Ids, start: int, metric: Metric, ties: Ties, top: int
) -> Block:
    distance = _distances(q, g, metric)
    block = slice(start, start + q.shape[0])
    same_pid = (ids.query_pids[block, None] == ids.pids) & ids.matchable
    same_camera = ids.query_camids[block, None] == ids.camids
    match = same_pid & ~same_camera
    junk = (same_pid & same_camera) | ids.junk
    key = _keys(distance, match, ties)

    nearest_key = torch.topk(key, top, dim=1, largest=False, sorted=True).values
    nearest = nearest_key & 0x7FFFFFFF
    status = torch.where(match, 0, torch.where(junk, 2, 1)).to(torch.int8)

    matches = match.sum(dim=1)
    sorted_keys = _sorted_matches(key, match, matches)
    # left-sided: a row falls into the bucket of the first match that is not before it
    bucket = torch.searchsorted(sorted_keys, key)
    counted = (~junk).to(torch.int64)
    width = sorted_keys.shape[1]
    histogram = torch.zeros(q.shape[0], width + 1, dtype=torch.int64, device=q.device)
    histogram.scatter_add_(1, bucket, counted)
    ranks = histogram.cumsum(dim=1)[:, :width]

    values = _tie_values(sorted_keys)
    own = key >> 32
    beside = (values.gather(1, bucket + 1) == own) | (values.gather(1, bucket) == own)
    tied = (beside & ~match & ~junk).any(dim=1)

    hit = torch.arange(1, width + 1, device=q.device, dtype=torch.float64)
    real = hit <= matches[:, None]
    place = ranks.to(torch.float64)
    precision = hit / place.clamp(min=1.0)
    before = torch.where(place > 1.0, (hit - 1.0) / (place - 1.0).clamp(min=1.0), 1.0)
    total = matches.clamp(min=1).to(torch.float64)
    zero = torch.zeros((), dtype=torch.float64, device=q.device)
    last = ranks.gather(1, (matches - 1).clamp(min=0)[:, None])[:, 0]
    return Block(
        ap=torch.where(real, precision, zero).sum(dim=1) / total,
        trapezoid=torch.where(real, (before + precision) / 2.0, zero).sum(dim=1) / total,
        inp=total / last.clamp(min=1).to(torch.float64),
        first=ranks[:, 0],
        matches=matches,
        tied=tied,
        top=nearest,
        top_distance=distance.gather(1, nearest),
        top_status=status.gather(1, nearest),
    )


def _prepare(features: Tensor, metric: Metric, device: torch.device, which: str) -> Tensor:
    values = features.to(device=device, dtype=torch.float64)
    if metric == "euclidean":
        return values
    norms = values.norm(dim=1, keepdim=True)
    zero = (norms[:, 0] == 0.0).nonzero()
    if len(zero):
        raise UserError(
            f"{which} feature {int(zero[0])} is all zeros, which has no cosine; "
            "check the model that made it or use metric='euclidean'"
        )
    return values / norms


def _distances(q: Tensor, g: Tensor, metric: Metric) -> Tensor:
    """Return distances (B, G) float32."""
    product = q @ g.t()
    if metric == "cosine":
        distance = 1.0 - product
    else:
        squared = q.square().sum(dim=1, keepdim=True) + g.square().sum(dim=1) - 2.0 * product
        distance = squared.clamp(min=0.0).sqrt()
    # adding 0 turns -0 into +0, whose bits would otherwise order differently
    return distance.to(torch.float32) + 0.0


def _keys(distance: Tensor, match: Tensor, ties: Ties) -> Tensor:
    """Return one int64 per gallery row that orders by distance, then by the tie policy.

    The high half holds the float's bits in an order-preserving form, the low half one bit for the
    policy and the gallery index, so all keys of a row differ.
    """
    bits = distance.view(torch.int32).to(torch.int64)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    index = torch.arange(distance.shape[1], device=distance.device)
    low = index if ties == "stable" else index + _policy_bit(match, ties)
    return (ordered << 32) + low


def _policy_bit(match: Tensor, ties: Ties) -> Tensor:
    late = match if ties == "pessimistic" else ~match
    return late.to(torch.int64) << 31


def _sorted_matches(key: Tensor, match: Tensor, matches: Tensor) -> Tensor:
    """Return the keys of each row's matches, ascending, (B, max(R, 1)), padded with the maximum."""
    width = max(1, int(matches.max()))
    padded = key.new_full((key.shape[0], width), _LAST)
    row, column = match.nonzero(as_tuple=True)
    first = matches.cumsum(dim=0) - matches
    slot = torch.arange(len(row), device=key.device) - first[row]
    padded[row, slot] = key[row, column]
    return padded.sort(dim=1).values


def _tie_values(sorted_keys: Tensor) -> Tensor:
    """Return the distance halves with one unreachable value at either end, (B, R + 2)."""
    edge = sorted_keys.new_full((sorted_keys.shape[0], 1), torch.iinfo(torch.int64).min)
    return torch.cat([edge, sorted_keys >> 32, edge], dim=1)


def _collect(
    blocks: list[Block],
    query: Features,
    gallery: Features,
    metric: Metric,
    ties: Ties,
    max_rank: int,
) -> RankingResult:
    def join(name: str) -> NDArray:
        return torch.cat([getattr(block, name) for block in blocks]).cpu().numpy()

    matches = join("matches")
    valid = matches > 0
    if not valid.any():
        raise UserError(_why_no_match(query, gallery))
    first = np.where(valid, join("first"), 0)
    per_query = PerQuery(
        ap=np.where(valid, 100.0 * join("ap"), np.nan),
        ap_trapezoid=np.where(valid, 100.0 * join("trapezoid"), np.nan),
        inp=np.where(valid, 100.0 * join("inp"), np.nan),
        first_rank=first,
        matches=matches,
        valid=valid,
        tied=join("tied") & valid,
    )
    found = np.bincount(first[valid], minlength=max_rank + 1)[1 : max_rank + 1]
    return RankingResult(
        cmc=100.0 * np.cumsum(found) / int(valid.sum()),
        mAP=float(per_query.ap[valid].mean()),
        mAP_trapezoid=float(per_query.ap_trapezoid[valid].mean()),
        mINP=float(per_query.inp[valid].mean()),
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


def _why_no_match(query: Features, gallery: Features) -> str:
    shared = np.intersect1d(query.pids, gallery.pids)
    if len(shared) == 0:
        return (
            f"no query has a match: none of the {len(np.unique(query.pids))} query identities "
            f"(pids {_some(query.pids)}) occurs among the gallery's (pids {_some(gallery.pids)}); "
            "check that both folders belong to one data set"
        )
    return (
        f"no query has a match: {len(shared)} identities are in both sets, but always with the "
        f"query's own camera (query cameras {_some(query.camids)}, gallery cameras "
        f"{_some(gallery.camids)}), and images of the same camera do not count; check the camera "
        "ids, and where a set has none give the queries camera 0 and the gallery camera 1"
    )


def _some(values: NDArray[np.int64]) -> str:
    unique = np.unique(values)
    text = ", ".join(str(value) for value in unique[:5])
    return text + (", ..." if len(unique) > 5 else "")


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
    if query.features.shape[1] != gallery.features.shape[1]:
        raise UserError(
            f"query features have {query.features.shape[1]} dimensions and gallery features "
            f"{gallery.features.shape[1]}; extract both with the same model"
        )
    if metric not in ("cosine", "euclidean"):
        raise UserError(f"metric is 'cosine' or 'euclidean', got {metric!r}")
    if ties not in ("stable", "optimistic", "pessimistic"):
        raise UserError(f"ties is 'stable', 'optimistic' or 'pessimistic', got {ties!r}")
    for name, value in (("max_rank", max_rank), ("chunk", chunk), ("keep_top", keep_top)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    unusable = [_JUNK_PID] if distractor_pid is None else [_JUNK_PID, distractor_pid]
    wrong = np.isin(query.pids, unusable)
    if wrong.any():
        row = int(np.argmax(wrong))
        pid = int(query.pids[row])
        what = "junk" if pid == _JUNK_PID else "the distractor identity"
        remedy = (
            "remove it from the query set"
            if pid == _JUNK_PID
            else "remove it from the query set, or pass distractor_pid=None if it is a person"
        )
        raise UserError(f"query {row} has pid {pid}, which is {what}; {remedy}")
