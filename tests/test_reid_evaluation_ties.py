"""Expected scores against all orders of tied rows, and definitions others published."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from reid.evaluation import Features, evaluate


def scores_of(order):
    """Scores of one ranked list of 1 (match) and 0."""
    places = [place for place, match in enumerate(order, start=1) if match]
    total = len(places)
    ap = sum(found / place for found, place in enumerate(places, start=1)) / total
    trapezoid = sum(
        (found / place + (1.0 if place == 1 else (found - 1) / (place - 1))) / 2
        for found, place in enumerate(places, start=1)
    )
    hits = [float(places[0] <= k) for k in range(1, 11)]
    return [ap, trapezoid / total, total / places[-1], *hits]


def mean_over_orders(distances, matches):
    """Mean of the scores over every order of every group of equal distances."""
    groups = [
        [match for d, match in zip(distances, matches, strict=True) if d == value]
        for value in sorted(set(distances))
    ]
    orders = [list(itertools.permutations(group)) for group in groups]
    found = [scores_of(list(itertools.chain(*order))) for order in itertools.product(*orders)]
    return [math.fsum(column) / len(found) for column in zip(*found, strict=True)]


def line(distances, pids):
    """Gallery images at whole distances from one query at 0."""
    return Features([[float(d)] for d in distances], pids, [1] * len(pids))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=7),
    impl=st.sampled_from([None, "reference"]),
)
def test_expected_is_the_mean_over_all_orders(rows, impl) -> None:
    distances, matches = zip(*rows, strict=True)
    if not any(matches):
        return
    gallery = line(distances, [7 if match else 8 for match in matches])
    query = Features([[0.0]], [7], [0])
    result = evaluate(query, gallery, metric="euclidean", ties="expected", impl=impl)
    got = [result.mAP, result.mAP_trapezoid, result.mINP, *result.cmc[:10]]
    expected = mean_over_orders(distances, matches)
    np.testing.assert_allclose(got, 100 * np.array(expected), rtol=1e-12)
    span = [
        evaluate(query, gallery, metric="euclidean", ties=ties).mAP
        for ties in ("pessimistic", "optimistic")
    ]
    assert span[0] - 1e-9 <= result.mAP <= span[1] + 1e-9


def test_expected_among_thousands_of_equal_rows() -> None:
    """The first of m matches among N equal rows is at place (N+1)/(m+1) on average."""
    pids = [7] * 3 + [8] * 4997
    result = evaluate(
        Features([[0.0]], [7], [0]),
        line([1] * 5000, pids),
        metric="euclidean",
        ties="expected",
        max_rank=5000,
    )
    assert (1.0 - result.cmc / 100.0).sum() + 1.0 == pytest.approx(5001 / 4, rel=1e-9)
    # of AP: positions of a match are uniform, and two others lie before it by share
    expected = math.fsum((1 + (i - 1) * 2 / 4999) / i for i in range(1, 5001)) / 5000
    assert result.mAP == pytest.approx(100 * expected, rel=1e-10)
    last = math.fsum(math.comb(x - 1, 2) / math.comb(5000, 3) * 3 / x for x in range(3, 5001))
    assert result.mINP == pytest.approx(100 * last, rel=1e-10)


@pytest.fixture(scope="module")
def sets() -> tuple[Features, Features]:
    """Noisy images of 40 persons in four cameras, distractors and junk."""
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(41, 24, generator=generator)

    def draw(count: int, low: int) -> Features:
        pids = torch.randint(low, 41, (count,), generator=generator)
        noise = 1.3 * torch.randn(count, 24, generator=generator)
        cameras = torch.randint(0, 4, (count,), generator=generator)
        return Features(centres[pids.clamp(min=0)] + noise, pids, cameras)

    return draw(90, 1), draw(700, -1)


def ranked_lists(query: Features, gallery: Features):
    """Matches of every query's ranked list as torchreid and fastreid make it: by sorting rows."""
    q, g = (torch.nn.functional.normalize(x.features.double()) for x in (query, gallery))
    distances = (1.0 - q @ g.t()).float().numpy()
    for row, pid, camid in zip(distances, query.pids, query.camids, strict=True):
        order = np.argsort(row, kind="stable")
        junk = ((gallery.pids == pid) & (gallery.camids == camid)) | (gallery.pids == -1)
        kept = order[~junk[order]]
        yield row[kept], (gallery.pids[kept] == pid).astype(np.int64)


def test_precision_at_hit_is_that_of_torchreid_and_fastreid(sets) -> None:
    """raw_cmc.cumsum() / (1, 2, ..) at the hits, over the number of relevant images."""
    result = evaluate(*sets)
    average, curves, inverse = [], [], []
    for _, matches in ranked_lists(*sets):
        found = matches.cumsum()
        average.append((found / np.arange(1, len(matches) + 1) * matches).sum() / matches.sum())
        curves.append(np.minimum(found, 1)[:50])
        inverse.append(matches.sum() / (np.flatnonzero(matches)[-1] + 1.0))
    np.testing.assert_allclose(result.mAP, 100 * np.mean(average), rtol=1e-12)
    np.testing.assert_allclose(result.cmc, 100 * np.mean(curves, axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.mINP, 100 * np.mean(inverse), rtol=1e-12)
    assert result.queries == len(average)


def test_trapezoid_is_that_of_the_market_toolbox(sets) -> None:
    """Walking down the list: (recall step) times the mean of the old and the new precision."""
    average = []
    for _, matches in ranked_lists(*sets):
        old_recall, old_precision, found, total = 0.0, 1.0, 0, 0.0
        for place, match in enumerate(matches, start=1):
            found += match
            recall, precision = found / matches.sum(), found / place
            total += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        average.append(total)
    np.testing.assert_allclose(evaluate(*sets).mAP_trapezoid, 100 * np.mean(average), rtol=1e-12)


def test_without_ties_ap_is_that_of_scikit_learn(sets) -> None:
    result = evaluate(*sets)
    assert result.tied == 0
    average = [average_precision_score(matches, -row) for row, matches in ranked_lists(*sets)]
    np.testing.assert_allclose(result.per_query.ap, 100 * np.array(average), rtol=1e-12)


def test_where_ties_are_grouped_scikit_learn_is_within_the_policies() -> None:
    """Precision at the end of a group for all of its matches: never above the optimist's."""
    pids = [7, 8, 7, 8, 8, 7]
    gallery, query = line([1, 1, 1, 2, 3, 3], pids), Features([[0.0]], [7], [0])
    grouped = 100 * average_precision_score([1, 0, 1, 0, 0, 1], [-1, -1, -1, -2, -3, -3])
    by = {
        ties: evaluate(query, gallery, metric="euclidean", ties=ties).mAP
        for ties in ("pessimistic", "expected", "optimistic")
    }
    # two of three at 2/3, one at 3/6
    assert grouped == pytest.approx(100 * (2 / 3 * 2 / 3 + 1 / 3 * 3 / 6))
    assert by["pessimistic"] < by["expected"] < by["optimistic"]
    assert by["pessimistic"] < grouped < by["optimistic"]
