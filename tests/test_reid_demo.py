"""`reid demo --quick` and a reproduced table, whole, on tiny data."""

import json

import pytest

from reid.cli import main

ROWS = ["teacher", "dense", "hts", "hts+npkd", "hts+npkd+noda"]


@pytest.mark.slow
def test_the_quick_demo_writes_the_report(tmp_path, capsys) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--quick", "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == ROWS
    for row in results["rows"]:
        assert 0 <= row["rank1"] <= 100
        assert 0 <= row["mAP"] <= 100
        assert row["images_per_second"] > 0
    dense = results["rows"][1]
    assert dense["speedup"] == 1.0
    assert [row["tokens"] for row in results["rows"][2:]] == [[128, 89, 62, 43]] * 3
    names = {"chance", "colour_histogram", "untrained", "backbone"}
    assert set(results["baselines"]) == names
    assert results["versions"]["torch"]
    assert results["git_revision"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<img" in page
    assert "http" not in page.partition("<body")[2].replace("http://www.w3.org", "")
    assert len(list(out.glob("*.png"))) >= 5
    assert "report" in capsys.readouterr().out

    # a second call reads finished rows back
    before = (out / "hts" / "model.safetensors").stat().st_mtime_ns
    assert main(["demo", "--quick", "--out", str(out)]) == 0
    assert (out / "hts" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_table_is_written_beside_the_papers(tiny_data, tmp_path, capsys) -> None:
    arguments = [
        "reproduce",
        "table6",
        "--data",
        "occluded-mannequins",
        "--root",
        tiny_data,
        "--size",
        "tiny",
        "--epochs",
        "1",
        "--init",
        "mini",
        "--out",
        str(tmp_path / "t6"),
        "data.image_size=[64, 32]",
        "train.identities=4",
        "train.instances=2",
        "train.max_steps=1",
    ]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for figure in ("56.6", "57.2", "64.3", "65.8"):
        assert figure in text
    assert (tmp_path / "t6" / "table6.md").is_file()
