"""What an evaluation returns: percentages, a table with one line per query, ranked lists."""

from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reid.errors import UserError

Status = Literal["right", "wrong", "junk"]
STATUSES: tuple[Status, Status, Status] = ("right", "wrong", "junk")


class RankedItem(NamedTuple):
    """One place of a ranked list.

    Attributes:
        gallery: Row of the gallery.
        status: `right` (another image of the person, other camera), `wrong` (another person or a
            distractor) or `junk` (same person and camera, or pid -1: not counted by any metric).
        distance: Distance to the query; the metric is the evaluation's.
        rank: Place among the counted rows, from 1; 0 for junk, which takes no place.
    """

    gallery: int
    status: Status
    distance: float
    rank: int


@dataclass(frozen=True)
class PerQuery:
    """One line per query, in the order of the query set. Skipped queries hold NaN and 0.

    Attributes:
        ap: (Q,) average precision in percent, precision at each hit.
        ap_trapezoid: (Q,) average precision in percent, trapezoid form.
        inp: (Q,) inverse negative penalty in percent.
        first_rank: (Q,) place of the first match, from 1.
        matches: (Q,) number of gallery rows that are a match.
        valid: (Q,) True where the query has at least one match and is counted.
        tied: (Q,) True where a match and a non-match are at exactly the same distance.
        hits: (Q, K) probability that the first match is at place k or before: 0 or 1 unless ties
            are `expected` or galleries sampled. K is 10, in these two cases the length of the curve
            if that is more, at most the size of the gallery. Beyond K `first_rank` tells.
    """

    ap: NDArray[np.float64]
    ap_trapezoid: NDArray[np.float64]
    inp: NDArray[np.float64]
    first_rank: NDArray[np.int64]
    matches: NDArray[np.int64]
    valid: NDArray[np.bool_]
    tied: NDArray[np.bool_]
    hits: NDArray[np.float64]

    def curve(self, chosen: NDArray[np.bool_], length: int) -> NDArray[np.float64]:
        """Return the CMC curve (length,) of some queries, in percent; NaN where none is chosen."""
        count = int(chosen.sum())
        first = np.minimum(self.first_rank[chosen], length + 1)
        # place 0 is that of queries without a match
        hits = np.bincount(first, minlength=length + 2)[1:-1].cumsum().astype(np.float64)
        known = self.hits[chosen, :length].sum(axis=0)
        hits[: len(known)] = known
        return 100.0 * hits / (count if count else np.nan)

    def reached(self, chosen: NDArray[np.bool_], length: int) -> NDArray[np.float64]:
        """Return the hits (C, length) of some queries that have a match, whatever K is."""
        known = self.hits[chosen, :length]
        places = np.arange(known.shape[1] + 1, length + 1)
        return np.hstack([known, self.first_rank[chosen, None] <= places])

    def select(self, rows: NDArray[np.bool_]) -> "PerQuery":
        """Return the lines of some queries (Q,), in their order."""
        return PerQuery(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as one dictionary per query, for JSON or CSV; NaN becomes None."""
        return [
            {
                "query": index,
                "valid": bool(self.valid[index]),
                "ap": float(self.ap[index]) if self.valid[index] else None,
                "ap_trapezoid": float(self.ap_trapezoid[index]) if self.valid[index] else None,
                "inp": float(self.inp[index]) if self.valid[index] else None,
                "first_rank": int(self.first_rank[index]) if self.valid[index] else None,
                "matches": int(self.matches[index]),
                "tied": bool(self.tied[index]),
            }
            for index in range(len(self.valid))
        ]


@dataclass(frozen=True)
class RankingResult:
    """The metrics of one feature set over one protocol. All scores are percentages.

    Attributes:
        cmc: (max_rank,) cumulative matching characteristic; entry r-1 is rank-r.
        mAP: Mean average precision, precision at each hit.
        mAP_trapezoid: Mean average precision of the original Market-1501 toolbox.
        mINP: Mean inverse negative penalty.
        queries: Number of queries counted.
        skipped: Number of queries left out because the gallery holds no match for them.
        tied: Number of counted queries whose order depends on the policy for equal distances.
        per_query: The same per query.
        metric: Distance used.
        ties: Policy for equal distances.
        query_pids: (Q,) identities of the queries.
        query_camids: (Q,) cameras of the queries.
        gallery_pids: (G,) identities of the gallery.
        gallery_camids: (G,) cameras of the gallery.
        top_indices: (Q, T) gallery rows nearest to each query, junk included.
        top_distances: (Q, T) their distances.
        top_status: (Q, T) index into `STATUSES`.
        protocol: `all` gallery images, or `single-gallery-shot` for the CMC.
    """

    cmc: NDArray[np.float64]
    mAP: float
    mAP_trapezoid: float
    mINP: float
    queries: int
    skipped: int
    tied: int
    per_query: PerQuery
    metric: str
    ties: str
    query_pids: NDArray[np.int64]
    query_camids: NDArray[np.int64]
    gallery_pids: NDArray[np.int64]
    gallery_camids: NDArray[np.int64]
    top_indices: NDArray[np.int64]
    top_distances: NDArray[np.float32]
    top_status: NDArray[np.int8]
    protocol: str = "all"

    def skipped_because(self) -> dict[str, int]:
        """Return why queries were skipped, in words, and how many each."""
        skipped = self.query_pids[~self.per_query.valid]
        present = np.isin(skipped, self.gallery_pids)
        reasons = {
            "the gallery holds no image of the person": int((~present).sum()),
            "all images of the person are of the query's camera": int(present.sum()),
        }
        return {reason: count for reason, count in reasons.items() if count}

    def rank(self, r: int) -> float:
        """Return rank-`r` in percent.

        Raises:
            UserError: `r` is below 1 or beyond the evaluated `max_rank`.
        """
        if not 1 <= r <= len(self.cmc):
            raise UserError(
                f"rank-{r} was not evaluated; ask for 1 to {len(self.cmc)} "
                f"or evaluate with max_rank={max(r, 1)}"
            )
        return float(self.cmc[r - 1])

    @property
    def rank1(self) -> float:
        """Rank-1 in percent."""
        return self.rank(1)

    @property
    def rank5(self) -> float:
        """Rank-5 in percent."""
        return self.rank(5)

    @property
    def rank10(self) -> float:
        """Rank-10 in percent."""
        return self.rank(10)

    def top(self, query: int, k: int = 10) -> list[RankedItem]:
        """Return the `k` gallery rows nearest to one query, junk included in its place.

        Args:
            query: Row of the query set.
            k: How many; at most the gallery and at most what the evaluation kept.

        Raises:
            UserError: The query does not exist or more rows are asked for than were kept.
        """
        count, kept = self.top_indices.shape
        if not 0 <= query < count:
            raise UserError(f"query {query} does not exist; there are {count} queries, from 0")
        if k > kept and kept < len(self.gallery_pids):
            raise UserError(
                f"the evaluation kept the {kept} nearest rows of each query, {k} were asked for; "
                f"evaluate with keep_top={k}"
            )
        items: list[RankedItem] = []
        place = 0
        for column in range(min(k, kept)):
            status = STATUSES[self.top_status[query, column]]
            place += status != "junk"
            items.append(
                RankedItem(
                    gallery=int(self.top_indices[query, column]),
                    status=status,
                    distance=float(self.top_distances[query, column]),
                    rank=0 if status == "junk" else place,
                )
            )
        return items

    def summary(self) -> dict[str, float | int | str]:
        """Return the scalars, for JSON."""
        ranks = {f"rank{r}": self.rank(r) for r in (1, 5, 10) if r <= len(self.cmc)}
        return {
            **ranks,
            "mAP": self.mAP,
            "mAP_trapezoid": self.mAP_trapezoid,
            "mINP": self.mINP,
            "queries": self.queries,
            "skipped": self.skipped,
            "tied": self.tied,
            "metric": self.metric,
            "ties": self.ties,
            "protocol": self.protocol,
        }
