"""Goals of whole tasks, judged from the rows that `benchmarks.tasks` makes."""

import pytest

from benchmarks import goals
from benchmarks.task_goals import task_goals
from benchmarks.tasks import _row


def rows(op, mode, size, case="a", **seconds):
    """Rows of contenders by seconds, 1.5 GB each."""
    measured = {
        name: {"seconds": value, "peak_bytes": 1_500_000_000, "held_bytes": 0}
        for name, value in seconds.items()
    }
    return [
        _row(op, mode, case, (size, 9), name.replace("_", " "), values, measured["ours"], 1.0)
        for name, values in measured.items()
    ]


@pytest.mark.parametrize(("numpy", "verdict"), [(82.0, "met"), (78.0, "missed")])
def test_evaluation(numpy: float, verdict: str) -> None:
    found = rows("evaluation", "cosine", 11_659, ours=4.0, NumPy_argsort=numpy)
    outcomes = {
        o.goal.name: o for o in goals.evaluate(found, task_goals()) if "evaluation" in o.goal.ops
    }
    assert outcomes["times the NumPy ranker that sorts"].worst == numpy / 4.0
    assert outcomes["times the NumPy ranker that sorts"].verdict == verdict
    assert outcomes["times the C++ ranker that sorts"].verdict == "not measured"
    assert outcomes["seconds"].worst == 4.0
    assert outcomes["peak memory in GB"].worst == pytest.approx(1.5)
    assert all(o.verdict == "met" for name, o in outcomes.items() if "times" not in name)


def test_the_slower_variant_of_reranking_decides() -> None:
    found = rows("reranking", "jaccard", 8_000, ours=2.0, dense_a=20.0)
    found += rows("reranking", "jaccard", 8_000, case="b", ours=2.0, dense_b=5.0)
    times, memory = [o for o in goals.evaluate(found, task_goals()) if "reranking" in o.goal.ops]
    assert (times.worst, times.verdict, times.cases) == (2.5, "missed", 2)
    assert memory.verdict == "not measured"


def test_goals_of_tasks_are_among_those_that_a_run_prints() -> None:
    found = rows("evaluation", "cosine", 11_659, ours=61.0)
    judged = {o.goal.name: o.verdict for o in goals.evaluate(found) if o.cases}
    assert judged == {"seconds": "missed", "peak memory in GB": "met"}
