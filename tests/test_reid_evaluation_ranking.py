"""Metrics against a loop that sorts one row at a time, with ties, junk and distractors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid.errors import UserError
from reid.evaluation import Features, evaluate

SIGNS = [[a, b, c, d] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1) for d in (-1, 1)]


def make(vectors, pids, camids, names=None):
    return Features(torch.tensor(vectors, dtype=torch.float32), pids, camids, names)


def oracle_distance(a, b, metric):
    """Exact for whole numbers (euclidean) and for vectors of +-1 in four dimensions (cosine)."""
    if metric == "cosine":
        return 1.0 - sum(x * y for x, y in zip(a, b, strict=True)) / 4.0
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def oracle(query, gallery, metric, ties, max_rank):
    """One query at a time: sort the row, drop the junk, walk down the list."""
    table, lists = [], []
    for vector, pid, camid in query:
        rows = []
        for index, (other, other_pid, other_camid) in enumerate(gallery):
            junk = other_pid == -1 or (other_pid == pid and other_camid == camid)
            match = other_pid == pid and other_pid != 0 and not junk
            order = {"stable": 0, "optimistic": int(not match), "pessimistic": int(match)}[ties]
            distance = oracle_distance(vector, other, metric)
            rows.append((distance, order, index, match, junk))
        rows.sort(key=lambda row: row[:3])
        lists.append(
            [(row[2], "junk" if row[4] else "right" if row[3] else "wrong") for row in rows]
        )
        kept = [row for row in rows if not row[4]]
        hits = [place for place, row in enumerate(kept, start=1) if row[3]]
        if not hits:
            table.append(None)
            continue
        ap = trapezoid = 0.0
        for found, place in enumerate(hits, start=1):
            precision = found / place
            before = 1.0 if place == 1 else (found - 1) / (place - 1)
            ap += precision / len(hits)
            trapezoid += (before + precision) / 2 / len(hits)
        matched = {row[0] for row in kept if row[3]}
        tied = any(row[0] in matched for row in kept if not row[3])
        table.append((ap, trapezoid, len(hits) / hits[-1], hits[0], len(hits), tied))
    counted = [line for line in table if line is not None]
    cmc = [
        sum(line[3] <= rank for line in counted) / len(counted) if counted else 0.0
        for rank in range(1, max_rank + 1)
    ]
    return table, counted, cmc, lists


def rows(vectors, pids):
    return st.tuples(vectors, pids, st.integers(0, 2))


@st.composite
def problems(draw):
    metric = draw(st.sampled_from(["cosine", "euclidean"]))
    vector = (
        st.sampled_from(SIGNS)
        if metric == "cosine"
        else st.lists(st.integers(-2, 2), min_size=3, max_size=3)
    )
    query = draw(st.lists(rows(vector, st.integers(1, 4)), min_size=1, max_size=6))
    gallery = draw(st.lists(rows(vector, st.integers(-1, 4)), min_size=1, max_size=14))
    return metric, query, gallery


@settings(max_examples=150, deadline=None)
@given(
    problem=problems(),
    ties=st.sampled_from(["stable", "optimistic", "pessimistic"]),
    chunk=st.integers(1, 4),
    max_rank=st.sampled_from([1, 5, 20]),
    impl=st.sampled_from([None, "reference"]),
)
def test_matches_the_sorted_row_oracle(problem, ties, chunk, max_rank, impl):
    metric, query, gallery = problem
    table, counted, cmc, lists = oracle(query, gallery, metric, ties, max_rank)
    sets = [
        make(*(list(column) for column in zip(*rows, strict=True))) for rows in (query, gallery)
    ]
    arguments = {"metric": metric, "ties": ties, "chunk": chunk, "max_rank": max_rank}
    arguments["impl"] = impl
    if not counted:
        with pytest.raises(UserError, match="no query has a match"):
            evaluate(*sets, **arguments)
        return
    result = evaluate(*sets, **arguments, keep_top=50)
    close = {"rtol": 1e-12, "atol": 1e-10}
    np.testing.assert_allclose(result.cmc, 100 * np.array(cmc), **close)
    np.testing.assert_allclose(result.mAP, 100 * np.mean([line[0] for line in counted]), **close)
    np.testing.assert_allclose(
        result.mAP_trapezoid, 100 * np.mean([line[1] for line in counted]), **close
    )
    np.testing.assert_allclose(result.mINP, 100 * np.mean([line[2] for line in counted]), **close)
    assert result.queries == len(counted)
    assert result.skipped == len(table) - len(counted)
    assert result.tied == sum(line[5] for line in counted)
    for index, line in enumerate(table):
        own = result.per_query
        assert own.valid[index] == (line is not None)
        if line is None:
            assert np.isnan(own.ap[index])
            assert own.first_rank[index] == 0
            continue
        np.testing.assert_allclose(own.ap[index], 100 * line[0], **close)
        np.testing.assert_allclose(own.ap_trapezoid[index], 100 * line[1], **close)
        np.testing.assert_allclose(own.inp[index], 100 * line[2], **close)
        assert (own.first_rank[index], own.matches[index], own.tied[index]) == line[3:]
    if ties == "stable":
        for index, expected in enumerate(lists):
            got = result.top(index, len(gallery))
            assert [(item.gallery, item.status) for item in got] == expected


def test_a_worked_example():
    """Matches at places 1, 3 and 4 of five counted rows."""
    gallery = [[1.0], [2.0], [3.0], [4.0], [5.0], [1.5]]
    result = evaluate(
        make([[0.0]], [7], [0]),
        make(gallery, [7, 8, 7, 7, 9, 7], [1, 1, 1, 2, 1, 0]),
        metric="euclidean",
    )
    expected = 100 * (1 + 2 / 3 + 3 / 4) / 3
    trapezoid = 100 * ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2 + (2 / 3 + 3 / 4) / 2) / 3
    np.testing.assert_allclose(result.mAP, expected)
    np.testing.assert_allclose(result.mAP_trapezoid, trapezoid)
    np.testing.assert_allclose(result.mINP, 75.0)
    statuses = [item.status for item in result.top(0, 6)]
    assert statuses == ["right", "junk", "wrong", "right", "right", "wrong"]
    assert [item.rank for item in result.top(0, 6)] == [1, 0, 2, 3, 4, 5]


def test_curve_is_full_length_where_the_gallery_is_small():
    result = evaluate(make([[0.0], [0.1]], [1, 2], [0, 0]), make([[0.0], [5.0]], [1, 2], [1, 1]),
                      metric="euclidean", max_rank=50)  # fmt: skip
    assert result.cmc.shape == (50,)
    np.testing.assert_allclose(result.cmc[[0, 1, 49]], [50.0, 100.0, 100.0])


def test_identical_images_tie_exactly_and_keep_gallery_order():
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(1, 67, generator=generator)
    far = -vector
    gallery = torch.cat([vector] * 37 + [far])
    pids = [2] * 36 + [1, 1]
    sets = Features(vector, [1], [0]), Features(gallery, pids, [1] * 38)
    for metric in ("cosine", "euclidean"):
        result = evaluate(*sets, metric=metric)
        assert (result.per_query.first_rank[0], result.tied) == (37, 1)
        assert evaluate(*sets, metric=metric, ties="optimistic").rank1 == 100.0


def test_result_does_not_depend_on_the_block_size():
    generator = torch.Generator().manual_seed(2)
    query = Features(torch.randn(41, 33, generator=generator), [i % 7 + 1 for i in range(41)],
                     [0] * 41)  # fmt: skip
    gallery = Features(torch.randn(93, 33, generator=generator), [i % 7 + 1 for i in range(93)],
                       [1] * 93)  # fmt: skip
    one, many = evaluate(query, gallery, chunk=1), evaluate(query, gallery, chunk=512)
    np.testing.assert_array_equal(one.per_query.ap, many.per_query.ap)
    np.testing.assert_array_equal(one.top_indices, many.top_indices)
    np.testing.assert_array_equal(one.cmc, many.cmc)


def test_zero_is_a_person_where_the_data_set_counts_from_zero():
    query = make([[1.0, 0.0]], [0], [0])
    gallery = make([[0.0, 1.0], [1.0, 0.0]], [5, 0], [1, 1])
    assert evaluate(query, gallery, distractor_pid=None).rank1 == 100.0
    with pytest.raises(UserError, match=r"query 0 has pid 0.*d=None"):
        evaluate(query, gallery)


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (([[1.0]], [1], [0]), ([[1.0]], [2], [1]), r"none of the 1 query identities \(pids 1\)"),
        (([[1.0]], [1], [0]), ([[1.0]], [1], [0]), "give the queries camera 0 and the gallery"),
        (([[1.0]], [1], [0]), ([[1.0, 2.0]], [1], [1]), "1 dimensions.*2; extract both"),
        (([[1.0]], [-1], [0]), ([[1.0]], [1], [1]), "query 0 has pid -1, which is junk"),
        (([[0.0]], [1], [0]), ([[1.0]], [1], [1]), "query feature 0 is all zeros"),
    ],
)
def test_refuses_what_has_no_answer(query, gallery, message):
    with pytest.raises(UserError, match=message):
        evaluate(make(*query), make(*gallery))


@pytest.mark.parametrize(
    "arguments",
    [{"metric": "manhattan"}, {"ties": "random"}, {"max_rank": 0}, {"chunk": 0}, {"keep_top": 0}],
)
def test_refuses_arguments_out_of_range(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(UserError, match=f"{name}.*{value}"):
        evaluate(make([[1.0]], [1], [0]), make([[1.0]], [1], [1]), **arguments)


def test_asking_for_more_than_was_kept_says_how_to_get_it():
    query, gallery = make([[1.0]], [1], [0]), make([[1.0], [2.0], [3.0]], [1, 2, 3], [1, 1, 1])
    result = evaluate(query, gallery, keep_top=2, max_rank=3)
    with pytest.raises(UserError, match="keep_top=3"):
        result.top(0, 3)
    with pytest.raises(UserError, match="max_rank=5"):
        _ = result.rank5
    with pytest.raises(UserError, match="query 1 does not exist"):
        result.top(1)
    assert len(evaluate(query, gallery).top(0, 10)) == 3
    assert set(result.summary()) >= {"rank1", "mAP", "tied", "skipped"}
    assert result.per_query.rows()[0]["first_rank"] == 1


IMPLEMENTATIONS = ["reference", None]


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize(("long", "short"), [(1e30, 1e-30), (1e25, 1e-15)])
def test_queries_much_longer_than_the_gallery(long, short, impl):
    """All distances of a query round to the same number: every row of the gallery ties."""
    generator = torch.Generator().manual_seed(3)
    query = Features(long * torch.randn(4, 8, generator=generator), [1, 2, 3, 4], [0] * 4)
    pids = [index % 8 for index in range(200)]
    gallery = Features(short * torch.randn(200, 8, generator=generator), pids, [1] * 200)
    result = evaluate(query, gallery, metric="euclidean", impl=impl)
    expected = 100 * np.mean(
        [np.mean([(j + 1) / (8 * j + pid + 1) for j in range(25)]) for pid in (1, 2, 3, 4)]
    )
    np.testing.assert_allclose(result.mAP, expected)
    assert (result.top_indices == np.arange(20)).all()
    assert result.tied == 4


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_an_infinite_distance_comes_last(impl):
    query = make([[3e38, 3e38]], [5], [0])
    gallery = make([[-3e38, -3e38], [3e38, 3e38], [0, 0]], [5, 6, 7], [1, 1, 1])
    result = evaluate(query, gallery, metric="euclidean", impl=impl)
    # the match and the origin are both beyond float32; the match has the lower index
    assert result.per_query.first_rank.tolist() == [2]
    assert result.tied == 1
    worst = evaluate(query, gallery, metric="euclidean", impl=impl, ties="pessimistic")
    assert worst.per_query.first_rank.tolist() == [3]


@pytest.mark.parametrize("ties", ["stable", "optimistic", "pessimistic", "expected"])
@pytest.mark.parametrize("size", [12, 200])
def test_long_curve_needs_no_table_as_long(ties, size):
    generator = torch.Generator().manual_seed(5)
    query = Features(torch.randint(-1, 2, (9, 3), generator=generator).float(),
                     [index % 5 + 1 for index in range(9)], [0] * 9)  # fmt: skip
    gallery = Features(torch.randint(-1, 2, (size, 3), generator=generator).float(),
                       [index % 9 + 1 for index in range(size)], [1] * size)  # fmt: skip
    result = evaluate(query, gallery, metric="euclidean", ties=ties, max_rank=100_000)
    assert result.per_query.hits.shape[1] == (size if ties == "expected" else 10)
    assert result.cmc.shape == (100_000,)
    assert (np.diff(result.cmc) >= 0).all()
    np.testing.assert_allclose(result.cmc[size - 1 :], 100.0)
    if ties != "expected":
        first = result.per_query.first_rank
        expected = [100 * np.mean(first <= rank) for rank in range(1, size + 1)]
        np.testing.assert_allclose(result.cmc[:size], expected)
    for length in (1, 10, 15):
        short = evaluate(query, gallery, metric="euclidean", ties=ties, max_rank=length)
        np.testing.assert_array_equal(short.cmc, result.cmc[:length])
        own = result.per_query
        np.testing.assert_array_equal(own.curve(own.valid, length), result.cmc[:length])
        np.testing.assert_allclose(
            100 * own.reached(own.valid, length).mean(axis=0), result.cmc[:length]
        )


def test_queries_without_a_match_are_in_no_part_of_a_long_curve():
    query, gallery = make([[1.0], [2.0]], [1, 9], [0, 0]), make([[1.0]] * 30, [1] * 30, [1] * 30)
    own = evaluate(query, gallery, metric="euclidean", max_rank=30).per_query
    np.testing.assert_array_equal(own.curve(np.array([True, True]), 30), [50.0] * 30)
    assert np.isnan(own.curve(np.array([False, False]), 30)).all()
