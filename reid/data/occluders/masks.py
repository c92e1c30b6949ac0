"""Instance masks as COCO's annotations hold them: polygons and run lengths.

The formats are those of the COCO object detection annotations (T.-Y. Lin et al., "Microsoft COCO:
Common Objects in Context", arXiv:1405.0312, and its mask API).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reid.errors import UserError

Mask = npt.NDArray[np.bool_]

_FIRST_CHARACTER = 48
_SLACK = 1.0


def segmentation_mask(segmentation: Any, size: tuple[int, int]) -> Mask:
    """Mask of one instance.

    Args:
        segmentation: A list of polygons [x0, y0, x1, y1, ...], or a dictionary of run lengths with
            `size` [height, width] and `counts`, a list of integers or COCO's compressed string.
        size: Height and width of the image.

    Returns:
        (H, W) bool.

    Raises:
        UserError: Damaged, or of another size than the image.
    """
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != list(size):
            raise UserError(
                f"its mask is {segmentation.get('size')} (height, width), the image {list(size)}"
            )
        counts = segmentation.get("counts")
        if isinstance(counts, str):
            counts = decode_counts(counts)
        if not isinstance(counts, list):
            raise UserError("its run lengths have no counts")
        return run_length_mask(counts, size)
    if isinstance(segmentation, list) and segmentation:
        return polygon_mask(segmentation, size)
    raise UserError("it has neither polygons nor run lengths")


def polygon_mask(parts: Sequence[Any], size: tuple[int, int]) -> Mask:
    """Pixels whose centre lies inside one of the polygons.

    Pixel (row, column) has its centre at y = row + 0.5, x = column + 0.5, so that the rectangle
    from (x0, y0) to (x1, y1) in whole numbers covers the columns x0 to x1 - 1. Inside a part is
    what an odd number of edges lies left of; the parts are united.

    Args:
        parts: Polygons, each a flat list x0, y0, x1, y1, ... of at least three points.
        size: Height and width of the image.

    Returns:
        (H, W) bool.

    Raises:
        UserError: A polygon is malformed or lies more than a pixel outside the image.
    """
    height, width = size
    mask = np.zeros(size, bool)
    for part in parts:
        try:
            points = np.array(part, np.float64).reshape(-1, 2)
        except (ValueError, TypeError) as error:
            raise UserError("its polygon is not a flat list of x, y pairs") from error
        if len(points) < 3 or not np.isfinite(points).all():
            raise UserError("its polygon has fewer than three points or one that is no number")
        if (points < -_SLACK).any() or (points > np.array([width, height]) + _SLACK).any():
            raise UserError(
                f"its polygon reaches x, y = {points.min(0).tolist()} to {points.max(0).tolist()}, "
                f"outside the image of {width} x {height}"
            )
        # every crossing of a row's centre line flips the pixels to its right
        flips = np.zeros((height, width + 1), np.int64)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            low, high = min(y0, y1), max(y0, y1)
            rows = np.arange(max(0, _centre(low)), min(height, _centre(high)))
            if len(rows):
                crossings = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
                columns = np.ceil(crossings - 0.5).clip(0, width).astype(np.int64)
                flips[rows, columns] += 1
        mask |= np.cumsum(flips, axis=1)[:, :width] % 2 == 1
    return mask


def run_length_mask(counts: Sequence[int], size: tuple[int, int]) -> Mask:
    """Pixels of run lengths that go down the columns, outside first.

    Args:
        counts: Lengths of the runs outside, inside, outside, ...
        size: Height and width of the image.

    Returns:
        (H, W) bool.

    Raises:
        UserError: The runs do not add up to the image.
    """
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise UserError("its run lengths are not whole numbers from 0 on")
    if sum(counts) != size[0] * size[1]:
        raise UserError(
            f"its run lengths add up to {sum(counts)} pixels, the image {size[1]} x {size[0]} "
            f"has {size[0] * size[1]}"
        )
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(size, order="F")


def decode_counts(text: str) -> list[int]:
    """Run lengths of COCO's compressed string.

    A character holds six bits, counted from "0": five of the number, the lowest first, and one
    that says whether more follow. The highest bit of the last five is the sign. From the fourth
    on, a number is the difference from the one two before it.

    Args:
        text: The `counts` of a compressed mask.

    Returns:
        Lengths of the runs.

    Raises:
        UserError: A character that does not occur in this format, or an unfinished number.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - _FIRST_CHARACTER
        if not 0 <= bits < 64:
            raise UserError(f"its run lengths contain the character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise UserError("its run lengths end in the middle of a number")
    return counts


def _centre(position: float) -> int:
    """The first row or column whose centre is not before a position."""
    return int(np.ceil(position - 0.5))
