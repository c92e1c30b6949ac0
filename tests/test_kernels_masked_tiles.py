"""Every way in which the Triton kernels of masked attention are cut into blocks and tails."""

import os

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from kernels import _launch, masked_attention, reference
from kernels._gpu import masked_attention as _gpu
from kernels._launch import LaunchConfig

FORWARD = "masked_attention.forward_kernel"
ONE_PASS = "masked_attention_one_pass.grad_kernel"
QUERIES = "masked_attention_two_pass.grad_queries_kernel"
KEYS = "masked_attention_two_pass.grad_keys_kernel"
NAMES = ("o", "dq", "dk", "dv", "dkeep")

# Tokens, block of queries, block of keys; what is left over of either follows from them.
FORWARD_CUTS = {
    "one whole tile": (32, 32, 32),
    "one part of a tile": (19, 32, 32),
    "less than the least tile": (1, 16, 16),
    "whole tiles": (48, 16, 16),
    "whole tiles and part of one": (41, 16, 16),
    "tail of queries": (37, 32, 16),
    "tail of keys": (37, 16, 32),
    "tails of both": (33, 32, 32),
    "tail of 32": (81, 64, 64),
    "whole tiles and tails": (70, 32, 32),
    "no whole tile, a tail": (13, 32, 32),
}
ONE_PASS_CUTS = {
    "one whole tile": (32, 32, 32),
    "one part of a tile": (19, 32, 32),
    "less than the least tile": (1, 16, 16),
    "blocks of queries": (32, 16, 32),
    "blocks of queries and part of one": (25, 16, 32),
    "tail of queries": (33, 32, 64),
    "tail of keys": (37, 16, 32),
    "tails of both": (33, 32, 32),
    "tails of both, one token": (65, 32, 64),
    "tail of 32 keys": (81, 32, 64),
    "fewer queries than a block": (40, 64, 32),
    "fewer keys than half a block": (13, 32, 32),
}


@pytest.fixture(scope="module", autouse=True)
def _interpreter() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1", (
        "these tests run Triton kernels on the CPU: use `make test`, or set TRITON_INTERPRET=1 "
        "before Python starts"
    )


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch) -> None:
    """Fill what the launcher allocates with NaN, so that nothing is left unwritten."""

    def poison(allocate):
        return lambda *args, **kwargs: allocate(*args, **kwargs).fill_(float("nan"))

    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, poison(getattr(torch, name)))


def make(tokens, dim=16, dtype=torch.float32, batch=2, heads=None):
    """Return q, k, v as views of a packed qkv, a keep mask with both values, and a gradient."""
    heads = heads or (2 if tokens < 50 else 1)
    qkv = torch.randn(batch, tokens, 3, heads, dim).to(dtype)
    keep = (torch.rand(batch, tokens) > 0.4).float()
    # The first and the last token are dropped in one image and kept in the other.
    keep[0, 0], keep[0, -1], keep[1, 0], keep[1, -1] = 1.0, 0.0, 0.0, 1.0
    grad = torch.randn(batch, heads, tokens, dim).to(dtype)
    return (*qkv.permute(2, 0, 3, 1, 4), keep), grad


def gradients(function, inputs, grad, dtype=None, **kwargs):
    inputs = [(x if dtype is None else x.to(dtype)).detach().requires_grad_() for x in inputs]
    o = function(*inputs, **kwargs)
    return o.detach(), *torch.autograd.grad(o, inputs, grad.to(o.dtype))


def assert_exact(inputs, grad, configs):
    """Compare with float64 on the same numbers; see test_kernels_masked_attention for the rule."""
    with _launch.override(configs):
        actual = gradients(masked_attention, inputs, grad, impl="triton")
    dtype, tokens = inputs[0].dtype, inputs[0].shape[2]
    exact = gradients(reference.masked_attention, inputs, grad, torch.float64)
    eager = gradients(reference.masked_attention, inputs, grad, dtype)
    terms = (grad.double() @ inputs[2].double().transpose(-2, -1)).abs().max()
    slack = tokens**0.5 * torch.finfo(torch.float32).eps + torch.finfo(dtype).eps
    for name, a, e, x in zip(NAMES, actual, eager, exact, strict=True):
        size = float(x.abs().max() if name == "o" else torch.maximum(x.abs().max(), terms))
        error, allowed = (a - x).abs().max(), (e - x).abs().max() + slack * size
        assert error <= allowed, f"{name}: error {error:.2e} > {allowed:.2e}"


def config(block_m, block_n):
    return LaunchConfig(block_m, block_n, 4, 1)


@pytest.mark.parametrize("cut", FORWARD_CUTS.values(), ids=FORWARD_CUTS)
def test_forward(cut):
    tokens, block_m, block_n = cut
    assert_exact(*make(tokens), {FORWARD: config(block_m, block_n)})


@pytest.mark.parametrize("cut", ONE_PASS_CUTS.values(), ids=ONE_PASS_CUTS)
def test_backward_in_one_pass(cut):
    tokens, block_m, block_n = cut
    assert_exact(*make(tokens), {ONE_PASS: config(block_m, block_n)})


@pytest.mark.parametrize("kernel", [QUERIES, KEYS], ids=["queries", "keys"])
@pytest.mark.parametrize("cut", FORWARD_CUTS.values(), ids=FORWARD_CUTS)
def test_backward_in_two_passes(cut, kernel):
    tokens, block_m, block_n = cut
    assert_exact(*make(tokens), {ONE_PASS: None, kernel: config(block_m, block_n)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("one_pass", [True, False], ids=["one pass", "two passes"])
def test_half_precision(dtype, one_pass):
    cut = config(32, 32)
    grad = {ONE_PASS: cut} if one_pass else {ONE_PASS: None, QUERIES: cut, KEYS: cut}
    assert_exact(*make(45, 24, dtype), {FORWARD: cut, **grad})


@pytest.mark.parametrize("dim", [1, 16, 24, 33])
def test_head_dimensions_that_fill_a_tile_and_that_do_not(dim):
    assert_exact(*make(21, dim), {ONE_PASS: config(16, 32)})
    assert_exact(*make(21, dim), {ONE_PASS: None})


@pytest.mark.parametrize("one_pass", [True, False], ids=["one pass", "two passes"])
def test_all_dropped_but_self(one_pass):
    (q, k, v, keep), grad = make(37)
    inputs = (q, k, v, torch.zeros_like(keep))
    assert_exact(inputs, grad, {ONE_PASS: config(32, 32) if one_pass else None})
    with _launch.override({ONE_PASS: config(32, 32) if one_pass else None}):
        o, dq, dk, dv, _ = gradients(masked_attention, inputs, grad, impl="triton")
    torch.testing.assert_close(o, v.contiguous())
    torch.testing.assert_close(dv, grad)
    assert max(dq.abs().max(), dk.abs().max()) <= 1e-5


@pytest.mark.parametrize("one_pass", [True, False], ids=["one pass", "two passes"])
def test_ratio_of_a_dropped_key_that_leads_is_clamped(one_pass):
    # Neither a factor of 2**20 nor one without bound: the mask's gradient is a million slopes.
    (q, k, v, keep), grad = make(37, batch=2, heads=1)
    q, k, keep = q.clone(), k.clone(), torch.ones_like(keep)
    q[..., 0], k[..., 0] = 10.0, 0.0
    k[:, 0, 35, 0], keep[:, 35] = 10.0, 0.0
    with _launch.override({ONE_PASS: config(32, 32) if one_pass else None}):
        o, *_, dkeep = gradients(masked_attention, (q, k, v, keep), grad, impl="triton", scale=1.0)
    slopes = (grad * v[:, :, 35:36]).sum(-1) - (grad * o).sum(-1)
    slopes[:, :, 35] = 0.0
    torch.testing.assert_close(dkeep[:, 35], 1e6 * slopes.sum((1, 2)), rtol=1e-4, atol=1.0)


@pytest.mark.parametrize("tokens", [21, 37])
@pytest.mark.parametrize("one_pass", [True, False], ids=["one pass", "two passes"])
def test_without_the_gradient_of_the_mask_the_others_keep_their_bits(one_pass, tokens):
    (q, k, v, keep), grad = make(tokens)
    o, lse = _gpu.forward(q, k, v, keep, 0.25)
    before = lse.clone()
    with _launch.override({ONE_PASS: config(32, 32) if one_pass else None, KEYS: config(16, 32)}):
        *expected, dkeep = _gpu.backward(grad, q, k, v, keep, o, lse, 0.25, True)
        *found, nothing = _gpu.backward(grad, q, k, v, keep, o, lse, 0.25, False)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert dkeep.isfinite().all()
    assert nothing.shape == (0,)
    assert torch.equal(lse, before)


@pytest.mark.parametrize("one_pass", [True, False], ids=["one pass", "two passes"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float64, torch.bfloat16], ids=str)
def test_masks_of_any_dtype(dtype, one_pass):
    (q, k, v, keep), grad = make(21)
    qkv = [x.detach().requires_grad_() for x in (q, k, v)]
    with _launch.override({ONE_PASS: config(16, 32) if one_pass else None}):
        found = [
            torch.autograd.grad(masked_attention(*qkv, mask, impl="triton"), qkv, grad)
            for mask in (keep, keep.to(dtype))
        ]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_fraction_counts_as_kept_above_one_half():
    (q, k, v, keep), _ = make(21)
    for dtype in (torch.float32, torch.float64):
        soft = torch.where(keep > 0.5, 0.5000001, 0.5).to(dtype)
        found = masked_attention(q, k, v, soft, impl="triton")
        assert torch.equal(found, masked_attention(q, k, v, keep, impl="triton"))


def test_every_tensor_has_strides_of_its_own():
    inputs, grad = make(21, 16, batch=3, heads=2)
    dense = gradients(masked_attention, inputs, grad, impl="triton")
    q, k, v, keep = inputs
    q = q.transpose(0, 1).contiguous().transpose(0, 1)
    k = k.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3)
    v = torch.cat([v, v], -1)[..., :16]
    grad = grad.permute(2, 1, 0, 3).contiguous().permute(2, 1, 0, 3)
    keep = keep.t().contiguous().t()
    for one_pass in (config(16, 32), None):
        with _launch.override({ONE_PASS: one_pass}):
            strided = gradients(masked_attention, (q, k, v, keep), grad, impl="triton")
        for a, b in zip(dense, strided, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_keys_that_one_program_cannot_hold_are_refused():
    inputs, grad = make(21)
    with (
        _launch.override({ONE_PASS: config(16, 16)}),
        pytest.raises(RuntimeError, match="holds 16 keys, the sequences have 21 tokens"),
    ):
        gradients(masked_attention, inputs, grad, impl="triton")


def test_products_are_those_of_torch_s_settings():
    with FakeTensorMode():
        single, half = (torch.empty(2, device="cuda", dtype=d) for d in (torch.float32, torch.half))
    cpu = torch.zeros(2)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert [_gpu.precision(x) for x in (single, half, cpu)] == ["ieee"] * 3
        torch.set_float32_matmul_precision("high")
        assert [_gpu.precision(x) for x in (single, half, cpu)] == ["tf32", "ieee", "ieee"]
    finally:
        torch.set_float32_matmul_precision(before)
