"""The learning rate against its definition, and the parameter groups."""

import itertools
import math

import pytest
from torch import nn

from reid.config import OptimConfig
from reid.engine.optim import build_optimizer
from reid.engine.schedule import learning_rate


def test_warm_up_then_cosine_to_the_floor() -> None:
    config = OptimConfig(lr=0.5, warmup=0.1, warmup_factor=0.01, final_factor=0.002)
    rates = [learning_rate(step, 100, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.005)
    assert rates[10] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.001)
    assert all(a < b for a, b in itertools.pairwise(rates[:11]))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    half = 0.5 * (0.002 + (1 - 0.002) * 0.5 * (1 + math.cos(math.pi / 2)))
    assert rates[55] == pytest.approx(half)


def test_without_warm_up_the_first_step_is_the_peak() -> None:
    assert learning_rate(0, 10, OptimConfig(lr=0.3, warmup=0.0)) == pytest.approx(0.3)


def test_groups_scale_biases_and_selectors_and_spare_norms_in_adamw() -> None:
    model = nn.ModuleDict(
        {"body": nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "selectors": nn.Linear(2, 2)}
    )
    wrapped = nn.ModuleDict({"backbone": model})
    config = OptimConfig(
        name="adamw", lr=1.0, weight_decay=0.1, bias_lr_factor=2.0, selector_lr_factor=3.0
    )
    groups = {
        id(p): (g["lr_scale"], g["weight_decay"])
        for g in build_optimizer(wrapped, config).param_groups
        for p in g["params"]
    }
    named = {name: groups[id(p)] for name, p in wrapped.named_parameters()}
    assert named["backbone.body.0.weight"] == (1.0, 0.1)
    assert named["backbone.body.0.bias"] == (2.0, 0.0)
    assert named["backbone.body.1.weight"] == (1.0, 0.0)
    assert named["backbone.selectors.weight"] == (3.0, 0.1)
    assert named["backbone.selectors.bias"] == (6.0, 0.0)


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    (group,) = build_optimizer(model, OptimConfig()).param_groups
    assert group["params"] == [model.weight]
