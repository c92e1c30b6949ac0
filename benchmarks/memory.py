"""Peak memory that a call needs beyond what is held before it: outputs, saved tensors, scratch."""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

REPEATS = 3
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak(NamedTuple):
    """Bytes, and how they were counted.

    Methods:
        `cuda allocator`: the caching allocator's peak minus what was allocated before the call.
        `resident`: growth of the process's resident set to its high-water mark, after the heap was
            trimmed; counts every library's scratch, exact to a few pages per thread.
        `torch allocator`: running sum of torch's own CPU allocations as its profiler reports them;
            scratch of other libraries is not seen. Used where the kernel offers no high-water mark.
    """

    bytes: int
    method: str


def peak(function: Callable[[], Any], device: torch.device) -> Peak:
    """Measure a call that has run before; the median of three for the resident set."""
    if device.type == "cuda":
        return _cuda(function, device)
    if can_measure_resident():
        return Peak(sorted(_resident(function) for _ in range(REPEATS))[REPEATS // 2], "resident")
    return Peak(_allocated(function), "torch allocator")


@cache
def can_measure_resident() -> bool:
    """Tell whether this system resets and reports the high-water mark of the resident set."""
    try:
        _CLEAR.write_text("5")
        return "VmHWM" in _STATUS.read_text() and hasattr(ctypes.CDLL(None), "malloc_trim")
    except OSError:
        return False


def _cuda(function: Callable[[], Any], device: torch.device) -> Peak:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = function()
    torch.cuda.synchronize(device)
    del result
    return Peak(torch.cuda.max_memory_allocated(device) - before, "cuda allocator")


def trim() -> None:
    """Give free memory back, which would be used again unseen, and lower the high-water mark."""
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text("5")


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return _kilobytes("VmRSS") << 10


def high_water() -> int:
    """Return the most bytes that were in memory since `trim`."""
    return _kilobytes("VmHWM") << 10


def _resident(function: Callable[[], Any]) -> int:
    trim()
    before = resident()
    result = function()
    after = high_water()
    del result
    return max(0, after - before)


def _kilobytes(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"{_STATUS} has no {field}")


def _allocated(function: Callable[[], Any]) -> int:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = function()
        del result
    events: Any = recorded.profiler
    changes = [e for e in events.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(changes, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
