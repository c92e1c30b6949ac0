"""Two functions timed in turns in one process."""

import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.timing import elapsed, wait

WARMUP = 2
SECONDS = 4.0
"""Budget of a case; the number of rounds follows from it."""
FEWEST, MOST = 5, 51


@pytest.fixture
def versus(benchmark: Any, tiny: bool, device: torch.device) -> Callable[..., None]:
    """Time a function under pytest-benchmark with its rival before every round.

    The rival's median and the ratio (above 1: the function is faster) go to `extra_info`, and
    with it into the file of `--benchmark-json`. Taking turns lets drift of the machine hit both.
    """

    def run(
        function: Callable[[], Any],
        rival: Callable[[], Any],
        *,
        case: str,
        names: tuple[str, str],
        **extra: Any,
    ) -> None:
        for _ in range(WARMUP):
            pair = elapsed(rival, device) + elapsed(function, device)
        rounds = 2 if tiny else min(MOST, max(FEWEST, int(SECONDS / pair)))
        seconds: list[float] = []

        def complete() -> None:
            function()
            wait(device)

        benchmark.pedantic(
            complete, setup=lambda: seconds.append(elapsed(rival, device)), rounds=rounds
        )
        own, other = benchmark.stats.stats.median, statistics.median(seconds)
        benchmark.extra_info.update(
            case=case, function=names[0], rival=names[1], rival_median=other, ratio=other / own
        )
        benchmark.extra_info.update(extra)

    return run
