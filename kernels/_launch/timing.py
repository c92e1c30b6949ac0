"""Times alternatives on a GPU: captured in graphs, replayed in turns, on inputs not in cache."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

Call = Callable[[Any], object]

QUICK, ROUNDS = 3, 25
"""Rounds in which all alternatives take part, and those of the best."""
BEST = 6


def input_sets(one: Any, device: torch.device) -> int:
    """Return how many sets of inputs exceed three times the last cache together, at least 2.

    Args:
        one: The arguments of one call.
        device: A CUDA or ROCm device.
    """
    read = sum(x.numel() * x.element_size() for x in one if isinstance(x, torch.Tensor))
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or 64 << 20
    return max(2, math.ceil(3 * cache / max(read, 1)))


def compare(calls: Sequence[Call], inputs: Sequence[Any]) -> list[float]:
    """Time calls against one another.

    Every call is captured once for each set of inputs, one after another in one graph; the graphs
    are replayed in turns. All take part in a few rounds, the best ones in the rest.

    Args:
        calls: The alternatives; each is called with one set of inputs.
        inputs: The sets.

    Returns:
        Seconds per call: the median over the rounds.
    """
    pool = torch.cuda.graph_pool_handle()
    graphs = [_captured(call, inputs, pool) for call in calls]
    everyone = range(len(calls))
    seconds: list[list[float]] = [[] for _ in calls]
    _play(graphs, everyone, QUICK, seconds)
    medians = [statistics.median(s) for s in seconds]
    best = sorted(everyone, key=lambda i: medians[i])[:BEST]
    # The first is what runs without a tuning file: the others are judged by it.
    _play(graphs, sorted({0, *best}), ROUNDS, seconds)
    return [statistics.median(s) / len(inputs) for s in seconds]


def _captured(call: Call, inputs: Sequence[Any], pool: Any) -> torch.cuda.CUDAGraph:
    for arguments in inputs[:2]:
        call(arguments)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        for arguments in inputs:
            call(arguments)
    return graph


def _play(
    graphs: Sequence[torch.cuda.CUDAGraph],
    players: Sequence[int],
    rounds: int,
    seconds: Sequence[list[float]],
) -> None:
    event: Any = torch.cuda.Event
    for i in players:
        graphs[i].replay()
    for turn in range(rounds):
        for i in (*players[turn % len(players) :], *players[: turn % len(players)]):
            start, end = event(enable_timing=True), event(enable_timing=True)
            start.record()
            graphs[i].replay()
            end.record()
            end.synchronize()
            seconds[i].append(start.elapsed_time(end) / 1e3)
