"""Charts of one evaluation: CMC with its band, slices, distances of pairs, ROC."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from reid.evaluation.bootstrap import Interval
from reid.report.style import INK, MUTED, ROW_COLOURS, RULE, context, figure, to_png

_BLUE, _ORANGE = ROW_COLOURS[1], ROW_COLOURS[2]
_CMC_RANKS = 50


@dataclass(frozen=True)
class SliceRow:
    """Scores of the queries that share a label.

    Attributes:
        group: What the queries are divided by, such as `query camera`.
        label: The value they share.
        queries: Counted queries.
        skipped: Queries without a match.
        rank1: In percent with its interval; None without a counted query.
        mAP: The same.
    """

    group: str
    label: str
    queries: int
    skipped: int
    rank1: Interval | None
    mAP: Interval | None


def cmc_band_chart(cmc: NDArray[np.float64], band: NDArray[np.float64], level: float) -> bytes:
    """Draw a CMC curve with the interval of every rank.

    Args:
        cmc: (R,) percent.
        band: (2, R) lower and upper ends, percent.
        level: Coverage of the band.

    Returns:
        A PNG.
    """
    ranks = np.arange(1, min(len(cmc), _CMC_RANKS) + 1)
    curve, (low, high) = cmc[: len(ranks)], band[:, : len(ranks)]
    with context():
        made = figure(8.4, 4.2, layout="constrained")
        axes = made.subplots()
        axes.fill_between(
            ranks, low, high, color=_BLUE, alpha=0.2, linewidth=0, label=f"{level:.0%} interval"
        )
        axes.plot(ranks, curve, color=_BLUE, marker="o", markersize=3.5, label="CMC")
        named = [rank for rank in (1, 5, 10, 20) if rank <= len(curve)]
        for rank in named:
            axes.annotate(
                f"rank-{rank}: {curve[rank - 1]:.1f}",
                (rank, low[rank - 1]),
                xytext=(4, -16),
                textcoords="offset points",
                fontsize=9,
                color=INK,
            )
        axes.set_xlabel("rank r (place in the ranked gallery)")
        axes.set_ylabel("queries with a match by place r (%)")
        axes.set_xticks([1, *range(5, len(ranks) + 1, 5)])
        axes.set_xlim(0.4, max(len(ranks), 2) + 0.6)
        axes.set_ylim(max(0.0, float(low.min()) - 14.0), 101.0)
        axes.legend(loc="lower right")
        return to_png(made)


def slice_chart(rows: Sequence[SliceRow], overall: dict[str, float]) -> bytes:
    """Draw mAP and rank-1 with their intervals, one line per slice.

    Args:
        rows: Slices with at least one counted query, those of a group side by side.
        overall: `mAP` and `rank1` of all queries, percent: the dashed lines.

    Returns:
        A PNG.
    """
    lines: list[tuple[str, SliceRow | None]] = []
    for group, members in groupby(rows, key=lambda row: row.group):
        lines.append((group, None))
        lines += [(row.label, row) for row in members]
    height = 0.22 * len(lines) + 1.1
    with context():
        made = figure(8.4, height, layout="constrained")
        axes = made.subplots()
        for score, colour, style in (("rank1", _ORANGE, "--"), ("mAP", _BLUE, "--")):
            axes.axvline(overall[score], color=colour, linewidth=1.1, linestyle=style, alpha=0.8)
        styles = {"mAP": ("o", _BLUE, "mAP", -0.13), "rank1": ("s", _ORANGE, "rank-1", 0.13)}
        for place, (_, row) in enumerate(lines):
            if row is None:
                continue
            for score, (marker, colour, _, shift) in styles.items():
                interval = getattr(row, score)
                if row.queries > 1:
                    axes.hlines(
                        place + shift, interval.low, interval.high, color=colour, linewidth=2.2,
                        alpha=0.55,
                    )  # fmt: skip
                axes.plot(
                    interval.estimate, place + shift, marker=marker, color=colour, markersize=5.5,
                    markeredgecolor="white", markeredgewidth=0.6, linestyle="none", clip_on=False,
                )  # fmt: skip
        for marker, colour, name, _ in styles.values():
            axes.plot([], [], marker=marker, color=colour, linestyle="none", label=name)
        axes.plot([], [], color=MUTED, linewidth=1.1, linestyle="--", label="all queries")
        axes.set_yticks(range(len(lines)))
        axes.set_yticklabels(
            [name if row is None else f"{_short(name)}  ({row.queries:,})" for name, row in lines],
            parse_math=False,
        )
        for text, (_, row) in zip(axes.get_yticklabels(), lines, strict=True):
            text.set_fontweight("bold" if row is None else "normal")
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(lines) - 0.4, -0.7)
        axes.set_xlim(0, 100.5)
        axes.set_xlabel("percent (number of counted queries in brackets)")
        axes.grid(axis="y", visible=False)
        made.legend(loc="outside upper center", ncols=3)
        return to_png(made)


def distance_chart(
    edges: NDArray[np.float64],
    same: NDArray[np.int64],
    different: NDArray[np.int64],
    threshold: float | None,
    metric: str,
) -> bytes:
    """Draw how far apart pairs of images of one person and of two persons are.

    Args:
        edges: (B + 1,) edges of the bins, ascending.
        same: (B,) pairs of one person in each bin.
        different: (B,) pairs of two persons.
        threshold: A distance to mark; None marks nothing.
        metric: Name of the distance.

    Returns:
        A PNG.
    """
    with context():
        made = figure(8.4, 3.6, layout="constrained")
        axes = made.subplots()
        for counts, colour, hatch, name in (
            (different, _ORANGE, "", "different persons"),
            (same, _BLUE, "////", "same person"),
        ):
            share = 100.0 * counts / max(1, int(counts.sum()))
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.22)
            axes.stairs(
                share, edges, color=colour, linewidth=1.7, hatch=hatch or None,
                linestyle="-" if hatch else (0, (5, 1.5)),
                label=f"{name} ({int(counts.sum()):,} pairs)",
            )  # fmt: skip
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.4, label=f"threshold {threshold:.4f}")
        axes.set_xlabel(f"{metric} distance")
        axes.set_ylabel("share of the pairs (%)")
        axes.set_xlim(float(edges[0]), float(edges[-1]))
        axes.set_ylim(bottom=0)
        axes.grid(axis="x", visible=False)
        made.legend(loc="outside upper center", ncols=3)
        return to_png(made)


def roc_chart(
    fpr: NDArray[np.float64], tpr: NDArray[np.float64], points: Sequence[tuple[float, float]]
) -> bytes:
    """Draw the share of true pairs accepted over the share of wrong ones, on a logarithmic axis.

    Args:
        fpr: (P,) shares of wrong pairs accepted, ascending, in fractions of 1.
        tpr: (P,) shares of true pairs accepted, in fractions of 1.
        points: (fpr, tpr) to mark.

    Returns:
        A PNG.
    """
    least = min([float(rate) for rate, _ in points] or [1e-4])
    with context():
        made = figure(8.4, 3.8, layout="constrained")
        axes = made.subplots()
        axes.plot(
            np.logspace(np.log10(least), 0, 60), 100 * np.logspace(np.log10(least), 0, 60),
            color=MUTED, linewidth=1.2, linestyle=":", label="chance",
        )  # fmt: skip
        axes.step(np.maximum(fpr, least / 3), 100.0 * tpr, where="post", color=_BLUE, label="ROC")
        for rate, found in points:
            axes.plot(rate, 100 * found, "o", color=_BLUE, markersize=6, markeredgecolor="white")
            axes.annotate(
                f"{100 * found:.1f}", (rate, 100 * found), xytext=(6, -13),
                textcoords="offset points", fontsize=9,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(least / 1.6, 1.0)
        axes.set_ylim(0, 102)
        axes.set_xlabel("wrong pairs accepted, false-positive rate (fraction, logarithmic)")
        axes.set_ylabel("true pairs accepted (%)")
        axes.legend(loc="lower right")
        axes.spines["bottom"].set_color(RULE)
        return to_png(made)


def _short(label: str) -> str:
    return label if len(label) <= 28 else label[:26] + "..."
