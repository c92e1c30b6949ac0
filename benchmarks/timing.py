"""Clocks: calls that take turns, hot and cold caches, on a processor and on a GPU.

Hot: the call directly follows an untimed call of itself on the same tensors. Cold: on a CPU a
buffer as large as the last cache is rewritten before every call; on a GPU the calls of one captured
graph walk through copies of the inputs that together exceed three times the L2 cache.
"""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

Call = Callable[[], Any]
Context = Callable[[], contextlib.AbstractContextManager[Any]]

GRAPH_MILLISECONDS = 5.0
"""What one replay of a captured graph should last, so that launching it costs nothing."""
MOST_CALLS = 200
HOST_CALLS, HOST_SECONDS = 20, 0.01
"""Most calls in a row whose issuing is timed, and for how long at most."""
SMALLEST_BUFFER, LARGEST_BUFFER = 32 << 20, 256 << 20


FEWEST, MOST = 5, 51
"""Rounds of a call; a slow one takes part in few of them."""
SLOW, FEWEST_SLOW = 0.2, 3


class Spread(NamedTuple):
    """Milliseconds of a call: 20th, 50th and 80th percentile over the rounds, and the clock."""

    p20: float
    p50: float
    p80: float
    rounds: int
    clock: str


def spread(seconds: Sequence[float], clock: str = "host") -> Spread:
    """Summarise rounds given in seconds.

    Raises:
        ValueError: There are none.
    """
    if not seconds:
        raise ValueError("no rounds were timed; give at least one")
    ordered = sorted(seconds)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.2, 0.8))
    middle = statistics.median(ordered)
    return Spread(low * 1e3, middle * 1e3, high * 1e3, len(ordered), clock)


class Turns:
    """Who takes part in which round, when every call gets the same share of a budget.

    Args:
        seconds: What a call of each name costs in a round.
        budget: Seconds for all of them together.

    Attributes:
        rounds: As many as the call with the most.
    """

    def __init__(self, seconds: Mapping[str, float], budget: float) -> None:
        share = budget / max(1, len(seconds))
        self._own = {
            name: min(
                MOST, max(FEWEST if cost < SLOW else FEWEST_SLOW, int(share / max(cost, 1e-9)))
            )
            for name, cost in seconds.items()
        }
        self.rounds = max(self._own.values(), default=0)

    def names(self, turn: int) -> list[str]:
        """Return the names of a round, in an order that shifts from round to round."""
        return [name for name in rotated(list(self._own), turn) if self._takes_part(name, turn)]

    def _takes_part(self, name: str, turn: int) -> bool:
        # as many steps of a staircase over all rounds as the name has rounds
        own = self._own[name]
        return turn * own // self.rounds != (turn - 1) * own // self.rounds


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """Return the names in an order that shifts by one every turn."""
    start = turn % max(1, len(names))
    return [*names[start:], *names[:start]]


def wait(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def elapsed(call: Call, device: torch.device) -> float:
    """Seconds from an idle device to an idle device again."""
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def last_cache() -> int:
    """Bytes of the processor's last level cache as the system states it; 0 when it does not."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        unit = {"K": 10, "M": 20, "G": 30}.get(text[-1:], 0)
        sizes.append(int(text.rstrip("KMG")) << unit)
    return max(sizes)


class Eviction:
    """A buffer whose rewriting pushes everything else out of a CPU's caches.

    Attributes:
        bytes: Its size, that of the last level cache within 32 and 256 MiB.
    """

    def __init__(self, size: int | None = None) -> None:
        self.bytes = size or min(LARGEST_BUFFER, max(SMALLEST_BUFFER, last_cache()))
        self._buffer = torch.zeros(self.bytes >> 2)

    def __call__(self) -> None:
        self._buffer.add_(1.0)


def cold_on_cpu(
    calls: Mapping[str, Call], contexts: Mapping[str, Context], turns: Turns, evict: Call
) -> dict[str, Spread]:
    """Time every call after an eviction, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns.rounds):
        for name in turns.names(turn):
            with contexts[name]():
                evict()
                seconds[name].append(elapsed(calls[name], torch.device("cpu")))
    return {name: spread(found) for name, found in seconds.items()}


def copies_beyond_cache(input_bytes: int, cache_bytes: int) -> int:
    """Return how many input sets together exceed three times the cache; at least two."""
    return max(2, math.ceil(3 * cache_bytes / max(1, input_bytes)) + 1)


def l2_bytes(device: torch.device) -> int:
    """Bytes of a GPU's L2 cache; 64 MiB where torch does not say."""
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 64 << 20))


class Replay:
    """Many calls captured as one CUDA graph, or issued one by one where they cannot be captured.

    Args:
        calls: One call per input set.
        context: Entered while calling, for instance to pin a backend.
        stream: Side stream on which the calls were prepared; autograd runs a backward on the
            stream of its forward.
    """

    def __init__(self, calls: Sequence[Call], context: Context, stream: Any) -> None:
        self._context, self._stream = context, stream
        self._sequence = list(calls)
        self._graph: Any = None
        self._sequence *= self._repeats()
        if not self._synchronises():
            try:
                self._graph = self._capture()
            except RuntimeError:
                torch.cuda.synchronize()
        self.clock = "events" if self._graph is None else "graph"

    def seconds(self) -> float:
        """Run everything once and return the seconds of one call."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(self._stream):
            start.record()
            if self._graph is None:
                self._issue()
            else:
                self._graph.replay()
            end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / len(self._sequence)

    def _repeats(self) -> int:
        self.seconds()
        whole = max(1e-3, self.seconds() * 1e3 * len(self._sequence))
        wanted = math.ceil(GRAPH_MILLISECONDS / whole)
        return max(1, min(wanted, math.ceil(MOST_CALLS / len(self._sequence))))

    def _synchronises(self) -> bool:
        """Tell whether a call waits for the device: known without an attempt to capture it."""
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(self._stream), self._context():
                self._sequence[0]()
        except RuntimeError:
            return True
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return False

    def _issue(self) -> None:
        with self._context():
            for call in self._sequence:
                call()

    def _capture(self) -> Any:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=self._stream):
            self._issue()
        graph.replay()
        torch.cuda.synchronize()
        return graph


def on_gpu(
    calls: Mapping[str, Sequence[Call]], contexts: Mapping[str, Context], stream: Any, rounds: int
) -> dict[str, Spread]:
    """Time the device alone, in turns.

    Args:
        calls: For every name one call per input set; names without any are left out.
        contexts: Entered around the calls of a name.
        stream: Side stream on which the calls were prepared.
        rounds: Replays of each graph.
    """
    replays = {n: Replay(found, contexts[n], stream) for n, found in calls.items() if found}
    seconds: dict[str, list[float]] = {name: [] for name in replays}
    for turn in range(rounds):
        for name in rotated(list(replays), turn):
            seconds[name].append(replays[name].seconds())
    return {name: spread(found, replays[name].clock) for name, found in seconds.items()}


def host_microseconds(call: Call, context: Context, device: torch.device) -> float:
    """Median time to issue a call without waiting for the device."""
    found = []
    with context():
        calls = max(1, min(HOST_CALLS, int(HOST_SECONDS / elapsed(call, device))))
        for _ in range(5):
            wait(device)
            start = time.perf_counter()
            for _ in range(calls):
                call()
            found.append((time.perf_counter() - start) / calls)
    wait(device)
    return statistics.median(found) * 1e6
