"""Which pairs of a batch a metric loss looks at."""

import torch
from torch import Tensor


def label_pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Positive and negative pairs of a batch by identity.

    An anchor is its own positive, at distance zero, so that an identity with one image in the
    batch still has one.

    Args:
        labels: (B,) integer identities.

    Returns:
        positives (B, B) bool and negatives (B, B) bool, row = anchor.

    Raises:
        ValueError: `labels` is not one-dimensional, or all labels are the same.
    """
    if labels.ndim != 1:
        raise ValueError(f"expected labels (B,), got {tuple(labels.shape)}")
    same = labels[:, None] == labels[None, :]
    if bool(same.all()):
        raise ValueError(
            f"a batch of {labels.numel()} images holds one identity only, so no anchor has a "
            "negative; sample at least two identities per batch"
        )
    return same, ~same


def hardest_pairs(distances: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Farthest positive and nearest negative of every anchor (batch-hard mining).

    Args:
        distances: (A, B) float distances, row = anchor.
        positives: (A, B) bool, at least one per row.
        negatives: (A, B) bool, at least one per row.

    Returns:
        d_ap (A,) and d_an (A,), differentiable in `distances`; of equal distances one is taken.
    """
    d_ap = distances.masked_fill(~positives, -torch.inf).max(dim=1).values
    d_an = distances.masked_fill(~negatives, torch.inf).min(dim=1).values
    return d_ap, d_an
