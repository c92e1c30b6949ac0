"""The engine returns what the model returns, for every model that it takes."""

from typing import Any

import pytest
import torch
from timm.layers import GluMlp, RmsNorm, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sparse_vit import FixedDecisions, SparseVisionTransformer, sparsify
from sparse_vit.engine import agreement, optimize
from sparse_vit.engine.linear import OneDnnLinear, TorchLinear, onednn_reasons
from sparse_vit.engine.quantized import Int8Linear, int8_reasons

STAGES = (1, 2, 3)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"reg_tokens": 4},
    "registers_no_embed_class": {"reg_tokens": 4, "no_embed_class": True},
    "no_class_token": {"class_token": False, "global_pool": "avg"},
    "average_with_prefix": {"global_pool": "avg", "pool_include_prefix": True},
    "max": {"global_pool": "max"},
    "attention_pool": {"global_pool": "map", "class_token": False},
    "all_tokens": {"global_pool": ""},
    "features": {"num_classes": 0},
    "layer_scale": {"init_values": 0.3},
    "qk_norm": {"qk_norm": True},
    "inner_norms": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "rms_norm_and_glu": {"norm_layer": RmsNorm, "mlp_layer": GluMlp},
    "split_glu": {"mlp_layer": SwiGLU},
    "relu": {"act_layer": nn.ReLU},
    "pre_norm": {"pre_norm": True},
    "no_positions": {"pos_embed": "none"},
    "no_bias": {"qkv_bias": False, "proj_bias": False},
    "dynamic": {"dynamic_img_size": True},
    "padded": {"dynamic_img_size": True, "dynamic_img_pad": True},
    "distilled": {"distilled": True},
}


def build(seed: int = 0, distilled: bool = False, **kwargs: Any) -> VisionTransformer:
    torch.manual_seed(seed)
    options = {"img_size": (48, 24), "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    vit = (VisionTransformerDistilled if distilled else VisionTransformer)(
        **{**options, "num_classes": 5, **kwargs}
    )
    for name, parameter in vit.named_parameters():
        # Large and uneven, so that a wrong token or a forgotten factor shows.
        if parameter.ndim > 1 or "token" in name:
            nn.init.normal_(parameter, std=0.15)
        elif "norm" in name or "gamma" in name or "bias" in name:
            nn.init.uniform_(parameter, -0.5, 1.0)
    return vit.eval()


def sparse(vit: VisionTransformer, **options: Any) -> SparseVisionTransformer:
    torch.manual_seed(3)
    model = sparsify(vit, STAGES, options.pop("keep_ratio", 0.7), **options).eval()
    for parameter in model.selectors.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


def images(batch: int = 3, seed: int = 1, size: tuple[int, int] = (48, 24)) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def assert_same(model: SparseVisionTransformer, run: Any, x: Tensor) -> None:
    """Equal kept tokens, and outputs equal to rounding."""
    with torch.no_grad():
        torch.manual_seed(5)
        expected, decisions = model.forward_with_decisions(x)
    torch.manual_seed(5)
    output, kept = run.with_kept(x)
    assert len(kept) == len(decisions)
    for mask, decision in zip(kept, decisions, strict=True):
        assert torch.equal(mask, decision.mask.bool())
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("selector", ["predictor", "class_attention"])
def test_equals_the_model(variant: str, selector: str) -> None:
    vit = build(**VARIANTS[variant])
    if selector == "class_attention" and not vit.has_class_token:
        pytest.skip("the selector needs a class token, sparsify says so")
    model = sparse(vit, selector=selector)
    assert_same(model, optimize(model, batch=3), images())


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_dense_model(variant: str) -> None:
    vit, x = build(**VARIANTS[variant]), images()
    with torch.no_grad():
        expected = vit(x)
    torch.testing.assert_close(optimize(vit)(x), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("selector", ["random", "fixed", "mixed"])
def test_any_selector_is_asked_as_the_model_asks_it(selector: str) -> None:
    vit = build(reg_tokens=1)
    model = sparse(vit, selector="random" if selector == "fixed" else "predictor")
    if selector == "fixed":
        rank = torch.rand(3, vit.patch_embed.num_patches).argsort(dim=1)
        masks = [(rank < count).float() for count in model.keep_counts]
        model.selectors = nn.ModuleList(FixedDecisions(mask) for mask in masks)
    elif selector == "mixed":
        model = sparse(vit, selector=["class_attention", "random", "predictor"])
    assert_same(model, optimize(model), images())


def test_both_linear_operators_serve_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    assert onednn_reasons(torch.zeros(16, 16)) == []
    model = sparse(build(init_values=0.3))
    for winner, path in ((0.0, "oneDNN, packed weights"), (2.0, "torch")):
        monkeypatch.setattr(
            "sparse_vit.engine.probe.Probe.seconds",
            lambda self, key, candidates, won=winner: {
                name: won if name != "torch" else 1.0 for name in candidates
            },
        )
        run = optimize(model)
        paths = {p.path for p in run.describe().parts if "mlp" in p.name or "proj" in p.name}
        assert paths == {path}
        assert_same(model, run, images())


@pytest.mark.parametrize("gelu", [None, "none", "tanh"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_linear_equals_float64(gelu: str | None, dtype: torch.dtype) -> None:
    x, weight = torch.randn(37, 24).to(dtype), torch.randn(40, 24).to(dtype)
    bias, residual = torch.randn(40).to(dtype), torch.randn(37, 40).to(dtype)
    expected = x.double() @ weight.double().t() + bias.double()
    if gelu is not None:
        expected = nn.functional.gelu(expected, approximate=gelu)
    for kind in (TorchLinear, OneDnnLinear):
        layer = kind(weight, bias, gelu)
        eps = 20 * torch.finfo(dtype).eps
        torch.testing.assert_close(layer(x).double(), expected, rtol=eps, atol=eps)
        if gelu is None:
            added = layer(x, residual).double()
            torch.testing.assert_close(added, expected + residual.double(), rtol=eps, atol=4 * eps)


@pytest.mark.parametrize("selector", ["predictor", "class_attention"])
def test_bfloat16_is_close(selector: str) -> None:
    vit = build(init_values=0.3, img_size=(96, 48))
    model, x = sparse(vit, selector=selector, keep_ratio=1.0), images(size=(96, 48))
    output = optimize(model, dtype=torch.bfloat16)(x)
    assert output.dtype == torch.float32
    with torch.no_grad():
        similar = nn.functional.cosine_similarity(output, model(x))
    assert similar.min() > 0.999


def test_tokens_that_differ_in_bfloat16_lie_at_the_cut() -> None:
    model, x = sparse(build(img_size=(96, 48))), images(8, size=(96, 48))
    with torch.no_grad():
        decision = model.forward_with_decisions(x)[1][0]
    kept = optimize(model, dtype=torch.bfloat16).with_kept(x)[1][0]
    cut = decision.scores.sort(dim=1, descending=True).values[:, model.keep_counts[0] - 1, None]
    differ = kept != decision.mask.bool()
    spread = decision.scores.std()
    assert differ.float().mean() < 0.1
    assert ((decision.scores - cut).abs()[differ] < 0.1 * spread).all()


@pytest.mark.parametrize("selector", ["predictor", "class_attention"])
def test_int8_is_close(selector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert int8_reasons() == []
    monkeypatch.setattr(
        "sparse_vit.engine.probe.Probe.seconds",
        lambda self, key, candidates: {name: float("8-bit" not in name) for name in candidates},
    )
    model = sparse(build(init_values=0.3, embed_dim=64, img_size=(96, 48)), selector=selector)
    x = images(8, size=(96, 48))
    run = optimize(model, dtype=torch.int8)
    paths = {p.name: p.path for p in run.describe().parts}
    assert paths["blocks.1.mlp.fc1"] == paths["blocks.3.attn.proj"] == "oneDNN, 8-bit integers"
    assert paths["patch_embed.proj"] != "oneDNN, 8-bit integers"
    found = agreement(run, model, x)
    assert 0.98 < found.cosine < 1 - 1e-6
    assert min(found.overlap) > 0.9
    assert f"{100 * found.overlap[0]:.1f} %" in str(found)


def test_int8_linear_equals_its_rounded_weights() -> None:
    x, bias, residual = torch.randn(37, 24), torch.randn(40), torch.randn(37, 40)
    weight = torch.randn(40, 24) * torch.logspace(-2, 2, 40)[:, None]
    weight[3] = 0.0
    layer = Int8Linear(weight, bias, None)
    # The largest weight of a row is the largest integer.
    torch.testing.assert_close(layer.scales * 127, weight.abs().amax(dim=1))
    exact = x.double() @ weight.double().t() + bias.double()
    # Half a step of the weights and of the activations in each of the products.
    step = weight.abs().amax(dim=1) / 254 * x.abs().sum(dim=1, keepdim=True)
    step = step + (x.max() - x.min()) / 510 * weight.abs().sum(dim=1) * 1.01
    assert ((layer(x) - exact).abs() <= step + 1e-5).all()
    assert (layer(x) - exact).abs().max() > 0.0
    torch.testing.assert_close(layer(x, residual.clone()), layer(x) + residual)
    activated = Int8Linear(weight, bias, "none")(x)
    torch.testing.assert_close(activated, nn.functional.gelu(layer(x)), rtol=1e-4, atol=1e-4)


def test_agreement_of_a_dense_model_and_of_equal_ones() -> None:
    vit, x = build(), images()
    assert agreement(optimize(vit), vit, x).overlap == ()
    model = sparse(vit)
    found = agreement(optimize(model), model, x)
    assert found.cosine > 0.99999
    assert found.overlap == (1.0, 1.0, 1.0)


def test_a_batch_equals_its_images_one_by_one() -> None:
    model, x = sparse(build()), images(5)
    run = optimize(model, batch=2)
    output, kept = run.with_kept(x)
    for i in range(5):
        alone, mask = run.with_kept(x[i : i + 1])
        torch.testing.assert_close(alone[0], output[i], rtol=1e-4, atol=1e-5)
        assert all(torch.equal(a[0], b[i]) for a, b in zip(mask, kept, strict=True))


def test_an_empty_batch_gives_an_empty_output() -> None:
    model = sparse(build())
    output, kept = optimize(model).with_kept(images(0))
    assert output.shape == (0, 5)
    assert [mask.shape for mask in kept] == [(0, 18)] * 3


def test_nan_stays_in_its_image() -> None:
    model, x = sparse(build()), images()
    run = optimize(model)
    clean = run(x)
    x[1, 0, 5, 5] = torch.nan
    spoilt = run(x)
    assert spoilt[1].isnan().all()
    torch.testing.assert_close(spoilt[[0, 2]], clean[[0, 2]])


def test_sizes_of_a_dynamic_model() -> None:
    model = sparse(build(dynamic_img_size=True))
    run = optimize(model)
    for size in ((48, 24), (64, 32), (48, 24)):
        assert_same(model, run, images(size=size))


def test_later_changes_of_the_model_are_not_seen() -> None:
    model, x = sparse(build()), images()
    run = optimize(model)
    before = run(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(run(x), before)


def test_the_output_may_enter_autograd() -> None:
    output = optimize(build())(images())
    weight = torch.ones(5, requires_grad=True)
    (output * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(3, 48, 24), "expected \\(B, 3, H, W\\)"),
        (torch.zeros(1, 1, 48, 24), "expected \\(B, 3, H, W\\)"),
        (torch.zeros(1, 3, 48, 24, dtype=torch.uint8), "pass float32"),
        (torch.zeros(1, 3, 48, 24, dtype=torch.float64), "pass float32"),
        (torch.zeros(1, 3, 48, 32), "48x32 but the model takes 48x24"),
        ([[0.0]], "pass a tensor"),
        (torch.zeros(1, 3, 48, 24, device="meta"), "on meta but the engine is on cpu"),
    ],
)
def test_bad_images(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimize(sparse(build()))(given)


def test_bad_options() -> None:
    vit = build()
    with pytest.raises(ValueError, match="training mode"):
        optimize(build().train())
    with pytest.raises(ValueError, match="float64"):
        optimize(vit, dtype=torch.float64)
    with pytest.raises(ValueError, match="batch 0"):
        optimize(vit, batch=0)
    with pytest.raises(TypeError, match="cannot optimize a Linear"):
        optimize(nn.Linear(2, 2))
    vit.blocks[1] = nn.Identity()
    with pytest.raises(TypeError, match=r"blocks\.1 is a Identity"):
        optimize(vit)


def test_description_names_every_part() -> None:
    model = sparse(build())
    found = optimize(model).describe()
    names = {part.name for part in found.parts}
    linears = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    # The last block computes queries apart from keys and values, a predictor its two halves.
    for name in linears - {"head"}:
        if not name.endswith((".classify", ".project", ".reduce")) and name != "blocks.3.attn.qkv":
            assert name in names
    assert "float32" in str(found)
    assert "0.7" in str(found)
    assert found.as_dict()["parts"][0]["why"]


def test_nan_stays_in_its_image_with_8_bit_integers() -> None:
    model, x = sparse(build()), images()
    run = optimize(model, dtype=torch.int8)
    x[1] = 0.0
    clean = run(x)
    x[1, 0, 5, 5] = torch.nan
    spoilt = run(x)
    assert spoilt[1].isnan().all()
    torch.testing.assert_close(spoilt[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("selector", ["predictor", "class_attention", "random"])
def test_a_large_batch_runs_in_parts(selector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = sparse(build(), selector=selector), images(7)
    run = optimize(model)
    served: list[int] = []
    serve = run._serve
    monkeypatch.setattr(run, "_serve", lambda part: (served.append(len(part)), serve(part))[1])
    monkeypatch.setattr("sparse_vit.engine.engine.BYTES_OF_A_THREAD", 3 * 19 * run.row_bytes)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert_same(model, run, x)
    # Random draws are those of the whole batch.
    assert served == ([7] if selector == "random" else [3, 3, 1])


def test_slow_bfloat16_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sparse_vit.engine.probe.Probe.seconds",
        lambda self, key, calls: {name: 1.0 + ("bfloat16" in name) for name in calls},
    )
    with pytest.warns(RuntimeWarning, match=r"bfloat16 is slower than float32.*2000\.00 ms"):
        run = optimize(build(), dtype=torch.bfloat16)
    assert "slower than float32 on this processor" in str(run.describe())
