"""Sentences: they say what the numbers say, in either direction."""

import pytest
import torch

from reid.evaluation import Features, Interval, evaluate
from reid.report import DemoRun, RowResult
from reid.report.findings import compare, describe, paired_differences
from reid.report.shares import StageShare


def interval(estimate, low, high):
    return Interval(estimate, low, high)


def ranking(noise, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pids = torch.arange(80) // 4 + 1
    centres = torch.randn(21, 12, generator=generator)[pids]
    parts = torch.randn(2, 80, 12, generator=generator)
    query, gallery = (
        Features(centres + noise * part, pids, torch.full((80,), camera))
        for camera, part in enumerate(parts)
    )
    return evaluate(query, gallery)


def run_of(noises, baseline=3.0):
    kept = {3: torch.zeros(80, 1, dtype=torch.int64).numpy()}
    rows = [
        RowResult(name, label, [8, 4], 100.0, speed, ranking(noises[name]),
                  kept=kept if name.startswith("hts") else None)
        for name, label, speed in (
            ("teacher", "teacher", 0.5), ("dense", "dense student", 1.0), ("hts", "+ HTS", 1.5),
            ("hts+npkd", "+ NPKD", 1.51),
        )
    ]  # fmt: skip
    return DemoRun(rows, {"colour_histogram": ranking(baseline)}, [], [], None, (8, 8), 8)


def words(run, shares=None):
    from reid.evaluation import bootstrap

    intervals = {row.name: bootstrap(row.ranking) for row in run.rows}
    found = describe(run, intervals, paired_differences(run), shares or {})
    return {finding.heading: finding.text for finding in found}


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        (interval(3.2, 1.0, 5.0), "New is 3.2 points above old", "excludes zero."),
        (interval(-3.2, -5.0, -1.0), "New is 3.2 points below old", "excludes zero."),
        (interval(0.4, -1.0, 2.0), "New is 0.4 points above old", "does not show a difference."),
        (interval(0.0, 0.0, 0.0), "New is equal to old", "does not show a difference."),
    ],
)
def test_comparison_has_direction_and_certainty(value, start, end):
    text = compare("new", "old", value, 640)
    assert text.startswith(start)
    assert text.endswith(end)
    assert "over 640 queries" in text


def test_gain_and_loss_of_distillation_are_both_said():
    noises = {"teacher": 0.6, "dense": 0.9, "hts": 1.1, "hts+npkd": 0.9}
    text = words(run_of(noises))
    assert "+ NPKD is" in text["+ NPKD against + HTS"]
    assert "above + HTS" in text["+ NPKD against + HTS"]
    assert "did not appear" not in text["+ NPKD against + HTS"]
    assert "above" in text["Teacher against the best student"]
    assert "1.50 to 1.51 times" in text["Speed"]
    worse = words(run_of({**noises, "hts+npkd": 1.4, "teacher": 1.6}))
    assert "below + HTS" in worse["+ NPKD against + HTS"]
    assert "did not appear here" in worse["+ NPKD against + HTS"]
    assert "below" in worse["Teacher against the best student"]
    assert "dense student has the highest mAP" in worse["Best student"]


def test_weakest_row_is_held_against_the_colour_histogram():
    noises = {"teacher": 0.6, "dense": 0.9, "hts": 2.5, "hts+npkd": 0.9}
    above = words(run_of(noises, baseline=6.0))["Is it more than colour?"]
    below = words(run_of(noises, baseline=0.5))["Is it more than colour?"]
    assert "+ HTS" in above
    assert "points above it" in above
    assert "points below it" in below


@pytest.mark.parametrize(
    ("last", "verdict"),
    [(70.0, "prefers the body."), (40.4, "hardly prefers"), (20.0, "more often than chance")],
)
def test_verdict_on_the_kept_tokens_follows_the_base_rate(last, verdict):
    def share(body):
        return {"body": body, "occluder": 30.0, "background": 70.0 - body}

    stages = [StageShare(0, 8, share(40.0), {}), StageShare(3, 4, share(last), {})]
    noises = {"teacher": 0.6, "dense": 0.9, "hts": 1.0, "hts+npkd": 0.9}
    assert verdict in words(run_of(noises), {"+ NPKD": stages})["What is kept"]


def test_differences_of_the_run_are_kept_and_the_missing_added():
    run = run_of({"teacher": 0.6, "dense": 0.9, "hts": 1.1, "hts+npkd": 0.8})
    run.differences = {"hts - dense": {"mAP": interval(9.0, 8.0, 10.0)}}
    found = paired_differences(run)
    assert found["hts - dense"]["mAP"].estimate == 9.0
    assert set(found) == {"hts - dense", "hts+npkd - hts", "teacher - hts+npkd"}
    better, worse = run.rows[3].ranking, run.rows[2].ranking
    assert found["hts+npkd - hts"]["mAP"].estimate == pytest.approx(better.mAP - worse.mAP)
