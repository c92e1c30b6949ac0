"""Ahead-of-time compilation of the Triton kernels for machines that need not be present."""

import re
import subprocess
from pathlib import Path

import pytest

from kernels import _launch

pytestmark = pytest.mark.aot

POINTERS = {"bf16": 2, "fp16": 2, "fp32": 4}
TARGETS = {
    # backend, architecture, warp size, bytes of shared memory per block
    "sm_80": ("cuda", 80, 32, 163 << 10),
    "sm_90": ("cuda", 90, 32, 227 << 10),
    "gfx942": ("hip", "gfx942", 64, 64 << 10),
}
CONFIGS = {
    "forward_kernel": _launch.attention_forward,
    "grad_queries_kernel": _launch.attention_grad_queries,
    "grad_keys_kernel": _launch.attention_grad_keys,
}
PROBLEMS = [
    (129, 64, "bf16"),
    (129, 128, "bf16"),
    (129, 32, "fp32"),
    (129, 64, "fp32"),
    (129, 128, "fp32"),
    (13, 48, "fp16"),
]


@pytest.fixture(autouse=True)
def _compiles() -> None:
    from kernels._triton import common

    assert not common.INTERPRETED, (
        "these tests compile Triton kernels: run `make test`, or `pytest -m aot` in a process "
        "without TRITON_INTERPRET"
    )


def _signature(kernel, dtype: str) -> dict[str, str]:
    types = {}
    for name in kernel.arg_names:
        if name.isupper():
            types[name] = "constexpr"
        elif name == "keep_ptr":
            types[name] = "*u8"
        elif name in ("lse_ptr", "delta_ptr", "dkeep_ptr"):
            types[name] = "*fp32"
        elif name.endswith("_ptr"):
            types[name] = f"*{dtype}"
        elif name in ("scale", "log2_limit"):
            types[name] = "fp32"
        else:
            types[name] = "i32"
    return types


def _compile(name: str, target: str, tokens: int, dim: int, dtype: str):
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from kernels._triton import masked_attention

    kernel = getattr(masked_attention, name)
    config = CONFIGS[name](tokens, dim, POINTERS[dtype])
    backend, architecture, warp, _ = TARGETS[target]
    constants = {
        "HEAD_DIM": dim,
        "BLOCK_D": _launch.padded_head_dim(dim),
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
    }
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, argument in enumerate(kernel.arg_names)
        if argument.endswith("_ptr") or argument.startswith("stride_")
    }
    source = ASTSource(kernel, _signature(kernel, dtype), constexprs=constants, attrs=aligned)
    options = {
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
        "enable_fp_fusion": True,
    }
    return compile_kernel(source, target=GPUTarget(backend, architecture, warp), options=options)


def _nvidia_usage(compiled, folder: Path) -> dict[str, int]:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    command = [str(tool), "--dump-resource-usage", str(cubin)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}


def _amd_usage(compiled) -> dict[str, int]:
    pattern = r"\.(vgpr_spill_count|sgpr_spill_count|private_segment_fixed_size):\s*(\d+)"
    return {key: int(value) for key, value in re.findall(pattern, compiled.asm["amdgcn"])}


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: f"n{p[0]}-d{p[1]}-{p[2]}")
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("target", TARGETS)
def test_masked_attention_compiles_without_spills(target, name, problem, tmp_path):
    compiled = _compile(name, target, *problem)
    assert compiled.metadata.shared <= TARGETS[target][3]
    if TARGETS[target][0] == "cuda":
        usage = _nvidia_usage(compiled, tmp_path)
        assert usage.keys() >= {"REG", "STACK", "LOCAL"}
        assert (usage["STACK"], usage["LOCAL"]) == (0, 0)
    else:
        usage = _amd_usage(compiled)
        assert len(usage) == 3
        assert set(usage.values()) == {0}


def test_half_precision_tiles_reach_the_tensor_cores_of_sm_90():
    for name in CONFIGS:
        assert "wgmma.mma_async" in _compile(name, "sm_90", 129, 64, "bf16").asm["ptx"], name
