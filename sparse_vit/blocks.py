"""Timm's transformer block with a keep mask, through timm's own submodules.

Calling the submodules one by one keeps LayerScale, query/key norms, dropouts and drop paths of the
given model in force, with no class swapped and nothing patched.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.models.vision_transformer import Attention, Block  # type: ignore[attr-defined]
from torch import Tensor, nn

from sparse_vit._kernels import has_native_attention, masked_attention, ragged_attention

__all__ = [
    "add_branch",
    "block_forward",
    "check_block",
    "class_logits",
    "full_attention",
    "join_heads",
    "masked_softmax",
    "prefix_forward",
    "project_heads",
]

TOKENWISE_MLPS = (Mlp, GluMlp, SwiGLU)
# Measured on two cores with AVX-512: 10 to 40 % faster up to here, slower from 128 on.
FEW_TOKENS = 96


def check_block(name: str, block: Any) -> None:
    """Refuses a block that the masked forward cannot honour.

    Args:
        name: where the block is, for the message.
        block: the block.

    Raises:
        TypeError: naming the class of a block, attention or MLP other than timm's standard ones.
        ValueError: for attention dropout, which masked attention does not have.
    """
    if type(block) is not Block:
        raise TypeError(
            f"{name} is a {type(block).__name__}; sparsify supports timm's standard Block only "
            "(pre-norm, one attention then one MLP)"
        )
    if type(block.attn) is not Attention:
        raise TypeError(
            f"{name}.attn is a {type(block.attn).__name__}; sparsify supports timm's standard "
            "Attention with fused qkv only"
        )
    if type(block.mlp) not in TOKENWISE_MLPS:
        raise TypeError(
            f"{name}.mlp is a {type(block.mlp).__name__}; sparsify supports MLPs that treat every "
            f"token alone: {', '.join(mlp.__name__ for mlp in TOKENWISE_MLPS)}"
        )
    if block.attn.attn_drop.p > 0.0:
        raise ValueError(
            f"{name}.attn.attn_drop has p={block.attn.attn_drop.p}; masked attention has no "
            "dropout, build the model with attn_drop_rate=0"
        )


def block_forward(
    block: Any, x: Tensor, keep: Tensor | None, class_attention: bool
) -> tuple[Tensor, Tensor | None]:
    """Runs a block, under a keep mask if there is one.

    Args:
        block: timm's Block.
        x: (B, T, C) tokens.
        keep: (B, T) 0/1, 1 for prefix tokens; None when all tokens are kept.
        class_attention: whether to return the attention of the first token.

    Returns:
        (B, T, C) tokens, and (B, T) attention of the first token to every token averaged over the
        heads (zero where dropped), or None.
    """
    if keep is None and not class_attention and not _infers_on_cpu(x):
        return block(x), None
    y, attention = _attention(block.attn, block.norm1(x), keep, class_attention)
    x = add_branch(block.drop_path1(block.ls1(y)), x)
    return add_branch(block.drop_path2(block.ls2(block.mlp(block.norm2(x)))), x), attention


def prefix_forward(block: Any, x: Tensor, prefix: int) -> Tensor:
    """Runs a block for its first tokens only, for a head that reads nothing else.

    Args:
        block: timm's Block.
        x: (B, T, C) tokens.
        prefix: number P of leading tokens wanted.

    Returns:
        (B, P, C), the first rows of what `block_forward` returns.
    """
    y, _ = _attention(block.attn, block.norm1(x), None, False, prefix)
    x = x[:, :prefix] + block.drop_path1(block.ls1(y))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def add_branch(branch: Tensor, x: Tensor) -> Tensor:
    """x + branch, in the memory of the branch where nothing else needs it."""
    if torch.is_grad_enabled() or branch.dtype != x.dtype:
        return x + branch
    return branch.add_(x)


def _attention(
    attn: Any, x: Tensor, keep: Tensor | None, class_attention: bool, prefix: int | None = None
) -> tuple[Tensor, Tensor | None]:
    q, k, v = project_heads(attn, x)
    if prefix is not None:
        q, x = q[:, :, :prefix], x[:, :prefix]
    if keep is None:
        y = full_attention(q, k, v, attn.scale)
    else:
        y = masked_attention(q, k, v, keep, scale=attn.scale)
    y = join_heads(attn, y, x)
    if not class_attention:
        return y, None
    return y, masked_softmax(class_logits(attn, q, k), keep).mean(dim=1)


def project_heads(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, (B, H, T, D) each, of tokens (B, T, C)."""
    batch, tokens, _ = x.shape
    q, k, v = attn.qkv(x).view(batch, tokens, 3, attn.num_heads, -1).unbind(2)
    # Under autocast a norm returns float32 while v stays in the lower precision.
    q, k = attn.q_norm(q).to(v.dtype), attn.k_norm(k).to(v.dtype)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def join_heads(attn: Any, y: Tensor, x: Tensor) -> Tensor:
    """The output (B, S, C) of attention from its heads (B, H, S, D) and its input (B, S, C)."""
    y = y.transpose(1, 2).reshape(*x.shape[:2], -1)
    y = getattr(attn, "norm", nn.Identity())(y)
    gate = getattr(attn, "gate", None)
    if gate is not None:
        y = y * gate(x).sigmoid()
    return attn.proj_drop(attn.proj(y))


def class_logits(attn: Any, q: Tensor, k: Tensor) -> Tensor:
    """Logits (B, H, T) of the first token to every token."""
    return (q[:, :, :1] @ k.transpose(-2, -1)).squeeze(2) * attn.scale


def full_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v for q (B, H, S, D) and k, v (B, H, T, D)."""
    if not _infers_on_cpu(q):
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    if q.shape == k.shape:
        batch, heads, tokens, dim = q.shape
        queries, keys, values = (t.transpose(1, 2).flatten(0, 1) for t in (q, k, v))
        if has_native_attention(queries, keys, values):
            cu_seqlens = torch.arange(0, batch * tokens + 1, tokens, dtype=torch.int32)
            y = ragged_attention(queries, keys, values, cu_seqlens, tokens, scale=scale)
            return y.view(batch, tokens, heads, dim).transpose(1, 2)
    attend = _matrix_attention if k.shape[-2] <= FEW_TOKENS else F.scaled_dot_product_attention
    return attend(q, k, v, scale=scale)


def _infers_on_cpu(x: Tensor) -> bool:
    """Whether a path for the processor may replace torch's, which trains, compiles and exports."""
    return (
        x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    )


def _matrix_attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """The same, written out: beats the fused attention of a CPU on few tokens, which pads tiles."""
    batch, heads, queries, dim = q.shape
    q, k, v = (t.reshape(batch * heads, -1, dim) for t in (q, k, v))
    logits = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=scale)
    weights = logits.softmax(dim=-1, dtype=torch.promote_types(q.dtype, torch.float32))
    return torch.bmm(weights.to(v.dtype), v).view(batch, heads, queries, dim)


def masked_softmax(logits: Tensor, keep: Tensor | None) -> Tensor:
    """Softmax over kept tokens, with the gradient of the mask.

    Args:
        logits: (B, H, T).
        keep: (B, T) 0/1 with at least one 1; None for all.

    Returns:
        (B, H, T) float32 (float64 for float64 logits), zero where dropped.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if keep is None:
        return logits.softmax(dim=-1)
    gate = keep[:, None, :].to(logits.dtype)
    top = logits.masked_fill(gate < 0.5, -torch.inf).amax(dim=-1, keepdim=True).detach()
    # Bounded so that a dropped token far ahead of the kept ones gives no inf * 0.
    weights = (logits - top).clamp(max=13.8).exp() * gate
    return weights / weights.sum(dim=-1, keepdim=True)
