"""Launches of the attention kernels.

Tiles of half precision have 64 rows, the least that the matrix instructions of sm_90 take, and
shrink to the sequence. Products of float32 run on the ordinary units with operands in registers, so
their tiles are smaller.
"""

from kernels._launch.choice import Kernel, choose, register
from kernels._launch.config import LaunchConfig, Problem, fitted, padded_head_dim

DEFAULT_ARCH = "sm_90"


def tail_rows(tokens: int, block: int) -> int:
    """Return the rows of the tile that ends a sequence cut into blocks.

    Args:
        tokens: N.
        block: Rows per whole block, a power of two.

    Returns:
        16 or 32 where so small a tile holds what whole blocks leave over; 0 where nothing is left
        over, or so much that one more whole block is as good.
    """
    left = tokens % block
    rows = 16 if left <= 16 else 32
    return rows if 0 < left <= rows < block else 0


def attention_forward(
    tokens: int, head_dim: int, itemsize: int, arch: str = DEFAULT_ARCH
) -> LaunchConfig:
    """Choose the launch of the forward kernel.

    Args:
        tokens: N, the length of the sequences.
        head_dim: D.
        itemsize: Bytes per element of q, k and v.
        arch: Name of the architecture.

    Returns:
        The configuration; overrides and measurements aside it depends on nothing else.
    """
    return _served("masked_attention.forward_kernel", tokens, head_dim, itemsize, arch)


def attention_grad_queries(
    tokens: int, head_dim: int, itemsize: int, arch: str = DEFAULT_ARCH
) -> LaunchConfig:
    """Choose the launch of the kernel that computes dq; arguments as `attention_forward`."""
    return _served("masked_attention.grad_queries_kernel", tokens, head_dim, itemsize, arch)


def attention_grad_keys(
    tokens: int, head_dim: int, itemsize: int, arch: str = DEFAULT_ARCH
) -> LaunchConfig:
    """Choose the launch of the kernel for dk, dv and dkeep; arguments as `attention_forward`."""
    return _served("masked_attention.grad_keys_kernel", tokens, head_dim, itemsize, arch)


def _served(name: str, tokens: int, head_dim: int, itemsize: int, arch: str) -> LaunchConfig:
    config = choose(name, tokens, head_dim, itemsize, arch)
    if config is None:
        raise RuntimeError(f"{name} has no configuration for {tokens} tokens; override gave None")
    return config


def _forward(p: Problem) -> LaunchConfig:
    if p.itemsize == 4:
        return fitted(LaunchConfig(16, 32, 8, 2), p.tokens)
    return fitted(LaunchConfig(64, 64, 4, 2), p.tokens)


def _grad_queries(p: Problem) -> LaunchConfig:
    if p.itemsize == 4:
        return fitted(LaunchConfig(32, 16, 8, 2), p.tokens)
    return fitted(LaunchConfig(64, 64, 4, 1), p.tokens)


def _grad_keys(p: Problem) -> LaunchConfig:
    if p.itemsize == 4:
        return fitted(LaunchConfig(16, 32, 8, 1), p.tokens)
    wide = 64 if padded_head_dim(p.head_dim) <= 64 else 32
    return fitted(LaunchConfig(32, wide, 4, 1), p.tokens)


def _candidates(p: Problem) -> list[LaunchConfig | None]:
    blocks = (16, 32) if p.itemsize == 4 else (16, 32, 64, 128)
    found = {
        fitted(LaunchConfig(m, n, warps, stages), p.tokens)
        for m in blocks
        for n in blocks
        for warps in (1, 2, 4, 8)
        for stages in (1, 2)
        if 8 * warps <= max(m, n) <= 32 * warps or p.itemsize == 4
    }
    return list(sorted(found))


register(Kernel("masked_attention.forward_kernel", _forward, _candidates))
register(Kernel("masked_attention.grad_queries_kernel", _grad_queries, _candidates))
register(Kernel("masked_attention.grad_keys_kernel", _grad_keys, _candidates))
