"""The same evaluation, its queries shared out over the processes of torch.distributed."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from reid.engine import distributed
from reid.evaluation.features import Features
from reid.evaluation.ranking import Block, evaluate
from reid.evaluation.result import RankingResult


def evaluate_sharded(query: Features, gallery: Features, **options: Any) -> RankingResult:
    """Rank a gallery for every query, each process for a contiguous share of the queries.

    Every process must call this with the same features and options. Shares are whole blocks of
    `chunk` queries: a matrix product of another shape may round differently, and so every
    distance comes from the product that `evaluate` would take in one process. With fewer blocks
    than processes some have none; a smaller `chunk` spreads the work further.

    Args:
        query: All queries.
        gallery: The whole gallery.
        **options: Arguments of `evaluate`.

    Returns:
        On every process the result of `evaluate` in a single one, bit for bit.

    Raises:
        UserError: As `evaluate`, on every process. A share without a match is no error.
    """
    if distributed.world_size() == 1:
        return evaluate(query, gallery, **options)
    return evaluate(query, gallery, run_blocks=_run_share, **options)


def _run_share(rank_block: Callable[[int], Block], queries: int, rows: int) -> list[Block]:
    start, stop, length = distributed.shard_range(-(-queries // rows))
    # a process without a share ranks a block for the shapes; what it pads with is cut off again
    blocks = [rank_block(index) for index in range(start, stop)] or [rank_block(0)]
    merged = {
        name: _merge(torch.cat([getattr(block, name) for block in blocks]), length * rows, queries)
        for name in (field.name for field in fields(Block))
    }
    return [Block(**merged)]


def _merge(share: Tensor, length: int, total: int) -> Tensor:
    """Pad the rows of this process to `length` and return the (total, ...) rows of all."""
    padded = torch.zeros(length, *share.shape[1:], dtype=share.dtype, device=_device())
    padded[: len(share)] = share.to(padded.device)
    return distributed.gather_shards(padded, total)


def _device() -> torch.device:
    """Return where the process group exchanges tensors; a mixed group also does on the CPU."""
    if dist.get_backend() == dist.Backend.NCCL:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
