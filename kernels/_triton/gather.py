"""Rows of a matrix: copied by an index, normalised on the way, added up on the way back."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows", "bound"])
def copy_kernel(
    source_ptr,
    indices_ptr,
    out_ptr,
    stride_sr,
    stride_sc,
    stride_or,
    rows,
    bound,
    channels,
    SCATTER: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    offs_r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    offs_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask_r = offs_r < rows
    mask_c = offs_c < channels
    indices = tl.load(indices_ptr + offs_r, mask=mask_r, other=0)  # [BLOCK_R]
    inside = (indices >= 0) & (indices < bound)
    if SCATTER:
        source = offs_r.to(tl.int64)
        place = indices
        written = mask_r & inside
    else:
        source = indices
        place = offs_r.to(tl.int64)
        written = mask_r
    tile = tl.load(
        source_ptr + source[:, None] * stride_sr + offs_c.to(tl.int64)[None, :] * stride_sc,
        mask=(mask_r & inside)[:, None] & mask_c[None, :],
        other=float("nan"),
    )  # [BLOCK_R, BLOCK_C]
    places = place[:, None] * stride_or + offs_c[None, :]
    tl.store(out_ptr + places, tile, mask=written[:, None] & mask_c[None, :])


@triton.jit(do_not_specialize=["rows", "bound"])
def link_kernel(indices_ptr, ends_ptr, rows, bound, BLOCK_R: tl.constexpr):
    # ends[0, r]: the last t with indices[t] = r; ends[1, r]: rows - 1 - t of the first; -1: none.
    offs_r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    mask_r = offs_r < rows
    indices = tl.load(indices_ptr + offs_r, mask=mask_r, other=0)  # [BLOCK_R]
    inside = mask_r & (indices >= 0) & (indices < bound)
    tl.atomic_max(ends_ptr + indices, offs_r, mask=inside)
    tl.atomic_max(ends_ptr + bound + indices, rows - 1 - offs_r, mask=inside)


@triton.jit(do_not_specialize=["rows", "bound"])
def merge_kernel(
    grad_ptr,
    indices_ptr,
    ends_ptr,
    out_ptr,
    stride_gr,
    stride_gc,
    rows,
    bound,
    channels,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    offs_r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    offs_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mask_r = offs_r < bound
    mask_c = offs_c < channels
    columns = offs_c.to(tl.int64) * stride_gc  # [BLOCK_C]
    last = tl.load(ends_ptr + offs_r, mask=mask_r, other=-1)  # [BLOCK_R]
    first = rows - 1 - tl.load(ends_ptr + bound + offs_r, mask=mask_r, other=-1)  # [BLOCK_R]
    tile = tl.load(
        grad_ptr + first.to(tl.int64)[:, None] * stride_gr + columns[None, :],
        mask=(last >= 0)[:, None] & mask_c[None, :],
        other=0.0,
    )  # [BLOCK_R, BLOCK_C]
    acc = tile.to(tl.float64 if grad_ptr.dtype.element_ty == tl.float64 else tl.float32)
    # Repeated rows add up in the order of t; a batch without any skips the loop.
    repeated = last > first
    start = tl.min(tl.where(repeated, first + 1, rows), axis=0)
    end = tl.max(tl.where(repeated, last + 1, 0), axis=0)
    for block in range(start, end, BLOCK_T):
        offs_t = block + tl.arange(0, BLOCK_T)
        chunk = tl.load(indices_ptr + offs_t, mask=offs_t < end, other=-1)  # [BLOCK_T]
        mine = (chunk[:, None] == offs_r[None, :]) & (offs_t[:, None] > first[None, :])
        if tl.max(tl.max((mine & repeated[None, :]).to(tl.int32), axis=1), axis=0) > 0:
            for t in range(block, tl.minimum(block + BLOCK_T, end)):
                wanted = (tl.load(indices_ptr + t) == offs_r) & (t > first)  # [BLOCK_R]
                source = (offs_c * 0 + t).to(tl.int64) * stride_gr + columns
                row = tl.load(grad_ptr + source, mask=mask_c, other=0.0)  # [BLOCK_C]
                acc += tl.where(wanted[:, None], row.to(acc.dtype)[None, :], 0.0)
    places = offs_r.to(tl.int64)[:, None] * channels + offs_c[None, :]
    values = acc.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + places, values, mask=mask_r[:, None] & mask_c[None, :])


@triton.jit(do_not_specialize=["rows", "bound"])
def norm_kernel(
    x_ptr,
    indices_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    normed_ptr,
    mean_ptr,
    rstd_ptr,
    stride_xr,
    stride_xc,
    rows,
    bound,
    channels,
    eps,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    offs_r = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    offs_c = tl.arange(0, BLOCK_C)
    mask_r = offs_r < rows
    mask_c = offs_c < channels
    mask = mask_r[:, None] & mask_c[None, :]
    indices = tl.load(indices_ptr + offs_r, mask=mask_r, other=0)  # [BLOCK_R]
    inside = (indices >= 0) & (indices < bound)
    tile = tl.load(
        x_ptr + indices[:, None] * stride_xr + offs_c.to(tl.int64)[None, :] * stride_xc,
        mask=mask & inside[:, None],
        other=float("nan"),
    )  # [BLOCK_R, BLOCK_C]
    places = offs_r.to(tl.int64)[:, None] * channels + offs_c[None, :]
    tl.store(out_ptr + places, tile, mask=mask)

    values = tl.where(mask_c[None, :], tile.to(tl.float32), 0.0)
    mean = tl.sum(values, axis=1) / channels  # [BLOCK_R]
    centred = tl.where(mask_c[None, :], values - mean[:, None], 0.0)  # [BLOCK_R, BLOCK_C]
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / channels + eps)  # [BLOCK_R]
    normed = centred * rstd[:, None]
    if HAS_WEIGHT:
        weight = tl.load(weight_ptr + offs_c, mask=mask_c, other=0.0).to(tl.float32)
        normed *= weight[None, :]
    if HAS_BIAS:
        bias = tl.load(bias_ptr + offs_c, mask=mask_c, other=0.0).to(tl.float32)
        normed += bias[None, :]
    tl.store(normed_ptr + places, normed.to(normed_ptr.dtype.element_ty), mask=mask)
    tl.store(mean_ptr + offs_r, mean, mask=mask_r)
    tl.store(rstd_ptr + offs_r, rstd, mask=mask_r)


@triton.jit(do_not_specialize=["rows"])
def norm_grad_kernel(
    grad_ptr,
    grad_normed_ptr,
    out_ptr,
    weight_ptr,
    mean_ptr,
    rstd_ptr,
    dx_ptr,
    dweight_part_ptr,
    dbias_part_ptr,
    rows,
    channels,
    HAS_WEIGHT: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    part = tl.program_id(0)
    offs_c = tl.arange(0, BLOCK_C)
    mask_c = offs_c < channels
    dweight = tl.zeros([BLOCK_C], dtype=tl.float32)
    dbias = tl.zeros([BLOCK_C], dtype=tl.float32)
    if HAS_WEIGHT:
        weight = tl.load(weight_ptr + offs_c, mask=mask_c, other=0.0).to(tl.float32)
    for first in range(part * BLOCK_R, rows, tl.num_programs(0) * BLOCK_R):
        offs_r = first + tl.arange(0, BLOCK_R)
        mask_r = offs_r < rows
        mask = mask_r[:, None] & mask_c[None, :]
        places = offs_r.to(tl.int64)[:, None] * channels + offs_c[None, :]
        mean = tl.load(mean_ptr + offs_r, mask=mask_r, other=0.0)  # [BLOCK_R]
        rstd = tl.load(rstd_ptr + offs_r, mask=mask_r, other=0.0)  # [BLOCK_R]
        out = tl.load(out_ptr + places, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_normed_ptr + places, mask=mask, other=0.0).to(tl.float32)
        unit = tl.where(mask, (out - mean[:, None]) * rstd[:, None], 0.0)  # [BLOCK_R, BLOCK_C]
        dweight += tl.sum(grad * unit, axis=0)
        dbias += tl.sum(grad, axis=0)
        if HAS_WEIGHT:
            grad *= weight[None, :]
        shift = tl.sum(grad, axis=1) / channels  # [BLOCK_R]
        slope = tl.sum(grad * unit, axis=1) / channels  # [BLOCK_R]
        dx = (grad - shift[:, None] - unit * slope[:, None]) * rstd[:, None]
        dx += tl.load(grad_ptr + places, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx_ptr + places, dx.to(dx_ptr.dtype.element_ty), mask=mask)
    tl.store(dweight_part_ptr + part * channels + offs_c, dweight, mask=mask_c)
    tl.store(dbias_part_ptr + part * channels + offs_c, dbias, mask=mask_c)
