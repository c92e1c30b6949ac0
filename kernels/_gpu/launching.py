"""What launchers share: the jit modules, the device, the precision of products."""

import contextlib
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from kernels import _backend, _launch

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_HERE = contextlib.nullcontext()


def attention_reasons(q: Tensor) -> list[str]:
    """List why the attention kernels cannot take (..., D) operands such as q; may be empty."""
    return list(_lasting_reasons(q.device, q.dtype, q.shape[-1], _backend.interprets()))


@cache
def _lasting_reasons(
    device: torch.device, dtype: torch.dtype, dim: int, interpreted: bool
) -> tuple[str, ...]:
    # Whether kernels are interpreted decides what the device is good for.
    found = _backend.triton_reasons(device)
    if dtype not in _DTYPES:
        found.append(f"the dtype is {dtype}, the kernels take float16, bfloat16 and float32")
    if dim > _launch.MAX_HEAD_DIM:
        found.append(f"the head dimension is {dim}, the kernels take 1..{_launch.MAX_HEAD_DIM}")
    return tuple(found)


@cache
def jit(module: str) -> ModuleType:
    """Import a module of `kernels._triton`, at the first launch only."""
    return import_module(f"kernels._triton.{module}")


def device_of(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Make the device of x the current one, at no cost where it is already."""
    if x.device.type != "cuda" or x.device.index == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(x.device)


def precision(x: Tensor) -> str:
    """Name the precision of products: that of torch's own matrix products of float32."""
    if x.dtype != torch.float32 or x.device.type != "cuda" or torch.version.hip is not None:
        return "ieee"
    settings = torch.backends.cuda.matmul
    if hasattr(settings, "fp32_precision"):
        allowed = settings.fp32_precision == "tf32"
    else:
        allowed = settings.allow_tf32
    return "tf32" if allowed else "ieee"
