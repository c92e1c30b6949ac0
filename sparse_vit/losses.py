"""The ratio loss, which holds the number of kept tokens at its target."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse_vit.decisions import Decision

__all__ = ["ratio_loss"]


def ratio_loss(decisions: Sequence[Decision]) -> Tensor:
    """Mean over stages and images of (target - kept fraction)^2.

    L = 1/(B S) sum_b sum_s (rho_s - 1/N sum_i D_i^{b,s})^2, SUReID (arXiv 2401.07469) Eq. 9. The
    gradient reaches the selectors straight through the hard masks. A mean over images, so that
    the loss of a global batch is the mean of the losses of equal shares of it.

    Args:
        decisions: what `forward_with_decisions` returned, one per stage.

    Returns:
        Scalar float tensor.

    Raises:
        ValueError: if there is no decision, as in a model without stages.
    """
    if not decisions:
        raise ValueError("ratio_loss needs at least one decision; the model has no pruning stages")
    return torch.stack([(d.target - d.kept_fraction).square().mean() for d in decisions]).mean()
