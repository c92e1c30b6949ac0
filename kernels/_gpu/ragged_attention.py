"""Launches the Triton kernels of ragged attention.

Nothing is read back from the device: grids come from `max_seqlen`, so that they can be captured.
"""

import contextlib

import torch
from torch import Tensor

from kernels import _backend, _launch
from kernels._eager.masked_attention import unit_stride
from kernels._eager.ragged_attention import spread


def reasons(q: Tensor, k: Tensor, v: Tensor) -> list[str]:
    """List every reason why these kernels cannot serve a call; empty when they can."""
    found = _backend.triton_reasons(q.device)
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        found.append(f"the dtype is {q.dtype}, the kernels take float16, bfloat16 and float32")
    if q.shape[-1] > _launch.MAX_HEAD_DIM:
        found.append(
            f"the head dimension is {q.shape[-1]}, the kernels take 1..{_launch.MAX_HEAD_DIM}"
        )
    return found


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
    from kernels._triton import ragged_attention as jit

    q, k, v = (unit_stride(x) for x in (q, k, v))
    _, heads, dim = q.shape
    tokens = len(q if rows is None else rows)
    o = q.new_empty(tokens, heads, dim)
    lse = q.new_empty(heads, tokens, dtype=torch.float32)
    config = _launch.ragged_forward(max_seqlen, dim, q.element_size(), _architecture(q))
    blocks = -(-max_seqlen // config.block_m)
    with _device_of(q):
        jit.forward_kernel[(blocks * heads * (len(cu_seqlens) - 1),)](
            q,
            k,
            v,
            cu_seqlens,
            cu_seqlens if rows is None else rows,
            o,
            lse,
            *_strides(q, k, v),
            heads,
            tokens,
            blocks,
            scale,
            **constants(dim, config, rows is not None),
            ONE_TILE=max_seqlen <= config.block_n,
            **_options(config),
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
    grad, (q, k, v) = grad.contiguous(), (unit_stride(x) for x in (q, k, v))
    dq, dk, dv = (torch.empty_like(o) for _ in range(3))
    config = _launch.ragged_grad(max_seqlen, q.shape[2], q.element_size(), _architecture(q))
    with _device_of(q):
        if config is None:
            _two_passes(grad, q, k, v, cu_seqlens, max_seqlen, rows, o, lse, scale, dq, dk, dv)
        else:
            _one_pass(grad, q, k, v, cu_seqlens, rows, o, lse, scale, dq, dk, dv, config)
    return spread((dq, dk, dv), cu_seqlens, rows, q.shape[0])


def _one_pass(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    rows: Tensor | None,
    o: Tensor,
    lse: Tensor,
    scale: float,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    config: _launch.LaunchConfig,
) -> None:
    from kernels._triton import ragged_attention_one_pass as jit

    tokens, heads, dim = o.shape
    images = len(cu_seqlens) - 1
    jit.grad_kernel[(heads * images,)](
        grad,
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens if rows is None else rows,
        o,
        lse,
        dq,
        dk,
        dv,
        *_strides(q, k, v),
        images,
        heads,
        tokens,
        scale,
        **constants(dim, config, rows is not None),
        **_options(config),
    )


def _two_passes(
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
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
) -> None:
    from kernels._triton import ragged_attention_two_pass as jit

    tokens, heads, dim = o.shape
    images = len(cu_seqlens) - 1
    problem = max_seqlen, dim, q.element_size(), _architecture(q)
    delta = torch.empty_like(lse)
    read = cu_seqlens if rows is None else rows
    strides = _strides(q, k, v)
    # Also writes delta, which the second kernel reads.
    config = _launch.ragged_grad_queries(*problem)
    blocks = -(-max_seqlen // config.block_m)
    jit.grad_queries_kernel[(blocks * heads * images,)](
        grad,
        q,
        k,
        v,
        cu_seqlens,
        read,
        o,
        lse,
        delta,
        dq,
        *strides,
        images,
        heads,
        tokens,
        blocks,
        scale,
        **constants(dim, config, rows is not None),
        **_options(config),
    )
    config = _launch.ragged_grad_keys(*problem)
    blocks = -(-max_seqlen // config.block_n)
    jit.grad_keys_kernel[(blocks * heads * images,)](
        grad,
        q,
        k,
        v,
        cu_seqlens,
        read,
        lse,
        delta,
        dk,
        dv,
        *strides,
        images,
        heads,
        tokens,
        blocks,
        scale,
        **constants(dim, config, rows is not None),
        **_options(config),
    )


def constants(
    head_dim: int, config: _launch.LaunchConfig, gathered: bool
) -> dict[str, int | bool | str]:
    """Return the constant arguments of every kernel; the forward has ONE_TILE besides.

    Args:
        head_dim: D.
        config: Of the launch.
        gathered: Whether there is a row index.
    """
    return {
        "HEAD_DIM": head_dim,
        "BLOCK_D": _launch.padded_head_dim(head_dim),
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "TAIL_M": config.tail if 16 <= config.tail < config.block_m else 0,
        "TAIL_N": config.tail if 16 <= config.tail < config.block_n else 0,
        "GATHERED": gathered,
        "PRECISION": "ieee",
    }


def _options(config: _launch.LaunchConfig) -> dict[str, int | bool]:
    # FP fusion became opt-in in Triton 3.10; asked for here, every version compiles the same code.
    return {
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
        "enable_fp_fusion": True,
    }


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for x in tensors for stride in x.stride()[:2]]


def _architecture(x: Tensor) -> str:
    return _launch.architecture(x.device)


def _device_of(x: Tensor) -> contextlib.AbstractContextManager[object]:
    return torch.cuda.device(x.device) if x.device.type == "cuda" else contextlib.nullcontext()
