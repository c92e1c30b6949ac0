"""A short race between ways to do the same, run once when an engine is built."""

import time
from collections.abc import Callable, Hashable, Mapping

import torch

__all__ = ["Probe"]

ROUNDS = 5


class Probe:
    """Times candidates in turns and remembers who won for which key."""

    def __init__(self) -> None:
        self._known: dict[Hashable, dict[str, float]] = {}

    def seconds(
        self, key: Hashable, candidates: Mapping[str, Callable[[], object]]
    ) -> dict[str, float]:
        """Least seconds of every candidate.

        Args:
            key: what the result depends on; a key met before is not timed again.
            candidates: calls without arguments by name, for the processor.
        """
        if key not in self._known:
            spent: dict[str, list[float]] = {name: [] for name in candidates}
            with torch.inference_mode():
                for _ in range(ROUNDS + 1):
                    for name, call in candidates.items():
                        start = time.perf_counter()
                        call()
                        spent[name].append(time.perf_counter() - start)
            # The first round prepares primitives; the least of the rest has met no other program.
            self._known[key] = {name: min(times[1:]) for name, times in spent.items()}
        return self._known[key]
