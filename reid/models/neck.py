"""BNNeck: batch normalisation between the metric feature and the classifier."""

from torch import Tensor, nn


class BNNeck(nn.Module):
    """Batch normalisation with a frozen zero bias and a bias-free classifier.

    Luo et al., "A Strong Baseline and Batch Normalization Neck for Deep Person
    Re-identification" (2019); SUReID (arXiv 2401.07469) Eq. 10.

    Args:
        features: Channels C of the feature.
        identities: Number of training identities.
    """

    def __init__(self, features: int, identities: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.norm.bias.requires_grad_(False)
        self.classifier = nn.Linear(features, identities, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, feature: Tensor) -> Tensor:
        """Map features (B, C) to identity logits (B, identities)."""
        return self.classifier(self.norm(feature.float()))
