"""Finds the fastest configuration of every kernel of a workload among those that are right."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from kernels._launch import aot, catalog, choice, tuned
from kernels._launch.architecture import limits
from kernels._launch.config import LaunchConfig, Problem
from kernels._launch.workloads import Arguments, Workload

GAIN = 0.02
"""A configuration takes the default's place only where it is faster by this share."""

Configs = Sequence[LaunchConfig | None]
Timer = Callable[[Sequence[Callable[[Arguments], object]], Sequence[Arguments]], list[float]]
Fits = Callable[[str, Problem, Configs], list[LaunchConfig | None]]


def describe(config: LaunchConfig | None) -> str:
    """Return a configuration in short."""
    if config is None:
        return "not used"
    tail = f"+{config.tail}" if config.tail else ""
    return (
        f"{config.block_m}x{config.block_n}{tail} warps {config.num_warps} "
        f"stages {config.num_stages}"
    )


def compiles(name: str, problem: Problem, config: LaunchConfig | None, dtype: str) -> bool:
    """Tell whether a kernel compiles without spills and within the shared memory."""
    if config is None:
        return True
    known = replace(problem, arch=limits(problem.arch).name)
    operand = "fp32" if name.startswith("token_select.") else dtype
    unit = catalog.unit_of(name, known, config, operand)
    try:
        resources = aot.measure(unit)
    except Exception:
        # Triton gives no common type to what its passes and assemblers raise.
        return False
    limit = limits(problem.arch).shared
    return resources.spilled == 0 and resources.shared <= limit


def tune(
    workload: Workload,
    inputs: Sequence[Arguments],
    checked: Arguments,
    compare: Timer,
    fits: Fits,
) -> list[dict[str, Any]]:
    """Find the fastest configurations of the kernels of a workload, one kernel after another.

    Args:
        workload: What is launched.
        inputs: Sets of arguments to time with.
        checked: Arguments to compare results on.
        compare: Times the alternatives; see `kernels._launch.timing.compare`.
        fits: Keeps the configurations worth launching.

    Returns:
        Entries of a tuning file, with what was measured.

    Raises:
        RuntimeError: No configuration of a kernel gives right results.
    """
    expected = tolerances(workload, checked)
    best: dict[str, LaunchConfig | None] = {}
    entries = []
    for name in workload.kernels:
        held = {**workload.held.get(name, {}), **best}
        configs = fits(name, workload.problem, choice.candidates(name, workload.problem))
        configs = [c for c in configs if _right(workload, checked, {**held, name: c}, expected)]
        if not configs:
            raise RuntimeError(
                f"{workload.name}: no configuration of {name} gives right results on this device; "
                "the kernels should not be used on it"
            )
        seconds = compare([_call(workload, {**held, name: c}) for c in configs], inputs)
        fastest = min(range(len(configs)), key=seconds.__getitem__)
        default = choice.rule(name, workload.problem)
        chosen = fastest
        if configs[0] == default and seconds[fastest] > (1 - GAIN) * seconds[0]:
            chosen = 0
        best[name] = configs[chosen]
        problem = workload.problem
        entry = tuned.Entry(
            name, problem.tokens, problem.head_dim, problem.itemsize, configs[chosen]
        )
        measured = {
            "microseconds": round(seconds[chosen] * 1e6, 2),
            "default": asdict(default) if default else None,
            "default_microseconds": (round(seconds[0] * 1e6, 2) if configs[0] == default else None),
            "candidates": len(configs),
        }
        entries.append(tuned.row(entry, **measured))
        print(
            f"  {name}: {describe(configs[chosen])}, {measured['microseconds']} us "
            f"(default {describe(default)}, {measured['default_microseconds']} us; "
            f"{len(configs)} candidates)",
            flush=True,
        )
    return entries


def _call(
    workload: Workload, configs: dict[str, LaunchConfig | None]
) -> Callable[[Arguments], object]:
    def run(arguments: Arguments) -> object:
        with choice.override(configs):
            return workload.run(arguments)

    return run


def tolerances(workload: Workload, arguments: Arguments) -> list[tuple[Tensor, float]]:
    """Return what every output must be, in float64, and how far from it it may lie.

    The relative error allowed is that of plain torch in the dtype of the operands, and besides
    sqrt(N) roundings of float32 and one of the output.
    """
    exact = workload.reference(tuple(_double(x) for x in arguments))
    rough = workload.reference(arguments)
    allowed = []
    for right, plain in zip(exact, rough, strict=True):
        slack = 0.0
        if plain.is_floating_point():
            roundings = max(workload.problem.tokens, 1) ** 0.5 * torch.finfo(torch.float32).eps
            slack = _distance(plain, right) + roundings + torch.finfo(plain.dtype).eps
        allowed.append((right, slack))
    return allowed


def _double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def _distance(x: Tensor, right: Tensor) -> float:
    x, right = x.double(), right.double()
    return float((x - right).norm() / right.norm().clamp_min(torch.finfo(torch.float64).tiny))


def _right(
    workload: Workload,
    arguments: Arguments,
    configs: dict[str, LaunchConfig | None],
    expected: Sequence[tuple[Tensor, float]],
) -> bool:
    from triton.errors import TritonError

    try:
        outputs = _call(workload, configs)(arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except (RuntimeError, TritonError):
        return False
    assert isinstance(outputs, tuple)
    # A comparison with NaN is false.
    return all(
        _distance(x, right) <= slack for x, (right, slack) in zip(outputs, expected, strict=True)
    )
