"""Training: masks, gradients, noise, checkpointing, reweighting and precision."""

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sparse_vit import FixedDecisions, KeepPredictor, ratio_loss, sparsify

STAGES = (1, 2, 3)


def build(**kwargs: Any) -> VisionTransformer:
    torch.manual_seed(0)
    options = {"img_size": (48, 24), "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    vit = VisionTransformer(**{**options, "num_classes": 5, **kwargs})
    for name, parameter in vit.named_parameters():
        # Timm's initial values are so small that a wrong token would go unnoticed.
        if parameter.ndim > 1 or "token" in name:
            nn.init.normal_(parameter, std=0.15)
    return vit


def images(vit: VisionTransformer, batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    weight = vit.patch_embed.proj.weight
    return torch.randn(batch, 3, *vit.patch_embed.img_size, generator=generator).to(weight.dtype)


def nested_masks(batch: int) -> list[Tensor]:
    rank = torch.rand(batch, 18, generator=torch.Generator().manual_seed(2)).argsort(dim=1)
    return [(rank < count).float() for count in (12, 8, 6)]


def test_masks_are_cumulative_exact_and_carry_gradient() -> None:
    vit = build()
    model = sparsify(vit, STAGES).train()
    logits, decisions = model.forward_with_decisions(images(vit))
    previous = torch.ones_like(decisions[0].mask)
    for decision in decisions:
        decision.mask.retain_grad()
        assert decision.indices is None
        assert set(decision.mask.unique().tolist()) <= {0.0, 1.0}
        assert (decision.mask <= previous).all()
        previous = decision.mask.detach()
    logits.square().sum().backward()
    for decision in decisions:
        # The loss alone, without the ratio loss, reaches dropped and kept tokens alike.
        assert decision.mask.grad[decision.mask == 0].abs().min() > 0
        assert decision.mask.grad[decision.mask == 1].abs().max() > 0
    for name, parameter in model.selectors.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("pool", ["avg", "map", "token", "avgmax"])
def test_every_pool_gives_every_predictor_a_gradient(pool: str) -> None:
    vit = build(global_pool=pool)
    model = sparsify(vit, STAGES).train()
    model(images(vit)).square().sum().backward()
    for selector in model.selectors:
        assert selector.classify.weight.grad.abs().sum() > 0


def test_ratio_loss_equals_plain_loops() -> None:
    vit = build()
    model = sparsify(vit, STAGES).train()
    _, decisions = model.forward_with_decisions(images(vit))
    total = 0.0
    for decision in decisions:
        for row in decision.mask.tolist():
            total += (decision.target - sum(row) / len(row)) ** 2
    loss = ratio_loss(decisions)
    assert loss.item() == pytest.approx(total / (3 * 3), rel=1e-6)
    loss.backward()
    assert model.selectors[0].classify.bias.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="no pruning stages"):
        ratio_loss([])


def test_an_image_never_loses_all_patches() -> None:
    vit = build()
    model = sparsify(vit, STAGES, selector=tuple(KeepPredictor(32) for _ in STAGES)).train()
    for selector in model.selectors:
        with torch.no_grad():
            selector.classify.bias.copy_(torch.tensor([60.0, -60.0]))
    logits, decisions = model.forward_with_decisions(images(vit))
    previous = torch.ones_like(decisions[0].mask)
    for decision in decisions:
        assert decision.mask.sum(dim=1).tolist() == [1.0, 1.0, 1.0]
        best = decision.scores.masked_fill(previous == 0, -torch.inf).argmax(dim=1)
        assert decision.mask.argmax(dim=1).tolist() == best.tolist()
        previous = decision.mask.detach()
    (logits.sum() + ratio_loss(decisions)).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_keyed_draws_do_not_depend_on_the_batch() -> None:
    vit = build()
    x, keys = images(vit, batch=4), torch.arange(4) + 10
    for selector in ("predictor", "random"):
        model = sparsify(vit, STAGES, selector=selector).train()
        whole = model.forward_with_decisions(x, keys=keys)[1]
        again = model.forward_with_decisions(x, keys=keys)[1]
        other = model.forward_with_decisions(x, keys=keys + 1)[1]
        parts = [model.forward_with_decisions(x[i : i + 2], keys=keys[i : i + 2]) for i in (0, 2)]
        for s in range(3):
            joined = torch.cat([decisions[s].mask for _, decisions in parts])
            assert torch.equal(whole[s].mask, joined)
            assert torch.equal(whole[s].mask, again[s].mask)
        assert not torch.equal(whole[0].mask, other[0].mask)
    # Stages draw different numbers, and a random selector keeps its draw in inference.
    assert not torch.equal(whole[0].scores, whole[1].scores)
    inferred = model.eval().forward_with_decisions(x, keys=keys)[1]
    for s in range(3):
        assert torch.equal(whole[s].mask, inferred[s].mask)
    with pytest.raises(ValueError, match="one int64 key per image"):
        model.forward_with_decisions(x, keys=keys[:2])


@pytest.mark.parametrize("selector", ["predictor", "class_attention", "random"])
@pytest.mark.parametrize("reweight", ["off", "pooled"])
def test_gradient_checkpointing_changes_nothing(selector: str, reweight: str) -> None:
    vit = build()
    model = sparsify(vit, STAGES, selector=selector, reweight=reweight).train()
    x, keys = images(vit), torch.arange(3)
    results = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        logits, decisions = model.forward_with_decisions(x, keys=keys)
        (logits.square().sum() + ratio_loss(decisions)).backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((logits.detach(), grads))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1].keys() == results[1][1].keys()
    for name, grad in results[0][1].items():
        torch.testing.assert_close(grad, results[1][1][name], rtol=1e-5, atol=1e-7, msg=name)


def test_reweight_modes() -> None:
    vit = build(reg_tokens=1).double()
    x = images(vit)
    models = {
        mode: sparsify(vit, STAGES, selector="random", reweight=mode)
        for mode in ("off", "literal_after_norm", "pooled")
    }
    off = models["off"].train().forward_features(x)  # draws from torch's generator, not compared
    assert off.shape[1] == 2 + 18
    masks = nested_masks(3)
    for model in models.values():
        model.selectors = nn.ModuleList(FixedDecisions(mask) for mask in masks)
    tokens = {mode: model.train().forward_features(x) for mode, model in models.items()}
    base = tokens["off"]
    torch.testing.assert_close(tokens["literal_after_norm"][:, 0], 1.5 * base[:, 0])
    torch.testing.assert_close(tokens["literal_after_norm"][:, 1:], base[:, 1:])

    # The attention of the class token in the last block, by plain loops over images and heads.
    captured = []
    handle = (
        models["off"]
        .blocks[-1]
        .norm1.register_forward_hook(lambda _, args, out: captured.append(out))
    )
    models["off"].train().forward_features(x)
    handle.remove()
    attn = models["off"].blocks[-1].attn
    want = base[:, 0].clone()
    for b in range(3):
        keep = [True, True, *(masks[-1][b] > 0.5).tolist()]
        row = torch.zeros(20, dtype=torch.float64)
        q, k, _ = attn.qkv(captured[0][b]).view(20, 3, 2, 16).unbind(1)
        for h in range(2):
            logits = (k[:, h] @ q[0, h]) / 4.0
            weights = logits.exp() * torch.tensor(keep)
            row += weights / weights.sum() / 2
        want[b] += 0.5 * sum(row[j] * base[b, j] for j in range(2, 20))
    torch.testing.assert_close(tokens["pooled"][:, 0], want, rtol=1e-5, atol=1e-6)

    evaluated = {mode: model.eval()(x) for mode, model in models.items()}
    assert torch.equal(evaluated["off"], evaluated["pooled"])
    assert torch.equal(evaluated["off"], evaluated["literal_after_norm"])
    loss = models["pooled"].train()(x).square().sum()
    loss.backward()
    assert models["pooled"].reweight_scale.grad.abs() > 0
    for bad in ({"reweight": "both"}, {"reweight": "pooled", "global_pool": "avg"}):
        reweight = bad.pop("reweight")
        with pytest.raises(ValueError, match="reweight"):
            sparsify(build(**bad), STAGES, reweight=reweight)


def test_drop_path_is_honoured_in_training() -> None:
    vit = build(drop_path_rate=0.5)
    model = sparsify(vit, STAGES, selector="class_attention").train()
    x = images(vit)
    torch.manual_seed(0)
    a = model(x)
    b = model(x)
    assert not torch.equal(a, b)
    torch.manual_seed(0)
    assert torch.equal(a, model(x))
    # A rate of almost one leaves the residual stream alone in every block but the first.
    for block in model.blocks[1:]:
        block.drop_path1.drop_prob = block.drop_path2.drop_prob = 0.999999
    tokens = model.forward_features(x)
    with torch.no_grad():
        first = model.blocks[0].eval()(model._pos_embed(model.patch_embed(x)))
        want = model.norm(first)
    torch.testing.assert_close(tokens, want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_precision_train(dtype: torch.dtype) -> None:
    vit = build(qk_norm=True, global_pool="avg")
    model = sparsify(vit, STAGES).train()
    x = images(vit)
    with torch.autocast("cpu", dtype=dtype):
        logits, decisions = model.forward_with_decisions(x)
        loss = logits.float().square().sum() + ratio_loss(decisions)
    loss.backward()
    for decision in decisions:
        assert decision.scores.dtype == decision.mask.dtype == torch.float32
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        assert model.eval()(x).isfinite().all()
    half = model.to(dtype).train()
    logits, decisions = half.forward_with_decisions(x.to(dtype))
    assert logits.dtype == dtype
    assert decisions[0].mask.dtype == torch.float32
    (logits.float().square().sum() + ratio_loss(decisions)).backward()
    assert all(p.grad.isfinite().all() for p in half.parameters() if p.grad is not None)
