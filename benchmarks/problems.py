"""Inputs of a case, and in float64 what is right for them."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import cost
from benchmarks.shapes import FORWARD, Case
from kernels import reference

GRADIENTS = ("dq", "dk", "dv", "dkeep")
MATRIX_BYTES = 1 << 28
"""Largest matrix of weights that the definition is evaluated with at once."""


class Masked(NamedTuple):
    """q, k, v, grad (B, H, N, D): views of a packed projection; keep (B, N), 0 or 1."""

    q: Tensor
    k: Tensor
    v: Tensor
    keep: Tensor
    grad: Tensor


class Packed(NamedTuple):
    """q, k, v (R, H, D): views of the packed qkv (R, 3, H, D); grad (T, H, D).

    Token t of the batch is row `rows[t]`, or row t when that is None.
    """

    qkv: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    cu_seqlens: Tensor
    lengths: tuple[int, ...]
    grad: Tensor
    rows: Tensor | None


class Scores(NamedTuple):
    """scores (B, N), all different; k of them, or those above the threshold, are kept."""

    scores: Tensor
    k: int
    threshold: float


class Rows(NamedTuple):
    """x (B * N, C), indices (T,) ascending, weight and bias (C,) of a LayerNorm."""

    x: Tensor
    indices: Tensor
    weight: Tensor
    bias: Tensor


def lengths(case: Case) -> tuple[int, ...]:
    """Lengths of a ragged or dense batch: from half of N up to N, or all N."""
    if case.op == "dense_attention":
        return (case.tokens,) * case.batch
    generator = torch.Generator().manual_seed(case.tokens)
    found = torch.randint(case.tokens // 2, case.tokens + 1, (case.batch,), generator=generator)
    found[case.batch // 2] = case.tokens
    return tuple(found.tolist())


def make(case: Case, device: torch.device, seed: int = 0) -> Any:
    """Draw the inputs of a case."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(case.dtype)

    batch, heads, tokens, dim = case.batch, case.heads, case.tokens, case.dim
    if case.op == "masked_attention":
        qkv = normal(batch, tokens, 3, heads, dim).permute(2, 0, 3, 1, 4)
        keep = torch.rand(batch, tokens, generator=generator, device=device) < case.keep
        keep[:, 0] = True
        grad = normal(batch, tokens, heads, dim).transpose(1, 2)
        return Masked(*qkv.unbind(0), keep.float(), grad)
    if case.op == "token_select":
        # a permutation, so that no two scores tie
        order = torch.rand(batch, tokens, generator=generator, device=device).argsort(1)
        scores = (order + 1) / (tokens + 1)
        return Scores(scores, max(1, int(case.keep * tokens)), 1.0 - case.keep)
    if case.op == "gather":
        kept = torch.rand(batch * tokens, generator=generator, device=device) < case.keep
        kept[0] = True
        indices = kept.nonzero().squeeze(1)
        rows = indices.shape[0] if case.mode == "scatter" else batch * tokens
        return Rows(normal(rows, dim), indices, normal(dim), normal(dim))
    rows = None
    found = lengths(case)
    total = sum(found)
    if case.mode == "gathered":
        keep = torch.rand(batch, tokens, generator=generator, device=device) < case.keep
        keep[:, 0] = True
        rows = keep.flatten().nonzero().squeeze(1)
        found, total = tuple(keep.sum(1).tolist()), batch * tokens
    qkv = normal(total, 3, heads, dim)
    ends = torch.tensor(found, device=device).cumsum(0, dtype=torch.int32)
    grad = normal(sum(found), heads, dim)
    return Packed(qkv, *qkv.unbind(1), F.pad(ends, (1, 0)), found, grad, rows)


def price(case: Case, inputs: Any) -> cost.Cost:
    """Useful operations and compulsory bytes of a case."""
    itemsize = case.dtype.itemsize
    if case.op == "masked_attention":
        return cost.attention(
            case.mode, (case.tokens,) * case.batch, case.heads, case.dim, itemsize
        )
    if case.op == "token_select":
        return cost.select(case.batch, case.tokens, case.batch * inputs.k, itemsize)
    if case.op == "gather":
        total = case.batch * case.tokens
        return cost.rows(case.mode, inputs.indices.shape[0], total, case.dim, itemsize)
    return cost.attention(case.mode, inputs.lengths, case.heads, case.dim, itemsize)


def input_bytes(inputs: Any) -> int:
    """Bytes of the memory that an input set occupies."""
    tensors = (x for x in inputs if isinstance(x, Tensor))
    return sum(
        {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}.values()
    )


def _exact_masked(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    return reference.masked_attention(q, k, v, keep)


def _policy(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    return reference.masked_attention(q, k, v, keep, eps=1e-6)


def _unmasked(q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
    return ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1) @ v


MASKED: dict[str, Callable[..., Tensor]] = {
    "exact": _exact_masked,
    "policy": _policy,
    "unmasked": _unmasked,
}


@lru_cache(maxsize=4)
def expected(
    case: Case, device: torch.device, definition: str, kept_only: bool, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Evaluate a definition of attention and its gradients in a dtype on the numbers of `make`.

    Args:
        case: Its mode says whether gradients are wanted.
        device: Where to evaluate.
        definition: "exact", "policy" or "unmasked".
        kept_only: Whether the gradient of dropped rows is zero, as when no loss reads them.
        dtype: float64 for what is right; the dtype of the case for what its arithmetic loses.
    """
    inputs = make(case, device)
    if not isinstance(inputs, Masked):
        function = partial(
            reference.ragged_attention, cu_seqlens=inputs.cu_seqlens, rows=inputs.rows
        )
        return _outputs(function, (inputs.q, inputs.k, inputs.v), inputs.grad, case.mode, dtype)
    grad = gate(inputs.grad, inputs.keep) if kept_only else inputs.grad
    leaves = (inputs.q, inputs.k, inputs.v, inputs.keep)
    matrix = case.heads * case.tokens**2 * dtype.itemsize
    images = max(1, MATRIX_BYTES // matrix)
    parts = [
        _outputs(
            MASKED[definition],
            [x[start : start + images] for x in leaves],
            grad[start : start + images],
            case.mode,
            dtype,
        )
        for start in range(0, case.batch, images)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _outputs(
    function: Callable[..., Tensor],
    leaves: Sequence[Tensor],
    grad: Tensor,
    mode: str,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    leaves = [x.detach().to(dtype).requires_grad_(mode not in FORWARD) for x in leaves]
    o = function(*leaves)
    found = {"o": o.detach()}
    if mode not in FORWARD:
        grads = torch.autograd.grad(o, leaves, grad.to(dtype), allow_unused=True)
        found.update({n: g for n, g in zip(GRADIENTS, grads, strict=False) if g is not None})
    return found


def gate(x: Tensor, keep: Tensor) -> Tensor:
    """Zero the rows of dropped tokens of a (B, H, N, D) tensor."""
    return x * keep[:, None, :, None].to(x.dtype)
