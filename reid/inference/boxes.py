"""Boxes around persons in a frame: formats, clipping, crops."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reid.errors import UserError

BoxFormat = Literal["xyxy", "tlwh"]
Pixels = NDArray[np.uint8]


def to_corners(boxes: ArrayLike, box_format: BoxFormat = "xyxy") -> NDArray[np.float64]:
    """Bring boxes into the form left, top, right, bottom.

    Args:
        boxes: (N, 4) numbers in pixels, N may be 0; a single box may be (4,). Anything NumPy
            reads, such as a list of lists.
        box_format: `xyxy` (left, top, right, bottom) or `tlwh` (left, top, width, height).

    Returns:
        (N, 4) float64.

    Raises:
        UserError: Another shape or format, a value that is not finite, or a box without area.
    """
    if box_format not in get_args(BoxFormat):
        raise UserError(f"box_format is 'xyxy' or 'tlwh', got {box_format!r}")
    try:
        values = np.array(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"boxes are not a table of numbers ({error}); give (N, 4)") from error
    if values.size == 0:
        return np.empty((0, 4))
    values = np.atleast_2d(values)
    if values.ndim != 2 or values.shape[1] != 4:
        raise UserError(
            f"boxes have shape {np.shape(boxes)}; expected (N, 4), one row for each box, without "
            "score or class"
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise UserError(f"box {row} is {values[row].tolist()}; every number must be finite")
    if box_format == "tlwh":
        values = np.concatenate([values[:, :2], values[:, :2] + values[:, 2:]], axis=1)
    flat = (values[:, 2:] <= values[:, :2]).any(axis=1)
    if flat.any():
        row = int(np.argmax(flat))
        given = np.atleast_2d(np.array(boxes, dtype=np.float64))[row].tolist()
        raise UserError(
            f"box {row} is {given} and has no area as {box_format}; check box_format, which is "
            "'xyxy' or 'tlwh'"
        )
    return values


def crop(frame: Pixels, boxes: NDArray[np.float64]) -> list[Pixels | None]:
    """Cut boxes out of a frame.

    Args:
        frame: (H, W, 3) uint8.
        boxes: (N, 4) corners as of `to_corners`; clipped to the frame, rounded to whole pixels,
            at least one pixel wide and high.

    Returns:
        For every box a view (h, w, 3) of the frame, or None if it lies outside.
    """
    height, width = frame.shape[:2]
    crops: list[Pixels | None] = []
    for left, top, right, bottom in boxes:
        if left >= width or top >= height or right <= 0 or bottom <= 0:
            crops.append(None)
            continue
        x, y = min(round(max(left, 0.0)), width - 1), min(round(max(top, 0.0)), height - 1)
        x_end = max(min(round(right), width), x + 1)
        y_end = max(min(round(bottom), height), y + 1)
        crops.append(frame[y:y_end, x:x_end])
    return crops
