"""Fusing and merging through the engine: what the model returns, from packed rows."""

from typing import Any

import pytest
import torch
from test_sparse_vit_engine import assert_same, build, images
from torch import nn

from sparse_vit import SparseVisionTransformer, constant_merging, sparsify
from sparse_vit.engine import agreement, optimize
from sparse_vit.engine.biased import masked, widened
from sparse_vit.engine.lengths import Lengths

METHODS: dict[str, dict[str, Any]] = {
    "fuse": {"stages": (1, 2, 3), "keep_ratio": (0.6, 0.4, 0.2)},
    "fuse_before_the_last": {"stages": (0, 2), "keep_ratio": (0.6, 0.4)},
    "merge": {"stages": (1, 2, 3), "keep_ratio": (0.7, 0.5, 0.3)},
    "merge_in_every_block": dict(
        zip(("stages", "keep_ratio"), constant_merging(18, 4, 3), strict=True)
    ),
    "nothing_to_do": {"stages": (1, 2), "keep_ratio": (1.0, 1.0)},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"reg_tokens": 2},
    "features": {"num_classes": 0},
    "layer_scale": {"init_values": 0.3},
    "qk_norm": {"qk_norm": True},
    "inner_norms": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "average": {"global_pool": "avg"},
    "no_class_token": {"class_token": False, "global_pool": "avg"},
    "attention_pool": {"global_pool": "map", "class_token": False},
    "all_tokens": {"global_pool": ""},
    "distilled": {"distilled": True},
}


def reduced(method: str, **options: Any) -> SparseVisionTransformer:
    vit = build(**options)
    reduction = "merge" if "merge" in method or not vit.has_class_token else "fuse"
    chosen = METHODS[method]
    if reduction == "merge" and "fuse" in method:
        pytest.skip("fusing needs a class token, sparsify says so")
    return sparsify(vit, **chosen, reduction=reduction).eval()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("method", ["fuse", "merge"])
def test_equals_the_model(method: str, variant: str) -> None:
    model = reduced(method, **VARIANTS[variant])
    assert_same(model, optimize(model, batch=3), images())


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("fuse", "merge")])
def test_equals_the_model_wherever_it_reduces(method: str) -> None:
    model = reduced(method)
    assert_same(model, optimize(model, batch=3), images())


@pytest.mark.parametrize("way", ["masked", "widened"])
@pytest.mark.parametrize("variant", ["plain", "qk_norm"])
def test_either_attention_equals_the_model(
    way: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(self: Any, key: Any, calls: dict[str, Any]) -> dict[str, float]:
        return {name: float(("mask" in name) != (way == "masked")) for name in calls}

    monkeypatch.setattr("sparse_vit.engine.probe.Probe.seconds", seconds)
    model = reduced("merge_in_every_block", **VARIANTS[variant])
    run = optimize(model)
    paths = {part.name: part.path for part in run.describe().parts}
    assert ("as a mask" in paths["blocks.2.attn attention"]) == (way == "masked")
    assert_same(model, run, images())


@pytest.mark.parametrize("way", [masked, widened])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_counts_a_token_as_often_as_it_has_patches(way: Any, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    q, k, v = torch.randn(2 * 7, 3, 2, 8, generator=generator).to(dtype).unbind(1)
    sizes = torch.randint(1, 20, (2, 7), generator=generator).float()
    found = way(q, k, v, sizes.log(), Lengths.of(2, 7, q.device), 0.3).double()
    for image in range(2):
        for head in range(2):
            rows = slice(7 * image, 7 * image + 7)
            weights = (0.3 * q[rows, head].double() @ k[rows, head].double().t()).exp()
            weights = weights * sizes[image].double()
            expected = weights @ v[rows, head].double() / weights.sum(dim=1, keepdim=True)
            eps = 16 * torch.finfo(dtype).eps
            torch.testing.assert_close(found[rows, head], expected, rtol=eps, atol=eps)


def test_the_bias_of_a_key_has_more_digits_than_bfloat16() -> None:
    sizes = torch.tensor([[3000.0, 2500.0, 2000.0, 1700.0, 1400.0, 1000.0, 700.0]])
    q = torch.zeros(7, 1, 8, dtype=torch.bfloat16)
    v = torch.eye(7, 8, dtype=torch.bfloat16)[:, None]
    # In front of a small factor the logs are large: one part of the bias would be 2 % off.
    found = widened(q, q, v, sizes.log(), Lengths.of(1, 7, q.device), 0.05)[:, 0, :7].float()
    expected = (sizes / sizes.sum()).expand(7, 7)
    torch.testing.assert_close(found, expected, rtol=torch.finfo(torch.bfloat16).eps, atol=0.0)


@pytest.mark.parametrize("method", ["fuse", "merge"])
@pytest.mark.filterwarnings("ignore:bfloat16 is slower")
def test_bfloat16_is_close(method: str) -> None:
    # Everything stays, so that no token at a cut decides.
    ratios = {"fuse": (1.0, 1.0), "merge": (0.75, 0.75)}[method]
    vit = build(init_values=0.3, img_size=(96, 48))
    model = sparsify(vit, (1, 2), ratios, reduction=method).eval()
    x = images(size=(96, 48))
    run = optimize(model, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = model(x)
    assert nn.functional.cosine_similarity(run(x), expected).min() > 0.999


@pytest.mark.parametrize("method", ["fuse", "merge"])
@pytest.mark.filterwarnings("ignore:bfloat16 is slower")
def test_most_bfloat16_decisions_agree(method: str) -> None:
    vit, x = build(init_values=0.3, img_size=(96, 48)), images(8, size=(96, 48))
    model = sparsify(vit, (1, 2), (0.7, 0.5), reduction=method).eval()
    found = agreement(optimize(model, dtype=torch.bfloat16), model, x)
    assert min(found.overlap) > 0.9


@pytest.mark.parametrize("method", ["fuse", "merge"])
def test_a_batch_equals_its_images_one_by_one(method: str) -> None:
    run, x = optimize(reduced(method), batch=2), images(5)
    output, kept = run.with_kept(x)
    for i in range(5):
        alone, mask = run.with_kept(x[i : i + 1])
        torch.testing.assert_close(alone[0], output[i], rtol=1e-4, atol=1e-5)
        assert all(torch.equal(a[0], b[i]) for a, b in zip(mask, kept, strict=True))


@pytest.mark.parametrize("method", ["fuse", "merge"])
def test_a_nan_stays_in_its_image(method: str) -> None:
    run, x = optimize(reduced(method)), images()
    clean = run(x)
    x[1, 0, 5, 5] = torch.nan
    spoilt = run(x)
    assert spoilt[1].isnan().all()
    torch.testing.assert_close(spoilt[[0, 2]], clean[[0, 2]])


def test_the_description_says_how_tokens_are_reduced() -> None:
    merged, fused = (str(optimize(reduced(method)).describe()) for method in ("merge", "fuse"))
    assert "merges to 0.7" in merged
    assert "most similar keys" in merged
    assert "log sizes" in merged
    assert "fuses to 0.6" in fused
    assert "weighted sum" in fused


def test_thresholds_do_not_go_with_other_reductions() -> None:
    class Thresholds:
        thresholds, min_keep, max_keep = (-1.0,) * 3, 1, None

    with pytest.raises(
        ValueError, match="adaptive goes with reduction='prune', the model has 'merge'"
    ):
        optimize(reduced("merge"), adaptive=Thresholds())
