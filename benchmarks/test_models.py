"""Whole models through the engine against the dense model and the pruned one as they are.

DeiT-S at 256 x 128 with random weights: the schedule, and with it the cost, does not depend on
them. All contenders of a case take turns in one process, and so do the matrix products that give
the roof: what a contender needs in operations over its time, as a share of the best product's rate.
"""

import gc
import os
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch

from benchmarks import models
from benchmarks.timing import elapsed
from sparse_vit import sparsify

SECONDS = 12.0
"""Budget of a case for turns; the number of rounds follows."""
FEWEST, MOST = 3, 25
KEEPS = (0.7, 0.5)
CASES = [(torch.float32, 1), (torch.float32, 8), (torch.float32, 32)]
CASES += [(torch.bfloat16, 1), (torch.bfloat16, 8), (torch.bfloat16, 32)]
CASES += [(torch.int8, 1), (torch.int8, 32)]


@pytest.mark.filterwarnings("ignore:bfloat16 is slower:RuntimeWarning")
@pytest.mark.parametrize(("dtype", "batch"), CASES, ids=lambda part: str(part).split(".")[-1])
@pytest.mark.benchmark(group="whole models")
def test_deit_small(
    benchmark: Any,
    keep_rows: Callable[[list[Any]], None],
    device: torch.device,
    tiny: bool,
    request: pytest.FixtureRequest,
    dtype: torch.dtype,
    batch: int,
) -> None:
    if dtype == torch.int8 and device.type != "cpu":
        pytest.skip("8-bit integers are for the processor")
    if tiny and batch > 1:
        pytest.skip("when tiny, all batches are of one size")
    size = (64, 32) if tiny else (256, 128)
    torch.manual_seed(0)
    narrow = {"embed_dim": 64, "num_heads": 2} if tiny else {}
    dense: Any = timm.create_model("deit_small_patch16_224", img_size=size, num_classes=0, **narrow)
    dense = dense.to(device).eval()
    pruned = {keep: sparsify(dense, keep_ratio=keep).eval() for keep in KEEPS}
    x = torch.randn(2 if tiny else batch, 3, *size, device=device)
    with torch.inference_mode():
        found = models.contenders(dense, pruned, x, dtype, request.config.option.full)
        products = models.roof_products(dense, len(x), torch.float32 if tiny else _floating(dtype))
        calls = {name: contender.call for name, contender in found.items()}
        calls |= {name: call for name, (call, _) in products.items()}
        seconds = turns(benchmark, calls, models.engine(KEEPS[0]), device, tiny)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    rates = {name: work / middle[name] for name, (_, work) in products.items()}
    product = max(rates, key=lambda name: rates[name])
    shape = {
        "op": "model",
        "mode": "engine",
        "dtype": str(dtype).removeprefix("torch."),
        "batch": batch,
        "heads": 6,
        "tokens": dense.patch_embed.num_patches,
        "dim": 64,
        "label": f"DeiT-S {size[0]}x{size[1]}, batch {len(x)}",
        "device_type": device.type,
        "status": "model",
        "cache": "hot",
        "roof_product": product,
        "roof_gflops": rates[product] / 1e9,
    }
    keep_rows(
        [
            {
                **shape,
                "provider": name,
                "p50_ms": middle[name] * 1e3,
                "rounds": len(seconds[name]),
                "images_per_second": len(x) / middle[name],
                "flops": contender.flops,
                "roof_share": contender.flops / middle[name] / rates[product],
                "ratio": middle[models.DENSE] / middle[name],
                "cosine": contender.agreement and contender.agreement.cosine,
                "overlap": contender.agreement and contender.agreement.overlap,
            }
            for name, contender in found.items()
        ]
    )


def _floating(dtype: torch.dtype) -> torch.dtype:
    # The roof of 8-bit integers is that of float32: the share says what they add.
    return torch.float32 if dtype == torch.int8 else dtype


def turns(
    benchmark: Any, calls: dict[str, Callable[[], Any]], own: str, device: torch.device, tiny: bool
) -> dict[str, list[float]]:
    """Time calls in turns, each right after an untimed one of itself if it is short."""
    once = {name: min(elapsed(call, device), elapsed(call, device)) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    rounds = 2 if tiny else min(MOST, max(FEWEST, int(SECONDS / (2 * sum(once.values())))))

    def timed(name: str) -> None:
        elapsed(calls[name], device)
        seconds[name].append(elapsed(calls[name], device))

    def others() -> None:
        for name in calls:
            if name != own:
                timed(name)

    gc.collect()
    benchmark.pedantic(lambda: timed(own), setup=others, rounds=rounds)
    benchmark.extra_info["load_average"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return seconds
