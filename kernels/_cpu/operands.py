"""Tensors as the numbers that the C++ extension takes."""

from collections.abc import Iterable

import torch
from torch import Tensor

from kernels import _backend

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

Numbers = tuple[int, int, int, int]


def attention_reasons(q: Tensor) -> list[str]:
    """List why the C++ attention cannot serve a call; empty when it can."""
    reasons = []
    if q.dtype not in TYPES:
        reasons.append(f"the dtype is {q.dtype}, the C++ kernels take float32, bfloat16, float16")
    return reasons or _backend.cpu_reasons(q.device)


def images(x: Tensor) -> Numbers:
    """Return data, and the strides of image, head and token, of (B, H, N, D) or (B, H, N)."""
    image, head, token, *_ = x.stride()
    return x.data_ptr(), image, head, token


def tokens(x: Tensor) -> Numbers:
    """Return data, and the strides of image (none), head and token, of (T, H, D) or (T, H)."""
    token, head, *_ = x.stride()
    return x.data_ptr(), 0, head, token


def flat(operands: Iterable[Numbers]) -> list[int]:
    """Return the numbers of several operands, one after the other."""
    return [number for operand in operands for number in operand]
