"""Intervals: against a resampling loop, against theory, and paired against unpaired."""

import math

import numpy as np
import pytest
import torch

from reid.errors import UserError
from reid.evaluation import Features, bootstrap, evaluate, paired_bootstrap


def results(noise, count=120, seed=0):
    """Evaluate noisy copies of identity centres; the queries are the same for every `noise`."""
    generator = torch.Generator().manual_seed(seed)
    pids = torch.arange(count) // 4 + 1
    centres = torch.randn(count // 4 + 1, 16, generator=generator)
    direction = torch.randn(2, count, 16, generator=generator)
    query = Features(centres[pids] + noise * direction[0], pids, torch.zeros_like(pids))
    gallery = Features(centres[pids] + noise * direction[1], pids, torch.ones_like(pids))
    return evaluate(query, gallery)


def test_interval_equals_a_plain_resampling_loop():
    result = results(1.0)
    got = bootstrap(result, n=50, seed=3, level=0.9)
    drawn = np.random.default_rng(3).integers(0, 120, size=(50, 120))
    for name, scores in (
        ("mAP", result.per_query.ap),
        ("rank1", 100.0 * (result.per_query.first_rank <= 1)),
        ("rank5", 100.0 * (result.per_query.first_rank <= 5)),
    ):
        means = sorted(math.fsum(scores[i] for i in line) / len(line) for line in drawn)
        assert got[name].low == pytest.approx(np.percentile(means, 5), rel=1e-12)
        assert got[name].high == pytest.approx(np.percentile(means, 95), rel=1e-12)
    assert got["mAP"].estimate == pytest.approx(result.mAP, rel=1e-12)
    assert got["rank1"].estimate == pytest.approx(result.rank1, rel=1e-12)


def test_interval_has_the_width_theory_gives():
    result = results(1.2)
    interval = bootstrap(result, n=4000)["mAP"]
    scores = result.per_query.ap
    expected = 2 * 1.96 * scores.std() / math.sqrt(len(scores))
    assert interval.high - interval.low == pytest.approx(expected, rel=0.08)
    assert interval.low < result.mAP < interval.high


def test_same_seed_same_interval_other_seed_another():
    result = results(1.0)
    assert bootstrap(result, seed=1) == bootstrap(result, seed=1)
    assert bootstrap(result, seed=1)["mAP"].low != bootstrap(result, seed=2)["mAP"].low


def test_identities_are_resampled_with_all_their_queries():
    """Four equal queries per person: the interval doubles, as the number of draws quarters."""
    pids = torch.arange(120) // 4 + 1
    good = (torch.arange(30) % 2).repeat_interleave(4)
    query = Features(torch.stack([torch.ones(120), torch.zeros(120)], 1), pids, [0] * 120)
    own = torch.arange(1, 31)
    near = torch.stack([torch.ones(30), 1.0 - (torch.arange(30) % 2)], 1)
    gallery = Features(near, own, [1] * 30)
    result = evaluate(query, gallery)
    np.testing.assert_array_equal(result.per_query.first_rank <= 15, good.numpy() == 1)
    by_query = bootstrap(result, n=4000, unit="query")["mINP"]
    by_pid = bootstrap(result, n=4000, unit="pid")["mINP"]
    ratio = (by_pid.high - by_pid.low) / (by_query.high - by_query.low)
    assert ratio == pytest.approx(2.0, rel=0.1)
    assert by_pid.estimate == pytest.approx(by_query.estimate)


def test_paired_difference_is_first_minus_second_and_narrower_than_unpaired():
    better, worse = results(1.0), results(1.05)
    difference = paired_bootstrap(better, worse)["mAP"]
    assert difference.estimate == pytest.approx(better.mAP - worse.mAP, rel=1e-9)
    assert difference.low > 0
    assert difference.excludes_zero
    alone = bootstrap(better)["mAP"]
    assert difference.high - difference.low < 0.5 * (alone.high - alone.low)
    nothing = paired_bootstrap(better, better)["rank1"]
    assert (nothing.low, nothing.estimate, nothing.high) == (0, 0, 0)
    assert not nothing.excludes_zero
    assert difference.as_dict()["unit"] == "query"


def test_skipped_queries_take_no_part():
    gallery = Features(torch.eye(3), [1, 2, 3], [1, 1, 1])
    result = evaluate(Features(torch.eye(3), [1, 9, 3], [0, 0, 0]), gallery)
    interval = bootstrap(result, n=20)["rank1"]
    assert (result.skipped, interval.low, interval.high) == (1, 100.0, 100.0)


def test_refuses_what_cannot_be_compared():
    result = results(1.0)
    with pytest.raises(UserError, match=r"the same queries in the same order: 120 .*100"):
        paired_bootstrap(result, results(1.0, count=100))
    with pytest.raises(UserError, match="n=0"):
        bootstrap(result, n=0)
    with pytest.raises(UserError, match=r"got 95"):
        bootstrap(result, level=95)
    with pytest.raises(UserError, match="'camera'"):
        bootstrap(result, unit="camera")
