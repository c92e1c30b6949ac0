"""Sparse models by name in timm's registry: `timm.create_model("sparse_deit_small_patch16_224")`.

Every name is `sparse_` before the name of the dense timm model, takes that model's arguments (such
as img_size=(256, 128)) and those of `sparsify`. With pretrained=True it loads the dense weights of
the tag, which may be part of the name, and leaves only the selectors untrained.
"""

from collections.abc import Callable, Sequence
from typing import Any

import timm
from timm.models import register_model

from sparse_vit.backbones import check_tag
from sparse_vit.model import SparseVisionTransformer, sparsify
from sparse_vit.selectors import TokenSelector

__all__: list[str] = []

PREFIX = "sparse_"
DENSE_NAMES = (
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit_base_distilled_patch16_224",
    "deit3_small_patch16_224",
    "deit3_base_patch16_224",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "vit_base_patch8_224",
    "vit_base_patch32_224",
    "vit_base_patch16_clip_224",
    "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch14_reg4_dinov2",
    "vit_medium_patch16_reg4_gap_256",
    "vit_base_patch16_reg4_gap_256",
)


def create_sparse(
    dense_name: str,
    pretrained: bool = False,
    *,
    pretrained_cfg: Any = None,
    stages: Sequence[int] = (3, 6, 9),
    keep_ratio: float | Sequence[float] = 0.7,
    selector: str | TokenSelector | Sequence[str | TokenSelector] = "predictor",
    reweight: str = "off",
    reduction: str = "prune",
    **kwargs: Any,
) -> SparseVisionTransformer:
    """Builds a dense timm model and sparsifies it.

    Args:
        dense_name: name of the timm model, without a tag.
        pretrained: whether to load the dense model's pretrained weights.
        pretrained_cfg: a tag of these weights, or what else timm takes here; None for timm's
            default tag.
        stages: as of `sparsify`.
        keep_ratio: as of `sparsify`.
        selector: as of `sparsify`.
        reweight: as of `sparsify`.
        reduction: as of `sparsify`.
        **kwargs: arguments of the timm model, such as img_size, num_classes, drop_path_rate.

    Returns:
        The sparse model.

    Raises:
        ValueError: if weights are asked for under a tag that has none.
        RuntimeError: if the weights cannot be fetched.
    """
    if pretrained and (pretrained_cfg is None or isinstance(pretrained_cfg, str)):
        check_tag(dense_name, pretrained_cfg)
    try:
        dense = timm.create_model(
            dense_name, pretrained=pretrained, pretrained_cfg=pretrained_cfg, **kwargs
        )
    except OSError as error:
        raise RuntimeError(
            f"pretrained weights of {dense_name} could not be fetched ({error}); check the "
            "network, or load a file with sparse_vit.load_backbone(model, path)"
        ) from error
    return sparsify(dense, stages, keep_ratio, selector, reweight, reduction)


def _entry_point(dense_name: str) -> Callable[..., SparseVisionTransformer]:
    def create(pretrained: bool = False, **kwargs: Any) -> SparseVisionTransformer:
        return create_sparse(dense_name, pretrained, **kwargs)

    create.__name__ = create.__qualname__ = PREFIX + dense_name
    create.__doc__ = f"Timm's {dense_name} with token selection; arguments as of `create_sparse`."
    return create


for _name in DENSE_NAMES:
    register_model(_entry_point(_name))
