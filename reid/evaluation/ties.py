"""From counts of nearer and equal rows to scores, under a policy for equal distances.

Of one query let t_1 <= .. <= t_R be the distances of its matches, in the order of distance and
gallery index. For the group of rows at one distance let b be the counted rows nearer than it, c the
matches nearer, m its matches and n its other counted rows. The j-th match is then at the place

    stable       1 + b + rows of the group with a lower gallery index
    optimistic   1 + b + (matches of the group before it)
    pessimistic  1 + b + n + (matches of the group before it)

and `expected` takes the mean of every score over all orders of each group, equally likely. With N =
m + n, a match is at place i of its group with probability m / N, and then (i-1)(m-1)/(N-1) of the
group's matches lie before it on average (McSherry and Najork, ECIR 2008), so that

    E[AP]       = 1/R  sum over groups  m/N  sum_{i=1..N}  (c + 1 + (i-1)(m-1)/(N-1)) / (b + i)
    P(r_1 > k)  = prod_{i=0..k-b-1}  (n - i) / (N - i)                   of the first group
    E[INP]      = R  sum_{x=m..N}  C(x-1, m-1) / C(N, m) / (b + x)       of the last group

where the inner sums of AP are closed by harmonic numbers.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Ties = Literal["stable", "optimistic", "pessimistic", "expected"]
POLICIES = ("stable", "optimistic", "pessimistic", "expected")


@dataclass(frozen=True)
class Counts:
    """What is known of the matches of a block of queries, in ranked order.

    Attributes:
        distances: (B, R) float32, ascending, padded with infinity.
        less: (B, R) int64, counted rows nearer.
        equal: (B, R) int64, counted rows at the same distance, itself included.
        earlier: (B, R) int64, those of them with a lower gallery index.
        matches: (B,) int64.
    """

    distances: Tensor
    less: Tensor
    equal: Tensor
    earlier: Tensor
    matches: Tensor


@dataclass(frozen=True)
class Scores:
    """Scores of each query, fractions of 1; 0 where there is no match.

    Attributes:
        ap: (B,) average precision at each hit.
        trapezoid: (B,) average precision by trapezoids.
        inp: (B,) inverse negative penalty.
        hits: (B, K) probability that the first match is at place k or before.
        first: (B,) int64, place of the first match; under `expected` that of `stable`.
        tied: (B,) bool, whether a match and another counted row are at the same distance.
    """

    ap: Tensor
    trapezoid: Tensor
    inp: Tensor
    hits: Tensor
    first: Tensor
    tied: Tensor


def score(counts: Counts, ties: Ties, max_rank: int) -> Scores:
    """Score a block of queries.

    Args:
        counts: Of the matches.
        ties: Policy for equal distances.
        max_rank: K.
    """
    distances, less = counts.distances, counts.less
    width = distances.shape[1]
    index = torch.arange(width, device=less.device)
    real = index < counts.matches[:, None]
    before = torch.searchsorted(distances, distances)
    group = (
        torch.searchsorted(distances, distances, right=True).clamp(max=counts.matches[:, None])
        - before
    )
    others = torch.where(real, counts.equal - group, 0)
    inside = index - before
    offset = {
        "stable": counts.earlier,
        "optimistic": inside,
        "pessimistic": others + inside,
        "expected": counts.earlier,
    }[ties]
    place = torch.where(real, less + offset + 1, 0)
    hit = (index + 1).to(torch.float64)
    found = place.to(torch.float64).clamp(min=1.0)
    precision = hit / found
    earlier = torch.where(found > 1.0, (hit - 1.0) / (found - 1.0).clamp(min=1.0), 1.0)
    trapezoid = (earlier + precision) / 2.0
    last = (counts.matches - 1).clamp(min=0)[:, None]
    total = counts.matches.to(torch.float64)
    inp = total / found.gather(1, last)[:, 0]
    if ties == "expected":
        group, before = torch.where(real, group, 1), torch.where(real, before, 0)
        precision, trapezoid = _expected_precisions(
            precision, trapezoid, less, before, group, others, inside == 0
        )
        inp = _expected_inp(inp, counts, last, group, others)
        hits = _expected_hits(less[:, 0], group[:, 0], others[:, 0], max_rank)
    else:
        rank = torch.arange(1, max_rank + 1, device=less.device)
        hits = (place[:, :1] <= rank).to(torch.float64)
    zero = torch.zeros((), dtype=torch.float64, device=less.device)
    return Scores(
        ap=torch.where(real, precision, zero).sum(dim=1) / total.clamp(min=1.0),
        trapezoid=torch.where(real, trapezoid, zero).sum(dim=1) / total.clamp(min=1.0),
        inp=inp,
        hits=torch.where(real[:, :1], hits, zero),
        first=place[:, 0],
        tied=(others > 0).any(dim=1),
    )


def _expected_precisions(
    precision: Tensor,
    trapezoid: Tensor,
    less: Tensor,
    before: Tensor,
    group: Tensor,
    others: Tensor,
    leads: Tensor,
) -> tuple[Tensor, Tensor]:
    """Put the expected sum of a tied group at its first match and 0 at its other ones."""
    tied = others > 0
    if not bool(tied.any()):
        return precision, trapezoid
    harmonic = _harmonic(int((less + group + others).max()), less.device)
    b, c, m, n = (x.to(torch.float64) for x in (less, before, group, others))
    size = m + n
    slope = (m - 1.0) / (size - 1.0).clamp(min=1.0)
    start = c + 1.0 - slope
    end = less + group + others
    at_hit = slope * size + (start - slope * b) * (harmonic[end] - harmonic[less])
    previous = torch.where(
        less > 0,
        slope * size
        + (start - 1.0 - slope * (b - 1.0))
        * (harmonic[(end - 1).clamp(min=0)] - harmonic[(less - 1).clamp(min=0)]),
        m,
    )
    share = torch.where(leads, m / size, torch.zeros_like(m))
    return (
        torch.where(tied, share * at_hit, precision),
        torch.where(tied, share * (at_hit + previous) / 2.0, trapezoid),
    )


def _harmonic(count: int, device: torch.device) -> Tensor:
    """Return the harmonic numbers H_0 .. H_count, (count + 1,) float64."""
    terms = torch.arange(count + 1, dtype=torch.float64, device=device).reciprocal()
    terms[0] = 0.0
    return terms.cumsum(dim=0)


def _expected_inp(
    inp: Tensor, counts: Counts, last: Tensor, group: Tensor, others: Tensor
) -> Tensor:
    b, m, n = (x.gather(1, last)[:, 0] for x in (counts.less, group, others))
    inp = inp.clone()
    for query in ((n > 0) & (counts.matches > 0)).nonzero()[:, 0].tolist():
        low, size = int(m[query]), int(m[query] + n[query])
        # probability that the last match is at place N, N - 1, .. m of its group
        x = torch.arange(size, low, -1, dtype=torch.float64, device=inp.device)
        steps = torch.cat([x.new_tensor([low / size]), (x - low) / (x - 1.0)])
        place = torch.arange(size, low - 1, -1, dtype=torch.float64, device=inp.device)
        inverse = (steps.cumprod(dim=0) / (int(b[query]) + place)).sum()
        inp[query] = int(counts.matches[query]) * inverse
    return inp


def _expected_hits(b: Tensor, m: Tensor, n: Tensor, max_rank: int) -> Tensor:
    inside = torch.arange(max_rank, device=b.device) - b[:, None]
    left = (n[:, None] - inside).clamp(min=0).to(torch.float64)
    rows = (n[:, None] + m[:, None] - inside).clamp(min=1).to(torch.float64)
    missed = torch.where(inside >= 0, left / rows, 1.0)
    return 1.0 - missed.cumprod(dim=1)
