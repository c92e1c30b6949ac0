"""Reproduced tables beside the paper's figures."""

import json

import pytest

from reid.errors import UserError
from reid.report import write_table
from reid.report.paper import PAPER_TABLES


def record(table="table4", **changes):
    rows = [
        {"name": "teacher", "label": "teacher", "rank1": 71.25, "mAP": 60.0},
        {
            "name": "dense", "label": "dense", "rank1": 50.0, "mAP": 40.0,
            "rank1_interval": [48.0, 52.0], "mAP_interval": [38.5, 41.5],
            "images_per_second": 200.0,
        },
        {"name": "hts", "label": "HTS", "rank1": 49.0, "mAP": 39.0, "images_per_second": 310.0},
    ]  # fmt: skip
    base = {
        "table": table, "data": "occluded-mannequins", "generated": True, "epochs": 3,
        "init": "scratch", "rows": rows, "counts": {"train": 1234, "query": 640},
        "seed": 0, "versions": {"torch": "2.x"},
    }  # fmt: skip
    return {**base, **changes}


def line(markdown, start):
    (found,) = [text for text in markdown.splitlines() if text.startswith(f"| {start}")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_rows_stand_beside_the_printed_ones(tmp_path):
    text = write_table(record(), tmp_path)
    assert (tmp_path / "table4.md").read_text(encoding="utf-8") == text
    assert line(text, "1 (vanilla") == [
        "1 (vanilla DeiT-S)", "1074", "57.6", "49.2", "1.00",
        "50.0 [48.0, 52.0]", "40.0 [38.5, 41.5]", "200", "1.00",
    ]  # fmt: skip
    assert line(text, "2 (+ HTS)")[4:] == ["1.48", "49.0", "39.0", "310", "1.55"]
    assert line(text, "3 (+ NPKD)")[5:] == ["-", "-", "-", "-"]
    assert line(text, "teacher (only here)")[1:] == ["-"] * 4 + ["71.2", "60.0", "-", "-"]


def test_generated_data_are_said_not_to_compare(tmp_path):
    text = write_table(record(), tmp_path)
    for words in ("NOT comparable", "occluded-mannequins", "Occluded-DukeMTMC", "1,234 train",
                  "3 epochs (the paper trains 200)", "unlike the paper"):  # fmt: skip
        assert words in text
    page = (tmp_path / "table4.html").read_text(encoding="utf-8")
    assert "NOT comparable" in page
    assert "57.6" in page


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generated": False, "data": "occluded-duke"}, "Both are on Occluded-DukeMTMC"),
        ({"generated": False, "data": "market1501"}, "other images"),
        ({"epochs": 200}, "200 epochs (as the paper)"),
        ({"init": "pretrained"}, "ImageNet weights, as the paper"),
        ({"init": "weights/own.safetensors"}, "the weights in weights/own.safetensors"),
    ],
)
def test_caveats_follow_the_run(changes, words, tmp_path):
    assert words in write_table(record(**changes), tmp_path)


def test_json_holds_both_sides(tmp_path):
    write_table(record(), tmp_path)
    payload = json.loads((tmp_path / "table4.json").read_text(encoding="utf-8"))
    assert payload["record"]["rows"][1]["rank1"] == 50.0
    assert payload["paper"]["rows"][3] == {
        "key": "hts+npkd+noda", "label": "4 (+ NODA)", "values": [1585, 65.8, 54.9],
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(PAPER_TABLES))
def test_every_table_is_whole(name, tmp_path):
    table = PAPER_TABLES[name]
    assert all(len(row.values) == len(table.columns) for row in table.rows)
    assert any(row.key for row in table.rows)
    assert f"Table {table.number}:" in write_table(record(name), tmp_path)


def test_figures_that_the_paper_prints_more_than_once_agree():
    final = {name: table.rows[-1].values for name, table in PAPER_TABLES.items()}
    assert final["table1"] == final["table4"] == (1585, 65.8, 54.9)
    assert final["table6"] == final["table7"] == (65.8, 54.9)
    assert PAPER_TABLES["table5"].rows[2].values == final["table4"]
    assert PAPER_TABLES["table7"].rows[2].values == PAPER_TABLES["table4"].rows[2].values[1:]


def test_keys_are_those_of_the_recipes():
    from reid.reproduce import TABLES

    for name, rows in TABLES.items():
        printed = {row.key for row in PAPER_TABLES[name].rows if row.key}
        assert {row.name for row in rows} == printed


def test_refuses_unknown_tables_and_bare_records(tmp_path):
    with pytest.raises(UserError, match=r"unknown table 'table9'.*table1"):
        write_table(record("table9"), tmp_path)
    with pytest.raises(UserError, match="lacks epochs, init"):
        write_table({"table": "table4", "data": "x", "generated": True, "rows": []}, tmp_path)
