"""Gradients of the C++ attention against float64, on every instruction set of this processor."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels import masked_attention, ragged_attention, reference
from kernels._cpu import build, operands

LENGTHS = (1, 2, 15, 17, 33, 64, 65, 129, 197, 257)
DIMS = (8, 16, 32, 48, 64, 80, 128)
NAMES = ("dq", "dk", "dv", "dkeep")


@pytest.fixture(autouse=True, scope="module")
def _extension() -> None:
    build.load()


@pytest.fixture(params=["avx512", "avx2", "generic"])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SPARSE_VIT_CPU_ISA", request.param)
    try:
        assert build.load().isa() == request.param
    except RuntimeError as error:
        if "lacks it" not in str(error):
            raise
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill fresh memory with NaN."""
    plain = Tensor.new_empty
    monkeypatch.setattr(
        Tensor,
        "new_empty",
        lambda *args, **kwargs: plain(*args, **kwargs).fill_(math.nan),
    )


def make(
    batch: int, heads: int, tokens: int, dim: int, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], Tensor]:
    """Return q, k, v as views of a packed qkv, a mask of both kinds, and a gradient of o."""
    qkv = torch.randn(batch, tokens, 3, heads, dim).to(dtype)
    keep = (torch.rand(batch, tokens) > 0.4).float()
    keep[:, 0] = 1.0
    return [*qkv.permute(2, 0, 3, 1, 4), keep], torch.randn(batch, heads, tokens, dim).to(dtype)


def gradients(
    function: Callable[..., Tensor],
    inputs: list[Tensor],
    grad: Tensor,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> tuple[Tensor, ...]:
    """Differentiate a function of q, k, v and more with respect to all floating inputs."""
    inputs = [x if dtype is None else x.to(dtype) for x in inputs]
    inputs = [x.detach().requires_grad_() for x in inputs]
    return torch.autograd.grad(function(*inputs, **options), inputs, grad.to(inputs[0].dtype))


def assert_exact(
    actual: tuple[Tensor, ...],
    function: Callable[..., Tensor],
    inputs: list[Tensor],
    grad: Tensor,
    tokens: int | None = None,
    **options: Any,
) -> None:
    """Compare with float64 on the same numbers, allowing what the dtype costs and no more.

    The allowance is the error of the definition evaluated in that dtype, plus float32 sums over the
    tokens, plus the rounding of the result; the last two relative to the largest term that cancels
    in the sums: dO_i . v_j, for dq and dk times a scaled key or query where those are large.
    """
    dtype = inputs[0].dtype
    exact = gradients(function, inputs, grad, torch.float64, **options)
    eager = gradients(function, inputs, grad, dtype, **options)
    dim, length = inputs[0].shape[-1], tokens or inputs[0].shape[-2]
    q, k, v, o = (x.double().reshape(-1, dim).norm(dim=1).max() for x in (*inputs[:3], grad))
    scale = options.get("scale", dim**-0.5)
    sums = math.sqrt(length) * torch.finfo(torch.float32).eps
    for name, a, e, x in zip(NAMES, actual, eager, exact, strict=False):
        factor = {"dq": scale * k, "dk": scale * q}.get(name, torch.ones(1)).clamp(min=1.0)
        size = float(torch.maximum(x.abs().max(), o * v * factor))
        slack = (sums + torch.finfo(dtype).eps) * size
        assert a.shape == x.shape, name
        for measure in (torch.max, torch.mean):
            error, allowed = measure((a - x).abs()), measure((e - x).abs()) + slack
            assert error <= allowed, f"{name}: {measure.__name__} error {error:.2e} > {allowed:.2e}"


def assert_masked(inputs: list[Tensor], grad: Tensor, **options: Any) -> tuple[Tensor, ...]:
    actual = gradients(masked_attention, inputs, grad, impl="cpu", **options)
    assert_exact(actual, reference.masked_attention, inputs, grad, **options)
    return actual


@pytest.mark.parametrize("tokens", LENGTHS)
def test_equal_to_float64(isa: str, tokens: int, poison: None) -> None:
    for dim in DIMS if isa == "avx512" else (8, 48, 80):
        assert_masked(*make(2, 3, tokens, dim))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("tokens", "dim"), [(1, 8), (17, 48), (65, 20), (129, 64), (197, 7)])
def test_equal_to_float64_in_low_precision(
    isa: str, dtype: torch.dtype, tokens: int, dim: int, poison: None
) -> None:
    assert_masked(*make(2, 2, tokens, dim, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["heads first", "wide", "columns", "expanded keys", "mask"])
def test_any_strides(layout: str, dtype: torch.dtype, poison: None) -> None:
    (q, k, v, keep), grad = make(2, 3, 19, 24, dtype)
    if layout == "heads first":
        q, v = q.contiguous(), v.contiguous()
    elif layout == "wide":
        k = torch.randn(2, 3, 19, 40).to(dtype)[..., 5:29]
        grad = torch.randn(3, 19, 2, 30).to(dtype).permute(2, 0, 1, 3)[..., 6:]
    elif layout == "columns":
        q, k, v = (x.transpose(-2, -1).contiguous().transpose(-2, -1) for x in (q, k, v))
    elif layout == "expanded keys":
        k, v = k[:, :1].expand(-1, 3, -1, -1), v[:1].expand(2, -1, -1, -1)
    else:
        keep = torch.rand(19, 2).round().t()
    assert_masked([q, k, v, keep], grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_expanded_gradient_of_a_sum(dtype: torch.dtype) -> None:
    inputs, _ = make(2, 3, 21, 16, dtype)
    leaves = [x.detach().requires_grad_() for x in inputs]
    masked_attention(*leaves, impl="cpu").sum().backward()
    actual = tuple(x.grad for x in leaves)
    assert_exact(actual, reference.masked_attention, inputs, torch.ones_like(inputs[0]))


def test_gradients_are_views_of_token_major_memory() -> None:
    inputs, grad = make(2, 3, 5, 8)
    for x in gradients(masked_attention, inputs, grad, impl="cpu")[:3]:
        assert x.transpose(1, 2).is_contiguous()


def test_a_token_alone_leaves_nothing_to_the_mask(isa: str) -> None:
    inputs, grad = make(2, 3, 1, 16)
    *_, dv, dkeep = gradients(masked_attention, inputs, grad, impl="cpu")
    assert torch.equal(dv, grad)
    assert torch.equal(dkeep, torch.zeros(2, 1))


@pytest.mark.parametrize("kept", ["none", "first", "last", "all"])
def test_one_sided_masks(isa: str, kept: str, poison: None) -> None:
    (q, k, v, keep), grad = make(2, 2, 37, 16)
    keep.fill_(float(kept == "all"))
    if kept in ("first", "last"):
        keep[:, 0 if kept == "first" else -1] = 1.0
    _, _, dv, dkeep = assert_masked([q, k, v, keep], grad)
    if kept == "none":
        torch.testing.assert_close(dv, grad)
    assert (dkeep != 0).all()


def test_the_sums_of_a_mask_without_gradient_are_left_out(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (q, k, v, keep), grad = make(2, 2, 37, 16)
    expected = gradients(masked_attention, [q, k, v, keep], grad, impl="cpu")[:3]
    extension, sums = build.load(), []

    def backward(*args: Any) -> None:
        sums.append(args[-1])
        extension.attention_backward(*args)

    wrapped = {"attention_forward": extension.attention_forward, "attention_backward": backward}
    monkeypatch.setattr(build, "load", lambda: SimpleNamespace(**wrapped))
    actual = gradients(masked_attention, [q, k, v], grad, keep=keep, impl="cpu")
    assert sums == [0]
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


def test_huge_logits(isa: str) -> None:
    (q, k, v, keep), grad = make(1, 2, 33, 32)
    for x in assert_masked([q * 60, k * 60, v, keep], grad, scale=0.5):
        assert x.isfinite().all()


def test_a_dropped_key_far_ahead_is_bounded(isa: str) -> None:
    (q, k, v, keep), grad = make(1, 2, 20, 16)
    q, k = q.abs(), k.clone()
    keep[:, 7] = 0.0
    for ahead in (10.0, 14.0, 100.0, 1000.0):
        k[:, :, 7] = ahead / float(q.sum(-1).mean())
        assert_masked([q, k, v, keep], grad, scale=1.0)
    bound = 1.01e6 * 2 * 20 * 2 * grad.norm(dim=-1).max() * v.norm(dim=-1).max()
    assert gradients(masked_attention, [q, k, v, keep], grad, impl="cpu")[3].abs().max() < bound


def test_rows_without_gradient_count_for_nothing(isa: str) -> None:
    (q, k, v, keep), grad = make(2, 2, 40, 16)
    still = torch.arange(40) % 3 > 0
    grad[:, :, still] = 0.0
    before = assert_masked([q, k, v, keep], grad)
    other = q.clone()
    other[:, :, still] *= -3.0
    after = gradients(masked_attention, [other, k, v, keep], grad, impl="cpu")
    assert torch.equal(before[0][:, :, still], torch.zeros_like(before[0][:, :, still]))
    for a, b in zip(before[1:], after[1:], strict=True):
        assert torch.equal(a, b)


def test_a_nan_in_a_dropped_token_reaches_no_other_query(isa: str) -> None:
    (q, k, v, keep), grad = make(1, 2, 35, 16)
    keep[:, 9] = 0.0
    k, v = k.clone(), v.clone()
    clean = gradients(masked_attention, [q, k, v, keep], grad, impl="cpu")[0]
    k[:, :, 9] = v[:, :, 9] = math.nan
    dirty = gradients(masked_attention, [q, k, v, keep], grad, impl="cpu")[0]
    others = torch.arange(35) != 9
    assert torch.equal(clean[:, :, others], dirty[:, :, others])
    assert dirty[:, :, 9].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_whatever_the_number_of_threads(isa: str, dtype: torch.dtype) -> None:
    inputs, grad = make(3, 5, 129, 32, dtype)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 7, 2, 1):
            torch.set_num_threads(threads)
            results.append(gradients(masked_attention, inputs, grad, impl="cpu"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def sequences(lengths: list[int], spare: int = 0) -> tuple[Tensor, int]:
    starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return starts, int(starts[-1]) + spare


def attend(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """The operator, with the longest sequence of these tests for a bound."""
    return ragged_attention(q, k, v, max_seqlen=129, impl="cpu", **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_ragged(isa: str, dtype: torch.dtype, poison: None) -> None:
    cu_seqlens, tokens = sequences([33, 0, 1, 129, 7, 64, 0])
    inputs = list(torch.randn(tokens, 3, 2, 40).to(dtype).unbind(1))
    grad = torch.randn(tokens, 2, 40).to(dtype)
    actual = gradients(attend, inputs, grad, cu_seqlens=cu_seqlens)
    assert_exact(actual, reference.ragged_attention, inputs, grad, 129, cu_seqlens=cu_seqlens)


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_ragged_rows_add_up_where_they_were_read(isa: str, index: torch.dtype) -> None:
    cu_seqlens, tokens = sequences([5, 17, 0, 30])
    rows = torch.randint(0, 60, (tokens,)).to(index)
    rows[0] = rows[1]
    inputs, grad = list(torch.randn(60, 3, 3, 24).unbind(1)), torch.randn(tokens, 3, 24)
    options = {"cu_seqlens": cu_seqlens, "rows": rows}
    actual = gradients(attend, inputs, grad, **options)
    assert_exact(actual, reference.ragged_attention, inputs, grad, tokens, **options)
    unread = torch.ones(60, dtype=torch.bool).index_fill(0, rows.long(), False)
    for x in actual:
        assert torch.equal(x[unread], torch.zeros_like(x[unread]))


def test_ragged_capacity_beyond_the_last_sequence(poison: None) -> None:
    cu_seqlens, tokens = sequences([9, 20], spare=6)
    inputs, grad = list(torch.randn(tokens, 3, 2, 16).unbind(1)), torch.randn(tokens, 2, 16)
    grad[29:] = math.nan
    actual = gradients(attend, inputs, grad, cu_seqlens=cu_seqlens)
    for x in actual:
        assert torch.equal(x[29:], torch.zeros_like(x[29:]))
    actual, inputs = tuple(x[:29] for x in actual), [x[:29] for x in inputs]
    assert_exact(actual, reference.ragged_attention, inputs, grad[:29], 20, cu_seqlens=cu_seqlens)


def test_the_expanded_gradient_of_a_ragged_sum() -> None:
    cu_seqlens, tokens = sequences([4, 9])
    inputs = list(torch.randn(tokens, 3, 2, 8).unbind(1))
    leaves = [x.detach().requires_grad_() for x in inputs]
    attend(*leaves, cu_seqlens=cu_seqlens).sum().backward()
    actual = tuple(x.grad for x in leaves)
    ones = torch.ones_like(inputs[0])
    assert_exact(actual, reference.ragged_attention, inputs, ones, 9, cu_seqlens=cu_seqlens)


def test_an_unknown_instruction_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSE_VIT_CPU_ISA", "mmx")
    inputs, _ = make(1, 1, 3, 8)
    with pytest.raises(RuntimeError, match="SPARSE_VIT_CPU_ISA=mmx is unknown"):
        masked_attention(*inputs, impl="cpu")


def test_float64_is_refused_by_name_and_served_by_the_reference() -> None:
    inputs, grad = make(1, 2, 6, 8, torch.float64)
    assert "float64" in operands.attention_reasons(inputs[0])[0]
    with pytest.raises(RuntimeError, match="float64"):
        masked_attention(*inputs, impl="cpu")
    actual = gradients(masked_attention, inputs, grad)
    exact = gradients(reference.masked_attention, inputs, grad)
    for a, x in zip(actual[:3], exact[:3], strict=True):
        torch.testing.assert_close(a, x)
