"""Batch-hard triplet loss."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from reid.losses.distances import euclidean_distance
from reid.losses.mining import hardest_pairs, label_pairs


def soft_margin(d_ap: Tensor, d_an: Tensor, margin: float | None = None) -> Tensor:
    """Mean of softplus(d_ap - d_an), or of the hinge when a margin is given.

    Args:
        d_ap: (A,) distance to the positive.
        d_an: (A,) distance to the negative.
        margin: None for the soft margin; otherwise max(0, d_ap - d_an + margin) is used.

    Returns:
        Scalar.
    """
    gap = d_ap - d_an
    return F.softplus(gap).mean() if margin is None else F.relu(gap + margin).mean()


def triplet(
    features: Tensor,
    labels: Tensor,
    *,
    margin: float | None = None,
    distance: Callable[[Tensor, Tensor], Tensor] = euclidean_distance,
) -> Tensor:
    """Batch-hard triplet loss over all images of the batch.

    Args:
        features: (B, C) features, pre-BN in every recipe here.
        labels: (B,) integer identities, two at least.
        margin: None for the soft margin log(1 + exp(d_ap - d_an)).
        distance: Maps (A, C), (B, C) to (A, B).

    Returns:
        Scalar, mean over anchors: L_tri of SUReID (arXiv 2401.07469) Eq. 14.

    Raises:
        ValueError: The shapes do not fit, or the batch holds one identity only.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"expected features (B, C) and labels (B,), got {tuple(features.shape)} "
            f"and {tuple(labels.shape)}"
        )
    d_ap, d_an = hardest_pairs(distance(features, features), *label_pairs(labels))
    return soft_margin(d_ap, d_an, margin)
