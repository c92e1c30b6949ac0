"""What the tuner runs: the launchers on inputs of a size, and what they must equal."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from kernels._launch import attention
from kernels._launch.config import LaunchConfig, Problem, power_of_two

OPERATORS = ("masked_attention", "ragged_attention", "select_tokens", "gather_rows")

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Size:
    """The sizes that a user tunes for.

    Attributes:
        batch: B, sequences.
        heads: H.
        head_dim: D; rows are H * D wide.
        dtype: Of the operands.
    """

    batch: int
    heads: int
    head_dim: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Workload:
    """One launcher on one problem.

    Attributes:
        name: For the report.
        problem: What the configurations depend on.
        kernels: The kernels that it launches, in the order that they are tuned in.
        call: Module in `kernels._gpu` and `kernels._eager`, and function.
        inputs: Makes the arguments for a batch size.
        held: Per kernel, what others are set to while it is tuned.
    """

    name: str
    problem: Problem
    kernels: tuple[str, ...]
    call: tuple[str, str]
    inputs: Callable[[int, torch.device], Arguments]
    held: Mapping[str, Mapping[str, LaunchConfig | None]] = field(default_factory=dict)

    def run(self, arguments: Arguments) -> tuple[Tensor, ...]:
        """Launch the kernels."""
        return _outputs("kernels._gpu", self.call, arguments)

    def reference(self, arguments: Arguments) -> tuple[Tensor, ...]:
        """Compute the same in plain torch."""
        return _outputs("kernels._eager", self.call, arguments)


def _outputs(package: str, call: tuple[str, str], arguments: Arguments) -> tuple[Tensor, ...]:
    module, function = call
    found = getattr(import_module(f"{package}.{module}"), function)(*arguments)
    return found if isinstance(found, tuple) else (found,)


def workloads(operator: str, tokens: int, size: Size, arch: str) -> list[Workload]:
    """List the workloads of an operator at a length.

    Raises:
        ValueError: There is no operator of that name.
    """
    makers = {
        "masked_attention": _masked,
        "ragged_attention": _ragged,
        "select_tokens": _select,
        "gather_rows": _gather,
    }
    if operator not in makers:
        raise ValueError(f"operator {operator!r} does not exist; choose among {OPERATORS}")
    return makers[operator](tokens, size, arch)


def _masked(tokens: int, size: Size, arch: str) -> list[Workload]:
    problem = Problem(tokens, size.head_dim, size.dtype.itemsize, arch)
    scale = size.head_dim**-0.5

    def forward(batch: int, device: torch.device) -> Arguments:
        packed = torch.randn(batch, tokens, 3, size.heads, size.head_dim, device=device)
        q, k, v = packed.to(size.dtype).permute(2, 0, 3, 1, 4)
        keep = torch.rand(batch, tokens, device=device) < 0.7
        keep[:, 0] = True
        return q, k, v, keep, scale

    def backward(batch: int, device: torch.device) -> Arguments:
        q, k, v, keep, scale = forward(batch, device)
        o, lse = _outputs("kernels._eager", ("masked_attention", "forward"), (q, k, v, keep, scale))
        grad = torch.randn(batch, tokens, size.heads, size.head_dim, device=device)
        return grad.to(size.dtype).transpose(1, 2), q, k, v, keep, o, lse, scale, True

    passes = (attention.MASKED_GRAD_QUERIES, attention.MASKED_GRAD_KEYS)
    return [
        Workload(
            f"masked_attention forward, {tokens} tokens",
            problem,
            (attention.MASKED_FORWARD,),
            ("masked_attention", "forward"),
            forward,
        ),
        Workload(
            f"masked_attention backward, {tokens} tokens",
            problem,
            (*passes, attention.MASKED_GRAD),
            ("masked_attention", "backward"),
            backward,
            {name: {attention.MASKED_GRAD: None} for name in passes},
        ),
    ]


def _ragged(tokens: int, size: Size, arch: str) -> list[Workload]:
    problem = Problem(tokens, size.head_dim, size.dtype.itemsize, arch)
    scale = size.head_dim**-0.5

    def forward(batch: int, device: torch.device) -> Arguments:
        # Sequences of the full length, and down to five eighths of it.
        lengths = [max(1, tokens - tokens * (i % 4) // 8) for i in range(batch)]
        cu = torch.tensor([0, *lengths], device=device).cumsum(0).to(torch.int32)
        packed = torch.randn(sum(lengths), 3, size.heads, size.head_dim, device=device)
        q, k, v = packed.to(size.dtype).unbind(1)
        return q, k, v, cu, tokens, None, scale

    def backward(batch: int, device: torch.device) -> Arguments:
        arguments = forward(batch, device)
        o, lse = _outputs("kernels._eager", ("ragged_attention", "forward"), arguments)
        return torch.randn_like(o), *arguments[:-1], o, lse, scale

    passes = (attention.RAGGED_GRAD_QUERIES, attention.RAGGED_GRAD_KEYS)
    return [
        Workload(
            f"ragged_attention forward, {tokens} tokens",
            problem,
            (attention.RAGGED_FORWARD,),
            ("ragged_attention", "forward"),
            forward,
        ),
        Workload(
            f"ragged_attention backward, {tokens} tokens",
            problem,
            (*passes, attention.RAGGED_GRAD),
            ("ragged_attention", "backward"),
            backward,
            {name: {attention.RAGGED_GRAD: None} for name in passes},
        ),
    ]


def _select(tokens: int, size: Size, arch: str) -> list[Workload]:
    def inputs(batch: int, device: torch.device) -> Arguments:
        kept = max(1, tokens * 7 // 10)
        return torch.rand(batch, tokens, device=device), -math.inf, kept, kept, 1, True

    return [
        Workload(
            f"select_tokens, {tokens} scores",
            Problem(tokens, 1, 4, arch),
            ("token_select.select_kernel",),
            ("token_select", "select"),
            inputs,
        )
    ]


def _gather(tokens: int, size: Size, arch: str) -> list[Workload]:
    channels = size.heads * size.head_dim
    kept = max(1, tokens * 7 // 10)
    problem = Problem(power_of_two(size.batch * kept), channels, size.dtype.itemsize, arch)

    def gather(batch: int, device: torch.device) -> Arguments:
        x = torch.randn(batch * tokens, channels, device=device).to(size.dtype)
        order = torch.rand(batch, tokens, device=device).argsort(1)[:, :kept].sort(1).values
        first = torch.arange(0, batch * tokens, tokens, device=device)
        return x, (order + first[:, None]).flatten()

    def norm(batch: int, device: torch.device) -> Arguments:
        weight, bias = torch.randn(2, channels, device=device).to(size.dtype)
        return *gather(batch, device), weight, bias, 1e-6

    def norm_grad(batch: int, device: torch.device) -> Arguments:
        arguments = norm(batch, device)
        found = _outputs("kernels._eager", ("gather", "gather_norm"), arguments)
        rows, _, mean, rstd = found
        return torch.randn_like(rows), torch.randn_like(rows), rows, arguments[2], mean, rstd

    def merge(batch: int, device: torch.device) -> Arguments:
        x, indices = gather(batch, device)
        return x[: len(indices)], indices, len(x)

    # The rows of a merge are those of its result.
    merged = Problem(power_of_two(size.batch * tokens), channels, size.dtype.itemsize, arch)
    cases = (
        ("copy_kernel", "gather", gather, problem),
        ("norm_kernel", "gather_norm", norm, problem),
        ("norm_grad_kernel", "norm_grad", norm_grad, problem),
        ("merge_kernel", "gather_grad", merge, merged),
    )
    return [
        Workload(f"{call}, {tokens} tokens", p, (f"gather.{kernel}",), ("gather", call), inputs)
        for kernel, call, inputs, p in cases
    ]
