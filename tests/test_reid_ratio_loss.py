"""loss.ratio_per in a training step: which mean of the kept shares the ratio loss holds."""

import pytest
import torch

from reid.config import load_config
from reid.data import load
from reid.methods import sureid

NO_TEACHER = ("loss.kd_feature=0", "loss.kd_logits=0")


def test_the_ratio_loss_of_a_step_equals_loops_over_images_or_over_the_batch(
    tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = (0.7, 0.49, 0.343)
    losses = {}
    for per in ("image", "batch"):
        config = load_config(
            "demo", [*tiny_overrides, f"loss.ratio_per={per}", "loss.ratio=1.5", *NO_TEACHER]
        )
        records = load(config.data.name, config.data.root).train
        torch.manual_seed(0)
        task = sureid.build(config, records, torch.device("cpu"))
        seen = []
        features = task.module.features

        def noted(*arguments, features=features, seen=seen):
            seen.append(features(*arguments))
            return seen[-1]

        monkeypatch.setattr(task.module, "features", noted)
        loss, parts = task.module(**task.batch(0, 0))
        ((_, decisions),) = seen
        kept = [d.kept_fraction.double().tolist() for d in decisions]
        errors = []
        for shares, target in zip(kept, targets, strict=True):
            if per == "batch":
                shares = [sum(shares) / len(shares)]
            errors.append(sum((share - target) ** 2 for share in shares) / len(shares))
        expected = sum(errors) / len(errors)
        assert parts["ratio"].item() == pytest.approx(expected, rel=1e-4, abs=1e-9)
        losses[per] = loss.item(), parts["ratio"].item()
    assert losses["image"][1] > losses["batch"][1]
    # The same weights and batch: the two steps differ by this term alone.
    weight = config.loss.alpha * config.loss.ratio
    difference = weight * (losses["image"][1] - losses["batch"][1])
    assert losses["image"][0] - losses["batch"][0] == pytest.approx(difference, rel=1e-3)
