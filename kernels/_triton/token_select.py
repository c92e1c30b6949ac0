"""Token selection: one program per image, its scores in registers.

A score becomes an unsigned integer of the same order, and the last key to keep is found digit by
digit from the top: its digit is the largest one that enough keys reach. Of the scores equal to it
the first ones are kept, so ties go to the lower index.
"""

import triton
import triton.language as tl


@triton.jit
def _reached(scores, valid, threshold):
    # A NaN reaches what -inf reaches.
    ranked = tl.where(scores == scores, scores, float("-inf"))
    return ((ranked >= threshold) & valid).to(tl.int32)


@triton.jit
def _kept_counts(
    scores_ptr,
    stride_sb,
    stride_sn,
    first,
    images,
    tokens,
    threshold,
    min_keep,
    max_keep,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    offs_b = first + tl.arange(0, BLOCK_B)
    offs_n = tl.arange(0, BLOCK_N)
    valid = (offs_b < images)[:, None] & (offs_n < tokens)[None, :]  # [BLOCK_B, BLOCK_N]
    places = offs_b.to(tl.int64)[:, None] * stride_sb + offs_n[None, :] * stride_sn
    scores = tl.load(scores_ptr + places, mask=valid, other=0.0).to(tl.float32)
    counts = tl.sum(_reached(scores, valid, threshold), axis=1)  # [BLOCK_B]
    counts = tl.minimum(tl.maximum(counts, min_keep), max_keep)
    return tl.where(offs_b < images, counts, 0)


@triton.jit(do_not_specialize=["images", "min_keep", "max_keep"])
def count_kernel(
    scores_ptr,
    cu_counts_ptr,
    stride_sb,
    stride_sn,
    images,
    tokens,
    threshold,
    min_keep,
    max_keep,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    first = tl.program_id(0) * BLOCK_B
    counts = _kept_counts(
        scores_ptr,
        stride_sb,
        stride_sn,
        first,
        images,
        tokens,
        threshold,
        min_keep,
        max_keep,
        BLOCK_B,
        BLOCK_N,
    )  # [BLOCK_B]
    offs_b = first + tl.arange(0, BLOCK_B)
    tl.store(cu_counts_ptr + offs_b, counts, mask=offs_b < images)


@triton.jit(do_not_specialize=["images", "min_keep", "max_keep"])
def select_kernel(
    scores_ptr,
    cu_counts_ptr,
    mask_ptr,
    indices_ptr,
    cu_seqlens_ptr,
    stride_sb,
    stride_sn,
    images,
    tokens,
    prefix,
    threshold,
    min_keep,
    max_keep,
    EXACT: tl.constexpr,
    COUNTED: tl.constexpr,
    LOW_BITS: tl.constexpr,
    DIGIT_BITS: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    image = tl.program_id(0)
    length = prefix + tokens
    offs_n = tl.arange(0, BLOCK_N)
    valid = offs_n < tokens
    scores_row = scores_ptr + image.to(tl.int64) * stride_sb
    scores = tl.load(scores_row + offs_n * stride_sn, mask=valid, other=0.0)
    scores = scores.to(tl.float32)  # [BLOCK_N]

    if EXACT:
        count = max_keep
        before = image * (prefix + max_keep)
    else:
        count = tl.sum(_reached(scores, valid, threshold), axis=0)
        count = tl.minimum(tl.maximum(count, min_keep), max_keep)
        # Every program sums over the batch itself: no program waits for another one.
        before = image * prefix
        total = images * prefix
        for first in range(0, images, BLOCK_B):
            offs_b = first + tl.arange(0, BLOCK_B)
            if COUNTED:
                counts = tl.load(cu_counts_ptr + offs_b, mask=offs_b < images, other=0)
            else:
                counts = _kept_counts(
                    scores_ptr,
                    stride_sb,
                    stride_sn,
                    first,
                    images,
                    tokens,
                    threshold,
                    min_keep,
                    max_keep,
                    BLOCK_B,
                    BLOCK_N,
                )  # [BLOCK_B]
            before += tl.sum(tl.where(offs_b < image, counts, 0), axis=0)
            total += tl.sum(counts, axis=0)

    ranked = tl.where(scores == scores, scores, float("-inf"))
    bits = tl.where(ranked == 0.0, 0.0, ranked).to(tl.uint32, bitcast=True)
    keys = tl.where(bits >> 31 != 0, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    keys = tl.where(valid, keys >> LOW_BITS, 0)  # [BLOCK_N]
    last = tl.zeros([1], dtype=tl.uint32)
    digits = tl.arange(0, 1 << DIGIT_BITS).to(tl.uint32)
    for step in tl.static_range((32 - LOW_BITS) // DIGIT_BITS):
        # [1 << DIGIT_BITS]
        candidates = last | (digits << (32 - LOW_BITS - DIGIT_BITS * (step + 1)))
        reached = (keys[:, None] >= candidates[None, :]).to(tl.int32)
        enough = tl.sum(reached, axis=0) >= count
        last = tl.max(tl.where(enough, candidates, 0), axis=0, keep_dims=True)
    above = keys > last
    equal = (keys == last) & valid
    ties = count - tl.sum(above.to(tl.int32), axis=0)
    kept = above | (equal & (tl.cumsum(equal.to(tl.int32), axis=0) <= ties))  # [BLOCK_N]

    offs_p = tl.arange(0, BLOCK_P)
    in_prefix = offs_p < prefix
    start = image.to(tl.int64) * length
    tl.store(mask_ptr + start + offs_p, tl.full([BLOCK_P], 1, tl.uint8), mask=in_prefix)
    tl.store(mask_ptr + start + prefix + offs_n, kept.to(tl.uint8), mask=valid)
    tl.store(indices_ptr + before + offs_p, start + offs_p, mask=in_prefix)
    rank = tl.cumsum(kept.to(tl.int32), axis=0) - 1
    rows = start + prefix + offs_n  # [BLOCK_N]
    tl.store(indices_ptr + before + prefix + rank, rows, mask=kept)
    if not EXACT:
        # Dropped rows fill the capacity: of every image those before it drop length - kept.
        dropped = valid & (kept == 0)
        place = total + image * length - before + tl.cumsum(dropped.to(tl.int32), axis=0) - 1
        capacity = images * (prefix + max_keep)
        tl.store(indices_ptr + place, rows, mask=dropped & (place < capacity))
    tl.store(cu_seqlens_ptr + image, before, mask=image == 0)
    tl.store(cu_seqlens_ptr + image + 1, before + prefix + count)
