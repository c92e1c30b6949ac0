"""A page of cut-outs to look at."""

from collections.abc import Mapping, Sequence

import numpy as np

from reid._optional import require
from reid.data.occluders.instances import Pixels

_CELL = 112
_LABEL = 14
_COLUMNS = 10
_LEAST_COLUMNS = 3
_GAP = 8
_PAPER = (246, 246, 244)
_INK = (40, 40, 40)
_CHECKS = ((226, 226, 226), (206, 206, 206))


def contact_sheet(cutouts: Mapping[str, Sequence[tuple[str, Pixels]]], *, most: int = 40) -> Pixels:
    """Draw the cut-outs of each category under its name, over a chequered ground.

    Args:
        cutouts: By category: a label and (h, w, 4) uint8 RGBA of each.
        most: Cut-outs drawn of one category; the heading says how many there are.

    Returns:
        (H, W, 3) uint8 RGB, at most ten cut-outs in a row.
    """
    image, draw_module = require("PIL.Image"), require("PIL.ImageDraw")
    line = _CELL + _LABEL + _GAP
    heading = 2 * _LABEL + _GAP
    columns = min(_COLUMNS, max(map(len, cutouts.values())))
    lines = [-(-min(len(items), most) // columns) for items in cutouts.values()]
    width = max(columns, _LEAST_COLUMNS) * (_CELL + _GAP) + _GAP
    height = sum(lines) * line + len(cutouts) * heading + _GAP
    page = image.new("RGB", (width, height), _PAPER)
    draw = draw_module.Draw(page)
    ground = image.fromarray(_ground())
    top = 0
    for (category, items), rows in zip(cutouts.items(), lines, strict=True):
        shown = f", the first {most}" if len(items) > most else ""
        draw.text((_GAP, top + _LABEL), f"{category} ({len(items)}{shown})", fill=_INK)
        top += heading
        for number, (label, rgba) in enumerate(items[:most]):
            left = _GAP + number % columns * (_CELL + _GAP)
            upper = top + number // columns * line
            thumbnail = image.fromarray(rgba)
            thumbnail.thumbnail((_CELL, _CELL))
            place = (
                left + (_CELL - thumbnail.width) // 2,
                upper + (_CELL - thumbnail.height) // 2,
            )
            page.paste(ground, (left, upper))
            page.paste(thumbnail, place, thumbnail)
            draw.text((left, upper + _CELL + 1), label, fill=_INK)
        top += rows * line
    return np.asarray(page)


def _ground() -> Pixels:
    rows, columns = np.indices((_CELL, _CELL)) // 8
    return np.array(_CHECKS, np.uint8)[(rows + columns) % 2]
