"""Identity classification."""

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of identity logits, computed in float32 or better.

    Args:
        logits: (B, K) class scores, any float dtype.
        labels: (B,) int64 class indices in [0, K).
        smoothing: Share of the target spread evenly over all K classes, in [0, 1).

    Returns:
        Scalar, mean over the batch: L_cls of SUReID (arXiv 2401.07469) Eq. 14.

    Raises:
        ValueError: A shape does not fit or `smoothing` is outside [0, 1).
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"expected logits (B, K) and labels (B,), got {tuple(logits.shape)} "
            f"and {tuple(labels.shape)}"
        )
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"smoothing must be in [0, 1), got {smoothing}; 0 turns it off")
    if logits.element_size() < 4:
        logits = logits.float()
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)
