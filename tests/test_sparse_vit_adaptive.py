"""Token counts that depend on the image: calibration, inference, and the loss for training."""

from typing import Any

import pytest
import torch
from test_sparse_vit_engine import STAGES, build, images, sparse
from torch import Tensor

from sparse_vit import (
    AdaptiveSchedule,
    Decision,
    SparseVisionTransformer,
    StageInput,
    TokenSelector,
    calibrate,
    load_weights,
    ratio_loss,
    read_metadata,
    save_weights,
    sparsify,
)
from sparse_vit.calibration import _threshold
from sparse_vit.engine import optimize

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"reg_tokens": 2},
    "average": {"global_pool": "avg"},
}


def reference(
    model: SparseVisionTransformer, image: Tensor, schedule: AdaptiveSchedule
) -> tuple[Tensor, list[int]]:
    """One image through the blocks, keeping what the thresholds say; the output and the counts."""
    prefix, total = model.num_prefix_tokens, model.patch_embed.num_patches
    x = model.norm_pre(model._pos_embed(model.patch_embed(image[None])))
    places, attention, counts = torch.arange(total), None, []
    fewest, most = schedule.min_keep, schedule.max_keep or total
    for i, block in enumerate(model.blocks):
        if i in STAGES:
            s = len(counts)
            stage = StageInput(
                s, x[:, prefix:], None, places[None], 1, total, class_attention=attention
            )
            scores = model.selector(s).score(stage)[0].tolist()
            order = sorted(range(len(scores)), key=lambda j: -scores[j])
            low, high = (bound if isinstance(bound, int) else bound[s] for bound in (fewest, most))
            kept = sorted(
                j
                for rank, j in enumerate(order)
                if rank < low or (rank < high and scores[j] >= schedule.thresholds[s])
            )
            x = x[:, [*range(prefix), *(prefix + j for j in kept)]]
            places = places[kept]
            counts.append(len(kept))
        attn, y = block.attn, block.norm1(x)
        q, k, _ = attn.qkv(y).view(*y.shape[:2], 3, attn.num_heads, -1).unbind(2)
        weights = torch.einsum("bhd,bthd->bht", q[:, 0], k) * attn.scale
        attention = weights.softmax(dim=-1).mean(dim=1)[:, prefix:]
        x = block(x)
    return model.forward_head(model.norm(x))[0], counts


def counts_of(kept: list[Tensor]) -> Tensor:
    return torch.stack([mask.sum(dim=1) for mask in kept], dim=1)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("selector", ["predictor", "class_attention"])
@torch.no_grad()
def test_calibrated_counts_meet_the_budget_and_equal_every_image_alone(
    variant: str, selector: str
) -> None:
    model, x = sparse(build(**VARIANTS[variant]), selector=selector), images(7)
    schedule = calibrate(model, x.split(3), 0.7, min_keep=2, max_keep=(16, 15, 14))
    assert model.keep_counts == [12, 8, 6]
    output, kept = optimize(model, adaptive=schedule).with_kept(x)
    counts = counts_of(kept)
    assert counts.sum(dim=0).tolist() == [7 * count for count in model.keep_counts]
    assert schedule.mean_keep == pytest.approx([count / 18 for count in model.keep_counts])
    assert counts[:, 0].min() < counts[:, 0].max()
    for image, row, expected in zip(x, output, counts.tolist(), strict=True):
        alone, found = reference(model, image, schedule)
        assert found == expected
        torch.testing.assert_close(row, alone, rtol=1e-4, atol=2e-5)


@torch.no_grad()
def test_bounds_that_act_belong_to_the_schedule_and_to_what_later_stages_get() -> None:
    model, x = sparse(build()), images(7)
    schedule = calibrate(model, [x], 0.7, min_keep=(11, 7, 5), max_keep=(13, 9, 7))
    free = calibrate(model, [x], 0.7)
    unbounded, bounded = (
        counts_of(optimize(model, adaptive=s).with_kept(x)[1]) for s in (free, schedule)
    )
    for s, (low, high) in enumerate(((11, 13), (7, 9), (5, 7))):
        assert unbounded[:, s].min() < low
        assert unbounded[:, s].max() > high
        assert (bounded[:, s].min(), bounded[:, s].max()) == (low, high)
    assert bounded.sum(dim=0).tolist() == [7 * count for count in model.keep_counts]


@torch.no_grad()
def test_a_batch_equals_its_images_one_by_one() -> None:
    model, x = sparse(build()), images(6)
    run = optimize(model, adaptive=calibrate(model, [x], (0.5, 0.5, 0.2)))
    output, kept = run.with_kept(x)
    assert len(set(kept[0].sum(dim=1).tolist())) > 1
    for i in range(6):
        alone, mask = run.with_kept(x[i : i + 1])
        torch.testing.assert_close(alone[0], output[i], rtol=1e-4, atol=1e-5)
        assert all(torch.equal(a[0], b[i]) for a, b in zip(mask, kept, strict=True))


def test_bounds_do_not_grow_from_stage_to_stage() -> None:
    found = calibrate(sparse(build()), [images(4)], 0.7, min_keep=(5, 9, 2), max_keep=(13, 18, 9))
    assert (found.min_keep, found.max_keep) == ((5, 5, 2), (13, 13, 9))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:bfloat16 is slower")
def test_thresholds_for_bfloat16_meet_the_budget_in_bfloat16() -> None:
    model, x = sparse(build()), images(40)
    schedule = calibrate(model, [x], 0.7, dtype=torch.bfloat16)
    assert schedule.thresholds != calibrate(model, [x], 0.7).thresholds
    counts = counts_of(optimize(model, torch.bfloat16, adaptive=schedule).with_kept(x)[1])
    # Parts of a batch round otherwise than the whole of it: of 40 images a few tokens may change.
    assert (counts.double().mean(dim=0) / 18).tolist() == pytest.approx(
        schedule.mean_keep, abs=0.01
    )


def test_equal_scores_stay_together_and_the_schedule_says_what_it_met() -> None:
    class Alike(TokenSelector):
        def score(self, stage: StageInput) -> Tensor:
            return torch.zeros(stage.tokens.shape[:2])

    model, x = sparse(build(), selector=Alike()), images(3)
    assert calibrate(model, [x], 0.7).mean_keep == (1.0, 1.0, 1.0)


@torch.no_grad()
def test_counts_that_coincide_equal_the_fixed_schedule() -> None:
    class Place(TokenSelector):
        """The same order of places in every image, so that a mean is everybody's count."""

        def score(self, stage: StageInput) -> Tensor:
            batch, present = stage.tokens.shape[:2]
            first = torch.arange(present).expand(batch, -1)
            return -(first if stage.indices is None else stage.indices).float()

    model, x = sparse(build(), selector=Place()), images(4)
    schedule = calibrate(model, [x])
    assert schedule.thresholds == (-11.5, -7.5, -5.5)
    adaptive, kept = optimize(model, adaptive=schedule).with_kept(x)
    fixed, same = optimize(model).with_kept(x)
    assert all(torch.equal(a, b) for a, b in zip(kept, same, strict=True))
    torch.testing.assert_close(adaptive, fixed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_no_threshold_comes_nearer_to_the_budget(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (5,), generator=generator).tolist()
    # Few values, so that many are equal.
    rows = [torch.randint(0, 12, (n,), generator=generator).float() / 4 for n in lengths]
    fewest, most, wanted = (int(torch.randint(1, 4, (1,), generator=generator)) for _ in range(3))
    most = max(most, wanted) + fewest
    wanted = max(wanted, fewest)

    def kept(threshold: float) -> int:
        reached = [sum(score >= threshold for score in row.tolist()) for row in rows]
        return sum(
            min(max(n, min(fewest, len(row))), most) for n, row in zip(reached, rows, strict=True)
        )

    threshold, mean = _threshold(rows, wanted, fewest, most)
    assert kept(threshold) == round(5 * mean)
    best = min(abs(kept(t / 8) - 5 * wanted) for t in range(-8, 33))
    everything = abs(kept(9.0) - 5 * wanted)
    assert abs(kept(threshold) - 5 * wanted) <= max(best, 0) or everything == best


def test_images_may_come_in_tuples_and_the_model_has_its_own_budget() -> None:
    model, x = sparse(build()), images(6)
    batches = [(part, torch.zeros(len(part))) for part in x.split(4)]
    expected = calibrate(model, [x], 0.7)
    found = calibrate(model, [*batches, (x[:0], None)])
    assert found.mean_keep == expected.mean_keep
    assert found.thresholds == pytest.approx(expected.thresholds, abs=1e-5)


def test_a_schedule_is_saved_with_its_model(tmp_path: Any) -> None:
    model, x = sparse(build()), images(5)
    schedule = calibrate(model, [x], 0.6, max_keep=14)
    save_weights(model, tmp_path / "model.safetensors", {"adaptive": schedule.to_json()})
    assert load_weights(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    found = AdaptiveSchedule.from_json(read_metadata(tmp_path / "model.safetensors")["adaptive"])
    assert found == schedule
    assert torch.equal(optimize(model, adaptive=found)(x), optimize(model, adaptive=schedule)(x))


@pytest.mark.parametrize("text", ["", "[]", '{"threshold": [1.0]}', '{"thresholds": ["a"]}'])
def test_text_that_is_no_schedule(text: str) -> None:
    with pytest.raises(ValueError, match="no adaptive schedule"):
        AdaptiveSchedule.from_json(text)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], "no images"),
        ([images(0)], "no images"),
        ([images(2), images(2)[:, :, :40]], "40x24 but the model takes 48x24"),
        ([images(2)[0]], r"expected \(B, 3, H, W\)"),
        ([{"x": images(2)}], "batch 0 holds a dict"),
        ([images(2), images(2) + torch.tensor([0.0, torch.nan]).view(2, 1, 1, 1)], "image 1 of b"),
    ],
)
def test_loaders_that_cannot_be_used(loader: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate(sparse(build()), loader)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean_keep": 0.0}, "outside"),
        ({"mean_keep": (0.5, 0.6, 0.4)}, "increases"),
        ({"min_keep": 9}, "asks for 8 of 18"),
        ({"max_keep": 11}, "asks for 12 of 18"),
        ({"min_keep": (1, 1)}, "2 values for 3 stages"),
    ],
)
def test_budgets_that_cannot_be_met(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate(sparse(build()), [images(2)], **options)


def test_models_that_cannot_be_calibrated() -> None:
    x = [images(2)]
    with pytest.raises(TypeError, match="VisionTransformer"):
        calibrate(build(), x)
    with pytest.raises(TypeError, match="ends after one pass"):
        calibrate(sparse(build()), iter(x))
    with pytest.raises(ValueError, match="training mode"):
        calibrate(sparse(build()).train(), x)
    with pytest.raises(ValueError, match="'merge'"):
        calibrate(sparsify(build(), (1,), 0.7, reduction="merge").eval(), x)
    with pytest.raises(ValueError, match="nothing to calibrate"):
        calibrate(sparsify(build(), (), 0.7).eval(), x)


def decisions() -> tuple[list[Decision], Tensor]:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(3, 2, 10, generator=generator) < 0.5).double().requires_grad_()
    return [Decision(s, 0.6, mask, mask) for s, mask in enumerate(masks)], masks


def test_the_loss_holds_every_image_or_the_mean_of_the_batch() -> None:
    found, masks = decisions()
    shares = masks.detach().mean(dim=2).tolist()
    every = sum((share - 0.6) ** 2 for stage in shares for share in stage) / 6
    mean = sum((sum(stage) / 2 - 0.6) ** 2 for stage in shares) / 3
    assert ratio_loss(found).item() == pytest.approx(every, rel=1e-12)
    assert ratio_loss(found, per="batch").item() == pytest.approx(mean, rel=1e-12)
    # The mean pulls all images alike, however many tokens each has.
    (gradient,) = torch.autograd.grad(ratio_loss(found, per="batch"), masks)
    torch.testing.assert_close(gradient[:, 0], gradient[:, 1])
    with pytest.raises(ValueError, match="per='pixel'"):
        ratio_loss(found, per="pixel")
