"""Calls of the C++ kernels that move rows."""

import torch
from torch import Tensor

from kernels import _backend
from kernels._cpu import build
from kernels._cpu.operands import TYPES
from kernels._eager.masked_attention import unit_stride

Numbers = tuple[int, ...]


def reasons(x: Tensor) -> list[str]:
    """List every reason why these kernels cannot serve a call; empty when they can."""
    if x.dtype not in TYPES:
        return [f"the dtype is {x.dtype}, the C++ kernels take float32, bfloat16, float16"]
    return _backend.cpu_reasons(x.device)


def gather(x: Tensor, indices: Tensor) -> Tensor:
    """Copy rows; see `kernels._eager.gather`.

    Raises:
        IndexError: An index is out of range.
    """
    out = x.new_empty(indices.shape[0], x.shape[1])
    x, indices = unit_stride(x), indices.contiguous()
    wrong = build.load().gather_rows(
        x.data_ptr(),
        x.stride(0),
        x.element_size(),
        *_rows(indices, x.shape[0]),
        x.shape[1],
        out.data_ptr(),
    )
    _check("gather_rows", indices, wrong, x.shape[0])
    return out


def scatter(y: Tensor, indices: Tensor, num_rows: int, fill: float) -> Tensor:
    """Place rows; see `kernels._eager.gather`.

    Raises:
        IndexError: An index is out of range.
    """
    out = y.new_empty(num_rows, y.shape[1])
    filling = y.new_full((), fill)
    y, indices = unit_stride(y), indices.contiguous()
    wrong = build.load().scatter_rows(
        y.data_ptr(),
        y.stride(0),
        y.element_size(),
        *_rows(indices, num_rows),
        y.shape[1],
        filling.data_ptr(),
        out.data_ptr(),
    )
    _check("scatter_rows", indices, wrong, num_rows)
    return out


def gather_grad(grad: Tensor, indices: Tensor, num_rows: int) -> Tensor:
    """Add up rows, repeated ones in float32 and in order; see `kernels._eager.gather`."""
    out = grad.new_empty(num_rows, grad.shape[1])
    grad, indices = unit_stride(grad), indices.contiguous()
    wrong = build.load().gather_rows_grad(
        grad.data_ptr(),
        grad.stride(0),
        TYPES[grad.dtype],
        *_rows(indices, num_rows),
        grad.shape[1],
        out.data_ptr(),
    )
    _check("gather_rows", indices, wrong, num_rows)
    return out


def gather_norm(
    x: Tensor, indices: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gather rows and normalise them; see `kernels._eager.gather`.

    Raises:
        IndexError: An index is out of range.
    """
    rows, channels = indices.shape[0], x.shape[1]
    out, normed = x.new_empty(rows, channels), x.new_empty(rows, channels)
    mean, rstd = (x.new_empty(rows, dtype=torch.float32) for _ in range(2))
    x, indices, weight, bias = unit_stride(x), indices.contiguous(), _float(weight), _float(bias)
    wrong = build.load().gather_norm(
        *_norm(out, weight, bias, mean, rstd),
        x.data_ptr(),
        x.stride(0),
        indices.data_ptr(),
        x.shape[0],
        eps,
        out.data_ptr(),
        normed.data_ptr(),
    )
    _check("gather_layer_norm", indices, wrong, x.shape[0])
    return out, normed, mean, rstd


def norm_grad(
    grad: Tensor,
    grad_normed: Tensor,
    rows: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients short of the gather; see `kernels._eager.gather`."""
    dx = rows.new_empty(rows.shape)
    dweight, dbias = (mean.new_empty(rows.shape[1]) for _ in range(2))
    grad, grad_normed, weight = grad.contiguous(), grad_normed.contiguous(), _float(weight)
    build.load().norm_grad(
        *_norm(rows, weight, None, mean, rstd),
        grad.data_ptr(),
        grad_normed.data_ptr(),
        rows.data_ptr(),
        dx.data_ptr(),
        dweight.data_ptr(),
        dbias.data_ptr(),
    )
    return dx, dweight, dbias


def _rows(indices: Tensor, bound: int) -> Numbers:
    return indices.data_ptr(), indices.shape[0], bound


def _norm(
    rows: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor
) -> Numbers:
    affine = (0 if p is None else p.data_ptr() for p in (weight, bias))
    return TYPES[rows.dtype], *rows.shape, *affine, mean.data_ptr(), rstd.data_ptr()


def _float(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.float().contiguous()


def _check(function: str, indices: Tensor, wrong: int, bound: int) -> None:
    if wrong != -1:
        raise IndexError(
            f"{function}: indices[{wrong}] = {int(indices[wrong])} is outside [0, {bound}), the "
            "rows there are"
        )
