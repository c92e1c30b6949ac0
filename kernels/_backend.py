"""Which implementation serves a call, and the reasons why another cannot: nothing is silent.

The default (`impl=None`) depends on the call alone: `triton` for tensors on a CUDA or ROCm device
when it can serve them, `reference` otherwise. An implementation asked for by name serves or raises.
"""

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

from kernels._launch import MAX_HEAD_DIM

IMPLEMENTATIONS = ("reference", "triton")


def resolve_masked_attention(impl: str | None, q: Tensor, k: Tensor, v: Tensor) -> str:
    """Name the implementation that serves a call of masked attention.

    Args:
        impl: What the caller asked for; None means the default of the device.
        q: (B, H, N, D).
        k: (B, H, N, D).
        v: (B, H, N, D).

    Returns:
        One of `IMPLEMENTATIONS`.

    Raises:
        ValueError: There is no implementation of that name.
        RuntimeError: It cannot serve this call; the message lists every reason.
    """
    if impl is None:
        wanted = q.device.type == "cuda" and not triton_reasons(q, k, v)
        return "triton" if wanted else "reference"
    if impl not in IMPLEMENTATIONS:
        raise ValueError(
            f"masked_attention: impl={impl!r} does not exist; choose one of "
            f"{', '.join(IMPLEMENTATIONS)}, or None for the default"
        )
    reasons = triton_reasons(q, k, v) if impl == "triton" else []
    if reasons:
        raise RuntimeError(
            f"masked_attention: impl={impl!r} cannot serve this call: {'; '.join(reasons)}. "
            "Use impl='reference', or None for the default"
        )
    return impl


def triton_reasons(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    """List every reason why the Triton kernels cannot serve a call; empty when they can."""
    reasons = []
    if not has_triton():
        reasons.append("triton is not installed")
    if q.device.type == "cpu" and not interprets():
        reasons.append("the tensors are on cpu and TRITON_INTERPRET=1 is not set")
    if q.device.type not in ("cpu", "cuda"):
        reasons.append(f"the tensors are on {q.device.type}, the kernels run on CUDA and ROCm")
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        reasons.append(f"the dtype is {q.dtype}, the kernels take float16, bfloat16 and float32")
    if q.shape[-1] > MAX_HEAD_DIM:
        reasons.append(f"the head dimension is {q.shape[-1]}, the kernels take 1..{MAX_HEAD_DIM}")
    if any(x.shape[2] * x.stride(2) >= 2**31 for x in (q, k, v)):
        reasons.append("one sequence spans 2**31 elements or more")
    if q.device.type == "cuda" and torch.version.hip is None and has_triton():
        major, minor = torch.cuda.get_device_capability(q.device)
        if major < 8:
            reasons.append(f"the device is sm_{major}{minor}, the kernels need sm_80 or later")
    return reasons


@cache
def has_triton() -> bool:
    """Tell whether triton can be imported, without importing it."""
    return importlib.util.find_spec("triton") is not None


def interprets() -> bool:
    """Tell whether Triton kernels run in its interpreter, as TRITON_INTERPRET=1 asks for."""
    return os.environ.get("TRITON_INTERPRET") == "1"
