"""What differs between one process and several: gathering with gradient, ranks, barriers."""

import datetime

import torch
import torch.distributed as dist
from torch import Tensor

# One process may draw or decode a whole data set while the others wait.
TIMEOUT = datetime.timedelta(hours=3)


def rank() -> int:
    """Return the rank of this process, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def barrier() -> None:
    """Wait for every process."""
    if world_size() > 1:
        dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        # the loss is the same on every rank, so the sum over ranks is the world size times it;
        # DDP then divides by the world size
        local = grad.chunk(world_size())[rank()]
        return local * world_size()


def gather(x: Tensor) -> Tensor:
    """Concatenate the tensors of all ranks along the batch, with gradient.

    Every rank must compute the same loss from the result. The gradient that reaches the local
    part is scaled by the number of ranks, which cancels the mean that DDP takes over ranks, so
    that several processes give the gradient of one process on the whole batch.

    Args:
        x: (B, ...) with the same shape on every rank.

    Returns:
        (world * B, ...), rank after rank; `x` itself in a single process.
    """
    if world_size() == 1:
        return x
    return _Gather.apply(x)


def gather_shards(x: Tensor, total: int) -> Tensor:
    """Undo `shard_range`: collect the rows of all ranks and drop the padding.

    Args:
        x: (ceil(total / world), ...) rows of this rank, the last ranks padded.
        total: Rows that count.

    Returns:
        (total, ...), each row once.
    """
    if world_size() == 1:
        return x[:total]
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)[:total]


def shard_range(total: int) -> tuple[int, int, int]:
    """Return start, stop and padded length of the rows this rank works on."""
    length = -(-total // world_size())
    start = min(rank() * length, total)
    return start, min(start + length, total), length
