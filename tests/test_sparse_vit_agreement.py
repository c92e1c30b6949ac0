"""The two forwards: masked training and compacted inference agree on every kept token."""

import copy
import pickle
from typing import Any

import pytest
import torch
from timm.layers import GluMlp, RmsNorm
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn

from sparse_vit import (
    FixedDecisions,
    KeepPredictor,
    SparseVisionTransformer,
    StageInput,
    sparsify,
)

STAGES = (1, 2, 3)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"reg_tokens": 4},
    "registers_no_embed_class": {"reg_tokens": 4, "no_embed_class": True},
    "no_class_token": {"class_token": False, "global_pool": "avg"},
    "average_with_class_token": {"global_pool": "avg"},
    "average_with_prefix": {"global_pool": "avg", "pool_include_prefix": True},
    "max": {"global_pool": "max"},
    "avgmax": {"global_pool": "avgmax"},
    "attention_pool": {"global_pool": "map", "class_token": False},
    "all_tokens": {"global_pool": ""},
    "layer_scale": {"init_values": 0.3},
    "qk_norm": {"qk_norm": True},
    "inner_norms": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "rms_norm_and_glu": {"norm_layer": RmsNorm, "mlp_layer": GluMlp},
    "pre_norm": {"pre_norm": True},
    "no_positions": {"pos_embed": "none"},
    "no_bias": {"qkv_bias": False, "proj_bias": False},
    "dynamic": {"dynamic_img_size": True},
    "square": {"img_size": 32},
    "patch_14": {"img_size": (56, 28), "patch_size": 14},
    "patch_16": {"img_size": (96, 48), "patch_size": 16},
    "patch_32": {"img_size": (96, 64), "patch_size": 32},
    "distilled": {"distilled": True},
}


def build(seed: int = 0, distilled: bool = False, **kwargs: Any) -> VisionTransformer:
    torch.manual_seed(seed)
    options = {"img_size": (48, 24), "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    vit = (VisionTransformerDistilled if distilled else VisionTransformer)(
        **{**options, "num_classes": 5, **kwargs}
    )
    for name, parameter in vit.named_parameters():
        # Timm's initial values are so small that a wrong token would go unnoticed.
        if parameter.ndim > 1 or "token" in name:
            nn.init.normal_(parameter, std=0.15)
    return vit


def images(vit: VisionTransformer, batch: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = vit.patch_embed.proj.weight
    return torch.randn(batch, 3, *vit.patch_embed.img_size, generator=generator).to(weight.dtype)


def nested_masks(model: SparseVisionTransformer, batch: int, seed: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n = model.patch_embed.num_patches
    rank = torch.rand(batch, n, generator=generator).argsort(dim=1).argsort(dim=1)
    return [(rank < count).float() for count in model.keep_counts]


def force(model: SparseVisionTransformer, masks: list[Tensor]) -> None:
    model.selectors = nn.ModuleList(FixedDecisions(mask) for mask in masks)


def kept_rows(tokens: Tensor, mask: Tensor, prefix: int) -> Tensor:
    """Prefix and kept tokens by a plain loop."""
    rows = []
    for image, keep in zip(tokens, mask, strict=True):
        places = [prefix + i for i in range(len(keep)) if keep[i] > 0.5]
        rows.append(image[[*range(prefix), *places]])
    return torch.stack(rows)


def relative_error(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_and_inference_agree_on_kept_tokens(variant: str) -> None:
    vit = build(**VARIANTS[variant]).double()
    model = sparsify(vit, STAGES)
    masks = nested_masks(model, 3)
    force(model, masks)
    x = images(vit)
    trained = model.train().forward_features(x)
    inferred = model.eval().forward_features(x)
    prefix = model.num_prefix_tokens
    assert inferred.shape[1] == prefix + model.keep_counts[-1]
    assert relative_error(kept_rows(trained, masks[-1], prefix), inferred) < 1e-12
    if variant == "all_tokens":
        return
    logits_train, logits_eval = model.train()(x), model.eval()(x)
    assert relative_error(logits_train, logits_eval) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_agreement_in_lower_precision(dtype: torch.dtype) -> None:
    vit = build(qk_norm=True, init_values=0.5)
    exact = sparsify(copy.deepcopy(vit).double(), STAGES).eval()
    masks = nested_masks(exact, 3)
    force(exact, masks)
    x = images(vit)
    reference = exact(x.double())
    model = sparsify(vit.to(dtype), STAGES)
    force(model, masks)
    trained, inferred = model.train()(x.to(dtype)), model.eval()(x.to(dtype))
    # Both forwards round like the dense model does; some 40 roundings in a row, in quadrature.
    budget = 8 * torch.finfo(dtype).eps
    assert relative_error(inferred, reference) < budget
    assert relative_error(trained, reference) < budget
    assert relative_error(trained, inferred) < budget


def test_agreement_when_dropped_tokens_lead_by_far() -> None:
    """A maximum over dropped tokens or an epsilon would make kept attention uniform."""
    vit = build()
    with torch.no_grad():
        for block in vit.blocks:
            block.attn.qkv.weight[:64] *= 12.0
    model = sparsify(vit.double(), STAGES)
    masks = nested_masks(model, 3)
    force(model, masks)
    x = images(vit)
    assert relative_error(model.train()(x), model.eval()(x)) < 1e-10
    single = model.float()
    logits = single.train()(x.float())
    assert relative_error(logits, single.eval()(x.float())) < 1e-3
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in single.parameters() if p.grad is not None)


def test_predictor_scores_agree_between_the_forwards() -> None:
    vit = build().double()
    model = sparsify(vit, STAGES)
    x = images(vit)
    inferred = model.eval().forward_with_decisions(x)[1]
    noted = []

    class Forced(KeepPredictor):
        def sample(self, stage: StageInput) -> tuple[Tensor, Tensor]:
            scores = self.score(stage)
            noted.append(scores)
            return scores, inferred[stage.ordinal].mask

    forced = [Forced(32) for _ in STAGES]
    for new, old in zip(forced, model.selectors, strict=True):
        new.load_state_dict(old.state_dict())
    model.selectors = nn.ModuleList(forced).double()
    logits = model.train()(x)
    assert relative_error(logits, model.eval()(x)) < 1e-12
    present = torch.ones_like(inferred[0].mask)
    for scores, decision in zip(noted, inferred, strict=True):
        seen = present > 0.5
        torch.testing.assert_close(scores[seen].float(), decision.scores[seen], rtol=0, atol=1e-6)
        present = decision.mask


@pytest.mark.parametrize("variant", VARIANTS)
def test_keeping_all_tokens_equals_the_dense_model(variant: str) -> None:
    vit = build(**VARIANTS[variant]).double()
    model = sparsify(vit, STAGES, keep_ratio=1.0)
    x = images(vit)
    assert relative_error(model.eval()(x), vit.eval()(x)) < 1e-12
    # In training a random draw drops tokens, so only what it keeps can be forced to be all.
    force(model, [torch.ones(3, model.patch_embed.num_patches)] * 3)
    vit.train()
    dense = vit(x)
    assert relative_error(model.train()(x), dense) < 1e-12


def test_tokens_really_leave_and_indices_say_which() -> None:
    vit = build(reg_tokens=2)
    model = sparsify(vit, STAGES).eval()
    lengths = []
    for block in model.blocks:
        block.norm1.register_forward_hook(lambda _, args, out: lengths.append(args[0].shape[1]))
    _, decisions = model.forward_with_decisions(images(vit))
    assert model.keep_counts == [12, 8, 6]
    assert lengths == [3 + n for n in (18, 12, 8, 6)]
    previous = {i: set(range(18)) for i in range(3)}
    for decision, stage, target in zip(decisions, STAGES, (0.7, 0.49, 0.343), strict=True):
        assert decision.stage == stage
        assert decision.target == pytest.approx(target)
        assert decision.scores.dtype == torch.float32
        assert decision.scores.isfinite().all()
        for b, row in enumerate(decision.indices.tolist()):
            assert row == sorted(set(row))
            assert set(row) <= previous[b]
            scores = decision.scores[b]
            dropped = previous[b] - set(row)
            assert min(scores[i] for i in row) >= max(scores[i] for i in dropped)
            assert decision.mask[b].nonzero().flatten().tolist() == row
            previous[b] = set(row)


def test_pickle_and_deepcopy() -> None:
    vit = build()
    for source in (vit, build(distilled=True)):
        model = sparsify(source, STAGES).eval()
        x = images(vit)
        for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert type(twin) is type(model)
            assert torch.equal(twin(x), model(x))
            twin.train()
            assert not model.training


def test_weights_are_shared_and_the_given_model_is_untouched() -> None:
    vit = build().eval()
    before = {name: id(p) for name, p in vit.named_parameters()}
    model = sparsify(vit, STAGES)
    shared = dict(model.named_parameters())
    assert all(id(shared[name]) == place for name, place in before.items())
    assert not model.training
    model.train()
    assert not any(module.training for module in vit.modules())
    assert type(vit) is VisionTransformer
    assert type(vit.blocks[0]) is type(model.blocks[0])
    x = images(vit)
    dense = vit(x)
    model.reset_classifier(7)
    assert torch.equal(vit(x), dense)
    assert {name: id(p) for name, p in vit.named_parameters()} == before


def test_attention_gates_are_honoured() -> None:
    vit = build()
    for block in vit.blocks:
        block.attn = Attention(32, num_heads=2, qkv_bias=True, gated=True)
    model = sparsify(vit.double(), STAGES)
    force(model, nested_masks(model, 3))
    x = images(vit)
    assert relative_error(model.train()(x), model.eval()(x)) < 1e-12


def test_batch_of_one_equals_its_row_of_a_batch() -> None:
    vit = build().double()
    model = sparsify(vit, STAGES).eval()
    x = images(vit, batch=4)
    whole = model(x)
    for i in range(4):
        assert relative_error(model(x[i : i + 1]), whole[i : i + 1]) < 1e-12


def test_set_keep_ratio() -> None:
    vit = build()
    model = sparsify(vit, STAGES).eval()
    x = images(vit)
    model.set_keep_ratio(1.0)
    torch.testing.assert_close(model(x), vit.eval()(x))
    model.set_keep_ratio((0.5, 0.25, 0.25))
    assert model.keep_counts == [9, 4, 4]
    assert model.forward_features(x).shape[1] == 5
    with pytest.raises(ValueError, match="outside"):
        model.set_keep_ratio(1.5)
    assert model.keep_counts == [9, 4, 4]
