"""Calls of the C++ kernels of token selection."""

import struct

import torch
from torch import Tensor

from kernels import _backend
from kernels._cpu import build
from kernels._cpu.operands import TYPES


def reasons(scores: Tensor) -> list[str]:
    """List every reason why these kernels cannot serve a call; empty when they can."""
    if scores.dtype not in TYPES:
        return [f"the dtype is {scores.dtype}, the C++ kernels take float32, bfloat16, float16"]
    return _backend.cpu_reasons(scores.device)


def select(
    scores: Tensor, threshold: float, min_keep: int, max_keep: int, prefix: int, padded: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Select tokens; arguments and results as in `kernels._eager.token_select`."""
    images, tokens = scores.shape
    mask = scores.new_empty(images, prefix + tokens, dtype=torch.bool)
    indices = scores.new_empty(images * (prefix + max_keep), dtype=torch.int64)
    cu_seqlens = scores.new_empty(images + 1, dtype=torch.int32)
    exact = min_keep == max_keep
    build.load().select_tokens(
        scores.data_ptr(),
        TYPES[scores.dtype],
        images,
        tokens,
        scores.stride(0),
        scores.stride(1),
        _bits(threshold, scores.dtype),
        min_keep,
        max_keep,
        prefix,
        padded and not exact,
        mask.data_ptr(),
        indices.data_ptr(),
        cu_seqlens.data_ptr(),
    )
    if not (exact or padded):
        indices = indices[: int(cu_seqlens[-1])]
    return mask, indices, cu_seqlens


def _bits(number: float, dtype: torch.dtype) -> int:
    """Return the bits of a number of this dtype."""
    if dtype == torch.float16:
        return int(struct.unpack("<H", struct.pack("<e", number))[0])
    bits = int(struct.unpack("<I", struct.pack("<f", number))[0])
    return bits >> 16 if dtype == torch.bfloat16 else bits
