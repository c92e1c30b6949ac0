"""`reid evaluate --features`: files of any framework in, scores, tables and clear lines out."""

import csv
import json
import math
import re

import numpy as np
import pytest

from reid.cli import main
from reid.evaluation import Features, bootstrap, evaluate, evaluate_single_shot, verify

KEYS = ["rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP", "queries", "skipped", "tied"]


@pytest.fixture
def arrays():
    """Query and gallery as another framework would save them; identities count from 0."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(9, 10))

    def draw(count):
        pids = np.arange(count) % 9
        noise = generator.normal(size=(count, 10))
        return {
            "features": (centres[pids] + noise).astype(np.float32),
            "pids": pids,
            "camids": generator.integers(0, 3, count),
        }

    return draw(20), draw(120)


@pytest.fixture
def run(tmp_path, arrays, capsys):
    def call(*options, query=None, gallery=None):
        paths = []
        changes = {"query": query or {}, "gallery": gallery or {}}
        for (name, change), held in zip(changes.items(), arrays, strict=True):
            paths.append(str(tmp_path / f"{name}.npz"))
            np.savez(paths[-1], **{**held, **change})
        words = [str(option) for option in options]
        code = main(["evaluate", "--features", *paths, *words])
        return code, capsys.readouterr()

    return call


def features(arrays):
    return [Features(held["features"], held["pids"], held["camids"]) for held in arrays]


def test_json_holds_the_scores(run, arrays, tmp_path):
    code, printed = run("--json", tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert code == 0
    assert list(content)[: len(KEYS)] == KEYS
    result = evaluate(*features(arrays), distractor_pid=None)
    assert content == {
        **{name: getattr(result, name) for name in KEYS},
        "skipped_because": {},
        "metric": "cosine",
        "ties": "stable",
        "protocol": "all",
        "cmc": result.cmc.tolist(),
    }
    assert f"{result.mAP:.2f}" in printed.out


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_floats_of_other_widths_are_taken(run, arrays, tmp_path, dtype):
    changed = [{"features": held["features"].astype(dtype)} for held in arrays]
    assert run("--json", tmp_path / "o.json", query=changed[0], gallery=changed[1])[0] == 0
    got = json.loads((tmp_path / "o.json").read_text())["mAP"]
    for held, change in zip(arrays, changed, strict=True):
        held["features"] = change["features"].astype(np.float32)
    assert got == evaluate(*features(arrays), distractor_pid=None).mAP


def test_options_reach_the_evaluation(run, arrays, tmp_path):
    options = ["--metric", "euclidean", "--ties", "expected", "--max-rank", 3, "--tpr-at", 0.01]
    options += ["--protocol", "single-gallery-shot", "--bootstrap", 20, "--json", tmp_path / "o"]
    code, printed = run(*options)
    content = json.loads((tmp_path / "o").read_text())
    chosen = {"metric": "euclidean", "distractor_pid": None}
    result = evaluate_single_shot(*features(arrays), ties="expected", **chosen)
    assert code == 0
    assert content["cmc"] == result.cmc[:3].tolist()
    assert [content["rank1"], content["rank10"]] == [result.rank1, result.rank10]
    assert content["protocol"] == "single-gallery-shot"
    found = verify(*features(arrays), [0.01], **chosen)
    (row,) = content["verification"]
    assert (row["tpr"], row["threshold"]) == (found.tpr[0], found.thresholds[0])
    intervals = bootstrap(result, 20, unit="pid")
    assert content["intervals"]["mAP"] == intervals["mAP"].as_dict()
    assert f"{intervals['mAP'].low:.2f} to {intervals['mAP'].high:.2f}" in printed.out


def test_per_query_table_has_a_line_per_query(run, arrays, tmp_path):
    pids = arrays[0]["pids"].copy()
    pids[4] = 77
    code, printed = run("--per-query", tmp_path / "table.csv", query={"pids": pids})
    arrays[0]["pids"] = pids
    table = evaluate(*features(arrays), distractor_pid=None).per_query
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert code == 0
    assert len(rows) == 20
    assert rows[4]["valid"] == "False"
    assert rows[4]["ap"] == ""
    assert [int(row["pid"]) for row in rows] == pids.tolist()
    assert "1 skipped: the gallery holds no image of the person" in printed.out
    for row, ap, first in zip(rows, table.ap, table.first_rank, strict=True):
        assert row["ap"] == "" if math.isnan(ap) else float(row["ap"]) == ap
        assert row["first_rank"] in ("", str(first))


def test_codes_choose_their_metric(run, tmp_path):
    generator = np.random.default_rng(1)
    query, gallery = (
        {"features": generator.integers(0, 2**63, (rows, 2)).astype(np.uint64)}
        for rows in (20, 120)
    )
    assert run("--json", tmp_path / "o.json", query=query, gallery=gallery)[0] == 0
    assert json.loads((tmp_path / "o.json").read_text())["metric"] == "hamming"


def nan_in_row_3(held):
    values = held["features"].copy()
    values[3, 2] = np.nan
    return {"features": values}


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (nan_in_row_3, dict, "query.npz: 1 of 20 feature rows hold NaN .*row 3"),
        (dict, nan_in_row_3, "gallery.npz: 1 of 120 feature rows hold NaN .*row 3"),
        (lambda q: {"features": q["features"][:, :7]}, dict, "7 dimensions and gallery.* 10;"),
        (
            dict,
            lambda g: {name: values[:0] for name, values in g.items()},
            r"gallery.npz: features are empty, shape \(0, 10\)",
        ),
        (
            lambda q: {"camids": q["camids"] * 0},
            lambda g: {"camids": g["camids"] * 0},
            r"always with the query's own camera \(query cameras 0, gallery cameras 0\)",
        ),
        (lambda q: {"pids": q["pids"] + 100}, dict, "none of the 9 query identities"),
        (lambda q: {"pids": q["pids"] + 0.5}, dict, "query.npz: pids must be a list of whole"),
        (lambda q: {"pids": q["pids"] - 1}, dict, "query 0 has pid -1, which is junk"),
        (lambda q: {"camids": q["camids"][:-1]}, dict, "19 camids for 20 feature rows"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_clear_line(run, arrays, query, gallery, message):
    changes = [change(held) if change is not dict else {} for change, held in
               zip((query, gallery), arrays, strict=True)]  # fmt: skip
    code, printed = run(query=changes[0], gallery=changes[1])
    assert code == 2
    (line,) = printed.err.splitlines()
    assert line.startswith("reid: error: ")
    assert re.search(message, line), line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-rank", 0], "--max-rank must be at least 1, got 0"),
        (
            ["--protocol", "train+val"],
            "all or single-gallery-shot with --features, got 'train+val'",
        ),
        (["--bootstrap", 0], "--bootstrap must be at least 1, got 0"),
        (["--json", "."], "--json . is a folder; name a file"),
        (["--per-query", "."], "--per-query . is a folder; name a file"),
        (["--tpr-at", 0.1, 1.5], "--tpr-at takes rates above 0 and at most 1"),
        (["--rerank", "nan"], "K1 K2 LAMBDA, such as 20 6 0.3, got nan"),
        (["--rerank", "20", "inf"], "got 20.0 inf"),
        (["--data", "market1501"], "--data goes with --checkpoint"),
        (["--root", "x"], "--root goes with --checkpoint"),
        (["--skip-bad"], "--skip-bad goes with --checkpoint"),
        (["--tpr-at", 1e-7], "ask for a higher rate"),
        (["--metric", "hamming"], "use metric='cosine'"),
    ],
)
def test_bad_options_get_one_clear_line(run, options, message):
    code, printed = run(*options)
    assert code == 2
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize("options", [["--bootstrap", 0], ["--json", "."], ["--rerank", "nan"]])
def test_options_are_refused_before_anything_is_read(options, capsys, monkeypatch):
    monkeypatch.setattr(Features, "load", lambda path: pytest.fail("read too soon"))
    assert main(["evaluate", "--features", "q", "g", *map(str, options)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_rates_name_their_pairs_and_a_threshold_that_takes_all(run):
    code, printed = run("--protocol", "single-gallery-shot", "--tpr-at", 0.01, 1)
    first, last = [line for line in printed.out.splitlines() if " TPR " in f" {line} "]
    assert code == 0
    assert "over all pairs of the whole gallery, distance below 0." in first
    assert last.endswith("TPR  100.00 at FPR 1.00e+00 over all pairs of the whole gallery, any "
                         "distance")  # fmt: skip


@pytest.mark.parametrize("label", ["pids", "camids"])
def test_ids_beyond_signed_numbers_are_refused(run, arrays, label):
    ids = arrays[0][label].astype(np.uint64)
    assert run(query={label: ids})[0] == 0
    ids[3] = 2**64 - 1
    code, printed = run(query={label: ids})
    assert code == 2
    assert f"query.npz: {label} hold 18446744073709551615" in printed.err


def test_ranking_options_belong_to_features(capsys, tmp_path):
    words = ["evaluate", "--checkpoint", str(tmp_path / "m"), "--data", "x", "--ties", "expected"]
    assert main(words) == 2
    assert "--ties goes with --features" in capsys.readouterr().err
