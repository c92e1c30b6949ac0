"""Attention under a keep mask in training, against whatever gives its result or its gradient."""

from collections.abc import Callable

from benchmarks.shapes import Case


def test_masked_attention(measure: Callable[[Case], None], case: Case) -> None:
    measure(case)
