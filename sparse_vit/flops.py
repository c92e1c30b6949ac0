"""How many floating point operations a model needs for an image.

Counted are the products of matrices, two operations for every multiply-add: patch embedding, linear
layers, attention, and what deciding and reducing multiply. Norms, activations and softmax are not,
as usual in the field; papers that count multiply-adds print half of this.
"""

from collections.abc import Sequence
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sparse_vit.engine.block import check_blocks
from sparse_vit.model import SparseVisionTransformer
from sparse_vit.selectors import KeepPredictor, TokenSelector

__all__ = ["flops"]


def flops(model: Any, *, counts: Sequence[int] | None = None, pooled: bool = False) -> int:
    """Counts the operations of an inference on one image of the model's own size.

    Args:
        model: a sparse model, or timm's VisionTransformer.
        counts: patch tokens left after each stage; the model's own schedule by default. The cost is
            not linear in them: for an adaptive schedule take the mean over images of their costs.
        pooled: whether the last block runs for the prefix tokens alone where the head reads nothing
            else, as `optimize` does it; papers count the whole block.

    Returns:
        Floating point operations. Selectors of one's own count for nothing.

    Raises:
        TypeError: for a model or a block whose operations are not known, by class name.
        ValueError: for a model without an image size of its own, or a wrong number of counts.
    """
    if not isinstance(model, VisionTransformer):
        raise TypeError(
            f"cannot count the operations of a {type(model).__name__}; pass a sparse model or "
            "timm's VisionTransformer"
        )
    return _count(model, counts, pooled)


def _count(model: Any, counts: Sequence[int] | None, pooled: bool) -> int:
    check_blocks(model.blocks)
    patches = int(model.patch_embed.num_patches or 0)
    if not patches:
        raise ValueError("the model has no image size of its own; call model.set_input_size first")
    reduction = getattr(model, "reduction", "prune")
    left = _left(model, counts)
    prefix, width = int(model.num_prefix_tokens), int(model.embed_dim)
    alone = pooled and model.global_pool == "token" and prefix > 0
    total = 2 * patches * model.patch_embed.proj.weight.numel()
    present = patches
    for i, block in enumerate(model.blocks):
        few = prefix if alone and i == len(model.blocks) - 1 else None
        if reduction == "prune":
            if i in left:
                total += _selector(model.selector(list(left).index(i)), present, prefix, width)
                present = left[i]
            total += _attention(block.attn, prefix + present, few)
        else:
            total += _attention(block.attn, prefix + present, few)
            if few is None and left.get(i, present) < present:
                total += _reduce(reduction, block.attn, prefix, present, left[i], width)
                present = left[i] + (reduction == "fuse")
        total += (few or prefix + present) * _linears(block.mlp)
    total += _pool(model, prefix + present)
    return total + _linears(model.head) + _linears(getattr(model, "head_dist", nn.Identity()))


def _left(model: Any, counts: Sequence[int] | None) -> dict[int, int]:
    """Block of a stage -> patch tokens left there."""
    if not isinstance(model, SparseVisionTransformer):
        if counts is not None:
            raise ValueError("counts goes with a sparse model, this one is dense")
        return {}
    given = model.keep_counts if counts is None else list(counts)
    if len(given) != len(model.schedule.stages):
        raise ValueError(
            f"counts has {len(given)} values for {len(model.schedule.stages)} stages; give one each"
        )
    return dict(zip(model.schedule.stages, given, strict=True))


def _linears(module: nn.Module) -> int:
    """Operations of all linear layers of a module on one row."""
    found = (m for m in module.modules() if isinstance(m, nn.Linear))
    return sum(2 * m.in_features * m.out_features for m in found)


def _attention(attn: Any, tokens: int, few: int | None) -> int:
    """Attention of `tokens`, of which the first `few` alone are wanted."""
    read = tokens if few is None else few
    inner = attn.qkv.out_features // 3
    keys_and_values = 4 * attn.qkv.in_features * inner
    once = _linears(attn) - keys_and_values
    return tokens * keys_and_values + read * once + 4 * read * tokens * inner


def _selector(selector: TokenSelector, present: int, prefix: int, width: int) -> int:
    if selector.needs_class_attention:
        return 2 * (prefix + present) * width
    if not isinstance(selector, KeepPredictor):
        return 0
    # The global half is a row of the image, not of every token.
    context = 2 * (selector.expand.in_features // 2) * selector.expand.out_features
    return present * (_linears(selector) - context) + context


def _reduce(reduction: str, attn: Any, prefix: int, present: int, count: int, width: int) -> int:
    if reduction == "fuse":
        return 2 * (prefix + present) * width + 2 * present * width
    second = present - present // 2
    similarity = 2 * (present // 2) * second * attn.head_dim
    return similarity + 2 * second * (present - count) * (width + 1)


def _pool(model: Any, tokens: int) -> int:
    """Attention pooling: one query per latent over all tokens."""
    pool = model.attn_pool
    if pool is None:
        return 0
    tokens -= 0 if getattr(model, "pool_include_prefix", True) else int(model.num_prefix_tokens)
    rows = pool.latent_len
    keys_and_values = _linears(pool.kv)
    rest = _linears(pool) - keys_and_values
    return tokens * keys_and_values + rows * rest + 4 * rows * tokens * pool.proj.in_features
