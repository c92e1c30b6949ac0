"""Rows of a run with where they come from, in one JSON file per device."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.roof import Roof
from reid.engine.provenance import provenance

RESULTS = Path(__file__).parent / "results"
KEY = ("op", "mode", "dtype", "label")
ORDER = ("op", "mode", "dtype", "batch", "heads", "tokens", "dim", "label")
Row = dict[str, Any]


def origin(command: str) -> dict[str, Any]:
    """Return device, versions, date, revision and load of this run."""
    found = provenance()
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = {
            "memory_bytes": properties.total_memory,
            "processors": properties.multi_processor_count,
            "capability": list(torch.cuda.get_device_capability()),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    found["load_average"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {**found, "command": command}


def slug(device: str) -> str:
    """Return the name of a device as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def default_path() -> Path:
    """Return the file of this device."""
    return RESULTS / f"{slug(provenance()['device'])}.json"


def roof_record(roof: Roof) -> dict[str, Any]:
    """Return a roof in units that are read easily."""
    return {
        "gflops": roof.flops / 1e9,
        "product": roof.product,
        "copy_gbytes": roof.copy / 1e9,
        "fill_gbytes": roof.fill / 1e9,
    }


def pair_row(info: Row, milliseconds: float, device_type: str) -> Row:
    """Return the row of two models that `benchmarks.pairs` timed, from its `extra_info`."""
    return {
        "op": "model",
        "mode": "forward",
        "dtype": "float32",
        "batch": info["batch"],
        "heads": 0,
        "tokens": info["tokens"][0],
        "dim": 0,
        "label": info["case"],
        "device_type": device_type,
        "status": "pair",
        "provider": info["function"],
        "p50_ms": milliseconds,
        "rival": info["rival"],
        "rival_ms": info["rival_median"] * 1e3,
        "ratio": info["ratio"],
    }


def way_row(
    *,
    op: str,
    mode: str,
    label: str,
    provider: str,
    seconds: float,
    cpu_seconds: float,
    items: int,
    unit: str,
    peak_bytes: int | None,
    ratio: float,
    device_type: str,
) -> Row:
    """Return the row of one way of doing something.

    Args:
        op: What is done.
        mode: Variant of it.
        label: Its size.
        provider: The way.
        seconds: Time it takes.
        cpu_seconds: Time of all processor cores together.
        items: What it works through, in units of `unit`.
        unit: Such as "img".
        peak_bytes: Memory it takes at its highest; None where it was not measured.
        ratio: Time of the yardstick as a multiple of `seconds`.
        device_type: cpu or cuda.
    """
    return {
        "op": op,
        "mode": mode,
        "dtype": "",
        "batch": 0,
        "heads": 0,
        "tokens": 0,
        "dim": 0,
        "label": label,
        "device_type": device_type,
        "status": "way",
        "provider": provider,
        "p50_ms": seconds * 1e3,
        "cpu_seconds": cpu_seconds,
        "rate": items / seconds,
        "unit": unit,
        "peak_bytes": peak_bytes,
        "ratio": ratio,
    }


def load(path: Path) -> list[Row]:
    """Read the rows of a file, each with its origin under "origin".

    Raises:
        ValueError: It is not a file of results.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        origins = content["origins"]
        return [{**row, "origin": origins[row["origin"]]} for row in content["rows"]]
    except (json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"{path} is not a file of benchmark results ({type(error).__name__}: {error}); "
            "`make bench` writes one"
        ) from error


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Return the new rows and those old ones whose case was not measured again."""
    new = list(new)
    measured = {_case(row) for row in new}
    return [*(row for row in old if _case(row) not in measured), *new]


def save(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, each with its origin under "origin"; equal origins are written once."""
    origins: list[Any] = []
    written = []
    for row in rows:
        if row["origin"] not in origins:
            origins.append(row["origin"])
        written.append({**row, "origin": origins.index(row["origin"])})
    written.sort(key=lambda row: tuple(str(row[name]).zfill(6) for name in ORDER))
    lines = ",\n".join(json.dumps(row, sort_keys=True) for row in written)
    head = json.dumps(origins, indent=1, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(f'{{"origins": {head},\n"rows": [\n{lines}\n]}}\n', encoding="utf-8")
    partial.replace(path)


def _case(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)
