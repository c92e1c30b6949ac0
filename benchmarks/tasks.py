"""Whole tasks, every contender in a process of its own: wall time and peak resident memory.

A contender is a function that makes its inputs and returns a call; what the call takes is measured.
`python -m benchmarks.tasks MODULE FUNCTION '{"argument": value}'` runs one and prints a JSON line.
"""

import gc
import importlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import memory

Row = dict[str, Any]


def measure(function: Callable[..., Callable[[], Any]], arguments: dict[str, Any]) -> Row:
    """Time a contender's call in this process.

    Returns:
        `seconds`; `peak_bytes`, the most that the process had resident during the call, inputs and
        libraries included; `held_bytes`, what of it was there before; and `result`, what the call
        returned.
    """
    call = function(**arguments)
    gc.collect()
    resets = memory.can_measure_resident()
    if resets:
        memory.trim()
    held = memory.resident() if resets else 0
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    peak = memory.high_water() if resets else _ever()
    return {"seconds": seconds, "peak_bytes": peak, "held_bytes": held, "result": result}


def _ever() -> int:
    """Return the most that was resident since the process began; macOS counts bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def apart(module: str, function: str, arguments: dict[str, Any]) -> Row:
    """Measure a contender in a new process."""
    command = [sys.executable, "-m", "benchmarks.tasks", module, function, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module}.{function}({arguments}) failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def contest(benchmark: Any) -> Callable[..., dict[str, Row]]:
    """Run contenders one after another, ours under pytest-benchmark, and keep their rows."""

    def run(
        module: str,
        contenders: dict[str, tuple[str, dict[str, Any]]],
        *,
        op: str,
        mode: str,
        case: str,
        size: tuple[int, int],
        scales: dict[str, float] | None = None,
        rounds: int = 1,
    ) -> dict[str, Row]:
        """Measure contenders.

        Args:
            module: Where their functions are.
            contenders: Name -> function and arguments; one is called "ours".
            op: What is done.
            mode: Which kind of it.
            case: The problem in words.
            size: Its rows and columns.
            scales: Of contenders that ran a part of the problem, by how much time and memory are
                multiplied; the rows say so.
            rounds: How often the contenders take turns; the run of median time counts.
        """
        runs: dict[str, list[Row]] = {name: [] for name in contenders}

        def others() -> None:
            for name, (function, arguments) in contenders.items():
                if name != "ours":
                    runs[name].append(apart(module, function, arguments))

        def own() -> None:
            runs["ours"].append(apart(module, *contenders["ours"]))

        benchmark.pedantic(own, setup=others, rounds=rounds)
        found = {name: _median(rows) for name, rows in runs.items()}
        scales = scales or {}
        benchmark.extra_info["tasks"] = [
            _row(op, mode, case, size, name, values, found["ours"], scales.get(name, 1.0))
            for name, values in found.items()
        ]
        return found

    return run


def _median(rows: list[Row]) -> Row:
    return sorted(rows, key=lambda row: row["seconds"])[(len(rows) - 1) // 2]


def _row(
    op: str,
    mode: str,
    case: str,
    size: tuple[int, int],
    name: str,
    values: Row,
    ours: Row,
    scale: float,
) -> Row:
    return {
        "op": op,
        "mode": mode,
        "dtype": "float32",
        "batch": 0,
        "heads": 0,
        "tokens": size[0],
        "dim": size[1],
        "label": case,
        "device_type": "cpu",
        "status": "task",
        "provider": name,
        "seconds": scale * values["seconds"],
        "peak_bytes": int(scale * (values["peak_bytes"] - values["held_bytes"]))
        + values["held_bytes"],
        "scaled": scale,
        "ratio": scale * values["seconds"] / ours["seconds"],
    }


def main(words: list[str]) -> None:
    """Run the contender that the command line names."""
    module, function, arguments = words
    contender = getattr(importlib.import_module(module), function)
    print(json.dumps(measure(contender, json.loads(arguments))))


if __name__ == "__main__":
    main(sys.argv[1:])
