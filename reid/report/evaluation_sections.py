"""The sections of the report of one evaluation, and the charts that go with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from reid.evaluation.features import Features
from reid.evaluation.result import RankingResult
from reid.evaluation.slices import camera_matrix
from reid.report import evaluation_charts as charts
from reid.report import evaluation_tables as tables
from reid.report import evaluation_words as words
from reid.report import heat, html, lists
from reid.report.cameras import busiest
from reid.report.html import Cell
from reid.report.measures import cmc_band, count, slice_rows
from reid.report.names import ImageSet
from reid.report.pairs import pair_distances
from reid.report.style import write_atomic

_RANKED = 10
_HARDEST = 15
_CHART_LINES = 60
_LEVEL = 0.95
_ENOUGH = 20
_RATES = (1e-4, 1e-3, 1e-2, 1e-1)


class Sheet:
    """Collects the sections in the order in which they are asked for.

    Args:
        folder: Where the charts are written as PNG files.
        query: Features of the queries.
        gallery: Features of the gallery.
        result: Their evaluation.
        distractor_pid: As it was given to `evaluate`.
    """

    def __init__(
        self,
        folder: Path,
        query: Features,
        gallery: Features,
        result: RankingResult,
        distractor_pid: int | None,
    ) -> None:
        self.sections: list[str] = []
        self.missing: list[str] = []
        self._folder, self._query, self._gallery = folder, query, gallery
        self._result, self._distractor_pid = result, distractor_pid
        self._intervals = words.all_intervals(result)
        self._findings: list[tuple[str, str]] = []
        self._find_scores()

    def summary(self) -> str:
        """Return the main findings of the sections so far."""
        return html.section("At a glance", html.definitions(self._findings))

    def _find_scores(self) -> None:
        score, first = self._intervals["mAP"][0], self._intervals["rank1"][0]
        self._findings.append(
            (
                "Scores",
                f"mAP {score.estimate:.1f}% ({score.low:.1f} to {score.high:.1f}) and rank-1 "
                f"{first.estimate:.1f}% ({first.low:.1f} to {first.high:.1f}) over "
                f"{self._result.queries:,} counted "
                f"quer{'ies' if self._result.queries != 1 else 'y'}.",
            )
        )

    def scores(self) -> None:
        """Add the table of scores."""
        first = self._intervals["mAP"][0]
        head: list[Cell | str] = ["", "Value (%)", f"{first.level:.0%} over queries",
                f"{first.level:.0%} over identities", Cell("Definition", wrap=True)]  # fmt: skip
        note = (
            f"Intervals are percentiles of {first.samples:,} bootstrap samples (seed "
            f"{first.seed}). Resampling identities with all their queries is the more careful "
            "choice, because the queries of one person are not independent. Neither holds the "
            "spread between training runs. No re-ranking is applied."
        )
        table = html.table(head, tables.score_lines(self._intervals))
        self.sections.append(html.section("Scores", table, html.paragraph(note, "note")))

    def counting(self) -> None:
        """Add who counts and who does not."""
        found = words.counting_words(self._result, count(self._result, self._distractor_pid))
        self.sections.append(html.section("How it was counted", html.definitions(found)))

    def cmc(self) -> None:
        """Add the CMC curve with its band."""
        png = charts.cmc_band_chart(self._result.cmc, cmc_band(self._result), _LEVEL)
        self._show(
            "cmc", "CMC curve", png,
            "How many queries have a match among the first r counted images of their ranked "
            f"gallery. The band is the {_LEVEL:.0%} bootstrap interval of each rank by itself.",
        )  # fmt: skip

    def slices(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Add the scores by query camera and by whatever else is known."""
        cameras = [f"camera {camera}" for camera in self._query.camids]
        known = {"query camera": cameras} if len(set(cameras)) > 1 else {}
        rows = slice_rows(self._result, {**known, **groups})
        head = ["", "", "Queries", "Skipped", "mAP (%)", "95%", "Rank-1 (%)", "95%"]
        table = html.table(head, tables.slice_lines(rows), close=True)
        drawn = [row for row in rows if row.mAP is not None][:_CHART_LINES]
        if not drawn:
            self.missing.append(
                "slices: all queries are of one camera, and nothing else is known of them"
            )
            return
        overall = {"mAP": self._result.mAP, "rank1": self._result.rank1}
        self._find_weakest(drawn)
        self._show(
            "slices", "Where it is strong and weak", charts.slice_chart(drawn, overall),
            "Scores of the queries that share a property; bars are 95% bootstrap intervals over "
            "the queries. Slices of few queries have wide bars: where bars overlap widely, these "
            "queries do not show a difference.",
            table,
        )  # fmt: skip

    def _find_weakest(self, rows: Sequence[charts.SliceRow]) -> None:
        score = self._result.mAP
        clear = [
            (row.mAP, row)
            for row in rows
            if row.mAP is not None and row.mAP.high < score and row.queries >= _ENOUGH
        ]
        if clear:
            interval, row = min(clear, key=lambda pair: pair[0].estimate)
            text = (
                f"{row.group[:1].upper()}{row.group[1:]}, {row.label}: mAP "
                f"{interval.estimate:.1f}% ({interval.low:.1f} to {interval.high:.1f}) over "
                f"{row.queries:,} queries, against {score:.1f}% over all."
            )
            self._findings.append(("Weakest", text))

    def cameras(self) -> None:
        """Add the scores by query camera and gallery camera."""
        sides = [(part, busiest(part.camids)) for part in (self._query, self._gallery)]
        found = camera_matrix(
            *(part.subset(np.isin(part.camids, cameras)) for part, cameras in sides),
            metric=self._result.metric, ties=self._result.ties,
            distractor_pid=self._distractor_pid,
        )  # fmt: skip
        left_out = sum(len(np.unique(part.camids)) - len(cameras) for part, cameras in sides)
        if found.mAP.size == 1:
            self.missing.append("scores by camera: queries and gallery have one camera each")
            return
        names = [
            [str(camera) for camera in side]
            for side in (found.query_cameras, found.gallery_cameras)
        ]
        matrices = [
            heat.heat_table(
                f"{title} (%)", values,
                found.queries, names[0], names[1], corner="query / gallery",
            )
            for title, values in (("mAP", found.mAP), ("Rank-1", found.rank1))
        ]  # fmt: skip
        note = (
            "Each cell ranks only the gallery images of one camera for the queries of another; "
            "below the score stands the number of counted queries. Fewer wrong images and fewer "
            "matches take part than in the whole gallery, so the cells do not average to the "
            "scores above. A dash: no query has a match there, or both are the same camera, whose "
            "images do not count. Darker is better; camera ids as in the features."
        )
        if left_out:
            note += (
                f" The cameras with most images are shown; {left_out:,} rows and columns "
                "of others are left out."
            )
        self.sections.append(
            html.section(
                "From camera to camera",
                f'<div class="beside">{"".join(matrices)}</div>',
                html.paragraph(note, "note"),
            )
        )

    def threshold(self, fpr: float) -> None:
        """Add the distances of pairs, the ROC and the threshold for a share of wrong matches."""
        rates = sorted({*_RATES, fpr})
        pairs = pair_distances(
            self._query, self._gallery, rates, metric=self._result.metric,
            distractor_pid=self._distractor_pid,
        )  # fmt: skip
        wrong, gallery = pairs.impostors, len(self._gallery)
        chosen = {rate: pairs.at(rate) for rate in rates}
        sentence = words.threshold_words(chosen[fpr], self._result.metric, fpr, wrong, gallery)
        self._findings.append(("Same person or not", sentence))
        lines = [tables.threshold_line(rate, chosen[rate]) for rate in rates]
        head = ["Wrong matches at most", "Accept a distance below", "True pairs accepted (%)",
                "Wrong pairs accepted"]  # fmt: skip
        caption = (
            "All pairs of a query and a gallery image that count. Where the two shapes overlap, no "
            "threshold tells one person from two."
        )
        mark = chosen[fpr]
        png = charts.distance_chart(
            pairs.edges, pairs.same, pairs.different,
            None if mark is None else mark.distance, self._result.metric,
        )  # fmt: skip
        self._show("distances", "Same person or not: a threshold", png, caption,
                   html.table(head, lines), above=html.paragraph(sentence))  # fmt: skip
        points = [(found.fpr, found.tpr) for found in chosen.values() if found is not None]
        if not points:
            self.missing.append("ROC: there are too few pairs of two persons")
            return
        self._show(
            "roc", "ROC", charts.roc_chart(pairs.curve[0], pairs.curve[1], points),
            "True pairs accepted over wrong pairs accepted, over all thresholds; the marks are the "
            "lines of the table above. A threshold holds for these cameras, this model and this "
            "share of easy and hard pairs: measure it again on images of your own.",
        )  # fmt: skip

    def hardest(self, queries: ImageSet, gallery: ImageSet) -> None:
        """Add the table of the hardest queries."""
        chosen = lists.hardest_first(self._result)[:_HARDEST]
        head: list[Cell | str] = [
            "Query", "Identity", "Camera", "AP (%)", "First match", "Matches",
            Cell("Nearest counted image", wrap=True), "Its identity",
        ]  # fmt: skip
        lines = tables.hardest_lines(
            self._result, chosen, queries.names, gallery.names, self._distractor_pid
        )
        note = (
            "Lowest average precision first, then the latest first match. First match: its "
            "place among the counted gallery images. Look here for wrong labels, too."
        )
        table = html.table(head, lines, close=True)
        self.sections.append(html.section("Hardest queries", table, html.paragraph(note, "note")))

    def lists(self, queries: ImageSet, gallery: ImageSet, examples: int) -> None:
        """Add ranked lists with thumbnails."""
        body = lists.ranked_lists(
            self._result,
            lists.choose(self._result, examples),
            queries.names,
            gallery.names,
            queries.picture,
            gallery.picture,
            k=_RANKED,
            distractor_pid=self._distractor_pid,
        )
        about = (
            "Left: the query; then the gallery from nearest to farther, with the distance below. "
            "Solid green with a tick is a match, dashed red with a cross another person or a "
            "distractor, dotted grey is junk that takes no place."
        )
        missing = queries.missing + gallery.missing
        notes = [html.paragraph(about)]
        if missing:
            notes.append(
                html.paragraph(
                    f"{missing:,} images are shown by name, because they were not found or cannot "
                    "be read. Name their folder or archive with --images.",
                    "note",
                )
            )
        self.sections.append(html.section("Ranked lists", *notes, body))

    def _show(
        self, name: str, title: str, png: bytes, caption: str, *below: str, above: str = ""
    ) -> None:
        write_atomic(self._folder / f"{name}.png", png)
        picture = html.picture(png, f"{title}. {caption}", caption)
        self.sections.append(html.section(title, above, picture, *below))
