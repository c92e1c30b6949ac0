"""Rows at which float32 scores err as much as they can: places and nearest rows stay exact."""

import pytest
import torch
from torch import Tensor

from kernels import _backend
from kernels._cpu import build
from kernels.ranking import Gallery

pytestmark = pytest.mark.skipif(
    bool(_backend.cpu_reasons(torch.device("cpu"))), reason="there are no C++ kernels"
)
UNIT = 2.0**-24


@pytest.fixture(params=["avx512", "avx2", "generic"])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SPARSE_VIT_CPU_ISA", request.param)
    try:
        build.load().isa()
    except RuntimeError as error:
        pytest.skip(str(error))
    return request.param


def lossy(width: int) -> Tensor:
    """A row whose product with itself loses every term but the first.

    After the sum has reached 1, terms of half its last digit are rounded away: 127 in the first
    128, and the sum of every later 128 when it is added.
    """
    row = torch.full((width,), 2.0**-15.5)
    row[:128] = 2.0**-12
    row[0] = 1.0
    return row


@pytest.mark.parametrize("width", [2, 64, 128, 300, 512, 4096])
def test_a_product_that_errs_by_nearly_the_bound(width: int, isa: str) -> None:
    row = lossy(width)
    lost = min(width, 128) - 1 + (-(-width // 128) - 1)
    # the sum of squares in float32, as the kernels add: chunks of 128, then the chunks
    exact, rounded = float(row.double() @ row.double()), 1.0
    assert (exact - rounded) / UNIT == pytest.approx(lost, rel=0.02)
    assert lost > 0.9 * (128 + -(-width // 128) + 10) or width < 128
    gallery = torch.stack([row, -row])  # the mean is zero
    steps = torch.tensor([0.01, 0.1, 0.5, 0.9, 1.1, 2.0]) * lost
    thresholds = (2.0 * steps * UNIT).sqrt()[:, None]  # one each: together they are looked up
    found = Gallery(gallery, "euclidean", impl="cpu").places(row.repeat(6, 1), thresholds, top=1)
    assert found.less.tolist() == [[1]] * 6
    assert found.nearest.tolist() == [[0]] * 6


def gaining(width: int) -> Tensor:
    """Almost `lossy`, but what its products with that row lose is just enough to be rounded up."""
    row = lossy(width)
    row[1:128] *= 1.0 + 2.0**-10
    return row


def test_the_nearest_row_though_another_has_the_larger_score(isa: str) -> None:
    row, other = lossy(128), gaining(128)
    gallery = torch.stack([other, row, -other, -row])
    found = Gallery(gallery, "euclidean", impl="cpu").places(row[None], top=1)
    assert found.nearest.tolist() == [[1]]
    assert found.distances.tolist() == [[0.0]]


def test_the_farthest_row_with_a_score_below_the_least(isa: str) -> None:
    gallery = torch.stack([gaining(128), -gaining(128)])
    found = Gallery(gallery, "euclidean", impl="cpu").places(
        -lossy(128)[None], torch.tensor([[9.0]])
    )
    assert found.less.tolist() == [[2]]


def same_as_float64(query: Tensor, gallery: Tensor, metric: str) -> None:
    """Compare with sorting the distances in float64, every row of the gallery being a threshold."""
    prepared = Gallery(gallery, metric, impl="cpu")
    pairs = torch.cartesian_prod(torch.arange(len(query)), torch.arange(len(gallery)))
    table = prepared.distances(query, *pairs.t()).view(len(query), len(gallery))
    thresholds, columns = table.sort(dim=1, stable=True)
    found = prepared.places(query, thresholds, columns, top=len(gallery))
    assert torch.equal(found.nearest, columns)
    few = min(3, len(gallery))
    assert torch.equal(prepared.places(query, top=few).nearest, columns[:, :few])
    assert torch.equal(found.distances, thresholds)
    at = thresholds[:, :, None] == table[:, None, :]
    before = torch.arange(len(gallery)) < columns[:, :, None]
    assert torch.equal(found.less, (table[:, None, :] < thresholds[:, :, None]).sum(dim=2))
    assert torch.equal(found.equal, at.sum(dim=2))
    assert torch.equal(found.earlier, (at & before).sum(dim=2))


def spread(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("width", [1, 3, 128, 4096])
@pytest.mark.parametrize("size", [1e-38, 1e-18, 1.0, 1e18])
def test_widths_and_sizes(metric: str, width: int, size: float, isa: str) -> None:
    """From one number to 4096, from subnormal rows to squares beyond float32."""
    gallery = size * spread(90, width)
    gallery[::5] = gallery[0]
    same_as_float64(size * spread(4, width, 1), gallery, metric)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("step", [1e-2, 1e-4, 1e-6])
def test_small_steps_far_from_the_origin(metric: str, step: float, isa: str) -> None:
    """Under 2^-40 of the squares a distance is zero, though the centred rows still differ."""
    base = 1.0 + spread(1, 24).abs()
    same_as_float64(base + step * spread(5, 24, 1), base + step * spread(150, 24, 2), metric)


@pytest.mark.parametrize("far", [1e3, 1e6, 1e9, 1e30])
def test_a_query_so_far_away_that_distances_round_to_the_same_number(far: float, isa: str) -> None:
    query = far * spread(4, 8, 1)
    same_as_float64(query, spread(150, 8, 2), "euclidean")


@pytest.mark.parametrize("far", [1e6, 1e18])
def test_one_row_far_from_all_others(far: float, isa: str) -> None:
    """The centre lies far from the cluster, and the longest row makes the bound wide."""
    gallery = spread(100, 8)
    gallery[17] *= far
    same_as_float64(spread(4, 8, 1), gallery, "euclidean")
    same_as_float64(spread(4, 8, 1), gallery, "cosine")


@pytest.mark.parametrize(
    ("long", "short"), [(1e30, 1e-30), (1e25, 1e-15), (1e38, 1e-43), (1e20, 1)]
)
def test_queries_whose_scores_would_leave_float32(long: float, short: float, isa: str) -> None:
    """The distances of such a query are computed; those of the other one still need not be."""
    query = long * spread(5, 8, 1)
    query[2] = short * spread(1, 8, 3)
    same_as_float64(query, short * spread(200, 8, 2), "euclidean")


def test_queries_longer_than_an_empty_looking_gallery(isa: str) -> None:
    same_as_float64(1e30 * spread(3, 8, 1), torch.zeros(20, 8), "euclidean")


def test_pairs_left_out_where_scores_would_leave_float32(isa: str) -> None:
    gallery = Gallery(
        1e-30 * spread(4, 3), "euclidean", countable=torch.tensor([1, 0, 1, 1]).bool(), impl="cpu"
    )
    query = 1e30 * spread(1, 3, 1)
    pair = torch.tensor([0]), torch.tensor([3])
    threshold = gallery.distances(query, *pair)[None]
    found = gallery.places(query, threshold, torch.tensor([[3]]), excluded=pair)
    assert [int(x) for x in found[:3]] == [0, 2, 2]


@pytest.mark.parametrize("size", [1e-43, 1e-41, 1e-39])
@pytest.mark.parametrize("rows", [1, 40])
def test_distances_below_the_smallest_normal_number(size: float, rows: int, isa: str) -> None:
    """The step of float32 does not shrink with them."""
    for seed in range(20):
        same_as_float64(size * spread(4, 5, seed + 100), size * spread(rows, 5, seed), "euclidean")


@pytest.mark.parametrize("rows", [2, 300])
def test_distances_beyond_the_largest_number(rows: int, isa: str) -> None:
    same_as_float64(
        3e38 * spread(4, 6, 1).clamp(-1, 1), 3e38 * spread(rows, 6).clamp(-1, 1), "euclidean"
    )
