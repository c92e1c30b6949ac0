"""Launches the Triton kernels that move rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels import _backend, _launch
from kernels._gpu import launching
from kernels._launch import LaunchConfig
from kernels._launch import rows as launch

PARTS = 256
"""Most programs that share the sums over rows in the gradient of LayerNorm."""


def reasons(x: Tensor) -> list[str]:
    """List every reason why these kernels cannot copy or add up rows; empty when they can."""
    found = _backend.triton_reasons(x.device)
    if x.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        found.append(
            f"the dtype is {x.dtype}, the kernels take float16, bfloat16, float32 and float64"
        )
    return found


def norm_reasons(x: Tensor) -> list[str]:
    """List every reason why these kernels cannot normalise rows; empty when they can."""
    found = _backend.triton_reasons(x.device)
    if x.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        found.append(f"the dtype is {x.dtype}, the kernels take float16, bfloat16 and float32")
    if not 1 <= x.shape[1] <= launch.MAX_CHANNELS:
        found.append(
            f"rows are {x.shape[1]} channels wide, the kernels take 1..{launch.MAX_CHANNELS}"
        )
    return found


def gather(x: Tensor, indices: Tensor) -> Tensor:
    """Copy rows; as in `kernels._eager.gather`, but an index out of range gives a row of NaN."""
    out = x.new_empty(indices.shape[0], x.shape[1])
    _copy(x, indices, out, x.shape[0], False)
    return out


def scatter(y: Tensor, indices: Tensor, num_rows: int, fill: float) -> Tensor:
    """Place rows; as in `kernels._eager.gather`, but an index out of range is left out."""
    out = torch.full((num_rows, y.shape[1]), fill, dtype=y.dtype, device=y.device)
    _copy(y, indices, out, num_rows, True)
    return out


def _copy(source: Tensor, indices: Tensor, out: Tensor, bound: int, scatter: bool) -> None:
    jit = launching.jit("gather")
    rows, channels = indices.shape[0], source.shape[1]
    if rows * channels == 0:
        return
    config = _config("copy_kernel", source, rows)
    with launching.device_of(source):
        jit.copy_kernel[_grid(rows, channels, config)](
            source,
            indices.contiguous(),
            out,
            *source.stride(),
            channels,
            rows,
            bound,
            channels,
            SCATTER=scatter,
            **_constants(config),
        )


def gather_grad(grad: Tensor, indices: Tensor, num_rows: int) -> Tensor:
    """Add up rows; as in `kernels._eager.gather`, repeated rows in float32 and in order."""
    return gather_grads([grad], indices, num_rows)[0]


def gather_grads(grads: Sequence[Tensor], indices: Tensor, num_rows: int) -> list[Tensor]:
    """Add up rows of several tensors of one shape as `gather_grad` does those of one.

    An index outside [0, num_rows) is left out.
    """
    jit = launching.jit("gather")
    rows, channels = grads[0].shape
    if rows * channels == 0 or num_rows == 0:
        return [grad.new_zeros(num_rows, channels) for grad in grads]
    indices = indices.contiguous()
    ends = torch.full((2, num_rows), -1, dtype=torch.int32, device=indices.device)
    link = _config("link_kernel", grads[0], rows)
    merge = _config("merge_kernel", grads[0], num_rows)
    outs = [grad.new_empty(num_rows, channels) for grad in grads]
    with launching.device_of(indices):
        jit.link_kernel[(-(-rows // link.block_m),)](
            indices, ends, rows, num_rows, BLOCK_R=link.block_m, num_warps=link.num_warps
        )
        for grad, out in zip(grads, outs, strict=True):
            jit.merge_kernel[_grid(num_rows, channels, merge)](
                grad,
                indices,
                ends,
                out,
                *grad.stride(),
                rows,
                num_rows,
                channels,
                BLOCK_T=launch.MERGE_CHUNK,
                **_constants(merge),
            )
    return outs


def gather_norm(
    x: Tensor, indices: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gather and normalise; see `kernels._eager.gather`. Index out of range: a row of NaN."""
    jit = launching.jit("gather")
    rows, channels = indices.shape[0], x.shape[1]
    out, normed = x.new_empty(rows, channels), x.new_empty(rows, channels)
    mean, rstd = (x.new_empty(rows, dtype=torch.float32) for _ in range(2))
    if rows:
        config = _config("norm_kernel", x, rows)
        with launching.device_of(x):
            jit.norm_kernel[(-(-rows // config.block_m),)](
                x,
                indices.contiguous(),
                x if weight is None else weight.contiguous(),
                x if bias is None else bias.contiguous(),
                out,
                normed,
                mean,
                rstd,
                *x.stride(),
                rows,
                x.shape[0],
                channels,
                eps,
                HAS_WEIGHT=weight is not None,
                HAS_BIAS=bias is not None,
                **_constants(config),
            )
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
    jit = launching.jit("gather")
    total, channels = rows.shape
    dx = torch.empty_like(rows)
    config = _config("norm_grad_kernel", rows, total)
    programs = min(PARTS, -(-total // config.block_m))
    parts = mean.new_empty(2, programs, channels)
    if total:
        with launching.device_of(rows):
            jit.norm_grad_kernel[(programs,)](
                grad.contiguous(),
                grad_normed.contiguous(),
                rows,
                rows if weight is None else weight.contiguous(),
                mean,
                rstd,
                dx,
                parts[0],
                parts[1],
                total,
                channels,
                HAS_WEIGHT=weight is not None,
                **_constants(config),
            )
    return dx, parts[0].sum(0), parts[1].sum(0)


def _config(name: str, x: Tensor, rows: int) -> LaunchConfig:
    arch = _launch.architecture(x.device)
    return launch.row_kernel(f"gather.{name}", rows, x.shape[1], x.element_size(), arch)


def _grid(rows: int, channels: int, config: LaunchConfig) -> tuple[int, int]:
    return -(-rows // config.block_m), -(-channels // config.block_n)


def _constants(config: LaunchConfig) -> dict[str, int | bool]:
    # FP fusion became opt-in in Triton 3.10; asked for here, every version compiles the same code.
    return {
        "BLOCK_R": config.block_m,
        "BLOCK_C": config.block_n,
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
        "enable_fp_fusion": True,
    }
