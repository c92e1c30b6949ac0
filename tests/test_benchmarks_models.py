"""The suite of whole models: operations counted, thresholds found, goals judged, tables made."""

from typing import Any

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import goals, model_goals, models, tables
from sparse_vit import sparsify
from sparse_vit.engine import optimize


def vit(**options: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(
        "deit_tiny_patch16_224",
        img_size=(64, 32),
        embed_dim=32,
        num_heads=2,
        num_classes=0,
        depth=5,
        **options,
    ).eval()


def counted(model: Any, x: torch.Tensor) -> int:
    # Outside inference mode, which the counter does not see into.
    with FlopCounterMode(display=False) as counter:
        model(x)
    return int(counter.get_total_flops())


def test_operations_are_those_that_torch_counts() -> None:
    x, dense = torch.randn(3, 3, 64, 32), vit()
    assert models.flops_of(dense, 3, False) == counted(dense, x)
    last = counted(sparsify(dense, (), ()).eval(), x) - counted(dense, x)
    shorter = models.flops_of(dense, 3, True) - models.flops_of(dense, 3, False)
    # Torch's model computes all queries of the last block and only then drops them.
    queries = 2 * 32 * 32 * 8 * 3
    assert shorter == last - queries


def test_keep_predictors_count() -> None:
    x = torch.randn(3, 3, 64, 32)
    model = sparsify(vit(), (1, 3), 0.5).eval()
    random = sparsify(vit(), (1, 3), 0.5, "random").eval()
    width, tokens = 32, 8 + 4
    each = width * width + (width // 2) ** 2 + width // 2 * width // 4 + 2 * (width // 4)
    expected = 3 * (2 * tokens * each + 2 * 2 * (width // 2) ** 2)
    assert counted(model, x) - counted(random, x) == expected


def test_thresholds_keep_as_many_tokens_as_the_schedule() -> None:
    model = sparsify(vit(), (1, 3), 0.6).eval()
    for parameter in model.selectors.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(6, 3, 64, 32)
    rule = models.thresholds_of(model, x, torch.float32)
    kept = optimize(model, batch=6, adaptive=rule).with_kept(x)[1]
    # At least one token stays in an image that has none at the threshold.
    for mask, count in zip(kept, model.keep_counts, strict=True):
        assert 6 * count <= int(mask.sum()) <= 6 * count + 3
    assert kept[0].sum(dim=1).unique().numel() > 1


def rows(dtype: str, batch: int, times: dict[str, float]) -> list[dict[str, Any]]:
    shape = {
        "op": "model", "mode": "engine", "dtype": dtype, "batch": batch, "heads": 6, "tokens": 128,
        "dim": 64, "label": f"batch {batch}", "device_type": "cpu", "status": "model",
        "cache": "hot", "roof_gflops": 300.0, "cosine": 0.5, "overlap": (0.25, 1.0),
        "images_per_second": 7.0,
    }  # fmt: skip
    return [
        {**shape, "provider": name, "p50_ms": ms, "ratio": times[models.DENSE] / ms,
         "flops": 30 if "keep" not in name else 20, "roof_share": 0.8}
        for name, ms in times.items()
    ]  # fmt: skip


@pytest.mark.parametrize(("dense", "verdict"), [(39.0, "met"), (37.0, "missed")])
def test_goals_are_judged_by_their_batch(dense: float, verdict: str) -> None:
    fast, ragged = models.engine(0.7), models.adaptive(0.7)
    times = {models.DENSE: dense, models.DENSE_ENGINE: 15.0, fast: 10.0, ragged: 11.0}
    found = rows("float32", 32, times) + rows("float32", 1, {models.DENSE: 10.0, fast: 3.6})
    outcomes = {
        (o.goal.name, o.goal.dtypes): o for o in goals.evaluate(found, model_goals.model_goals())
    }
    assert outcomes["keep 0.7, times dense timm, eager", ("float32",)].verdict == verdict
    assert outcomes["keep 0.7, share of the roof", ("float32",)].verdict == "missed"
    assert outcomes["keep 0.7, share of the roof", ("bfloat16",)].verdict == "not measured"
    both = ("float32", "bfloat16")
    over = outcomes["keep 0.7, times the dense engine over the ratio of FLOPs", both]
    assert over.worst == pytest.approx(1.0)
    latency = outcomes["keep 0.7, batch 1, time over dense timm, eager", ("float32",)]
    assert (latency.worst, latency.verdict) == (pytest.approx(0.36), "missed")
    assert outcomes["keep 0.7, adaptive times fixed", both].verdict == "missed"


def test_the_table_says_what_was_measured() -> None:
    (section,) = tables.models_of(rows("int8", 8, {models.DENSE: 40.0, models.engine(0.7): 10.0}))
    assert section.title == "batch 8, int8; best product 300 GFLOP/s"
    assert section.body[1][1:5] == ["10.00", "7.000", "4.00", "2e-08"]
    assert section.body[1][5:] == ["80", "0.500000", "25.0 100.0"]
