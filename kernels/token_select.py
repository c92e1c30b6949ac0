"""From scores to kept tokens: a mask, flat row indices and cumulative lengths."""

import ctypes
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from kernels import _backend
from kernels._cpu import token_select as _cpu
from kernels._eager import token_select as _eager
from kernels._gpu import token_select as _gpu
from kernels._library import is_plain, register, whole_number

_MODULES: dict[str, ModuleType] = {"reference": _eager, "triton": _gpu, "cpu": _cpu}


class TokenSelection(NamedTuple):
    """The kept tokens of a batch of L = prefix + N tokens per image.

    Attributes:
        mask: (B, L) bool, True where kept.
        indices: (T,) int64, rows `b * L + i` of the flattened (B * L) tokens, ascending. After a
            top-k selection T = B * (prefix + k) and `indices.view(B, prefix + k)` is one row per
            image.
        cu_seqlens: (B + 1,) int32; image b owns `indices[cu_seqlens[b]:cu_seqlens[b + 1]]`.
    """

    mask: Tensor
    indices: Tensor
    cu_seqlens: Tensor


def select_tokens(
    scores: Tensor,
    k: int | None = None,
    *,
    threshold: float | None = None,
    min_keep: int = 1,
    max_keep: int | None = None,
    prefix: int = 0,
    padded: bool = False,
    impl: str | None = None,
) -> TokenSelection:
    """Select tokens by rank or by threshold; exactly one of `k` and `threshold` is given.

    Equal scores go to the lower index; NaN counts as negative infinity. No gradient flows to the
    scores.

    Args:
        scores: (B, N), any floating dtype, any strides.
        k: Keep the k largest scores of every image, 1..N.
        threshold: Keep every score at or above it, once it is rounded to the dtype of the scores.
        min_keep: With `threshold`, keep at least that many of the largest scores, 1..N.
        max_keep: With `threshold`, keep at most that many of the largest scores, min_keep..N; None
            means N.
        prefix: Leading tokens of every image, such as a class token, that have no score and are
            always kept; mask and indices count them.
        padded: With `threshold`, give `B * (prefix + max_keep)` indices whatever the data, so that
            nothing is read back from the device and a CUDA graph can capture the call. What follows
            the first `cu_seqlens[-1]` are rows of dropped tokens, ascending: all indices differ.
            Otherwise the number of indices depends on the data, and the call waits for the device.
        impl: "reference", "triton", "cpu", or None for the default of the device.

    Returns:
        The selection, on the device of the scores.

    Raises:
        ValueError: Scores are not (B, N), not exactly one rule is given, a count is out of its
            range, or there is no implementation of that name.
        RuntimeError: The implementation asked for cannot serve the call; all reasons are listed.
    """
    if scores.dim() != 2:
        raise ValueError(f"select_tokens: scores must be (B, N), got shape {tuple(scores.shape)}")
    if not scores.is_floating_point():
        raise ValueError(f"select_tokens: scores must be floating point, got {scores.dtype}")
    if (k is None) == (threshold is None):
        raise ValueError(
            f"select_tokens: give either k or threshold, got k={k} and threshold={threshold}"
        )
    images, tokens = scores.shape
    prefix = whole_number("select_tokens", "prefix", prefix)
    if prefix < 0:
        raise ValueError(f"select_tokens: prefix must be 0 or more, got {prefix}")
    if images * (prefix + tokens) >= 2**31:
        raise ValueError(
            f"select_tokens: {images} x {prefix + tokens} tokens overflow the int32 cu_seqlens; "
            "split the batch"
        )
    if threshold is None:
        assert k is not None
        most = _count("k", k, 1, tokens)
        threshold, min_keep, padded = 0.0, most, True
    else:
        min_keep = _count("min_keep", min_keep, 1, tokens)
        most = _count("max_keep", tokens if max_keep is None else max_keep, min_keep, tokens)
    run = _select if is_plain(scores) else _select_op
    found = run(scores.detach(), threshold, min_keep, most, prefix, padded, impl)
    return TokenSelection(*found)


def _count(name: str, count: int, low: int, high: int) -> int:
    count = whole_number("select_tokens", name, count)
    if not low <= count <= high:
        raise ValueError(f"select_tokens: {name}={count} is outside {low}..{high} tokens per image")
    return count


def served_by(impl: str | None, scores: Tensor, prefix: int = 0) -> str:
    """Name the implementation that serves a call; raises as `select_tokens` does."""
    reasons: dict[str, Callable[[], list[str]]] = {
        "triton": lambda: _gpu.reasons(scores, prefix),
        "cpu": lambda: _cpu.reasons(scores),
    }
    return _backend.choose("select_tokens", impl, scores.device, reasons)


def _select(
    scores: Tensor,
    threshold: float,
    min_keep: int,
    max_keep: int,
    prefix: int,
    padded: bool,
    impl: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    serve = _MODULES[served_by(impl, scores, prefix)]
    return serve.select(
        scores, _rounded(threshold, scores.dtype), min_keep, max_keep, prefix, padded
    )


@cache
def _rounded(number: float, dtype: torch.dtype) -> float:
    """Round to a dtype, so that every implementation compares with the same number."""
    if dtype == torch.float32:
        return ctypes.c_float(number).value
    if dtype == torch.float64:
        return number
    return float(torch.tensor(number, dtype=dtype, device="cpu"))


def _select_fake(
    scores: Tensor,
    threshold: float,
    min_keep: int,
    max_keep: int,
    prefix: int,
    padded: bool,
    impl: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    images, tokens = scores.shape
    total = images * (prefix + max_keep) if padded else torch.library.get_ctx().new_dynamic_size()
    return (
        scores.new_empty(images, prefix + tokens, dtype=torch.bool),
        scores.new_empty(total, dtype=torch.int64),
        scores.new_empty(images + 1, dtype=torch.int32),
    )


_select_op = register(
    "select_tokens(Tensor scores, float threshold, SymInt min_keep, SymInt max_keep,"
    " SymInt prefix, bool padded, str? impl) -> (Tensor, Tensor, Tensor)",
    _select,
    _select_fake,
)
