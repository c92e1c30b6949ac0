"""Every benchmark runs at a tiny size, from the command of `make bench` to tables and plots."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
OPERATORS = {
    "masked_attention": {"forward", "backward", "step"},
    "ragged_attention": {"forward", "gathered", "step"},
    "dense_attention": {"forward", "step"},
    "token_select": {"top_k", "threshold"},
    "gather": {"gather", "gather_norm", "scatter"},
}
MODELS = 7


def make_bench() -> list[str]:
    """What `make bench` passes to Python, without where it saves."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.endswith("pytest benchmarks --save")]
    return shlex.split(line.partition("/python ")[2])[:-1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Rows, pytest-benchmark's file and output of one tiny run."""
    folder = tmp_path_factory.mktemp("bench")
    rows, cases = folder / "rows.json", folder / "cases.json"
    words = ["--tiny", f"--save={rows}", f"--benchmark-json={cases}", "-p", "no:cacheprovider"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, *make_bench(), *words],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        "path": rows,
        "rows": json.loads(rows.read_text(encoding="utf-8"))["rows"],
        "cases": json.loads(cases.read_text(encoding="utf-8"))["benchmarks"],
        "output": done.stdout,
    }


def test_every_operator_and_mode_is_timed_against_its_peers(run: dict[str, Any]) -> None:
    for op, modes in OPERATORS.items():
        rows = [row for row in run["rows"] if row["op"] == op]
        assert {row["mode"] for row in rows} == modes
        for mode in modes:
            timed = [r for r in rows if r["mode"] == mode and r["status"] == "ok"]
            ours = [row for row in timed if row["provider"] == "ours"]
            assert {row["cache"] for row in ours} == {"hot", "cold"}
            assert len({row["provider"] for row in timed}) >= 2, f"{op}, {mode}"
            assert all(0 < row["p20_ms"] <= row["p50_ms"] <= row["p80_ms"] for row in timed)
            assert all(row["ratio_to_best_peer"] > 0 for row in ours)


def test_every_peer_is_right_or_says_why_it_cannot_take_part(run: dict[str, Any]) -> None:
    assert not [row for row in run["rows"] if row["status"] == "wrong"]
    absent = [row for row in run["rows"] if row["status"] == "unavailable"]
    assert all(row["reason"] for row in absent)
    named = {row["provider"] for row in run["rows"]}
    for peer in ("FlashAttention 2", "xformers", "NestedTensor SDPA", "varlen_attn flash"):
        assert peer in named
    assert "augmented key, SDPA flash" in {
        r["provider"] for r in run["rows"] if r["status"] == "ok"
    }


def test_pytest_benchmark_times_ours(run: dict[str, Any]) -> None:
    kernels = [case for case in run["cases"] if "rows" in case["extra_info"]]
    groups = [case["group"].partition(",")[0] for case in run["cases"]]
    assert len(kernels) == sum(group in OPERATORS for group in groups)
    for case in kernels:
        (ours,) = [
            row
            for row in case["extra_info"]["rows"]
            if row["provider"] == "ours" and row["cache"] == "hot"
        ]
        assert case["stats"]["rounds"] == 5
        assert ours["wall_ms"] == pytest.approx(case["stats"]["median"] * 1e3)


def test_models_report_their_ratio(run: dict[str, Any]) -> None:
    pairs = [case for case in run["cases"] if "ratio" in case["extra_info"]]
    assert len(pairs) == MODELS
    for case in pairs:
        info = case["extra_info"]
        assert info["ratio"] == pytest.approx(info["rival_median"] / case["stats"]["median"])
        assert f"{info['ratio']:.2f}" in run["output"]
        assert info["case"] in run["output"]
    assert [8, 5, 3, 2] in [case["extra_info"]["tokens"] for case in pairs]


def test_whole_models_are_timed(run: dict[str, Any]) -> None:
    rows = [row for row in run["rows"] if row["status"] == "model"]
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16", "int8"}
    for row in rows:
        assert row["images_per_second"] * row["p50_ms"] == pytest.approx(2e3)
        assert 0.9 < (row["cosine"] or 1.0) <= 1.0001
        assert row["provider"] in run["output"]
        if row["shares"]:
            assert sum(row["shares"].values()) == pytest.approx(1.0)
            assert row["shares"]["linear layers"] > 0.0
            assert (row["shares"]["selection"] > 0.0) == (row["provider"] != "dense, engine")
    named = {row["provider"] for row in run["rows"] if row["op"] == "model"}
    assert named >= {"dense, engine", "keep 0.5, engine", "keep 0.7, engine, adaptive"}
    assert named >= {"fuse 0.7, plain", "fuse 0.7, engine", "merge, plain", "merge, engine"}
    assert named >= {"dense, onnxruntime", "keep 0.7, onnxruntime"}
    assert sum(row["shares"] is not None for row in rows) == 6


def test_a_training_step_is_timed(run: dict[str, Any]) -> None:
    rows = [row for row in run["rows"] if row["op"] == "training"]
    assert [row["provider"] for row in rows] == [
        "dense timm",
        "masks, ours",
        "masks, eager policy softmax",
    ]
    for row in rows:
        assert row["rate"] * row["p50_ms"] == pytest.approx(2e3)
        assert row["ratio"] == pytest.approx(rows[0]["p50_ms"] / row["p50_ms"])
        assert row["peak_bytes"] >= 0


def test_every_way_of_reading_images_is_timed(run: dict[str, Any]) -> None:
    rows = [row for row in run["rows"] if row["op"] == "loading"]
    assert len({row["provider"] for row in rows}) == 7
    for row in rows:
        assert row["rate"] * row["p50_ms"] == pytest.approx(32e3)
        assert row["ratio"] == pytest.approx(plain_one(rows)["p50_ms"] / row["p50_ms"])


def plain_one(rows: list[Any]) -> Any:
    """The row that the others are compared with."""
    return next(row for row in rows if row["provider"] == "Pillow in a DataLoader")


def test_the_second_command_writes_tables_and_plots(run: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("before\n<!-- benchmarks:begin -->\n<!-- benchmarks:end -->\nafter\n")
    summary = tmp_path / "summary.md"
    summary.write_text("<!-- goals:begin -->\n<!-- goals:end -->\n")
    words = [str(run["path"]), "--page", str(page), "--images", str(tmp_path / "images")]
    whole = tmp_path / "models.md"
    whole.write_text("<!-- models:begin -->\n<!-- models:end -->\n")
    words += ["--summary", str(summary), "--models", str(whole)]
    subprocess.run([sys.executable, "-m", "benchmarks.report", *words], cwd=ROOT, check=True)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "### masked_attention, step: ours and the best peer" in text
    assert "xformers is not installed" in text
    assert "| deit_small 64x32, keep 0.5, batch 1 | dense timm |" in text
    assert "keep 0.7, engine" not in text
    told = whole.read_text(encoding="utf-8")
    assert "| keep 0.7, engine, adaptive |" in told
    assert "### parts of the time, %" in told
    assert "| masks, eager policy softmax |" in told
    images = sorted((tmp_path / "images").glob("*.png"))
    assert [image.name.partition("-")[0] for image in images].count("models") == 1
    for image in images:
        assert f"(images/{image.name})" in (told if image.name.startswith("models") else text)
        assert image.read_bytes().startswith(b"\x89PNG")
