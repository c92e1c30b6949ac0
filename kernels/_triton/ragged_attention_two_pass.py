"""Ragged attention, backward in two passes: by blocks of queries, then by blocks of keys.

Blocks and tails are cut as in the forward. The first pass also writes delta for the second.
Gradients are packed as o is, whatever rows q, k and v were read from; tokens that belong to no
sequence get zeros.
"""

import triton
import triton.language as tl

from kernels._triton.common import LOG2E, dot, load_rows, row_products, store_rows
from kernels._triton.ragged_attention_tiles import (
    clear,
    first_row,
    grad_tile,
    locate,
    rows_read,
    whole_blocks,
)


@triton.jit(do_not_specialize=["images", "heads", "tokens", "blocks"])
def grad_queries_kernel(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    cu_seqlens_ptr,
    rows_ptr,
    o_ptr,
    lse_ptr,
    delta_ptr,
    dq_ptr,
    stride_qr,
    stride_qh,
    stride_kr,
    stride_kh,
    stride_vr,
    stride_vh,
    images,
    heads,
    tokens,
    blocks,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TAIL_M: tl.constexpr,
    TAIL_N: tl.constexpr,
    GATHERED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    block, head, start, length = locate(cu_seqlens_ptr, heads, blocks)
    end = tl.load(cu_seqlens_ptr + images)
    clear(dq_ptr, end, images, heads, tokens, blocks, HEAD_DIM, BLOCK_D, BLOCK_M)
    first = block * BLOCK_M
    if first >= length:
        return
    stride_or = heads * HEAD_DIM
    packed = start * stride_or + head * HEAD_DIM
    q_ptr = first_row(q_ptr, start, stride_qr, head, stride_qh, GATHERED)
    k_ptr = first_row(k_ptr, start, stride_kr, head, stride_kh, GATHERED)
    v_ptr = first_row(v_ptr, start, stride_vr, head, stride_vh, GATHERED)
    grad_ptr += packed
    o_ptr += packed
    dq_ptr += packed
    lse_ptr += head * tokens + start
    delta_ptr += head * tokens + start
    rows_ptr += start
    if TAIL_M > 0 and length - first <= TAIL_M:
        _grad_queries(
            *(grad_ptr, q_ptr, k_ptr, v_ptr, rows_ptr, o_ptr, lse_ptr, delta_ptr, dq_ptr),
            *(stride_qr, stride_kr, stride_vr, stride_or, first, length, scale),
            *(HEAD_DIM, BLOCK_D, TAIL_M, BLOCK_N, TAIL_N, GATHERED, PRECISION),
        )
        return
    _grad_queries(
        *(grad_ptr, q_ptr, k_ptr, v_ptr, rows_ptr, o_ptr, lse_ptr, delta_ptr, dq_ptr),
        *(stride_qr, stride_kr, stride_vr, stride_or, first, length, scale),
        *(HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, TAIL_N, GATHERED, PRECISION),
    )


@triton.jit
def _grad_queries(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    rows_ptr,
    o_ptr,
    lse_ptr,
    delta_ptr,
    dq_ptr,
    stride_qr,
    stride_kr,
    stride_vr,
    stride_or,
    first,
    length,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TAIL_N: tl.constexpr,
    GATHERED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    offs_m = first + tl.arange(0, ROWS)
    mask_m = offs_m < length
    rows_m = rows_read(rows_ptr, offs_m, mask_m, GATHERED)  # [ROWS]
    q = load_rows(q_ptr, rows_m, stride_qr, mask_m, HEAD_DIM, BLOCK_D)  # [ROWS, BLOCK_D]
    grad = load_rows(grad_ptr, offs_m, stride_or, mask_m, HEAD_DIM, BLOCK_D)  # [ROWS, BLOCK_D]
    o = load_rows(o_ptr, offs_m, stride_or, mask_m, HEAD_DIM, BLOCK_D)  # [ROWS, BLOCK_D]
    lse = tl.load(lse_ptr + offs_m, mask=mask_m, other=float("inf")) * LOG2E  # [ROWS]
    delta = row_products(grad, o)  # [ROWS]
    tl.store(delta_ptr + offs_m, delta, mask=mask_m)
    scale_log2 = scale * LOG2E
    dq = tl.zeros([ROWS, BLOCK_D], dtype=tl.float32)
    whole = whole_blocks(length, BLOCK_N, TAIL_N)
    for start in range(0, whole, BLOCK_N):
        dq = _grad_queries_tile(
            *(dq, q, grad, lse, delta, k_ptr, v_ptr, rows_ptr, stride_kr, stride_vr, start),
            *(length, scale_log2, HEAD_DIM, BLOCK_D, BLOCK_N, GATHERED, PRECISION),
        )
    if TAIL_N > 0 and whole < length:
        dq = _grad_queries_tile(
            *(dq, q, grad, lse, delta, k_ptr, v_ptr, rows_ptr, stride_kr, stride_vr, whole),
            *(length, scale_log2, HEAD_DIM, BLOCK_D, TAIL_N, GATHERED, PRECISION),
        )
    store_rows(dq_ptr, dq * scale, offs_m, stride_or, mask_m, HEAD_DIM, BLOCK_D)


@triton.jit
def _grad_queries_tile(
    dq,
    q,
    grad,
    lse,
    delta,
    k_ptr,
    v_ptr,
    rows_ptr,
    stride_kr,
    stride_vr,
    start,
    length,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GATHERED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    offs_n = start + tl.arange(0, BLOCK_N)
    mask_n = offs_n < length
    rows_n = rows_read(rows_ptr, offs_n, mask_n, GATHERED)  # [BLOCK_N]
    k = load_rows(k_ptr, rows_n, stride_kr, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    v = load_rows(v_ptr, rows_n, stride_vr, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    scores = dot(q, tl.trans(k), PRECISION) * scale_log2  # [ROWS, BLOCK_N]
    scores = tl.where(mask_n[None, :], scores, float("-inf"))
    weights = tl.exp2(scores - lse[:, None])  # [ROWS, BLOCK_N]
    dscores = weights * (dot(grad, tl.trans(v), PRECISION) - delta[:, None])  # [ROWS, BLOCK_N]
    return dq + dot(dscores.to(k.dtype), k, PRECISION)


@triton.jit(do_not_specialize=["images", "heads", "tokens", "blocks"])
def grad_keys_kernel(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    cu_seqlens_ptr,
    rows_ptr,
    lse_ptr,
    delta_ptr,
    dk_ptr,
    dv_ptr,
    stride_qr,
    stride_qh,
    stride_kr,
    stride_kh,
    stride_vr,
    stride_vh,
    images,
    heads,
    tokens,
    blocks,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TAIL_M: tl.constexpr,
    TAIL_N: tl.constexpr,
    GATHERED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    block, head, start, length = locate(cu_seqlens_ptr, heads, blocks)
    end = tl.load(cu_seqlens_ptr + images)
    clear(dk_ptr, end, images, heads, tokens, blocks, HEAD_DIM, BLOCK_D, BLOCK_N)
    clear(dv_ptr, end, images, heads, tokens, blocks, HEAD_DIM, BLOCK_D, BLOCK_N)
    first = block * BLOCK_N
    if first >= length:
        return
    stride_or = heads * HEAD_DIM
    packed = start * stride_or + head * HEAD_DIM
    q_ptr = first_row(q_ptr, start, stride_qr, head, stride_qh, GATHERED)
    k_ptr = first_row(k_ptr, start, stride_kr, head, stride_kh, GATHERED)
    v_ptr = first_row(v_ptr, start, stride_vr, head, stride_vh, GATHERED)
    grad_ptr += packed
    dk_ptr += packed
    dv_ptr += packed
    lse_ptr += head * tokens + start
    delta_ptr += head * tokens + start
    rows_ptr += start
    if TAIL_N > 0 and length - first <= TAIL_N:
        _grad_keys(
            *(grad_ptr, q_ptr, k_ptr, v_ptr, rows_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr),
            *(stride_qr, stride_kr, stride_vr, stride_or, first, length, scale),
            *(HEAD_DIM, BLOCK_D, BLOCK_M, TAIL_M, TAIL_N, GATHERED, PRECISION),
        )
        return
    _grad_keys(
        *(grad_ptr, q_ptr, k_ptr, v_ptr, rows_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr),
        *(stride_qr, stride_kr, stride_vr, stride_or, first, length, scale),
        *(HEAD_DIM, BLOCK_D, BLOCK_M, TAIL_M, BLOCK_N, GATHERED, PRECISION),
    )


@triton.jit
def _grad_keys(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    rows_ptr,
    lse_ptr,
    delta_ptr,
    dk_ptr,
    dv_ptr,
    stride_qr,
    stride_kr,
    stride_vr,
    stride_or,
    first,
    length,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TAIL_M: tl.constexpr,
    ROWS: tl.constexpr,
    GATHERED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    offs_n = first + tl.arange(0, ROWS)
    mask_n = offs_n < length
    rows_n = rows_read(rows_ptr, offs_n, mask_n, GATHERED)  # [ROWS]
    k = load_rows(k_ptr, rows_n, stride_kr, mask_n, HEAD_DIM, BLOCK_D)  # [ROWS, BLOCK_D]
    v = load_rows(v_ptr, rows_n, stride_vr, mask_n, HEAD_DIM, BLOCK_D)  # [ROWS, BLOCK_D]
    dk = tl.zeros([ROWS, BLOCK_D], dtype=tl.float32)
    dv = tl.zeros([ROWS, BLOCK_D], dtype=tl.float32)
    scale_log2 = scale * LOG2E
    whole = whole_blocks(length, BLOCK_M, TAIL_M)
    for start in range(0, whole, BLOCK_M):
        dk, dv = _grad_keys_tile(
            *(dk, dv, k, v, mask_n, grad_ptr, q_ptr, rows_ptr, lse_ptr, delta_ptr, stride_qr),
            *(stride_or, start, length, scale_log2, HEAD_DIM, BLOCK_D, BLOCK_M, GATHERED),
            PRECISION,
        )
    if TAIL_M > 0 and whole < length:
        dk, dv = _grad_keys_tile(
            *(dk, dv, k, v, mask_n, grad_ptr, q_ptr, rows_ptr, lse_ptr, delta_ptr, stride_qr),
            *(stride_or, whole, length, scale_log2, HEAD_DIM, BLOCK_D, TAIL_M, GATHERED),
            PRECISION,
        )
    store_rows(dk_ptr, dk * scale, offs_n, stride_or, mask_n, HEAD_DIM, BLOCK_D)
    store_rows(dv_ptr, dv, offs_n, stride_or, mask_n, HEAD_DIM, BLOCK_D)


@triton.jit
def _grad_keys_tile(
    dk,
    dv,
    k,
    v,
    mask_n,
    grad_ptr,
    q_ptr,
    rows_ptr,
    lse_ptr,
    delta_ptr,
    stride_qr,
    stride_or,
    start,
    length,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    GATHERED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    offs_m = start + tl.arange(0, BLOCK_M)
    mask_m = offs_m < length
    rows_m = rows_read(rows_ptr, offs_m, mask_m, GATHERED)  # [BLOCK_M]
    q = load_rows(q_ptr, rows_m, stride_qr, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    grad = load_rows(grad_ptr, offs_m, stride_or, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    lse = tl.load(lse_ptr + offs_m, mask=mask_m, other=float("inf")) * LOG2E  # [BLOCK_M]
    delta = tl.load(delta_ptr + offs_m, mask=mask_m, other=0.0)  # [BLOCK_M]
    dk, dv, _ = grad_tile(dk, dv, k, v, mask_n, q, grad, lse, delta, scale_log2, PRECISION)
    return dk, dv
