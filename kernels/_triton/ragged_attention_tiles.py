"""What the kernels of ragged attention share: where a program works, which rows it reads."""

import triton
import triton.language as tl

from kernels._triton.common import dot, store_rows


@triton.jit
def locate(cu_seqlens_ptr, heads, blocks):
    # Blocks of one sequence and head are neighbours: its keys and values are still in the cache.
    program = tl.program_id(0)
    image = program // blocks // heads
    start = tl.load(cu_seqlens_ptr + image)
    length = tl.load(cu_seqlens_ptr + image + 1) - start
    return program % blocks, (program // blocks % heads).to(tl.int64), start.to(tl.int64), length


@triton.jit
def first_row(ptr, start, stride_r, head, stride_h, GATHERED: tl.constexpr):
    # Under a row index rows are counted from the first of the tensor.
    if GATHERED:
        return ptr + head * stride_h
    else:
        return ptr + start * stride_r + head * stride_h


@triton.jit
def rows_read(rows_ptr, offs_n, mask_n, GATHERED: tl.constexpr):
    if GATHERED:
        return tl.load(rows_ptr + offs_n, mask=mask_n, other=0).to(tl.int64)
    else:
        return offs_n.to(tl.int64)


@triton.jit
def whole_blocks(length, BLOCK: tl.constexpr, TAIL: tl.constexpr):
    # Where the last tile of BLOCK rows ends; what is left is nothing or fits a tile of TAIL rows.
    rest = length % BLOCK
    return tl.where(rest <= TAIL, length - rest, length)


@triton.jit
def grad_tile(dk, dv, k, v, mask_n, q, grad, lse, delta, scale_log2, PRECISION: tl.constexpr):
    scores = dot(k, tl.trans(q), PRECISION) * scale_log2  # [BLOCK_N, ROWS]
    scores = tl.where(mask_n[:, None], scores, float("-inf"))
    weights = tl.exp2(scores - lse[None, :])  # [BLOCK_N, ROWS]
    dv += dot(weights.to(grad.dtype), grad, PRECISION)
    slopes = dot(v, tl.trans(grad), PRECISION) - delta[None, :]  # [BLOCK_N, ROWS]
    dscores = (weights * slopes).to(q.dtype)
    dk += dot(dscores, q, PRECISION)
    return dk, dv, dscores


@triton.jit
def clear(
    ptr,
    end,
    images,
    heads,
    tokens,
    blocks,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
):
    # The programs of one head share out what lies beyond the last sequence.
    program = tl.program_id(0)
    share = program // blocks // heads * blocks + program % blocks
    head = program // blocks % heads
    zeros = tl.zeros([ROWS, BLOCK_D], dtype=tl.float32)
    for first in range(end + share * ROWS, tokens, images * blocks * ROWS):
        offs_t = (first + tl.arange(0, ROWS)).to(tl.int64)
        mask_t = offs_t < tokens
        row_ptr = ptr + head * HEAD_DIM
        store_rows(row_ptr, zeros, offs_t, heads * HEAD_DIM, mask_t, HEAD_DIM, BLOCK_D)
