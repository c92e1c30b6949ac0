"""Measures launch configurations on this GPU and writes the file that the library reads.

    python -m kernels.tune                         re-ID sizes, every operator
    python -m kernels.tune --tokens 129 --head-dim 64 --dtype float16
    python -m kernels.tune --list                  what is chosen on this device, and why
    python -m kernels.tune --dry-run --arch sm_90  what would be tried; needs no GPU

Every candidate that compiles without spills is checked against plain torch, then timed: captured in
a graph, in turns with the others, on inputs that are not in the cache. The file goes to the path in
SPARSE_VIT_TUNING, or to $XDG_CONFIG_HOME/sparse-vit/tuning-<architecture>.json.
"""

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from kernels import _launch
from kernels._launch import LaunchConfig, Problem, choice, search, tuned
from kernels._launch.workloads import OPERATORS, Size, Workload, workloads

TOKENS = (33, 65, 97, 129, 197, 257)
"""Lengths of re-ID models: grids of 16 x 8 and more with a class token, and what pruning leaves."""
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
CHECKED = 2
"""Sequences that results are compared on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where there is no GPU to measure on."""
    given = _parser().parse_args(arguments)
    size = Size(given.batch, given.heads, given.head_dim, getattr(torch, given.dtype))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arch = given.arch or (_launch.architecture(device) if device.type == "cuda" else "sm_90")
    chosen = [
        workload
        for operator in given.operators
        for tokens in given.tokens
        for workload in workloads(operator, tokens, size, arch)
    ]
    if given.list or given.dry_run:
        print(f"architecture {arch}, {given.dtype}, head dimension {given.head_dim}")
        _show(chosen, candidates=given.dry_run)
        return 0
    if device.type != "cuda":
        print(
            "kernels.tune: this machine has no CUDA or ROCm device that torch can use, and there "
            "is nothing to measure without one. Run it on the machine with the GPU; --dry-run and "
            "--list work anywhere",
            file=sys.stderr,
        )
        return 2
    if given.arch not in (None, _launch.architecture(device)):
        print(f"kernels.tune: this device is {_launch.architecture(device)}", file=sys.stderr)
        return 2
    path = given.output or tuned.user_path(arch)
    if path is None:
        print(f"kernels.tune: {tuned.VARIABLE}=off; give --output", file=sys.stderr)
        return 2
    _tune_all(chosen, size, device, path, given.jobs)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS))
    add("--tokens", nargs="+", type=_positive, default=list(TOKENS), help="lengths")
    add("--head-dim", type=_positive, default=64)
    add("--heads", type=_positive, default=12)
    add("--batch", type=_positive, default=128)
    add("--dtype", choices=DTYPES, default="bfloat16")
    add("--output", type=Path, help="file to write instead of the one that the library reads")
    add("--jobs", type=_positive, default=os.cpu_count() or 1, help="processes that compile")
    add("--arch", help="architecture for --list and --dry-run; default: this device's, or sm_90")
    add("--list", action="store_true", help="print what is chosen for these sizes, and why")
    add("--dry-run", action="store_true", help="print what would be tried")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return number


def _show(chosen: Sequence[Workload], *, candidates: bool) -> None:
    for workload in chosen:
        print(workload.name)
        for name in workload.kernels:
            config, reason = choice.explain(name, workload.problem)
            print(f"  {name}: {search.describe(config)} ({reason})")
            if candidates:
                found = choice.candidates(name, workload.problem)
                print(
                    f"    {len(found)} candidates: {'; '.join(search.describe(c) for c in found)}"
                )


def _tune_all(
    chosen: Sequence[Workload], size: Size, device: torch.device, path: Path, jobs: int
) -> None:
    from kernels._launch import timing

    arch = chosen[0].problem.arch
    dtype = DTYPES[str(size.dtype).removeprefix("torch.")]
    entries = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:

        def fits(
            name: str, problem: Problem, configs: Sequence[LaunchConfig | None]
        ) -> list[LaunchConfig | None]:
            work = [(name, problem, config, dtype) for config in configs]
            good = pool.map(search.compiles, *zip(*work, strict=True))
            return [config for config, ok in zip(configs, good, strict=True) if ok]

        for workload in chosen:
            print(workload.name, flush=True)
            first = workload.inputs(size.batch, device)
            more = range(timing.input_sets(first, device) - 1)
            inputs = [first, *(workload.inputs(size.batch, device) for _ in more)]
            found = search.tune(
                workload, inputs, workload.inputs(CHECKED, device), timing.compare, fits
            )
            entries += [{**entry, "batch": size.batch, "heads": size.heads} for entry in found]
    old = None
    if path.exists():
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
            tuned.parse(old, arch, frozenset(_launch.KERNELS))
        except ValueError as error:
            print(f"{path} is replaced: {error}")
            old = None
    tuned.write(path, tuned.merge(old, _document(arch, device, dtype, entries)))
    choice.forget()
    print(f"wrote {path}")


def _document(
    arch: str, device: torch.device, dtype: str, entries: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    versions = {"torch": str(torch.__version__)}
    for name in ("sparse-vit", "triton"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "schema": tuned.SCHEMA,
        "architecture": arch,
        "device": torch.cuda.get_device_name(device),
        "versions": versions,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(("python -m kernels.tune", *sys.argv[1:])),
        "dtype": dtype,
        "entries": list(entries),
    }


if __name__ == "__main__":
    raise SystemExit(main())
