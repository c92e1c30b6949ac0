"""The report of resources: costs, rows, tables, and the command on the smallest kernel."""

import json

import pytest

from benchmarks import resources
from kernels._launch import ARCHITECTURES, KERNELS, LaunchConfig, Problem, aot, catalog

FORWARD = "masked_attention.forward_kernel"
TAKEN = aot.Resources(132, 40960, 0, {"wgmma": 13, "mma": 22}, 1.5)


def _entry(name=FORWARD, tokens=129, head_dim=64, dtype="bf16", arch="sm_90"):
    problem = Problem(tokens, head_dim, catalog.DTYPES[dtype], arch)
    config = LaunchConfig(64, 64, 4, 2)
    return catalog.Entry(catalog.unit_of(name, problem, config, dtype), problem)


def test_the_cost_of_a_forward_is_that_of_two_products_and_four_tensors():
    flops, traffic = resources.cost(*_entry())
    rows = resources.BATCH * resources.HEADS * 129
    products = sum(2 * 129 * 64 for _ in ("scores", "outputs"))
    assert flops == rows * products
    assert traffic == rows * 64 * 2 * len(("q", "k", "v", "o"))


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_has_a_cost(name):
    for arch in ("sm_80", "gfx942"):
        for entry in catalog.entries(arch, name):
            flops, traffic = resources.cost(*entry)
            assert traffic > 0
            assert (flops > 0) == ("attention" in name)


def test_a_row_tells_occupancy_and_the_roof_of_the_published_peaks():
    row = resources.record(_entry(), TAKEN)
    arch = ARCHITECTURES["sm_90"]
    assert row["programs_per_multiprocessor"] == 3
    assert row["occupancy"] == 12 / 64
    assert row["bound"] == "bytes"
    assert row["published_floor_us"] == pytest.approx(row["bytes"] / arch.bandwidth * 1e6)
    assert row["faults"] == []
    row = resources.record(_entry(tokens=600, dtype="fp32"), TAKEN)
    assert row["bound"] == "arithmetic"
    assert row["published_floor_us"] == pytest.approx(row["flops"] / arch.float_flops * 1e6)


def test_tables_hold_every_row_under_its_architecture():
    entries = [_entry(), _entry(arch="sm_80"), _entry("ragged_attention.forward_kernel")]
    rows = [resources.record(entry, TAKEN) for entry in entries]
    origin = {"command": "c", "triton": "t", "date": "d", "compilations": 3}
    text = resources.markdown(rows, origin)
    assert text.index("## sm_90") < text.index("## sm_80")
    assert text.count("masked_attention.forward |") == 2
    assert "| 64x64+16 | 4 | 2 | 129 x 64 | 132 | 40.0 | 0 | 3 | 19 | wgmma 13 mma 22 |" in text
    for row in rows:
        assert len(resources.cells(row)) == len(resources.HEADER)


def test_a_row_tells_how_its_kernel_differs_from_the_usual_one():
    entries = catalog.entries("sm_90", "_kernel")
    names = [resources.cells(resources.record(entry, TAKEN))[0] for entry in entries]
    assert "masked_attention.forward tf32" in names
    assert "masked_attention.forward keep_ptr=*fp32" in names
    assert "token_select.select counted" in names
    assert "token_select.select" in names


def test_a_part_of_a_name_that_fits_no_kernel_is_refused(capsys):
    with pytest.raises(SystemExit):
        resources.main(["--arch", "sm_90", "--kernel", "nonsense"])
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.aot
def test_the_command_compiles_prints_and_writes(tmp_path, capsys):
    path = tmp_path / "found.json"
    arguments = ["--arch", "sm_90", "--kernel", "link_kernel", "--jobs", "1", "--output", str(path)]
    assert resources.main(arguments) == 0
    assert "1 compilations" in capsys.readouterr().out
    found = json.loads(path.read_text())
    assert found["origin"]["compilations"] == 1
    assert found["rows"][0]["registers"] > 0
