"""Places and nearest rows against plain loops, on every implementation and instruction set."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from kernels import _backend
from kernels._cpu import build
from kernels.ranking import METRICS, Gallery, nearest

CPU = pytest.param(
    "cpu",
    marks=pytest.mark.skipif(
        bool(_backend.cpu_reasons(torch.device("cpu"))),
        reason="; ".join(_backend.cpu_reasons(torch.device("cpu"))) or "it is there",
    ),
)
IMPLEMENTATIONS = [CPU, "reference"]
ISAS = ["avx512", "avx2", "generic"]


def distance(a, b, metric):
    """The exact distance of float32 rows, rounded to float64 at the end only."""
    if metric == "hamming":
        words = zip(a, b, strict=True)
        return float(sum(bin((int(x) ^ int(y)) & (2**64 - 1)).count("1") for x, y in words))
    dot, aa, bb = (
        sum(Fraction(float(x)) * Fraction(float(y)) for x, y in zip(u, v, strict=True))
        for u, v in ((a, b), (a, a), (b, b))
    )
    if metric == "euclidean":
        return math.sqrt(aa + bb - 2 * dot)
    ratio = Fraction(math.isqrt(int(dot * dot / (aa * bb) * 10**40)), 10**20)
    return float(1 - ratio if dot > 0 else 1 + ratio)


def make(metric, rows, width, generator):
    if metric == "hamming":
        return torch.randint(-(2**62), 2**62, (rows, width), generator=generator)
    return torch.randn(rows, width, generator=generator)


def problem(metric="cosine", queries=5, rows=70, width=9, seed=0, twins=True):
    """Rows of which every fourth repeats, thresholds at rows of the gallery, pairs left out."""
    generator = torch.Generator().manual_seed(seed)
    gallery = make(metric, rows, width, generator)
    if twins:
        gallery[3::4] = gallery[0]
    query = make(metric, queries, width, generator)
    query[0] = gallery[0]
    columns = torch.stack(
        [torch.randperm(rows, generator=generator)[:6].sort().values for _ in range(queries)]
    )
    countable = torch.rand(rows, generator=generator) < 0.8
    out = torch.stack(
        [torch.randperm(rows, generator=generator)[:4].sort().values for _ in range(queries)]
    )
    excluded = torch.arange(queries).repeat_interleave(4), out.flatten()
    return query, gallery, columns, countable, excluded


def solve(metric, impl, query, gallery, columns, countable, excluded, top=7):
    prepared = Gallery(gallery, metric, countable=countable, impl=impl)
    rows = torch.arange(len(query)).repeat_interleave(columns.shape[1])
    thresholds = prepared.distances(query, rows, columns.flatten()).view(columns.shape)
    thresholds, order = thresholds.sort(dim=1, stable=True)
    columns = columns.gather(1, order)
    # a row of the table may be shorter than the others
    thresholds[1, 4:] = torch.inf
    sizes = torch.full((len(query),), columns.shape[1])
    sizes[1] = 4
    places = prepared.places(query, thresholds, columns, sizes=sizes, excluded=excluded, top=top)
    return thresholds, columns, places


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("metric", ["cosine", "euclidean", "hamming"])
def test_equals_plain_loops(metric: str, impl: str) -> None:
    query, gallery, columns, countable, excluded = problem(metric)
    thresholds, columns, places = solve(metric, impl, query, gallery, columns, countable, excluded)
    left_out = set(zip(*(x.tolist() for x in excluded), strict=True))
    for i, row in enumerate(query.tolist()):
        table = [np.float32(distance(row, other, metric)) for other in gallery.tolist()]
        ranked = sorted(range(len(table)), key=lambda g: (table[g], g))[:7]
        assert places.nearest[i].tolist() == ranked
        assert places.distances[i].tolist() == [table[g] for g in ranked]
        counted = [g for g in range(len(table)) if countable[g] and (i, g) not in left_out]
        for j, column in enumerate(columns[i].tolist()):
            got = [int(x[i, j]) for x in places[:3]]
            if i == 1 and j >= 4:
                assert got == [0, 0, 0]
                continue
            t = table[column]
            assert float(thresholds[i, j]) == t
            same = [g for g in counted if table[g] == t]
            less = sum(table[g] < t for g in counted)
            assert got == [less, len(same), sum(g < column for g in same)]


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_order_that_float32_products_get_wrong(impl: str) -> None:
    """Rows whose distances differ by less than a float32 product's error, far from the origin."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(200, generator=generator) + 5
    steps = 2e-6 * torch.randn(600, 200, generator=generator)
    gallery = base + steps
    query = base[None] + torch.randn(4, 200, generator=generator)
    columns = torch.arange(0, 600, 40).repeat(4, 1)
    rough = 1.0 - torch.nn.functional.normalize(query) @ torch.nn.functional.normalize(gallery).t()
    wide = query.double() @ gallery.double().t()
    wide /= query.double().norm(dim=1, keepdim=True) * gallery.double().norm(dim=1)
    exact = (1.0 - wide).float()
    assert not torch.equal(rough.argsort(dim=1, stable=True), exact.argsort(dim=1, stable=True))
    places = Gallery(gallery, impl=impl).places(
        query, exact.gather(1, columns).sort(dim=1).values, top=600
    )
    assert torch.equal(places.nearest, exact.argsort(dim=1, stable=True))
    thresholds = exact.gather(1, columns).sort(dim=1).values
    less = (exact[:, None, :] < thresholds[:, :, None]).sum(dim=2)
    equal = (exact[:, None, :] == thresholds[:, :, None]).sum(dim=2)
    assert torch.equal(places.less, less)
    assert torch.equal(places.equal, equal)


@pytest.mark.skipif(
    bool(_backend.cpu_reasons(torch.device("cpu"))), reason="there are no C++ kernels"
)
@pytest.mark.parametrize("metric", ["cosine", "euclidean", "hamming"])
@pytest.mark.parametrize(
    ("queries", "rows", "width"), [(5, 70, 9), (150, 1111, 3), (3, 513, 300), (2, 512, 128)]
)
def test_instruction_sets_threads_and_shapes_agree_to_the_bit(
    metric: str, queries: int, rows: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = problem(metric, queries, rows, width)
    expected = solve(metric, "reference", *inputs)
    threads = torch.get_num_threads()
    for isa in ISAS:
        monkeypatch.setenv("SPARSE_VIT_CPU_ISA", isa)
        try:
            build.load().isa()
        except RuntimeError:
            continue
        for count in (1, 3):
            torch.set_num_threads(count)
            try:
                found = solve(metric, "cpu", *inputs)
            finally:
                torch.set_num_threads(threads)
            assert torch.equal(found[0], expected[0])
            for name, got, wanted in zip(found[2]._fields, found[2], expected[2], strict=True):
                assert torch.equal(got, wanted), (isa, count, name)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("size", [1e-18, 1.0, 3e15])
def test_size_of_the_features_does_not_matter(metric: str, size: float, impl: str) -> None:
    query, gallery, columns, countable, excluded = problem(metric, rows=90)
    plain = solve(metric, impl, query, gallery, columns, countable, excluded)[2]
    # a power of two changes no digit
    factor = 2.0 ** round(math.log2(size))
    scaled = solve(metric, impl, query * factor, gallery * factor, columns, countable, excluded)[2]
    for got, wanted in zip(scaled[:4], plain[:4], strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_all_rows_alike_tie_at_zero(impl: str) -> None:
    """Copies, and multiples under cosine, are at distance 0, not at what rounding leaves."""
    row = torch.randn(1, 67, generator=torch.Generator().manual_seed(2))
    gallery = torch.cat([row * factor for factor in (1, 3, 7, 0.1, 1)])
    found = Gallery(gallery, impl=impl).places(row, top=5)
    assert found.nearest.tolist() == [[0, 1, 2, 3, 4]]
    assert found.distances.tolist() == [[0.0] * 5]
    copies = row.repeat(5, 1)
    found = Gallery(copies, "euclidean", impl=impl).places(row, top=5)
    assert found.nearest.tolist() == [[0, 1, 2, 3, 4]]
    assert found.distances.tolist() == [[0.0] * 5]


def test_visible_parts_are_averaged_where_both_are_seen() -> None:
    generator = torch.Generator().manual_seed(3)
    parts = torch.randn(6, 3, 4, generator=generator)
    seen = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0.5, 0.5, 1], [0, 0, 1], [1, 0, 1]])
    rows = torch.cat([parts.flatten(1), seen], dim=1)
    found = Gallery(rows, "visible", parts=3).distances(
        rows, *torch.cartesian_prod(torch.arange(6), torch.arange(6)).t()
    )
    for (q, g), got in zip(np.ndindex(6, 6), found.tolist(), strict=True):
        weights = [float(a * b) for a, b in zip(seen[q], seen[g], strict=True)]
        apart = [distance(parts[q, p].tolist(), parts[g, p].tolist(), "cosine") for p in range(3)]
        if sum(weights) == 0:
            assert got == 2.0
            continue
        expected = sum(w * d for w, d in zip(weights, apart, strict=True)) / sum(weights)
        assert got == pytest.approx(expected, rel=1e-6, abs=2**-40)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_nearest_rows_of_blocks_are_those_of_the_whole(impl: str) -> None:
    query, gallery, *_ = problem(queries=9, rows=300)
    indices, distances = nearest(query, gallery, 11, impl=impl, chunk=700)
    whole = Gallery(gallery, impl=impl).places(query, top=11)
    assert torch.equal(indices, whole.nearest)
    assert torch.equal(distances, whole.distances)
    assert (
        nearest(query, gallery, 300, impl=impl)[0].sort(dim=1).values.tolist()
        == [list(range(300))] * 9
    )


def test_refuses_what_it_cannot_rank() -> None:
    rows = torch.randn(4, 3)
    with pytest.raises(ValueError, match=f"one of {', '.join(METRICS)}, got 'manhattan'"):
        Gallery(rows, "manhattan")
    with pytest.raises(ValueError, match=r"features must be .*float32 under cosine.*float64"):
        Gallery(rows.double())
    with pytest.raises(ValueError, match=r"queries must be \(rows, 3\)"):
        Gallery(rows).places(rows[:, :2])
    with pytest.raises(ValueError, match=r"top=5 is outside 0\.\.4"):
        Gallery(rows).places(rows, top=5)
    with pytest.raises(RuntimeError, match="the metric is visible"):
        Gallery(rows, "visible", parts=1, impl="cpu")


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("metric", "value", "why"),
    [
        ("cosine", 0.0, "is all zeros, which has no cosine"),
        ("cosine", math.nan, "is not finite"),
        ("cosine", math.inf, "is not finite"),
        ("euclidean", math.nan, "is not finite"),
        ("euclidean", -math.inf, "is not finite"),
    ],
)
def test_refuses_rows_without_a_distance(metric: str, value: float, why: str, impl: str) -> None:
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(4))
    wrong = rows.clone()
    wrong[5] = value
    with pytest.raises(ValueError, match=f"features row 5 {why}"):
        nearest(rows[:3], wrong, 10, metric=metric, impl=impl)
    prepared = Gallery(rows, metric, impl=impl)
    with pytest.raises(ValueError, match=f"queries row 5 {why}"):
        nearest(wrong[:6], prepared, 10)
    with pytest.raises(ValueError, match=f"queries row 5 {why}"):
        prepared.distances(wrong, torch.tensor([0]), torch.tensor([0]))
    one = rows.clone()
    one[7, 3] = value
    if value != 0.0:
        with pytest.raises(ValueError, match=f"features row 7 {why}"):
            Gallery(one, metric, impl=impl)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_infinite_distances_are_thresholds_unless_they_are_padding(impl: str) -> None:
    """Beyond float32 rows tie: the nearest are those with the lowest index, not the longest."""
    big = torch.tensor([[-3e38, -3e38], [3e38, 3e38], [0.0, 0.0], [-2e38, -2e38], [3e38, 0.0]])
    query = torch.tensor([[3e38, 3e38]])
    gallery = Gallery(big, "euclidean", impl=impl)
    columns = torch.tensor([[1, 4, 0, 3]])
    thresholds = gallery.distances(query, torch.zeros(4, dtype=torch.int64), columns[0])[None]
    assert thresholds[0, :2].tolist() == [0.0, float(np.float32(3e38))]
    assert thresholds[0, 2:].tolist() == [math.inf, math.inf]
    found = gallery.places(query, thresholds, columns, sizes=torch.tensor([4]), top=5)
    assert found.less.tolist() == [[0, 1, 2, 2]]
    assert found.equal.tolist() == [[1, 1, 3, 3]]
    assert found.earlier.tolist() == [[0, 0, 0, 2]]
    assert found.nearest.tolist() == [[1, 4, 0, 2, 3]]
    for top in range(1, 5):
        assert gallery.places(query, top=top).nearest.tolist() == [[1, 4, 0, 2, 3][:top]]
    short = gallery.places(query, thresholds, columns, sizes=torch.tensor([2]))
    assert short.less.tolist() == [[0, 1, 0, 0]]
    assert short.equal.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_what_counts_as_zero(impl: str) -> None:
    """Rows a millionth of their length apart tie with copies; twice as far they do not."""
    row = torch.zeros(1, 4)
    row[0, 0] = 1.0
    near, far = row.clone(), row.clone()
    near[0, 1], far[0, 1] = 1.2e-6, 2.4e-6
    for metric in ("cosine", "euclidean"):
        found = Gallery(torch.cat([far, near, row]), metric, impl=impl).places(row, top=3)
        assert found.nearest.tolist() == [[1, 2, 0]]
        assert found.distances[0, :2].tolist() == [0.0, 0.0]
        assert found.distances[0, 2] > 0.0
