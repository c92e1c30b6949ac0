"""Backbones by name, dense or token-sparsified, with their starting weights."""

from pathlib import Path

from torch import nn

from reid.config import ModelConfig
from reid.errors import UserError

MINI_WEIGHTS = Path(__file__).parent.parent / "assets" / "mini_backbone.safetensors"
TIMM_TAG = "timm:"
NOT_BACKBONE = ("head.", "head_dist.", "selectors.", "reweight_scale")


def create_backbone(config: ModelConfig, image_size: tuple[int, int]) -> nn.Module:
    """Build a backbone without classifier and give it its starting weights.

    Args:
        config: Name, starting weights and sparsification.
        image_size: Height and width in pixels.

    Returns:
        A timm VisionTransformer or a SparseVisionTransformer: (B, 3, H, W) -> (B, C).

    Raises:
        UserError: Unknown name, image size that the patch does not divide, missing weights,
            weights of another architecture, or a wrong stage or keep ratio.
    """
    from reid.models.drop_path import key_drop_paths

    model = _dense(config, image_size)
    _load_initial(model, config)
    key_drop_paths(model)
    if not config.sparse:
        return model
    from sparse_vit import sparsify

    try:
        return sparsify(
            model,
            stages=config.stages,
            keep_ratio=config.keep_ratio,
            selector=config.selector,
            reweight=config.reweight,
            reduction=config.reduction,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"cannot sparsify {config.backbone}: {error}") from error


def _dense(config: ModelConfig, image_size: tuple[int, int]) -> nn.Module:
    import timm
    from timm.models.vision_transformer import VisionTransformer

    try:
        if config.backbone == "mini":
            _check_divides(image_size, (8, 8), config.backbone)
            return VisionTransformer(
                img_size=image_size,
                patch_size=8,
                embed_dim=128,
                depth=12,
                num_heads=4,
                num_classes=0,
                drop_path_rate=config.drop_path,
            )
        if not timm.is_model(config.backbone):
            close = timm.list_models(f"*{config.backbone.split('_')[0]}*")[:5]
            hint = f"; similar: {', '.join(close)}" if close else ""
            raise UserError(f"timm knows no model {config.backbone!r}{hint}")
        model = timm.create_model(
            config.backbone,
            pretrained=False,
            img_size=image_size,
            num_classes=0,
            drop_path_rate=config.drop_path,
        )
    except (TypeError, AssertionError, ValueError) as error:
        raise UserError(
            f"cannot build {config.backbone} for {image_size} images: {error}"
        ) from error
    if not isinstance(model, VisionTransformer):
        raise UserError(
            f"{config.backbone} is a {type(model).__name__}; only timm's "
            "VisionTransformer models can be used here"
        )
    _check_divides(image_size, model.patch_embed.patch_size, config.backbone)
    return model


def _check_divides(image_size: tuple[int, int], patch: tuple[int, int], name: str) -> None:
    if image_size[0] % patch[0] or image_size[1] % patch[1]:
        nearest = tuple(max(1, round(s / p)) * p for s, p in zip(image_size, patch, strict=True))
        raise UserError(
            f"data.image_size={image_size} is not divisible by the {patch} patches of "
            f"{name}; the nearest size is {nearest}"
        )


def _load_initial(model: nn.Module, config: ModelConfig) -> None:
    if config.init == "scratch":
        return
    import sparse_vit

    if config.init == "pretrained" or config.init.startswith(TIMM_TAG):
        if config.init == "pretrained" and config.backbone == "mini":
            raise UserError("the backbone mini has no timm weights; use model.init=mini")
        tag = config.backbone if config.init == "pretrained" else config.init[len(TIMM_TAG) :]
        try:
            sparse_vit.load_pretrained_by_tag(model, tag)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"the pretrained weights {tag} could not be loaded ({error}); give the path of a "
                "downloaded file as model.init=PATH, or model.init=scratch"
            ) from error
        return
    if config.init == "mini" and config.backbone != "mini":
        raise UserError(f"model.init=mini fits only model.backbone=mini, not {config.backbone}")
    path = MINI_WEIGHTS if config.init == "mini" else Path(config.init)
    if not path.is_file():
        raise UserError(
            f"model.init={config.init!r}: no such file; give pretrained, timm:TAG, "
            "scratch, mini or the path of a .safetensors or .pth file"
        )
    try:
        sparse_vit.load_backbone(model, path, skip=NOT_BACKBONE)
    except (ValueError, OSError) as error:
        raise UserError(
            f"model.init={config.init!r} does not fit {config.backbone}: {error}"
        ) from error
