"""The script that fills the README does what it says."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "benchmarks" / "update_readme.py"
    spec = importlib.util.spec_from_file_location("update_readme", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def results(**changes: Any) -> dict[str, Any]:
    """What `reid demo` writes, as far as the table needs it."""
    rows = [
        {
            "name": name,
            "label": f"row {name}",
            "tokens": [128] if name in ("teacher", "dense") else [128, 89, 62, 43],
            "images_per_second": 100.4 + number,
            "speedup": 1.0 + number / 4,
            "rank1": 30.0 + number,
            "mAP": 20.25 + number,
            "queries": 640,
        }
        for number, name in enumerate(("teacher", "dense", "hts", "hts+npkd", "hts+npkd+noda"))
    ]
    pairs = ("teacher - dense", "hts - dense", "hts+npkd - hts", "hts+npkd+noda - hts+npkd")
    difference = {"mAP": {"estimate": 2.5, "low": -0.25, "high": 5.0}}
    return {
        "command": "reid demo",
        "rows": rows,
        "baselines": {
            name: {"rank1": 1.0, "mAP": 2.0}
            for name in ("chance", "colour_histogram", "untrained", "backbone")
        },
        "differences": {pair: difference for pair in (*pairs, "hts+npkd+noda - dense")},
        "config": {"data": {"name": "occluded-mannequins"}, "train": {"max_steps": 150}},
        "versions": {"torch": "2.0"},
        "seed": 0,
        "minutes_of_training": 12.3,
        "device": "a machine",
        "threads": 2,
        "date": "2030-01-02T03:04:05+00:00",
        "git_revision": "0123456789abcdef",
        **changes,
    }


def test_the_table_shows_rows_baselines_intervals_and_origin(script: ModuleType) -> None:
    block = script.table(results())
    assert "| row hts | 128 > 89 > 62 > 43 | 102 | 1.50 | 32.0 | 22.2 |" in block
    assert "| *colour histogram* | | | | 1.0 | 2.0 |" in block
    assert "* + NPKD over + HTS: +2.5 (-0.2 to +5.0)" in block
    assert "12 minutes of training on a machine, 2 threads, torch 2.0, 2030-01-02" in block
    assert "revision 0123456789. " in block
    changed = script.table(results(git_revision="0123456789ab-dirty"))
    assert "revision 0123456789 with changes. " in changed


def test_only_the_block_of_the_readme_changes(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = (ROOT / "README.md").read_text(encoding="utf-8")
    readme, measured = tmp_path / "README.md", tmp_path / "results.json"
    readme.write_text(original, encoding="utf-8")
    measured.write_text(json.dumps(results()), encoding="utf-8")
    words = ["update_readme.py", "--results", str(measured), "--readme", str(readme)]
    monkeypatch.setattr(sys, "argv", words)
    for _ in range(2):
        assert script.main() == 0
        text = readme.read_text(encoding="utf-8")
        assert text.count("| row dense |") == 1
        assert text.split(script.BEGIN)[0] == original.split(script.BEGIN)[0]
        assert text.split(script.END)[1] == original.split(script.END)[1]


def test_a_smoke_run_missing_results_and_missing_marks_are_refused(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match="scores mean nothing"):
        script.table(results(command="reid demo --quick"))
    with pytest.raises(ValueError, match="once each"):
        script.replace_block("no marks", "block")
    words = ["update_readme.py", "--results", str(tmp_path / "none.json")]
    monkeypatch.setattr(sys, "argv", words)
    assert script.main() == 2
    assert "make demo" in capsys.readouterr().err
