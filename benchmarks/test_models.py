"""Whole models: dense, with fewer tokens, as they are, through the engine and other runtimes.

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
import torch

from benchmarks import models, parts
from benchmarks.timing import elapsed

SECONDS = 8.0
"""Budget of a case for turns; the number of rounds follows."""
FEWEST, MOST = 3, 25
LONG = 0.2
"""Seconds of a call that needs no untimed one before it."""
KEEPS = (0.7, 0.5)
KEEPS_OF_ALL = (0.7, 0.5, 0.3, 0.4, 0.6, 0.8, 0.9)
CASES = [(torch.float32, 1), (torch.float32, 8), (torch.float32, 32), (torch.bfloat16, 1)]
CASES += [(torch.bfloat16, 32), (torch.int8, 8)]
CASES_BESIDE = [(torch.float32, 128), (torch.bfloat16, 8), (torch.bfloat16, 128), (torch.int8, 1)]
CASES_BESIDE += [(torch.int8, 32)]
COMPILED = (torch.float32, 8)
"""The case in which the dense model is compiled by default."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cases of the extent; when tiny, batches are of one size."""
    options = metafunc.config.option
    cases = [*CASES, *CASES_BESIDE] if options.full else CASES
    if options.tiny:
        cases = [(torch.float32, 8), (torch.bfloat16, 8), (torch.int8, 8)]
    ids = [f"{str(dtype).removeprefix('torch.')}-{batch}" for dtype, batch in cases]
    metafunc.parametrize(("dtype", "batch"), cases, ids=ids)


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest) -> models.Subject:
    """The weights, and what was exported of them."""
    options = request.config.option
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return models.deit_small(device, KEEPS_OF_ALL if options.full else KEEPS, options.tiny)


@pytest.mark.filterwarnings("ignore:bfloat16 is slower:RuntimeWarning")
@pytest.mark.benchmark(group="whole models")
def test_deit_small(
    benchmark: Any,
    keep_rows: Callable[[list[Any]], None],
    subject: models.Subject,
    device: torch.device,
    tiny: bool,
    request: pytest.FixtureRequest,
    dtype: torch.dtype,
    batch: int,
) -> None:
    if dtype == torch.int8 and device.type != "cpu":
        pytest.skip("8-bit integers are for the processor")
    size, full = subject.dense.patch_embed.img_size, request.config.option.full
    extent = models.Extent(
        compiled=not tiny and dtype != torch.int8 and (full or (dtype, batch) == COMPILED),
        reductions=dtype == torch.float32 or full,
        exports=dtype == torch.float32,
    )
    x = torch.randn(2 if tiny else batch, 3, *size, device=device)
    with torch.inference_mode():
        found, absent = models.contenders(subject, x, dtype, extent)
        roof_dtype = torch.float32 if tiny else _floating(dtype)
        products = models.roof_products(subject.dense, len(x), roof_dtype)
        calls = {name: contender.call for name, contender in found.items()}
        calls |= {name: call for name, (call, _) in products.items()}
        own = models.engine(KEEPS[0])
        seconds = turns(benchmark, calls, own, device, tiny)
        profiled = (models.DENSE_ENGINE, own) if device.type == "cpu" else ()
        often = 1 if min(seconds[own]) > LONG else 5
        shares = {name: parts.shares(calls[name], often) for name in profiled}
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    rates = {name: work / middle[name] for name, (_, work) in products.items()}
    product = max(rates, key=lambda name: rates[name])
    shape = {
        "op": "model",
        "mode": "engine",
        "dtype": str(dtype).removeprefix("torch."),
        "batch": batch,
        "heads": 6,
        "tokens": subject.tokens,
        "dim": 64,
        "label": f"DeiT-S {size[0]}x{size[1]}, batch {len(x)}",
        "device_type": device.type,
    }
    rows = [
        {
            **shape,
            "status": "model",
            "cache": "hot",
            "roof_product": product,
            "roof_gflops": rates[product] / 1e9,
            "products": {name: rate / 1e9 for name, rate in rates.items()},
            "provider": name,
            "p50_ms": middle[name] * 1e3,
            "rounds": len(seconds[name]),
            "images_per_second": len(x) / middle[name],
            "flops": contender.flops,
            "roof_share": contender.flops / middle[name] / rates[product],
            "ratio": middle[models.DENSE] / middle[name],
            "cosine": contender.agreement and contender.agreement.cosine,
            "overlap": contender.agreement and contender.agreement.overlap,
            "shares": shares.get(name),
        }
        for name, contender in found.items()
    ]
    keep_rows(
        [
            *rows,
            *(
                {**shape, "provider": name, "status": "unavailable", "reason": reason}
                for name, reason in absent.items()
            ),
        ]
    )


def _floating(dtype: torch.dtype) -> torch.dtype:
    # The roof of 8-bit integers is that of float32: the share says what they add.
    return torch.float32 if dtype == torch.int8 else dtype


def turns(
    benchmark: Any, calls: dict[str, Callable[[], Any]], own: str, device: torch.device, tiny: bool
) -> dict[str, list[float]]:
    """Time calls in turns, each right after an untimed one of itself if it is short."""
    once: dict[str, float] = {}
    for name, call in calls.items():
        once[name] = elapsed(call, device)
        if once[name] <= LONG:
            once[name] = elapsed(call, device)
    cost = sum(spent if spent > LONG else 2 * spent for spent in once.values())
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    rounds = 2 if tiny else min(MOST, max(FEWEST, int(SECONDS / cost)))

    def timed(name: str) -> None:
        if once[name] <= LONG:
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
