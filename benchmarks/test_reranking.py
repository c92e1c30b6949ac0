"""The k-reciprocal Jaccard distance: sparse and exact here, dense in two public formulations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

K1, K2 = 30, 6
DENSE = {"cluster-contrast": "torch_products", "zhong": "zhong_numpy"}


@pytest.mark.parametrize("variant", list(DENSE))
@pytest.mark.benchmark(group="k-reciprocal Jaccard distance")
def test_jaccard(
    contest: Callable[..., dict[str, Any]],
    device: torch.device,
    tiny: bool,
    request: pytest.FixtureRequest,
    variant: str,
) -> None:
    """Compare at one size; with --full also time ours at the size of MSMT17's training set."""
    if device.type != "cpu":
        pytest.skip("the dense formulations are timed on a CPU")
    count, width = (200, 16) if tiny else (8000, 2048)
    whole = 32_621 if request.config.option.full else count
    given = {"width": width, "k1": K1, "k2": K2}
    found = contest(
        "benchmarks.reranking",
        {
            "ours": ("ours", {**given, "count": whole, "variant": variant}),
            f"dense, {DENSE[variant]}": (DENSE[variant], {**given, "count": count}),
        },
        op="reranking",
        mode="jaccard",
        case=f"{variant}, {whole} x {width}, k1={K1}, k2={K2}",
        size=(whole, width),
        scales={f"dense, {DENSE[variant]}": (whole / count) ** 2},
    )
    if whole == count:
        values = [np.array(row["result"]) for row in found.values()]
        # a float32 product may swap two neighbours at nearly one distance
        assert (np.abs(values[0] - values[1]) > 1e-3).mean() < 0.01
