"""What the kernels are launched with, and the problems that decide it."""

from dataclasses import dataclass, replace

MAX_HEAD_DIM = 128
"""The widest head dimension that the attention kernels take."""


@dataclass(frozen=True, order=True)
class LaunchConfig:
    """Tile sizes and resources of one kernel.

    Attributes:
        block_m: Query rows per tile; of the row kernels, rows per program.
        block_n: Key rows per tile; of the row kernels, columns per program.
        num_warps: Warps per program.
        num_stages: Depth of the software pipeline.
        tail: Rows of the smaller tile that may end a sequence; 0 where the kernel has none, or
            derives it from the length.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    tail: int = 0


@dataclass(frozen=True)
class Problem:
    """What may decide a launch.

    Attributes:
        tokens: N, the longest sequence; of the row kernels, the rows of one sequence.
        head_dim: D; of the row kernels, the width of a row.
        itemsize: Bytes per element of the operands.
        arch: Name of the architecture, such as `sm_90`.
    """

    tokens: int
    head_dim: int
    itemsize: int
    arch: str


def power_of_two(size: int) -> int:
    """Return the smallest power of two that is at least `size`."""
    return 1 << max(size - 1, 0).bit_length()


def padded_head_dim(head_dim: int) -> int:
    """Return the power of two, at least 16, that tiles of this head dimension are padded to."""
    return max(16, power_of_two(head_dim))


def tail(tokens: int, block: int) -> int:
    """Return the rows of the tile that ends a sequence cut into blocks.

    Args:
        tokens: N.
        block: Rows per whole block, a power of two that is at least 16.

    Returns:
        The least power of two, at least 16, that holds what whole blocks leave over; 0 where
        nothing is left over, or so much that one more whole block takes its place.
    """
    left = tokens % block
    rows = max(16, power_of_two(left))
    return rows if left > 0 and rows < block else 0


def fitted(config: LaunchConfig, tokens: int) -> LaunchConfig:
    """Shrink the tiles of a configuration to the least power of two that holds every token."""
    widest = max(16, power_of_two(tokens))
    block_m, block_n = min(config.block_m, widest), min(config.block_n, widest)
    return replace(config, block_m=block_m, block_n=block_n)
