"""Launches the Triton kernels of masked attention."""

import contextlib
import math

import torch
from torch import Tensor

from kernels import _backend, _launch
from kernels._eager.masked_attention import unit_stride
from kernels.reference import RATIO_LIMIT


def reasons(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    """List every reason why these kernels cannot serve a call; empty when they can."""
    found = _backend.triton_reasons(q.device)
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        found.append(f"the dtype is {q.dtype}, the kernels take float16, bfloat16 and float32")
    if q.shape[-1] > _launch.MAX_HEAD_DIM:
        found.append(
            f"the head dimension is {q.shape[-1]}, the kernels take 1..{_launch.MAX_HEAD_DIM}"
        )
    if any(x.shape[2] * x.stride(2) >= 2**31 for x in (q, k, v)):
        found.append("one sequence spans 2**31 elements or more")
    return found


def forward(q: Tensor, k: Tensor, v: Tensor, keep: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Compute o and L; arguments and results as in `kernels._eager.masked_attention`."""
    from kernels._triton import masked_attention as jit

    batch, heads, tokens, dim = q.shape
    q, k, v = (unit_stride(x) for x in (q, k, v))
    o = q.new_empty(batch, tokens, heads, dim).transpose(1, 2)
    lse = q.new_empty(batch, heads, tokens, dtype=torch.float32)
    config = _launch.attention_forward(tokens, dim, q.element_size())
    with _device_of(q):
        jit.forward_kernel[_grid(batch * heads, tokens, config.block_m)](
            q,
            k,
            v,
            _bytes(keep),
            o,
            lse,
            *_strides(q, k, v, o),
            heads,
            tokens,
            scale,
            **_constants(dim, config),
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute dq, dk, dv and dkeep; see `kernels._eager.masked_attention`."""
    from kernels._triton import masked_attention as jit

    batch, heads, tokens, dim = q.shape
    grad, q, k, v = (unit_stride(x) for x in (grad, q, k, v))
    dq, dk, dv = (q.new_empty(batch, tokens, heads, dim).transpose(1, 2) for _ in range(3))
    delta, dkeep = torch.empty_like(lse), torch.empty_like(lse)
    strides = _strides(grad, q, k, v, dq)
    kept = _bytes(keep)
    with _device_of(q):
        # Also writes delta, which the second kernel reads.
        config = _launch.attention_grad_queries(tokens, dim, q.element_size())
        jit.grad_queries_kernel[_grid(batch * heads, tokens, config.block_m)](
            grad,
            q,
            k,
            v,
            kept,
            o,
            lse,
            delta,
            dq,
            *strides,
            heads,
            tokens,
            scale,
            **_constants(dim, config),
        )
        config = _launch.attention_grad_keys(tokens, dim, q.element_size())
        jit.grad_keys_kernel[_grid(batch * heads, tokens, config.block_n)](
            grad,
            q,
            k,
            v,
            kept,
            lse,
            delta,
            dk,
            dv,
            dkeep,
            *strides,
            heads,
            tokens,
            scale,
            math.log2(RATIO_LIMIT),
            **_constants(dim, config),
        )
    return dq, dk, dv, dkeep.sum(1)


def _bytes(keep: Tensor) -> Tensor:
    return keep.contiguous().view(torch.uint8)


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for x in tensors for stride in x.stride()[:3]]


def _grid(sequences: int, tokens: int, block: int) -> tuple[int, int]:
    return sequences, -(-tokens // block)


def _constants(dim: int, config: _launch.LaunchConfig) -> dict[str, int | bool]:
    # FP fusion became opt-in in Triton 3.10; asked for here, every version compiles the same code.
    return {
        "HEAD_DIM": dim,
        "BLOCK_D": _launch.padded_head_dim(dim),
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
        "enable_fp_fusion": True,
    }


def _device_of(x: Tensor) -> contextlib.AbstractContextManager[object]:
    return torch.cuda.device(x.device) if x.device.type == "cuda" else contextlib.nullcontext()
