"""How sure a score is: bootstrap intervals over the queries, single and paired."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reid.errors import UserError
from reid.evaluation.result import RankingResult

Unit = Literal["query", "pid"]

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Interval:
    """An estimate with its percentile bootstrap interval, in percent or percentage points.

    Attributes:
        estimate: The value on the queries themselves.
        low: Lower end.
        high: Upper end.
        level: Coverage the ends stand for.
        samples: Number of bootstrap samples.
        seed: Seed of the resampling.
        unit: What was resampled: queries, or identities with all their queries.
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95
    samples: int = 1000
    seed: int = 0
    unit: str = "query"

    @property
    def excludes_zero(self) -> bool:
        """True where the whole interval lies on one side of zero."""
        return self.low > 0.0 or self.high < 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return {
            "estimate": self.estimate,
            "low": self.low,
            "high": self.high,
            "level": self.level,
            "samples": self.samples,
            "seed": self.seed,
            "unit": self.unit,
        }


def bootstrap(
    result: RankingResult,
    n: int = 1000,
    seed: int = 0,
    *,
    level: float = 0.95,
    unit: Unit = "query",
) -> dict[str, Interval]:
    """Intervals of rank-1, rank-5, rank-10, mAP and mINP by resampling the counted queries.

    Args:
        result: An evaluation.
        n: Number of bootstrap samples.
        seed: Seed of the resampling.
        level: Coverage of the interval.
        unit: `query` resamples queries; `pid` resamples identities with all their queries, which
            is wider because the queries of one person are not independent.

    Returns:
        Name of the score -> interval, in percent.
    """
    return _intervals(_scores(result), result, n, seed, level, unit)


def paired_bootstrap(
    a: RankingResult,
    b: RankingResult,
    n: int = 1000,
    seed: int = 0,
    *,
    level: float = 0.95,
    unit: Unit = "query",
) -> dict[str, Interval]:
    """Intervals of the differences `a - b` over the same queries.

    Each bootstrap sample draws the same queries for both, so what is hard or easy about a query
    cancels and only the difference between the two models remains.

    Args:
        a: Evaluation of the model expected to be above.
        b: Evaluation of the other model on the same query and gallery set.
        n: Number of bootstrap samples.
        seed: Seed of the resampling.
        level: Coverage of the interval.
        unit: As in `bootstrap`.

    Returns:
        Name of the score -> interval of `a - b`, in percentage points.

    Raises:
        UserError: The two evaluations are not of the same queries.
    """
    same = (
        np.array_equal(a.query_pids, b.query_pids)
        and np.array_equal(a.query_camids, b.query_camids)
        and np.array_equal(a.per_query.valid, b.per_query.valid)
    )
    if not same:
        raise UserError(
            "a paired comparison needs the same queries in the same order: "
            f"{a.queries} counted of {len(a.query_pids)} against "
            f"{b.queries} counted of {len(b.query_pids)}; evaluate both on one data set"
        )
    first, second = _scores(a), _scores(b)
    return _intervals({name: first[name] - second[name] for name in first}, a, n, seed, level, unit)


def _scores(result: RankingResult) -> dict[str, NDArray[np.float64]]:
    """Return the score of each counted query, (V,) per name, whose mean is the metric."""
    table = result.per_query
    valid = table.valid
    ranks = {f"rank{r}": 100.0 * table.hits[valid, r - 1] for r in (1, 5, 10)}
    return {**ranks, "mAP": table.ap[valid], "mINP": table.inp[valid]}


def _intervals(
    scores: dict[str, NDArray[np.float64]],
    result: RankingResult,
    n: int,
    seed: int,
    level: float,
    unit: Unit,
) -> dict[str, Interval]:
    if n < 1:
        raise UserError(f"the bootstrap needs at least one sample, got n={n}")
    if not 0.0 < level < 1.0:
        raise UserError(f"level is a coverage between 0 and 1, got {level}; the usual one is 0.95")
    if unit not in ("query", "pid"):
        raise UserError(f"unit is 'query' or 'pid', got {unit!r}")
    pids = result.query_pids[result.per_query.valid]
    groups = np.arange(len(pids)) if unit == "query" else np.unique(pids, return_inverse=True)[1]
    units = int(groups.max()) + 1
    counts = np.bincount(groups, minlength=units).astype(np.float64)
    sums = np.stack([np.bincount(groups, values, minlength=units) for values in scores.values()])
    generator = np.random.default_rng(seed)
    step = max(1, _BLOCK // units)
    means: list[NDArray[np.float64]] = []
    for start in range(0, n, step):
        drawn = generator.integers(0, units, size=(min(step, n - start), units))
        means.append(sums[:, drawn].sum(axis=2) / counts[drawn].sum(axis=1))
    sampled = np.concatenate(means, axis=1)
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(sampled, [tail, 100.0 - tail], axis=1)
    return {
        name: Interval(
            estimate=float(values.mean()),
            low=float(low[index]),
            high=float(high[index]),
            level=level,
            samples=n,
            seed=seed,
            unit=unit,
        )
        for index, (name, values) in enumerate(scores.items())
    }
