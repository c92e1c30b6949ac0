"""The only place that imports from `kernels`, so that a rename stays one line."""

from typing import Any

import torch
from torch import Tensor

from kernels import (
    gather_layer_norm,
    gather_rows,
    masked_attention,
    ragged_attention,
    scatter_rows,
    select_tokens,
)
from kernels._library import NAMESPACE
from kernels.ragged_attention import served_by

__all__ = [
    "gather_layer_norm",
    "gather_rows",
    "has_native_attention",
    "masked_attention",
    "native_attention",
    "operators",
    "ragged_attention",
    "scatter_rows",
    "select_tokens",
]


def has_native_attention(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Tells whether C++ serves `ragged_attention` of these (T, H, D) tensors on the processor."""
    return served_by(None, q, k, v) == "cpu"


def native_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[str, str]:
    """Names what serves `ragged_attention` of these tensors natively, or says why nothing does.

    Returns:
        "cpu" or "triton" and an empty text, or an empty name and the reasons.
    """
    wanted = "cpu" if q.device.type == "cpu" else "triton"
    try:
        return served_by(wanted, q, k, v), ""
    except RuntimeError as error:
        return "", str(error)


def operators(*names: str) -> list[Any]:
    """The registered operators that a graph shows where these functions were called."""
    return [getattr(getattr(torch.ops, NAMESPACE), name).default for name in names]
