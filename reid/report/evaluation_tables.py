"""The tables of the report of one evaluation."""

from collections.abc import Sequence

from reid.evaluation.bootstrap import Interval
from reid.evaluation.result import RankingResult
from reid.report.evaluation_charts import SliceRow
from reid.report.evaluation_words import one_in, shown
from reid.report.html import Cell, Line
from reid.report.lists import who
from reid.report.pairs import Threshold

_SCORES = (
    ("rank1", "Rank-1", "queries whose nearest counted gallery image is a match"),
    ("rank5", "Rank-5", "queries with a match among the nearest 5"),
    ("rank10", "Rank-10", "queries with a match among the nearest 10"),
    ("mAP", "mAP", "mean over queries of AP = 1/R sum_j j / r_j, the precision at each of the R "
     "matches; r_j is the place of match j"),
    ("mAP_trapezoid", "mAP, trapezoid", "AP = 1/R sum_j ((j-1)/(r_j-1) + j/r_j) / 2, the original "
     "Market-1501 toolbox; not comparable with the line above"),
    ("mINP", "mINP", "mean over queries of R / r_R: how far down the last match stands"),
)  # fmt: skip


def score_lines(intervals: dict[str, tuple[Interval, Interval]]) -> list[Line]:
    """Return one line per score: name, value, intervals over queries and identities, definition."""
    lines = []
    for name, title, definition in _SCORES:
        queries, pids = intervals[name]
        spans = [f"{part.low:.1f} to {part.high:.1f}" for part in (queries, pids)]
        lines.append(
            Line([Cell(title, strong=True), Cell(f"{queries.estimate:.1f}", strong=True), *spans,
                  Cell(definition, wrap=True)])
        )  # fmt: skip
    return lines


def slice_lines(rows: Sequence[SliceRow]) -> list[Line]:
    """Return one line per slice: group, label, queries, skipped, mAP and rank-1 with intervals."""
    lines, last = [], ""
    for row in rows:
        new = row.group != last
        cells: list[Cell | str] = [
            Cell(row.group if new else "", strong=True),
            Cell(row.label, wrap=True),
            f"{row.queries:,}",
            f"{row.skipped:,}",
        ]
        for interval in (row.mAP, row.rank1):
            cells += ["-" if interval is None else f"{interval.estimate:.1f}", _span(interval, row)]
        lines.append(Line(cells, "group" if new and last else ""))
        last = row.group
    return lines


def _span(interval: Interval | None, row: SliceRow) -> str:
    if interval is None or row.queries == 1:
        return "-"
    return f"{interval.low:.1f} to {interval.high:.1f}"


def threshold_line(asked: float, threshold: Threshold | None) -> Line:
    """Return a share of wrong matches, the distance for it, and what it accepts."""
    if threshold is None:
        return Line([one_in(asked), "-", "-", "too few pairs to tell"], "quiet")
    return Line(
        [one_in(asked), f"{shown(threshold.distance):.6f}", f"{100 * threshold.tpr:.1f}",
         f"{threshold.accepted:,}"]
    )  # fmt: skip


def hardest_lines(
    result: RankingResult,
    queries: Sequence[int],
    names: Sequence[str],
    gallery: Sequence[str],
    distractor_pid: int | None,
) -> list[Line]:
    """Return one line per query: what it is, AP, first match, matches, and what is nearest to it.

    Args:
        result: An evaluation.
        queries: Rows of the query set.
        names: (Q) what to call a query image.
        gallery: (G) what to call a gallery image.
        distractor_pid: Identity that marks distractors.
    """
    table = result.per_query
    lines = []
    for query in queries:
        nearest = next(
            (item for item in result.top(query, result.top_indices.shape[1])
             if item.status != "junk"), None,
        )  # fmt: skip
        seen = ["-", "-"]
        if nearest is not None:
            pid = int(result.gallery_pids[nearest.gallery])
            seen = [gallery[nearest.gallery], f"{who(pid, distractor_pid)}, {nearest.status}"]
        lines.append(
            Line([
                Cell(names[query], wrap=True), str(int(result.query_pids[query])),
                str(int(result.query_camids[query])), f"{table.ap[query]:.2f}",
                f"{int(table.first_rank[query]):,}", f"{int(table.matches[query]):,}",
                Cell(seen[0], wrap=True), seen[1],
            ])
        )  # fmt: skip
    return lines
