"""Timm's interface on the sparse model, what is refused, and the registered names."""

import warnings
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath, GlobalResponseNormMlp
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import (
    Attention,
    Block,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import Tensor, nn

from sparse_vit import SparseVisionTransformer, ratio_loss, sparsify

STAGES = (1, 2, 3)


def build(**kwargs: Any) -> VisionTransformer:
    torch.manual_seed(0)
    options = {"img_size": (48, 24), "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    return VisionTransformer(**{**options, "num_classes": 5, **kwargs})


def images(batch: int = 2, size: tuple[int, int] = (48, 24)) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("block", [ResPostBlock, ParallelScalingBlock, ParallelThingsBlock])
def test_other_blocks_are_refused_by_name(block: type[nn.Module]) -> None:
    with pytest.raises(TypeError, match=f"blocks.0 is a {block.__name__}"):
        sparsify(build(block_fn=block))


def test_other_attention_mlp_and_dropout_are_refused_by_name() -> None:
    class WindowAttention(Attention):
        pass

    class MyBlock(Block):
        pass

    with pytest.raises(TypeError, match=r"blocks.0.attn is a WindowAttention"):
        sparsify(build(attn_layer=WindowAttention))
    with pytest.raises(TypeError, match=r"blocks.0 is a MyBlock"):
        sparsify(build(block_fn=MyBlock))
    vit = build()
    vit.blocks[2].mlp = GlobalResponseNormMlp(32)
    with pytest.raises(TypeError, match=r"blocks.2.mlp is a GlobalResponseNormMlp"):
        sparsify(vit)
    with pytest.raises(ValueError, match=r"attn_drop has p=0.1.*attn_drop_rate=0"):
        sparsify(build(attn_drop_rate=0.1))
    with pytest.raises(ValueError, match=r"patch_drop_rate=0.5"):
        sparsify(build(patch_drop_rate=0.5))


def test_other_models_are_refused_by_name() -> None:
    class Mine(VisionTransformer):
        pass

    eva = timm.create_model("eva02_tiny_patch14_224", img_size=28, depth=1)
    with pytest.raises(TypeError, match="cannot sparsify a Eva"):
        sparsify(eva)
    with pytest.raises(TypeError, match="cannot sparsify a Mine"):
        sparsify(Mine(img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=1))
    with pytest.raises(TypeError, match="cannot sparsify a Linear"):
        sparsify(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="cannot sparsify a SparseVisionTransformer"):
        sparsify(sparsify(build(), STAGES))


def test_bad_sizes_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"50x24 is not divisible by the patch.*48x24"):
        sparsify(build(img_size=(50, 24)), STAGES)
    model = sparsify(build(), STAGES).eval()
    with pytest.raises(ValueError, match=r"32x24 but the model takes 48x24.*set_input_size"):
        model(images(size=(32, 24)))
    dynamic = sparsify(build(dynamic_img_size=True), STAGES).eval()
    with pytest.raises(ValueError, match="not divisible"):
        dynamic(images(size=(30, 24)))
    with pytest.raises(ValueError, match="stage 4 is outside the model"):
        sparsify(build(), (1, 4))
    with pytest.raises(ValueError, match="attn_mask"):
        model(images(), attn_mask=torch.ones(19, 19))


def test_image_size_can_change() -> None:
    dynamic = sparsify(build(dynamic_img_size=True), STAGES).eval()
    assert dynamic.forward_features(images(size=(64, 40))).shape == (2, 1 + 13, 32)
    fixed = sparsify(build(), STAGES).eval()
    fixed.set_input_size(img_size=(64, 40))
    assert fixed.keep_counts == [28, 19, 13]
    assert fixed.forward_features(images(size=(64, 40))).shape == (2, 1 + 13, 32)
    padded = sparsify(build(dynamic_img_size=True, dynamic_img_pad=True), STAGES).eval()
    assert padded(images(size=(45, 20))).shape == (2, 5)


def test_head_and_features() -> None:
    model = sparsify(build(reg_tokens=2), STAGES).eval()
    x = images()
    tokens = model.forward_features(x)
    assert tokens.shape == (2, 3 + 6, 32)
    assert torch.equal(model.forward_head(tokens), model(x))
    feature = model.forward_head(tokens, pre_logits=True)
    assert torch.equal(feature, tokens[:, 0])
    assert model.get_classifier() is model.head
    assert model.num_features == model.embed_dim == model.head_hidden_size == 32
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    model.reset_classifier(0)
    assert torch.equal(model(x), feature)
    model.reset_classifier(3, "avg")
    model.head = nn.Identity()
    torch.testing.assert_close(model(x), tokens[:, 3:].mean(dim=1))


def test_head_pools_the_kept_tokens_in_training() -> None:
    model = sparsify(build(global_pool="avg", num_classes=0), STAGES).train()
    x, keys = images(), torch.arange(2)
    tokens = model._encode(x, keys=keys).tokens
    feature, decisions = model.forward_with_decisions(x, keys=keys)
    for b in range(2):
        kept = [tokens[b, 1 + i] for i in range(18) if decisions[-1].mask[b, i] == 1]
        want = model.fc_norm(sum(kept) / len(kept))
        torch.testing.assert_close(feature[b], want)
    keep = torch.cat((torch.ones(2, 1), decisions[-1].mask), dim=1)
    torch.testing.assert_close(model.forward_head(tokens, keep=keep), feature)
    with pytest.raises(ValueError, match="pass keep="):
        model.forward_head(tokens)


def test_intermediates_lie_on_the_full_grid() -> None:
    model = sparsify(build(reg_tokens=1), STAGES).eval()
    x = images()
    _, decisions = model.forward_with_decisions(x)
    final, features = model.forward_intermediates(x, return_prefix_tokens=True, norm=True)
    assert torch.equal(final, model.forward_features(x))
    assert [tuple(f.shape) for f, _ in features] == [(2, 32, 6, 3)] * 4
    assert all(prefix.shape == (2, 2, 32) for _, prefix in features)
    for (grid, _), decision in zip(features[1:], decisions, strict=True):
        flat = grid.flatten(2)
        assert torch.equal((flat != 0).any(dim=1).float(), decision.mask)
    flat = features[3][0].flatten(2).transpose(1, 2)
    for b in range(2):
        assert torch.equal(flat[b, decisions[-1].indices[b]], final[b, 2:])
    layers = model.get_intermediate_layers(x, n=(0, 3), reshape=True, norm=True)
    assert torch.equal(layers[1], features[3][0])
    lists = model.get_intermediate_layers(x, n=2)
    assert [tuple(t.shape) for t in lists] == [(2, 18, 32)] * 2
    early = model.forward_intermediates(x, [1], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early[0], model.forward_intermediates(x, [1])[1][0])
    named = model.forward_intermediates(x, 1, output_dict=True)
    assert set(named) == {"image_intermediates", "image_features"}
    # The dense model agrees up to the first stage.
    dense = build(reg_tokens=1).eval().get_intermediate_layers(x, n=(0,), reshape=True)
    torch.testing.assert_close(model.get_intermediate_layers(x, n=(0,), reshape=True), list(dense))
    assert model.train().get_intermediate_layers(x, n=1, reshape=True)[0].shape == (2, 32, 6, 3)


def test_scatter_to_grid() -> None:
    model = sparsify(build(), STAGES).eval()
    tokens = torch.arange(2 * 2 * 3.0).view(2, 2, 3)
    indices = torch.tensor([[0, 17], [4, 5]])
    full = model.scatter_to_grid(tokens, indices, fill=-1.0)
    assert full.shape == (2, 3, 6, 3)
    want = torch.full((2, 18, 3), -1.0)
    for b in range(2):
        for j in range(2):
            want[b, indices[b, j]] = tokens[b, j]
    assert torch.equal(full, want.transpose(1, 2).reshape(2, 3, 6, 3))
    assert torch.equal(model.scatter_to_grid(tokens, indices, -1.0, layout="NLC"), want)
    with pytest.raises(ValueError, match="do not match"):
        model.scatter_to_grid(tokens, indices[:1])


def test_truncation_removes_stages_too() -> None:
    model = sparsify(build(), STAGES).eval()
    model.prune_intermediate_layers([1])
    assert len(model.blocks) == 2
    assert model.schedule.stages == (1,)
    assert len(model.selectors) == 1
    assert model(images()).shape == (2, 13, 32)


def test_optimizer_groups() -> None:
    model = sparsify(build(), STAGES, reweight="pooled")
    assert {"pos_embed", "cls_token", "reweight_scale"} <= model.no_weight_decay()
    from timm.models import group_parameters

    groups = group_parameters(model, model.group_matcher())
    named = {name for names in groups.values() for name in names}
    assert named == {name for name, _ in model.named_parameters()}


def test_state_dict_keeps_timm_names() -> None:
    vit = build()
    model = sparsify(build(), STAGES, reweight="pooled")
    missing, unexpected = model.load_state_dict(vit.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith(("selectors.", "reweight_scale")) for name in missing)
    assert (
        sparsify(build(), STAGES, selector="random").state_dict().keys() == vit.state_dict().keys()
    )


def test_distilled_deit_keeps_both_tokens() -> None:
    torch.manual_seed(0)
    vit = VisionTransformerDistilled(
        img_size=(48, 24), patch_size=8, embed_dim=32, depth=4, num_heads=2, num_classes=5
    )
    model = sparsify(vit, STAGES)
    x = images()
    assert model.eval().forward_features(x).shape == (2, 2 + 6, 32)
    assert model(x).shape == (2, 5)
    model.set_distilled_training(True)
    (logits, distilled), decisions = model.train().forward_with_decisions(x)
    (logits.sum() + distilled.sum() + ratio_loss(decisions)).backward()
    assert model.head_dist.weight.grad.abs().sum() > 0
    assert isinstance(model, VisionTransformerDistilled)
    assert isinstance(model, SparseVisionTransformer)


def test_eval_forward_compiles_and_exports() -> None:
    model = sparsify(build(reg_tokens=1), STAGES).eval()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(images()), model(images()))
        batch = {0: torch.export.Dim("batch", min=2, max=8)}
        program = torch.export.export(model, (images(),), dynamic_shapes=(batch,))
        torch.testing.assert_close(program.module()(images(5)), model(images(5)))


def test_registered_names() -> None:
    names = timm.list_models("sparse_*")
    for name in (
        "sparse_deit_tiny_patch16_224",
        "sparse_deit_small_patch16_224",
        "sparse_deit_base_patch16_224",
        "sparse_deit_small_distilled_patch16_224",
        "sparse_vit_small_patch16_224",
        "sparse_vit_base_patch16_224",
        "sparse_vit_small_patch14_reg4_dinov2",
    ):
        assert name in names
    # Nothing of timm's was replaced.
    for name in names:
        dense = timm.models.model_entrypoint(name.removeprefix("sparse_"))
        assert dense.__module__.startswith("timm.")


def test_create_by_name() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = timm.create_model(
            "sparse_deit_tiny_patch16_224",
            pretrained=False,
            img_size=(64, 32),
            num_classes=0,
            keep_ratio=0.5,
            stages=(2, 4),
            drop_path_rate=0.1,
        )
    assert isinstance(model, SparseVisionTransformer)
    assert model.keep_counts == [4, 2]
    assert model.default_cfg["architecture"] == "deit_tiny_patch16_224"
    assert isinstance(model.blocks[-1].drop_path1, DropPath)
    assert model.eval()(torch.randn(1, 3, 64, 32)).shape == (1, 192)
    with pytest.raises(ValueError, match=r"tag 'nope'; it has \['fb_in1k'\]"):
        timm.create_model("sparse_deit_tiny_patch16_224.nope", pretrained=True)
