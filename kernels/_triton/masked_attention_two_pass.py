"""Masked attention, backward in two passes: by blocks of queries, then by blocks of keys.

Blocks and tails are cut as in the forward. The first pass also writes delta for the second.
"""

import triton
import triton.language as tl

from kernels._triton.common import LOG2E, dot, load_rows, row_products, rows_inside, store_rows
from kernels._triton.masked_attention_tiles import grad_tile, load_keep, ratios_and_slopes


@triton.jit(do_not_specialize=["heads", "tokens", "blocks"])
def grad_queries_kernel(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    keep_ptr,
    o_ptr,
    lse_ptr,
    delta_ptr,
    dq_ptr,
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
    blocks,
    scale,
    log2_limit,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TAIL_M: tl.constexpr,
    TAIL_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    block = tl.program_id(0) % blocks
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
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
    lse_ptr += sequence * tokens
    delta_ptr += sequence * tokens
    keep_ptr += image * tokens

    if TAIL_M > 0 and block == blocks - 1:
        _grad_queries(
            *(grad_ptr, q_ptr, k_ptr, v_ptr, keep_ptr, o_ptr, lse_ptr, delta_ptr, dq_ptr),
            *(stride_gn, stride_qn, stride_kn, stride_vn, stride_on, block * BLOCK_M, tokens),
            *(scale, log2_limit, HEAD_DIM, BLOCK_D, TAIL_M, BLOCK_N, TAIL_N, False, PRECISION),
        )
    else:
        _grad_queries(
            *(grad_ptr, q_ptr, k_ptr, v_ptr, keep_ptr, o_ptr, lse_ptr, delta_ptr, dq_ptr),
            *(stride_gn, stride_qn, stride_kn, stride_vn, stride_on, block * BLOCK_M, tokens),
            *(scale, log2_limit, HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, TAIL_N, TAIL_M > 0),
            PRECISION,
        )


@triton.jit
def _grad_queries(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    keep_ptr,
    o_ptr,
    lse_ptr,
    delta_ptr,
    dq_ptr,
    stride_gn,
    stride_qn,
    stride_kn,
    stride_vn,
    stride_on,
    start_m,
    tokens,
    scale,
    log2_limit,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TAIL_N: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    offs_m = start_m + tl.arange(0, BLOCK_M)
    mask_m = rows_inside(offs_m, tokens, WHOLE)
    q = load_rows(q_ptr, offs_m, stride_qn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    grad = load_rows(grad_ptr, offs_m, stride_gn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    o = load_rows(o_ptr, offs_m, stride_on, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    lse = tl.load(lse_ptr + offs_m, mask=mask_m, other=0.0) * LOG2E  # [BLOCK_M]
    delta = row_products(grad, o)  # [BLOCK_M]
    tl.store(delta_ptr + offs_m, delta, mask=mask_m)

    scale_log2 = scale * LOG2E
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    end = tokens // BLOCK_N * BLOCK_N if TAIL_N > 0 else tokens
    for start_n in range(0, end, BLOCK_N):
        dq = _grad_queries_tile(
            *(dq, q, grad, lse, delta, offs_m, k_ptr, v_ptr, keep_ptr, stride_kn, stride_vn),
            *(start_n, tokens, scale_log2, log2_limit),
            *(HEAD_DIM, BLOCK_D, BLOCK_N, TAIL_N > 0, PRECISION),
        )
    if TAIL_N > 0:
        dq = _grad_queries_tile(
            *(dq, q, grad, lse, delta, offs_m, k_ptr, v_ptr, keep_ptr, stride_kn, stride_vn),
            *(end, tokens, scale_log2, log2_limit, HEAD_DIM, BLOCK_D, TAIL_N, False, PRECISION),
        )
    store_rows(dq_ptr, dq * scale, offs_m, stride_on, mask_m, HEAD_DIM, BLOCK_D)


@triton.jit
def _grad_queries_tile(
    dq,
    q,
    grad,
    lse,
    delta,
    offs_m,
    k_ptr,
    v_ptr,
    keep_ptr,
    stride_kn,
    stride_vn,
    start_n,
    tokens,
    scale_log2,
    log2_limit,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    WHOLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    offs_n = start_n + tl.arange(0, BLOCK_N)
    mask_n = rows_inside(offs_n, tokens, WHOLE)
    keep_n = load_keep(keep_ptr, offs_n, mask_n)  # [BLOCK_N]
    k = load_rows(k_ptr, offs_n, stride_kn, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    v = load_rows(v_ptr, offs_n, stride_vn, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    _, dratios = ratios_and_slopes(
        q, k, grad, v, lse[:, None], delta[:, None], scale_log2, log2_limit, PRECISION
    )  # [BLOCK_M, BLOCK_N]
    seen = keep_n[None, :] | (offs_m[:, None] == offs_n[None, :])
    return dq + dot(tl.where(seen, dratios, 0.0).to(k.dtype), k, PRECISION)


@triton.jit(do_not_specialize=["heads", "tokens", "blocks"])
def grad_keys_kernel(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    keep_ptr,
    lse_ptr,
    delta_ptr,
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
    blocks,
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
    block = tl.program_id(0) % blocks
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    image = sequence // heads
    head = sequence % heads
    stride_on = heads * HEAD_DIM
    rows = image * tokens * stride_on + head * HEAD_DIM
    grad_ptr += image * stride_gb + head * stride_gh
    q_ptr += image * stride_qb + head * stride_qh
    k_ptr += image * stride_kb + head * stride_kh
    v_ptr += image * stride_vb + head * stride_vh
    dk_ptr += rows
    dv_ptr += rows
    lse_ptr += sequence * tokens
    delta_ptr += sequence * tokens
    dkeep_ptr += sequence * tokens
    keep_ptr += image * tokens

    if TAIL_N > 0 and block == blocks - 1:
        _grad_keys(
            *(grad_ptr, q_ptr, k_ptr, v_ptr, keep_ptr, lse_ptr, delta_ptr),
            *(dk_ptr, dv_ptr, dkeep_ptr, stride_gn, stride_qn, stride_kn, stride_vn, stride_on),
            *(block * BLOCK_N, tokens, scale, log2_limit),
            *(HEAD_DIM, BLOCK_D, BLOCK_M, TAIL_N, TAIL_M, False, KEEP_GRAD, PRECISION),
        )
    else:
        _grad_keys(
            *(grad_ptr, q_ptr, k_ptr, v_ptr, keep_ptr, lse_ptr, delta_ptr),
            *(dk_ptr, dv_ptr, dkeep_ptr, stride_gn, stride_qn, stride_kn, stride_vn, stride_on),
            *(block * BLOCK_N, tokens, scale, log2_limit),
            *(HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, TAIL_M, TAIL_N > 0, KEEP_GRAD, PRECISION),
        )


@triton.jit
def _grad_keys(
    grad_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    keep_ptr,
    lse_ptr,
    delta_ptr,
    dk_ptr,
    dv_ptr,
    dkeep_ptr,
    stride_gn,
    stride_qn,
    stride_kn,
    stride_vn,
    stride_on,
    start_n,
    tokens,
    scale,
    log2_limit,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TAIL_M: tl.constexpr,
    WHOLE: tl.constexpr,
    KEEP_GRAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    offs_n = start_n + tl.arange(0, BLOCK_N)
    mask_n = rows_inside(offs_n, tokens, WHOLE)
    keep_n = load_keep(keep_ptr, offs_n, mask_n)  # [BLOCK_N]
    k = load_rows(k_ptr, offs_n, stride_kn, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    v = load_rows(v_ptr, offs_n, stride_vn, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]

    scale_log2 = scale * LOG2E
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dkeep = tl.zeros([BLOCK_N], tl.float32)
    end = tokens // BLOCK_M * BLOCK_M if TAIL_M > 0 else tokens
    for start_m in range(0, end, BLOCK_M):
        dk, dv, dkeep = _grad_keys_tile(
            *(k, v, keep_n, offs_n, dk, dv, dkeep, grad_ptr, q_ptr, lse_ptr, delta_ptr),
            *(stride_gn, stride_qn, start_m, tokens, scale_log2, log2_limit),
            *(HEAD_DIM, BLOCK_D, BLOCK_M, TAIL_M > 0, KEEP_GRAD, PRECISION),
        )
    if TAIL_M > 0:
        dk, dv, dkeep = _grad_keys_tile(
            *(k, v, keep_n, offs_n, dk, dv, dkeep, grad_ptr, q_ptr, lse_ptr, delta_ptr),
            *(stride_gn, stride_qn, end, tokens, scale_log2, log2_limit),
            *(HEAD_DIM, BLOCK_D, TAIL_M, False, KEEP_GRAD, PRECISION),
        )
    store_rows(dk_ptr, dk * scale, offs_n, stride_on, mask_n, HEAD_DIM, BLOCK_D)
    store_rows(dv_ptr, dv, offs_n, stride_on, mask_n, HEAD_DIM, BLOCK_D)
    if KEEP_GRAD:
        tl.store(dkeep_ptr + offs_n, dkeep, mask=mask_n)


@triton.jit
def _grad_keys_tile(
    k,
    v,
    keep_n,
    offs_n,
    dk,
    dv,
    dkeep,
    grad_ptr,
    q_ptr,
    lse_ptr,
    delta_ptr,
    stride_gn,
    stride_qn,
    start_m,
    tokens,
    scale_log2,
    log2_limit,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    WHOLE: tl.constexpr,
    KEEP_GRAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    offs_m = start_m + tl.arange(0, BLOCK_M)
    mask_m = rows_inside(offs_m, tokens, WHOLE)
    q = load_rows(q_ptr, offs_m, stride_qn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    grad = load_rows(grad_ptr, offs_m, stride_gn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    lse = tl.load(lse_ptr + offs_m, mask=mask_m, other=0.0) * LOG2E  # [BLOCK_M]
    delta = tl.load(delta_ptr + offs_m, mask=mask_m, other=0.0)  # [BLOCK_M]
    _, dk, dv, dkeep = grad_tile(
        *(k, v, keep_n, offs_n, dk, dv, dkeep, q, grad, lse, delta, offs_m),
        *(scale_log2, log2_limit, KEEP_GRAD, PRECISION),
    )
    return dk, dv, dkeep
