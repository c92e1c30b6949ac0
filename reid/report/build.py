"""The report of a run: figures as PNG files and one HTML page that holds them all."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid.errors import UserError
from reid.evaluation.bootstrap import Interval, bootstrap
from reid.report import html
from reid.report.curves import cmc_chart, speed_chart, training_chart
from reid.report.embedding import choose_identities, embed, embedding_chart
from reid.report.findings import best, describe, paired_differences, students
from reid.report.main_table import difference_table, score_table, share_table
from reid.report.overlays import Grid, overlay_sheet
from reid.report.ranked import ranked_list_sheet
from reid.report.shares import StageShare, read_regions, share_chart, stage_shares
from reid.report.style import write_atomic
from reid.report.types import DemoRun, RowResult

_EXAMPLES = 8
_RANKED = 10
_OCCLUDED = (0.08, 0.6)
_IDENTITIES = 10


@dataclass
class _Page:
    """Collects the sections and figures of the page in order, and what could not be shown."""

    folder: Path
    sections: list[str]
    missing: list[str]

    def show(self, name: str, title: str, png: bytes, caption: str, *below: str) -> None:
        write_atomic(self.folder / f"{name}.png", png)
        self.sections.append(html.section(title, html.picture(png, title, caption), *below))


def build_report(run: DemoRun, out_dir: str | os.PathLike[str]) -> Path:
    """Write `report.html` and its figures as PNG files.

    Args:
        run: What was trained and measured.
        out_dir: Folder; made when missing.

    Returns:
        The HTML file; it holds every figure and opens without any other file.

    Raises:
        UserError: The run has no row, or its image lists do not belong to its evaluations.
    """
    if not run.rows:
        raise UserError("the run has no row to report; train at least one model")
    queries = len(run.rows[0].ranking.query_pids)
    for what, paths in (("query image", run.query_paths), ("mask", run.mask_paths)):
        if paths is not None and len(paths) != queries:
            raise UserError(
                f"{len(paths)} {what} paths were given for {queries} queries; pass one per query"
            )
    sheet = _Page(Path(out_dir), [], [])
    intervals = {row.name: bootstrap(row.ranking) for row in run.rows}
    differences = paired_differences(run)
    regions = _regions(run)
    shares = _shares(run, regions)

    _scores(sheet, run, intervals, differences)
    _curves(sheet, run, intervals)
    _tokens(sheet, run, regions, shares)
    _lists(sheet, run, regions)
    _embedding(sheet, run)
    findings = describe(run, intervals, differences, shares)
    summary = html.section(
        "What was measured",
        html.definitions([(finding.heading, finding.text) for finding in findings]),
    )
    document = html.page(
        run.title, _header(run), [summary, *sheet.sections], _footer(run, sheet.missing)
    )
    return write_atomic(sheet.folder / "report.html", document)


def choose_queries(
    pids: NDArray[np.int64], candidates: NDArray[np.int64], count: int = _EXAMPLES
) -> list[int]:
    """Return evenly spaced candidates of different identities: a rule, not a selection by eye.

    Args:
        pids: (Q,) identities.
        candidates: Rows that may be chosen, ascending.
        count: How many.
    """
    _, first = np.unique(pids[candidates], return_index=True)
    distinct = candidates[np.sort(first)]
    chosen = np.linspace(0, len(distinct) - 1, min(count, len(distinct))).round().astype(int)
    return [int(distinct[index]) for index in np.unique(chosen)]


def _regions(run: DemoRun) -> NDArray[np.float64] | None:
    if run.mask_paths is None:
        return None
    return read_regions(run.mask_paths, Grid.of(run.image_size, run.patch_size))


def _shares(run: DemoRun, regions: NDArray[np.float64] | None) -> dict[str, list[StageShare]]:
    if regions is None:
        return {}
    return {row.label: stage_shares(regions, row.kept) for row in run.rows if row.kept is not None}


def _examples(run: DemoRun, regions: NDArray[np.float64] | None) -> list[int]:
    ranking = run.rows[-1].ranking
    candidates = np.flatnonzero(ranking.per_query.valid)
    if regions is not None:
        covered = regions[:, :, 1].mean(axis=1)[candidates]
        occluded = candidates[(covered >= _OCCLUDED[0]) & (covered <= _OCCLUDED[1])]
        candidates = occluded if len(occluded) else candidates
    return choose_queries(ranking.query_pids, candidates)


def _scores(
    sheet: _Page,
    run: DemoRun,
    intervals: dict[str, dict[str, Interval]],
    differences: dict[str, dict[str, Interval]],
) -> None:
    sheet.sections.append(html.section("Scores", *score_table(run, intervals)))
    if differences:
        sheet.sections.append(html.section("Row against row", *difference_table(run, differences)))


def _curves(sheet: _Page, run: DemoRun, intervals: dict[str, dict[str, Interval]]) -> None:
    sheet.show(
        "speed",
        "Accuracy and speed",
        speed_chart(run.rows, {name: scores["mAP"] for name, scores in intervals.items()}),
        "Each point is a row of the table; the bar is its 95% bootstrap interval. Further right "
        "is faster, further up is better. Points of about the same speed stand side by side.",
    )
    sheet.show(
        "cmc",
        "CMC curves",
        cmc_chart(
            {row.label: row.ranking for row in run.rows},
            {name.replace("_", " "): ranking for name, ranking in run.baselines.items()},
        ),
        "How many queries have a correct image among the first r of their ranked gallery. The left "
        "end is rank-1. Grey dashed lines need no training on this data.",
    )
    histories = {row.label: row.history for row in run.rows if row.history}
    if histories:
        sheet.show(
            "training",
            "Training curves",
            training_chart(histories),
            "The total loss and its parts over the training steps. Pale lines are the logged "
            "values, strong lines their running mean. Rows differ in the parts of their loss, so "
            "totals of different rows do not compare; single parts do.",
        )
    else:
        sheet.missing.append("training curves: the run holds no training history")


def _tokens(
    sheet: _Page,
    run: DemoRun,
    regions: NDArray[np.float64] | None,
    shares: dict[str, list[StageShare]],
) -> None:
    pruned = [row for row in run.rows if row.kept is not None]
    if not pruned:
        sheet.missing.append("kept tokens: no row prunes tokens")
        return
    row = pruned[-1]
    chosen = _examples(run, regions)
    kept = {stage: ids[chosen] for stage, ids in (row.kept or {}).items()}
    rule = "occluded queries" if regions is not None else "queries"
    sheet.show(
        "kept_tokens",
        "Which tokens are kept",
        overlay_sheet(
            [run.query_paths[query] for query in chosen],
            kept,
            image_size=run.image_size,
            patch_size=run.patch_size,
        ),
        f"Row {row.label}. Each strip shows a query and what is left of it after each pruning "
        "stage; whitened patches are dropped and cost nothing from there on. The images are "
        f"evenly spaced over the {rule}, not picked. {_stages(kept)}",
    )
    if shares:
        sheet.show(
            "token_share",
            "Where the kept tokens lie",
            share_chart(shares),
            "Share of the tokens' area on the body (with what it carries), on the occluder and on "
            "the background, by the ground-truth masks, mean over all queries. The dashed line is "
            "the body's share among all tokens: a pruning that chooses at random stays on it. The "
            "table adds how much of each region's area is left.",
            share_table(shares),
        )
    else:
        sheet.missing.append("share of tokens on body and occluder: the data set has no masks")


def _stages(kept: dict[int, NDArray[np.int64]]) -> str:
    blocks = ", ".join(str(stage) for stage in sorted(kept))
    return f"The stages sit before the blocks {blocks}, counted from 0."


def _lists(sheet: _Page, run: DemoRun, regions: NDArray[np.float64] | None) -> None:
    row = run.rows[-1]
    sheet.show(
        "ranked_lists",
        "Ranked lists",
        ranked_list_sheet(
            row.ranking,
            run.query_paths,
            run.gallery_paths,
            _examples(run, regions),
            k=min(_RANKED, row.ranking.top_indices.shape[1]),
            image_size=run.image_size,
        ),
        f"Row {row.label}. Left: the query; then the gallery from nearest to farther. Solid green "
        "with a tick is a correct match, dashed red with a cross another person, grey is junk that "
        "takes no place. The queries are evenly spaced, not picked, so failures show as they come.",
    )


def _embedding(sheet: _Page, run: DemoRun) -> None:
    rows = [row for row in _shown_in_embedding(run) if row.query_features is not None]
    rows = [row for row in rows if row.gallery_features is not None]
    if not rows:
        sheet.missing.append("t-SNE: the run holds no features")
        return
    clusters = {}
    pids: list[int] = []
    for row in rows:
        if row.query_features is None or row.gallery_features is None:
            continue
        pids = pids or choose_identities(row.query_features, row.gallery_features, _IDENTITIES)
        clusters[row.label] = embed(row.query_features, row.gallery_features, pids)
    sheet.show(
        "tsne",
        "Features in the plane (t-SNE)",
        embedding_chart(clusters),
        f"The {len(pids)} identities with most images; colour and shape are the identity, hollow "
        "marks are queries, filled ones gallery. Tight, separate groups are good. Distances "
        "between groups mean little in a t-SNE; the silhouette (-1 to 1, higher is better) is "
        "computed on the features themselves.",
    )


def _shown_in_embedding(run: DemoRun) -> list[RowResult]:
    rows = students(run)
    teacher = [row for row in run.rows if row.name == "teacher"]
    dense = [row for row in rows if row.kept is None][:1]
    pruned = [row for row in rows if row.kept is not None]
    return [*teacher, *dense, *(pruned[-1:] or [best(rows)] if rows else [])]


def _header(run: DemoRun) -> str:
    ranking = run.rows[0].ranking
    known = f"{run.data}. " if run.data else ""
    words = (
        f"{known}{len(ranking.query_pids)} queries of {len(np.unique(ranking.query_pids))} "
        f"identities, {len(ranking.gallery_pids)} gallery images, input "
        f"{run.image_size[0]} x {run.image_size[1]} pixels in patches of {run.patch_size}."
    )
    return html.paragraph(words, "lead")


def _footer(run: DemoRun, missing: list[str]) -> str:
    parts = []
    if missing:
        parts.append("<h2>Not shown</h2>")
        parts += [html.paragraph(f"{reason[:1].upper()}{reason[1:]}.") for reason in missing]
    parts.append("<h2>How this was made</h2>")
    made = {"command": run.command} if run.command else {}
    parts.append(html.settings_table({**made, **run.settings}))
    if run.versions:
        parts.append("<h2>Versions and machine</h2>")
        parts.append(html.settings_table(run.versions))
    return "".join(parts)
