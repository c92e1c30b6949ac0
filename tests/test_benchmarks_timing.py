"""Clocks and turns of the benchmarks; the GPU's with a stand-in for the device."""

import contextlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import timing


def test_spread_gives_percentiles_in_milliseconds() -> None:
    found = timing.spread([x / 1e3 for x in (5, 1, 4, 2, 3, 11)])
    assert found[:3] == pytest.approx((2.0, 3.5, 5.0))
    assert found[3:] == (6, "host")
    with pytest.raises(ValueError, match="no rounds"):
        timing.spread([])


def test_slow_calls_take_part_in_few_rounds_spread_over_all() -> None:
    costs = {"fast": 0.01, "middle": 0.1, "slow": 1.0}
    turns = timing.Turns(costs, budget=1.5)
    rounds = [turns.names(turn) for turn in range(turns.rounds)]
    counts = {name: sum(name in names for names in rounds) for name in costs}
    assert counts == {"fast": 50, "middle": 5, "slow": 3}
    when = [turn for turn, names in enumerate(rounds) if "slow" in names]
    assert all(10 <= b - a <= 20 for a, b in pairwise(when))
    equal = timing.Turns(dict.fromkeys("abc", 0.1), budget=1.5)
    assert [equal.names(turn) for turn in range(3)] == [list("abc"), list("bca"), list("cab")]


def test_cold_calls_follow_an_eviction_inside_their_context() -> None:
    log: list[str] = []

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        log.append("in")
        yield
        log.append("out")

    calls = {"a": lambda: log.append("a"), "b": lambda: log.append("b")}
    contexts = {"a": context, "b": contextlib.nullcontext}
    turns = timing.Turns({"a": 1.0, "b": 1.0}, 0.0)
    found = timing.cold_on_cpu(calls, contexts, turns, lambda: log.append("evict"))
    assert log[:6] == ["in", "evict", "a", "out", "evict", "b"]
    assert log.count("evict") == 6
    assert {name: spread.rounds for name, spread in found.items()} == {"a": 3, "b": 3}


def test_an_eviction_is_as_large_as_the_last_cache_within_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cache, size in ((0, 32 << 20), (48 << 20, 48 << 20), (1 << 30, 256 << 20)):
        monkeypatch.setattr(timing, "last_cache", lambda cache=cache: cache)
        monkeypatch.setattr(torch, "zeros", lambda count: SimpleNamespace(count=count))
        eviction = timing.Eviction()
        assert eviction.bytes == size
        assert eviction._buffer.count == size >> 2


def test_input_sets_exceed_three_times_the_cache() -> None:
    assert timing.copies_beyond_cache(10, 50) * 10 > 3 * 50
    assert timing.copies_beyond_cache(10**9, 50 << 20) == 2


class Device:
    """What `torch.cuda` offers, with a clock that every launched call moves on."""

    def __init__(self, captures: bool) -> None:
        self.captures = captures
        self.now = 0.0
        self.recording: list[Callable[[], Any]] | None = None
        self.streams: list[Any] = []
        self.modes: list[str] = []

    def launch(self, name: str, milliseconds: float, log: list[str]) -> None:
        def work() -> None:
            log.append(name)
            self.now += milliseconds

        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    @contextlib.contextmanager
    def graph(self, graph: Any, stream: Any) -> Iterator[None]:
        self.streams.append(stream)
        if not self.captures:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.recording = graph.work
        yield
        self.recording = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        device = self

        class Graph:
            def __init__(self) -> None:
                self.work: list[Callable[[], Any]] = []

            def replay(self) -> None:
                for work in self.work:
                    work()

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = device.now

            def synchronize(self) -> None:
                pass

            def elapsed_time(self, end: Any) -> float:
                return end.at - self.at

        @contextlib.contextmanager
        def stream(which: Any) -> Iterator[None]:
            device.streams.append(which)
            yield

        for name, value in {
            "CUDAGraph": Graph,
            "Event": Event,
            "graph": self.graph,
            "stream": stream,
            "synchronize": lambda *_: None,
            "set_sync_debug_mode": self.modes.append,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)


@pytest.mark.parametrize("captures", [True, False])
def test_a_gpu_is_timed_by_graphs_and_where_that_fails_by_events(
    captures: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, log = Device(captures), []
    device.install(monkeypatch)
    calls = {
        "ours": [lambda n=n: device.launch(f"ours{n}", 0.5, log) for n in range(3)],
        "theirs": [lambda n=n: device.launch(f"theirs{n}", 2.0, log) for n in range(3)],
        "none": [],
    }
    contexts = {name: contextlib.nullcontext for name in calls}
    found = timing.on_gpu(calls, contexts, "side", rounds=4)
    assert set(found) == {"ours", "theirs"}
    for name, milliseconds in (("ours", 0.5), ("theirs", 2.0)):
        assert found[name].p50 == pytest.approx(milliseconds)
        assert found[name].rounds == 4
        assert found[name].clock == ("graph" if captures else "events")
    assert set(device.streams) == {"side"}
    # The input sets follow each other, so that none is still in the cache.
    last = [name for name in log if name.startswith("ours")][-6:]
    assert last == ["ours0", "ours1", "ours2"] * 2


def test_a_call_that_waits_for_the_device_is_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    device, log = Device(captures=True), []
    device.install(monkeypatch)

    def call() -> None:
        if device.modes and device.modes[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        assert device.recording is None
        device.launch("x", 1.0, log)

    replay = timing.Replay([call], contextlib.nullcontext, "side")
    assert replay.clock == "events"
    assert replay.seconds() == pytest.approx(1e-3)
    assert device.modes[-1] == "default"


def test_a_replay_lasts_long_enough_without_endless_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    device, log = Device(captures=True), []
    device.install(monkeypatch)
    for milliseconds, expected in ((0.001, timing.MOST_CALLS), (1.0, 6), (100.0, 2)):
        calls = [lambda m=milliseconds: device.launch("x", m, log) for _ in range(2)]
        replay = timing.Replay(calls, contextlib.nullcontext, "side")
        log.clear()
        replay.seconds()
        assert len(log) == expected
