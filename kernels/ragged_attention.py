"""Attention over packed sequences of different lengths.

`O_i = sum_j e^{S_ij} v_j / sum_j e^{S_ij}`, `S_ij = scale * q_i . k_j`, where j runs over the
sequence that token i belongs to. Sequences lie one after the other, as FlashAttention's varlen
interface has them; a row index fuses the gather of a pruning stage into the loads.
"""

from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels import _backend
from kernels._cpu import ragged_attention as _cpu
from kernels._eager import ragged_attention as _eager
from kernels._eager.masked_attention import accumulator
from kernels._gpu import ragged_attention as _gpu
from kernels._library import (
    autocast,
    is_plain,
    refuse_forward_gradients,
    refuse_second_derivatives,
    register,
    register_gradient,
    whole_number,
    without_autocast,
)

_MODULES: dict[str, ModuleType] = {"reference": _eager, "triton": _gpu, "cpu": _cpu}


def ragged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    *,
    rows: Tensor | None = None,
    scale: float | None = None,
    impl: str | None = None,
) -> Tensor:
    """Softmax attention within every sequence of a packed batch.

    Nothing is read back from the device: `max_seqlen` bounds the launch and sequences end where
    `cu_seqlens` says, so that a captured CUDA graph serves any lengths up to the bound. When
    `cu_seqlens[-1]` is less than T, the tokens beyond are neither read nor written: their gradient
    is zero and their output undefined, NaN perhaps, so drop it before anything that mixes tokens. A
    NaN in one sequence reaches no other.

    Softmax and sums are float32 whatever the inputs (float64 for float64). Under autocast q, k and
    v are cast to the autocast dtype unless they are float64, as torch does for its own attention.

    Args:
        q: (T, H, D) queries; any strides, so views of a packed (T, 3, H, D) tensor will do. With
            `rows`, (R, H, D).
        k: Keys, shaped like q.
        v: Values, shaped like q.
        cu_seqlens: (B + 1,) int32 on the device of q: sequence b owns the tokens
            `cu_seqlens[b] .. cu_seqlens[b + 1] - 1`. Starts at 0, never falls, ends at T or before;
            sequences may be empty.
        max_seqlen: Number of tokens that no sequence exceeds; the output of one that does is
            undefined.
        rows: (T,) int64 or int32 in [0, R), on the device of q: token t reads row `rows[t]` of q, k
            and v, as `TokenSelection.indices` gives them. The gradients of a row that several
            tokens read add up.
        scale: Factor of the logits; None means `D ** -0.5`.
        impl: "reference", "triton", "cpu", or None for the default of the device.

    Returns:
        (T, H, D) in the dtype of q, contiguous: the packed tokens, whatever `rows` says.

    Raises:
        ValueError: Shapes, dtypes or devices of the arguments do not fit together, or there is no
            implementation of that name. On a CPU also when `cu_seqlens`, `max_seqlen` and `rows`
            contradict each other; other devices are not waited for to find out.
        RuntimeError: The implementation asked for cannot serve the call; all reasons are listed.
    """
    q, k, v = autocast(q, k, v)
    max_seqlen = whole_number("ragged_attention", "max_seqlen", max_seqlen)
    _check(q, k, v, cu_seqlens, max_seqlen, rows)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    arguments = q, k, v, cu_seqlens, max_seqlen, rows, scale, impl
    if not is_plain(q, k, v, cu_seqlens, cu_seqlens if rows is None else rows):
        refuse_forward_gradients("ragged_attention", q, k, v)
        return _forward_op(*arguments)[0]
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return _RaggedAttention.apply(*arguments)
    return _forward(*arguments)[0]


def _check(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, rows: Tensor | None
) -> None:
    if q.dim() != 3 or k.shape != q.shape or v.shape != q.shape or q.shape[2] == 0:
        raise ValueError(
            "ragged_attention: q, k and v must be (T, H, D) of one shape with D of 1 or more, got "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if not q.is_floating_point() or k.dtype != q.dtype or v.dtype != q.dtype:
        raise ValueError(
            "ragged_attention: q, k and v must share one floating dtype, got "
            f"{q.dtype}, {k.dtype} and {v.dtype}"
        )
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] == 0 or cu_seqlens.dtype != torch.int32:
        raise ValueError(
            "ragged_attention: cu_seqlens must be (B + 1,) int32, got "
            f"{tuple(cu_seqlens.shape)} {cu_seqlens.dtype}; lengths n make it by "
            "F.pad(n.cumsum(0, dtype=torch.int32), (1, 0))"
        )
    if max_seqlen < 0:
        raise ValueError(f"ragged_attention: max_seqlen must be 0 or more, got {max_seqlen}")
    if rows is not None and (rows.dim() != 1 or rows.dtype not in (torch.int64, torch.int32)):
        raise ValueError(
            "ragged_attention: rows must be (T,) int64 or int32, got "
            f"{tuple(rows.shape)} {rows.dtype}"
        )
    same = q.device == k.device == v.device == cu_seqlens.device
    if not same or (rows is not None and rows.device != q.device):
        devices = [x.device for x in (q, k, v, cu_seqlens, rows) if x is not None]
        raise ValueError(
            "ragged_attention: q, k, v, cu_seqlens and rows must be on one device, got "
            f"{', '.join(map(str, devices))}"
        )


def _check_values(cu_seqlens: Tensor, max_seqlen: int, rows: Tensor | None, num_rows: int) -> None:
    """Check what only the numbers tell; for tensors that are read at no cost."""
    bounds = cu_seqlens.tolist()
    lengths = [end - start for start, end in pairwise(bounds)]
    tokens = num_rows if rows is None else rows.shape[0]
    if bounds[0] != 0 or min(lengths, default=0) < 0 or bounds[-1] > tokens:
        raise ValueError(
            f"ragged_attention: cu_seqlens must start at 0, never fall and end at T = {tokens} or "
            f"before, got {bounds}"
        )
    if max(lengths, default=0) > max_seqlen:
        raise ValueError(
            f"ragged_attention: a sequence has {max(lengths)} tokens, more than "
            f"max_seqlen={max_seqlen}"
        )
    if rows is not None and bounds[-1]:
        low, high = (int(x) for x in rows[: bounds[-1]].aminmax())
        if low < 0 or high >= num_rows:
            raise ValueError(
                f"ragged_attention: rows must be in [0, R) for R = {num_rows} rows of q, got "
                f"{low} to {high}"
            )


class _RaggedAttention(torch.autograd.Function):
    """The gradient of eager calls; the operator has the same one for everything else."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        rows: Tensor | None,
        scale: float,
        impl: str | None,
    ) -> Tensor:
        o, lse = _forward(q, k, v, cu_seqlens, max_seqlen, rows, scale, impl)
        ctx.save_for_backward(q, k, v, cu_seqlens, rows, o, lse)
        ctx.max_seqlen, ctx.scale, ctx.impl = max_seqlen, scale, impl
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, grad)


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    rows: Tensor | None,
    scale: float,
    impl: str | None,
) -> tuple[Tensor, Tensor]:
    if q.device.type == "cpu":
        _check_values(cu_seqlens, max_seqlen, rows, q.shape[0])
    serve = _implementation(impl, q, k, v)
    if _nothing_to_do(q, cu_seqlens, max_seqlen, rows):
        return _forward_fake(q, k, v, cu_seqlens, max_seqlen, rows, scale, impl)
    with without_autocast(q):
        return serve.forward(q, k, v, cu_seqlens, max_seqlen, rows, scale)


def _backward(
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
    impl: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    if _nothing_to_do(q, cu_seqlens, max_seqlen, rows):
        return q.new_zeros(q.shape), q.new_zeros(q.shape), q.new_zeros(q.shape)
    serve = _implementation(impl, q, k, v)
    with without_autocast(q):
        return serve.backward(grad, q, k, v, cu_seqlens, max_seqlen, rows, o, lse, scale)


def _nothing_to_do(q: Tensor, cu_seqlens: Tensor, max_seqlen: int, rows: Tensor | None) -> bool:
    return 0 in (q.numel(), cu_seqlens.shape[0] - 1, max_seqlen, 1 if rows is None else len(rows))


def served_by(impl: str | None, q: Tensor, k: Tensor, v: Tensor) -> str:
    """Name the implementation that serves a call; raises as `ragged_attention` does."""
    reasons = {"triton": lambda: _gpu.reasons(q, k, v), "cpu": lambda: _cpu.reasons(q, k, v)}
    return _backend.choose("ragged_attention", impl, q.device, reasons)


def _implementation(impl: str | None, q: Tensor, k: Tensor, v: Tensor) -> ModuleType:
    return _MODULES[served_by(impl, q, k, v)]


def _forward_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    rows: Tensor | None,
    scale: float,
    impl: str | None,
) -> tuple[Tensor, Tensor]:
    tokens, heads, dim = q.shape[0] if rows is None else rows.shape[0], q.shape[1], q.shape[2]
    lse = q.new_empty((heads, tokens), dtype=accumulator(q.dtype))
    return q.new_empty(tokens, heads, dim), lse


def _backward_fake(
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
    impl: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape), q.new_empty(q.shape)


_forward_op = register(
    "ragged_attention(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, SymInt max_seqlen,"
    " Tensor? rows, float scale, str? impl) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_backward_op = register(
    "ragged_attention_grad(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor cu_seqlens,"
    " SymInt max_seqlen, Tensor? rows, Tensor o, Tensor lse, float scale, str? impl)"
    " -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, cu_seqlens, ctx.max_seqlen, rows, ctx.scale, ctx.impl = inputs
    o, lse = output
    ctx.save_for_backward(q, k, v, cu_seqlens, rows, o, lse)
    ctx.mark_non_differentiable(lse)


def _gradients(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, cu_seqlens, rows, o, lse = ctx.saved_tensors
    # Compiled autograd traces the backward of eager calls.
    function = _backward if is_plain(grad, q, k, v) else _backward_op
    dq, dk, dv = function(
        grad, q, k, v, cu_seqlens, ctx.max_seqlen, rows, o, lse, ctx.scale, ctx.impl
    )
    return dq, dk, dv, None, None, None, None, None


register_gradient(_forward_op, _gradients, _setup)
refuse_second_derivatives(_backward_op, "ragged_attention")
