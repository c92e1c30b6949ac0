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
    block = _rows(tokens, head_dim, itemsize)
    return LaunchConfig(block, block, 4, 2)


def attention_grad_queries(tokens: int, head_dim: int, itemsize: int) -> LaunchConfig:
    """Choose the launch of the kernel that computes dq; arguments as `attention_forward`."""
    block = _rows(tokens, head_dim, itemsize)
    return LaunchConfig(block, block, 4, 1)


def attention_grad_keys(tokens: int, head_dim: int, itemsize: int) -> LaunchConfig:
    """Choose the launch of the kernel for dk, dv and dkeep; arguments as `attention_forward`."""
    block = _rows(tokens, head_dim, itemsize)
    return LaunchConfig(block, block, 8 if padded_head_dim(head_dim) > 64 else 4, 1)


def _rows(tokens: int, head_dim: int, itemsize: int) -> int:
    # Products of float32 run on the ordinary units with both operands in registers.
    widest = 64 if itemsize < 4 else 32
    return min(widest, max(16, 1 << (tokens - 1).bit_length()))
