"""Where tokens are dropped and how many stay."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["PruningSchedule"]


@dataclass(frozen=True)
class PruningSchedule:
    """Stages and the fraction of the original patch tokens that each of them leaves.

    Attributes:
        stages: indices (from 0) of the blocks before which tokens are dropped, ascending.
        ratios: for each stage the kept fraction of the ORIGINAL patch tokens, not increasing.
    """

    stages: tuple[int, ...]
    ratios: tuple[float, ...]

    @classmethod
    def build(
        cls, stages: Sequence[int], keep_ratio: float | Sequence[float], depth: int
    ) -> "PruningSchedule":
        """Checks stages and ratios and expands a single ratio.

        Args:
            stages: block indices, strictly ascending, each below `depth`.
            keep_ratio: one ratio p, which leaves p, p^2, p^3, ... of the original patches (SUReID,
                arXiv 2401.07469, Sec. IV-B), or one fraction of the original patches per stage.
            depth: number of blocks of the model.

        Returns:
            The schedule.

        Raises:
            ValueError: for a stage outside the model or out of order, a ratio outside (0, 1], a
                wrong number of ratios, or ratios that increase.
            TypeError: for stages that are not integers or ratios that are not numbers.
        """
        stages = tuple(stages)
        for stage in stages:
            if isinstance(stage, bool) or not isinstance(stage, int):
                raise TypeError(f"stage {stage!r} is not an integer; pass e.g. (3, 6, 9)")
            if not 0 <= stage < depth:
                raise ValueError(
                    f"stage {stage} is outside the model: expected block indices from 0 to "
                    f"{depth - 1} for a depth of {depth}; choose stages within the model"
                )
        if any(a >= b for a, b in pairwise(stages)):
            raise ValueError(
                f"stages {stages} must be strictly ascending; sort them and remove duplicates"
            )
        return cls(stages, _expand(keep_ratio, len(stages)))

    def counts(self, num_patches: int) -> list[int]:
        """Number of patch tokens left after every stage: floor(N * ratio), and at least one."""
        # N * 0.29 may fall a few ulp short of an integer that it equals on paper.
        return [max(1, math.floor(num_patches * ratio + 1e-6)) for ratio in self.ratios]


def _expand(keep_ratio: float | Sequence[float], stages: int) -> tuple[float, ...]:
    if isinstance(keep_ratio, (str, bool)):
        raise TypeError(f"keep_ratio {keep_ratio!r} is not a number; pass e.g. 0.7")
    if isinstance(keep_ratio, Sequence):
        ratios = tuple(_check(ratio) for ratio in keep_ratio)
        if len(ratios) != stages:
            raise ValueError(
                f"keep_ratio has {len(ratios)} values for {stages} stages; pass one fraction of "
                "the original patches per stage, or a single number"
            )
        if any(a < b for a, b in pairwise(ratios)):
            raise ValueError(
                f"keep_ratio {ratios} increases from one stage to the next, but dropped tokens "
                "never return; pass fractions of the ORIGINAL patches in descending order"
            )
        return ratios
    ratio = _check(keep_ratio)
    return tuple(ratio ** (s + 1) for s in range(stages))


def _check(ratio: float) -> float:
    if isinstance(ratio, (str, bool)):
        raise TypeError(f"keep_ratio {ratio!r} is not a number; pass e.g. 0.7")
    ratio = float(ratio)
    if not 0.0 < ratio <= 1.0:
        raise ValueError(
            f"keep_ratio {ratio} is outside (0, 1]; pass the fraction of tokens to keep, e.g. 0.7"
        )
    return ratio
