"""Launches the Triton kernels of token selection."""

import torch
from torch import Tensor

from kernels import _backend, _launch
from kernels._gpu import launching
from kernels._launch import rows as launch


def reasons(scores: Tensor, prefix: int) -> list[str]:
    """List every reason why these kernels cannot serve a call; empty when they can."""
    found = _backend.triton_reasons(scores.device)
    if scores.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        found.append(f"the dtype is {scores.dtype}, the kernels take float16, bfloat16 and float32")
    if max(scores.shape[1], prefix) > launch.MAX_TOKENS:
        found.append(
            f"there are {scores.shape[1]} scores and {prefix} prefix tokens per image, the kernels "
            f"take {launch.MAX_TOKENS} of each"
        )
    return found


def select(
    scores: Tensor, threshold: float, min_keep: int, max_keep: int, prefix: int, padded: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Select tokens; arguments and results as in `kernels._eager.token_select`."""
    jit = launching.jit("token_select")
    images, tokens = scores.shape
    mask = scores.new_empty(images, prefix + tokens, dtype=torch.bool)
    indices = scores.new_empty(images * (prefix + max_keep), dtype=torch.int64)
    if images == 0:
        return mask, indices, scores.new_zeros(1, dtype=torch.int32)
    cu_seqlens = scores.new_empty(images + 1, dtype=torch.int32)
    exact = min_keep == max_keep
    counted = not exact and images * tokens > launch.ONE_LAUNCH_SCORES
    counts = cu_seqlens
    itemsize, arch = scores.element_size(), _launch.architecture(scores.device)
    rule = (images, tokens, threshold, min_keep, max_keep)
    with launching.device_of(scores):
        if counted:
            counts = torch.empty_like(cu_seqlens)
            config = launch.row_kernel("token_select.count_kernel", tokens, 1, itemsize, arch)
            jit.count_kernel[(-(-images // config.block_m),)](
                scores,
                counts,
                *scores.stride(),
                *rule,
                BLOCK_B=config.block_m,
                BLOCK_N=config.block_n,
                num_warps=config.num_warps,
                num_stages=config.num_stages,
            )
        config = launch.row_kernel("token_select.select_kernel", tokens, 1, itemsize, arch)
        jit.select_kernel[(images,)](
            scores,
            counts,
            mask.view(torch.uint8),
            indices,
            cu_seqlens,
            *scores.stride(),
            images,
            tokens,
            prefix,
            threshold,
            min_keep,
            max_keep,
            EXACT=exact,
            COUNTED=counted,
            BLOCK_B=launch.COUNTS if counted else config.block_m,
            BLOCK_N=config.block_n,
            **launch.select_constants(tokens, itemsize, scores.dtype == torch.float16, prefix),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
    if not (exact or padded):
        indices = indices[: int(cu_seqlens[-1])]
    return mask, indices, cu_seqlens
