"""The operators of `kernels` that a forward calls, in operators that every runtime knows.

An exported program names them `sparse_vit_kernels.*`, which only a process with this package can
run. Decomposing the program replaces them by the functions below; the model stays as it is.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparse_vit._kernels import operators

__all__ = ["decompositions"]


def decompositions() -> dict[Any, Callable[..., Any]]:
    """What `ExportedProgram.run_decompositions` needs to make a program plain."""
    select, gather = operators("select_tokens", "gather_rows")
    return {select: _select, gather: _gather}


def _select(
    scores: Tensor,
    threshold: float,
    min_keep: int,
    max_keep: int,
    prefix: int,
    padded: bool,
    impl: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Top-k selection without scattering: equal scores go to the lower index, NaN comes last."""
    if min_keep != max_keep:
        raise ValueError("a selection by threshold has no fixed number of tokens to export")
    images, tokens = scores.shape
    kept, length = prefix + max_keep, prefix + tokens
    ranked = scores.masked_fill(scores.isnan(), -torch.inf)
    order = ranked.sort(dim=1, descending=True, stable=True).indices
    best = order[:, :max_keep].sort(dim=1).values
    # the place of a token in the order of the scores
    mask = order.sort(dim=1).indices < max_keep
    if prefix:
        front = torch.arange(prefix, device=scores.device).expand(images, prefix)
        best = torch.cat((front, best + prefix), dim=1)
        mask = torch.cat((front >= 0, mask), dim=1)
    starts = torch.arange(images, device=scores.device)[:, None] * length
    cu_seqlens = torch.arange(images + 1, dtype=torch.int32, device=scores.device) * kept
    return mask, (best + starts).flatten(), cu_seqlens


def _gather(x: Tensor, indices: Tensor, impl: str | None) -> Tensor:
    return x.index_select(0, indices)
