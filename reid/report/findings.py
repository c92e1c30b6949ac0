"""What the numbers of a run say, in sentences that are true whatever the numbers are."""

from dataclasses import dataclass
from itertools import pairwise

from reid.evaluation.bootstrap import Interval, paired_bootstrap
from reid.report.shares import StageShare
from reid.report.types import DemoRun, RowResult

_CLEAR_POINTS = 1.0


@dataclass(frozen=True)
class Finding:
    """One measured statement.

    Attributes:
        heading: What it is about.
        text: What was measured.
    """

    heading: str
    text: str


def students(run: DemoRun) -> list[RowResult]:
    """Return the rows except the teacher's."""
    return [row for row in run.rows if row.name != "teacher"]


def best(rows: list[RowResult]) -> RowResult:
    """Return the row with the highest mAP; the first wins a tie."""
    return max(rows, key=lambda row: row.ranking.mAP)


def paired_differences(run: DemoRun) -> dict[str, dict[str, Interval]]:
    """Return the paired differences of neighbouring rows, and of the teacher and the best student.

    What `run.differences` already holds is taken as it is.

    Returns:
        `upper - lower` -> score -> interval, in percentage points.
    """
    rows = students(run)
    pairs = [(upper, lower) for lower, upper in pairwise(rows)]
    pairs += [(row, best(rows)) for row in run.rows if row.name == "teacher" and rows]
    found = dict(run.differences)
    for upper, lower in pairs:
        key = f"{upper.name} - {lower.name}"
        if key not in found:
            found[key] = paired_bootstrap(upper.ranking, lower.ranking)
    return found


def describe(
    run: DemoRun,
    intervals: dict[str, dict[str, Interval]],
    differences: dict[str, dict[str, Interval]],
    shares: dict[str, list[StageShare]],
) -> list[Finding]:
    """Put the run's main numbers into words.

    Args:
        run: The run.
        intervals: Name of the row -> score -> interval.
        differences: As `paired_differences` returns.
        shares: Label of the row -> where its tokens lie per stage.
    """
    rows = students(run)
    found: list[Finding] = []
    if rows:
        found.append(_best(best(rows), intervals, many=len(rows) > 1))
        found += _steps(rows, differences)
        found += _speed(rows)
        found += _teacher(run, best(rows), differences)
    found += _baselines(run)
    found += _tokens(shares)
    found.append(_counting(run))
    return found


def compare(label: str, other: str, interval: Interval, queries: int) -> str:
    """Return a sentence on whether `label` is above `other` in mAP."""
    points = abs(interval.estimate)
    span = f"{interval.level:.0%} interval {interval.low:+.1f} to {interval.high:+.1f}"
    way = "above" if interval.estimate > 0 else "below" if interval.estimate < 0 else "equal to"
    by = "" if interval.estimate == 0 else f"{points:.1f} points "
    name = label[:1].upper() + label[1:]
    start = f"{name} is {by}{way} {other} in mAP ({span}, paired over {queries} queries)"
    if interval.excludes_zero:
        return f"{start}. The interval excludes zero."
    return f"{start}. The interval includes zero, so this run does not show a difference."


def _best(row: RowResult, intervals: dict[str, dict[str, Interval]], *, many: bool) -> Finding:
    score, first = intervals[row.name]["mAP"], intervals[row.name]["rank1"]
    lead = f"Of the students, {row.label} has the highest mAP" if many else f"{row.label} has mAP"
    return Finding(
        "Best student",
        f"{lead}: {score.estimate:.1f}% ({score.low:.1f} to {score.high:.1f}), with rank-1 "
        f"{first.estimate:.1f}% ({first.low:.1f} to {first.high:.1f}).",
    )


def _steps(rows: list[RowResult], differences: dict[str, dict[str, Interval]]) -> list[Finding]:
    found = []
    for lower, upper in pairwise(rows):
        interval = differences[f"{upper.name} - {lower.name}"]["mAP"]
        text = compare(upper.label, lower.label, interval, upper.ranking.queries)
        if upper.name == "hts+npkd" and lower.name == "hts" and interval.estimate <= 0:
            text += " The gain that the paper reports for distillation did not appear here."
        found.append(Finding(f"{upper.label} against {lower.label}", text))
    return found


def _speed(rows: list[RowResult]) -> list[Finding]:
    dense = [row for row in rows if row.kept is None]
    pruned = [row for row in rows if row.kept is not None]
    if not dense or not pruned:
        return []
    ratios = [row.speedup for row in pruned]
    ends = [f"{min(ratios):.2f}", f"{max(ratios):.2f}"]
    span = ends[0] if ends[0] == ends[1] else " to ".join(ends)
    tokens = " to ".join(str(count) for count in pruned[0].tokens)
    return [
        Finding(
            "Speed",
            f"With real pruning (patch tokens: {tokens}) a student processes {span} times as many "
            f"images per second as the dense one ({dense[0].images_per_second:,.0f} img/s), "
            "measured in the same run.",
        )
    ]


def _teacher(
    run: DemoRun, row: RowResult, differences: dict[str, dict[str, Interval]]
) -> list[Finding]:
    teacher = next((candidate for candidate in run.rows if candidate.name == "teacher"), None)
    key = f"teacher - {row.name}"
    if teacher is None or key not in differences:
        return []
    text = compare("The teacher", row.label, differences[key]["mAP"], teacher.ranking.queries)
    return [Finding("Teacher against the best student", text)]


def _baselines(run: DemoRun) -> list[Finding]:
    histogram = run.baselines.get("colour_histogram")
    if histogram is None or not run.rows:
        return []
    nearest = min(run.rows, key=lambda row: row.ranking.rank1)
    points = nearest.ranking.rank1 - histogram.rank1
    way = "above" if points > 0 else "below"
    return [
        Finding(
            "Is it more than colour?",
            f"A colour histogram without any training has rank-1 {histogram.rank1:.1f}%. The "
            f"weakest trained row, {nearest.label}, is {abs(points):.1f} points {way} it "
            f"({nearest.ranking.rank1:.1f}%).",
        )
    ]


def _tokens(shares: dict[str, list[StageShare]]) -> list[Finding]:
    if not shares:
        return []
    label, stages = list(shares.items())[-1]
    first, last = stages[0].share, stages[-1].share
    gain = last["body"] - first["body"]
    if gain > _CLEAR_POINTS:
        verdict = "The pruning prefers the body."
    elif gain < -_CLEAR_POINTS:
        verdict = "The pruning drops the body more often than chance would."
    else:
        verdict = "The pruning hardly prefers the body over the rest."
    return [
        Finding(
            "What is kept",
            f"{label}: of the area of all tokens {first['body']:.0f}% is body, "
            f"{first['occluder']:.0f}% occluder and {first['background']:.0f}% background; of "
            f"the tokens left after the last stage {last['body']:.0f}%, {last['occluder']:.0f}% "
            f"and {last['background']:.0f}%. {verdict}",
        )
    ]


def _counting(run: DemoRun) -> Finding:
    ranking = run.rows[0].ranking
    text = (
        f"{ranking.queries} queries are counted against {len(ranking.gallery_pids)} gallery "
        f"images, {ranking.skipped} are skipped because the gallery holds no match for them."
    )
    ties = max(row.ranking.tied for row in run.rows)
    text += (
        f" Up to {ties} queries of a row have a tie that could change their score."
        if ties
        else " No query has a tie that could change its score."
    )
    return Finding("Counting", text)
