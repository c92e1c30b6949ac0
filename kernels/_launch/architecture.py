"""The architectures that kernels are launched on, with the limits that a launch must respect."""

from dataclasses import dataclass
from functools import cache

import torch

INTERPRETER = "interpreter"
"""Stands for the architecture where Triton interprets its kernels on a processor."""


@dataclass(frozen=True)
class Architecture:
    """Limits of one architecture, and the peak rates that its vendor publishes.

    Attributes:
        name: As Triton's targets spell it, with `sm_` before the number of an NVIDIA device.
        backend: Triton's name of the backend, `cuda` or `hip`.
        warp: Threads per warp.
        shared: Bytes of shared memory that one program may use.
        shared_total: Bytes of shared memory per multiprocessor.
        shared_reserved: Bytes that the driver keeps of each program's shared memory.
        registers: 32-bit registers per multiprocessor.
        warps: Most warps in flight per multiprocessor.
        programs: Most programs in flight per multiprocessor.
        multiprocessors: Of the device named by `device`.
        device: The device whose published figures follow.
        half_flops: Dense bfloat16 tensor-core operations per second (published).
        float_flops: float32 operations per second outside the tensor cores (published).
        bandwidth: Bytes per second of device memory (published).
    """

    name: str
    backend: str
    warp: int
    shared: int
    shared_total: int
    shared_reserved: int
    registers: int
    warps: int
    programs: int
    multiprocessors: int
    device: str
    half_flops: float
    float_flops: float
    bandwidth: float

    @property
    def target(self) -> str | int:
        """The architecture as Triton's `GPUTarget` takes it."""
        return int(self.name.removeprefix("sm_")) if self.backend == "cuda" else self.name


_KIB = 1 << 10
# Limits: CUDA C++ Programming Guide, table of technical specifications per compute capability, and
# the CDNA 3 instruction set reference (a CU: 4 SIMD units of 512 registers x 64 lanes, 8 waves
# each). Rates: the vendors' data sheets of the device named.
ARCHITECTURES = {
    a.name: a
    for a in (
        Architecture(
            *("sm_80", "cuda", 32, 163 * _KIB, 164 * _KIB, _KIB, 65536, 64, 32),
            *(108, "A100 SXM 80 GB", 312e12, 19.5e12, 2.039e12),
        ),
        Architecture(
            *("sm_86", "cuda", 32, 99 * _KIB, 100 * _KIB, _KIB, 65536, 48, 16),
            *(82, "RTX 3090", 71e12, 35.6e12, 0.936e12),
        ),
        Architecture(
            *("sm_89", "cuda", 32, 99 * _KIB, 100 * _KIB, _KIB, 65536, 48, 24),
            *(128, "RTX 4090", 165.2e12, 82.6e12, 1.008e12),
        ),
        Architecture(
            *("sm_90", "cuda", 32, 227 * _KIB, 228 * _KIB, _KIB, 65536, 64, 32),
            *(132, "H200 SXM", 989e12, 67e12, 4.8e12),
        ),
        Architecture(
            *("sm_100", "cuda", 32, 227 * _KIB, 228 * _KIB, _KIB, 65536, 64, 32),
            *(148, "B200", 2250e12, 75e12, 8.0e12),
        ),
        Architecture(
            *("gfx942", "hip", 64, 64 * _KIB, 64 * _KIB, 0, 131072, 32, 32),
            *(304, "MI300X", 1307e12, 163.4e12, 5.3e12),
        ),
    )
}


@cache
def architecture(device: torch.device) -> str:
    """Name the architecture of a device, once per device.

    Args:
        device: A CUDA or ROCm device, or the processor that interprets the kernels.

    Returns:
        For example `sm_90` or `gfx942`; `INTERPRETER` for a processor.
    """
    if device.type != "cuda":
        return INTERPRETER
    if torch.version.hip is not None:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@cache
def limits(arch: str) -> Architecture:
    """Return the limits that hold on an architecture, of the nearest known one if it is not listed.

    Consumer parts of a generation have the smaller shared memory, as sm_86 and sm_89 do. Whatever
    is no GPU, such as `INTERPRETER`, is treated as sm_90.
    """
    if arch in ARCHITECTURES:
        return ARCHITECTURES[arch]
    if arch.startswith("gfx"):
        return ARCHITECTURES["gfx942"]
    if not arch.startswith("sm_"):
        return ARCHITECTURES["sm_90"]
    number = int(arch.removeprefix("sm_"))
    if number == 87:
        return ARCHITECTURES["sm_80"]
    if number >= 120:
        return ARCHITECTURES["sm_89"]
    if number >= 100:
        return ARCHITECTURES["sm_100"]
    return ARCHITECTURES["sm_90" if number >= 90 else "sm_89"]
