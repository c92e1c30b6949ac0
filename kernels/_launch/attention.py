"""Launches of the attention kernels.

Tiles of half precision have 64 rows, the least that the matrix instructions of sm_90 take, and
fewer where the sequence is so short that smaller tiles waste less. Products of float32 run on the
ordinary units with operands in registers, so their tiles are smaller.
"""

from dataclasses import replace

from kernels._launch.choice import Candidates, Kernel, Rule, choose, register
from kernels._launch.config import LaunchConfig, Problem, fitted, padded_head_dim, tail

DEFAULT_ARCH = "sm_90"

MASKED_FORWARD = "masked_attention.forward_kernel"
MASKED_GRAD = "masked_attention_one_pass.grad_kernel"
MASKED_GRAD_QUERIES = "masked_attention_two_pass.grad_queries_kernel"
MASKED_GRAD_KEYS = "masked_attention_two_pass.grad_keys_kernel"
RAGGED_FORWARD = "ragged_attention.forward_kernel"
RAGGED_GRAD = "ragged_attention_one_pass.grad_kernel"
RAGGED_GRAD_QUERIES = "ragged_attention_two_pass.grad_queries_kernel"
RAGGED_GRAD_KEYS = "ragged_attention_two_pass.grad_keys_kernel"

ONE_PASS_TOKENS = 144
"""Longest sequence whose dk and dv one program holds in registers."""

_BEFORE_SM_90 = ("sm_80", "sm_86", "sm_89")


def attention_forward(
    tokens: int, head_dim: int, itemsize: int, arch: str = DEFAULT_ARCH
) -> LaunchConfig:
    """Choose the launch of the forward kernel of masked attention.

    Args:
        tokens: N, the length of the sequences.
        head_dim: D.
        itemsize: Bytes per element of q, k and v.
        arch: Name of the architecture.

    Returns:
        The configuration; overrides and measurements aside it depends on nothing else.
    """
    return _served(MASKED_FORWARD, tokens, head_dim, itemsize, arch)


def attention_grad(
    tokens: int, head_dim: int, itemsize: int, arch: str = DEFAULT_ARCH
) -> LaunchConfig | None:
    """Choose the launch of the kernel that computes every gradient in one pass.

    Arguments as `attention_forward`; None where the two kernels below take its place.
    """
    return choose(MASKED_GRAD, tokens, head_dim, itemsize, arch)


def attention_grad_queries(
    tokens: int, head_dim: int, itemsize: int, arch: str = DEFAULT_ARCH
) -> LaunchConfig:
    """Choose the launch of the kernel that computes dq; arguments as `attention_forward`."""
    return _served(MASKED_GRAD_QUERIES, tokens, head_dim, itemsize, arch)


def attention_grad_keys(
    tokens: int, head_dim: int, itemsize: int, arch: str = DEFAULT_ARCH
) -> LaunchConfig:
    """Choose the launch of the kernel for dk, dv and dkeep; arguments as `attention_forward`."""
    return _served(MASKED_GRAD_KEYS, tokens, head_dim, itemsize, arch)


def ragged_forward(
    max_seqlen: int, head_dim: int, itemsize: int, arch: str = DEFAULT_ARCH
) -> LaunchConfig:
    """Choose the launch of the forward kernel of ragged attention.

    Args:
        max_seqlen: The longest sequence.
        head_dim: D.
        itemsize: Bytes per element of q, k and v.
        arch: Name of the architecture.

    Returns:
        The configuration; overrides and measurements aside it depends on nothing else.
    """
    return _served(RAGGED_FORWARD, max_seqlen, head_dim, itemsize, arch)


def ragged_grad(
    max_seqlen: int, head_dim: int, itemsize: int, arch: str = DEFAULT_ARCH
) -> LaunchConfig | None:
    """Choose the launch of the kernel that computes every gradient in one pass.

    Arguments as `ragged_forward`; None where the two kernels below take its place.
    """
    return choose(RAGGED_GRAD, max_seqlen, head_dim, itemsize, arch)


def ragged_grad_queries(
    max_seqlen: int, head_dim: int, itemsize: int, arch: str = DEFAULT_ARCH
) -> LaunchConfig:
    """Choose the launch of the kernel that computes dq; arguments as `ragged_forward`."""
    return _served(RAGGED_GRAD_QUERIES, max_seqlen, head_dim, itemsize, arch)


def ragged_grad_keys(
    max_seqlen: int, head_dim: int, itemsize: int, arch: str = DEFAULT_ARCH
) -> LaunchConfig:
    """Choose the launch of the kernel that computes dk and dv; arguments as `ragged_forward`."""
    return _served(RAGGED_GRAD_KEYS, max_seqlen, head_dim, itemsize, arch)


def _served(name: str, tokens: int, head_dim: int, itemsize: int, arch: str) -> LaunchConfig:
    config = choose(name, tokens, head_dim, itemsize, arch)
    if config is None:
        raise RuntimeError(f"{name} has no configuration for {tokens} tokens; override gave None")
    return config


def _forward(p: Problem) -> LaunchConfig:
    if p.itemsize == 4:
        return LaunchConfig(16, 32, 8, 2)
    if p.tokens > 64 and _crowded(p):
        return LaunchConfig(64, 16, 4, 2)
    # Up to 48 tokens two blocks of 32, or one and a tail of 16, waste less than one of 64.
    block = 16 if p.tokens <= 16 else 32 if p.tokens <= 48 else 64
    return LaunchConfig(block, block, _warps(block, p), 1 if block < 64 else 2)


def _warps(rows: int, p: Problem) -> int:
    """One warp for 16 rows, the least that a matrix instruction takes, two where they are wide."""
    return rows // 16 * (2 if _wide(p) else 1)


def _wide(p: Problem) -> bool:
    return padded_head_dim(p.head_dim) > 64


def _crowded(p: Problem) -> bool:
    """Tell whether operands in registers leave no room for a second copy of the code, the tail's.

    The matrix instructions before sm_90 take both operands from registers.
    """
    return _wide(p) and p.arch in _BEFORE_SM_90


def _grad_queries(p: Problem) -> LaunchConfig:
    if p.itemsize == 4:
        return LaunchConfig(32, 16, 8, 2)
    return LaunchConfig(32, 16, 4, 1) if _crowded(p) else LaunchConfig(64, 64, _warps(64, p), 1)


def _grad_keys(p: Problem) -> LaunchConfig:
    # With 16 query rows at a time the accumulators of the keys leave registers for the rest.
    return LaunchConfig(16, 32, 8, 1) if p.itemsize == 4 else LaunchConfig(16, 64, _warps(64, p), 1)


def _grad(p: Problem) -> LaunchConfig | None:
    if p.itemsize == 4:
        return None
    if p.tokens <= 64:
        block = 16 if p.tokens <= 16 else 32 if p.tokens <= 32 else 64
        return LaunchConfig(16, block, _warps(block, p), 1)
    if _wide(p):
        return None
    if p.arch in _BEFORE_SM_90:
        return LaunchConfig(16, 128, 8, 1) if p.tokens <= 128 else None
    if p.tokens > ONE_PASS_TOKENS:
        return None
    return LaunchConfig(16, 64, 4, 1) if p.tokens <= 80 else LaunchConfig(16, 128, 8, 1)


def _ragged(rule: Rule) -> Rule:
    """Add the tail that suits the longest sequence, or 32 rows where it leaves over more."""

    def tailed(p: Problem) -> LaunchConfig | None:
        config = rule(p)
        if config is None or p.tokens <= config.block_n or p.itemsize == 4:
            return config
        rows = min(tail(p.tokens, config.block_n) or 32, config.block_n // 2)
        return replace(config, tail=rows if rows >= 16 else 0)

    return tailed


def _candidates(p: Problem) -> list[LaunchConfig | None]:
    blocks = (16, 32) if p.itemsize == 4 else (16, 32, 64, 128)
    found = {
        fitted(LaunchConfig(m, n, warps, stages), p.tokens)
        for m in blocks
        for n in blocks
        for warps in (1, 2, 4, 8)
        for stages in (1, 2)
        if p.itemsize == 4 or 8 * warps <= max(m, n) <= 32 * warps
    }
    return list(sorted(found))


def _tailed(candidates: Candidates) -> Candidates:
    """Try every tail that is smaller than a tile."""

    def with_tails(p: Problem) -> list[LaunchConfig | None]:
        return [
            c and replace(c, tail=rows)
            for c in candidates(p)
            for rows in (0, 16, 32)
            if rows == 0 or (c is not None and rows < c.block_n < p.tokens)
        ]

    return with_tails


def _one_pass_candidates(p: Problem) -> list[LaunchConfig | None]:
    found: list[LaunchConfig | None] = [None]
    for block_n in (16, 32, 64, 128):
        rest = tail(p.tokens, block_n)
        if p.tokens <= block_n or (p.tokens < 2 * block_n and rest > 0):
            found += [
                fitted(LaunchConfig(block_m, block_n, warps, stages), p.tokens)
                for block_m in (16, 32, 64)
                for warps in (1, 2, 4, 8)
                for stages in (1, 2)
                if 8 * warps <= block_n <= 32 * warps
            ]
    return list(dict.fromkeys(found))


register(Kernel(MASKED_FORWARD, _forward, _candidates))
register(Kernel(MASKED_GRAD, _grad, _one_pass_candidates))
register(Kernel(MASKED_GRAD_QUERIES, _grad_queries, _candidates))
register(Kernel(MASKED_GRAD_KEYS, _grad_keys, _candidates))
register(Kernel(RAGGED_FORWARD, _ragged(_forward), _tailed(_candidates)))
register(Kernel(RAGGED_GRAD, _ragged(_grad), _tailed(_one_pass_candidates)))
register(Kernel(RAGGED_GRAD_QUERIES, _ragged(_grad_queries), _tailed(_candidates)))
register(Kernel(RAGGED_GRAD_KEYS, _ragged(_grad_keys), _tailed(_candidates)))
