"""Exact nearest neighbours: against sorted distances, with ties, copies and hard rounding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reid.clustering import neighbours as module
from reid.clustering.neighbours import Neighbours, neighbours
from reid.errors import UserError


def distances(query: Tensor, gallery: Tensor, metric: str) -> np.ndarray:
    """The definition, pair by pair in float64, rounded to float32."""
    found = np.zeros((len(query), len(gallery)))
    for i, x in enumerate(query.double().numpy()):
        for j, y in enumerate(gallery.double().numpy()):
            if metric == "cosine":
                x1, y1 = x * (1.0 / math.sqrt((x * x).sum())), y * (1.0 / math.sqrt((y * y).sum()))
                d = ((x1 - y1) ** 2).sum() / 2.0
                found[i, j] = 0.0 if d < 2.0**-40 else d
            else:
                found[i, j] = math.sqrt(((x - y) ** 2).sum())
    return found.astype(np.float32)


def nearest(distance: np.ndarray, k: int) -> tuple[list[list[int]], list[list[float]]]:
    """Sort whole rows by distance, then by index."""
    rows = [sorted((d, j) for j, d in enumerate(row))[:k] for row in distance.tolist()]
    return [[j for _, j in row] for row in rows], [[d for d, _ in row] for row in rows]


def check(found: Neighbours, distance: np.ndarray, k: int) -> None:
    indices, values = nearest(distance, k)
    assert found.indices.dtype == torch.int64
    assert found.distances.dtype == torch.float32
    assert found.indices.tolist() == indices
    assert found.distances.tolist() == values


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 40),
    k=st.integers(1, 45),
    metric=st.sampled_from(["cosine", "euclidean"]),
    kind=st.sampled_from(["smooth", "grid", "copies", "collapsed"]),
    chunk=st.integers(1, 50),
)
def test_equals_sorted_rows(
    seed: int, count: int, k: int, metric: str, kind: str, chunk: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 3, generator=generator)
    if kind == "grid":
        features = features.round() + 0.5
    if kind == "copies":
        features = features[torch.randint(0, max(1, count // 4), (count,), generator=generator)]
    if kind == "collapsed":
        features = 1.0 + 1e-6 * features
    distance = distances(features, features, metric)
    check(neighbours(features, k, metric=metric, chunk=chunk), distance, k)
    query = features[: (count + 1) // 2]
    found = neighbours(query, k, gallery=features, metric=metric, chunk=chunk)
    check(found, distance[: len(query)], k)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_tiles_do_not_change_the_result(metric: str) -> None:
    features = torch.randn(900, 24) + 0.5
    features[300:600] = features[:300]
    expected = neighbours(features, 13, metric=metric, chunk=900)
    for chunk in (37, 64, 256):
        found = neighbours(features, 13, metric=metric, chunk=chunk)
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.distances, expected.distances)
    other = neighbours(features, 13, gallery=features.clone(), metric=metric, chunk=100)
    assert torch.equal(other.indices, expected.indices)
    assert torch.equal(other.distances, expected.distances)


def test_orders_by_index_what_float32_cannot_tell_apart() -> None:
    features = torch.zeros(200, 2)
    features[:, 0] = 1.0
    # |x| = 1 + e^2 / 2 falls with the index, all of it below half a float32 step
    features[:, 1] = 1e-4 * torch.linspace(1.0, 0.1, 200)
    found = neighbours(torch.zeros(1, 2), 5, gallery=features, metric="euclidean")
    assert found.distances.unique().tolist() == [1.0]
    assert found.indices.tolist() == [[0, 1, 2, 3, 4]]


def test_copies_beyond_the_spare_candidates_come_in_order_of_index() -> None:
    features = torch.randn(3, 8)[torch.arange(300) % 3]
    found = neighbours(features, 4)
    assert found.indices[:6].tolist() == [[r, r + 3, r + 6, r + 9] for r in (0, 1, 2)] * 2
    assert found.distances.unique().tolist() == [0.0]


def test_multiples_tie_under_cosine() -> None:
    features = torch.randn(1, 16) * torch.rand(60, 1).add(0.1)
    for k in (60, 20):
        found = neighbours(features, k)
        assert found.indices.tolist() == [list(range(k))] * 60


def test_far_from_the_origin_and_of_any_size() -> None:
    features = torch.randn(60, 6)
    for shifted in (features + 1000.0, features * 1e-18, features * 1e15):
        expected = distances(shifted, shifted, "euclidean")
        check(neighbours(shifted, 9, metric="euclidean", chunk=16), expected, 9)


def test_reduced_precision_of_the_caller_is_neither_used_nor_lost() -> None:
    # two shells far from the center, of 400 rows each at nearly one distance from their middle
    middle = torch.tensor([[3.0, 0.0, 0.0, 0.0]])
    shell = torch.nn.functional.normalize(torch.randn(400, 4)) * (1.0 + 1e-4 * torch.rand(400, 1))
    features = torch.cat([middle + shell, -middle - shell, middle])
    expected = neighbours(features, 21, metric="euclidean")
    last = Neighbours(expected.indices[-1:], expected.distances[-1:])
    check(last, distances(features[-1:], features, "euclidean"), 21)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = neighbours(features, 21, metric="euclidean")
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.distances, expected.distances)


def test_computes_half_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    products = []
    scores = module._scores

    def count(rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
        tile = scores(rows, columns)
        products.append(tile.numel())
        return tile

    monkeypatch.setattr(module, "_scores", count)
    neighbours(torch.randn(1000, 4), 5, chunk=50)
    assert sum(products) == (1000**2 + 1000 * 50) // 2
    assert max(products) == 50 * 100


def test_finds_the_farthest_row() -> None:
    features = torch.randn(200, 5)
    points = module.Points(features, "euclidean")
    distance = distances(features, features, "euclidean")
    for chunk in (32, 500):
        _, far = module.search(points, points, 3, chunk=chunk, farthest=True)
        np.testing.assert_allclose(far, distance.max(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("features", "k", "message"),
    [
        (torch.ones(3), 1, "table"),
        (torch.ones(0, 3), 1, "table"),
        (torch.tensor([[1.0, math.nan], [1.0, 2.0]]), 1, "NaN or infinite.*row 0"),
        (torch.tensor([[1.0], [0.0]]), 1, "row 1 .*zeros"),
        (torch.ones(2, 2), 0, "k must be at least 1, got 0"),
    ],
)
def test_bad_input(features: Tensor, k: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        neighbours(features, k)


def test_widths_that_differ() -> None:
    with pytest.raises(UserError, match="3 dimensions and gallery features 2"):
        neighbours(torch.ones(2, 3), 1, gallery=torch.ones(2, 2))
