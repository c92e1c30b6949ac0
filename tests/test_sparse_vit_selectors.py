"""Selectors: what they score, how they draw, how they are named."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sparse_vit import (
    ClassAttention,
    FixedDecisions,
    KeepPredictor,
    RandomSelector,
    StageInput,
    TokenSelector,
    sparsify,
)
from sparse_vit.selectors import DROP, KEEP, _gumbel, top_k_decision

STAGES = (1, 2, 3)


def build(**kwargs: Any) -> VisionTransformer:
    torch.manual_seed(0)
    options = {"img_size": (48, 24), "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    return VisionTransformer(**{**options, "num_classes": 5, **kwargs})


def stage(tokens: Tensor, keep: Tensor | None = None, **kwargs: Any) -> StageInput:
    n = tokens.shape[1]
    options = {"ordinal": 0, "indices": None, "count": n // 2, "grid_tokens": n, **kwargs}
    return StageInput(tokens=tokens, keep=keep, **options)


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 48, 24, generator=torch.Generator().manual_seed(1))


def test_predictor_equals_dynamicvits_formula() -> None:
    predictor = KeepPredictor(16).double()
    for parameter in predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = torch.randn(2, 7, 16, dtype=torch.float64)
    keep = torch.tensor([[1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1, 0]], dtype=torch.float64)
    got = predictor.log_probabilities(stage(tokens, keep))
    for b in range(2):
        z = F.gelu(predictor.project(predictor.norm(tokens[b])))
        kept = [z[i, 8:] for i in range(7) if keep[b, i] == 1]
        mean = sum(kept) / len(kept)
        for i in range(7):
            hidden = F.gelu(predictor.expand(torch.cat((z[i, :8], mean))))
            want = predictor.classify(F.gelu(predictor.reduce(hidden))).log_softmax(dim=0)
            torch.testing.assert_close(got[b, i], want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(predictor.score(stage(tokens, keep)), got[..., KEEP])
    assert predictor.reduce.out_features == 4
    assert {DROP, KEEP} == {0, 1}


def test_draws_follow_the_predicted_probability() -> None:
    """Gumbel on log pi samples pi; on pi itself it would give 0.69 in place of 0.9."""
    predictor = KeepPredictor(8, keep_probability=0.9)
    with torch.no_grad():
        predictor.classify.weight.zero_()
    tokens = torch.randn(64, 200, 8)
    for keys in (None, torch.arange(64)):
        scores, decision = predictor.sample(stage(tokens, keys=keys))
        assert scores.exp().mean().item() == pytest.approx(0.9, abs=1e-4)
        assert decision.mean().item() == pytest.approx(0.9, abs=5 * math.sqrt(0.09 / 12800))
        assert set(decision.unique().tolist()) == {0.0, 1.0}


def test_straight_through_gradient_is_that_of_the_soft_decision() -> None:
    predictor = KeepPredictor(8).double()
    tokens = torch.randn(3, 5, 8, dtype=torch.float64)
    inputs = stage(tokens, keys=torch.arange(3))
    weights = torch.randn(3, 5, dtype=torch.float64)
    (predictor.sample(inputs)[1] * weights).sum().backward()
    got = {name: p.grad.clone() for name, p in predictor.named_parameters()}
    predictor.zero_grad()
    noisy = predictor.log_probabilities(inputs) + _gumbel((3, 5, 2), inputs)
    (noisy.softmax(dim=-1)[..., KEEP] * weights).sum().backward()
    for name, parameter in predictor.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_noise_is_float32_and_finite_whatever_the_tokens(dtype: torch.dtype) -> None:
    inputs = stage(torch.zeros(1000, 500, 1, dtype=dtype))
    noise = _gumbel((1000, 500, 2), inputs)
    assert noise.dtype == torch.float32
    assert noise.isfinite().all()
    predictor = KeepPredictor(8).to(dtype)
    scores, decision = predictor.sample(stage(torch.randn(4, 6, 8).to(dtype)))
    assert scores.dtype == decision.dtype == torch.float32


def test_class_attention_scores_are_the_attention_of_the_previous_block() -> None:
    vit = build(qk_norm=True, reg_tokens=1).double()
    model = sparsify(vit, (2,), keep_ratio=0.5, selector="class_attention").eval()
    inputs = []
    handle = model.blocks[1].norm1.register_forward_hook(lambda _, args, out: inputs.append(out))
    _, (decision,) = model.forward_with_decisions(images().double())
    handle.remove()
    attn = model.blocks[1].attn
    for b in range(2):
        q, k, _ = attn.qkv(inputs[0][b]).view(20, 3, 2, 16).unbind(1)
        mean = torch.zeros(20, dtype=torch.float64)
        for h in range(2):
            mean += ((attn.k_norm(k[:, h]) @ attn.q_norm(q[0, h])) / 4.0).softmax(dim=0) / 2
        torch.testing.assert_close(decision.scores[b], mean[2:].log().float())
        want = sorted(mean[2:].topk(9).indices.tolist())
        assert decision.indices[b].tolist() == want


@pytest.mark.parametrize("selector", ["class_attention", "random"])
def test_training_free_selectors_drop_the_same_number_in_training(selector: str) -> None:
    model = sparsify(build(), STAGES, selector=selector)
    x, keys = images(), torch.arange(2)
    trained = model.train().forward_with_decisions(x, keys=keys)
    inferred = model.eval().forward_with_decisions(x, keys=keys)
    for a, b, count in zip(trained[1], inferred[1], model.keep_counts, strict=True):
        assert a.mask.sum(dim=1).tolist() == [count, count]
        assert torch.equal(a.mask, b.mask)
    torch.testing.assert_close(trained[0], inferred[0], rtol=1e-4, atol=1e-5)


def test_random_selector_covers_all_tokens() -> None:
    scores = RandomSelector().score(stage(torch.zeros(4000, 10, 1)))
    kept = top_k_decision(scores, None, 3).mean(dim=0)
    assert (kept - 0.3).abs().max() < 5 * math.sqrt(0.21 / 4000)


def test_top_k_decision_ignores_dropped_tokens() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    keep = torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    assert top_k_decision(scores, keep, 2).tolist() == [[0.0, 1.0, 1.0, 0.0]]
    assert top_k_decision(torch.zeros(1, 4), None, 2).tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_a_selector_of_ones_own() -> None:
    class Brightest(TokenSelector):
        def score(self, stage: StageInput) -> Tensor:
            return stage.tokens.norm(dim=-1).float()

    model = sparsify(build(), STAGES, selector=Brightest())
    assert model.selectors[0] is model.selectors[2]
    assert model.eval()(images()).shape == (2, 5)
    logits, decisions = model.train().forward_with_decisions(images())
    assert [int(d.mask[0].sum()) for d in decisions] == model.keep_counts
    logits.sum().backward()
    with pytest.raises(TypeError, match="TokenSelector must define score"):
        TokenSelector().score(stage(torch.zeros(1, 2, 3)))


def test_selectors_by_name_and_object_per_stage() -> None:
    fixed = FixedDecisions(torch.eye(18)[:2])
    model = sparsify(
        build(), STAGES, keep_ratio=(0.7, 0.5, 0.06), selector=("predictor", "random", fixed)
    )
    kinds = [type(selector) for selector in model.selectors]
    assert kinds == [KeepPredictor, RandomSelector, FixedDecisions]
    assert isinstance(
        sparsify(build(), selector="class_attention", stages=(1,)).selectors[0], ClassAttention
    )
    two = sparsify(build(), (1, 2), selector="predictor")
    assert two.selectors[0] is not two.selectors[1]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown selector 'predicter'.*did you mean 'predictor'"):
        sparsify(build(), STAGES, selector="predicter")
    with pytest.raises(ValueError, match="2 entries for 3 stages"):
        sparsify(build(), STAGES, selector=("random", "random"))
    with pytest.raises(TypeError, match="neither a name nor a TokenSelector"):
        sparsify(build(), STAGES, selector=3)
    no_class = build(class_token=False, global_pool="avg")
    with pytest.raises(ValueError, match="no class token; use selector='predictor'"):
        sparsify(no_class, STAGES, selector="class_attention")
    with pytest.raises(ValueError, match="stage 0 has none"):
        sparsify(build(), (0, 2), selector="class_attention")
    mask = torch.zeros(2, 18)
    mask[0, :3] = mask[1, :4] = 1
    uneven = sparsify(build(), (1,), keep_ratio=0.2, selector=FixedDecisions(mask)).eval()
    with pytest.raises(ValueError, match=r"FixedDecisions keeps \[3, 4\] tokens"):
        uneven(images())
    with pytest.raises(ValueError, match="tau"):
        KeepPredictor(8, tau=0.0)
    with pytest.raises(ValueError, match="keep_probability"):
        KeepPredictor(8, keep_probability=1.0)


def test_predictors_made_by_name_start_at_the_schedule() -> None:
    dense = VisionTransformer(img_size=64, embed_dim=32, depth=4, num_heads=2, num_classes=0)
    model = sparsify(dense, stages=(1, 2, 3), keep_ratio=(0.8, 0.8, 0.2)).train()
    _, decisions = model.forward_with_decisions(torch.randn(2, 3, 64, 64))
    for decision, share in zip(decisions, (0.8, 0.99, 0.25), strict=True):
        starts = decision.scores.exp()
        torch.testing.assert_close(starts, torch.full_like(starts, share), rtol=0, atol=0.02)
