"""Features of inner blocks on the full grid, as timm gives them, though tokens are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from timm.models._features import feature_take_indices
from torch import Tensor

from sparse_vit._kernels import scatter_rows

if TYPE_CHECKING:
    from sparse_vit.model import SparseVisionTransformer

__all__ = ["forward_intermediates", "scatter_tokens", "spread_tokens", "to_layout"]


def scatter_tokens(tokens: Tensor, indices: Tensor, num_patches: int, fill: float = 0.0) -> Tensor:
    """Puts kept tokens back to their places.

    Args:
        tokens: (B, k, C) kept patch tokens, without prefix tokens.
        indices: (B, k) int64 original places.
        num_patches: N.
        fill: value at the places of dropped tokens.

    Returns:
        (B, N, C).

    Raises:
        ValueError: if tokens and indices do not belong together.
    """
    if tokens.ndim != 3 or tokens.shape[:2] != indices.shape:
        raise ValueError(
            f"tokens {tuple(tokens.shape)} and indices {tuple(indices.shape)} do not match; "
            "expected (B, k, C) without prefix tokens and (B, k)"
        )
    batch, _, dim = tokens.shape
    starts = torch.arange(batch, device=tokens.device)[:, None] * num_patches
    rows = (indices + starts).flatten()
    full = scatter_rows(tokens.flatten(0, 1), rows, batch * num_patches, fill)
    return full.view(batch, num_patches, dim)


def spread_tokens(tokens: Tensor, groups: Tensor) -> Tensor:
    """Gives every original patch the token it went into.

    Args:
        tokens: (B, n, C) patch tokens, without prefix tokens.
        groups: (B, N) int64, `groups` of the last decision.

    Returns:
        (B, N, C).
    """
    return tokens.gather(1, groups[:, :, None].expand(-1, -1, tokens.shape[-1]))


def to_layout(tokens: Tensor, grid: tuple[int, int], layout: str) -> Tensor:
    """Reshapes (B, N, C) to (B, C, H', W') for "NCHW" or leaves it for "NLC".

    Raises:
        ValueError: for another layout.
    """
    if layout == "NLC":
        return tokens
    if layout != "NCHW":
        raise ValueError(f"layout {layout!r} is unknown; expected 'NCHW' or 'NLC'")
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)


def forward_intermediates(
    model: SparseVisionTransformer,
    x: Tensor,
    indices: int | list[int] | None,
    return_prefix_tokens: bool,
    norm: bool,
    stop_early: bool,
    output_fmt: str,
    intermediates_only: bool,
    output_dict: bool,
) -> Any:
    """Timm's `forward_intermediates` with dropped tokens as zeros on the full grid.

    Patches that were fused or merged have the token they went into.
    """
    take, last = feature_take_indices(len(model.blocks), indices)
    encoding = model._encode(x, taps=take, last_block=last if stop_early else None)
    prefix, (rows, columns) = model.num_prefix_tokens, encoding.grid
    grids, prefixes = [], []
    for tap in encoding.taps:
        tokens = model.norm(tap.tokens) if norm else tap.tokens
        prefixes.append(tokens[:, :prefix])
        patches = tokens[:, prefix:]
        if tap.groups is not None:
            patches = spread_tokens(patches, tap.groups)
        elif tap.indices is not None:
            patches = scatter_tokens(patches, tap.indices, rows * columns)
        grids.append(to_layout(patches, encoding.grid, output_fmt))
    if output_dict:
        result: dict[str, Any] = {"image_intermediates": grids}
        if prefix and return_prefix_tokens:
            result["image_intermediates_prefix"] = prefixes
        if not intermediates_only:
            result["image_features"] = encoding.tokens
        return result
    with_prefix = prefix and return_prefix_tokens
    intermediates = list(zip(grids, prefixes, strict=True)) if with_prefix else grids
    return intermediates if intermediates_only else (encoding.tokens, intermediates)
