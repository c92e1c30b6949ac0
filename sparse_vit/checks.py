"""What `sparsify` refuses, with the reason and a remedy."""

from typing import Any

from timm.layers.patch_dropout import PatchDropout
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sparse_vit.blocks import check_block
from sparse_vit.pooling import check_attention_pool

__all__ = ["check_divisible", "check_model", "refuse_mask"]


def refuse_mask(attn_mask: Tensor | None, is_causal: bool) -> None:
    """Refuses an attention mask of the caller.

    Raises:
        ValueError: if there is one.
    """
    if attn_mask is not None or is_causal:
        raise ValueError(
            "attn_mask and is_causal are not supported: attention is masked by the selection "
            "alone; call the dense timm model for a mask of your own"
        )


def check_model(model: VisionTransformer) -> None:
    """Refuses a model that the two forwards cannot honour.

    Raises:
        TypeError: naming the class of a part that is not supported.
        ValueError: for an option or an image size that is not supported.
    """
    for index, block in enumerate(model.blocks):
        check_block(f"blocks.{index}", block)
    if isinstance(model.patch_drop, PatchDropout) and model.patch_drop.prob > 0.0:
        raise ValueError(
            f"the model drops patches at random in training (patch_drop_rate="
            f"{model.patch_drop.prob}), which loses their places; build it with patch_drop_rate=0"
        )
    check_attention_pool(model.attn_pool)
    if model.patch_embed.img_size is not None:
        check_divisible(model.patch_embed, tuple(model.patch_embed.img_size))


def check_divisible(embed: Any, size: tuple[int, ...]) -> None:
    """Refuses an image size that the patches do not fill, unless the embedding pads.

    Raises:
        ValueError: naming both sizes.
    """
    patch = embed.feat_ratio(as_scalar=False)
    if not getattr(embed, "dynamic_img_pad", False) and (size[0] % patch[0] or size[1] % patch[1]):
        near = [max(1, length // side) * side for length, side in zip(size, patch, strict=True)]
        raise ValueError(
            f"image size {size[0]}x{size[1]} is not divisible by the patch size {patch[0]}x"
            f"{patch[1]}; use e.g. {near[0]}x{near[1]}"
        )
