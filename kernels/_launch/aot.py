"""Compiles kernels ahead of time, for machines that need not be present, and reads what they take.

Imports Triton; works where `TRITON_INTERPRET` is not set.
"""

import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kernels._launch.architecture import ARCHITECTURES, Architecture

INSTRUCTIONS = {
    "wgmma": r"wgmma\.mma_async",
    "tcgen05": r"tcgen05\.mma",
    "mma": r"(?<!w)mma\.sync",
    "mfma": r"v_mfma_",
}
"""Kinds of tensor-core instruction, with what they look like in PTX or AMD assembly."""

TYPES = {
    "keep_ptr": "*u8",
    "mask_ptr": "*u8",
    "lse_ptr": "*fp32",
    "delta_ptr": "*fp32",
    "dkeep_ptr": "*fp32",
    "mean_ptr": "*fp32",
    "rstd_ptr": "*fp32",
    "dweight_part_ptr": "*fp32",
    "dbias_part_ptr": "*fp32",
    "cu_seqlens_ptr": "*i32",
    "cu_counts_ptr": "*i32",
    "ends_ptr": "*i32",
    "rows_ptr": "*i64",
    "indices_ptr": "*i64",
    "scale": "fp32",
    "log2_limit": "fp32",
    "eps": "fp32",
    "threshold": "fp32",
}
"""Types of arguments that are neither operands (`*_ptr`) nor 32-bit integers, by name."""


@dataclass(frozen=True)
class Unit:
    """One compilation.

    Attributes:
        kernel: Module in `kernels._triton` and function, such as `masked_attention.forward_kernel`.
        constants: Every constexpr argument with its value.
        num_warps: Warps per program.
        num_stages: Depth of the software pipeline.
        dtype: Triton's name of the operands' type, such as `bf16`.
        arch: Name of a listed architecture.
        types: Types of arguments, by name, where they are not the usual ones.
    """

    kernel: str
    constants: tuple[tuple[str, Any], ...]
    num_warps: int
    num_stages: int
    dtype: str
    arch: str
    types: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        constants = " ".join(f"{name}={value}" for name, value in (*self.constants, *self.types))
        return (
            f"{self.kernel} {self.dtype} {self.arch} warps={self.num_warps} "
            f"stages={self.num_stages} {constants}"
        )


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes.

    Attributes:
        registers: 32-bit registers per thread.
        shared: Bytes of shared memory per program.
        spilled: Bytes per thread in local memory, stack included.
        instructions: Tensor-core instructions in the code, by kind; kinds that do not occur are
            left out.
        seconds: What the compilation took.
    """

    registers: int
    shared: int
    spilled: int
    instructions: dict[str, int]
    seconds: float

    def programs(self, arch: Architecture, num_warps: int) -> int:
        """Return how many programs fit a multiprocessor at a time.

        The least of what registers, shared memory, warps and program slots allow, with the
        granularity of the CUDA occupancy calculator (a quarter of the registers per scheduler, 8
        per thread); an AMD compute unit is counted in the same way.
        """
        warp_registers = max(8, -(-self.registers // 8) * 8) * arch.warp
        warps = min(arch.warps, arch.registers // 4 // warp_registers * 4)
        shared = self.shared + arch.shared_reserved
        by_shared = arch.shared_total // shared if shared else arch.programs
        return min(arch.programs, warps // num_warps, by_shared)

    def occupancy(self, arch: Architecture, num_warps: int) -> float:
        """Return the share of the multiprocessor's warps that can be in flight."""
        return self.programs(arch, num_warps) * num_warps / arch.warps


def compile_unit(unit: Unit) -> tuple[Any, float]:
    """Compile a kernel as a launch with operands on 16-byte boundaries compiles it.

    Returns:
        Triton's compiled kernel, and the seconds that it took.

    Raises:
        RuntimeError: Triton interprets its kernels in this process.
    """
    from triton import compile as compile_source
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from kernels._triton import common

    if common.INTERPRETED:
        raise RuntimeError(
            "kernels are compiled here, but TRITON_INTERPRET=1 made Triton interpret them: run in "
            "a process without it"
        )
    module, name = unit.kernel.rsplit(".", 1)
    kernel = getattr(import_module(f"kernels._triton.{module}"), name)
    arch = ARCHITECTURES[unit.arch]
    constants = dict(unit.constants)
    signature = signature_of(kernel.arg_names, constants, unit.dtype) | dict(unit.types)
    aligned: dict[tuple[int, ...], list[list[Any]]] = {
        (i,): [["tt.divisibility", 16]]
        for i, argument in enumerate(kernel.arg_names)
        if signature[argument].startswith("*") or argument.startswith("stride_")
    }
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    # FP fusion became opt-in in Triton 3.10; the launchers ask for it.
    options = {
        "num_warps": unit.num_warps,
        "num_stages": unit.num_stages,
        "enable_fp_fusion": True,
    }
    start = time.perf_counter()
    target = GPUTarget(arch.backend, arch.target, arch.warp)
    compiled = compile_source(source, target=target, options=options)
    return compiled, time.perf_counter() - start


def signature_of(arguments: list[str], constants: Mapping[str, Any], dtype: str) -> dict[str, str]:
    """Return the type of every argument of a kernel, as Triton spells it.

    Raises:
        ValueError: A constexpr argument has no value, or a constant is no argument.
    """
    wanted = {name for name in arguments if name.isupper()}
    if wanted != set(constants):
        raise ValueError(
            f"the kernel has the constexpr arguments {sorted(wanted)}, the catalog gives "
            f"{sorted(constants)}"
        )
    types = {}
    for name in arguments:
        operand = f"*{dtype}" if name.endswith("_ptr") else "i32"
        types[name] = "constexpr" if name in wanted else TYPES.get(name, operand)
    return types


def measure(unit: Unit) -> Resources:
    """Compile a kernel and read what it takes; arguments and errors as `compile_unit`."""
    compiled, seconds = compile_unit(unit)
    arch = ARCHITECTURES[unit.arch]
    text = compiled.asm["ptx" if arch.backend == "cuda" else "amdgcn"]
    found = {kind: len(re.findall(look, text)) for kind, look in INSTRUCTIONS.items()}
    registers, spilled = (
        _nvidia_usage(compiled.asm["cubin"]) if arch.backend == "cuda" else _amd_usage(text)
    )
    return Resources(
        registers,
        int(compiled.metadata.shared),
        spilled,
        {kind: count for kind, count in found.items() if count},
        round(seconds, 2),
    )


def faults(unit: Unit, resources: Resources) -> list[str]:
    """List what is wrong with a compiled kernel; empty when nothing is."""
    arch = ARCHITECTURES[unit.arch]
    found = []
    if resources.spilled:
        found.append(f"{resources.spilled} bytes per thread in local memory")
    if resources.shared > arch.shared:
        found.append(f"{resources.shared} bytes of shared memory, the limit is {arch.shared}")
    expected = expected_instructions(unit)
    if expected and not expected & resources.instructions.keys():
        found.append(f"no tensor-core instruction of the kinds {', '.join(sorted(expected))}")
    return found


def expected_instructions(unit: Unit) -> set[str]:
    """Return the kinds of tensor-core instruction of which a kernel has one; empty: it needs none.

    Products of float32 run on tensor cores only where their operands may be rounded to tf32. The
    warpgroup instructions of sm_90 take 64 rows and 4 warps; smaller tiles, and those alone, do
    without them.
    """
    constants = dict(unit.constants)
    if "PRECISION" not in constants:
        return set()
    if unit.dtype == "fp32":
        return {"mma", "wgmma", "tcgen05"} if constants["PRECISION"] == "tf32" else set()
    if ARCHITECTURES[unit.arch].backend == "hip":
        return {"mfma"}
    whole = max(constants["BLOCK_M"], constants["BLOCK_N"]) >= 64 and unit.num_warps >= 4
    if unit.arch == "sm_90" and whole:
        return {"wgmma"}
    if unit.arch == "sm_100" and whole:
        return {"tcgen05", "mma"}
    return {"mma"}


def _nvidia_usage(cubin: bytes) -> tuple[int, int]:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    usage = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return usage["REG"], usage["STACK"] + usage["LOCAL"]


def _amd_usage(text: str) -> tuple[int, int]:
    names = "vgpr_count|vgpr_spill_count|sgpr_spill_count|private_segment_fixed_size"
    usage = {key: int(value) for key, value in re.findall(rf"\.({names}):\s*(\d+)", text)}
    spilled = 4 * (usage["vgpr_spill_count"] + usage["sgpr_spill_count"])
    return usage["vgpr_count"], max(spilled, usage["private_segment_fixed_size"])
