"""What the package aims at, as data, and which of it the rows of a run meet.

A goal holds for every case it covers: its worst case decides. Nothing here fails a run.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.goal import BF16, F32, Goal, Line, Outcome, Row
from benchmarks.model_goals import model_goals
from benchmarks.task_goals import task_goals

STOCK = frozenset({"sdpa", "explicit"})


def speed(*tags: str) -> Callable[[Line], float | None]:
    """How many times faster ours is than the fastest provider with one of the tags."""

    def figure(line: Line) -> float | None:
        found = [r["p50_ms"] for r in line.values() if set(tags) & set(r["tags"])]
        return min(found) / line["ours"]["p50_ms"] if found and "ours" in line else None

    return figure


def time_of(*tags: str) -> Callable[[Line], float | None]:
    """Our time as a multiple of that of the fastest provider with one of the tags."""
    inverse = speed(*tags)

    def figure(line: Line) -> float | None:
        found = inverse(line)
        return 1.0 / found if found else None

    return figure


def memory_of(tag: str) -> Callable[[Line], float | None]:
    """Our peak memory as a multiple of that of the provider with the tag."""

    def figure(line: Line) -> float | None:
        found = [r["peak_bytes"] for r in line.values() if tag in r["tags"]]
        return line["ours"]["peak_bytes"] / max(1, min(found)) if found and "ours" in line else None

    return figure


def field(name: str, scale: float = 1.0) -> Callable[[Line], float | None]:
    """A figure of our own row."""

    def figure(line: Line) -> float | None:
        value = line["ours"].get(name) if "ours" in line else None
        return None if value is None else value * scale

    return figure


def scratch_vectors(line: Line) -> float | None:
    """Peak memory of a step beyond o, dq, dk, dv, as a number of float32 (B, H, N) tensors."""
    if "ours" not in line:
        return None
    row = line["ours"]
    vector = row["batch"] * row["heads"] * row["tokens"]
    itemsize = {"float32": 4, "bfloat16": 2, "float16": 2}[row["dtype"]]
    return (row["peak_bytes"] - 4 * vector * row["dim"] * itemsize) / (4 * vector)


def evaluate(rows: Iterable[Row], goals: Iterable[Goal] | None = None) -> list[Outcome]:
    """Compare the rows of one device with the goals for it."""
    lines: dict[tuple[Any, ...], dict[str, Row]] = defaultdict(dict)
    devices = set()
    for row in rows:
        devices.add(row["device_type"])
        if row["status"] in ("ok", "model", "task", "way"):
            cache = row.get("cache", "hot")
            key = (row["op"], row["mode"], row["dtype"], row["label"], cache)
            lines[key][row["provider"]] = row
    outcomes = []
    if goals is None:
        goals = (*GOALS, *model_goals(), *task_goals())
    for goal in goals:
        if goal.device not in devices:
            continue
        found = [
            (figure, f"{row['op']} {row['dtype']} {row['label']}")
            for line in lines.values()
            for row in [next(iter(line.values()))]
            if goal.covers(row) and (figure := goal.measure(line)) is not None
        ]
        worst = (min if goal.at_least else max)(found, default=(math.nan, ""))
        outcomes.append(Outcome(goal, *worst, len(found)))
    return outcomes


PLAIN = ("ragged_attention", "dense_attention")
MASKED = ("masked_attention",)


def _cpu(
    name: str, ops: tuple[str, ...], mode: str, dtypes: tuple[str, ...], tokens: tuple[int, int],
    measure: Callable[[Line], float | None], bound: float, at_least: bool = True,
) -> Goal:  # fmt: skip
    return Goal(name, "cpu", ops, mode, dtypes, tokens, measure, bound, at_least=at_least)


def _gpu(
    name: str, ops: tuple[str, ...], mode: str, tokens: tuple[int, int],
    measure: Callable[[Line], float | None], bound: float, stretch: float | None = None,
    at_least: bool = True,
) -> Goal:  # fmt: skip
    return Goal(
        name, "cuda", ops, mode, BF16, tokens, measure, bound, stretch, at_least,
        cache="cold", batch_heads=384, dims=(64,),
    )  # fmt: skip


GOALS = (
    _cpu("forward, times the best of SDPA and explicit products", PLAIN, "forward", F32,
         (33, 197), speed(*STOCK), 2.0),
    _cpu("forward, times the best of SDPA and explicit products", PLAIN, "forward", BF16,
         (33, 99), speed(*STOCK), 2.0),
    _cpu("forward, times the best of SDPA and explicit products", PLAIN, "forward", BF16,
         (100, 197), speed(*STOCK), 1.5),
    _cpu("forward, share of the roof", PLAIN, "forward", (*F32, *BF16), (33, 197),
         field("roof_share"), 0.5),
    _cpu("training step, times the eager policy softmax", MASKED, "step", (*F32, *BF16),
         (33, 197), speed("eager"), 2.0),
    _cpu("training step, peak memory over that of the eager policy softmax", MASKED, "step",
         (*F32, *BF16), (33, 197), memory_of("eager"), 0.5, at_least=False),
    _gpu("forward, times the best library", PLAIN, "forward", (1, 129), speed("library"), 1.5, 2.0),
    _gpu("forward, share of the roof", PLAIN, "forward", (1, 129), field("roof_share"), 0.5, 0.7),
    _gpu("forward, times the best library", PLAIN, "forward", (130, 257), speed("library"),
         1.2, 1.5),
    _gpu("forward, share of the roof", PLAIN, "forward", (130, 257), field("roof_share"),
         0.6, 0.75),
    _gpu("forward, times the best library", PLAIN, "forward", (385, 600), speed("library"),
         0.95, 1.1),
    _gpu("forward, share of the roof", PLAIN, "forward", (385, 600), field("roof_share"),
         0.45, 0.55),
    _gpu("training step with dkeep, time over the best unmasked", MASKED, "step", (1, 257),
         time_of("unmasked"), 1.0, 0.8, False),
    _gpu("training step, share of the roof", MASKED, "step", (1, 257), field("roof_share"),
         0.4, 0.55),
    _gpu("training step with dkeep, time over the best unmasked", MASKED, "step", (385, 600),
         time_of("unmasked"), 1.2, 1.0, False),
    _gpu("training step, time over ours without dkeep", MASKED, "step", (1, 600),
         time_of("no dkeep"), 1.08, 1.03, False),
    _gpu("training step, times the eager policy softmax", MASKED, "step", (1, 600),
         speed("eager"), 8.0),
    _gpu("training step, times the compiled policy softmax", MASKED, "step", (1, 600),
         speed("compiled"), 2.5),
    _gpu("training step, times FlexAttention with captured mask", MASKED, "step", (1, 600),
         speed("flex"), 3.0),
    _gpu("training step, times the augmented key", MASKED, "step", (1, 600),
         speed("augmented"), 1.3),
    _gpu("training step, scratch in float32 (B, H, N) tensors", MASKED, "step", (1, 600),
         scratch_vectors, 4.0, None, False),
    _gpu("forward, host microseconds of a call", (*PLAIN, *MASKED), "forward", (1, 600),
         field("host_us"), 25.0, 12.0, False),
    _gpu("forward of 128 x 12 x 129, microseconds", ("dense_attention",), "forward", (129, 129),
         field("p50_ms", 1e3), 40.0, None, False),
    _gpu("forward of 128 x 12 x 197, microseconds", ("dense_attention",), "forward", (197, 197),
         field("p50_ms", 1e3), 60.0, None, False),
    _gpu("backward of 128 x 12 x 129, microseconds", MASKED, "backward", (129, 129),
         field("p50_ms", 1e3), 118.0, None, False),
    _gpu("backward of 128 x 12 x 197, microseconds", MASKED, "backward", (197, 197),
         field("p50_ms", 1e3), 180.0, None, False),
)  # fmt: skip
