"""Attention over sequences of one length, where every fused operator competes."""

from collections.abc import Callable

from benchmarks.shapes import Case


def test_dense_attention(measure: Callable[[Case], None], case: Case) -> None:
    measure(case)
