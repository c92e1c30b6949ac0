"""Fusing and merging against the published rules, written out in plain loops in float64."""

import math

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from sparse_vit import constant_merging, sparsify
from sparse_vit.reductions import TokenState, merge

EPS = torch.finfo(torch.float64).eps
# depth times the rounding of a block whose sums run over 64 numbers
BUDGET = 4 * 64 * 16 * EPS


def vit(**options: object) -> torch.nn.Module:
    torch.manual_seed(3)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=(64, 32),
        patch_size=8,
        embed_dim=48,
        num_heads=3,
        depth=4,
        num_classes=5,
        **options,
    )
    for name, parameter in model.named_parameters():
        if "gamma" in name or "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.double().eval()


def images(batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 64, 32, generator=generator, dtype=torch.float64)


def embed(model: torch.nn.Module, image: Tensor) -> Tensor:
    return model.norm_pre(model._pos_embed(model.patch_embed(image[None])))[0]


def attend(attn: torch.nn.Module, x: Tensor, sizes: list[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of one image by loops over heads and tokens; also its weights and keys."""
    tokens, width = x.shape
    heads, dim = attn.num_heads, width // attn.num_heads
    qkv = attn.qkv(x).view(tokens, 3, heads, dim)
    q, k, v = attn.q_norm(qkv[:, 0]), attn.k_norm(qkv[:, 1]), qkv[:, 2]
    weights = torch.empty(heads, tokens, tokens, dtype=x.dtype)
    for h in range(heads):
        for i in range(tokens):
            logits = [float(q[i, h] @ k[j, h]) / math.sqrt(dim) for j in range(tokens)]
            top = max(logits)
            terms = [s * math.exp(a - top) for s, a in zip(sizes, logits, strict=True)]
            weights[h, i] = torch.tensor(terms, dtype=x.dtype) / sum(terms)
    out = torch.stack([weights[h] @ v[:, h] for h in range(heads)], dim=1).reshape(tokens, width)
    return attn.proj(out), weights, k


def by_loops(
    model: torch.nn.Module, image: Tensor, reduction: str, counts: dict[int, int]
) -> Tensor:
    """Logits of one image, following the two papers step by step."""
    x = embed(model, image)
    prefix = model.num_prefix_tokens
    sizes = [1.0] * len(x)
    for number, block in enumerate(model.blocks):
        y, weights, keys = attend(block.attn, block.norm1(x), sizes)
        x = x + block.ls1(y)
        count = counts.get(number, len(x) - prefix)
        if count < len(x) - prefix and reduction == "fuse":
            score = [float(weights[:, 0, j].mean()) for j in range(prefix, len(x))]
            order = sorted(range(len(score)), key=lambda j: -score[j])
            kept, rest = sorted(order[:count]), order[count:]
            fused = sum(score[j] * x[prefix + j] for j in rest)
            x = torch.stack([*x[:prefix], *(x[prefix + j] for j in kept), fused])
            sizes = [1.0] * len(x)
        elif count < len(x) - prefix:
            x, sizes = merge_by_loops(x, keys, sizes, prefix, count)
        x = x + block.ls2(block.mlp(block.norm2(x)))
    x = model.norm(x)
    if model.global_pool == "token":
        pooled = x[0]
    else:
        shares = torch.tensor(sizes[prefix:], dtype=x.dtype)
        pooled = (shares[:, None] * x[prefix:]).sum(0) / shares.sum()
    return model.head(model.fc_norm(pooled))


def merge_by_loops(
    x: Tensor, keys: Tensor, sizes: list[float], prefix: int, count: int
) -> tuple[Tensor, list[float]]:
    places = list(range(prefix, len(x)))
    metric = {j: keys[j].mean(0) / keys[j].mean(0).norm() for j in places}
    first, second = places[1::2], places[0::2]
    best = {i: max(second, key=lambda j: float(metric[i] @ metric[j])) for i in first}
    closeness = {i: float(metric[i] @ metric[best[i]]) for i in first}
    gone = sorted(first, key=lambda i: -closeness[i])[: len(places) - count]
    rows, counts = [*x[:prefix]], sizes[:prefix]
    for i in first:
        if i not in gone:
            rows.append(x[i])
            counts.append(sizes[i])
    for j in second:
        members = [j, *(i for i in gone if best[i] == j)]
        total = sum(sizes[m] for m in members)
        rows.append(sum(sizes[m] * x[m] for m in members) / total)
        counts.append(total)
    return torch.stack(rows), counts


VARIANTS = {
    "plain": {},
    "LayerScale and q/k norm": {"init_values": 0.1, "qk_norm": True},
    "registers": {"reg_tokens": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("reduction", ["fuse", "merge"])
@torch.no_grad()
def test_follows_the_paper(reduction: str, variant: str) -> None:
    model = vit(**VARIANTS[variant])
    sparse = sparsify(model, stages=(1, 2), keep_ratio=0.6, reduction=reduction)
    counts = dict(zip((1, 2), sparse.keep_counts, strict=True))
    batch = images()
    expected = torch.stack([by_loops(model, image, reduction, counts) for image in batch])
    assert (sparse(batch) - expected).abs().max() <= BUDGET * expected.abs().max()
    assert (sparse(batch) - model(batch)).abs().max() > 1e-3 * expected.abs().max()


@torch.no_grad()
def test_merging_in_every_block_pools_by_size() -> None:
    model = vit(global_pool="avg", class_token=False)
    stages, ratios = constant_merging(32, 4, 5)
    sparse = sparsify(model, stages, ratios, reduction="merge")
    assert sparse.keep_counts == [27, 22, 17, 12]
    batch = images()
    counts = dict(enumerate(sparse.keep_counts))
    expected = torch.stack([by_loops(model, image, "merge", counts) for image in batch])
    assert (sparse(batch) - expected).abs().max() <= BUDGET * expected.abs().max()


@pytest.mark.parametrize("reduction", ["fuse", "merge"])
@torch.no_grad()
def test_keeping_all_is_the_dense_model(reduction: str) -> None:
    model = vit()
    sparse = sparsify(model, stages=(1, 2), keep_ratio=1.0, reduction=reduction)
    batch = images()
    expected = model(batch)
    assert (sparse(batch) - expected).abs().max() <= BUDGET * expected.abs().max()


@pytest.mark.parametrize("reduction", ["fuse", "merge"])
def test_training_and_inference_agree_and_gradients_flow(reduction: str) -> None:
    sparse = sparsify(vit(), stages=(1, 2), keep_ratio=0.6, reduction=reduction)
    batch = images()
    with torch.no_grad():
        expected = sparse.eval()(batch)
    out = sparse.train()(batch)
    assert (out - expected).abs().max() <= BUDGET * expected.abs().max()
    plain = torch.autograd.grad(out.square().sum(), list(sparse.parameters()))
    assert all(bool(g.abs().sum() > 0) for g in plain)
    sparse.set_grad_checkpointing(True)
    again = torch.autograd.grad(sparse(batch).square().sum(), list(sparse.parameters()))
    for one, two in zip(plain, again, strict=True):
        assert (one - two).abs().max() <= BUDGET * one.abs().max()


@pytest.mark.parametrize("reduction", ["fuse", "merge"])
@torch.no_grad()
def test_a_batch_equals_its_images(reduction: str) -> None:
    sparse = sparsify(vit(), stages=(1, 3), keep_ratio=0.55, reduction=reduction)
    batch = images(3)
    alone = torch.cat([sparse(image[None]) for image in batch])
    assert (sparse(batch) - alone).abs().max() <= BUDGET * alone.abs().max()


@pytest.mark.parametrize("reduction", ["fuse", "merge"])
@torch.no_grad()
def test_decisions_say_where_every_patch_went(reduction: str) -> None:
    sparse = sparsify(vit(), stages=(1, 2), keep_ratio=0.6, reduction=reduction)
    batch = images()
    out, decisions = sparse.forward_with_decisions(batch)
    assert torch.allclose(out, sparse(batch), rtol=BUDGET, atol=BUDGET)
    extra = 1 if reduction == "fuse" else 0
    for decision, count in zip(decisions, sparse.keep_counts, strict=True):
        assert decision.indices is None
        for groups, mask in zip(decision.groups, decision.mask, strict=True):
            assert sorted(set(groups.tolist())) == list(range(count + extra))
            assert mask.sum() == count + extra
            first = [groups.tolist().index(g) for g in range(count + extra)]
            assert mask.nonzero()[:, 0].tolist() == sorted(first)
        assert torch.isfinite(decision.scores).all()
    # who went together stays together
    for one, two in zip(decisions[0].groups, decisions[1].groups, strict=True):
        for group in set(one.tolist()):
            assert len(set(two[one == group].tolist())) == 1


@torch.no_grad()
def test_merged_duplicates_change_nothing() -> None:
    """Two equal tokens count as much as one of size two, in attention and afterwards."""
    model = vit()
    tokens = torch.randn(1, 9, 48, dtype=torch.float64)
    tokens[:, 2] = tokens[:, 1]
    tokens[:, 4] = tokens[:, 3]
    keys = model.blocks[0].attn.qkv(tokens).view(1, 9, 3, 3, 16)[:, :, 1].transpose(1, 2)
    state = merge(TokenState.start(tokens, 1), keys, 6)
    assert state.sizes.tolist() == [[1, 1, 1, 2, 2, 1, 1]]
    sizes = state.sizes[0].tolist()
    merged, _, _ = attend(model.blocks[1].attn, state.tokens[0], sizes)
    full, _, _ = attend(model.blocks[1].attn, tokens[0], [1.0] * 9)
    for patch, group in enumerate(state.groups[0].tolist()):
        assert torch.allclose(merged[1 + group], full[1 + patch], rtol=BUDGET, atol=BUDGET)


@pytest.mark.parametrize("reduction", ["fuse", "merge"])
@torch.no_grad()
def test_inner_features_stand_on_the_whole_grid(reduction: str) -> None:
    sparse = sparsify(vit(), stages=(1, 2), keep_ratio=0.6, reduction=reduction)
    batch = images()
    tokens, grids = sparse.forward_intermediates(batch, indices=[3], norm=True)
    _, decisions = sparse.forward_with_decisions(batch)
    assert grids[0].shape == (2, 48, 8, 4)
    flat = grids[0].flatten(2).transpose(1, 2)
    for image in range(2):
        for patch in range(32):
            group = decisions[-1].groups[image, patch]
            assert torch.equal(flat[image, patch], tokens[image, 1 + group])


@torch.no_grad()
def test_bfloat16_counts_stay_exact() -> None:
    sparse = sparsify(vit(), *constant_merging(32, 4, 8), reduction="merge").bfloat16()
    encoding = sparse._encode(images().bfloat16())
    assert encoding.keep.dtype == torch.float32
    assert encoding.keep.sum(dim=1).tolist() == [33.0, 33.0]
    assert torch.isfinite(sparse(images().bfloat16())).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "drop"}, "'drop' is unknown"),
        ({"reduction": "merge", "keep_ratio": 0.4}, "cannot merge 32 tokens into 12"),
        ({"reduction": "merge", "selector": "random"}, "takes no selector"),
        ({"reduction": "fuse", "selector": "class_attention"}, "takes no selector"),
        ({"reduction": "fuse", "reweight": "pooled"}, "needs reduction='prune'"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sparsify(vit(), stages=(1, 2), **options)


def test_fusing_needs_a_class_token() -> None:
    with pytest.raises(ValueError, match="no class token"):
        sparsify(vit(class_token=False, global_pool="avg"), stages=(1,), reduction="fuse")


def test_a_ratio_set_later_is_checked_too() -> None:
    sparse = sparsify(vit(), stages=(1,), keep_ratio=0.6, reduction="merge")
    with pytest.raises(ValueError, match="cannot merge 32 tokens into 9"):
        sparse.set_keep_ratio(0.3)
    assert sparse.keep_counts == [19]


def test_constant_merging_stops_at_one_token() -> None:
    stages, ratios = constant_merging(7, 5, 3)
    assert [round(r * 7) for r in ratios] == [4, 2, 1, 1, 1]
    assert list(stages) == list(range(5))
    with pytest.raises(ValueError, match="r is -1"):
        constant_merging(7, 5, -1)
    assert np.allclose(constant_merging(128, 12, 8)[1][-1], 32 / 128)
