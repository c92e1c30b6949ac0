"""Pooling over the kept tokens only."""

from typing import Any

import torch
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor

from sparse_vit.blocks import masked_softmax

__all__ = ["masked_attention_pool", "masked_pool"]


def masked_pool(x: Tensor, keep: Tensor, pool_type: str) -> Tensor:
    """Averages or maximises over kept tokens.

    Args:
        x: (B, T, C) tokens.
        keep: (B, T) 0/1 with at least one 1 per image.
        pool_type: "avg", "max" or "avgmax".

    Returns:
        (B, C).
    """
    gate = keep.to(x.dtype)[:, :, None]
    # The wide type keeps a count of many tokens exact in half precision.
    count = keep.sum(dim=1, keepdim=True).clamp_min(1.0).to(x.dtype)
    mean = (x * gate).sum(dim=1) / count
    if pool_type == "avg":
        return mean
    # Inferred: a maximum has no useful gradient to a mask, so dropped tokens are just left out.
    peak = x.masked_fill(gate < 0.5, torch.finfo(x.dtype).min).amax(dim=1)
    return peak if pool_type == "max" else 0.5 * (peak + mean)


def masked_attention_pool(pool: Any, x: Tensor, keep: Tensor) -> Tensor:
    """Timm's `AttentionPoolLatent` over kept tokens, through its own submodules.

    Args:
        pool: the pooling module, with a single latent.
        x: (B, T, C) tokens.
        keep: (B, T) 0/1 with at least one 1 per image.

    Returns:
        (B, C).
    """
    batch, tokens, _ = x.shape
    q = pool.q(pool.latent.expand(batch, -1, -1))
    q = q.reshape(batch, pool.latent_len, pool.num_heads, pool.head_dim).transpose(1, 2)
    kv = pool.kv(x).reshape(batch, tokens, 2, pool.num_heads, pool.head_dim)
    k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
    q, k = pool.q_norm(q).to(v.dtype), pool.k_norm(k).to(v.dtype)
    logits = (q @ k.transpose(-2, -1)).squeeze(2) * pool.scale
    weights = masked_softmax(logits, keep).to(v.dtype)
    y = (weights[:, :, None, :] @ v).transpose(1, 2).reshape(batch, 1, -1)
    y = pool.proj_drop(pool.proj(y))
    mlp = getattr(pool, "mlp", None)
    if mlp is not None:
        y = y + mlp(pool.norm(y))
    return y[:, 0]


def check_attention_pool(pool: Any) -> None:
    """Refuses an attention pooling that cannot be masked.

    Raises:
        TypeError: naming the class of the pooling.
    """
    if pool is None:
        return
    if type(pool) is not AttentionPoolLatent:
        raise TypeError(
            f"attn_pool is a {type(pool).__name__}; sparsify supports AttentionPoolLatent only"
        )
    if pool.latent_len != 1 or pool.pos_embed is not None:
        raise ValueError(
            f"attn_pool has latent_len={pool.latent_len} and pos_embed "
            f"{'present' if pool.pos_embed is not None else 'absent'}; expected one latent and no "
            "position embedding, which dropped tokens would shift"
        )
