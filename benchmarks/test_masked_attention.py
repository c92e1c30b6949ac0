"""Attention under a keep mask in training: the operator against the policy softmax in eager torch.

The rival is the form of DynamicViT's released code: the whole weight matrix, an epsilon, autograd.
"""

from collections.abc import Callable

import pytest
import torch

from kernels import masked_attention, reference


def training_step(
    attend: Callable[..., torch.Tensor], inputs: list[torch.Tensor], grad: torch.Tensor
) -> list[torch.Tensor]:
    """Forward and backward to q, k, v and the mask."""
    return list(torch.autograd.grad(attend(*inputs), inputs, grad))


def policy_softmax(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: torch.Tensor
) -> torch.Tensor:
    """DynamicViT's masked softmax attention."""
    return reference.masked_attention(q, k, v, keep, eps=1e-6)


@pytest.mark.parametrize(
    ("batch", "heads", "tokens", "dim"),
    [(32, 4, 129, 32), (32, 6, 129, 64)],
    ids=["mini", "deit_small"],
)
@pytest.mark.benchmark(group="training step of masked attention")
def test_training_step(
    versus: Callable[..., None],
    device: torch.device,
    tiny: bool,
    batch: int,
    heads: int,
    tokens: int,
    dim: int,
) -> None:
    if tiny:
        batch, heads, tokens, dim = 1, 2, 9, 8
    torch.manual_seed(0)
    # as in a block: views of one packed projection
    qkv = torch.randn(batch, tokens, 3, heads, dim, device=device).permute(2, 0, 3, 1, 4)
    keep = (torch.rand(batch, tokens, device=device) < 0.7).float()
    keep[:, 0] = 1.0
    inputs = [x.requires_grad_() for x in (*qkv.unbind(0), keep)]
    grad = torch.randn(batch, heads, tokens, dim, device=device)
    versus(
        lambda: training_step(masked_attention, inputs, grad),
        lambda: training_step(policy_softmax, inputs, grad),
        case=f"attention B={batch} H={heads} N={tokens} D={dim}, keep 0.7",
        names=("masked", "policy"),
    )
