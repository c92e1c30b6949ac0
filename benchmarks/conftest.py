"""Two functions timed in turns in one process, and a table of the ratios at the end."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

WARMUP = 2
SECONDS = 6.0
"""Budget of a case; the number of rounds follows from it."""
FEWEST, MOST = 5, 51


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--tiny`, which shows that every case runs; its figures mean nothing."""
    parser.addoption("--tiny", action="store_true", help="small shapes and two rounds")


@pytest.fixture
def tiny(request: pytest.FixtureRequest) -> bool:
    """Whether the cases shrink to a smoke run."""
    return bool(request.config.getoption("--tiny"))


@pytest.fixture
def device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def versus(benchmark: Any, tiny: bool) -> Callable[..., None]:
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
            pair = elapsed(rival) + elapsed(function)
        rounds = 2 if tiny else min(MOST, max(FEWEST, int(SECONDS / pair)))
        seconds: list[float] = []
        benchmark.pedantic(
            lambda: complete(function),
            setup=lambda: seconds.append(elapsed(rival)),
            rounds=rounds,
        )
        own, other = benchmark.stats.stats.median, statistics.median(seconds)
        benchmark.extra_info.update(
            case=case, function=names[0], rival=names[1], rival_median=other, ratio=other / own
        )
        benchmark.extra_info.update(extra)

    return run


def complete(function: Callable[[], Any]) -> None:
    """Call a function and wait until the device has finished."""
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def elapsed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    complete(function)
    return time.perf_counter() - start


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print one line for each pair: both medians and their ratio."""
    session = getattr(config, "_benchmarksession", None)
    results = [b for b in session.benchmarks if "ratio" in b.extra_info] if session else []
    if not results:
        return
    from reid.engine.provenance import provenance

    origin = provenance()
    versions = origin["versions"]
    terminalreporter.section("ratios: medians of runs that take turns")
    terminalreporter.write_line(
        f"{origin['device']}, {origin['threads']} threads, torch {versions['torch']}, "
        f"timm {versions['timm']}, revision {origin['git_revision']}"
    )
    if hasattr(os, "getloadavg"):
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        note = "; other programs run, so the figures mean little" if load > cores + 0.5 else ""
        terminalreporter.write_line(f"load average {load:.1f} on {cores} cores{note}")
    terminalreporter.write_line(
        f"{'case':<44}{'rival':>12}{'ms':>10}{'measured':>12}{'ms':>10}{'ratio':>8}"
    )
    for result in results:
        info = result.extra_info
        terminalreporter.write_line(
            f"{info['case']:<44}{info['rival']:>12}{info['rival_median'] * 1e3:>10.1f}"
            f"{info['function']:>12}{result.stats.median * 1e3:>10.1f}{info['ratio']:>8.2f}"
        )
