"""Rows of a matrix in plain torch: the `reference` implementation of calls, on any device."""

import torch
from torch import Tensor

from kernels._eager.masked_attention import accumulator


def gather(x: Tensor, indices: Tensor) -> Tensor:
    """Return rows `indices` (T,) of x (R, C)."""
    return x.index_select(0, indices)


def gather_grad(grad: Tensor, indices: Tensor, num_rows: int) -> Tensor:
    """Add up the rows of grad (T, C) by the row of (num_rows, C) that they came from."""
    return grad.new_zeros(num_rows, grad.shape[1]).index_add_(0, indices, grad)


def scatter(y: Tensor, indices: Tensor, num_rows: int, fill: float) -> Tensor:
    """Put the rows of y (T, C) at places `indices` of a (num_rows, C) tensor of `fill`."""
    out = torch.full((num_rows, y.shape[1]), fill, dtype=y.dtype, device=y.device)
    return out.index_copy_(0, indices, y)


def gather_norm(
    x: Tensor, indices: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gather rows and normalise them.

    Args:
        x: (R, C).
        indices: (T,) int64.
        weight: (C,), or None for ones.
        bias: (C,), or None for zeros.
        eps: Added to the variance.

    Returns:
        rows (T, C), their LayerNorm (T, C) in the dtype of x, and of every row the mean and the
        reciprocal standard deviation (T,), float32, or float64 for float64.
    """
    rows = x.index_select(0, indices)
    dtype = accumulator(x.dtype)
    weight, bias = (None if p is None else p.to(dtype) for p in (weight, bias))
    normed, mean, rstd = torch.native_layer_norm(rows.to(dtype), x.shape[1:], weight, bias, eps)
    return rows, normed.to(x.dtype), mean.squeeze(1), rstd.squeeze(1)


def norm_grad(
    grad: Tensor,
    grad_normed: Tensor,
    rows: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `gather_norm` short of the gather.

    With `u = (rows - mean) rstd` and `g = grad_normed weight`, of every row
    `d = grad + rstd (g - avg(g) - u avg(g u))` (Ba et al., arXiv 1607.06450, differentiated).

    Args:
        grad: (T, C), gradient of the rows themselves.
        grad_normed: (T, C), gradient of their LayerNorm.
        rows: (T, C) from the forward.
        weight: (C,) or None.
        mean: (T,) from the forward.
        rstd: (T,) from the forward.

    Returns:
        d (T, C) in the dtype of rows, dweight and dbias (C,) in the dtype of the mean.
    """
    unit = (rows.to(mean.dtype) - mean[:, None]) * rstd[:, None]
    g = grad_normed.to(mean.dtype)
    dweight, dbias = (g * unit).sum(0), g.sum(0)
    if weight is not None:
        g = g * weight.to(mean.dtype)
    inner = g - g.mean(1, keepdim=True) - unit * (g * unit).mean(1, keepdim=True)
    return (grad.to(mean.dtype) + inner * rstd[:, None]).to(rows.dtype), dweight, dbias
