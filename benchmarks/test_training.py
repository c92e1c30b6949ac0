"""A masked training step of DeiT-S: time and peak memory against no mask and the eager policy."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks import memory, models, records, training
from benchmarks.timing import elapsed

ROUNDS = 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Batch sizes, and precisions in which the model itself is cast."""
    full = metafunc.config.option.full
    cases = [(torch.float32, 8)]
    cases += [(torch.float32, 32), (torch.bfloat16, 8)] if full else []
    ids = [f"{str(dtype).removeprefix('torch.')}-{batch}" for dtype, batch in cases]
    metafunc.parametrize(("dtype", "batch"), cases, ids=ids)


@pytest.mark.benchmark(group="training step")
def test_deit_small(
    benchmark: Any,
    keep_rows: Callable[[list[Any]], None],
    device: torch.device,
    tiny: bool,
    dtype: torch.dtype,
    batch: int,
) -> None:
    subject = models.deit_small(device, (0.7,), tiny)
    size = subject.dense.patch_embed.img_size
    x = torch.randn(2 if tiny else batch, 3, *size, device=device, dtype=dtype)
    dense, pruned = subject.dense.to(dtype), subject.pruned[0.7].to(dtype)
    steps = training.steps(dense, pruned, x)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    cores: dict[str, float] = dict.fromkeys(steps, 0.0)
    for step in steps.values():
        elapsed(step, device)

    def timed(name: str) -> None:
        start = time.process_time()
        seconds[name].append(elapsed(steps[name], device))
        cores[name] += time.process_time() - start

    def others() -> None:
        for name in steps:
            if name != training.OURS:
                timed(name)

    rounds = 2 if tiny else ROUNDS
    benchmark.pedantic(lambda: timed(training.OURS), setup=others, rounds=rounds)
    benchmark.extra_info["load_average"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    name_of_dtype = str(dtype).removeprefix("torch.")
    peaks = {name: memory.peak(step, device).bytes for name, step in steps.items()}
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    keep_rows(
        [
            {
                **records.way_row(
                    op=training.OP,
                    mode=training.MODE,
                    label=f"DeiT-S {size[0]}x{size[1]}, batch {len(x)}, {name_of_dtype}",
                    provider=name,
                    seconds=middle[name],
                    cpu_seconds=cores[name] / len(seconds[name]),
                    items=len(x),
                    unit="img",
                    peak_bytes=peaks[name],
                    ratio=middle[training.DENSE] / middle[name],
                    device_type=device.type,
                ),
                "dtype": name_of_dtype,
                "batch": len(x),
                "heads": 6,
                "tokens": subject.tokens,
                "dim": 64,
                "cache": "hot",
            }
            for name in steps
        ]
    )
