"""The tables of the page: scores with intervals, paired differences, where tokens lie."""

from reid.evaluation.bootstrap import Interval
from reid.report.html import Cell, Line, paragraph, table
from reid.report.shares import REGIONS, StageShare
from reid.report.types import DemoRun

_HEAD = ["", "Patch tokens", "Images/s", "Ratio", "Rank-1 (%)", "Rank-5 (%)", "mAP (%)", "mINP (%)"]
_SCORES = ("rank1", "rank5", "mAP", "mINP")
_BASELINES = {
    "chance": "chance",
    "colour_histogram": "colour histogram",
    "untrained": "untrained network",
    "backbone": "backbone before training",
}


def score_table(run: DemoRun, intervals: dict[str, dict[str, Interval]]) -> list[str]:
    """Return the table of all rows and baselines, and how to read it.

    Args:
        run: The run.
        intervals: Name of the row -> score -> interval.
    """
    tops = {
        score: max(intervals[row.name][score].estimate for row in run.rows if row.name != "teacher")
        if any(row.name != "teacher" for row in run.rows)
        else float("nan")
        for score in _SCORES
    }
    lines: list[Line] = []
    for row in run.rows:
        scores = intervals[row.name]
        cells: list[Cell | str] = [
            Cell(row.label, strong=True),
            " > ".join(str(count) for count in row.tokens),
            f"{row.images_per_second:,.0f}",
            f"{row.speedup:.2f}",
        ]
        for score in _SCORES:
            interval = scores[score]
            strong = row.name != "teacher" and interval.estimate == tops[score]
            span = f"{interval.low:.1f} to {interval.high:.1f}"
            cells.append(Cell(f"{interval.estimate:.1f}", span, strong))
        lines.append(Line(cells, "group" if lines and run.rows[0].name == "teacher"
                          and len(lines) == 1 else ""))  # fmt: skip
    for index, (name, ranking) in enumerate(run.baselines.items()):
        values = [ranking.rank(1), ranking.rank(5), ranking.mAP, ranking.mINP]
        lines.append(
            Line(
                [_BASELINES.get(name, name), "", "", "", *(f"{value:.1f}" for value in values)],
                "quiet group" if index == 0 else "quiet",
            )
        )
    first = next(iter(intervals.values()))["mAP"]
    note = (
        f"Small figures are {first.level:.0%} bootstrap intervals over the queries "
        f"({first.samples} samples, seed {first.seed}). Bold is the best student. Patch tokens: "
        "all of them, then what is left after each pruning stage. Images/s is measured with real "
        "pruning; ratio is over the dense student in the same run. Grey rows are baselines."
    )
    return [table(_HEAD, lines), paragraph(note, "note")]


def difference_table(run: DemoRun, differences: dict[str, dict[str, Interval]]) -> list[str]:
    """Return the table of paired differences, and how to read it."""
    labels = {row.name: row.label for row in run.rows}
    lines = []
    for key, scores in differences.items():
        upper, _, lower = key.partition(" - ")
        cells: list[Cell | str] = [
            f"{labels.get(upper, upper)} minus {labels.get(lower, lower)}" if lower else key
        ]
        for score in ("rank1", "mAP"):
            if score not in scores:
                cells.append("")
                continue
            interval = scores[score]
            span = f"{interval.low:+.1f} to {interval.high:+.1f}"
            cells.append(Cell(f"{interval.estimate:+.1f}", span, interval.excludes_zero))
        excluded = "mAP" in scores and scores["mAP"].excludes_zero
        cells.append("yes" if excluded else "no")
        lines.append(Line(cells))
    note = (
        "Differences in percentage points with 95% intervals from a paired bootstrap: both rows "
        "are scored on the same resampled queries. Where the interval includes zero, the run does "
        "not show that one row is better. One training run per row: the interval does not hold "
        "the spread between seeds."
    )
    head = ["", "Rank-1 (points)", "mAP (points)", "mAP interval excludes zero"]
    return [table(head, lines), paragraph(note, "note")]


def share_table(shares: dict[str, list[StageShare]]) -> str:
    """Return the table of where the tokens of each row lie, stage by stage."""
    head = ["", "Stage", "Tokens", *(f"On {region} (%)" for region in REGIONS),
            *(f"{region.capitalize()} left (%)" for region in REGIONS)]  # fmt: skip
    lines: list[Line] = []
    for label, stages in shares.items():
        for index, stage in enumerate(stages):
            lines.append(
                Line(
                    [
                        Cell(label if index == 0 else "", strong=True),
                        "all" if index == 0 else f"{index} (block {stage.stage})",
                        str(stage.tokens),
                        *(f"{stage.share[region]:.1f}" for region in REGIONS),
                        *(f"{stage.survives[region]:.1f}" for region in REGIONS),
                    ],
                    "group" if index == 0 and lines else "",
                )
            )
    return table(head, lines)
