"""What a provider of an operator is, and how a differentiable one becomes a timed call."""

import contextlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.problems import GRADIENTS
from benchmarks.shapes import FORWARD, Case


class Bound(NamedTuple):
    """A call ready to be timed, and the names of the tensors that it returns."""

    call: Callable[[], Any]
    named: Callable[[Any], dict[str, Tensor]]


def none(case: Case, device: torch.device) -> list[str]:
    """Give no reason not to take part."""
    return []


@dataclass(frozen=True)
class Peer:
    """One way to compute an operator.

    Attributes:
        name: Column of the tables.
        bind: From inputs and case to a call; what it prepares is not timed.
        tags: Groups that goals refer to. "own": ours; "yardstick": computes something else that
            sets a mark, so it never counts as the best peer.
        modes: What it is a peer for; empty means everything.
        reasons: Why it cannot take part; what raises when tried is found out without it.
        context: Entered around every call.
        definition: Which function of `benchmarks.problems` says what is right.
        kept_only: Promises nothing for the rows of dropped tokens.
        slack: Relative error that its method adds to that of the arithmetic.
    """

    name: str
    bind: Callable[[Any, Case], Bound]
    tags: frozenset[str] = frozenset()
    modes: tuple[str, ...] = ()
    reasons: Callable[[Case, torch.device], list[str]] = none
    context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    definition: str = "exact"
    kept_only: bool = False
    slack: float = 0.0

    @property
    def own(self) -> bool:
        """Whether it is this package."""
        return "own" in self.tags

    @property
    def rival(self) -> bool:
        """Whether it can be the best peer."""
        return not self.tags & {"own", "yardstick"}


def differentiable(
    function: Callable[..., Tensor],
    leaves: Sequence[Tensor],
    grad: Tensor,
    mode: str,
    canonical: Callable[[Tensor], Tensor] = lambda x: x,
) -> Bound:
    """Bind a differentiable function.

    Args:
        function: Of the leaves.
        leaves: q, k, v and perhaps the mask, in whatever layout the function wants.
        grad: Gradient of the result, in the same layout.
        mode: "forward" (no graph is built), "backward" (through a graph built once) or "step".
        canonical: Undoes the layout, of the result and of the gradients of q, k and v.
    """
    if mode in FORWARD:
        leaves = [x.detach() for x in leaves]
        return Bound(lambda: function(*leaves), lambda o: {"o": canonical(o)})
    leaves = [x.detach().requires_grad_() for x in leaves]

    def named(found: Sequence[Tensor]) -> dict[str, Tensor]:
        return {
            name: x if name == "dkeep" else canonical(x)
            for name, x in zip(GRADIENTS, found, strict=False)
        }

    if mode == "backward":
        o = function(*leaves)
        return Bound(lambda: torch.autograd.grad(o, leaves, grad, retain_graph=True), named)

    def step() -> tuple[Tensor, ...]:
        o = function(*leaves)
        return o, *torch.autograd.grad(o, leaves, grad)

    return Bound(step, lambda found: {"o": canonical(found[0]), **named(found[1:])})


def only(*modes: str) -> Callable[[Case, torch.device], list[str]]:
    """Reasons of a peer that serves some modes."""

    def reasons(case: Case, device: torch.device) -> list[str]:
        if case.mode in modes:
            return []
        return [f"serves {', '.join(modes)} here, not {case.mode}"]

    return reasons


def installed(module: str) -> Callable[[Case, torch.device], list[str]]:
    """Reasons of a peer that lives in an optional package."""

    def reasons(case: Case, device: torch.device) -> list[str]:
        found = importlib.util.find_spec(module) is not None
        return [] if found else [f"{module} is not installed"]

    return reasons


def compiled(case: Case, device: torch.device) -> list[str]:
    """Reasons of a peer that a compiler builds, a minute per shape on a processor."""
    if case.slow_peers:
        return []
    return ["a compiler builds it, slowly: in `make bench-full`, and by default for one shape"]


def all_of(
    *checks: Callable[[Case, torch.device], list[str]],
) -> Callable[[Case, torch.device], list[str]]:
    """Join reasons."""
    return lambda case, device: [reason for check in checks for reason in check(case, device)]
