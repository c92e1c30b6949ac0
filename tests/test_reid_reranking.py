"""k-reciprocal encoding, Jaccard distance, re-ranking and DBSCAN against plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN
from torch import Tensor

from reid.clustering import jaccard, k_reciprocal
from reid.clustering.dbscan import dbscan
from reid.clustering.distances import Points
from reid.clustering.jaccard import jaccard_distance
from reid.errors import UserError
from reid.evaluation import Features, evaluate
from reid.evaluation.reranking import rerank

Matrix = list[list[float]]
# distances are float32
RTOL = 32 * float(np.finfo(np.float32).eps)


def squared_distances(features: Tensor, metric: str) -> Matrix:
    """Between rows that are normalised under cosine."""
    rows = features.double().numpy()
    if metric == "cosine":
        rows = rows * (1.0 / np.sqrt((rows * rows).sum(axis=1)))[:, None]
    found = [[float(((x - y) ** 2).sum()) for y in rows] for x in rows]
    if metric == "cosine":
        found = [[0.0 if d / 2.0 < 2.0**-40 else d for d in row] for row in found]
    return found


def original(features: Tensor, metric: str, variant: str) -> Matrix:
    """The distance that weights and the final sum use."""
    squared = squared_distances(features, metric)
    if variant == "zhong":
        return [[d / max(max(row), 1e-300) for d in row] for row in squared]
    return squared


def order_of(features: Tensor, metric: str) -> list[list[int]]:
    orders = []
    for i, row in enumerate(squared_distances(features, metric)):
        single = [float(np.float32(d / 2.0 if metric == "cosine" else math.sqrt(d))) for d in row]
        orders.append(sorted(range(len(row)), key=lambda j: (j != i, single[j], j)))
    return orders


def encoding(features: Tensor, k1: int, k2: int, metric: str, variant: str) -> Matrix:
    """The dense V of the definition."""
    order = order_of(features, metric)
    weigh = original(features, metric, variant)
    count = len(order)
    size = k1 + 1 if variant == "zhong" else k1
    half = int(np.around(k1 / 2)) + 1

    def reciprocal(i: int, n: int) -> set[int]:
        # a list has `size` columns, whatever is asked of it
        n = min(n, size)
        return {j for j in order[i][:n] if i in order[j][:n]}

    dense = [[0.0] * count for _ in range(count)]
    for i in range(count):
        own = reciprocal(i, size)
        expanded = set(own)
        for c in own:
            close = reciprocal(c, half)
            if len(close & own) > 2 / 3 * len(close):
                expanded |= close
        total = sum(math.exp(-weigh[i][j]) for j in expanded)
        for j in expanded:
            dense[i][j] = math.exp(-weigh[i][j]) / total
    if k2 == 1:
        return dense
    chosen = [row[:k2] for row in order]
    return [[sum(dense[j][t] for j in near) / len(near) for t in range(count)] for near in chosen]


def jaccard_of(dense: Matrix) -> np.ndarray:
    count = len(dense)
    found = np.ones((count, count))
    for i in range(count):
        for j in range(count):
            mass = sum(min(a, b) for a, b in zip(dense[i], dense[j], strict=True))
            found[i, j] = max(0.0, 1.0 - mass / (2.0 - mass))
    return found


def filled(matrix: sparse.csr_array) -> np.ndarray:
    """The dense matrix of a sparse one whose gaps are 1."""
    found = np.ones(matrix.shape)
    for i in range(matrix.shape[0]):
        for place in range(matrix.indptr[i], matrix.indptr[i + 1]):
            found[i, matrix.indices[place]] = matrix.data[place]
    return found


def draw(seed: int, count: int, kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 3, generator=generator)
    if kind == "grid":
        features = features.round() + 0.5
    if kind == "copies":
        features = features[torch.randint(0, max(1, count // 3), (count,), generator=generator)]
    if kind == "clusters":
        features = features[torch.arange(count) % max(1, count // 6)] + 0.1 * features
    return features


problems = given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 24),
    k1=st.integers(1, 30),
    k2=st.integers(1, 8),
    metric=st.sampled_from(["cosine", "euclidean"]),
    variant=st.sampled_from(["zhong", "cluster-contrast"]),
    kind=st.sampled_from(["smooth", "grid", "copies", "clusters"]),
)


@settings(max_examples=60, deadline=None)
@problems
def test_equals_the_dense_definition(
    seed: int, count: int, k1: int, k2: int, metric: str, variant: str, kind: str
) -> None:
    features, k2 = draw(seed, count, kind), min(k1, k2)
    expected = encoding(features, k1, k2, metric, variant)
    found = k_reciprocal.encode(Points(features, metric), k1, k2, variant=variant).weights
    np.testing.assert_allclose(found.toarray(), expected, rtol=RTOL, atol=1e-9)
    assert found.data.min() > 0.0
    assert found.has_sorted_indices

    distance = jaccard_distance(features, k1, k2, metric=metric, variant=variant)
    assert distance.dtype == np.float32
    np.testing.assert_allclose(filled(distance), jaccard_of(expected), rtol=RTOL, atol=RTOL)
    held = (np.array(expected) > 0.0).astype(int)
    assert distance.nnz == (held @ held.T > 0).sum()
    assert abs(distance - distance.T).sum() == 0.0


@settings(max_examples=60, deadline=None)
@problems
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_reranked_distances_equal_the_dense_definition(
    share: float, seed: int, count: int, k1: int, k2: int, metric: str, variant: str, kind: str
) -> None:
    features, k2 = draw(seed, count + 1, kind), min(k1, k2)
    queries = (count + 2) // 3
    dense = jaccard_of(encoding(features, k1, k2, metric, variant))
    expected = (1.0 - share) * dense + share * np.array(original(features, metric, variant))
    found = rerank(
        features[:queries],
        features[queries:],
        k1=k1,
        k2=k2,
        lambda_value=share,
        metric=metric,
        variant=variant,
    )
    assert found.shape == (queries, count + 1 - queries)
    rows = torch.cat([found.rows(i, i + 2) for i in range(0, queries, 2)])
    assert rows.dtype == torch.float32
    np.testing.assert_allclose(rows, expected[:queries, queries:], rtol=RTOL, atol=RTOL)


def test_keeps_distances_below_a_bound() -> None:
    features = draw(2, 60, "clusters")
    every = filled(jaccard_distance(features, 8, 3))
    found = jaccard_distance(features, 8, 3, below=0.5)
    assert 0 < found.nnz == (every < 0.5).sum() < (every < 1.0).sum()
    assert np.array_equal(filled(found), np.where(every < 0.5, every, 1.0))
    with pytest.raises(UserError, match=r"got 0\.0"):
        jaccard_distance(features, 8, 3, below=0.0)


def test_half_of_k1_is_rounded_to_even() -> None:
    features = draw(3, 40, "clusters")
    for k1 in (5, 7, 9, 11):
        expected = encoding(features, k1, 1, "cosine", "zhong")
        found = k_reciprocal.encode(Points(features, "cosine"), k1, 1).weights
        np.testing.assert_allclose(found.toarray(), expected, rtol=RTOL, atol=1e-9)


def test_expansion_takes_part() -> None:
    """The random problems reach sets that are larger than the reciprocal ones."""
    features = draw(1, 60, "clusters")
    points = Points(features, "cosine")
    expanded = k_reciprocal.encode(points, 8, 1).weights.nnz
    near = k_reciprocal.search(points, points, 9)[0].indices.numpy()
    assert expanded > k_reciprocal._reciprocal(near).nnz


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    features = draw(0, 300, "clusters")
    expected = jaccard_distance(features, 12, 4)
    for pairs, sums, chunk in ((50, 1 << 20, 64), (1 << 20, 400, 300), (7, 1, 17)):
        monkeypatch.setattr(jaccard, "_PAIRS", pairs)
        monkeypatch.setattr(jaccard, "_SUMS", sums)
        found = jaccard_distance(features, 12, 4, chunk=chunk)
        assert np.array_equal(found.indptr, expected.indptr)
        assert np.array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.data, expected.data, rtol=RTOL, atol=1e-7)


def test_equal_images_stay_tied() -> None:
    features = draw(5, 40, "smooth")
    features[30] = features[20]
    rows = rerank(features[:10], features[10:], k1=6, k2=3).rows(0, 10)
    assert torch.equal(rows[:, 10], rows[:, 20])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_copy_of_the_query_is_at_distance_zero(metric: str) -> None:
    features = torch.randn(40, 65) + 1.0
    features[20:] = features[:20]
    found = rerank(features[:20], features[20:], k1=5, k2=1, lambda_value=1.0, metric=metric)
    assert found.rows(0, 20).diagonal().tolist() == [0.0] * 20


def test_all_images_alike() -> None:
    features = torch.ones(30, 4)
    found = rerank(features[:10], features[10:], k1=5, k2=2).rows(0, 10)
    assert bool(torch.isfinite(found).all())
    np.testing.assert_allclose(filled(jaccard_distance(features, 30, 1)), 0.0, atol=RTOL)


def test_nothing_is_as_large_as_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peak of numpy's and torch's allocations at 4,000 rows: a float32 matrix would be 64 MB."""
    import tracemalloc

    from torch.profiler import ProfilerActivity, profile

    monkeypatch.setattr(jaccard, "_PAIRS", 1 << 16)
    monkeypatch.setattr(jaccard, "_SUMS", 1 << 16)
    features = torch.randn(400, 16)[torch.arange(4000) % 400] + 0.3 * torch.randn(4000, 16)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        tracemalloc.start()
        distance = jaccard_distance(features, 20, 6, chunk=256)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    held = distance.data.nbytes + distance.indices.nbytes
    assert peak < 8 * held < 4000 * 4000 * 4
    events = recorded.profiler.kineto_results.events()
    largest = max(event.nbytes() for event in events if event.name() == "[memory]")
    assert largest < 4000 * 4000 / 4


def people(features: Tensor, seed: int) -> Features:
    generator = np.random.default_rng(seed)
    count = len(features)
    return Features(features, generator.integers(1, 6, count), generator.integers(0, 3, count))


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_evaluates_what_it_reranks(chunk: int) -> None:
    features = draw(4, 70, "clusters")
    query, gallery = people(features[:20], 0), people(features[20:], 1)
    blocks = rerank(query, gallery, k1=8, k2=3)
    result = evaluate(query, gallery, blocks=blocks, chunk=chunk)
    assert result.metric == (
        "cosine, k-reciprocal re-ranking (zhong, k1=8, k2=3, lambda=0.3), transductive"
    )
    dense = blocks.rows(0, 20).numpy()
    for q in range(20):
        own = gallery.pids == query.pids[q]
        junk = own & (gallery.camids == query.camids[q])
        order = [g for g in np.argsort(dense[q], kind="stable") if not junk[g]]
        places = [r for r, g in enumerate(order, 1) if own[g]]
        ap = 100.0 * np.mean([j / r for j, r in enumerate(places, 1)])
        assert result.per_query.ap[q] == pytest.approx(ap, rel=1e-12)
        assert result.per_query.first_rank[q] == places[0]
    assert result.mAP != evaluate(query, gallery).mAP


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_original_distance_alone_ranks_as_without(metric: str) -> None:
    features = draw(6, 90, "clusters")
    query, gallery = people(features[:30], 0), people(features[30:], 1)
    blocks = rerank(query, gallery, k1=5, k2=2, lambda_value=1.0, metric=metric)
    found = evaluate(query, gallery, blocks=blocks)
    expected = evaluate(query, gallery, metric=metric)
    assert np.array_equal(found.per_query.ap, expected.per_query.ap)
    assert np.array_equal(found.top_indices, expected.top_indices)


def test_refuses_distances_of_other_images() -> None:
    query, gallery = people(torch.randn(5, 3), 0), people(torch.randn(9, 3), 1)
    with pytest.raises(UserError, match="of 9 queries to 5 gallery rows"):
        evaluate(query, gallery, blocks=rerank(gallery, query, k1=2, k2=1))


def test_dbscan_equals_the_dense_one() -> None:
    labels = set()
    for seed in range(12):
        distance = jaccard_distance(draw(seed, 60, "clusters"), 8, 3)
        for eps in (0.3, 0.5, 0.7):
            expected = DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit(filled(distance))
            found = dbscan(distance, eps, min_samples=4)
            assert found.tolist() == expected.labels_.tolist()
            labels |= set(found.tolist())
    assert {-1, 0, 1} <= labels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k1": 0}, "got k1=0"),
        ({"k1": 3, "k2": 4}, "k1=3 and k2=4"),
        ({"k2": 0}, "k2=0"),
        ({"variant": "other"}, "got 'other'"),
        ({"lambda_value": 1.5}, "got 1.5"),
        ({"lambda_value": math.nan}, "got nan"),
        ({"metric": "manhattan"}, "got 'manhattan'"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rerank(torch.ones(2, 3), torch.ones(4, 3), **arguments)


def test_bad_features() -> None:
    with pytest.raises(UserError, match="3 dimensions and gallery features 2"):
        rerank(torch.ones(2, 3), torch.ones(4, 2))
    with pytest.raises(UserError, match="gallery features hold NaN"):
        rerank(torch.ones(2, 3), torch.full((4, 3), math.nan))
    with pytest.raises(UserError, match="one vector per image"):
        rerank(torch.ones(2, 3), torch.ones(4, 3, dtype=torch.int64))
    with pytest.raises(UserError, match=r"eps must lie between 0 and 1, got 1\.0"):
        dbscan(sparse.csr_array((2, 2)), 1.0)
    with pytest.raises(UserError, match="min_samples must be at least 1, got 0"):
        dbscan(sparse.csr_array((2, 2)), 0.5, 0)
