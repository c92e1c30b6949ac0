"""The only place that imports from `kernels`, so that a rename stays one line."""

from torch import Tensor

from kernels import (
    gather_rows,
    masked_attention,
    ragged_attention,
    scatter_rows,
    select_tokens,
)
from kernels.ragged_attention import served_by

__all__ = [
    "gather_rows",
    "has_native_attention",
    "masked_attention",
    "ragged_attention",
    "scatter_rows",
    "select_tokens",
]


def has_native_attention(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Tells whether C++ serves `ragged_attention` of these (T, H, D) tensors on the processor."""
    return served_by(None, q, k, v) == "cpu"
