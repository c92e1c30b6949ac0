"""Curves: CMC, losses over training, accuracy over speed."""

from collections.abc import Mapping, Sequence

import numpy as np

from reid.errors import UserError
from reid.evaluation.bootstrap import Interval
from reid.evaluation.result import RankingResult
from reid.report.style import (
    BASELINE_DASHES,
    MUTED,
    ROW_COLOURS,
    ROW_MARKERS,
    context,
    figure,
    to_png,
)
from reid.report.types import RowResult

_NOT_A_CURVE = ("step", "epoch", "time", "lr", "steps_per_second")
_TITLES = {
    "loss": "total loss",
    "classification": "identity cross-entropy",
    "triplet": "triplet loss",
    "ratio": "ratio loss",
    "kd_feature": "feature distillation",
    "kd_logits": "logit distillation",
}
_POINTS = 400
_PANELS = 9


def cmc_chart(
    rows: dict[str, RankingResult], baselines: dict[str, RankingResult], *, max_rank: int = 20
) -> bytes:
    """Draw the share of queries with a match among the first r gallery rows, over r.

    Args:
        rows: Label -> evaluation, drawn as solid coloured lines.
        baselines: Label -> evaluation, drawn as grey dashed lines.
        max_rank: Last rank on the axis.

    Returns:
        A PNG.
    """
    with context():
        made = figure(8.4, 4.6, layout="constrained")
        axes = made.subplots()
        for index, (label, ranking) in enumerate(rows.items()):
            curve = ranking.cmc[:max_rank]
            axes.plot(
                np.arange(1, len(curve) + 1),
                curve,
                color=ROW_COLOURS[index % len(ROW_COLOURS)],
                marker=ROW_MARKERS[index % len(ROW_MARKERS)],
                markersize=4.5,
                label=f"{label} ({ranking.rank1:.1f})",
            )
        for index, (label, ranking) in enumerate(baselines.items()):
            curve = ranking.cmc[:max_rank]
            axes.plot(
                np.arange(1, len(curve) + 1),
                curve,
                color=MUTED,
                linewidth=1.4,
                linestyle=BASELINE_DASHES[index % len(BASELINE_DASHES)],
                label=f"{label} ({ranking.rank1:.1f})",
            )
        axes.set_xlabel("rank r (place in the ranked gallery)")
        axes.set_ylabel("queries with a match by place r (%)")
        axes.set_xticks([1, *range(5, max_rank + 1, 5)])
        axes.set_xlim(0.6, max_rank + 0.4)
        axes.set_ylim(0, 102)
        made.legend(loc="outside right center", title="(rank-1, %)", alignment="left")
        return to_png(made)


def training_chart(histories: Mapping[str, Sequence[dict[str, float]]]) -> bytes:
    """Draw the loss and each of its parts over the steps, one panel each, one line per row.

    Args:
        histories: Label -> one dictionary per logged step, each with `step`.

    Returns:
        A PNG.

    Raises:
        UserError: No row has a logged step.
    """
    names: list[str] = []
    for history in histories.values():
        for entry in history:
            names += [key for key in entry if key not in names and key not in _NOT_A_CURVE]
    if not names:
        raise UserError("no training history to draw; log at least one step")
    names = sorted(names, key=lambda name: name != "loss")[:_PANELS]
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    with context():
        made = figure(3.6 * columns + 0.4, 2.7 * lines + 0.5, layout="constrained")
        panels = made.subplots(lines, columns, squeeze=False).ravel()
        handles = {}
        for axes, name in zip(panels, names, strict=False):
            for index, (label, history) in enumerate(histories.items()):
                points = [
                    (entry["step"], entry[name])
                    for entry in history
                    if name in entry and np.isfinite(entry[name])
                ]
                if not points:
                    continue
                steps, values = np.array(points, dtype=np.float64).T
                colour = ROW_COLOURS[index % len(ROW_COLOURS)]
                thin = slice(None, None, max(1, len(steps) // _POINTS))
                axes.plot(steps[thin], values[thin], color=colour, alpha=0.22, linewidth=0.9)
                (handles[label],) = axes.plot(
                    steps[thin], _smooth(values)[thin], color=colour, label=label, linewidth=1.6
                )
            stage = name.removeprefix("kept_")
            is_share = stage != name
            axes.set_title(f"kept after stage {stage}" if is_share else _TITLES.get(name, name))
            axes.set_xlabel("training step")
            axes.set_ylabel("fraction of patches" if is_share else "loss (no unit)")
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        made.legend(
            list(handles.values()), list(handles), loc="outside lower center",
            ncols=min(5, len(handles)),
        )  # fmt: skip
        return to_png(made)


def speed_chart(rows: Sequence[RowResult], intervals: dict[str, Interval]) -> bytes:
    """Draw mAP with its interval over throughput, one point per row.

    Args:
        rows: Rows of the comparison.
        intervals: Name of the row -> interval of its mAP.

    Returns:
        A PNG.
    """
    with context():
        made = figure(8.4, 3.7, layout="constrained")
        axes = made.subplots()
        for index, (row, shift) in enumerate(zip(rows, _side_by_side(rows), strict=True)):
            interval = intervals[row.name]
            axes.errorbar(
                row.images_per_second + shift,
                interval.estimate,
                yerr=[[interval.estimate - interval.low], [interval.high - interval.estimate]],
                color=ROW_COLOURS[index % len(ROW_COLOURS)],
                marker=ROW_MARKERS[index % len(ROW_MARKERS)],
                markersize=8,
                capsize=4,
                linestyle="none",
                label=row.label,
            )
        axes.set_xlabel("throughput (images per second)")
        axes.set_ylabel("mAP (%)")
        axes.set_xlim(left=0)
        axes.margins(x=0.08, y=0.12)
        made.legend(loc="outside right center")
        return to_png(made)


def _side_by_side(rows: Sequence[RowResult]) -> list[float]:
    """Return a horizontal shift for each row, so that bars at equal speeds do not overlap."""
    shifts = []
    step = 0.022 * max(row.images_per_second for row in rows)
    for row in rows:
        near = [
            other for other in rows if abs(other.images_per_second - row.images_per_second) <= step
        ]
        place = next(index for index, other in enumerate(near) if other is row)
        shifts.append(step * (place - (len(near) - 1) / 2))
    return shifts


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return the running mean over about a twentieth of the curve, cut off at its ends."""
    half = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values)])
    centre = np.arange(len(values))
    low = np.maximum(centre - half, 0)
    high = np.minimum(centre + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)
