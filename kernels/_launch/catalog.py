"""Everything that the launcher can choose: one compilation for each kernel and configuration.

A configuration serves many problems, which differ in constants besides: head dimension, tails,
flags. It is compiled once, with the constants that add up to most: the widest head dimension, the
largest tails and every flag set take the most registers and shared memory. The kernels that
multiply no matrices are compiled once for each number of warps and value of a constant besides
tiles, with the largest tile. What a call may change besides, as another type of a mask, is compiled
for a problem of each kind.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from kernels._launch import attention, rows
from kernels._launch.aot import Unit
from kernels._launch.architecture import ARCHITECTURES
from kernels._launch.choice import KERNELS, shipped
from kernels._launch.config import LaunchConfig, Problem, padded_head_dim, tail

TOKENS = range(1, 601)
SCORES = (*TOKENS, 1024, rows.MAX_TOKENS)
HEAD_DIMS = (128, 64, 32, 16)
CHANNELS = (rows.MAX_CHANNELS, 2048, 1024, 768, 384, 192)
DTYPES = {"bf16": 2, "fp32": 4}
"""Operand types that differ in what is compiled; float16 compiles as bfloat16 does."""

Constants = dict[str, Any]

SELECT = "token_select.select_kernel"
_ROW_MODULES = ("token_select.", "gather.")


class Entry(NamedTuple):
    """A compilation, and the problem that it is for."""

    unit: Unit
    problem: Problem


class Variant(NamedTuple):
    """A compilation that differs from that of its problem in constants or types of arguments."""

    kernel: str
    dtype: str
    tokens: int
    width: int
    archs: tuple[str, ...]
    constants: tuple[tuple[str, Any], ...] = ()
    types: tuple[tuple[str, str], ...] = ()


def entries(arch: str, kernel: str = "") -> list[Entry]:
    """List what is compiled for an architecture.

    Args:
        arch: Name of a listed architecture.
        kernel: Part of the names of the kernels wanted; empty for all.

    Returns:
        One entry for every kernel, configuration and operand type, with the longest problem of
        those whose constants add up to most; then the variants.
    """
    found: dict[tuple[Any, ...], tuple[tuple[int, int], Entry]] = {}
    for name in KERNELS:
        if kernel not in name:
            continue
        for dtype, problem in problems(name, arch):
            config = shipped(name, problem)[0]
            if config is None:
                continue
            tile: tuple[Any, ...] = config.block_m, config.block_n
            if name.startswith(_ROW_MODULES):
                constants = CONSTANTS[name](problem, config).items()
                tile = tuple(value for key, value in constants if not key.startswith("BLOCK"))
            key = name, dtype, config.num_warps, config.num_stages, *tile
            if key in found and found[key][0][0] > problem.head_dim:
                continue
            unit = unit_of(name, problem, config, dtype)
            numbers = (value for _, value in unit.constants if not isinstance(value, str))
            size = problem.head_dim, sum(numbers)
            if key not in found or size >= found[key][0]:
                found[key] = size, Entry(unit, problem)
    return [entry for _, entry in found.values()] + [
        _entry(variant, arch)
        for variant in VARIANTS
        if kernel in variant.kernel and arch in variant.archs
    ]


def _entry(variant: Variant, arch: str) -> Entry:
    problem = Problem(variant.tokens, variant.width, DTYPES[variant.dtype], arch)
    config = shipped(variant.kernel, problem)[0]
    if config is None:
        raise ValueError(f"{variant.kernel} does not serve {problem}; list another problem")
    unit = unit_of(variant.kernel, problem, config, variant.dtype)
    constants = tuple((dict(unit.constants) | dict(variant.constants)).items())
    return Entry(replace(unit, constants=constants, types=variant.types), problem)


def problems(name: str, arch: str) -> Iterator[tuple[str, Problem]]:
    """Yield the supported range of problems of a kernel, each with Triton's name of its dtype."""
    if name.startswith("token_select."):
        for tokens in SCORES:
            yield "fp32", Problem(tokens, 1, 4, arch)
    elif name.startswith("gather."):
        for channels in CHANNELS:
            yield "fp32", Problem(1 << 14, channels, 4, arch)
    else:
        for dtype, itemsize in DTYPES.items():
            for head_dim in HEAD_DIMS:
                for tokens in TOKENS:
                    yield dtype, Problem(tokens, head_dim, itemsize, arch)


def unit_of(name: str, problem: Problem, config: LaunchConfig, dtype: str) -> Unit:
    """Return the compilation that a launch of a kernel on a problem causes, every flag set."""
    constants = CONSTANTS[name](problem, config)
    return Unit(
        name,
        tuple(constants.items()),
        config.num_warps,
        config.num_stages,
        dtype,
        problem.arch,
    )


def _attention(p: Problem, c: LaunchConfig) -> Constants:
    return {
        "HEAD_DIM": p.head_dim,
        "BLOCK_D": padded_head_dim(p.head_dim),
        "BLOCK_M": c.block_m,
        "BLOCK_N": c.block_n,
        "PRECISION": "ieee",
    }


def _masked(p: Problem, c: LaunchConfig) -> Constants:
    tails = {"TAIL_M": tail(p.tokens, c.block_m), "TAIL_N": tail(p.tokens, c.block_n)}
    return _attention(p, c) | tails


def _masked_one_pass(p: Problem, c: LaunchConfig) -> Constants:
    return _masked_keys(p, c) | ({"TAIL_N": 0} if p.tokens <= c.block_n else {})


def _masked_keys(p: Problem, c: LaunchConfig) -> Constants:
    return _masked(p, c) | {"KEEP_GRAD": True}


def _ragged(p: Problem, c: LaunchConfig) -> Constants:
    tails = {
        "TAIL_M": c.tail if c.tail < c.block_m else 0,
        "TAIL_N": c.tail if c.tail < c.block_n else 0,
    }
    return _attention(p, c) | tails | {"GATHERED": True}


def _rows(p: Problem, c: LaunchConfig) -> Constants:
    return {"BLOCK_R": c.block_m, "BLOCK_C": c.block_n}


def _select(p: Problem, c: LaunchConfig) -> Constants:
    return {
        "EXACT": False,
        "COUNTED": False,
        "BLOCK_B": c.block_m,
        "BLOCK_N": c.block_n,
        **rows.select_constants(p.tokens, p.itemsize, False, 1),
    }


CONSTANTS: dict[str, Callable[[Problem, LaunchConfig], Constants]] = {
    attention.MASKED_FORWARD: _masked,
    attention.MASKED_GRAD: _masked_one_pass,
    attention.MASKED_GRAD_QUERIES: _masked,
    attention.MASKED_GRAD_KEYS: _masked_keys,
    attention.RAGGED_FORWARD: lambda p, c: _ragged(p, c) | {"ONE_TILE": p.tokens <= c.block_n},
    attention.RAGGED_GRAD: _ragged,
    attention.RAGGED_GRAD_QUERIES: _ragged,
    attention.RAGGED_GRAD_KEYS: _ragged,
    SELECT: _select,
    "token_select.count_kernel": lambda p, c: {"BLOCK_B": c.block_m, "BLOCK_N": c.block_n},
    "gather.copy_kernel": lambda p, c: _rows(p, c) | {"SCATTER": True},
    "gather.merge_kernel": lambda p, c: _rows(p, c) | {"BLOCK_T": rows.MERGE_CHUNK},
    "gather.link_kernel": lambda p, c: {"BLOCK_R": c.block_m},
    "gather.norm_kernel": lambda p, c: _rows(p, c) | {"HAS_WEIGHT": True, "HAS_BIAS": True},
    "gather.norm_grad_kernel": lambda p, c: _rows(p, c) | {"HAS_WEIGHT": True},
}
"""Values of every constexpr argument, with the flags of a kernel set to take the most."""

_TF32 = ("sm_80", "sm_90", "sm_100")
_ROUNDED = (("PRECISION", "tf32"),)
_COUNTED = (("COUNTED", True), ("BLOCK_B", rows.COUNTS))
_FLOAT_KEEP = (("keep_ptr", "*fp32"),)

VARIANTS = (
    Variant(attention.MASKED_FORWARD, "fp32", 129, 128, _TF32, _ROUNDED),
    Variant(attention.MASKED_GRAD_KEYS, "fp32", 129, 128, _TF32, _ROUNDED),
    Variant(attention.MASKED_FORWARD, "bf16", 129, 64, ("sm_90",), types=_FLOAT_KEEP),
    Variant(attention.MASKED_GRAD, "bf16", 129, 64, ("sm_90",), types=_FLOAT_KEEP),
    Variant(SELECT, "fp32", rows.MAX_TOKENS, 1, tuple(ARCHITECTURES), _COUNTED),
)
"""Products of float32 allowed to round, a mask of numbers, and counts from a launch before."""
