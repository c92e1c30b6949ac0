"""What the kernels share."""

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def load_rows(ptr, offs_n, stride_n, mask_n, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    offs_d = tl.arange(0, BLOCK_D)
    mask = mask_n[:, None]
    if HEAD_DIM < BLOCK_D:
        mask = mask & (offs_d < HEAD_DIM)[None, :]
    return tl.load(ptr + offs_n[:, None] * stride_n + offs_d[None, :], mask=mask, other=0.0)


@triton.jit
def store_rows(ptr, rows, offs_n, stride_n, mask_n, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    offs_d = tl.arange(0, BLOCK_D)
    mask = mask_n[:, None]
    if HEAD_DIM < BLOCK_D:
        mask = mask & (offs_d < HEAD_DIM)[None, :]
    values = rows.to(ptr.dtype.element_ty)
    tl.store(ptr + offs_n[:, None] * stride_n + offs_d[None, :], values, mask=mask)


@triton.jit
def rows_inside(offs_n, tokens, WHOLE: tl.constexpr):
    # A constant mask, which the compiler drops, where the tile is known to lie inside.
    if WHOLE:
        return tl.full(offs_n.shape, True, tl.int1)
    return offs_n < tokens


@triton.jit
def row_products(a, b):
    return tl.sum(a.to(tl.float32) * b.to(tl.float32), axis=1)


INTERPRETED: tl.constexpr = tl.constexpr(not isinstance(row_products, triton.JITFunction))


@triton.jit
def dot(a, b, PRECISION: tl.constexpr = "ieee"):
    # The interpreter multiplies the bit patterns of bfloat16.
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)
