"""What a stage decided about the patch tokens of a batch."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Decision"]


@dataclass
class Decision:
    """The decision of one stage.

    Attributes:
        stage: index of the block before which tokens were dropped, or in which they were fused.
        target: fraction of the original patch tokens that should stay.
        scores: (B, N) float32, the higher the sooner a token is kept: log keep probability of a
            predictor. Finite everywhere; of a token that is gone, its score when it was dropped.
        mask: (B, N) float, 1 for the original patches that are still kept and 0 for all that were
            dropped here or earlier. In training with a straight-through gradient.
            Where tokens are fused or merged, 1 for the patches that still have a token to
            themselves, or that come first among those that share one.
        indices: (B, k) int64, kept original patch indices, ascending; None in training, and where
            tokens are fused or merged.
        groups: (B, N) int64, the patch token that each original patch has gone into, in the order
            of the tokens; None where tokens are dropped.
    """

    stage: int
    target: float
    scores: Tensor
    mask: Tensor
    indices: Tensor | None = None
    groups: Tensor | None = None

    @property
    def kept_fraction(self) -> Tensor:
        """(B,) share of the original patches that stay, with the gradient of the mask."""
        return self.mask.mean(dim=1)
