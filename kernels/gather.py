"""Compaction of token rows: `out_t = x_{indices_t}` and its inverse."""

from typing import Any

import torch
from torch import Tensor

from kernels import reference
from kernels._library import register, register_gradient


def gather_rows(x: Tensor, indices: Tensor) -> Tensor:
    """Collect rows, for instance the kept tokens of a batch.

    Args:
        x: (R, C), any floating dtype; for tokens (B, N, C) pass `x.flatten(0, 1)`.
        indices: (T,) int64 in [0, R), on the device of x. A row may be asked for more than once.

    Returns:
        (T, C). The gradient adds up over repeated rows.

    Raises:
        ValueError: Shapes or dtype of the arguments do not fit.
    """
    _check("gather_rows", "x", x, indices)
    return _gather_op(x, indices)


def scatter_rows(y: Tensor, indices: Tensor, num_rows: int, fill: float = 0.0) -> Tensor:
    """Put rows back where `gather_rows` took them from.

    Args:
        y: (T, C).
        indices: (T,) int64 in [0, num_rows), all different: of two rows for one place an
            unspecified one would win.
        num_rows: Rows of the result.
        fill: Value of the rows that nothing is put into.

    Returns:
        (num_rows, C).

    Raises:
        ValueError: Shapes or dtype of the arguments do not fit.
    """
    _check("scatter_rows", "y", y, indices)
    if y.shape[0] != indices.shape[0]:
        raise ValueError(
            f"scatter_rows: y has {y.shape[0]} rows but indices has {indices.shape[0]} entries; "
            "give one index per row"
        )
    return _scatter_op(y, indices, num_rows, fill)


def _check(function: str, name: str, rows: Tensor, indices: Tensor) -> None:
    if rows.dim() != 2:
        raise ValueError(
            f"{function}: {name} must be (rows, channels), got shape {tuple(rows.shape)}; "
            "flatten batch and tokens first"
        )
    if indices.dim() != 1 or indices.dtype != torch.int64:
        raise ValueError(
            f"{function}: indices must be int64 of one dimension, got {indices.dtype} of shape "
            f"{tuple(indices.shape)}"
        )


def _gather_fake(x: Tensor, indices: Tensor) -> Tensor:
    return x.new_empty(indices.shape[0], x.shape[1])


def _scatter_fake(y: Tensor, indices: Tensor, num_rows: int, fill: float) -> Tensor:
    return y.new_empty(num_rows, y.shape[1])


def _gather(x: Tensor, indices: Tensor) -> Tensor:
    return x.index_select(0, indices)


def _gather_grad(grad: Tensor, indices: Tensor, num_rows: int) -> Tensor:
    return grad.new_zeros(num_rows, grad.shape[1]).index_add_(0, indices, grad)


def _gather_grad_fake(grad: Tensor, indices: Tensor, num_rows: int) -> Tensor:
    return grad.new_empty(num_rows, grad.shape[1])


_gather_op = register("gather_rows(Tensor x, Tensor indices) -> Tensor", _gather, _gather_fake)
_gather_grad_op = register(
    "gather_rows_grad(Tensor grad, Tensor indices, SymInt num_rows) -> Tensor",
    _gather_grad,
    _gather_grad_fake,
)
_scatter_op = register(
    "scatter_rows(Tensor y, Tensor indices, SymInt num_rows, float fill) -> Tensor",
    reference.scatter_rows,
    _scatter_fake,
)


def _gather_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, indices = inputs
    ctx.save_for_backward(indices)
    ctx.num_rows = x.shape[0]


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (indices,) = ctx.saved_tensors
    return _gather_grad_op(grad, indices, ctx.num_rows), None


def _gather_grad_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _gather_grad_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (indices,) = ctx.saved_tensors
    return _gather_op(grad, indices), None, None


def _scatter_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _scatter_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (indices,) = ctx.saved_tensors
    return _gather_op(grad, indices), None, None, None


register_gradient(_gather_op, _gather_backward, _gather_setup)
register_gradient(_gather_grad_op, _gather_grad_backward, _gather_grad_setup)
register_gradient(_scatter_op, _scatter_backward, _scatter_setup)
