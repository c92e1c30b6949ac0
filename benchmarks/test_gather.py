"""Rows moved, normalised on the way or put back, against torch's indexing operators."""

from collections.abc import Callable

from benchmarks.shapes import Case


def test_gather(measure: Callable[[Case], None], case: Case) -> None:
    measure(case)
