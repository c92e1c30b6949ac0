"""The ratio loss, which holds the number of kept tokens at its target."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse_vit.decisions import Decision

__all__ = ["ratio_error", "ratio_loss"]

PER = ("image", "batch")


def ratio_loss(decisions: Sequence[Decision], *, per: str = "image") -> Tensor:
    """Mean over stages of the squared distance between kept fraction and target.

    Per image, L = 1/(B S) sum_b sum_s (rho_s - 1/N sum_i D_i^{b,s})^2, SUReID (arXiv 2401.07469)
    Eq. 9: every image is to keep the same share. Per batch, L = 1/S sum_s (rho_s - 1/(B N) sum_b
    sum_i D_i^{b,s})^2: only the mean over the batch is held, so that an image may keep more than
    another, as inference with an `AdaptiveSchedule` lets it. The gradient reaches the selectors
    straight through the hard masks.

    Per image, the loss of a global batch is the mean of the losses of equal shares of it. Per batch
    it is not: there, the kept fractions of all processes belong into one mean.

    Args:
        decisions: what `forward_with_decisions` returned, one per stage.
        per: "image" or "batch".

    Returns:
        Scalar float tensor.

    Raises:
        ValueError: if there is no decision, as in a model without stages, or for another `per`.
    """
    if not decisions:
        raise ValueError("ratio_loss needs at least one decision; the model has no pruning stages")
    kept = torch.stack([d.kept_fraction for d in decisions], dim=1)
    return ratio_error(kept, [d.target for d in decisions], per=per)


def ratio_error(kept: Tensor, targets: Sequence[float], *, per: str = "image") -> Tensor:
    """The same from kept fractions, such as those gathered from all processes.

    Args:
        kept: (B, S) fraction of the original patches that each image keeps after each stage.
        targets: S fractions.
        per: "image" or "batch".

    Returns:
        Scalar tensor in the dtype of `kept`.

    Raises:
        ValueError: for another `per`.
    """
    if per not in PER:
        raise ValueError(f"per={per!r} is unknown; expected one of {PER}")
    if per == "batch":
        kept = kept.mean(dim=0)
    return (kept - kept.new_tensor(targets)).square().mean()
