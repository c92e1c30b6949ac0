"""What evaluation and re-ranking aim at, as data for `benchmarks.goals`."""

from collections.abc import Callable

from benchmarks.goal import F32, Goal, Line

Measure = Callable[[Line], float | None]

QUERIES, TRAINING = 11_659, 32_621
"""Rows of MSMT17: queries, and images of its training set."""


def times(rival: str = "") -> Measure:
    """How many times faster ours is than the rival, or than the fastest whose name begins so."""

    def figure(line: Line) -> float | None:
        others = {name: row for name, row in line.items() if name != "ours"}
        found = [row["seconds"] for name, row in others.items() if name.startswith(rival)]
        return min(found) / line["ours"]["seconds"] if found and "ours" in line else None

    return figure


def own(field: str, scale: float = 1.0) -> Measure:
    """A figure of our own row."""
    return lambda line: line["ours"][field] * scale if "ours" in line else None


def _goal(
    name: str, op: str, mode: str, rows: tuple[int, int], measure: Measure, bound: float,
    at_least: bool = True,
) -> Goal:  # fmt: skip
    return Goal(
        name, "cpu", (op,), mode, F32, rows, measure, bound, at_least=at_least, batch_heads=0
    )


def task_goals() -> tuple[Goal, ...]:
    """Goals of whole tasks on a processor, each contender in a process of its own."""
    size, whole = (QUERIES, QUERIES), (TRAINING, TRAINING)
    return (
        _goal("times the C++ ranker that sorts", "evaluation", "cosine", size,
              times("std::sort"), 5.0),
        _goal("times the NumPy ranker that sorts", "evaluation", "cosine", size,
              times("NumPy"), 20.0),
        _goal("seconds", "evaluation", "cosine", size, own("seconds"), 60.0, False),
        _goal("peak memory in GB", "evaluation", "cosine", size, own("peak_bytes", 1e-9), 2.0,
              False),
        _goal("times the dense formulation", "reranking", "jaccard", (1_000, TRAINING), times(),
              3.0),
        _goal("peak memory in GB", "reranking", "jaccard", whole, own("peak_bytes", 1e-9), 4.0,
              False),
    )  # fmt: skip
