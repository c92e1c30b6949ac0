"""What launchers share: the jit modules, the device, the precision of products."""

import contextlib
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
"""What the attention kernels take."""

_HERE = contextlib.nullcontext()


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
