"""Which implementation serves a call, and the reasons why another cannot: nothing is silent.

The default (`impl=None`) depends on the call alone: on a CUDA or ROCm device `triton`, on the
processor `cpu`, each when it can serve the call, and `reference` otherwise. An implementation asked
for by name serves or raises.
"""

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from functools import cache

import torch

from kernels._cpu import build

IMPLEMENTATIONS = ("reference", "triton", "cpu")
NATIVE = {"cuda": "triton", "cpu": "cpu"}
TRITON = (3, 6)
"""The oldest Triton that the kernels are compiled with in tests."""

_DISTRIBUTIONS = ("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-rocm")


def choose(
    operator: str,
    impl: str | None,
    device: torch.device,
    reasons: Mapping[str, Callable[[], list[str]]],
) -> str:
    """Name the implementation that serves a call.

    Args:
        operator: Name of the public function, for messages.
        impl: What the caller asked for; None means the default of the device.
        device: Where the tensors are.
        reasons: For every implementation besides `reference` that the operator has, a function that
            lists why it cannot serve this call; an empty list means that it can.

    Returns:
        One of `IMPLEMENTATIONS`.

    Raises:
        ValueError: There is no implementation of that name.
        RuntimeError: It cannot serve this call; the message lists every reason.
    """
    if impl is None:
        native = NATIVE.get(device.type, "")
        return native if native in reasons and not reasons[native]() else "reference"
    if impl == "reference":
        return impl
    if impl not in reasons:
        raise ValueError(
            f"{operator}: impl={impl!r} does not exist; choose one of "
            f"{', '.join(('reference', *reasons))}, or None for the default"
        )
    found = reasons[impl]()
    if found:
        raise RuntimeError(
            f"{operator}: impl={impl!r} cannot serve this call: {'; '.join(found)}. "
            "Use impl='reference', or None for the default"
        )
    return impl


def triton_reasons(device: torch.device) -> list[str]:
    """List why no Triton kernel can run on a device; empty when they can."""
    reasons = []
    if not has_triton():
        reasons.append("triton is not installed")
    elif _is_older(triton_version()):
        needed = ".".join(map(str, TRITON))
        reasons.append(
            f"triton {triton_version()} is installed, the kernels need {needed} or later"
        )
    if device.type == "cpu" and not interprets():
        reasons.append("the tensors are on cpu and TRITON_INTERPRET=1 is not set")
    if device.type not in ("cpu", "cuda"):
        reasons.append(f"the tensors are on {device.type}, the kernels run on CUDA and ROCm")
    if device.type == "cuda" and torch.version.hip is None and has_triton():
        major, minor = _capability(device)
        if major < 8:
            reasons.append(f"the device is sm_{major}{minor}, the kernels need sm_80 or later")
    return reasons


def cpu_reasons(device: torch.device) -> list[str]:
    """List why no C++ kernel can run on a device; empty when they can. May build them, once."""
    if device.type != "cpu":
        return [f"the tensors are on {device.type}, the C++ kernels run on cpu"]
    return build.reasons()


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@cache
def has_triton() -> bool:
    """Tell whether triton can be imported, without importing it."""
    return importlib.util.find_spec("triton") is not None


@cache
def triton_version() -> str:
    """Return the version of the installed triton, without importing it; empty if unknown."""
    for name in _DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _is_older(version: str) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    # One whose version cannot be told is given the benefit of the doubt.
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < TRITON


def interprets() -> bool:
    """Tell whether Triton kernels run in its interpreter, as TRITON_INTERPRET=1 asks for."""
    return os.environ.get("TRITON_INTERPRET") == "1"
