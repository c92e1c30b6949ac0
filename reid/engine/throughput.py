"""Images per second of several models, measured in turns so that drift hits all alike."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor


@torch.inference_mode()
def images_per_second(
    models: Sequence[Callable[[Tensor], Tensor]],
    images: Tensor,
    *,
    rounds: int = 51,
    warmup: int = 10,
) -> list[float]:
    """Time a forward of every model, one after the other, for some rounds.

    Args:
        models: Models in evaluation mode, all on the device of `images`.
        images: (B, 3, H, W) normalised batch.
        rounds: Measured forwards of each model.
        warmup: Forwards before the first measured one.

    Returns:
        Images per second of each model, the median over rounds.
    """
    seconds: list[list[float]] = [[] for _ in models]
    for number in range(warmup + rounds):
        for model, times in zip(models, seconds, strict=True):
            _synchronise(images)
            start = time.perf_counter()
            model(images)
            _synchronise(images)
            if number >= warmup:
                times.append(time.perf_counter() - start)
    return [len(images) / statistics.median(times) for times in seconds]


def in_fresh_process(
    checkpoints: Sequence[Path], *, batch_size: int = 32, rounds: int = 51
) -> list[float]:
    """Measure saved models in a process that does nothing else, as in deployment.

    A process that has trained keeps large blocks of memory at hand, and a dense model gains more
    from them than a sparse one.

    Args:
        checkpoints: Files written by `reid.models.embedder.save_model`.
        batch_size: Images in one forward.
        rounds: Measured forwards of each model.

    Returns:
        Images per second of each model.
    """
    command = [sys.executable, "-m", "reid.engine.throughput", *map(str, checkpoints)]
    command += ["--batch-size", str(batch_size), "--rounds", str(rounds)]
    # the process belongs to no group, whatever started this one
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    result = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    """Print images per second of saved models as a JSON list."""
    from reid.models.embedder import load_model
    from reid.run import pick_device

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=51)
    arguments = parser.parse_args()
    device = pick_device()
    loaded = [load_model(path) for path in arguments.checkpoints]
    size = loaded[0][1].data.image_size
    images = torch.randn(arguments.batch_size, 3, *size, device=device)
    models = [model.to(device) for model, _, _ in loaded]
    print(json.dumps(images_per_second(models, images, rounds=arguments.rounds)))


def _synchronise(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


if __name__ == "__main__":
    main()
