"""Both implementations of masked attention on the CPU, Triton's in its interpreter."""

import math
import os

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import _launch, masked_attention, reference
from kernels._eager import masked_attention as _eager
from kernels._launch import LaunchConfig

IMPLEMENTATIONS = ("reference", "triton")
NAMES = ("o", "dq", "dk", "dv", "dkeep")


@pytest.fixture(scope="module", autouse=True)
def _interpreter() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1", (
        "these tests run Triton kernels on the CPU: use `make test`, or set TRITON_INTERPRET=1 "
        "before Python starts"
    )


def make(batch, heads, tokens, dim, dtype=torch.float32, spread=1.0, seed=0):
    """Return q, k, v as views of a packed qkv, keep with both values, and a gradient for o."""
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(batch, tokens, 3, heads, dim, generator=generator).mul_(spread).to(dtype)
    keep = (torch.rand(batch, tokens, generator=generator) > 0.4).float()
    keep[:, 0] = 1.0
    grad = torch.randn(batch, heads, tokens, dim, generator=generator).to(dtype)
    return (*qkv.permute(2, 0, 3, 1, 4), keep), grad


def run(function, inputs, grad, dtype=None, **kwargs):
    """Return o and the four gradients; with a dtype, of inputs converted to it."""
    inputs = [(x if dtype is None else x.to(dtype)).detach().requires_grad_() for x in inputs]
    o = function(*inputs, **kwargs)
    return o.detach(), *torch.autograd.grad(o, inputs, grad.to(o.dtype))


def assert_within_budget(actual, inputs, grad):
    """Compare with float64 on the same numbers, allowing what the dtype costs and no more.

    The allowance is the error of the plain definition evaluated in that dtype, plus the rounding of
    float32 sums over N terms, plus the rounding of the result; the last two relative to the largest
    term that cancels in the sums, dO_i . v_j.
    """
    dtype, tokens = inputs[0].dtype, inputs[0].shape[2]
    exact = run(reference.masked_attention, inputs, grad, torch.float64)
    eager = run(reference.masked_attention, inputs, grad, dtype)
    terms = (grad.double() @ inputs[2].double().transpose(-2, -1)).abs().max()
    sums = math.sqrt(tokens) * torch.finfo(torch.float32).eps
    for name, a, e, x in zip(NAMES, actual, eager, exact, strict=True):
        eps = torch.finfo(a.dtype).eps if name != "dkeep" else torch.finfo(dtype).eps
        size = float(x.abs().max() if name == "o" else torch.maximum(x.abs().max(), terms))
        slack = (sums + eps) * size
        for measure in (torch.max, torch.mean):
            error, allowed = measure((a - x).abs()), measure((e - x).abs()) + slack
            assert error <= allowed, f"{name}: {measure.__name__} error {error:.2e} > {allowed:.2e}"


@pytest.mark.parametrize(
    ("tokens", "dim", "dtype"),
    [
        (1, 32, torch.float32),
        (2, 48, torch.bfloat16),
        (15, 64, torch.float32),
        (16, 80, torch.float16),
        (17, 128, torch.float32),
        (33, 64, torch.bfloat16),
        (65, 32, torch.bfloat16),
        (65, 48, torch.float32),
        (129, 64, torch.bfloat16),
        (129, 32, torch.float32),
    ],
    ids=lambda value: str(value).removeprefix("torch."),
)
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_forward_and_backward_equal_float64(impl, tokens, dim, dtype):
    inputs, grad = make(*((2, 3) if tokens < 64 else (1, 2)), tokens, dim, dtype)
    assert_within_budget(run(masked_attention, inputs, grad, impl=impl), inputs, grad)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    shape=st.tuples(
        st.integers(1, 3),
        st.integers(1, 3),
        st.integers(1, 40),
        st.sampled_from([1, 5, 16, 24, 32]),
    ),
    scale=st.sampled_from([None, 0.05, 1.3]),
    kept=st.floats(0.0, 1.0),
    seed=st.integers(0, 99),
)
def test_any_shape_and_any_mask(impl, shape, scale, kept, seed):
    (q, k, v, _), grad = make(*shape, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    keep = (torch.rand(shape[0], shape[2], generator=generator) < kept).float()
    inputs = (q, k, v, keep)
    actual = run(masked_attention, inputs, grad, scale=scale, impl=impl)
    exact = run(reference.masked_attention, inputs, grad, torch.float64, scale=scale)
    for name, a, x in zip(NAMES, actual, exact, strict=True):
        bound = 64 * math.sqrt(shape[2]) * torch.finfo(torch.float32).eps
        assert (a - x).abs().max() <= bound * max(1.0, float(x.abs().max())), name


def test_float64_is_computed_in_float64():
    inputs, grad = make(2, 2, 9, 8, torch.float64)
    inputs = (*inputs[:3], inputs[3].double())
    pairs = zip(
        run(masked_attention, inputs, grad),
        run(reference.masked_attention, inputs, grad),
        strict=True,
    )
    for actual, exact in pairs:
        torch.testing.assert_close(actual, exact, rtol=1e-12, atol=1e-13)


def test_pieces_of_the_batch_make_no_difference(monkeypatch):
    inputs, grad = make(5, 2, 9, 8)
    whole = run(masked_attention, inputs, grad)
    monkeypatch.setattr(_eager, "CACHE_BYTES", 2 * 2 * 9 * 9 * 4)
    for a, b in zip(whole, run(masked_attention, inputs, grad), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_without_drops_it_is_plain_attention(impl):
    (q, k, v, keep), _ = make(2, 2, 17, 32)
    for full in (torch.ones_like(keep), torch.ones_like(keep, dtype=torch.bool)):
        torch.testing.assert_close(
            masked_attention(q, k, v, full, impl=impl), F.scaled_dot_product_attention(q, k, v)
        )


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_all_dropped_leaves_every_token_to_itself(impl):
    (q, k, v, keep), grad = make(2, 2, 35, 32)
    inputs = (q, k, v, torch.zeros_like(keep))
    actual = run(masked_attention, inputs, grad, impl=impl)
    torch.testing.assert_close(actual[0], v.contiguous())
    torch.testing.assert_close(actual[3], grad)
    assert_within_budget(actual, inputs, grad)


@pytest.mark.parametrize(("impl", "tokens"), [("reference", 600), ("triton", 150)])
def test_long_run_of_dropped_tokens_before_the_first_kept_one(impl, tokens):
    (q, k, v, keep), _ = make(1, 1, tokens, 16)
    keep[:] = 0.0
    keep[:, -10:] = 1.0
    o = masked_attention(q, k, v, keep, impl=impl)
    exact = reference.masked_attention(*(x.double() for x in (q, k, v, keep)))
    torch.testing.assert_close(o.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_kept_rows_equal_attention_over_the_kept_tokens(impl):
    (q, k, v, keep), _ = make(1, 2, 37, 32)
    kept = keep[0].nonzero().squeeze(1)
    assert 1 < len(kept) < 37
    o = masked_attention(q, k, v, keep, impl=impl)
    compact = F.scaled_dot_product_attention(*(x[:, :, kept] for x in (q, k, v)))
    torch.testing.assert_close(o[:, :, kept], compact)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_dropped_key_that_leads_by_a_hundred_logits(impl):
    (q, k, v, keep), grad = make(1, 1, 17, 16)
    q, k, keep = q.clone(), k.clone(), torch.ones_like(keep)
    q[..., 0], k[..., 0], keep[0, 5] = 10.0, 0.0, 0.0
    k[0, 0, 5, 0] = 10.0
    inputs = (q, k, v, keep)
    actual = run(masked_attention, inputs, grad, scale=1.0, impl=impl)
    assert all(x.isfinite().all() for x in actual)
    o = actual[0].double()
    slopes = (grad * v[:, :, 5:6]).sum(-1) - (grad * o).sum(-1)
    slopes[0, 0, 5] = 0.0
    torch.testing.assert_close(actual[4][0, 5].double(), 1e6 * slopes.sum(), rtol=1e-4, atol=1.0)
    exact = run(reference.masked_attention, inputs, grad, torch.float64, scale=1.0)
    for name, a, x in zip(NAMES, actual, exact, strict=True):
        # Logits of a hundred are themselves known to 100 eps.
        bound = 400 * torch.finfo(torch.float32).eps * math.sqrt(17)
        assert (a - x).abs().max() <= bound * max(1.0, float(x.abs().max())), name


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logits_of_ten_thousand_stay_finite(impl, sign):
    (q, k, v, keep), grad = make(1, 2, 17, 16)
    q, k = q.clone(), k.clone()
    q[..., 0], k[..., 0] = 100.0, sign * 100.0
    actual = run(masked_attention, (q, k, v, keep), grad, scale=1.0, impl=impl)
    assert all(x.isfinite().all() for x in actual)
    exact = reference.masked_attention(*(x.double() for x in (q, k, v, keep)), scale=1.0)
    bound = 64 * 1e4 * torch.finfo(torch.float32).eps
    assert (actual[0] - exact).abs().max() <= bound


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_permuting_tokens_permutes_results(impl):
    inputs, grad = make(2, 2, 33, 32)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(1))
    plain = run(masked_attention, inputs, grad, impl=impl)
    shuffled = (*(x[:, :, order] for x in inputs[:3]), inputs[3][:, order])
    permuted = run(masked_attention, shuffled, grad[:, :, order], impl=impl)
    for p, s in zip(plain[:4], permuted[:4], strict=True):
        torch.testing.assert_close(p[:, :, order], s, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain[4][:, order], permuted[4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_rows_without_gradient_contribute_nothing(impl):
    inputs, grad = make(1, 2, 19, 16)
    silent = grad.clone()
    silent[:, :, 7:] = 0.0
    dq, _, _, dkeep = run(masked_attention, inputs, silent, impl=impl)[1:]
    assert dq[:, :, 7:].abs().max() <= 1e-6
    exact = run(reference.masked_attention, inputs, silent, torch.float64)[4]
    torch.testing.assert_close(dkeep.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_poison_in_a_dropped_token_reaches_no_other_row(impl, poison):
    (q, k, v, keep), _ = make(1, 2, 21, 16)
    keep[0, 4] = 0.0
    clean = masked_attention(q, k, v, keep, impl=impl)
    k, v = k.clone(), v.clone()
    k[0, :, 4], v[0, :, 4] = poison, poison
    poisoned = masked_attention(q, k, v, keep, impl=impl)
    others = [i for i in range(21) if i != 4]
    assert torch.equal(clean[:, :, others], poisoned[:, :, others])


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_strides_make_no_difference(impl):
    inputs, grad = make(2, 3, 17, 32)
    packed = run(masked_attention, inputs, grad, impl=impl)
    dense = run(masked_attention, [x.contiguous() for x in inputs], grad, impl=impl)
    columns = [x.transpose(-2, -1).contiguous().transpose(-2, -1) for x in inputs[:3]]
    spread = grad.new_empty(*grad.shape[:3], 64)[..., ::2].copy_(grad)
    other = run(masked_attention, (*columns, inputs[3]), spread, impl=impl)
    for a, b, c in zip(packed, dense, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(a, c, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_an_expanded_gradient_will_do(impl):
    inputs, _ = make(1, 2, 5, 16)
    inputs = [x.detach().requires_grad_() for x in inputs]
    masked_attention(*inputs, impl=impl).sum().backward()
    grad = torch.ones(1, 2, 5, 16)
    expected = run(masked_attention, inputs, grad, impl=impl)[1:]
    for x, e in zip(inputs, expected, strict=True):
        torch.testing.assert_close(x.grad, e)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_output_is_laid_out_for_the_projection(impl):
    (q, k, v, keep), _ = make(2, 3, 5, 16)
    assert masked_attention(q, k, v, keep, impl=impl).transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_ten_runs_are_bitwise_equal(impl):
    inputs, grad = make(2, 2, 21, 16)
    first = run(masked_attention, inputs, grad, impl=impl)
    for _ in range(9):
        again = run(masked_attention, inputs, grad, impl=impl)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_keep_gradient_has_the_dtype_of_keep(impl):
    (q, k, v, keep), grad = make(1, 2, 9, 16, torch.bfloat16)
    assert run(masked_attention, (q, k, v, keep), grad, impl=impl)[4].dtype == torch.float32
    dkeep = run(masked_attention, (q, k, v, keep.bfloat16()), grad, impl=impl)[4]
    assert dkeep.dtype == torch.bfloat16


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("empty", ["batch", "tokens"])
def test_empty(impl, empty):
    shape = (0, 2, 5, 16) if empty == "batch" else (2, 2, 0, 16)
    qkv = [torch.empty(shape, requires_grad=True) for _ in range(3)]
    keep = torch.ones(shape[0], shape[2], requires_grad=True)
    o = masked_attention(*qkv, keep, impl=impl)
    assert o.shape == shape
    o.sum().backward()
    assert keep.grad.shape == keep.shape


@pytest.mark.parametrize("one_pass", [True, False], ids=["one pass", "two passes"])
def test_offsets_beyond_32_bits(one_pass):
    held = LaunchConfig(16, 16, 1, 1) if one_pass else None
    # Three images 2**30 elements apart in memory that is reserved but otherwise never touched.
    far = 2**30
    base = torch.empty(2 * far + 1024, dtype=torch.float16)
    q = base.as_strided((3, 1, 3, 16), (far, 48, 16, 1))
    q.copy_(torch.randn(3, 1, 3, 16))
    keep = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    grad = torch.randn(3, 1, 3, 16).half()
    near = q.clone(memory_format=torch.contiguous_format)
    with _launch.override({"masked_attention_one_pass.grad_kernel": held}):
        distant = run(masked_attention, (q, q, q, keep), grad, impl="triton")
        close = run(masked_attention, (near, near, near, keep), grad, impl="triton")
    assert all(torch.equal(a, b) for a, b in zip(distant, close, strict=True))


@pytest.mark.parametrize("one_pass", [True, False], ids=["one pass", "two passes"])
def test_a_gradient_with_rows_beyond_32_bits(one_pass):
    held = LaunchConfig(16, 16, 1, 1) if one_pass else None
    inputs, near = make(1, 2, 3, 16, torch.float16)
    # Tokens 2**30 elements apart in memory that is reserved but otherwise never touched.
    base = torch.empty(2**31 + 64, dtype=torch.float16)
    far = base.as_strided((1, 2, 3, 16), (0, 16, 2**30, 1)).copy_(near)
    with _launch.override({"masked_attention_one_pass.grad_kernel": held}):
        distant = run(masked_attention, inputs, far, impl="triton")
        close = run(masked_attention, inputs, near, impl="triton")
    assert all(torch.equal(a, b) for a, b in zip(distant, close, strict=True))
