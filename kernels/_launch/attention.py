"""Launches of the attention kernels.

Tiles of half precision have 64 rows, the least that the matrix instructions of sm_90 take, and
fewer where the sequence is so short that smaller tiles waste less. Products of float32 run on the
ordinary units with operands in registers, so their tiles are smaller, and need no tail.
"""

from collections.abc import Callable
from dataclasses import replace

from kernels._launch.choice import Candidates, Kernel, Rule, choose, register
from kernels._launch.config import (
    LaunchConfig,
    Problem,
    fitted,
    padded_head_dim,
    power_of_two,
    tail,
)

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
_OPERANDS_IN_REGISTERS = (*_BEFORE_SM_90, "gfx942")
"""Where the matrix instructions take both operands from registers."""


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
        return LaunchConfig(16, 16, 4, 1)
    if p.tokens > 64 and _wide(p) and p.arch in _BEFORE_SM_90:
        return LaunchConfig(64, 16, 4, 2)
    # Up to 48 tokens two blocks of 32, or one and a tail of 16, waste less than one of 64.
    block = _short(p, 32 if p.tokens <= 48 else 64)
    if block == 32:
        return LaunchConfig(32, 32, 4, 1)
    return LaunchConfig(block, block, _warps(block, p), 1 if block < 64 else 2)


def _short(p: Problem, block: int) -> int:
    return 16 if p.tokens <= 16 and not _wide(p) else block


def _warps(rows: int, p: Problem) -> int:
    """One warp for 16 rows, the least that a matrix instruction takes, two where they are wide."""
    return rows // 16 * (2 if _wide(p) else 1)


def _wide(p: Problem) -> bool:
    return padded_head_dim(p.head_dim) > 64


def _grad_queries(p: Problem) -> LaunchConfig:
    if p.itemsize == 4:
        return LaunchConfig(32, 16, 8, 2)
    if p.arch not in _OPERANDS_IN_REGISTERS:
        return LaunchConfig(64, 64, _warps(64, p), 1)
    # Blocks of 16 keys need no tail, the code of which takes registers of its own.
    return LaunchConfig(32 if _wide(p) else 64, 16, 4, 1)


def _grad_keys(p: Problem) -> LaunchConfig:
    # With 16 query rows at a time the accumulators of the keys leave registers for the rest.
    return LaunchConfig(16, 16, 4, 1) if p.itemsize == 4 else LaunchConfig(16, 64, _warps(64, p), 1)


def _grad(p: Problem) -> LaunchConfig | None:
    if p.itemsize == 4:
        return None
    crowded = p.arch in _OPERANDS_IN_REGISTERS or _wide(p)
    if p.tokens <= 64:
        block = _short(p, 32 if p.tokens <= 32 else 64)
        queries = 16 if crowded or block < 64 else 32
        return LaunchConfig(queries, block, _warps(block, p), 1)
    if _wide(p):
        return None
    if p.arch in _BEFORE_SM_90:
        return LaunchConfig(16, 128, 8, 1) if p.tokens <= 128 else None
    if p.tokens > ONE_PASS_TOKENS:
        return None
    if p.tokens <= 80:
        return LaunchConfig(16, 64, 4, 1)
    return LaunchConfig(16 if crowded else 32, 128, 8, 1)


def _ragged(rule: Rule) -> Rule:
    """Add the tail that suits the longest sequence, or the largest one where it needs none."""

    def tailed(p: Problem) -> LaunchConfig | None:
        config = rule(p)
        if config is None or p.tokens <= config.block_n or p.itemsize == 4:
            return config
        most = min(16 if _wide(p) else 32, config.block_n // 2)
        rows = min(tail(p.tokens, config.block_n) or most, most)
        return replace(config, tail=rows if rows >= 16 else 0)

    return tailed


def _by_queries(p: Problem) -> list[LaunchConfig | None]:
    return _candidates(p, lambda m, n: (m, n))


def _by_keys(p: Problem) -> list[LaunchConfig | None]:
    return _candidates(p, lambda m, n: (n, m))


def _candidates(
    p: Problem, order: Callable[[int, int], tuple[int, int]]
) -> list[LaunchConfig | None]:
    """Combine blocks of the rows that a program owns with blocks of those that it passes over."""
    blocks = (16, 32) if p.itemsize == 4 else (16, 32, 64, 128)
    widest = max(16, power_of_two(p.tokens))
    found = [
        LaunchConfig(*order(own, passed), warps, stages)
        for own in blocks
        for passed in blocks
        for warps in (1, 2, 4, 8)
        for stages in (1, 2)
        if min(32, widest) <= own and max(own, passed) <= widest
        if p.itemsize == 4 or 8 * warps <= max(own, passed) <= 32 * warps
        if p.itemsize == 4 or max(own, passed) >= min(64, widest)
    ]
    return list(sorted(found))


def _tailed(candidates: Candidates) -> Candidates:
    """Try every configuration without a tail and with the one that suits."""

    def with_tails(p: Problem) -> list[LaunchConfig | None]:
        found: list[LaunchConfig | None] = []
        for c in candidates(p):
            found.append(c)
            if c is not None and 16 < c.block_n < p.tokens:
                rows = min(tail(p.tokens, c.block_n) or 32, c.block_n // 2)
                found.append(replace(c, tail=rows))
        return found

    return with_tails


def _holding(candidates: Candidates) -> Candidates:
    """Keep what holds every key of the longest sequence in one program."""

    def holding(p: Problem) -> list[LaunchConfig | None]:
        return [c for c in candidates(p) if c is None or p.tokens <= c.block_n + c.tail]

    return holding


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


register(Kernel(MASKED_FORWARD, _forward, _by_queries))
register(Kernel(MASKED_GRAD, _grad, _one_pass_candidates))
register(Kernel(MASKED_GRAD_QUERIES, _grad_queries, _by_queries))
register(Kernel(MASKED_GRAD_KEYS, _grad_keys, _by_keys))
register(Kernel(RAGGED_FORWARD, _ragged(_forward), _tailed(_by_queries)))
register(Kernel(RAGGED_GRAD, _ragged(_grad), _holding(_tailed(_one_pass_candidates))))
register(Kernel(RAGGED_GRAD_QUERIES, _ragged(_grad_queries), _tailed(_by_queries)))
register(Kernel(RAGGED_GRAD_KEYS, _ragged(_grad_keys), _tailed(_by_keys)))
