"""Launches the Triton kernels of ragged attention.

Nothing is read back from the device: grids come from `max_seqlen`, so that they can be captured.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import _launch
from kernels._eager.masked_attention import unit_stride
from kernels._gpu.gather import gather_grads
from kernels._gpu.launching import attention_reasons, device_of, jit, precision


def reasons(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    """List every reason why these kernels cannot serve a call; empty when they can."""
    return attention_reasons(q)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    rows: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Compute o and L; arguments and results as in `kernels._eager.ragged_attention`."""
    q, k, v = unit_stride(q), unit_stride(k), unit_stride(v)
    cu_seqlens, rows, read = _contiguous(cu_seqlens, rows)
    _, heads, dim = q.shape
    tokens = len(q if rows is None else rows)
    o = torch.empty((tokens, heads, dim), dtype=q.dtype, device=q.device)
    lse = torch.empty((heads, tokens), dtype=torch.float32, device=q.device)
    arch = _launch.architecture(q.device)
    config = _launch.ragged_forward(max_seqlen, dim, q.element_size(), arch)
    plan = _plan(config, max_seqlen, dim, rows is not None, precision(q))
    with device_of(q):
        jit("ragged_attention").forward_kernel[
            (plan.query_blocks * heads * (len(cu_seqlens) - 1),)
        ](
            *(q, k, v, cu_seqlens, read, o, lse),
            *(*q.stride()[:2], *k.stride()[:2], *v.stride()[:2]),
            *(heads, tokens, plan.query_blocks, scale),
            ONE_TILE=max_seqlen <= config.block_n,
            **plan.constants,
        )
    return o, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    rows: Tensor | None,
    o: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute dq, dk and dv; see `kernels._eager.ragged_attention`."""
    q, k, v = unit_stride(q), unit_stride(k), unit_stride(v)
    grad, o, lse = grad.contiguous(), o.contiguous(), lse.contiguous()
    cu_seqlens, rows, read = _contiguous(cu_seqlens, rows)
    tokens, heads, dim = o.shape
    images = len(cu_seqlens) - 1
    dq, dk, dv = torch.empty_like(o), torch.empty_like(o), torch.empty_like(o)
    strides = (*q.stride()[:2], *k.stride()[:2], *v.stride()[:2])
    problem = max_seqlen, dim, q.element_size(), _launch.architecture(q.device)
    common = max_seqlen, dim, rows is not None, precision(q)
    config = _launch.ragged_grad(*problem)
    with device_of(q):
        if config is not None:
            plan = _plan(config, *common)
            _check_held(config.block_n + plan.constants["TAIL_N"], max_seqlen)
            jit("ragged_attention_one_pass").grad_kernel[(heads * images,)](
                *(grad, q, k, v, cu_seqlens, read, o, lse, dq, dk, dv),
                *(*strides, images, heads, tokens, scale),
                **plan.constants,
            )
        else:
            passes = jit("ragged_attention_two_pass")
            # Also writes delta, which the second kernel reads.
            delta = torch.empty_like(lse)
            plan = _plan(_launch.ragged_grad_queries(*problem), *common)
            passes.grad_queries_kernel[(plan.query_blocks * heads * images,)](
                *(grad, q, k, v, cu_seqlens, read, o, lse, delta, dq),
                *(*strides, images, heads, tokens, plan.query_blocks, scale),
                **plan.constants,
            )
            plan = _plan(_launch.ragged_grad_keys(*problem), *common)
            passes.grad_keys_kernel[(plan.key_blocks * heads * images,)](
                *(grad, q, k, v, cu_seqlens, read, lse, delta, dk, dv),
                *(*strides, images, heads, tokens, plan.key_blocks, scale),
                **plan.constants,
            )
    if rows is None:
        return dq, dk, dv
    token = torch.arange(tokens, device=q.device)
    # What stands in the row index beyond the last sequence means nothing.
    read = torch.where(token < cu_seqlens[-1], rows, -1)
    dq, dk, dv = gather_grads([x.flatten(1) for x in (dq, dk, dv)], read, q.shape[0])
    return dq.view(q.shape), dk.view(q.shape), dv.view(q.shape)


class _Plan(NamedTuple):
    query_blocks: int
    key_blocks: int
    constants: dict[str, Any]


@lru_cache(maxsize=4096)
def _plan(
    config: _launch.LaunchConfig, max_seqlen: int, dim: int, gathered: bool, dots: str
) -> _Plan:
    # FP fusion became opt-in in Triton 3.10; asked for here, every version compiles the same code.
    constants = {
        "HEAD_DIM": dim,
        "BLOCK_D": _launch.padded_head_dim(dim),
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "TAIL_M": config.tail if config.tail < config.block_m else 0,
        "TAIL_N": config.tail if config.tail < config.block_n else 0,
        "GATHERED": gathered,
        "PRECISION": dots,
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
        "enable_fp_fusion": True,
    }
    return _Plan(-(-max_seqlen // config.block_m), -(-max_seqlen // config.block_n), constants)


def _check_held(held: int, max_seqlen: int) -> None:
    if max_seqlen > held:
        raise RuntimeError(
            f"ragged_attention: the one-pass backward is launched with room for {held} keys, "
            f"max_seqlen is {max_seqlen}; take a wider block_n, or None for two passes"
        )


def _contiguous(cu_seqlens: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    # Without a row index the kernels get some pointer, which they do not read.
    cu_seqlens = cu_seqlens.contiguous()
    rows = None if rows is None else rows.contiguous()
    return cu_seqlens, rows, cu_seqlens if rows is None else rows
