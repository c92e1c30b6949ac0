"""Where tokens are dropped and how many stay."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

__all__ = ["AdaptiveSchedule", "PruningSchedule"]


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


@dataclass(frozen=True)
class AdaptiveSchedule:
    """How many tokens an image keeps when that depends on the image; `calibrate` makes one.

    Attributes:
        thresholds: per stage, the lowest score kept, in the unit of the selector: the log keep
            probability of a `KeepPredictor`, the log attention of a `ClassAttention`.
        min_keep: fewest patch tokens after each stage, one number or one per stage.
        max_keep: most of them, likewise; None for no bound beyond what the stage gets.
        mean_keep: per stage, the mean fraction of the original patches kept on the images of the
            calibration; None when unknown.
    """

    thresholds: tuple[float, ...]
    min_keep: int | tuple[int, ...] = 1
    max_keep: int | tuple[int, ...] | None = None
    mean_keep: tuple[float, ...] | None = None

    def to_json(self) -> str:
        """One line of JSON, for the metadata of `save_weights`; floats come back exactly."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "AdaptiveSchedule":
        """Reads what `to_json` wrote.

        Raises:
            ValueError: for anything else.
        """
        try:
            found: Any = json.loads(text)
            given = {name: _tuples(value) for name, value in found.items()}
            schedule = cls(**given)
            _check_numbers("thresholds", schedule.thresholds)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{text[:80]!r} is no adaptive schedule ({error}); pass what "
                "AdaptiveSchedule.to_json() wrote"
            ) from error
        return schedule


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_numbers(name: str, values: Any) -> None:
    if not isinstance(values, tuple) or not all(type(v) in (int, float) for v in values):
        raise ValueError(f"{name} are {values!r} instead of numbers")


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
