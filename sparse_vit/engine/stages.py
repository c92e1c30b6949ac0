"""A pruning stage on packed rows: score, select, compact and normalise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_vit._kernels import select_tokens
from sparse_vit.engine.build import Builder, Norm
from sparse_vit.engine.lengths import Lengths
from sparse_vit.engine.predictor import EnginePredictor
from sparse_vit.schedule import AdaptiveSchedule
from sparse_vit.selectors import KeepPredictor, StageInput, TokenSelector

__all__ = ["EngineStage", "Rule", "rules_of"]

ROW_STEP = 64
"""Ragged matrices are as long as a multiple of this, so that few shapes come up: a product of a new
shape costs the library some preparation."""


@dataclass(frozen=True)
class Rule:
    """What a stage keeps: exactly `most` patch tokens, or by threshold between the bounds."""

    fewest: int
    most: int
    threshold: float | None = None


def rules_of(counts: list[int], adaptive: AdaptiveSchedule | None, patches: int) -> list[Rule]:
    """One rule per stage.

    Args:
        counts: patch tokens that the fixed schedule leaves.
        adaptive: thresholds, or None for the fixed schedule.
        patches: N.

    Raises:
        ValueError: for thresholds or bounds that do not fit the stages or each other.
    """
    if adaptive is None:
        return [Rule(count, count) for count in counts]
    stages = len(counts)
    if len(adaptive.thresholds) != stages:
        raise ValueError(
            f"adaptive has {len(adaptive.thresholds)} thresholds for {stages} stages; give one each"
        )
    fewest = _per_stage("min_keep", adaptive.min_keep, stages)
    most = _per_stage("max_keep", adaptive.max_keep or patches, stages)
    rules: list[Rule] = []
    limit, floor = patches, patches
    for low, high, threshold in zip(fewest, most, adaptive.thresholds, strict=True):
        low, high = min(low, floor), min(high, limit)
        if not 1 <= low <= high:
            raise ValueError(
                f"adaptive keeps at least {low} and at most {high} of {patches} patch tokens; "
                "expected 1 <= min_keep <= max_keep"
            )
        rules.append(Rule(low, high, float(threshold)))
        floor, limit = low, high
    return rules


def _per_stage(name: str, value: int | tuple[int, ...], stages: int) -> tuple[int, ...]:
    found = (value,) * stages if isinstance(value, int) else tuple(value)
    if len(found) != stages:
        raise ValueError(f"adaptive has {len(found)} {name} for {stages} stages; give one each")
    return found


class EngineStage:
    """One stage.

    Args:
        ordinal: number of the stage, from 0.
        selector: who scores.
        tokens: tokens of an image that enters, prefix included.
        prefix: P.
        grid: N, the number of original patches.
        norm: the normalisation that the next block begins with.
        build: maker of layers.
    """

    def __init__(
        self,
        ordinal: int,
        selector: TokenSelector,
        tokens: int,
        prefix: int,
        norm: Norm,
        build: Builder,
    ) -> None:
        self.ordinal, self.prefix, self.norm = ordinal, prefix, norm
        self.selector, self.predictor = selector, None
        name = f"selectors.{ordinal}"
        if type(selector) is KeepPredictor:
            self.predictor = EnginePredictor(name, selector, tokens, prefix, build)
        else:
            build.notes.add(name, "its own score()", f"it is a {type(selector).__name__}")
        passes = "selection, then compaction and LayerNorm in one pass"
        if not norm.is_layer_norm:
            passes = "selection, compaction, then the model's own normalisation"
        self.waits = build.device.type == "cpu"
        build.notes.add(f"{name} compaction", passes, "kernels.select_tokens, gather_layer_norm")

    def __call__(
        self,
        x: Tensor,
        lengths: Lengths,
        places: Tensor | None,
        attention: Tensor | None,
        rule: Rule,
        grid: int,
    ) -> tuple[Tensor, Tensor, Lengths, Tensor]:
        """Drops tokens.

        Args:
            x: (T, C).
            lengths: of the images.
            places: (T,) int64 original token of every row, prefix counted; None when all are there.
            attention: (B, longest) of the first token, if the selector reads it.
            rule: how many stay.
            grid: N, the number of original patches.

        Returns:
            kept rows (T', C), the same normalised, their lengths, and their original tokens.
        """
        scores = self.scores(x, lengths, places, attention, rule, grid)[:, self.prefix :]
        if rule.threshold is None:
            rows = select_tokens(scores, rule.most, prefix=self.prefix).indices
            after = Lengths.of(lengths.images, self.prefix + rule.most, x.device)
        else:
            rows, after = self._threshold(scores, lengths, rule)
        if not lengths.uniform:
            rows = self._packed_rows(rows, lengths)
        kept, normed = self.norm.gathered(x, rows)
        if places is None:
            return kept, normed, after, rows % lengths.longest
        return kept, normed, after, places[rows]

    def scores(
        self,
        x: Tensor,
        lengths: Lengths,
        places: Tensor | None,
        attention: Tensor | None,
        rule: Rule,
        grid: int,
    ) -> Tensor:
        """(B, longest) scores: of no meaning for prefix tokens, -inf where there is no token."""
        if self.predictor is not None:
            return lengths.pad(self.predictor(x, lengths), -torch.inf)
        own = next(self.selector.parameters(), x.new_empty(0, dtype=torch.float32)).dtype
        tokens = lengths.pad(x, 0.0)[:, self.prefix :].to(own)
        keep = indices = None
        if not lengths.uniform:
            keep = lengths.present()[:, self.prefix :].float()
        if places is not None:
            indices = (lengths.pad(places, self.prefix) - self.prefix)[:, self.prefix :]
        if attention is not None:
            attention = attention[:, self.prefix :]
        scores = self.selector.score(
            StageInput(self.ordinal, tokens, keep, indices, rule.most, grid, attention)
        ).float()
        if keep is not None:
            scores = scores.masked_fill(keep < 0.5, -torch.inf)
        prefix = scores.new_zeros(lengths.images, self.prefix)
        return torch.cat((prefix, scores), dim=1)

    def _threshold(self, scores: Tensor, lengths: Lengths, rule: Rule) -> tuple[Tensor, Lengths]:
        """Rows of the padded (B, longest) matrix that reach the threshold, and their lengths."""
        chosen = select_tokens(
            scores,
            threshold=rule.threshold,
            min_keep=rule.fewest,
            max_keep=min(rule.most, scores.shape[1]),
            prefix=self.prefix,
            # What is not waited for has rows of nobody behind those of the images.
            padded=not self.waits,
        )
        rows, longest = chosen.indices, self.prefix + min(rule.most, scores.shape[1])
        if self.waits:
            longest = int(chosen.cu_seqlens.diff().max())
            rows = _whole(rows)
        return rows, Lengths(
            lengths.images, chosen.cu_seqlens, longest, rows.shape[0], uniform=False
        )

    def _packed_rows(self, rows: Tensor, lengths: Lengths) -> Tensor:
        """Rows of the padded matrix as rows of the packed one."""
        image = rows.div(lengths.longest, rounding_mode="floor")
        packed = lengths.cu_seqlens[image] + rows % lengths.longest
        return packed.clamp_(max=lengths.rows - 1)


def _whole(rows: Tensor) -> Tensor:
    """The rows and as many copies of the first one as make a whole number of steps."""
    missing = -rows.shape[0] % ROW_STEP
    return torch.cat((rows, rows[:1].expand(missing))) if missing else rows
