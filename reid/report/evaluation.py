"""The report of one evaluation: any features, any data set, one page."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid.errors import UserError
from reid.evaluation.features import Features
from reid.evaluation.result import RankingResult
from reid.report import evaluation_sections as parts
from reid.report import heat, html, lists
from reid.report.names import ImageSet
from reid.report.style import write_atomic


@dataclass(frozen=True)
class Origin:
    """What is printed about where the numbers come from.

    Attributes:
        title: Heading of the page.
        data: The data set in words; empty when unknown.
        command: The command that made the page; empty when there was none.
        settings: Names and values for the end of the page.
    """

    title: str = "Evaluation"
    data: str = ""
    command: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def evaluation_report(
    query: Features,
    gallery: Features,
    result: RankingResult,
    out: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    query_paths: Sequence[str] | None = None,
    gallery_paths: Sequence[str] | None = None,
    slices: Mapping[str, Sequence[str]] | None = None,
    distractor_pid: int | None = 0,
    fpr: float = 1e-3,
    examples: int = 12,
    origin: Origin | None = None,
) -> Path:
    """Write `report.html`: scores, curves, slices, cameras, a threshold and ranked lists.

    Args:
        query: Features of the queries.
        gallery: Features of the gallery.
        result: Their evaluation.
        out: Folder; made when missing. The charts are written there as PNG files, too.
        images: Folder or archive in which the images are looked up by the ends of their names;
            None takes the names as paths. Images that are not found are shown as their names.
        query_paths: (Q) images of the queries; None takes the names in the features.
        gallery_paths: (G) images of the gallery; None takes the names in the features.
        slices: Name of a group -> (Q) label of each query, empty where unknown. The query cameras
            are always shown.
        distractor_pid: As it was given to `evaluate`.
        fpr: Share of wrong pairs that a threshold may accept, in fractions of 1.
        examples: Queries in each choice of ranked lists; 0 shows none.
        origin: What to print about where the numbers come from.

    Returns:
        The HTML file; it holds every picture and opens without any other file.

    Raises:
        UserError: Features, evaluation, paths or slices do not belong together, or an argument is
            out of range.
    """
    _check(query, gallery, result, fpr, examples)
    origin = origin or Origin()
    queries = ImageSet("query", len(query), query.names, query_paths, images)
    rows = ImageSet("gallery", len(gallery), gallery.names, gallery_paths, images)
    sheet = parts.Sheet(Path(out), query, gallery, result, distractor_pid)
    sheet.scores()
    sheet.counting()
    sheet.cmc()
    sheet.slices(slices or {})
    sheet.cameras()
    sheet.threshold(fpr)
    sheet.hardest(queries, rows)
    if examples:
        sheet.lists(queries, rows, examples)
    document = html.page(
        origin.title,
        _header(query, gallery, origin.data),
        [sheet.summary(), *sheet.sections],
        _footer(result, origin, sheet.missing),
        style=heat.CSS + lists.CSS,
    )
    return write_atomic(Path(out) / "report.html", document)


def _check(
    query: Features, gallery: Features, result: RankingResult, fpr: float, examples: int
) -> None:
    for kind, features, pids, camids in (
        ("query", query, result.query_pids, result.query_camids),
        ("gallery", gallery, result.gallery_pids, result.gallery_camids),
    ):
        if not (np.array_equal(features.pids, pids) and np.array_equal(features.camids, camids)):
            raise UserError(
                f"the evaluation is of other images: {len(pids)} {kind} rows against "
                f"{len(features)} {kind} features; pass the features that were evaluated"
            )
    if not 0.0 < fpr < 1.0:
        raise UserError(
            f"the share of wrong matches to accept is between 0 and 1, got {fpr}; usual is 0.001"
        )
    if not 0 <= examples <= lists.MOST_EXAMPLES:
        raise UserError(
            f"{examples} ranked lists of each kind were asked for; a page holds 0 to "
            f"{lists.MOST_EXAMPLES}"
        )


def _header(query: Features, gallery: Features, data: str) -> str:
    cameras = len(np.union1d(query.camids, gallery.camids))
    known = f"{data}: " if data else ""
    words = (
        f"{known}{len(query):,} queries against {len(gallery):,} gallery images, {cameras:,} "
        f"camera{'s' if cameras != 1 else ''}, {_size(query)}."
    )
    return html.paragraph(words[:1].upper() + words[1:], "lead")


def _size(features: Features) -> str:
    shape, kind = features.features.shape, features.features.dtype
    if features.visibility is not None:
        return f"features of {shape[1]:,} parts of {shape[2]:,} numbers"
    return (
        f"codes of {64 * shape[1]:,} bits"
        if kind == torch.int64
        else (f"features of {shape[1]:,} numbers")
    )


def _footer(result: RankingResult, origin: Origin, missing: Sequence[str]) -> str:
    made: dict[str, Any] = {"command": origin.command} if origin.command else {}
    settings = {**made, "metric": result.metric, "ties": result.ties, **origin.settings}
    parts = ["<h2>Not shown</h2>"] if missing else []
    parts += [html.paragraph(f"{reason[:1].upper()}{reason[1:]}.") for reason in missing]
    return "".join([*parts, "<h2>How this was made</h2>", html.settings_table(settings)])
