"""Camera-constrained triplet loss, for the teacher.

Inferred: SUReID says that its teacher was trained with the "camera-constrained triplet loss" of
SRFR (Neural Comput. Appl. 2023, doi 10.1007/s00521-023-08770-z), whose text is not available.
Here hard positives cross cameras, because matching across cameras is the task, and hard negatives
share the camera, because they share background and light. Both constraints can be switched off.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from reid.losses.distances import euclidean_distance
from reid.losses.mining import hardest_pairs, label_pairs
from reid.losses.triplet import soft_margin


def _prefer(wanted: Tensor, otherwise: Tensor) -> Tensor:
    """Rows of `wanted` where they have an entry, else the same rows of `otherwise`."""
    return torch.where(wanted.any(dim=1, keepdim=True), wanted, otherwise)


def camera_pairs(
    labels: Tensor, camids: Tensor, *, cam_pos: bool = True, cam_neg: bool = True
) -> tuple[Tensor, Tensor]:
    """Positive and negative pairs under the camera constraints.

    Args:
        labels: (B,) integer identities.
        camids: (B,) integer cameras.
        cam_pos: Positives come from other cameras; an anchor without any takes every other image
            of its identity, and an anchor alone in the batch takes itself.
        cam_neg: Negatives come from the anchor's camera; an anchor without any takes all.

    Returns:
        positives (B, B) bool and negatives (B, B) bool, row = anchor.

    Raises:
        ValueError: The shapes do not fit, or all labels are the same.
    """
    if labels.ndim != 1 or camids.shape != labels.shape:
        raise ValueError(
            f"expected labels (B,) and camids (B,), got {tuple(labels.shape)} "
            f"and {tuple(camids.shape)}"
        )
    positives, negatives = label_pairs(labels)
    same_camera = camids[:, None] == camids[None, :]
    if cam_pos:
        itself = torch.eye(labels.numel(), dtype=torch.bool, device=labels.device)
        others = _prefer(positives & ~itself, positives)
        positives = _prefer(positives & ~same_camera, others)
    if cam_neg:
        negatives = _prefer(negatives & same_camera, negatives)
    return positives, negatives


def camera_triplet(
    features: Tensor,
    labels: Tensor,
    camids: Tensor,
    *,
    cam_pos: bool = True,
    cam_neg: bool = True,
    margin: float | None = None,
    distance: Callable[[Tensor, Tensor], Tensor] = euclidean_distance,
) -> Tensor:
    """Batch-hard triplet loss with positives across cameras and negatives within one.

    Args:
        features: (B, C) features, pre-BN.
        labels: (B,) integer identities, two at least.
        camids: (B,) integer cameras.
        cam_pos: Constrain positives, see `camera_pairs`.
        cam_neg: Constrain negatives, see `camera_pairs`.
        margin: None for the soft margin.
        distance: Maps (A, C), (B, C) to (A, B).

    Returns:
        Scalar, mean over anchors. With both switches off it equals `triplet`.

    Raises:
        ValueError: The shapes do not fit, or the batch holds one identity only.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"expected features (B, C) and labels (B,), got {tuple(features.shape)} "
            f"and {tuple(labels.shape)}"
        )
    pairs = camera_pairs(labels, camids, cam_pos=cam_pos, cam_neg=cam_neg)
    d_ap, d_an = hardest_pairs(distance(features, features), *pairs)
    return soft_margin(d_ap, d_an, margin)
