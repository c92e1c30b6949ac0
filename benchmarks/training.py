"""A training step of a whole model under masks: ours, the eager policy softmax, and no mask."""

import copy
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from kernels import reference
from sparse_vit import ratio_loss

OP, MODE = "training", "step"
DENSE = "dense timm"
OURS = "masks, ours"
POLICY = "masks, eager policy softmax"
RATE = 1e-5


def policy_softmax(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, *, scale: float | None = None
) -> Tensor:
    """Attention under a mask as DynamicViT's released code defines it, written out."""
    return reference.masked_attention(q, k, v, keep, scale=scale, eps=1e-6)


def steps(dense: Any, pruned: Any, x: Tensor) -> dict[str, Callable[[], float]]:
    """Forward, backward and SGD on the same images, each on weights of its own.

    Args:
        dense: Timm's model.
        pruned: The same weights with keep predictors, whose ratio loss is trained as well.
        x: (B, 3, H, W) images.
    """
    ours = _masked(pruned, x)
    policy = _masked(pruned, x)

    def with_policy() -> float:
        with mock.patch("sparse_vit.blocks.masked_attention", policy_softmax):
            return policy()

    return {DENSE: _step(_fresh(dense), lambda model: model(x).square().mean()), OURS: ours,
            POLICY: with_policy}  # fmt: skip


def _masked(pruned: Any, x: Tensor) -> Callable[[], float]:
    def loss(model: Any) -> Tensor:
        features, decisions = model.forward_with_decisions(x)
        return features.square().mean() + ratio_loss(decisions)

    return _step(_fresh(pruned), loss)


def _fresh(model: Any) -> Any:
    return copy.deepcopy(model).requires_grad_(True).train()


def _step(model: Any, loss: Callable[[Any], Tensor]) -> Callable[[], float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def step() -> float:
        # Gradients are made anew in every step, so that they count as memory of the step.
        optimizer.zero_grad(set_to_none=True)
        value = loss(model)
        value.backward()
        optimizer.step()
        return float(value.detach())

    return step
