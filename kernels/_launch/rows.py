"""Launches of the kernels of selection, gathering and LayerNorm.

They move bytes and multiply no matrices. `tokens` of a problem is the number of scores per image
for a selection, and for rows their number rounded up to a power of two; `head_dim` is the width of
a row.
"""

from kernels._launch.choice import Kernel, choose, register
from kernels._launch.config import LaunchConfig, Problem, power_of_two

MAX_TOKENS = 2048
"""Most scores per image: a program holds them in registers."""

MAX_CHANNELS = 4096
"""The widest row that LayerNorm takes: a program holds whole rows in registers."""

ONE_LAUNCH_SCORES = 1 << 17
"""Up to so many scores a threshold is served by one launch, in which every program reads all."""

COUNTS = 1024
"""Counts of images that a program of the selection kernel reads at a time."""

LINK_ROWS = 1024
"""Rows per program of the kernel that finds who reads a row."""

MERGE_CHUNK = 128
"""Indices looked at together where a row was gathered more than once."""


def row_kernel(name: str, rows: int, channels: int, itemsize: int, arch: str) -> LaunchConfig:
    """Choose the launch of a kernel of this file.

    Args:
        name: Module and function, such as `gather.copy_kernel`.
        rows: Scores per image of a selection, otherwise the number of rows.
        channels: Width of a row; 1 for a selection.
        itemsize: Bytes per element.
        arch: Name of the architecture.

    Returns:
        The configuration: `block_m` images or rows and `block_n` scores or columns per program.
    """
    tokens = rows if name.startswith("token_select.") else power_of_two(rows)
    config = choose(name, tokens, channels, itemsize, arch)
    if config is None:
        raise RuntimeError(f"{name} has no configuration for {rows} rows; override gave None")
    return config


def select_constants(tokens: int, itemsize: int, is_half: bool, prefix: int) -> dict[str, int]:
    """Return the constants of the selection kernel that do not come from a configuration.

    Args:
        tokens: Scores per image.
        itemsize: Bytes per score.
        is_half: Whether the scores are float16, whose exponents move when widened to float32.
        prefix: Leading tokens per image that are not scored.
    """
    # Scores of 16 bits leave the low bits of a float32 empty, and fewer digits to look at.
    low_bits = 0 if itemsize == 4 else 12 if is_half else 16
    digit_bits = 4 if tokens <= 512 else 2
    return {"LOW_BITS": low_bits, "DIGIT_BITS": digit_bits, "BLOCK_P": power_of_two(prefix)}


def _select(p: Problem) -> LaunchConfig:
    block = max(16, power_of_two(p.tokens))
    return LaunchConfig(max(1, 2048 // block), block, 4 if block <= 256 else 8, 1)


def _count(p: Problem) -> LaunchConfig:
    block = max(16, power_of_two(p.tokens))
    return LaunchConfig(max(1, 2048 // block), block, 4, 1)


def _copy(p: Problem) -> LaunchConfig:
    # The widest piece of a row that wastes no lanes on the usual widths, 192, 384, 768, 1024.
    widths = (256, 128, 64)
    padded = {width: -(-p.head_dim // width) * width for width in widths}
    width = min(widths, key=lambda width: (padded[width], -width))
    width = min(width, max(16, power_of_two(p.head_dim)))
    return LaunchConfig(max(1, 8192 // p.itemsize // width), width, 4, 1)


def _norm(p: Problem) -> LaunchConfig:
    width = max(16, power_of_two(p.head_dim))
    return LaunchConfig(max(1, 2048 // width), width, 4 if width <= 2048 else 16, 1)


def _norm_grad(p: Problem) -> LaunchConfig:
    width = max(16, power_of_two(p.head_dim))
    return LaunchConfig(max(1, 1024 // width), width, 4 if width <= 1024 else 8, 1)


def _merge(p: Problem) -> LaunchConfig:
    # Sums are float32 and a row's repeats are looked for by all rows of its program: small tiles.
    width = _copy(p).block_n
    return LaunchConfig(max(1, 1024 // width), width, 4, 1)


def _link(p: Problem) -> LaunchConfig:
    return LaunchConfig(LINK_ROWS, 1, 4, 1)


def _warps(config: LaunchConfig) -> list[LaunchConfig | None]:
    return [LaunchConfig(config.block_m, config.block_n, warps, 1) for warps in (1, 2, 4, 8, 16)]


def _tiles(config: LaunchConfig) -> list[LaunchConfig | None]:
    rows = sorted({max(1, config.block_m // 2), config.block_m, config.block_m * 2})
    return [LaunchConfig(m, config.block_n, warps, 1) for m in rows for warps in (2, 4, 8)]


def _copies(p: Problem) -> list[LaunchConfig | None]:
    return [
        LaunchConfig(elements // p.itemsize // width, width, warps, 1)
        for width in (64, 128, 256, 512)
        for elements in (4096, 8192, 16384)
        for warps in (2, 4, 8)
    ]


register(Kernel("token_select.select_kernel", _select, lambda p: _warps(_select(p))))
register(Kernel("token_select.count_kernel", _count, lambda p: _tiles(_count(p))))
register(Kernel("gather.copy_kernel", _copy, lambda p: [_copy(p), *_copies(p)]))
register(Kernel("gather.merge_kernel", _merge, lambda p: _tiles(_merge(p))))
register(Kernel("gather.link_kernel", _link, lambda p: [_link(p)]))
register(Kernel("gather.norm_kernel", _norm, lambda p: _tiles(_norm(p))))
register(Kernel("gather.norm_grad_kernel", _norm_grad, lambda p: _tiles(_norm_grad(p))))
