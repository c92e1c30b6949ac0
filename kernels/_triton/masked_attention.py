"""Masked attention, forward: one program per (image and head, block of query rows).

The softmax runs in base 2. Rows and keys are cut into blocks of BLOCK_M and BLOCK_N; what is left
over goes to tiles of TAIL_M and TAIL_N rows, or, where these are 0, to one more block. A dropped
value is loaded as zeros and a dropped key's logits are replaced, so that nothing in them reaches
another row; the weight that a dropped token gives itself is taken from q_i . k_i at the end.
"""

import triton
import triton.language as tl

from kernels._triton.common import (
    LN2,
    LOG2E,
    dot,
    load_rows,
    row_products,
    rows_inside,
    store_rows,
)
from kernels._triton.masked_attention_tiles import load_keep

# Finite, so that a row that has seen no kept key yet gives no NaN; its terms vanish in the next.
LOWEST: tl.constexpr = tl.constexpr(-3.4028234663852886e38)


@triton.jit(do_not_specialize=["heads", "tokens", "blocks"])
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
    PRECISION: tl.constexpr,
):
    # Blocks of one sequence are neighbours, so that its keys and values are still in the cache.
    block = tl.program_id(0) % blocks
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    image = sequence // heads
    head = sequence % heads
    stride_on = heads * HEAD_DIM
    q_ptr += image * stride_qb + head * stride_qh
    k_ptr += image * stride_kb + head * stride_kh
    v_ptr += image * stride_vb + head * stride_vh
    o_ptr += image * tokens * stride_on + head * HEAD_DIM
    lse_ptr += sequence * tokens
    keep_ptr += image * tokens

    if TAIL_M > 0 and block == blocks - 1:
        _attend(
            *(q_ptr, k_ptr, v_ptr, keep_ptr, o_ptr, lse_ptr),
            *(stride_qn, stride_kn, stride_vn, stride_on, block * BLOCK_M, tokens, scale),
            *(HEAD_DIM, BLOCK_D, TAIL_M, BLOCK_N, TAIL_N, False, PRECISION),
        )
    else:
        _attend(
            *(q_ptr, k_ptr, v_ptr, keep_ptr, o_ptr, lse_ptr),
            *(stride_qn, stride_kn, stride_vn, stride_on, block * BLOCK_M, tokens, scale),
            *(HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, TAIL_N, TAIL_M > 0, PRECISION),
        )


@triton.jit
def _attend(
    q_ptr,
    k_ptr,
    v_ptr,
    keep_ptr,
    o_ptr,
    lse_ptr,
    stride_qn,
    stride_kn,
    stride_vn,
    stride_on,
    start_m,
    tokens,
    scale,
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
    keep_m = load_keep(keep_ptr, offs_m, mask_m)  # [BLOCK_M]

    scale_log2 = scale * LOG2E
    peak = tl.full([BLOCK_M], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    end = tokens // BLOCK_N * BLOCK_N if TAIL_N > 0 else tokens
    for start_n in range(0, end, BLOCK_N):
        peak, total, acc = _attend_tile(
            *(q, peak, total, acc, k_ptr, v_ptr, keep_ptr, stride_kn, stride_vn),
            *(start_n, tokens, scale_log2, HEAD_DIM, BLOCK_D, BLOCK_N, TAIL_N > 0, PRECISION),
        )
    if TAIL_N > 0:
        peak, total, acc = _attend_tile(
            *(q, peak, total, acc, k_ptr, v_ptr, keep_ptr, stride_kn, stride_vn),
            *(end, tokens, scale_log2, HEAD_DIM, BLOCK_D, TAIL_N, False, PRECISION),
        )

    alone = mask_m & (keep_m == 0)  # [BLOCK_M]
    if tl.max(alone.to(tl.int32), axis=0) > 0:
        own_q = load_rows(q_ptr, offs_m, stride_qn, alone, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
        own_k = load_rows(k_ptr, offs_m, stride_kn, alone, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
        own_v = load_rows(v_ptr, offs_m, stride_vn, alone, HEAD_DIM, BLOCK_D)  # [BLOCK_M, BLOCK_D]
        own = tl.where(keep_m, float("-inf"), row_products(own_q, own_k) * scale_log2)  # [BLOCK_M]
        new_peak = tl.maximum(peak, own)
        shrink = tl.exp2(peak - new_peak)
        own = tl.exp2(own - new_peak)
        total = total * shrink + own
        acc = acc * shrink[:, None] + own_v.to(tl.float32) * own[:, None]
        peak = new_peak
    store_rows(o_ptr, acc / total[:, None], offs_m, stride_on, mask_m, HEAD_DIM, BLOCK_D)
    tl.store(lse_ptr + offs_m, (peak + tl.log2(total)) * LN2, mask=mask_m)


@triton.jit
def _attend_tile(
    q,
    peak,
    total,
    acc,
    k_ptr,
    v_ptr,
    keep_ptr,
    stride_kn,
    stride_vn,
    start_n,
    tokens,
    scale_log2,
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
    v = load_rows(v_ptr, offs_n, stride_vn, keep_n, HEAD_DIM, BLOCK_D)  # [BLOCK_N, BLOCK_D]
    scores = dot(q, tl.trans(k), PRECISION) * scale_log2  # [BLOCK_M, BLOCK_N]
    scores = tl.where(keep_n[None, :], scores, float("-inf"))
    new_peak = tl.maximum(peak, tl.max(scores, axis=1))
    shrink = tl.exp2(peak - new_peak)
    weights = tl.exp2(scores - new_peak[:, None])  # [BLOCK_M, BLOCK_N]
    total = total * shrink + tl.sum(weights, axis=1)
    acc = acc * shrink[:, None] + dot(weights.to(v.dtype), v, PRECISION)
    return new_peak, total, acc
