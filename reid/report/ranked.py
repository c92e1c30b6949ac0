"""Ranked lists: a query and the gallery images nearest to it, right, wrong and junk."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from reid.errors import UserError
from reid.evaluation.result import RankingResult
from reid.report.sheet import Sheet, load_image
from reid.report.style import INK, MUTED, STATUS_COLOURS, write_atomic

_STYLES: dict[str, Any] = {"right": "solid", "wrong": (0, (3, 1.6)), "junk": "solid"}
_SIGNS = {"right": "\u2713", "wrong": "\u2717", "junk": "junk"}
_LEGEND = {
    "right": "right: same person, other camera",
    "wrong": "wrong: another person or a distractor",
    "junk": "junk: same camera or a bad box, takes no place",
}


def ranked_list_sheet(
    ranking: RankingResult,
    query_paths: Sequence[str],
    gallery_paths: Sequence[str],
    queries: Sequence[int],
    *,
    k: int = 10,
    path: str | os.PathLike[str] | None = None,
    image_size: tuple[int, int] = (256, 128),
    height: int = 164,
) -> bytes:
    """Draw one line per query: the query, then the `k` gallery rows nearest to it.

    Args:
        ranking: Evaluation that kept at least `k` rows per query.
        query_paths: (Q) image files, all queries of the evaluation.
        gallery_paths: (G) image files, the whole gallery.
        queries: Which queries to draw.
        k: Gallery images per query, junk included.
        path: Where to write the PNG as well; None writes nothing.
        image_size: Height and width; only their ratio matters here.
        height: Height of one picture on the sheet, pixels.

    Returns:
        A PNG.

    Raises:
        UserError: No query, or paths that do not belong to the evaluation.
    """
    if len(queries) == 0:
        raise UserError("no query to draw; give at least one")
    for what, paths, pids in (
        ("query", query_paths, ranking.query_pids),
        ("gallery", gallery_paths, ranking.gallery_pids),
    ):
        if len(paths) != len(pids):
            raise UserError(
                f"{len(paths)} {what} images were given for an evaluation of {len(pids)}; "
                "pass the lists that the features were extracted from"
            )
    width = round(height * image_size[1] / image_size[0])
    first, step, line = 14, width + 10, height + 34
    left = first + width + 34
    head, foot = 54, 10
    sheet = Sheet(max(left + k * step + 4, 900), head + len(queries) * line + foot)
    _legend(sheet, first)
    for position, query in enumerate(queries):
        items = ranking.top(query, k)
        y = head + position * line + 20
        sheet.image(first, y, load_image(query_paths[query], height, width))
        sheet.frame(first, y, width, height, INK, linewidth=1.2)
        sheet.text(first, y - 6, f"query, id {ranking.query_pids[query]}", 8.5)
        for column, item in enumerate(items):
            x = left + column * step
            picture = load_image(gallery_paths[item.gallery], height, width)
            if item.status == "junk":
                grey = picture.mean(axis=2, keepdims=True)
                picture = np.repeat((0.5 * grey + 127.5).astype(np.uint8), 3, axis=2)
            sheet.image(x, y, picture)
            colour = STATUS_COLOURS[item.status]
            sheet.frame(x, y, width, height, colour, linewidth=2.6, linestyle=_STYLES[item.status])
            sign = _SIGNS[item.status]
            label = sign if item.status == "junk" else f"{item.rank} {sign}"
            sheet.text(x, y - 6, label, 8.5, color=colour, fontweight="bold")
    png = sheet.png()
    if path is not None:
        write_atomic(path, png)
    return png


def _legend(sheet: Sheet, x: float) -> None:
    for status, words in _LEGEND.items():
        colour = STATUS_COLOURS[status]
        sheet.frame(x, 15, 16, 16, colour, linewidth=2.2, linestyle=_STYLES[status])
        sign = "" if status == "junk" else f"{_SIGNS[status]} "
        sheet.text(x + 26, 28, sign + words, 9, color=MUTED if status == "junk" else colour)
        x += 60 + 7.3 * len(words)
