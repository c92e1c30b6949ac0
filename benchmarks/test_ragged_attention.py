"""Attention over packed sequences of different lengths, against padding and varlen libraries."""

from collections.abc import Callable

from benchmarks.shapes import Case


def test_ragged_attention(measure: Callable[[Case], None], case: Case) -> None:
    measure(case)
