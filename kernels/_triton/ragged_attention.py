"""Ragged attention, forward: one program per (sequence, head, block of query rows).

The grid covers `max_seqlen` for every sequence; a program whose rows lie beyond the end of its
sequence leaves at once. What whole blocks leave over of a sequence goes to a tile of TAIL rows, if
it fits in there. The softmax runs in base 2.
"""

import triton
import triton.language as tl

from kernels._triton.common import LN2, LOG2E, dot, load_rows, store_rows
from kernels._triton.ragged_attention_tiles import first_row, locate, rows_read, whole_blocks


@triton.jit(do_not_specialize=["heads", "tokens", "blocks"])
def forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    cu_seqlens_ptr,
    rows_ptr,
    o_ptr,
    lse_ptr,
    stride_qr,
    stride_qh,
    stride_kr,
    stride_kh,
    stride_vr,
    stride_vh,
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
    ONE_TILE: tl.constexpr,
    GATHERED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    block, head, start, length = locate(cu_seqlens_ptr, heads, blocks)
    first = block * BLOCK_M
    if first >= length:
        return
    stride_or = heads * HEAD_DIM
    q_ptr = first_row(q_ptr, start, stride_qr, head, stride_qh, GATHERED)
    k_ptr = first_row(k_ptr, start, stride_kr, head, stride_kh, GATHERED)
    v_ptr = first_row(v_ptr, start, stride_vr, head, stride_vh, GATHERED)
    o_ptr += start * stride_or + head * HEAD_DIM
    lse_ptr += head * tokens + start
    rows_ptr += start
    if TAIL_M > 0 and length - first <= TAIL_M:
        _attend(
            *(q_ptr, k_ptr, v_ptr, rows_ptr, o_ptr, lse_ptr),
            *(stride_qr, stride_kr, stride_vr, stride_or, first, length, scale),
            *(HEAD_DIM, BLOCK_D, TAIL_M, BLOCK_N, TAIL_N, ONE_TILE, GATHERED, PRECISION),
        )
        return
    _attend(
        *(q_ptr, k_ptr, v_ptr, rows_ptr, o_ptr, lse_ptr),
        *(stride_qr, stride_kr, stride_vr, stride_or, first, length, scale),
        *(HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, TAIL_N, ONE_TILE, GATHERED, PRECISION),
    )


@triton.jit
def _attend(
    q_ptr,
    k_ptr,
    v_ptr,
    rows_ptr,
    o_ptr,
    lse_ptr,
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
    ONE_TILE: tl.constexpr,
    GATHERED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    offs_m = first + tl.arange(0, ROWS)
    mask_m = offs_m < length
    rows_m = rows_read(rows_ptr, offs_m, mask_m, GATHERED)  # [ROWS]
    q = load_rows(q_ptr, rows_m, stride_qr, mask_m, HEAD_DIM, BLOCK_D)  # [ROWS, BLOCK_D]
    # Every tile holds a key, so that the running maximum is finite from the first one on.
    peak = tl.full([ROWS], float("-inf"), dtype=tl.float32)
    total = tl.zeros([ROWS], dtype=tl.float32)
    acc = tl.zeros([ROWS, BLOCK_D], dtype=tl.float32)
    scale_log2 = scale * LOG2E
    if ONE_TILE:
        peak, total, acc = _attend_tile(
            *(q, peak, total, acc, k_ptr, v_ptr, rows_ptr, stride_kr, stride_vr, 0, length),
            *(scale_log2, HEAD_DIM, BLOCK_D, BLOCK_N, GATHERED, PRECISION),
        )
    else:
        whole = whole_blocks(length, BLOCK_N, TAIL_N)
        for start in range(0, whole, BLOCK_N):
            peak, total, acc = _attend_tile(
                *(q, peak, total, acc, k_ptr, v_ptr, rows_ptr, stride_kr, stride_vr),
                *(start, length, scale_log2, HEAD_DIM, BLOCK_D, BLOCK_N, GATHERED, PRECISION),
            )
        if TAIL_N > 0 and whole < length:
            peak, total, acc = _attend_tile(
                *(q, peak, total, acc, k_ptr, v_ptr, rows_ptr, stride_kr, stride_vr),
                *(whole, length, scale_log2, HEAD_DIM, BLOCK_D, TAIL_N, GATHERED, PRECISION),
            )
    store_rows(o_ptr, acc / total[:, None], offs_m, stride_or, mask_m, HEAD_DIM, BLOCK_D)
    tl.store(lse_ptr + offs_m, (peak + tl.log2(total)) * LN2, mask=mask_m)


@triton.jit
def _attend_tile(
    q,
    peak,
    total,
    acc,
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
    new_peak = tl.maximum(peak, tl.max(scores, axis=1))
    shrink = tl.exp2(peak - new_peak)
    weights = tl.exp2(scores - new_peak[:, None])  # [ROWS, BLOCK_N]
    total = total * shrink + tl.sum(weights, axis=1)
    acc = acc * shrink[:, None] + dot(weights.to(v.dtype), v, PRECISION)
    return new_peak, total, acc
