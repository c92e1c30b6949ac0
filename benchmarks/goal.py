"""What a goal is: a bound on a figure of some cases, and what came of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Row = Mapping[str, Any]
Line = Mapping[str, Row]
"""The rows of one case and one cache, by provider."""

F32, BF16 = ("float32",), ("bfloat16",)


class Outcome(NamedTuple):
    """A goal against what was measured; `worst` is NaN when no case of a run is covered."""

    goal: "Goal"
    worst: float
    where: str
    cases: int

    @property
    def verdict(self) -> str:
        """One of "met", "met, and the stretch", "missed" and "not measured"."""
        if math.isnan(self.worst):
            return "not measured"
        if self.goal.stretch is not None and self.goal.holds(self.worst, self.goal.stretch):
            return "met, and the stretch"
        return "met" if self.goal.holds(self.worst, self.goal.bound) else "missed"


@dataclass(frozen=True)
class Goal:
    """A bound on a figure of some cases.

    Attributes:
        name: What is aimed at, in words.
        device: "cpu" or "cuda".
        ops: Operators.
        mode: Mode of the cases.
        dtypes: Names of dtypes.
        tokens: Smallest and largest N.
        measure: From a line to the figure; None when the line does not have it.
        bound: What the figure must reach, or must not exceed.
        stretch: A harder bound, if any.
        at_least: Whether larger is better.
        cache: "hot" or "cold".
        batch_heads: Smallest product of batch and heads.
        dims: Head dimensions; empty means all.
    """

    name: str
    device: str
    ops: tuple[str, ...]
    mode: str
    dtypes: tuple[str, ...]
    tokens: tuple[int, int]
    measure: Callable[[Line], float | None]
    bound: float
    stretch: float | None = None
    at_least: bool = True
    cache: str = "hot"
    batch_heads: int = 1
    dims: tuple[int, ...] = ()

    def holds(self, figure: float, bound: float) -> bool:
        """Tell whether a figure is on the right side of a bound."""
        return figure >= bound if self.at_least else figure <= bound

    def covers(self, row: Row) -> bool:
        """Tell whether a row's case counts."""
        return (
            row["device_type"] == self.device
            and row["op"] in self.ops
            and row["mode"] == self.mode
            and row["dtype"] in self.dtypes
            and self.tokens[0] <= row["tokens"] <= self.tokens[1]
            and row.get("cache", "hot") == self.cache
            and row["batch"] * row["heads"] >= self.batch_heads
            and (not self.dims or row["dim"] in self.dims)
        )
