"""Images that keep different numbers of tokens, packed without padding."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from test_sparse_vit_engine import build, images, sparse
from torch import Tensor

from sparse_vit import SparseVisionTransformer, StageInput, TokenSelector
from sparse_vit.engine import optimize
from sparse_vit.engine.lengths import Lengths
from sparse_vit.engine.stages import Rule, rules_of


@dataclass
class Thresholds:
    """The least that `adaptive` needs."""

    thresholds: tuple[float, ...]
    min_keep: int | tuple[int, ...] = 1
    max_keep: int | tuple[int, ...] | None = None


HEADS: dict[str, dict[str, Any]] = {
    "token": {},
    "registers": {"reg_tokens": 2},
    "average": {"global_pool": "avg"},
    "average_with_prefix": {"global_pool": "avg", "pool_include_prefix": True},
    "no_class_token": {"class_token": False, "global_pool": "avg"},
    "max": {"global_pool": "max"},
    "attention_pool": {"global_pool": "map", "class_token": False},
    "qk_norm": {"qk_norm": True, "init_values": 0.3},
    "glu": {"scale_attn_norm": True},
}


class Alternating(TokenSelector):
    """Custom scores that depend on the original place alone."""

    def score(self, stage: StageInput) -> Tensor:
        batch, present = stage.tokens.shape[:2]
        places = torch.arange(present).expand(batch, -1)
        return -(places if stage.indices is None else stage.indices).float()


def one_by_one(
    model: SparseVisionTransformer, x: Tensor, rule: Thresholds
) -> list[tuple[Tensor, list[Tensor]]]:
    """Every image alone through the fixed-schedule model, told the counts of the thresholds."""
    found = []
    for image in x.split(1):
        counts: list[int] = []
        for s in range(len(model.schedule.stages)):
            total = model.patch_embed.num_patches
            # Later counts do not matter for the scores of this stage.
            trial = [*counts, *[1] * (len(model.schedule.stages) - s)]
            model.set_keep_ratio([count / total for count in trial])
            with torch.no_grad():
                decision = model.forward_with_decisions(image)[1][s]
            alive = (
                torch.ones_like(decision.scores, dtype=torch.bool)
                if s == 0
                else model.forward_with_decisions(image)[1][s - 1].mask.bool()
            )
            reached = int((decision.scores[alive] >= rule.thresholds[s]).sum())
            most = rule.max_keep or total
            counts.append(max(min(reached, most), min(rule.min_keep, int(alive.sum()))))
        model.set_keep_ratio([count / total for count in counts])
        with torch.no_grad():
            output, decisions = model.forward_with_decisions(image)
        found.append((output, [d.mask.bool() for d in decisions]))
    return found


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("selector", ["predictor", "class_attention"])
def test_equals_every_image_alone(head: str, selector: str) -> None:
    vit = build(**HEADS[head])
    if selector == "class_attention" and not vit.has_class_token:
        pytest.skip("the selector needs a class token, sparsify says so")
    model, x = sparse(vit, selector=selector), images(6)
    with torch.no_grad():
        scores = model.forward_with_decisions(x)[1][0].scores.flatten().sort().values
    # Between two scores, so that rounding decides nothing.
    half = float(scores[len(scores) // 2 - 1 :][:2].mean())
    rule = Thresholds((half, half + 0.05, half + 0.1), min_keep=3, max_keep=12)
    run = optimize(model, adaptive=rule)
    output, kept = run.with_kept(x)
    counts = kept[0].sum(dim=1)
    assert counts.min() < counts.max()
    for i, (expected, masks) in enumerate(one_by_one(model, x, rule)):
        assert all(torch.equal(kept[s][i], mask[0]) for s, mask in enumerate(masks))
        torch.testing.assert_close(output[i : i + 1], expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("selector", ["predictor", "class_attention", "custom"])
def test_equal_counts_equal_the_fixed_schedule(selector: str) -> None:
    model = sparse(build(), selector=Alternating() if selector == "custom" else selector)
    x, counts = images(), tuple(model.keep_counts)
    everything = Thresholds((-1e4,) * 3, counts, counts)
    fixed, kept = optimize(model).with_kept(x)
    ragged, same = optimize(model, adaptive=everything).with_kept(x)
    assert all(torch.equal(a, b) for a, b in zip(kept, same, strict=True))
    torch.testing.assert_close(ragged, fixed, rtol=1e-4, atol=1e-5)


def test_a_custom_selector_sees_which_tokens_are_there() -> None:
    seen: list[StageInput] = []

    class Watching(Alternating):
        def score(self, stage: StageInput) -> Tensor:
            seen.append(stage)
            return super().score(stage) + stage.tokens.mean(dim=-1)

    model = sparse(build(), selector=Watching())
    kept = optimize(model, adaptive=Thresholds((-9.0, -7.0, -5.0))).with_kept(images(4))[1]
    for s in (1, 2):
        assert seen[s].keep is not None
        counts = kept[s - 1].sum(dim=1)
        assert torch.equal(seen[s].keep.sum(dim=1).long(), counts)
        for b, count in enumerate(counts.tolist()):
            places = seen[s].indices[b, :count]
            assert torch.equal(places, kept[s - 1][b].nonzero()[:, 0])
    assert all((later <= earlier).all() for earlier, later in pairwise(kept))


def test_an_empty_batch() -> None:
    run = optimize(sparse(build()), adaptive=Thresholds((-0.5,) * 3))
    assert run(images(0)).shape == (0, 5)


def test_padded_selection_of_a_device_that_is_not_waited_for() -> None:
    model = sparse(build())
    x, rule = images(5), Thresholds((-0.7, -0.7, -0.7), 2, 11)
    run = optimize(model, adaptive=rule)
    exact, kept = run.with_kept(x)
    for stage in run.stages.values():
        stage.waits = False
    padded, same = run.with_kept(x)
    assert all(torch.equal(a, b) for a, b in zip(kept, same, strict=True))
    torch.testing.assert_close(padded, exact, rtol=1e-4, atol=1e-5)


def test_lengths_pad_and_find_images() -> None:
    bounds = torch.tensor([0, 2, 2, 5], dtype=torch.int32)
    lengths = Lengths(3, bounds, 4, 7, uniform=False)
    assert lengths.image_of_row().tolist() == [0, 0, 2, 2, 2, 2, 2]
    values = torch.arange(1.0, 8.0)
    padded = lengths.pad(values, -1.0)
    assert padded.tolist() == [[1, 2, -1, -1], [-1] * 4, [3, 4, 5, -1]]


def test_rules() -> None:
    assert rules_of([5, 3], None, 9) == [Rule(5, 5), Rule(3, 3)]
    rules = rules_of([5, 3], Thresholds((-1.0, -2.0), 2, (8, 20)), 9)
    assert rules == [Rule(2, 8, -1.0), Rule(2, 8, -2.0)]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Thresholds((-1.0,)), "1 thresholds for 3 stages"),
        (Thresholds((-1.0,) * 3, (1, 2)), "2 min_keep for 3 stages"),
        (Thresholds((-1.0,) * 3, 1, (5, 5)), "2 max_keep for 3 stages"),
        (Thresholds((-1.0,) * 3, 0), "1 <= min_keep <= max_keep"),
        (Thresholds((-1.0,) * 3, 9, 4), "1 <= min_keep <= max_keep"),
    ],
)
def test_rules_that_do_not_fit(rule: Thresholds, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimize(sparse(build()), adaptive=rule)


def test_models_that_cannot_be_adaptive() -> None:
    rule = Thresholds((-1.0,) * 3)
    with pytest.raises(ValueError, match="the model is dense"):
        optimize(build(), adaptive=rule)
    with pytest.raises(ValueError, match="returns all tokens"):
        optimize(sparse(build(global_pool="")), adaptive=rule)
