"""How kernels are launched: pure functions from the problem to tile sizes, warps and stages."""

from dataclasses import dataclass

MAX_HEAD_DIM = 128


@dataclass(frozen=True)
class LaunchConfig:
    """Tile sizes and resources of one kernel.

    Attributes:
        block_m: Query rows per tile.
        block_n: Key rows per tile.
        num_warps: Warps per program.
        num_stages: Depth of the software pipeline.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


def padded_head_dim(head_dim: int) -> int:
    """Return the power of two, at least 16, that tiles of this head dimension are padded to."""
    return max(16, 1 << (head_dim - 1).bit_length())


def attention_forward(tokens: int, head_dim: int, itemsize: int) -> LaunchConfig:
    """Choose the launch of the forward kernel.

    Args:
        tokens: N, the length of the sequences.
        head_dim: D.
        itemsize: Bytes per element of q, k and v.

    Returns:
        The configuration; it depends on nothing else.
    """
    if itemsize == 4:
        return _fitted(tokens, 16, 32, 8, 2)
    return _fitted(tokens, 64, 64, 4, 2)


def attention_grad_queries(tokens: int, head_dim: int, itemsize: int) -> LaunchConfig:
    """Choose the launch of the kernel that computes dq; arguments as `attention_forward`."""
    if itemsize == 4:
        return _fitted(tokens, 32, 16, 8, 2)
    return _fitted(tokens, 64, 64, 4, 1)


def attention_grad_keys(tokens: int, head_dim: int, itemsize: int) -> LaunchConfig:
    """Choose the launch of the kernel for dk, dv and dkeep; arguments as `attention_forward`."""
    if itemsize == 4:
        return _fitted(tokens, 16, 32, 8, 1)
    return _fitted(tokens, 32, 64 if padded_head_dim(head_dim) <= 64 else 32, 4, 1)


def _fitted(
    tokens: int, block_m: int, block_n: int, num_warps: int, num_stages: int
) -> LaunchConfig:
    # Products of float32 run on the ordinary units, with operands in registers: smaller tiles.
    widest = max(16, 1 << (tokens - 1).bit_length())
    return LaunchConfig(min(block_m, widest), min(block_n, widest), num_warps, num_stages)
