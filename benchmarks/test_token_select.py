"""Scores to mask, indices and cumulative lengths, against chains of torch operators."""

from collections.abc import Callable

from benchmarks.shapes import Case


def test_token_select(measure: Callable[[Case], None], case: Case) -> None:
    measure(case)
