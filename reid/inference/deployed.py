"""A re-ID model as one module from pixels to features: what is exported."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from reid.config import RunConfig
from reid.models.embedder import Preprocess, ReidModel

NOT_DENSE = ("backbone.selectors.", "backbone.reweight_scale")


class Deployed(nn.Module):
    """Normalisation of the pixels, backbone, neck, normalisation of the feature.

    Args:
        model: The network; copied.
        preprocess: Its normalisation.
        normalize: Whether features are divided by their L2 norm.
        dtype: Of the backbone; all else stays float32.
    """

    def __init__(
        self,
        model: ReidModel,
        preprocess: Preprocess,
        *,
        normalize: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(model.backbone).to(dtype)
        after = model.neck_feature == "after"
        self.neck = copy.deepcopy(model.neck.norm) if after else nn.Identity()
        self.normalize = normalize
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: (B, 3, H, W) float32 RGB from 0 to 1.

        Returns:
            (B, C) float32.
        """
        dtype = self.backbone.patch_embed.proj.weight.dtype
        x = (images - self.get_buffer("mean")) / self.get_buffer("std")
        feature = self.backbone(x.to(dtype))
        feature = self.neck(feature.to(torch.promote_types(dtype, torch.float32)))
        return nn.functional.normalize(feature, dim=1) if self.normalize else feature


def dense_twin(model: ReidModel, config: RunConfig) -> ReidModel:
    """Return the same network with every token kept.

    Args:
        model: A model, dense or sparse.
        config: The configuration it was built with.
    """
    dense = replace(config.model, sparse=False, init="scratch")
    identities = model.neck.classifier.out_features
    twin = ReidModel(dense, config.data.image_size, identities)
    shared = {k: v for k, v in model.state_dict().items() if not k.startswith(NOT_DENSE)}
    twin.load_state_dict(shared)
    return twin.eval()
