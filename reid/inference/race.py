"""Several ways to run one model, timed in turns at several batch sizes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reid.engine.throughput import images_per_second
from reid.errors import UserError


@dataclass(frozen=True)
class Time:
    """One way to run at one batch size.

    Attributes:
        name: Of the way.
        batch: Images in a call.
        images_per_second: The median over the calls.
        milliseconds: Of a call.
    """

    name: str
    batch: int
    images_per_second: float
    milliseconds: float


def race(
    runs: Mapping[str, Callable[[Tensor], Tensor]],
    image_size: tuple[int, int],
    batches: Sequence[int],
    *,
    rounds: int,
    device: torch.device | None = None,
) -> list[Time]:
    """Time calls in turns, so that a change of the machine's speed hits all alike.

    Args:
        runs: Name to callable of float images (B, 3, H, W).
        image_size: H and W.
        batches: Batch sizes.
        rounds: Measured calls of each at each batch size.
        device: Of the images.

    Returns:
        By batch size, then in the order of the runs.

    Raises:
        UserError: A batch size or a number of rounds below 1.
    """
    if not batches or min(batches) < 1 or rounds < 1:
        raise UserError(f"batch sizes {list(batches)} and rounds {rounds} must be at least 1")
    found = []
    for batch in batches:
        images = torch.rand(batch, 3, *image_size, device=device)
        speeds = images_per_second(list(runs.values()), images, rounds=rounds, warmup=3)
        found += [
            Time(name, batch, speed, 1e3 * batch / speed)
            for name, speed in zip(runs, speeds, strict=True)
        ]
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Set a table in plain text, the first column to the left and all others to the right."""
    wide = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(wide[i]) if i == 0 else cell.rjust(wide[i]) for i, cell in enumerate(row)
        ).rstrip()
        for row in (head, *rows)
    )
