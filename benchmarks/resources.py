"""What every kernel takes on every architecture, compiled ahead of time: no GPU needed.

    python -m benchmarks.resources [--arch sm_90] [--kernel forward]

compiles each configuration that the launcher can choose, prints registers, shared memory, spills,
occupancy, tensor-core instructions and the roof of one problem, and fails where a configuration
spills, exceeds the shared memory or misses the tensor cores. The roof divides arithmetic and
compulsory traffic by the peak rates that the vendors publish: it is not measured.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from kernels._launch import ARCHITECTURES, Problem, aot, catalog

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "compiled" / "resources.json"
DOCUMENT = ROOT / "docs" / "resources.md"
BATCH, HEADS = 128, 12
"""Of the problem whose roof is shown; the row kernels move BATCH sequences."""

LIMIT = 300
"""Most compilations of a whole run."""


class Cost(NamedTuple):
    """Arithmetic and compulsory traffic: products of N x N x D, tensors of B x H x N x D."""

    products: int
    tensors: int


COSTS = {
    # q, k, v -> o by two products
    "forward_kernel": Cost(2, 4),
    # q, k, v, o, do -> dq, dk, dv by five products
    "grad_kernel": Cost(5, 8),
    # q, k, v, o, do -> dq by three
    "grad_queries_kernel": Cost(3, 6),
    # q, k, v, do -> dk, dv by four
    "grad_keys_kernel": Cost(4, 6),
}
ROW_TENSORS = {
    "copy_kernel": 2,
    "merge_kernel": 2,
    "norm_kernel": 3,
    "norm_grad_kernel": 4,
}
"""Tensors of one row per token and C channels that the row kernels read and write."""


def cost(unit: aot.Unit, problem: Problem) -> tuple[int, int]:
    """Return operations and bytes of one launch on the problem; index vectors are left out."""
    name = unit.kernel.split(".")[1]
    if name in COSTS:
        products, tensors = COSTS[name]
        rows = BATCH * HEADS * problem.tokens * problem.head_dim
        return 2 * products * rows * problem.tokens, tensors * rows * problem.itemsize
    if name in ROW_TENSORS:
        moved = problem.tokens * problem.head_dim * problem.itemsize
        return 0, ROW_TENSORS[name] * moved
    if name == "link_kernel":
        return 0, problem.tokens * (8 + 2 * 4)
    # Of a selection: scores in; mask, indices and cumulative lengths out.
    written = 0 if name == "count_kernel" else problem.tokens * (1 + 8)
    return 0, BATCH * (problem.tokens * problem.itemsize + written + 4)


def record(entry: catalog.Entry, resources: aot.Resources) -> dict[str, Any]:
    """Return one row of the results."""
    unit, problem = entry.unit, entry.problem
    arch = ARCHITECTURES[unit.arch]
    flops, traffic = cost(unit, problem)
    peak = arch.half_flops if unit.dtype == "bf16" else arch.float_flops
    seconds = max(flops / peak, traffic / arch.bandwidth)
    return {
        **asdict(unit),
        "constants": dict(unit.constants),
        "types": dict(unit.types),
        **asdict(resources),
        "shared_limit": arch.shared,
        "programs_per_multiprocessor": resources.programs(arch, unit.num_warps),
        "occupancy": resources.occupancy(arch, unit.num_warps),
        "problem": {"tokens": problem.tokens, "width": problem.head_dim},
        "flops": flops,
        "bytes": traffic,
        "flops_per_byte": flops / traffic,
        "published_floor_us": seconds * 1e6,
        "bound": "bytes" if traffic / arch.bandwidth >= flops / peak else "arithmetic",
        "faults": aot.faults(unit, resources),
    }


def compile_all(
    entries: Sequence[catalog.Entry], jobs: int
) -> Iterable[tuple[catalog.Entry, aot.Resources]]:
    """Compile in several processes; yields in the order of the entries."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from zip(entries, pool.map(aot.measure, [e.unit for e in entries]), strict=True)


HEADER = (
    "kernel",
    "dtype",
    "tile",
    "warps",
    "stages",
    "compiled for",
    "registers",
    "shared KB",
    "spill B",
    "CTAs/SM",
    "warps %",
    "tensor cores",
    "FLOP/B",
    "roof us",
)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row as it is printed, in the order of `HEADER`."""
    constants = row["constants"]
    names = ("BLOCK_M", "BLOCK_N") if "BLOCK_M" in constants else ("BLOCK_R", "BLOCK_C")
    if "BLOCK_B" in constants:
        names = ("BLOCK_B", "BLOCK_N")
    tile = "x".join(str(constants[name]) for name in names if name in constants)
    tails = {constants[name] for name in ("TAIL_M", "TAIL_N") if constants.get(name)}
    tile += "".join(f"+{rows}" for rows in sorted(tails))
    flags = ["tf32"] * (constants.get("PRECISION") == "tf32")
    flags += ["counted"] * constants.get("COUNTED", False)
    flags += [f"{name}={kind}" for name, kind in row["types"].items()]
    kinds = " ".join(f"{kind} {count}" for kind, count in row["instructions"].items())
    return (
        " ".join((row["kernel"].removesuffix("_kernel"), *flags)),
        row["dtype"],
        tile,
        str(row["num_warps"]),
        str(row["num_stages"]),
        f"{row['problem']['tokens']} x {row['problem']['width']}",
        str(row["registers"]),
        f"{row['shared'] / 1024:.1f}",
        str(row["spilled"]),
        str(row["programs_per_multiprocessor"]),
        f"{100 * row['occupancy']:.0f}",
        kinds or "-",
        f"{row['flops_per_byte']:.0f}",
        f"{row['published_floor_us']:.1f}",
    )


def title(arch: str) -> str:
    """Return the heading of an architecture with the figures that its roof is reckoned from."""
    a = ARCHITECTURES[arch]
    return (
        f"{arch}: roof from the published peaks of {a.device} ({a.half_flops / 1e12:g} TFLOP/s "
        f"bfloat16, {a.float_flops / 1e12:g} float32, {a.bandwidth / 1e12:g} TB/s); at most "
        f"{a.shared >> 10} KB of shared memory"
    )


def markdown(rows: Sequence[dict[str, Any]], origin: dict[str, Any]) -> str:
    """Return the document: one table per architecture."""
    lines = [
        "# Resources of the kernels",
        "",
        "<!-- written by `python -m benchmarks.resources` -->",
        "",
        f"Every configuration that the launcher can choose, compiled ahead of time by "
        f"`{origin['command']}` with Triton {origin['triton']} on {origin['date']}: "
        f"{origin['compilations']} compilations. A configuration is compiled once, for the widest "
        "head dimension and the largest tail tiles that it serves. Tile: query rows x key rows + "
        "rows of the tail tiles; of the row kernels rows or images x columns. Occupancy is what "
        "registers, shared memory and warp slots allow. The roof is arithmetic and compulsory "
        f"traffic of {BATCH} images and {HEADS} heads over the published peak rates: nothing here "
        "is measured on a GPU.",
    ]
    for arch in dict.fromkeys(row["arch"] for row in rows):
        lines += ["", f"## {title(arch)}", "", "| " + " | ".join(HEADER) + " |"]
        lines.append("|" + "---|" * len(HEADER))
        lines += ["| " + " | ".join(cells(r)) + " |" for r in rows if r["arch"] == arch]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print and write; 1 where a configuration has a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resources", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--arch", action="append", choices=sorted(ARCHITECTURES))
    parser.add_argument("--kernel", default="", help="part of the names of the kernels")
    parser.add_argument("--jobs", type=int, default=2, help="processes that compile")
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS.relative_to(ROOT)}, if all")
    given = parser.parse_args(arguments)

    start = time.perf_counter()
    archs = given.arch or list(ARCHITECTURES)
    entries = [e for arch in archs for e in catalog.entries(arch, given.kernel)]
    if not entries:
        parser.error(f"--kernel {given.kernel}: no kernel has such a name")
    rows: list[dict[str, Any]] = []
    for entry, resources in compile_all(entries, given.jobs):
        if not rows or rows[-1]["arch"] != entry.unit.arch:
            print("\n" + title(entry.unit.arch))
            _print(HEADER)
        rows.append(record(entry, resources))
        _print(cells(rows[-1]))
    origin = _origin(arguments, len(rows), time.perf_counter() - start)
    print(f"\n{len(rows)} compilations in {origin['seconds']:.0f} s")
    whole = not given.kernel and not given.arch
    if given.output or whole:
        path = given.output or RESULTS
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"origin": origin, "rows": rows}, indent=1) + "\n")
        print(f"wrote {path}")
    if whole:
        DOCUMENT.write_text(markdown(rows, origin), encoding="utf-8")
        print(f"wrote {DOCUMENT}")
    faulty = [row for row in rows if row["faults"]]
    for row in faulty:
        print(f"FAULT {' '.join(cells(row)[:6])} {row['arch']}: {'; '.join(row['faults'])}")
    return 1 if faulty else 0


def _print(texts: Sequence[str]) -> None:
    widths = (42, 6, 14, 6, 7, 13, 10, 10, 8, 8, 8, 22, 7, 8)
    print(
        "".join(text.ljust(w) for text, w in zip(texts, widths, strict=True)).rstrip(), flush=True
    )


def _origin(arguments: Sequence[str] | None, compilations: int, seconds: float) -> dict[str, Any]:
    import triton

    given = sys.argv[1:] if arguments is None else arguments
    return {
        "command": " ".join(("python -m benchmarks.resources", *given)),
        "triton": triton.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "compilations": compilations,
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    raise SystemExit(main())
