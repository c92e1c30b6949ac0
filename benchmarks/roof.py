"""What this device can do at best, measured in the run that is compared with it."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from sparse_vit.engine.linear import OneDnnLinear, onednn_reasons

ROUNDS = 7


class Roof(NamedTuple):
    """Ceilings of one dtype.

    Attributes:
        flops: Operations per second of the best matrix product.
        product: Which product that was.
        copy: Bytes per second, read plus written, of a copy far larger than the caches.
        fill: Bytes per second of writing alone.
    """

    flops: float
    product: str
    copy: float
    fill: float

    def seconds(self, flops: int, traffic: int) -> float:
        """Return the time below which no implementation gets: the larger of the two terms."""
        return max(flops / self.flops, traffic / self.copy)


def measure(device: torch.device, dtype: torch.dtype, tiny: bool = False) -> Roof:
    """Measure the ceilings of a dtype on a device; seconds of work."""
    megabytes = 1 if tiny else 512 if device.type == "cpu" else 4096
    source = torch.full((megabytes << 18,), 0.7, device=device)
    target = torch.empty_like(source)
    moved = source.numel() * source.element_size()
    copy = 2 * moved / _median(partial(target.copy_, source), device)
    fill = moved / _median(partial(target.fill_, 1.0), device)
    rates = {}
    for size in (64,) if tiny else (1024, 2048) if device.type == "cpu" else (4096, 8192):
        for name, product in _products(size, device, dtype).items():
            rates[f"{name} {size}"] = 2 * size**3 / _median(product, device)
    best = max(rates, key=lambda name: rates[name])
    return Roof(rates[best], best, copy, fill)


def _products(size: int, device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    generator = torch.Generator(device).manual_seed(0)
    x, weight = (
        torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2)
    )
    products: dict[str, Callable[[], Any]] = {"mm": lambda: x @ weight}
    if device.type != "cpu":
        return products
    packed = packed_linear(weight, size)
    return products if packed is None else {**products, "packed oneDNN": lambda: packed(x)}


def packed_linear(weight: torch.Tensor, rows: int) -> Callable[[torch.Tensor], Any] | None:
    """Return oneDNN's product with a weight (N, K) packed for so many rows, if there is one."""
    return None if onednn_reasons(weight) else OneDnnLinear(weight, None, None, rows)


def _median(function: Callable[[], Any], device: torch.device) -> float:
    seconds = []
    for _ in range(ROUNDS + 2):
        _wait(device)
        start = time.perf_counter()
        function()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
