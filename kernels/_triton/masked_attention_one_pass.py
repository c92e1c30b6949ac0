"""Masked attention, backward in one pass for short sequences: one program per image and head.

All keys stay in the program, in a block of BLOCK_N and a tail of TAIL_N; the query rows pass by in
blocks of BLOCK_M and a tail of TAIL_M. The gradient of a block of queries is complete when it is
written, those of the keys at the end: no atomic addition, no float32 buffer.
"""

import triton
import triton.language as tl

from kernels._triton.common import LOG2E, dot, load_rows, row_products, rows_inside, store_rows
from kernels._triton.masked_attention_tiles import grad_tile, grad_tile_by_rows, load_keep


@triton.jit(do_not_specialize=["heads", "tokens"])
def grad_kernel(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    keep_ptr,
    o_ptr,
    lse_ptr,
    dq_ptr,
    dk_ptr,
    dv_ptr,
    dkeep_ptr,
    stride_gb,
    stride_gh,
    stride_gn,
    stride_qb,
    stride_qh,
    stride_qn,
    stride_kb,
    stride_kh,
    stride_kn,
    stride_vb,
    stride_vh,
    stride_vn,
    heads,
    tokens,
    scale,
    log2_limit,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TAIL_M: tl.constexpr,
    TAIL_N: tl.constexpr,
    KEEP_GRAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    image = sequence // heads
    head = sequence % heads
    stride_on = heads * HEAD_DIM
    rows = image * tokens * stride_on + head * HEAD_DIM
    grad_ptr += image * stride_gb + head * stride_gh
    q_ptr += image * stride_qb + head * stride_qh
    k_ptr += image * stride_kb + head * stride_kh
    v_ptr += image * stride_vb + head * stride_vh
    o_ptr += rows
    dq_ptr += rows
    dk_ptr += rows
    dv_ptr += rows
    lse_ptr += sequence * tokens
    dkeep_ptr += sequence * tokens
    keep_ptr += image * tokens

    offs_n = tl.arange(0, BLOCK_N)
    mask_n = rows_inside(offs_n, tokens, TAIL_N > 0)
    keep_n = load_keep(keep_ptr, offs_n, mask_n)  # [BLOCK_N]
    k = load_rows(k_ptr, offs_n, stride_kn, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    v = load_rows(v_ptr, offs_n, stride_vn, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dkeep = tl.zeros([BLOCK_N], tl.float32)
    # Without a tail its variables stand for nothing: they are never read.
    TAIL: tl.constexpr = TAIL_N if TAIL_N > 0 else 16
    offs_t = BLOCK_N + tl.arange(0, TAIL)
    mask_t = offs_t < tokens
    dk_t = tl.zeros([TAIL, BLOCK_D], tl.float32)
    dv_t = tl.zeros([TAIL, BLOCK_D], tl.float32)
    dkeep_t = tl.zeros([TAIL], tl.float32)
    if TAIL_N > 0:
        keep_t = load_keep(keep_ptr, offs_t, mask_t)  # [TAIL]
        k_t = load_rows(k_ptr, offs_t, stride_kn, mask_t, HEAD_DIM, BLOCK_D)  # [TAIL, BLOCK_D]
        v_t = load_rows(v_ptr, offs_t, stride_vn, mask_t, HEAD_DIM, BLOCK_D)  # [TAIL, BLOCK_D]
    else:
        keep_t, k_t, v_t = keep_n, k, v

    scale_log2 = scale * LOG2E
    end = tokens // BLOCK_M * BLOCK_M if TAIL_M > 0 else tokens
    for start_m in range(0, end, BLOCK_M):
        dk, dv, dkeep, dk_t, dv_t, dkeep_t = _grad_rows(
            *(k, v, keep_n, offs_n, dk, dv, dkeep, k_t, v_t, keep_t, offs_t, dk_t, dv_t, dkeep_t),
            *(grad_ptr, q_ptr, o_ptr, lse_ptr, dq_ptr, stride_gn, stride_qn, stride_on),
            *(start_m, tokens, scale, scale_log2, log2_limit),
            *(HEAD_DIM, BLOCK_D, BLOCK_M, TAIL_M > 0, BLOCK_N, TAIL_N, KEEP_GRAD, PRECISION),
        )
    if TAIL_M > 0 and end < tokens:
        dk, dv, dkeep, dk_t, dv_t, dkeep_t = _grad_rows(
            *(k, v, keep_n, offs_n, dk, dv, dkeep, k_t, v_t, keep_t, offs_t, dk_t, dv_t, dkeep_t),
            *(grad_ptr, q_ptr, o_ptr, lse_ptr, dq_ptr, stride_gn, stride_qn, stride_on),
            *(end, tokens, scale, scale_log2, log2_limit),
            *(HEAD_DIM, BLOCK_D, TAIL_M, False, BLOCK_N, TAIL_N, KEEP_GRAD, PRECISION),
        )

    store_rows(dk_ptr, dk * scale, offs_n, stride_on, mask_n, HEAD_DIM, BLOCK_D)
    store_rows(dv_ptr, dv, offs_n, stride_on, mask_n, HEAD_DIM, BLOCK_D)
    if KEEP_GRAD:
        tl.store(dkeep_ptr + offs_n, dkeep, mask=mask_n)
    if TAIL_N > 0:
        store_rows(dk_ptr, dk_t * scale, offs_t, stride_on, mask_t, HEAD_DIM, BLOCK_D)
        store_rows(dv_ptr, dv_t, offs_t, stride_on, mask_t, HEAD_DIM, BLOCK_D)
        if KEEP_GRAD:
            tl.store(dkeep_ptr + offs_t, dkeep_t, mask=mask_t)


@triton.jit
def _grad_rows(
    k,
    v,
    keep_n,
    offs_n,
    dk,
    dv,
    dkeep,
    k_t,
    v_t,
    keep_t,
    offs_t,
    dk_t,
    dv_t,
    dkeep_t,
    grad_ptr,
    q_ptr,
    o_ptr,
    lse_ptr,
    dq_ptr,
    stride_gn,
    stride_qn,
    stride_on,
    start_m,
    tokens,
    scale,
    scale_log2,
    log2_limit,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TAIL_N: tl.constexpr,
    KEEP_GRAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    offs_m = start_m + tl.arange(0, BLOCK_M)
    mask_m = rows_inside(offs_m, tokens, WHOLE)
    q = load_rows(q_ptr, offs_m, stride_qn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    grad = load_rows(grad_ptr, offs_m, stride_gn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    o = load_rows(o_ptr, offs_m, stride_on, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    lse = tl.load(lse_ptr + offs_m, mask=mask_m, other=0.0) * LOG2E  # [BLOCK_M]
    delta = row_products(grad, o)  # [BLOCK_M]
    dscores, dk, dv, dkeep = grad_tile(
        *(k, v, keep_n, offs_n, dk, dv, dkeep, q, grad, lse, delta, offs_m),
        *(scale_log2, log2_limit, KEEP_GRAD, PRECISION),
    )
    dq = dot(tl.trans(dscores), k, PRECISION)  # [BLOCK_M, BLOCK_D]
    # A branch that is always taken where there is a tail: without it both tiles share registers.
    if TAIL_N > 0 and tokens > BLOCK_N:
        dscores_t, dk_t, dv_t, dkeep_t = grad_tile_by_rows(
            *(k_t, v_t, keep_t, offs_t, dk_t, dv_t, dkeep_t, q, grad, lse, delta, offs_m),
            *(scale_log2, log2_limit, KEEP_GRAD, PRECISION),
        )
        dq += dot(dscores_t, k_t, PRECISION)
    store_rows(dq_ptr, dq * scale, offs_m, stride_on, mask_m, HEAD_DIM, BLOCK_D)
    return dk, dv, dkeep, dk_t, dv_t, dkeep_t
