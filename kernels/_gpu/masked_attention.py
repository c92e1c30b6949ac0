"""Launches the Triton kernels of masked attention."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import _launch
from kernels._eager.masked_attention import rows_like, unit_stride
from kernels._gpu.launching import attention_reasons, device_of, jit, precision
from kernels.reference import RATIO_LIMIT

_LOG2_LIMIT = math.log2(RATIO_LIMIT)


def reasons(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    """List every reason why these kernels cannot serve a call; empty when they can."""
    _, heads, tokens, dim = q.shape
    found = attention_reasons(q)
    if not _in_reach(tokens, q.stride(2), k.stride(2), v.stride(2), heads * dim):
        found.append("one sequence spans 2**31 elements or more")
    return found


def forward(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Compute o and L.

    Arguments and results as in `kernels._eager.masked_attention`, but `keep` may be floating too:
    above one half counts as kept, which saves a launch.
    """
    batch, heads, tokens, dim = q.shape
    q, k, v = unit_stride(q), unit_stride(k), unit_stride(v)
    o = rows_like(q)
    lse = torch.empty((batch, heads, tokens), dtype=torch.float32, device=q.device)
    arch = _launch.architecture(q.device)
    config = _launch.attention_forward(tokens, dim, q.element_size(), arch)
    plan = _plan(config, tokens, dim, precision(q))
    with device_of(q):
        jit("masked_attention").forward_kernel[(plan.query_blocks * batch * heads,)](
            *(q, k, v, _mask(keep), o, lse),
            *(*q.stride()[:3], *k.stride()[:3], *v.stride()[:3]),
            *(heads, tokens, plan.query_blocks, scale),
            **plan.constants,
        )
    return o, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor,
    o: Tensor,
    lse: Tensor,
    scale: float,
    needs_keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute dq, dk, dv and dkeep; see `kernels._eager.masked_attention` and `forward`."""
    batch, heads, tokens, dim = q.shape
    grad, q, k, v = unit_stride(grad), unit_stride(q), unit_stride(k), unit_stride(v)
    if not _in_reach(tokens, grad.stride(2)):
        grad = grad.contiguous()
    dq, dk, dv = rows_like(q), rows_like(q), rows_like(q)
    if o.stride() != dq.stride():
        o = rows_like(q).copy_(o)
    lse, kept = lse.contiguous(), _mask(keep)
    # Without it the kernels get some pointer, which they do not write.
    dkeep = torch.empty_like(lse) if needs_keep else lse
    strides = (*grad.stride()[:3], *q.stride()[:3], *k.stride()[:3], *v.stride()[:3])
    problem = tokens, dim, q.element_size(), _launch.architecture(q.device)
    sequences, dots = batch * heads, precision(q)
    config = _launch.attention_grad(*problem)
    with device_of(q):
        if config is not None:
            _check_held(config, tokens)
            jit("masked_attention_one_pass").grad_kernel[(sequences,)](
                *(grad, q, k, v, kept, o, lse, dq, dk, dv, dkeep),
                *(*strides, heads, tokens, scale, _LOG2_LIMIT),
                **_held(_plan(config, tokens, dim, dots).constants, tokens),
                KEEP_GRAD=needs_keep,
            )
        else:
            passes = jit("masked_attention_two_pass")
            # Also writes delta, which the second kernel reads.
            delta = torch.empty_like(lse)
            plan = _plan(_launch.attention_grad_queries(*problem), tokens, dim, dots)
            passes.grad_queries_kernel[(plan.query_blocks * sequences,)](
                *(grad, q, k, v, kept, o, lse, delta, dq),
                *(*strides, heads, tokens, plan.query_blocks, scale, _LOG2_LIMIT),
                **plan.constants,
            )
            plan = _plan(_launch.attention_grad_keys(*problem), tokens, dim, dots)
            passes.grad_keys_kernel[(plan.key_blocks * sequences,)](
                *(grad, q, k, v, kept, lse, delta, dk, dv, dkeep),
                *(*strides, heads, tokens, plan.key_blocks, scale, _LOG2_LIMIT),
                **plan.constants,
                KEEP_GRAD=needs_keep,
            )
    return dq, dk, dv, dkeep.sum(1) if needs_keep else lse.new_empty(0)


def _in_reach(tokens: int, *strides: int) -> bool:
    # Within a sequence the kernels count elements in 32 bits.
    return tokens * max(strides) < 2**31


class _Plan(NamedTuple):
    query_blocks: int
    key_blocks: int
    constants: dict[str, Any]


@lru_cache(maxsize=4096)
def _plan(config: _launch.LaunchConfig, tokens: int, dim: int, dots: str) -> _Plan:
    # FP fusion became opt-in in Triton 3.10; asked for here, every version compiles the same code.
    constants = {
        "HEAD_DIM": dim,
        "BLOCK_D": _launch.padded_head_dim(dim),
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "TAIL_M": _launch.tail(tokens, config.block_m),
        "TAIL_N": _launch.tail(tokens, config.block_n),
        "PRECISION": dots,
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
        "enable_fp_fusion": True,
    }
    return _Plan(-(-tokens // config.block_m), -(-tokens // config.block_n), constants)


def _held(constants: dict[str, Any], tokens: int) -> dict[str, Any]:
    # The tail follows a whole block; a sequence within the block has none.
    return constants if tokens > constants["BLOCK_N"] else {**constants, "TAIL_N": 0}


def _check_held(config: _launch.LaunchConfig, tokens: int) -> None:
    held = config.block_n + _launch.tail(tokens, config.block_n)
    if tokens > held:
        raise RuntimeError(
            f"masked_attention: the one-pass backward launched with {config} holds {held} keys, "
            f"the sequences have {tokens} tokens; take a wider block_n, or None for two passes"
        )


def _mask(keep: Tensor) -> Tensor:
    if keep.dtype == torch.float64:
        keep = keep > 0.5
    keep = keep.contiguous()
    return keep.view(torch.uint8) if keep.dtype == torch.bool else keep
