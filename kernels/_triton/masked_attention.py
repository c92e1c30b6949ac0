"""Masked attention: one program per (image and head, block of rows).

The softmax runs in base 2. A dropped key is loaded as zeros, so that nothing in it reaches another
row; the weight that a dropped token gives itself is taken from q_i . k_i, which also starts the
running maximum of every row at a finite value.
"""

import triton
import triton.language as tl

from kernels._triton.common import LN2, LOG2E, dot, load_rows, row_products, store_rows


@triton.jit
def forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    keep_ptr,
    o_ptr,
    lse_ptr,
    stride_qb,
    stride_qh,
    stride_qn,
    stride_kb,
    stride_kh,
    stride_kn,
    stride_vb,
    stride_vh,
    stride_vn,
    stride_ob,
    stride_oh,
    stride_on,
    heads,
    tokens,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    image = sequence // heads
    head = sequence % heads
    q_ptr += image * stride_qb + head * stride_qh
    k_ptr += image * stride_kb + head * stride_kh
    v_ptr += image * stride_vb + head * stride_vh
    o_ptr += image * stride_ob + head * stride_oh
    lse_ptr += sequence * tokens
    keep_ptr += image * tokens

    offs_m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    mask_m = offs_m < tokens
    keep_m = tl.load(keep_ptr + offs_m, mask=mask_m, other=0) != 0  # [BLOCK_M]
    q = load_rows(q_ptr, offs_m, stride_qn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    own_k = load_rows(k_ptr, offs_m, stride_kn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    own_v = load_rows(v_ptr, offs_m, stride_vn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]

    scale_log2 = scale * LOG2E
    peak = row_products(q, own_k) * scale_log2  # [BLOCK_M]
    total = tl.where(keep_m, 0.0, 1.0)  # [BLOCK_M]
    acc = tl.where(keep_m[:, None], 0.0, own_v.to(tl.float32))  # [BLOCK_M, BLOCK_D]
    for start in range(0, tokens, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        keep_n = tl.load(keep_ptr + offs_n, mask=offs_n < tokens, other=0) != 0  # [BLOCK_N]
        k = load_rows(k_ptr, offs_n, stride_kn, keep_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
        v = load_rows(v_ptr, offs_n, stride_vn, keep_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
        scores = dot(q, tl.trans(k)) * scale_log2  # [BLOCK_M, BLOCK_N]
        scores = tl.where(keep_n[None, :], scores, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, axis=1))
        shrink = tl.exp2(peak - new_peak)
        weights = tl.exp2(scores - new_peak[:, None])  # [BLOCK_M, BLOCK_N]
        total = total * shrink + tl.sum(weights, axis=1)
        acc = acc * shrink[:, None] + dot(weights.to(v.dtype), v)
        peak = new_peak

    store_rows(o_ptr, acc / total[:, None], offs_m, stride_on, mask_m, HEAD_DIM, BLOCK_D)
    tl.store(lse_ptr + offs_m, (peak + tl.log2(total)) * LN2, mask=mask_m)


@triton.jit
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
    stride_ob,
    stride_oh,
    stride_on,
    heads,
    tokens,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    image = sequence // heads
    head = sequence % heads
    grad_ptr += image * stride_gb + head * stride_gh
    q_ptr += image * stride_qb + head * stride_qh
    k_ptr += image * stride_kb + head * stride_kh
    v_ptr += image * stride_vb + head * stride_vh
    o_ptr += image * stride_ob + head * stride_oh
    dq_ptr += image * stride_ob + head * stride_oh
    lse_ptr += sequence * tokens
    delta_ptr += sequence * tokens
    keep_ptr += image * tokens

    offs_m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    mask_m = offs_m < tokens
    keep_m = tl.load(keep_ptr + offs_m, mask=mask_m, other=0) != 0  # [BLOCK_M]
    lse = tl.load(lse_ptr + offs_m, mask=mask_m, other=0.0) * LOG2E  # [BLOCK_M]
    q = load_rows(q_ptr, offs_m, stride_qn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    grad = load_rows(grad_ptr, offs_m, stride_gn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    o = load_rows(o_ptr, offs_m, stride_on, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    delta = row_products(grad, o)  # [BLOCK_M]
    tl.store(delta_ptr + offs_m, delta, mask=mask_m)

    scale_log2 = scale * LOG2E
    own_k = load_rows(k_ptr, offs_m, stride_kn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    own_v = load_rows(v_ptr, offs_m, stride_vn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
    own_weight = tl.exp2(row_products(q, own_k) * scale_log2 - lse)  # [BLOCK_M]
    own_dscore = own_weight * (row_products(grad, own_v) - delta)  # [BLOCK_M]
    acc = tl.where(keep_m[:, None], 0.0, own_dscore[:, None] * own_k.to(tl.float32))
    for start in range(0, tokens, BLOCK_N):
        offs_n = start + tl.arange(0, BLOCK_N)
        keep_n = tl.load(keep_ptr + offs_n, mask=offs_n < tokens, other=0) != 0  # [BLOCK_N]
        k = load_rows(k_ptr, offs_n, stride_kn, keep_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
        v = load_rows(v_ptr, offs_n, stride_vn, keep_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
        scores = dot(q, tl.trans(k)) * scale_log2  # [BLOCK_M, BLOCK_N]
        scores = tl.where(keep_n[None, :], scores, float("-inf"))
        weights = tl.exp2(scores - lse[:, None])  # [BLOCK_M, BLOCK_N]
        dscores = weights * (dot(grad, tl.trans(v)) - delta[:, None])  # [BLOCK_M, BLOCK_N]
        acc += dot(dscores.to(k.dtype), k)

    store_rows(dq_ptr, acc * scale, offs_m, stride_on, mask_m, HEAD_DIM, BLOCK_D)


@triton.jit
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
    stride_ob,
    stride_oh,
    stride_on,
    heads,
    tokens,
    scale,
    log2_limit,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    sequence = tl.program_id(0).to(tl.int64)
    image = sequence // heads
    head = sequence % heads
    grad_ptr += image * stride_gb + head * stride_gh
    q_ptr += image * stride_qb + head * stride_qh
    k_ptr += image * stride_kb + head * stride_kh
    v_ptr += image * stride_vb + head * stride_vh
    dk_ptr += image * stride_ob + head * stride_oh
    dv_ptr += image * stride_ob + head * stride_oh
    lse_ptr += sequence * tokens
    delta_ptr += sequence * tokens
    dkeep_ptr += sequence * tokens
    keep_ptr += image * tokens

    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask_n = offs_n < tokens
    keep_n = tl.load(keep_ptr + offs_n, mask=mask_n, other=0) != 0  # [BLOCK_N]
    k = load_rows(k_ptr, offs_n, stride_kn, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    v = load_rows(v_ptr, offs_n, stride_vn, mask_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]

    scale_log2 = scale * LOG2E
    dk = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    dkeep = tl.zeros([BLOCK_N], dtype=tl.float32)
    for start in range(0, tokens, BLOCK_M):
        offs_m = start + tl.arange(0, BLOCK_M)
        mask_m = offs_m < tokens
        q = load_rows(q_ptr, offs_m, stride_qn, mask_m, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
        grad = load_rows(grad_ptr, offs_m, stride_gn, mask_m, HEAD_DIM, BLOCK_D)
        lse = tl.load(lse_ptr + offs_m, mask=mask_m, other=0.0) * LOG2E  # [BLOCK_M]
        delta = tl.load(delta_ptr + offs_m, mask=mask_m, other=0.0)  # [BLOCK_M]
        scores = dot(k, tl.trans(q)) * scale_log2  # [BLOCK_N, BLOCK_M]
        # Of a dropped key the ratio is unbounded: it is clamped, stays float32, enters no product.
        ratios = tl.exp2(tl.minimum(scores - lse[None, :], log2_limit))
        dratios = ratios * (dot(v, tl.trans(grad)) - delta[None, :])  # [BLOCK_N, BLOCK_M]
        diagonal = offs_n[:, None] == offs_m[None, :]
        dkeep += tl.sum(tl.where(diagonal, 0.0, dratios), axis=1)
        seen = keep_n[:, None] | diagonal
        dv += dot(tl.where(seen, ratios, 0.0).to(grad.dtype), grad)
        dk += dot(tl.where(seen, dratios, 0.0).to(q.dtype), q)

    store_rows(dk_ptr, dk * scale, offs_n, stride_on, mask_n, HEAD_DIM, BLOCK_D)
    store_rows(dv_ptr, dv, offs_n, stride_on, mask_n, HEAD_DIM, BLOCK_D)
    tl.store(dkeep_ptr + offs_n, dkeep, mask=mask_n)
