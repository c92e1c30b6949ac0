"""What a stage decided about the patch tokens of a batch."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Decision"]


@dataclass
class Decision:
    """The decision of one stage.

    Attributes:
        stage: index of the block before which tokens were dropped.
        target: fraction of the original patch tokens that should stay.
        scores: (B, N) float32, the higher the sooner a token is kept: log keep probability of a
            predictor. Finite everywhere; of a token that is gone, its score when it was dropped.
        mask: (B, N) float, 1 for the original patches that are still kept and 0 for all that were
            dropped here or earlier. In training with a straight-through gradient.
        indices: (B, k) int64, kept original patch indices, ascending; None in training.
    """

    stage: int
    target: float
    scores: Tensor
    mask: Tensor
    indices: Tensor | None = None

    @property
    def kept_fraction(self) -> Tensor:
        """(B,) share of the original patches that stay, with the gradient of the mask."""
        return self.mask.mean(dim=1)
