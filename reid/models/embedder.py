"""The network that turns an image of a person into a feature."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reid.config import DataConfig, ModelConfig, RunConfig, from_dict
from reid.models.backbone import create_backbone
from reid.models.neck import BNNeck


@dataclass
class Preprocess:
    """How an image becomes the network's input.

    Attributes:
        image_size: Height and width in pixels.
        interpolation: Resize filter.
        mean: Subtracted from each channel of an image in [0, 1].
        std: Divisor of each channel.
    """

    image_size: tuple[int, int] = (256, 128)
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise uint8 images (B, 3, H, W) to float32."""
        return self.normalize(images.float() / 255.0)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise float images (B, 3, H, W) with values from 0 to 1."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        return (images - mean) / std

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any]) -> "Preprocess":
        """Read what `save_model` wrote into a file's metadata."""
        stored = metadata["preprocess"]
        return cls(**{name: _plain(value) for name, value in stored.items()})


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class ReidModel(nn.Module):
    """Backbone and BNNeck.

    Args:
        config: Backbone and sparsification.
        image_size: Height and width in pixels.
        identities: Number of training identities.
    """

    def __init__(self, config: ModelConfig, image_size: tuple[int, int], identities: int) -> None:
        super().__init__()
        self.backbone: Any = create_backbone(config, image_size)
        self.neck = BNNeck(self.num_features, identities)
        self.neck_feature = config.neck_feature

    @property
    def num_features(self) -> int:
        """Channels C of the feature."""
        return int(self.backbone.num_features)

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised images.

        Args:
            images: (B, 3, H, W) float.

        Returns:
            (B, C) float32 retrieval features, not normalised. Tokens are dropped for real in
            evaluation mode.
        """
        feature = self.backbone(images).float()
        return self.neck.norm(feature) if self.neck_feature == "after" else feature

    def logits(self, feature: Tensor) -> Tensor:
        """Map pre-BN features (B, C) to identity logits (B, identities)."""
        return self.neck(feature)


def save_model(
    path: str | Path, model: ReidModel, config: RunConfig, extra: dict[str, Any]
) -> None:
    """Save weights together with all that is needed to rebuild the model.

    Raises:
        UserError: The file cannot be written.
    """
    from reid.config import to_dict
    from reid.engine import checkpoint

    metadata = {
        "format": "sparse-vit reid model 1",
        "config": to_dict(config),
        "identities": model.neck.classifier.out_features,
        "preprocess": asdict(preprocess_of(config.data)),
        **extra,
    }
    checkpoint.save(path, model.state_dict(), metadata)


def load_model(path: str | Path) -> tuple[ReidModel, RunConfig, dict[str, Any]]:
    """Rebuild a model that `save_model` wrote.

    Args:
        path: A .safetensors file.

    Returns:
        The model in evaluation mode, its run configuration and the file's metadata.

    Raises:
        UserError: Missing or damaged file, or one that is not a model of this package.
    """
    from reid.engine import checkpoint
    from reid.errors import UserError

    tensors, metadata = checkpoint.load(path)
    if "config" not in metadata or "identities" not in metadata:
        keys = ", ".join(sorted(tensors)[:4])
        raise UserError(
            f"{path} holds no re-identification model of this package (its first "
            f"tensors: {keys}); use a model.safetensors written by reid train"
        )
    config = from_dict(metadata["config"])
    config.model.init = "scratch"
    model = ReidModel(config.model, config.data.image_size, int(metadata["identities"]))
    own = {k: v for k, v in tensors.items() if not k.startswith(("optim.", "task."))}
    checkpoint.load_strict(model, own, str(path))
    return model.eval(), config, metadata


def preprocess_of(config: DataConfig) -> Preprocess:
    """Return the preprocessing that a data configuration implies."""
    return Preprocess(image_size=config.image_size, interpolation=config.interpolation)
