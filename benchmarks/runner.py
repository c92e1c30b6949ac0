"""One case from its inputs to its rows: gate, clocks, memory."""

import gc
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from benchmarks import check, memory, problems, records, timing
from benchmarks.cost import Cost
from benchmarks.peers import PEERS, Bound, Peer
from benchmarks.roof import Roof
from benchmarks.shapes import Case, dtype_name

SECONDS = {"cpu": 1.5, "cuda": 0.4}
"""Budget of a case for calls timed one by one, hot and cold; the number of rounds follows."""
SHORT = 1e-6
"""That of a tiny run: the fewest rounds."""
GPU_ROUNDS = 11
BUILT = frozenset({"compiled", "flex"})
"""Tags of peers that a compiler builds anew for every shape."""


@cache
def _eviction() -> timing.Eviction:
    return timing.Eviction()


@cache
def side_stream(device: torch.device) -> Any:
    """Return the stream that everything on a GPU is prepared and captured on."""
    return torch.cuda.Stream(device)


def run(case: Case, device: torch.device, benchmark: Any, roof: Roof, tiny: bool) -> list[Any]:
    """Measure a case under pytest-benchmark, which times ours; the peers take turns with it.

    Args:
        case: What to measure.
        device: Where.
        benchmark: The fixture of pytest-benchmark.
        roof: Ceilings measured in this run.
        tiny: The fewest rounds, no figures that mean anything.

    Returns:
        One row per provider and cache, and one per provider that could not take part.

    Raises:
        AssertionError: Ours is wrong.
    """
    if device.type == "cuda":
        with torch.cuda.stream(side_stream(device)):
            return _run(case, device, benchmark, roof, tiny)
    return _run(case, device, benchmark, roof, tiny)


def _run(case: Case, device: torch.device, benchmark: Any, roof: Roof, tiny: bool) -> list[Any]:
    peers = [p for p in PEERS[case.op] if not p.modes or case.mode in p.modes]
    inputs = problems.make(case, device)
    verdicts = {peer.name: check.admit(peer, case, inputs, device) for peer in peers}
    for peer in peers:
        if peer.own and verdicts[peer.name].status == "wrong":
            raise AssertionError(
                f"{case.op}, {case.name}, {peer.name}: {verdicts[peer.name].reason}"
            )
    bounds = {name: v.bound for name, v in verdicts.items() if v.bound is not None}
    timed = {peer.name: peer for peer in peers if peer.name in bounds}
    price = problems.price(case, inputs)
    wall = _wall(bounds, timed, device, benchmark, tiny)
    gc.collect()
    gc.freeze()  # capturing a graph collects as well, which takes long
    try:
        clocks = _clocks(case, bounds, timed, device, wall, inputs, tiny)
    finally:
        gc.unfreeze()
    extras = {name: _extras(case, peer, bounds[name], device) for name, peer in timed.items()}
    shape = {
        "op": case.op,
        "mode": case.mode,
        "dtype": dtype_name(case.dtype),
        "batch": case.batch,
        "heads": case.heads,
        "tokens": case.tokens,
        "dim": case.dim,
        "label": case.label,
        "device_type": device.type,
        "flops": price.flops,
        "bytes": price.bytes,
    }
    rows = []
    for peer in peers:
        known = {**shape, "provider": peer.name, "tags": sorted(peer.tags)}
        verdict = verdicts[peer.name]
        if peer.name not in timed:
            rows.append({**known, "status": verdict.status, "reason": verdict.reason})
            continue
        for cache_state, found in clocks.items():
            if peer.name not in found:
                reason = f"out of memory with {cache_state} caches"
                rows.append({**known, "status": "unavailable", "reason": reason})
                continue
            rows.append(
                {
                    **known,
                    "status": "ok",
                    "cache": cache_state,
                    **_rates(found[peer.name], price, roof),
                    "wall_ms": wall[peer.name].p50,
                    **extras[peer.name],
                }
            )
    _add_ratios(rows)
    for row in rows:
        row["roof"] = records.roof_record(roof)
    return rows


def _wall(
    bounds: dict[str, Bound],
    timed: dict[str, Peer],
    device: torch.device,
    benchmark: Any,
    tiny: bool,
) -> dict[str, timing.Spread]:
    """Time calls from idle device to idle device, each right after an untimed one of itself."""
    own = bounds["ours"].call
    others = [name for name in bounds if name != "ours"]

    def once(name: str) -> float:
        with timed[name].context():
            bounds[name].call()
            return timing.elapsed(bounds[name].call, device)

    costs = {name: 2 * once(name) for name in bounds}
    turns = timing.Turns(costs, SHORT if tiny else SECONDS[device.type])
    seconds: dict[str, list[float]] = {name: [] for name in others}
    turn = iter(range(turns.rounds))

    def before() -> None:
        for name in turns.names(next(turn)):
            if name != "ours":
                seconds[name].append(once(name))
        own()
        timing.wait(device)

    def complete() -> None:
        own()
        timing.wait(device)

    benchmark.pedantic(complete, setup=before, rounds=turns.rounds)
    measured = {name: timing.spread(found) for name, found in seconds.items()}
    return {"ours": timing.spread(benchmark.stats.stats.data), **measured}


def _clocks(
    case: Case,
    bounds: dict[str, Bound],
    timed: dict[str, Peer],
    device: torch.device,
    wall: dict[str, timing.Spread],
    inputs: Any,
    tiny: bool,
) -> dict[str, dict[str, timing.Spread]]:
    contexts = {name: peer.context for name, peer in timed.items()}
    if device.type == "cpu":
        evict = timing.Eviction(1 << 16) if tiny else _eviction()
        calls = {name: bound.call for name, bound in bounds.items()}
        spent = timing.elapsed(evict, device)
        costs = {name: found.p50 / 1e3 + spent for name, found in wall.items()}
        turns = timing.Turns(costs, SHORT if tiny else SECONDS["cpu"])
        return {"hot": wall, "cold": timing.cold_on_cpu(calls, contexts, turns, evict)}
    copies = timing.copies_beyond_cache(problems.input_bytes(inputs), timing.l2_bytes(device))
    sets = [problems.make(case, device, seed) for seed in range(1, min(copies, 64))]
    rounds = 2 if tiny else GPU_ROUNDS
    found = {}
    for state, more in (("hot", []), ("cold", sets)):
        calls_of = {name: _copies(bounds[name], peer, more, case) for name, peer in timed.items()}
        found[state] = timing.on_gpu(calls_of, contexts, side_stream(device), rounds)
    return found


def _copies(bound: Bound, peer: Peer, sets: list[Any], case: Case) -> list[Callable[[], Any]]:
    """Bind every input set; nothing when a peer that saves much does not fit so many times."""
    try:
        with peer.context():
            return [bound.call, *(peer.bind(inputs, case).call for inputs in sets)]
    except torch.cuda.OutOfMemoryError:
        return []


def _extras(case: Case, peer: Peer, bound: Bound, device: torch.device) -> dict[str, Any]:
    with peer.context():
        found = memory.peak(bound.call, device)
    return {
        "peak_bytes": found.bytes,
        "memory_method": found.method,
        "host_us": _host(case, peer, bound, device),
    }


def _host(case: Case, peer: Peer, bound: Bound, device: torch.device) -> float | None:
    """Time to issue a call: on a GPU this one, on a CPU one so small that little else is left."""
    if device.type == "cuda":
        return timing.host_microseconds(bound.call, peer.context, device)
    if peer.tags & BUILT:
        return None
    small = replace(case, batch=1, heads=1, tokens=4, dim=16)
    with peer.context():
        bound = peer.bind(problems.make(small, device), small)
    return timing.host_microseconds(bound.call, peer.context, device)


def _rates(found: timing.Spread, price: Cost, roof: Roof) -> dict[str, Any]:
    seconds = found.p50 / 1e3
    return {
        "p20_ms": found.p20,
        "p50_ms": found.p50,
        "p80_ms": found.p80,
        "rounds": found.rounds,
        "clock": found.clock,
        "gflops": price.flops / seconds / 1e9,
        "gbytes": price.bytes / seconds / 1e9,
        "roof_share": roof.seconds(price.flops, price.bytes) / seconds,
    }


def _add_ratios(rows: list[Any]) -> None:
    """Add how many times faster than the best peer of the same cache a row is."""
    for state in ("hot", "cold"):
        here = [row for row in rows if row.get("cache") == state]
        rivals = [r["p50_ms"] for r in here if not {"own", "yardstick"} & set(r["tags"])]
        best = min(rivals, default=math.nan)
        for row in here:
            row["ratio_to_best_peer"] = None if math.isnan(best) else best / row["p50_ms"]
