"""Ragged attention, backward in one pass for short sequences: one program per sequence and head.

All keys stay in the program, in a block of BLOCK_N and a tail of TAIL_N; the query rows pass by in
blocks of BLOCK_M and a tail of TAIL_M. The gradient of a block of queries is complete when it is
written, those of the keys at the end: no atomic addition, no float32 buffer. Gradients are packed
as o is, whatever rows q, k and v were read from; tokens that belong to no sequence get zeros.
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


@triton.jit(do_not_specialize=["images", "heads", "tokens"])
def grad_kernel(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    cu_seqlens_ptr,
    rows_ptr,
    o_ptr,
    lse_ptr,
    dq_ptr,
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
    _, head, start, length = locate(cu_seqlens_ptr, heads, 1)
    end = tl.load(cu_seqlens_ptr + images)
    clear(dq_ptr, end, images, heads, tokens, 1, HEAD_DIM, BLOCK_D, BLOCK_M)
    clear(dk_ptr, end, images, heads, tokens, 1, HEAD_DIM, BLOCK_D, BLOCK_M)
    clear(dv_ptr, end, images, heads, tokens, 1, HEAD_DIM, BLOCK_D, BLOCK_M)
    if length == 0:
        return
    stride_or = heads * HEAD_DIM
    packed = start * stride_or + head * HEAD_DIM
    q_ptr = first_row(q_ptr, start, stride_qr, head, stride_qh, GATHERED)
    k_ptr = first_row(k_ptr, start, stride_kr, head, stride_kh, GATHERED)
    v_ptr = first_row(v_ptr, start, stride_vr, head, stride_vh, GATHERED)
    grad_ptr += packed
    o_ptr += packed
    dq_ptr += packed
    dk_ptr += packed
    dv_ptr += packed
    lse_ptr += head * tokens + start
    rows_ptr += start

    offs_n = tl.arange(0, BLOCK_N)
    mask_n = offs_n < length
    rows_n = rows_read(rows_ptr, offs_n, mask_n, GATHERED)  # [BLOCK_N]
    k = load_rows(k_ptr, rows_n, stride_kr, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    v = load_rows(v_ptr, rows_n, stride_vr, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    dk = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    # Without a tail these stand for it unused, and the compiler drops them.
    dk_t, dv_t = dk, dv
    if TAIL_N > 0:
        dk_t = tl.zeros([TAIL_N, BLOCK_D], dtype=tl.float32)
        dv_t = tl.zeros([TAIL_N, BLOCK_D], dtype=tl.float32)

    whole = whole_blocks(length, BLOCK_M, TAIL_M)
    for first in range(0, whole, BLOCK_M):
        dk, dv, dk_t, dv_t = _grad_step(
            *(dk, dv, dk_t, dv_t, k, v, mask_n, k_ptr, v_ptr, stride_kr, stride_vr),
            *(grad_ptr, q_ptr, rows_ptr, o_ptr, lse_ptr, dq_ptr, stride_qr, stride_or),
            *(
                first,
                length,
                scale,
                HEAD_DIM,
                BLOCK_D,
                BLOCK_M,
                BLOCK_N,
                TAIL_N,
                GATHERED,
                PRECISION,
            ),
        )
    if TAIL_M > 0 and whole < length:
        dk, dv, dk_t, dv_t = _grad_step(
            *(dk, dv, dk_t, dv_t, k, v, mask_n, k_ptr, v_ptr, stride_kr, stride_vr),
            *(grad_ptr, q_ptr, rows_ptr, o_ptr, lse_ptr, dq_ptr, stride_qr, stride_or),
            *(
                whole,
                length,
                scale,
                HEAD_DIM,
                BLOCK_D,
                TAIL_M,
                BLOCK_N,
                TAIL_N,
                GATHERED,
                PRECISION,
            ),
        )

    store_rows(dk_ptr, dk * scale, offs_n, stride_or, mask_n, HEAD_DIM, BLOCK_D)
    store_rows(dv_ptr, dv, offs_n, stride_or, mask_n, HEAD_DIM, BLOCK_D)
    if TAIL_N > 0:
        offs_t = BLOCK_N + tl.arange(0, TAIL_N)
        mask_t = offs_t < length
        store_rows(dk_ptr, dk_t * scale, offs_t, stride_or, mask_t, HEAD_DIM, BLOCK_D)
        store_rows(dv_ptr, dv_t, offs_t, stride_or, mask_t, HEAD_DIM, BLOCK_D)


@triton.jit
def _grad_step(
    dk,
    dv,
    dk_t,
    dv_t,
    k,
    v,
    mask_n,
    k_ptr,
    v_ptr,
    stride_kr,
    stride_vr,
    grad_ptr,
    q_ptr,
    rows_ptr,
    o_ptr,
    lse_ptr,
    dq_ptr,
    stride_qr,
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
    delta = row_products(grad, o)  # [ROWS]
    lse = tl.load(lse_ptr + offs_m, mask=mask_m, other=float("inf")) * LOG2E  # [ROWS]
    scale_log2 = scale * LOG2E
    dk, dv, dscores = grad_tile(
        dk, dv, k, v, mask_n, q, grad, lse, delta, scale_log2, PRECISION
    )  # [BLOCK_N, ROWS]
    dq = dot(tl.trans(dscores), k, PRECISION)  # [ROWS, BLOCK_D]
    if TAIL_N > 0:
        # Read again for every block: held, they would take as many registers as the block of keys.
        offs_t = BLOCK_N + tl.arange(0, TAIL_N)
        mask_t = offs_t < length
        rows_t = rows_read(rows_ptr, offs_t, mask_t, GATHERED)  # [TAIL_N]
        k_t = load_rows(k_ptr, rows_t, stride_kr, mask_t, HEAD_DIM, BLOCK_D)  # [TAIL_N, BLOCK_D]
        v_t = load_rows(v_ptr, rows_t, stride_vr, mask_t, HEAD_DIM, BLOCK_D)  # [TAIL_N, BLOCK_D]
        dk_t, dv_t, dscores_t = grad_tile(
            dk_t, dv_t, k_t, v_t, mask_t, q, grad, lse, delta, scale_log2, PRECISION
        )  # [TAIL_N, ROWS]
        dq += dot(tl.trans(dscores_t), k_t, PRECISION)
    store_rows(dq_ptr, dq * scale, offs_m, stride_or, mask_m, HEAD_DIM, BLOCK_D)
    return dk, dv, dk_t, dv_t
