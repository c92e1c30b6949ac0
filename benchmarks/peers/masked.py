"""Attention under a keep mask with gradient to the mask, and marks set without the mask."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import augmented, sdpa
from benchmarks.peers.base import Bound, Peer, all_of, compiled, differentiable, installed, only
from benchmarks.problems import Masked
from benchmarks.shapes import Case
from kernels import masked_attention, reference

FLOOR = 1e-6


def _of_all(function: Callable[..., Tensor]) -> Callable[[Masked, Case], Bound]:
    def bind(inputs: Masked, case: Case) -> Bound:
        leaves = (inputs.q, inputs.k, inputs.v, inputs.keep)
        return differentiable(function, leaves, inputs.grad, case.mode)

    return bind


def _without_keep_gradient(inputs: Masked, case: Case) -> Bound:
    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return masked_attention(q, k, v, inputs.keep)

    return differentiable(function, (inputs.q, inputs.k, inputs.v), inputs.grad, case.mode)


def _policy(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    return reference.masked_attention(q, k, v, keep, eps=1e-6)


@cache
def _compiled_policy(case: Case) -> Any:
    return torch.compile(_policy, dynamic=False)


def _bind_compiled(inputs: Masked, case: Case) -> Bound:
    from torch._functorch import config

    # A graph kept for several backwards must not give its buffers away.
    config.donated_buffer = False
    return _of_all(_compiled_policy(case))(inputs, case)


def _with_bias(inputs: Masked, case: Case) -> Bound:
    """Additive minus infinity off the diagonal: the forward is exact, the mask has no gradient."""
    tokens = inputs.keep.shape[1]
    eye = torch.eye(tokens, dtype=torch.bool, device=inputs.q.device)
    allowed = (inputs.keep[:, None, None, :] > 0.5) | eye
    bias = torch.zeros(allowed.shape, dtype=inputs.q.dtype, device=inputs.q.device)
    bias = bias.masked_fill(~allowed, float("-inf"))

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    return differentiable(function, (inputs.q, inputs.k, inputs.v), inputs.grad, case.mode)


def _without_mask(inputs: Masked, case: Case) -> Bound:
    leaves = (inputs.q, inputs.k, inputs.v)
    return differentiable(F.scaled_dot_product_attention, leaves, inputs.grad, case.mode)


@cache
def _compiled_flex(case: Case) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _flex(inputs: Masked, case: Case) -> Bound:
    attend = _compiled_flex(case)

    def function(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        log_mask = (FLOOR + (1.0 - FLOOR) * keep).log()

        def score(value: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return torch.where(i == j, value, value + log_mask[b, j])

        return attend(q, k, v, score_mod=score)

    return _of_all(function)(inputs, case)


def _flex_reasons(case: Case, device: torch.device) -> list[str]:
    if device.type == "cpu" and case.mode != "forward":
        return ["torch has no backward of FlexAttention on a CPU"]
    return []


def _xformers_without_mask(inputs: Masked, case: Case) -> Bound:
    from xformers.ops import memory_efficient_attention

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        tokens_first = (x.transpose(1, 2) for x in (q, k, v))
        return memory_efficient_attention(*tokens_first).transpose(1, 2)

    return differentiable(function, (inputs.q, inputs.k, inputs.v), inputs.grad, case.mode)


def _flash_without_mask(inputs: Masked, case: Case) -> Bound:
    from flash_attn import flash_attn_func

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flash_attn_func(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    return differentiable(function, (inputs.q, inputs.k, inputs.v), inputs.grad, case.mode)


def _marks() -> list[Peer]:
    marks = [
        Peer(
            f"SDPA {backend}, no mask",
            _without_mask,
            frozenset({"unmasked", "yardstick"}),
            context=sdpa.pin(backend),
            definition="unmasked",
        )
        for backend in sdpa.BACKENDS
    ]
    for name, module, bind in (
        ("FlashAttention, no mask", "flash_attn", _flash_without_mask),
        ("xformers, no mask", "xformers", _xformers_without_mask),
    ):
        marks.append(
            Peer(
                name,
                bind,
                frozenset({"unmasked", "yardstick"}),
                reasons=installed(module),
                definition="unmasked",
            )
        )
    return marks


PEERS = (
    Peer("ours", _of_all(masked_attention), frozenset({"own"})),
    Peer(
        "ours, keep without gradient",
        _without_keep_gradient,
        frozenset({"own", "no dkeep"}),
        modes=("backward", "step"),
    ),
    Peer("eager policy softmax", _of_all(_policy), frozenset({"eager"}), definition="policy"),
    Peer(
        "compiled policy softmax",
        _bind_compiled,
        frozenset({"compiled"}),
        reasons=compiled,
        definition="policy",
    ),
    Peer(
        "FlexAttention, captured mask",
        _flex,
        frozenset({"flex"}),
        reasons=all_of(compiled, _flex_reasons),
        slack=1e-4,
    ),
    Peer(
        "augmented key, SDPA flash",
        _of_all(augmented.attend),
        frozenset({"augmented"}),
        kept_only=True,
        slack=1e-4,
    ),
    *(
        Peer(
            f"SDPA {backend}, -inf bias",
            _with_bias,
            frozenset({"bias"}),
            reasons=only("forward"),
            context=sdpa.pin(backend),
        )
        for backend in sdpa.BACKENDS
    ),
    *_marks(),
)
