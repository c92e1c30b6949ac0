"""Pairwise distances between feature vectors."""

import torch
from torch import Tensor
from torch.nn import functional as F


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"expected two (rows, C) matrices of one width, got {tuple(x.shape)} "
            f"and {tuple(y.shape)}"
        )


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.element_size() < 4 else x


def euclidean_distance(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distance of every row of `x` to every row of `y`.

    Differences are formed before squaring: no cancellation between near rows, and the gradient at
    distance zero is zero instead of infinite.

    Args:
        x: (A, C) features, any float dtype; half precision is computed in float32.
        y: (B, C) features.

    Returns:
        (A, B) distances.

    Raises:
        ValueError: The shapes do not fit.
    """
    _check(x, y)
    with torch.autocast(x.device.type, enabled=False):
        return torch.cdist(
            _at_least_float32(x),
            _at_least_float32(y),
            compute_mode="donot_use_mm_for_euclid_dist",
        )


def cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    """One minus the cosine of every row of `x` with every row of `y`.

    Args:
        x: (A, C) features, any float dtype; half precision is computed in float32.
        y: (B, C) features.

    Returns:
        (A, B) distances in [0, 2].

    Raises:
        ValueError: The shapes do not fit.
    """
    _check(x, y)
    with torch.autocast(x.device.type, enabled=False):
        x, y = _at_least_float32(x), _at_least_float32(y)
        return 1.0 - F.normalize(x, dim=1) @ F.normalize(y, dim=1).t()
