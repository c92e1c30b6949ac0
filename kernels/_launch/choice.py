"""Chooses the configuration of a launch: an override, else a tuned one, else the rule.

Nothing is timed here. The tuned configurations come from the file that `python -m kernels.tune`
wrote on this machine, then from the table that ships with the package for the architecture.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from kernels._launch import tuned
from kernels._launch.architecture import INTERPRETER, limits
from kernels._launch.config import LaunchConfig, Problem

TABLES = Path(__file__).parent / "tables"

Rule = Callable[[Problem], LaunchConfig | None]
"""Pure, and reads the name of a listed architecture; None where another kernel serves."""

Candidates = Callable[[Problem], list[LaunchConfig | None]]


@dataclass(frozen=True)
class Kernel:
    """One kernel as the launcher sees it.

    Attributes:
        name: Module in `kernels._triton` and function, such as `masked_attention.forward_kernel`.
        rule: The configuration where nothing was measured.
        candidates: What a tuner may try; None among them as in a rule.
    """

    name: str
    rule: Rule
    candidates: Candidates


KERNELS: dict[str, Kernel] = {}
_overrides: dict[str, LaunchConfig | None] = {}


def register(kernel: Kernel) -> Kernel:
    """Make a kernel known to the launcher, the tuner and the catalog."""
    KERNELS[kernel.name] = kernel
    return kernel


def choose(name: str, tokens: int, head_dim: int, itemsize: int, arch: str) -> LaunchConfig | None:
    """Choose the launch of a kernel; arguments as in `Problem`.

    Returns:
        The configuration, or None where the kernel does not serve the problem.
    """
    if _overrides and name in _overrides:
        return _overrides[name]
    return _chosen(name, tokens, head_dim, itemsize, arch)[0]


def explain(name: str, problem: Problem) -> tuple[LaunchConfig | None, str]:
    """Choose as `choose` does and say where the configuration comes from."""
    if name in _overrides:
        return _overrides[name], "override"
    return _chosen(name, problem.tokens, problem.head_dim, problem.itemsize, problem.arch)


@contextlib.contextmanager
def override(configs: Mapping[str, LaunchConfig | None]) -> Iterator[None]:
    """Launch the named kernels with these configurations, whatever the problem.

    It holds in every thread, because the backward pass runs in a thread of autograd's.

    Args:
        configs: Name of the kernel to its configuration; None keeps the kernel from serving.

    Raises:
        ValueError: There is no kernel of that name.
    """
    unknown = sorted(configs.keys() - KERNELS.keys())
    if unknown:
        raise ValueError(
            f"override: there is no kernel named {', '.join(unknown)}; choose among "
            f"{', '.join(KERNELS)}"
        )
    before = dict(_overrides)
    _overrides.update(configs)
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(before)


def forget() -> None:
    """Read the tuning files again at the next launch."""
    _chosen.cache_clear()
    _table.cache_clear()


def rule(name: str, problem: Problem) -> LaunchConfig | None:
    """Return what a kernel is launched with where nothing was measured."""
    return KERNELS[name].rule(_known(problem))


def candidates(name: str, problem: Problem) -> list[LaunchConfig | None]:
    """List what a tuner may try: what the rule chooses first, then its alternatives."""
    known = _known(problem)
    return list(dict.fromkeys((rule(name, known), *KERNELS[name].candidates(known))))


def shipped(name: str, problem: Problem) -> tuple[LaunchConfig | None, str]:
    """Choose without overrides and the user's file, and say where the configuration comes from."""
    found = _measured(name, problem, _shipped_path(problem.arch))
    return found or (rule(name, problem), "rule")


@cache
def _shipped_path(arch: str) -> Path:
    return TABLES / f"{arch}.json"


@cache
def _chosen(
    name: str, tokens: int, head_dim: int, itemsize: int, arch: str
) -> tuple[LaunchConfig | None, str]:
    problem = Problem(tokens, head_dim, itemsize, arch)
    path = None if arch == INTERPRETER else tuned.user_path(arch)
    own = _measured(name, problem, path) if path else None
    return own or shipped(name, problem)


def _measured(name: str, problem: Problem, path: Path) -> tuple[LaunchConfig | None, str] | None:
    found = _table(path, problem.arch).get(name, problem)
    # What was measured at another length is taken only where it is a candidate at this one.
    if found is None or found.config not in candidates(name, problem):
        return None
    return found.config, f"{path}, measured at {found.tokens} tokens"


def _known(problem: Problem) -> Problem:
    known = limits(problem.arch).name
    return problem if known == problem.arch else replace(problem, arch=known)


@cache
def _table(path: Path, arch: str) -> tuned.Table:
    try:
        return tuned.read(path, arch, frozenset(KERNELS))
    except FileNotFoundError as error:
        if tuned.asked_for(path):
            _warn(path, error)
    except (OSError, ValueError) as error:
        _warn(path, error)
    return tuned.Table({})


def _warn(path: Path, error: Exception) -> None:
    warnings.warn(
        f"the kernels' tuning file {path} is not used: {error}. Write it anew with "
        f"`python -m kernels.tune`, or set {tuned.VARIABLE}=off; until then the kernels run with "
        "their default configurations",
        stacklevel=2,
    )
