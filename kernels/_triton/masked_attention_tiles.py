"""What the kernels of masked attention share: the mask, and the gradient of one tile.

The backward recomputes the weights from L as `R = min(e^{S - L}, 1e6)` for every key, dropped ones
included: `R (dP - delta)` is the gradient of the logits where the key is seen and, summed over the
rows except the diagonal, that of the mask everywhere.
"""

import triton
import triton.language as tl

from kernels._triton.common import dot


@triton.jit
def load_keep(keep_ptr, offs_n, mask_n):
    return tl.load(keep_ptr + offs_n, mask=mask_n, other=0).to(tl.float32) > 0.5


@triton.jit
def ratios_and_slopes(
    a, b, grad_a, grad_b, lse, delta, scale_log2, log2_limit, PRECISION: tl.constexpr
):
    # Of a dropped key the ratio is unbounded: it is clamped, stays float32, enters no product.
    scores = dot(a, tl.trans(b), PRECISION) * scale_log2
    ratios = tl.exp2(tl.minimum(scores - lse, log2_limit))
    return ratios, ratios * (dot(grad_a, tl.trans(grad_b), PRECISION) - delta)


@triton.jit
def grad_tile(
    k,
    v,
    keep_n,
    offs_n,
    dk,
    dv,
    dkeep,
    q,
    grad,
    lse,
    delta,
    offs_m,
    scale_log2,
    log2_limit,
    KEEP_GRAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    ratios, dratios = ratios_and_slopes(
        k, q, v, grad, lse[None, :], delta[None, :], scale_log2, log2_limit, PRECISION
    )  # [BLOCK_N, BLOCK_M]
    diagonal = offs_n[:, None] == offs_m[None, :]
    seen = keep_n[:, None] | diagonal
    if KEEP_GRAD:
        dkeep += tl.sum(tl.where(diagonal, 0.0, dratios), axis=1)
    dv += dot(tl.where(seen, ratios, 0.0).to(grad.dtype), grad, PRECISION)
    dscores = tl.where(seen, dratios, 0.0).to(q.dtype)
    dk += dot(dscores, q, PRECISION)
    return dscores, dk, dv, dkeep


@triton.jit
def grad_tile_by_rows(
    k,
    v,
    keep_n,
    offs_n,
    dk,
    dv,
    dkeep,
    q,
    grad,
    lse,
    delta,
    offs_m,
    scale_log2,
    log2_limit,
    KEEP_GRAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    # The transpose of grad_tile, for few keys: the long side of the tile meets the matrix units.
    ratios, dratios = ratios_and_slopes(
        q, k, grad, v, lse[:, None], delta[:, None], scale_log2, log2_limit, PRECISION
    )  # [BLOCK_M, BLOCK_N]
    diagonal = offs_m[:, None] == offs_n[None, :]
    seen = keep_n[None, :] | diagonal
    if KEEP_GRAD:
        dkeep += tl.sum(tl.where(diagonal, 0.0, dratios), axis=0)
    weights = tl.where(seen, ratios, 0.0).to(grad.dtype)
    dv += dot(tl.trans(weights), grad, PRECISION)
    dscores = tl.where(seen, dratios, 0.0).to(q.dtype)
    dk += dot(tl.trans(dscores), q, PRECISION)
    return dscores, dk, dv, dkeep
