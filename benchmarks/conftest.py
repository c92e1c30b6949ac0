"""Options, fixtures and the summary at the end of a run."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import goals, records, roof, runner, shapes, tables
from benchmarks.pairs import versus  # noqa: F401  a fixture
from benchmarks.shapes import Case
from benchmarks.tasks import contest  # noqa: F401  a fixture

ROWS = pytest.StashKey[list[Any]]()
ORIGIN = pytest.StashKey[dict[str, Any]]()
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the extent of a run and where its rows go."""
    parser.addoption("--tiny", action="store_true", help="small shapes and two rounds")
    parser.addoption("--full", action="store_true", help="the whole grid, all peers")
    parser.addoption(
        "--save",
        nargs="?",
        const=str(records.default_path()),
        help="add the rows to a JSON file; without a path, to the file of this device",
    )


def extent(config: pytest.Config) -> str:
    """Name the extent that the options ask for."""
    return "tiny" if config.option.tiny else "full" if config.option.full else "default"


def pytest_configure(config: pytest.Config) -> None:
    """Note revision and load before anything runs."""
    config.stash[ORIGIN] = records.origin(shlex.join(["python", "-m", "pytest", *sys.argv[1:]]))
    config.stash[ROWS] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that takes a case those of the operator its module is named after."""
    if "case" in metafunc.fixturenames:
        operator = metafunc.module.__name__.rpartition("test_")[2]
        found = shapes.cases(operator, DEVICE.type, extent(metafunc.config))
        metafunc.parametrize("case", found, ids=[case.name for case in found])


@pytest.fixture
def tiny(request: pytest.FixtureRequest) -> bool:
    """Whether the cases shrink to a smoke run."""
    return bool(request.config.option.tiny)


@pytest.fixture
def device() -> torch.device:
    """The first GPU, or the CPU."""
    return DEVICE


@pytest.fixture(scope="session")
def roofs(request: pytest.FixtureRequest) -> Callable[[torch.dtype], roof.Roof]:
    """Ceilings of a dtype, measured when first asked for."""
    known: dict[torch.dtype, roof.Roof] = {}

    def of(dtype: torch.dtype) -> roof.Roof:
        if dtype not in known:
            known[dtype] = roof.measure(DEVICE, dtype, request.config.option.tiny)
        return known[dtype]

    return of


@pytest.fixture
def measure(
    benchmark: Any,
    tiny: bool,
    roofs: Callable[[torch.dtype], roof.Roof],
    request: pytest.FixtureRequest,
) -> Callable[[Case], None]:
    """Measure a case against its peers and keep its rows."""

    def run(case: Case) -> None:
        benchmark.group = f"{case.op}, {case.mode}"
        rows = runner.run(case, DEVICE, benchmark, roofs(case.dtype), tiny)
        origin = request.config.stash[ORIGIN]
        rows = [{**row, "origin": origin} for row in rows]
        benchmark.extra_info["rows"] = [{**row, "origin": None} for row in rows]
        request.config.stash[ROWS] += rows

    return run


@pytest.fixture
def keep_rows(request: pytest.FixtureRequest) -> Callable[[list[Any]], None]:
    """Keep rows that a test has made itself."""

    def keep(rows: list[Any]) -> None:
        origin = request.config.stash[ORIGIN]
        request.config.stash[ROWS] += [{**row, "origin": origin} for row in rows]

    return keep


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the ratios, the goals, who could not take part, and where the rows went."""
    session = getattr(config, "_benchmarksession", None)
    origin = config.stash[ORIGIN]
    rows = config.stash[ROWS]
    for result in session.benchmarks if session else []:
        if "ratio" in result.extra_info:
            median = result.stats.median * 1e3
            row = records.pair_row(result.extra_info, median, DEVICE.type)
            rows.append({**row, "origin": origin})
        rows += [{**row, "origin": origin} for row in result.extra_info.get("tasks", [])]
    if not rows:
        return
    write = terminalreporter.write_line
    terminalreporter.section("medians of runs that take turns; ratios above 1: ours is faster")
    write(tables.origin_line(origin))
    load, cores = origin["load_average"], os.cpu_count() or 1
    if load is not None and load > cores + 0.5:
        write(f"load average {load:.1f} on {cores} cores: other programs run, expect noise")
    for section in tables.sections(rows):
        write("")
        write(section.title)
        for line in tables.text(section):
            write(line)
    outcomes = goals.evaluate(rows) if extent(config) != "tiny" else []
    if outcomes:
        write("")
        for line in tables.text(tables.goals_of(outcomes)):
            write(line)
    if config.option.save:
        path = Path(config.option.save)
        old = records.load(path) if path.is_file() else []
        records.save(path, records.merge(old, rows))
        write(f"\nrows written to {path}; now: python -m benchmarks.report {path}")
