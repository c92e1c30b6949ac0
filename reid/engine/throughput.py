"""Images per second of several models, measured in turns so that drift hits all alike."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor


@torch.inference_mode()
def images_per_second(
    models: dict[str, Callable[[Tensor], Tensor]],
    images: Tensor,
    *,
    rounds: int = 15,
    warmup: int = 3,
) -> dict[str, float]:
    """Time a forward of every model, one after the other, for some rounds.

    Args:
        models: Name to model in evaluation mode, all on the device of `images`.
        images: (B, 3, H, W) normalised batch.
        rounds: Measured forwards of each model.
        warmup: Forwards before the first measured one.

    Returns:
        Name to images per second, the median over rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(warmup + rounds):
        for name, model in models.items():
            _synchronise(images)
            start = time.perf_counter()
            model(images)
            _synchronise(images)
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: len(images) / statistics.median(times) for name, times in seconds.items()}


def _synchronise(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
