"""Whether two images, or two sets of images, show one person."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reid.errors import UserError
from reid.inference.threshold import Threshold


@dataclass(frozen=True)
class Comparison:
    """One side against the other.

    Attributes:
        similarity: Cosine, the mean over all pairs of an image of each side.
        distance: 1 - similarity.
        limit: Smallest distance that counts as different; None if no threshold is known.
        threshold: Where the limit comes from; None for one that was given.
    """

    similarity: float
    distance: float
    limit: float | None
    threshold: Threshold | None

    @property
    def same(self) -> bool | None:
        """Whether the distance is below the limit; None without one."""
        return None if self.limit is None else self.distance < self.limit

    def __str__(self) -> str:
        measured = f"cosine similarity {self.similarity:.4f}, distance {self.distance:.4f}"
        if self.limit is None:
            return f"{measured}\nno threshold is known: run reid calibrate, or give --threshold"
        verdict = "same person" if self.same else "different people"
        why = (
            f"the limit {self.limit:.4f} was given"
            if self.threshold is None
            else self.threshold.meaning
        )
        return f"{measured}\n{verdict}: {why}"


def compare_features(
    a: Tensor, b: Tensor, limit: float | None, threshold: Threshold | None
) -> Comparison:
    """Compare the features of two sides.

    Args:
        a: (N, D) of one side.
        b: (M, D) of the other.
        limit: Distance below which they are one person; None takes that of the threshold.
        threshold: Of the model, if it is calibrated.

    Raises:
        UserError: A side without an image, or a limit that no distance has.
    """
    for side, features in (("first", a), ("second", b)):
        if not len(features):
            raise UserError(f"the {side} side holds no image; give at least one")
    if limit is not None and not 0.0 <= limit <= 2.0:
        raise UserError(
            f"threshold {limit} is not a cosine distance, which is between 0 and 2; a similarity "
            "s is the distance 1 - s"
        )
    unit_a, unit_b = (torch.nn.functional.normalize(x.double(), dim=1) for x in (a, b))
    similarity = float((unit_a @ unit_b.T).mean())
    if limit is not None:
        threshold = None
    elif threshold is not None:
        limit = threshold.distance
    return Comparison(similarity, 1.0 - similarity, limit, threshold)
