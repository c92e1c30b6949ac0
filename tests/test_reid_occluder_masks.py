"""Polygons and run lengths: which pixels they cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid.data.occluders.masks import (
    decode_counts,
    polygon_mask,
    run_length_mask,
    segmentation_mask,
)
from reid.errors import UserError

# Written by COCO's own encoder for the masks below.
RECTANGLE = "9220003"
ELLIPSE = "Z37<2N2N2O0O2O00000000000000000001N101N2N2N[2"
TWO_BOXES = "X;b1d" + "0" * 68 + "\\\\1cNQeN" + "0" * 37 + "nd0"


def inside(x: float, y: float, polygon: list[float]) -> bool:
    """Odd number of edges to the left of a point."""
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    odd = False
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            odd = not odd
    return odd


def filled(polygon: list[float], height: int, width: int) -> np.ndarray:
    return np.array(
        [[inside(x + 0.5, y + 0.5, polygon) for x in range(width)] for y in range(height)]
    )


def encode(counts: list[int]) -> str:
    """The compressed string, from the description of the format."""
    text = ""
    for number, count in enumerate(counts):
        value = count - counts[number - 2] if number > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            last = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if last else 32))
            if last:
                break
    return text


def runs(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, outside first."""
    counts, state = [0], False
    for column in range(mask.shape[1]):
        for row in range(mask.shape[0]):
            if bool(mask[row, column]) != state:
                counts.append(0)
                state = not state
            counts[-1] += 1
    return counts


def test_whole_numbers_bound_whole_pixels() -> None:
    expected = np.zeros((7, 9), bool)
    expected[1:4, 2:6] = True
    for polygon in ([2, 1, 6, 1, 6, 4, 2, 4], [2, 4, 6, 4, 6, 1, 2, 1]):
        np.testing.assert_array_equal(polygon_mask([polygon], (7, 9)), expected)
    assert polygon_mask([[0, 0, 9, 0, 9, 7, 0, 7]], (7, 9)).all()
    assert polygon_mask([[-0.5, -0.5, 9.9, -0.5, 9.9, 7.5, -0.5, 7.5]], (7, 9)).all()


def test_parts_are_united_even_where_they_overlap() -> None:
    parts = [[1, 1, 5, 1, 5, 5, 1, 5], [3, 3, 8, 3, 8, 6, 3, 6], [9, 0, 10, 0, 10, 2, 9, 2]]
    expected = np.zeros((7, 11), bool)
    expected[1:5, 1:5] = expected[3:6, 3:8] = expected[0:2, 9:10] = True
    np.testing.assert_array_equal(polygon_mask(parts, (7, 11)), expected)


@given(
    st.lists(
        st.tuples(st.integers(0, 44), st.integers(0, 36)).map(lambda p: (p[0] / 4, p[1] / 4)),
        min_size=3,
        max_size=8,
    )
)
def test_polygons_cover_the_pixels_whose_centre_they_hold(
    points: list[tuple[float, float]],
) -> None:
    polygon = [value for point in points for value in point]
    np.testing.assert_array_equal(polygon_mask([polygon], (9, 11)), filled(polygon, 9, 11))


def test_strings_of_the_public_encoder() -> None:
    rectangle = np.zeros((4, 6), bool)
    rectangle[1:3, 2:5] = True
    y, x = np.mgrid[:20, :30]
    ellipse = ((x - 15) / 11) ** 2 + ((y - 9) / 8) ** 2 < 1
    boxes = np.zeros((70, 90), bool)
    boxes[10:60, 5:40] = boxes[30:35, 60:80] = True
    for text, mask in ((RECTANGLE, rectangle), (ELLIPSE, ellipse), (TWO_BOXES, boxes)):
        segmentation = {"size": list(mask.shape), "counts": text}
        np.testing.assert_array_equal(segmentation_mask(segmentation, mask.shape), mask)


def test_runs_go_down_the_columns() -> None:
    expected = np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]], bool)
    np.testing.assert_array_equal(run_length_mask([2, 4, 6], (4, 3)), expected)
    segmentation = {"size": [4, 3], "counts": [2, 4, 6]}
    np.testing.assert_array_equal(segmentation_mask(segmentation, (4, 3)), expected)
    assert run_length_mask([0, 12], (4, 3)).all()


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 9)).flatmap(
        lambda size: st.tuples(
            st.just(size), st.lists(st.booleans(), min_size=size[0], max_size=size[0])
        )
    )
)
def test_compressed_runs_return_to_the_mask(case: tuple[tuple[int, int], list[bool]]) -> None:
    (height, width), column = case
    mask = np.stack([np.roll(column, shift) for shift in range(width)], 1)
    counts = runs(mask)
    assert decode_counts(encode(counts)) == counts
    segmentation = {"size": [height, width], "counts": encode(counts)}
    np.testing.assert_array_equal(segmentation_mask(segmentation, (height, width)), mask)


def test_long_runs_need_several_characters() -> None:
    counts = [0, 1, 31, 15, 16, 1024, 5, 123456, 0, 40]
    assert decode_counts(encode(counts)) == counts


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [3, 5], "counts": [15]}, r"its mask is \[3, 5\] .* the image \[5, 3\]"),
        ({"counts": [15]}, "its mask is None"),
        ({"size": [5, 3], "counts": [14]}, "add up to 14 pixels, the image 3 x 5 has 15"),
        ({"size": [5, 3], "counts": [-1, 16]}, "not whole numbers from 0"),
        ({"size": [5, 3], "counts": [7.5, 7.5]}, "not whole numbers from 0"),
        ({"size": [5, 3], "counts": "~~"}, "the character '~'"),
        ({"size": [5, 3], "counts": "P"}, "end in the middle of a number"),
        ({"size": [5, 3]}, "have no counts"),
        ([[0, 0, 9, 0, 9, 9]], r"its polygon reaches .*\[9.0, 9.0\], outside the image of 3 x 5"),
        ([[0, 0, 1, 1]], "fewer than three points"),
        ([[0, 0, 1, 1, 2]], "not a flat list"),
        ([[0, 0, 1, 1, "x", 2]], "not a flat list"),
        ([[0, 0, 1, 1, float("nan"), 2]], "is no number"),
        ([], "neither polygons nor run lengths"),
        (None, "neither polygons nor run lengths"),
    ],
)
def test_damaged_masks(segmentation: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        segmentation_mask(segmentation, (5, 3))
