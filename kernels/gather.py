"""Compaction of token rows: `out_t = x_{indices_t}`, its inverse, and LayerNorm on the way."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels import _backend
from kernels._cpu import gather as _cpu
from kernels._eager import gather as _eager
from kernels._eager.masked_attention import accumulator
from kernels._gpu import gather as _gpu
from kernels._library import (
    is_plain,
    refuse_forward_gradients,
    refuse_second_derivatives,
    register,
    register_gradient,
)

_MODULES: dict[str, ModuleType] = {"reference": _eager, "triton": _gpu, "cpu": _cpu}


def gather_rows(x: Tensor, indices: Tensor, *, impl: str | None = None) -> Tensor:
    """Collect rows, for instance the kept tokens of a batch.

    Args:
        x: (R, C), any floating dtype, any strides; for tokens (B, N, C) pass `x.flatten(0, 1)`.
        indices: (T,) int64 in [0, R), on the device of x. A row may be asked for more than once. On
            a CPU an index out of range raises IndexError; a Triton kernel gives a row of NaN.
        impl: "reference", "triton", "cpu", or None for the default of the device.

    Returns:
        (T, C). The gradient adds up over repeated rows.

    Raises:
        ValueError: Shapes, dtypes or devices of the arguments do not fit, or there is no
            implementation of that name.
        RuntimeError: The implementation asked for cannot serve the call; all reasons are listed.
    """
    _check("gather_rows", "x", x, indices)
    if not is_plain(x, indices):
        refuse_forward_gradients("gather_rows", x)
        return _gather_op(x, indices, impl)
    return _GatherRows.apply(x, indices, impl) if _recorded(x) else _gather(x, indices, impl)


def gather_layer_norm(
    x: Tensor,
    indices: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-6,
    *,
    impl: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Collect rows and normalise them in the same pass.

    `normed_t = weight (rows_t - mean_t) / sqrt(var_t + eps) + bias` (Ba et al., arXiv 1607.06450):
    what a pre-norm block needs after a pruning stage, the residual stream and its LayerNorm. Mean
    and variance are float32 (float64 for float64).

    Args:
        x: (R, C), any floating dtype, any strides.
        indices: (T,) int64 in [0, R), on the device of x; as in `gather_rows`.
        weight: (C,), any floating dtype; None for ones.
        bias: (C,), any floating dtype; None for zeros.
        eps: Added to the variance.
        impl: "reference", "triton", "cpu", or None for the default of the device.

    Returns:
        rows (T, C) and normed (T, C), both in the dtype of x, both differentiable, once.

    Raises:
        ValueError: Shapes, dtypes or devices of the arguments do not fit, or there is no
            implementation of that name.
        RuntimeError: The implementation asked for cannot serve the call; all reasons are listed.
    """
    _check("gather_layer_norm", "x", x, indices)
    for name, affine in (("weight", weight), ("bias", bias)):
        if affine is None:
            continue
        if affine.shape != x.shape[1:] or not affine.is_floating_point():
            raise ValueError(
                f"gather_layer_norm: {name} must be floating point of shape {tuple(x.shape[1:])} "
                f"for x of shape {tuple(x.shape)}, got {affine.dtype} of {tuple(affine.shape)}"
            )
        if affine.device != x.device:
            raise ValueError(
                f"gather_layer_norm: {name} is on {affine.device} but x is on {x.device}"
            )
    given = [p for p in (x, weight, bias) if p is not None]
    if not is_plain(indices, *given):
        refuse_forward_gradients("gather_layer_norm", *given)
        rows, normed, _, _ = _norm_op(x, indices, weight, bias, eps, impl)
    elif _recorded(*given):
        rows, normed = _GatherLayerNorm.apply(x, indices, weight, bias, eps, impl)
    else:
        rows, normed, _, _ = _norm(x, indices, weight, bias, eps, impl)
    return rows, normed


def scatter_rows(
    y: Tensor, indices: Tensor, num_rows: int, fill: float = 0.0, *, impl: str | None = None
) -> Tensor:
    """Put rows back where `gather_rows` took them from.

    Args:
        y: (T, C), any floating dtype, any strides.
        indices: (T,) int64 in [0, num_rows), all different: of two rows for one place an
            unspecified one would win. On a CPU an index out of range raises IndexError; a Triton
            kernel leaves the row out.
        num_rows: Rows of the result.
        fill: Value of the rows that nothing is put into.
        impl: "reference", "triton", "cpu", or None for the default of the device.

    Returns:
        (num_rows, C).

    Raises:
        ValueError: Shapes, dtypes or devices of the arguments do not fit, or there is no
            implementation of that name.
        RuntimeError: The implementation asked for cannot serve the call; all reasons are listed.
    """
    _check("scatter_rows", "y", y, indices)
    if y.shape[0] != indices.shape[0]:
        raise ValueError(
            f"scatter_rows: y has {y.shape[0]} rows but indices has {indices.shape[0]} entries; "
            "give one index per row"
        )
    if is_plain(y, indices) and not _recorded(y):
        return _scatter(y, indices, num_rows, fill, impl)
    refuse_forward_gradients("scatter_rows", y)
    return _scatter_op(y, indices, num_rows, fill, impl)


def _recorded(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


class _GatherRows(torch.autograd.Function):
    """The gradient of eager calls; the operator has the same one for everything else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, indices: Tensor, impl: str | None) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.num_rows, ctx.impl = x.shape[0], impl
        return _gather(x, indices, impl)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _gather_backward(ctx, grad)


class _GatherLayerNorm(torch.autograd.Function):
    """As `_GatherRows`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        indices: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        impl: str | None,
    ) -> tuple[Tensor, Tensor]:
        rows, normed, mean, rstd = _norm(x, indices, weight, bias, eps, impl)
        ctx.save_for_backward(indices, weight, bias, rows, mean, rstd)
        ctx.num_rows, ctx.impl = x.shape[0], impl
        return rows, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _norm_backward(ctx, *grads)


def _check(function: str, name: str, rows: Tensor, indices: Tensor) -> None:
    if rows.dim() != 2 or not rows.is_floating_point():
        raise ValueError(
            f"{function}: {name} must be (rows, channels) of a floating dtype, got shape "
            f"{tuple(rows.shape)} and {rows.dtype}; flatten batch and tokens first"
        )
    if indices.dim() != 1 or indices.dtype != torch.int64:
        raise ValueError(
            f"{function}: indices must be int64 of one dimension, got {indices.dtype} of shape "
            f"{tuple(indices.shape)}"
        )
    if indices.device != rows.device:
        raise ValueError(f"{function}: {name} is on {rows.device} but indices on {indices.device}")


def served_by(impl: str | None, operator: str, x: Tensor) -> str:
    """Name the implementation that serves a call of `operator`; raises as the operator does."""
    if impl is None and operator == "gather_rows" and x.device.type == "cpu":
        # Torch copies rows as fast and starts sooner.
        return "reference"
    normalises = operator == "gather_layer_norm"
    reasons: dict[str, Callable[[], list[str]]] = {
        "triton": lambda: _gpu.norm_reasons(x) if normalises else _gpu.reasons(x),
        "cpu": lambda: _cpu.reasons(x),
    }
    return _backend.choose(operator, impl, x.device, reasons)


def _gather(x: Tensor, indices: Tensor, impl: str | None) -> Tensor:
    return _MODULES[served_by(impl, "gather_rows", x)].gather(x, indices)


def _gather_grad(grad: Tensor, indices: Tensor, num_rows: int, impl: str | None) -> Tensor:
    return _MODULES[served_by(impl, "gather_rows_grad", grad)].gather_grad(grad, indices, num_rows)


def _scatter(y: Tensor, indices: Tensor, num_rows: int, fill: float, impl: str | None) -> Tensor:
    return _MODULES[served_by(impl, "scatter_rows", y)].scatter(y, indices, num_rows, fill)


def _norm(
    x: Tensor,
    indices: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    impl: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    serve = _MODULES[served_by(impl, "gather_layer_norm", x)]
    return serve.gather_norm(x, indices, weight, bias, eps)


def _norm_grad(
    grad: Tensor,
    grad_normed: Tensor,
    rows: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    impl: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    serve = _MODULES[served_by(impl, "gather_layer_norm", rows)]
    return serve.norm_grad(grad, grad_normed, rows, weight, mean, rstd)


def _gather_fake(x: Tensor, indices: Tensor, impl: str | None) -> Tensor:
    return x.new_empty(indices.shape[0], x.shape[1])


def _gather_grad_fake(grad: Tensor, indices: Tensor, num_rows: int, impl: str | None) -> Tensor:
    return grad.new_empty(num_rows, grad.shape[1])


def _scatter_fake(
    y: Tensor, indices: Tensor, num_rows: int, fill: float, impl: str | None
) -> Tensor:
    return y.new_empty(num_rows, y.shape[1])


def _norm_fake(
    x: Tensor,
    indices: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    impl: str | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape, dtype = (indices.shape[0], x.shape[1]), accumulator(x.dtype)
    mean, rstd = (x.new_empty(indices.shape[0], dtype=dtype) for _ in range(2))
    return x.new_empty(shape), x.new_empty(shape), mean, rstd


def _norm_grad_fake(
    grad: Tensor,
    grad_normed: Tensor,
    rows: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    impl: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    dweight, dbias = (mean.new_empty(rows.shape[1]) for _ in range(2))
    return rows.new_empty(rows.shape), dweight, dbias


_gather_op = register(
    "gather_rows(Tensor x, Tensor indices, str? impl) -> Tensor", _gather, _gather_fake
)
_gather_grad_op = register(
    "gather_rows_grad(Tensor grad, Tensor indices, SymInt num_rows, str? impl) -> Tensor",
    _gather_grad,
    _gather_grad_fake,
)
_scatter_op = register(
    "scatter_rows(Tensor y, Tensor indices, SymInt num_rows, float fill, str? impl) -> Tensor",
    _scatter,
    _scatter_fake,
)
_norm_op = register(
    "gather_layer_norm(Tensor x, Tensor indices, Tensor? weight, Tensor? bias, float eps,"
    " str? impl) -> (Tensor, Tensor, Tensor, Tensor)",
    _norm,
    _norm_fake,
)
_norm_grad_op = register(
    "gather_layer_norm_grad(Tensor grad, Tensor grad_normed, Tensor rows, Tensor? weight,"
    " Tensor mean, Tensor rstd, str? impl) -> (Tensor, Tensor, Tensor)",
    _norm_grad,
    _norm_grad_fake,
)


def _gather_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, indices, ctx.impl = inputs
    ctx.save_for_backward(indices)
    ctx.num_rows = x.shape[0]


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (indices,) = ctx.saved_tensors
    return _gather_grad_op(grad, indices, ctx.num_rows, ctx.impl), None, None


def _gather_grad_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.impl = inputs[3]


def _gather_grad_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (indices,) = ctx.saved_tensors
    return _gather_op(grad, indices, ctx.impl), None, None, None


def _scatter_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.impl = inputs[4]


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
    (indices,) = ctx.saved_tensors
    return _gather_op(grad, indices, ctx.impl), None, None, None, None


def _norm_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, indices, weight, bias, _, ctx.impl = inputs
    rows, _, mean, rstd = output
    ctx.save_for_backward(indices, weight, bias, rows, mean, rstd)
    ctx.mark_non_differentiable(mean, rstd)
    ctx.num_rows = x.shape[0]


def _norm_backward(
    ctx: Any, grad: Tensor, grad_normed: Tensor, *_: Tensor
) -> tuple[Tensor | None, ...]:
    indices, weight, bias, rows, mean, rstd = ctx.saved_tensors
    plain = is_plain(grad, grad_normed, rows)
    norm_grad, gather_grad = (
        (_norm_grad, _gather_grad) if plain else (_norm_grad_op, _gather_grad_op)
    )
    d, dweight, dbias = norm_grad(grad, grad_normed, rows, weight, mean, rstd, ctx.impl)
    return (
        gather_grad(d, indices, ctx.num_rows, ctx.impl) if ctx.needs_input_grad[0] else None,
        None,
        dweight.to(weight.dtype) if ctx.needs_input_grad[2] else None,
        dbias.to(bias.dtype) if ctx.needs_input_grad[3] else None,
        None,
        None,
    )


register_gradient(_gather_op, _gather_backward, _gather_setup)
register_gradient(_gather_grad_op, _gather_grad_backward, _gather_grad_setup)
register_gradient(_scatter_op, _scatter_backward, _scatter_setup)
register_gradient(_norm_op, _norm_backward, _norm_setup)
refuse_second_derivatives(_norm_grad_op, "gather_layer_norm")
