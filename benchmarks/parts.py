"""Where the time of an engine goes: the part of every kind of layer in the time of a call."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from sparse_vit.engine.attention import EngineAttention
from sparse_vit.engine.build import Norm
from sparse_vit.engine.linear import OneDnnLinear, TorchLinear
from sparse_vit.engine.quantized import Int8Linear
from sparse_vit.engine.stages import EngineStage

OTHER = "other"
LAYERS: tuple[tuple[str, type], ...] = (
    ("linear layers", OneDnnLinear),
    ("linear layers", TorchLinear),
    ("linear layers", Int8Linear),
    ("attention", EngineAttention),
    ("selection", EngineStage),
    ("LayerNorm", Norm),
)
WHOLE = frozenset({"selection"})
"""Parts that everything called from within counts for; other parts have what they do themselves."""


class Clock:
    """Attributes time to the innermost part that is open."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open = [OTHER]
        self._since = time.perf_counter()

    def __enter__(self) -> None:
        self._since = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._turn()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Attribute what happens to `name`, unless the part around it takes everything."""
        self._turn()
        self._open.append(self._open[-1] if self._open[-1] in WHOLE else name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now


def shares(call: Callable[[], Any], calls: int) -> dict[str, float]:
    """Measure an engine's call on a processor, where every layer is waited for.

    Selection includes the keep predictors with their products, compaction and the LayerNorm of the
    compacted rows. Attention is without its linear layers.

    Args:
        call: Calls the engine.
        calls: How often, after one that does not count.

    Returns:
        Share of each part, sum 1.
    """
    clock = Clock()
    with ExitStack() as stack:
        for name, layer in LAYERS:
            stack.enter_context(mock.patch.object(layer, "__call__", _clocked(clock, name, layer)))
        call()
        clock.seconds.clear()
        with clock:
            for _ in range(calls):
                call()
    total = sum(clock.seconds.values())
    names = dict.fromkeys([*(name for name, _ in LAYERS), OTHER])
    return {name: clock.seconds[name] / total for name in names}


def _clocked(clock: Clock, name: str, layer: Any) -> Callable[..., Any]:
    original = layer.__call__

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        with clock.part(name):
            return original(self, *arguments, **options)

    return call
