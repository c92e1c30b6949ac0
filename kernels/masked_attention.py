"""Attention for training with dropped tokens still in place.

`O_i = sum_j e^{S_ij} G_ij v_j / sum_j e^{S_ij} G_ij`, `S_ij = scale * q_i . k_j`,
`G_ij = 1 if i = j else keep_j` (SUReID, arXiv 2401.07469, Eq. 4-6), with gradient to the mask:
`dkeep_j = sum_h sum_{i != j} R_ij (dO_i . v_j - dO_i . O_i)`, `R_ij = min(e^{S_ij - L_i}, 1e6)`.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels import _backend
from kernels._cpu import masked_attention as _cpu
from kernels._eager import masked_attention as _eager
from kernels._eager.masked_attention import rows_like
from kernels._gpu import masked_attention as _gpu
from kernels._library import (
    autocast,
    is_plain,
    refuse_forward_gradients,
    refuse_second_derivatives,
    register,
    register_gradient,
    without_autocast,
)

_MODULES: dict[str, ModuleType] = {"reference": _eager, "triton": _gpu, "cpu": _cpu}


def masked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor,
    *,
    scale: float | None = None,
    impl: str | None = None,
) -> Tensor:
    """Softmax attention in which a dropped token is seen by nobody but itself.

    The class token is one of the N; `keep` is 1 there. Softmax and sums are float32 whatever the
    inputs (float64 for float64). Under autocast q, k and v are cast to the autocast dtype unless
    they are float64, as torch does for its own attention; `keep` and its gradient stay in the dtype
    of `keep`.

    A NaN or infinity in the key or value of a dropped token reaches no other token's output.

    Args:
        q: (B, H, N, D) queries; any strides, so views of a packed (B, N, 3, H, D) tensor will do.
        k: (B, H, N, D) keys.
        v: (B, H, N, D) values.
        keep: (B, N), 0 or 1 (above one half counts as 1), bool or floating; shared by the heads.
            A floating mask gets its straight-through gradient, dropped tokens included.
        scale: Factor of the logits; None means `D ** -0.5`.
        impl: "reference", "triton", "cpu", or None for the default of the device.

    Returns:
        (B, H, N, D) in the dtype of q, a view of (B, N, H, D) memory: `o.transpose(1, 2)` is
        contiguous.

    Raises:
        ValueError: Shapes, dtypes or devices of the arguments do not fit together, or there is no
            implementation of that name.
        RuntimeError: The implementation asked for cannot serve the call; all reasons are listed.
    """
    q, k, v = autocast(q, k, v)
    _check(q, k, v, keep)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    if not is_plain(q, k, v, keep):
        refuse_forward_gradients("masked_attention", q, k, v, keep)
        return _forward_op(q, k, v, keep, scale, impl)[0]
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, keep)):
        return _MaskedAttention.apply(q, k, v, keep, scale, impl)
    return _forward(q, k, v, keep, scale, impl)[0]


def _check(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> None:
    if q.dim() != 4 or k.shape != q.shape or v.shape != q.shape:
        raise ValueError(
            "masked_attention: q, k and v must be (B, H, N, D) of one shape, got "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if keep.shape != (q.shape[0], q.shape[2]):
        raise ValueError(
            f"masked_attention: keep must be (B, N) = {(q.shape[0], q.shape[2])} for q of shape "
            f"{tuple(q.shape)}, got {tuple(keep.shape)}"
        )
    if not q.is_floating_point() or k.dtype != q.dtype or v.dtype != q.dtype:
        raise ValueError(
            "masked_attention: q, k and v must share one floating dtype, got "
            f"{q.dtype}, {k.dtype} and {v.dtype}"
        )
    if not q.device == k.device == v.device == keep.device:
        raise ValueError(
            "masked_attention: q, k, v and keep must be on one device, got "
            f"{q.device}, {k.device}, {v.device} and {keep.device}"
        )
    if keep.dtype != torch.bool and not keep.is_floating_point():
        raise ValueError(
            f"masked_attention: keep must be bool or floating, got {keep.dtype}; use keep.bool()"
        )


class _MaskedAttention(torch.autograd.Function):
    """The gradient of eager calls; the operator has the same one for everything else."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        keep: Tensor,
        scale: float,
        impl: str | None,
    ) -> Tensor:
        o, lse = _forward(q, k, v, keep, scale, impl)
        ctx.save_for_backward(q, k, v, keep, o, lse)
        ctx.scale, ctx.impl = scale, impl
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, grad)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, scale: float, impl: str | None
) -> tuple[Tensor, Tensor]:
    if q.numel() == 0:
        return _forward_fake(q, k, v, keep, scale, impl)
    serve = _implementation(impl, q, k, v)
    with without_autocast(q):
        return serve.forward(q, k, v, _mask(serve, keep), scale)


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor,
    o: Tensor,
    lse: Tensor,
    scale: float,
    impl: str | None,
    needs_keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if q.numel() == 0:
        dq, dk, dv, dkeep = _backward_fake(grad, q, k, v, keep, o, lse, scale, impl, needs_keep)
        return dq, dk, dv, dkeep.zero_()
    serve = _implementation(impl, q, k, v)
    with without_autocast(q):
        return serve.backward(grad, q, k, v, _mask(serve, keep), o, lse, scale, needs_keep)


def _mask(serve: ModuleType, keep: Tensor) -> Tensor:
    # The Triton kernels compare by themselves.
    return keep if serve is _gpu else keep > 0.5


def served_by(impl: str | None, q: Tensor, k: Tensor, v: Tensor) -> str:
    """Name the implementation that serves a call; raises as `masked_attention` does."""
    reasons = {"triton": lambda: _gpu.reasons(q, k, v), "cpu": lambda: _cpu.reasons(q, k, v)}
    return _backend.choose("masked_attention", impl, q.device, reasons)


def _implementation(impl: str | None, q: Tensor, k: Tensor, v: Tensor) -> ModuleType:
    return _MODULES[served_by(impl, q, k, v)]


def _forward_fake(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor, scale: float, impl: str | None
) -> tuple[Tensor, Tensor]:
    return rows_like(q), q.new_empty(q.shape[:3], dtype=_eager.accumulator(q.dtype))


def _backward_fake(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keep: Tensor,
    o: Tensor,
    lse: Tensor,
    scale: float,
    impl: str | None,
    needs_keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return rows_like(q), rows_like(q), rows_like(q), lse.new_empty(keep.shape if needs_keep else 0)


_forward_op = register(
    "masked_attention(Tensor q, Tensor k, Tensor v, Tensor keep, float scale, str? impl)"
    " -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
_backward_op = register(
    "masked_attention_grad(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor keep, Tensor o,"
    " Tensor lse, float scale, str? impl, bool needs_keep) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, keep, ctx.scale, ctx.impl = inputs
    o, lse = output
    ctx.save_for_backward(q, k, v, keep, o, lse)
    ctx.mark_non_differentiable(lse)


def _gradients(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, keep, o, lse = ctx.saved_tensors
    # Compiled autograd traces the backward of eager calls.
    function = _backward if is_plain(grad, q, k, v, keep) else _backward_op
    wanted = ctx.needs_input_grad[3]
    dq, dk, dv, dkeep = function(grad, q, k, v, keep, o, lse, ctx.scale, ctx.impl, wanted)
    return dq, dk, dv, dkeep.to(keep.dtype) if wanted else None, None, None


register_gradient(_forward_op, _gradients, _setup)
refuse_second_derivatives(_backward_op, "masked_attention")
