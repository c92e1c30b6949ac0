"""The single-gallery-shot protocol: one image per gallery identity, drawn several times."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid.errors import UserError
from reid.evaluation import distances
from reid.evaluation.distances import Gallery
from reid.evaluation.features import Features
from reid.evaluation.matching import JUNK_PID, Ids
from reid.evaluation.ranking import evaluate, rows_at_once
from reid.evaluation.result import RankingResult

SHOTS = 10
PROTOCOLS = ("all", "single-gallery-shot")


def evaluate_single_shot(
    query: Features,
    gallery: Features,
    *,
    shots: int = SHOTS,
    seed: int = 0,
    **options: Any,
) -> RankingResult:
    """Evaluate with the CMC of CUHK03: of every identity one gallery image, means over draws.

    In each draw one gallery image of every identity is taken at random, the same one for all
    queries; of the query's own identity one of its matches instead, drawn for each query. The
    first match is then the only one. mAP, mINP and their per-query values stay those of the whole
    gallery, and so does `first_rank`. The protocol is that of Li et al., DeepReID, CVPR 2014, with
    the number of draws that torchreid and fastreid use.

    Args:
        query: Features of the queries.
        gallery: Features of the gallery.
        shots: Number of draws.
        seed: Seed of the draws.
        **options: Arguments of `evaluate`.

    Returns:
        The evaluation with `cmc` and `per_query.hits` of the draws.

    Raises:
        UserError: As `evaluate`, or no draw is asked for.
    """
    if shots < 1:
        raise UserError(f"single-gallery-shot needs at least one draw, got shots={shots}")
    whole = evaluate(query, gallery, **options)
    device = torch.device(options.get("device") or gallery.features.device)
    hits = sum(
        _draw(query, gallery, whole, np.random.default_rng([seed, shot]), device, options)
        for shot in range(shots)
    )
    table = replace(whole.per_query, hits=(hits / shots).cpu().numpy())  # type: ignore[union-attr]
    return replace(
        whole,
        per_query=table,
        cmc=table.curve(table.valid, len(whole.cmc)),
        protocol="single-gallery-shot",
    )


def _draw(
    query: Features,
    gallery: Features,
    whole: RankingResult,
    generator: np.random.Generator,
    device: torch.device,
    options: dict[str, Any],
) -> Tensor:
    """Return the probability (Q, K) that the match drawn is at place k or before."""
    metric, impl = whole.metric, options.get("impl")
    order = generator.permutation(len(gallery))
    order = order[gallery.pids[order] != JUNK_PID]
    chosen = np.sort(order[np.unique(gallery.pids[order], return_index=True)[1]])
    share = torch.from_numpy(generator.random(len(query))).to(device)
    few = gallery.subset(chosen)
    sample = distances.gallery_of(few, metric, device, impl=impl)  # type: ignore[arg-type]
    places = torch.from_numpy(chosen).to(device)
    ids = Ids(
        query, gallery, options.get("distractor_pid", 0), options.get("cross_camera", True), device
    )
    columns = distances.rows_of(gallery, device)
    rows = distances.rows_of(query, device)
    pids = torch.from_numpy(few.pids).to(device)
    found = []
    step = rows_at_once(sample, options.get("chunk", 512))
    for start in range(0, len(query), step):
        block = slice(start, start + step)
        q = rows[block]
        matches = ids.pairs(block)[0]
        count = torch.bincount(matches.query, minlength=len(q))
        picked = count.cumsum(dim=0) - count + (share[block] * count).to(torch.int64)
        valid = count > 0
        own = torch.zeros_like(count)
        own[valid] = matches.gallery[picked[valid]]
        parts = 1 if query.visibility is None else query.visibility.shape[1]
        pair = Gallery(columns[own], metric, parts=parts, impl=impl)
        index = torch.arange(len(q), device=device)
        threshold = pair.distances(q, index, index)[:, None]
        place = torch.searchsorted(places, own)[:, None]
        same = torch.from_numpy(query.pids[block]).to(device)[:, None] == pids
        mine, others = same.nonzero(as_tuple=True)
        counts = sample.places(q, threshold, place, excluded=(mine, others))
        hits = _hits(counts.less, counts.equal, counts.earlier, whole)
        found.append(torch.where(valid[:, None], hits, 0.0))
    return torch.cat(found)


def _hits(less: Tensor, equal: Tensor, earlier: Tensor, whole: RankingResult) -> Tensor:
    """Return (B, K) probabilities for matches that are not among the rows counted."""
    length = min(len(whole.cmc), len(whole.gallery_pids))
    length = max(length, whole.per_query.hits.shape[1])
    rank = torch.arange(1, length + 1, device=less.device)
    if whole.ties == "expected":
        return ((rank - less).to(torch.float64) / (equal + 1)).clamp(0.0, 1.0)
    offset = {"stable": earlier, "optimistic": torch.zeros_like(less), "pessimistic": equal}
    return (less + offset[whole.ties] + 1 <= rank).to(torch.float64)
