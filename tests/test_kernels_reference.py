"""The definitions themselves, against loops and against the formula of DynamicViT."""

import math

import pytest
import torch
import torch.nn.functional as F

from kernels import reference

DOUBLE = torch.float64


def make(batch=2, heads=3, tokens=7, dim=4):
    q, k, v, grad = (torch.randn(batch, heads, tokens, dim, dtype=DOUBLE) for _ in range(4))
    keep = (torch.rand(batch, tokens) > 0.5).to(DOUBLE)
    keep[:, 0], keep[:, -1] = 1.0, 0.0
    return q, k, v, keep, grad


def loop_attention(q, k, v, keep, scale):
    """Row by row, with the sum over the kept set written out."""
    out = torch.zeros_like(q)
    for b, h, i in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
        members = [j for j in range(q.shape[2]) if j == i or keep[b, j] == 1]
        logits = [scale * float(q[b, h, i] @ k[b, h, j]) for j in members]
        peak = max(logits)
        weights = [math.exp(s - peak) for s in logits]
        for weight, j in zip(weights, members, strict=True):
            out[b, h, i] += weight / sum(weights) * v[b, h, j]
    return out


def test_masked_attention_equals_loops():
    q, k, v, keep, _ = make()
    expected = loop_attention(q, k, v, keep, 0.3)
    torch.testing.assert_close(reference.masked_attention(q, k, v, keep, scale=0.3), expected)


def test_masked_attention_gradcheck_with_hard_keep():
    q, k, v, keep, _ = make()
    inputs = [x.requires_grad_() for x in (q, k, v, keep)]
    assert set(keep.detach().unique().tolist()) == {0.0, 1.0}
    assert torch.autograd.gradcheck(reference.masked_attention, inputs)


def test_keep_gradient_equals_loops():
    q, k, v, keep, grad = make()
    scale = 0.5
    out = loop_attention(q, k, v, keep, scale)
    expected = torch.zeros_like(keep)
    batch, heads, tokens, _ = q.shape
    for b, h, i in torch.cartesian_prod(
        *(torch.arange(n) for n in (batch, heads, tokens))
    ).tolist():
        scores = [scale * float(q[b, h, i] @ k[b, h, j]) for j in range(tokens)]
        kept = [s for j, s in enumerate(scores) if j == i or keep[b, j] == 1]
        total = math.fsum(math.exp(s) for s in kept)
        for j in range(tokens):
            if j != i:
                slope = float(grad[b, h, i] @ v[b, h, j]) - float(grad[b, h, i] @ out[b, h, i])
                expected[b, j] += math.exp(scores[j]) / total * slope
    keep.requires_grad_()
    o = reference.masked_attention(q, k, v, keep, scale=scale)
    torch.testing.assert_close(torch.autograd.grad(o, keep, grad)[0], expected)
    assert (expected[keep == 0].abs() > 1e-3).any()


def policy_softmax(attn, policy, eps=1e-6):
    """The softmax of DynamicViT's released code: maximum over all keys, eps shared by all."""
    images, _, tokens, _ = attn.shape
    policy = policy.reshape(images, 1, 1, tokens)
    eye = torch.eye(tokens, dtype=attn.dtype).view(1, 1, tokens, tokens)
    policy = policy + (1.0 - policy) * eye
    peak = attn.max(dim=-1, keepdim=True)[0]
    weights = (attn - peak).exp() * policy
    return (weights + eps / tokens) / (weights.sum(dim=-1, keepdim=True) + eps)


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_eps_form_is_dynamicvit(eps):
    q, k, v, keep, grad = make()
    inputs = [x.requires_grad_() for x in (q, k, v, keep)]
    ours = reference.masked_attention(*inputs, eps=eps)
    theirs = policy_softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, keep, eps) @ v
    torch.testing.assert_close(ours, theirs)
    # torch.max and amax differ in where they send the gradient of the maximum only at ties.
    for a, b in zip(
        torch.autograd.grad(ours, inputs, grad),
        torch.autograd.grad(theirs, inputs, grad),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_eps_form_tends_to_the_default():
    q, k, v, keep, _ = make()
    default = reference.masked_attention(q, k, v, keep)
    gaps = [
        float((reference.masked_attention(q, k, v, keep, eps=e) - default).abs().max())
        for e in (1e-4, 1e-6)
    ]
    assert gaps[1] < 2e-2 * gaps[0]
    assert gaps[1] < 1e-5


def test_without_drops_it_is_plain_attention():
    q, k, v, keep, _ = make()
    torch.testing.assert_close(
        reference.masked_attention(q, k, v, torch.ones_like(keep)),
        F.scaled_dot_product_attention(q, k, v),
    )


def test_ratio_of_a_leading_dropped_key_is_clamped():
    q = torch.tensor([[[[1.0], [0.0]]]], dtype=DOUBLE)
    k = torch.tensor([[[[0.0], [100.0]]]], dtype=DOUBLE)
    v = torch.tensor([[[[2.0], [5.0]]]], dtype=DOUBLE)
    keep = torch.tensor([[1.0, 0.0]], dtype=DOUBLE, requires_grad=True)
    o = reference.masked_attention(q, k, v, keep, scale=1.0)
    (dkeep,) = torch.autograd.grad(o[0, 0, 0, 0], keep)
    # Row 0 sees itself alone: o = 2, and the dropped key weighs min(e^100, 1e6).
    assert o[0, 0, 0, 0] == 2.0
    torch.testing.assert_close(dkeep, torch.tensor([[0.0, 1e6 * (5.0 - 2.0)]], dtype=DOUBLE))
