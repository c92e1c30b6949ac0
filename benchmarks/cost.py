"""Useful arithmetic and compulsory traffic of a case: what no implementation can do without.

A sequence of n tokens costs 4 n^2 D operations per head forward (two products) and 10 n^2 D
backward (five), exponentials not counted. Traffic is each input read once and each output written
once: q, k, v, o forward; q, k, v, o, their four gradients backward. Log-sum-exp vectors and masks
are left out, they are below 3 % of it. Padding counts for nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Cost(NamedTuple):
    """Floating point operations and bytes."""

    flops: int
    bytes: int


PRODUCTS = {"forward": 4, "gathered": 4, "backward": 10, "step": 14}
TENSORS = {"forward": 4, "gathered": 4, "backward": 8, "step": 12}


def attention(mode: str, lengths: Sequence[int], heads: int, dim: int, itemsize: int) -> Cost:
    """Cost of attention over sequences of these lengths."""
    squares, total = sum(n * n for n in lengths), sum(lengths)
    return Cost(
        PRODUCTS[mode] * squares * heads * dim, TENSORS[mode] * total * heads * dim * itemsize
    )


def select(batch: int, tokens: int, kept: int, itemsize: int) -> Cost:
    """Cost of a selection: scores in; mask, int64 indices and int32 cumulative lengths out."""
    return Cost(0, batch * tokens * (itemsize + 1) + 8 * kept + 4 * (batch + 1))


def rows(mode: str, kept: int, total: int, channels: int, itemsize: int) -> Cost:
    """Cost of moving rows.

    Args:
        mode: "gather", "gather_norm" (the rows and their LayerNorm) or "scatter".
        kept: Rows that move.
        total: Rows of the result of a scatter.
        channels: Elements of a row.
        itemsize: Bytes of an element.
    """
    row = channels * itemsize
    if mode == "scatter":
        return Cost(0, kept * (row + 8) + total * row)
    if mode == "gather_norm":
        # mean, variance, scaling, affine
        return Cost(8 * kept * channels, kept * (3 * row + 8))
    return Cost(0, kept * (2 * row + 8))
