"""Every implementation of ragged attention on the CPU, Triton's in its interpreter."""

import math
import os
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import _launch, masked_attention, ragged_attention, reference
from kernels._cpu import build
from kernels._eager import ragged_attention as _eager

IMPLEMENTATIONS = ("reference", "triton") if build.obstacles() else ("reference", "triton", "cpu")
NAMES = ("o", "dq", "dk", "dv")
ONE_PASS = "ragged_attention_one_pass.grad_kernel"


@pytest.fixture(scope="module", autouse=True)
def _interpreter() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1", (
        "these tests run Triton kernels on the CPU: use `make test`, or set TRITON_INTERPRET=1 "
        "before Python starts"
    )


@pytest.fixture(params=[*IMPLEMENTATIONS, "triton in one pass"])
def path(request):
    """Name an implementation, Triton's once with each of its backwards; for at most 48 tokens."""
    config = _launch.LaunchConfig(16, 32, 1, 1, tail=16) if "one" in request.param else None
    with _launch.override({ONE_PASS: config}):
        yield request.param.removesuffix(" in one pass")


@pytest.fixture(autouse=True)
def _poison(monkeypatch) -> None:
    """Fill what is allocated but not written with NaN, so that nothing unwritten goes unnoticed."""
    empty, new_empty, empty_like = torch.empty, torch.Tensor.new_empty, torch.empty_like

    def poisoned(allocate):
        def allocated(*args, **kwargs):
            x = allocate(*args, **kwargs)
            real = type(x) is torch.Tensor and x.device.type != "meta"
            return x.fill_(math.nan) if real and x.is_floating_point() else x

        return allocated

    monkeypatch.setattr(torch, "empty", poisoned(empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(new_empty))


def packed(lengths):
    """Return cu_seqlens of sequences of these lengths."""
    return F.pad(torch.tensor(lengths, dtype=torch.int64).cumsum(0), (1, 0)).int()


def make(lengths, heads, dim, dtype=torch.float32, gathered=False, spread=1.0, seed=0):
    """Return q, k, v as views of a packed qkv, cu_seqlens, a row index or None, a gradient for o.

    With a row index, the tensors have half as many rows again as there are tokens, in any order.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    total = tokens + tokens // 2 + 1 if gathered else tokens
    qkv = torch.randn(total, 3, heads, dim, generator=generator).mul_(spread).to(dtype)
    rows = torch.randperm(total, generator=generator)[:tokens] if gathered else None
    grad = torch.randn(tokens, heads, dim, generator=generator).to(dtype)
    return qkv.unbind(1), packed(lengths), rows, grad


def run(inputs, cu_seqlens, grad, max_seqlen=None, dtype=None, **kwargs):
    """Return o and the three gradients; of the definition where no implementation is named."""
    inputs = [(x if dtype is None else x.to(dtype)).detach().requires_grad_() for x in inputs]
    if "impl" in kwargs:
        longest = int(cu_seqlens.diff().max()) if max_seqlen is None else max_seqlen
        o = ragged_attention(*inputs, cu_seqlens, longest, **kwargs)
    else:
        o = reference.ragged_attention(*inputs, cu_seqlens, **kwargs)
    return o.detach(), *torch.autograd.grad(o, inputs, grad.to(o.dtype))


def largest_term(inputs, cu_seqlens, grad, rows):
    """Return the largest `sum_d |dO_id v_jd|`: what cancels in the sums of the gradients."""
    v = inputs[2].double() if rows is None else inputs[2].double()[rows]
    bounds = cu_seqlens.tolist()
    products = [
        torch.einsum("ihd,jhd->hij", grad[a:b].double().abs(), v[a:b].abs()).max()
        for a, b in pairwise(bounds)
        if a < b
    ]
    return torch.stack(products).max()


def assert_within_budget(actual, inputs, cu_seqlens, grad, rows=None):
    """Compare with float64 on the same numbers, allowing what the dtype costs and no more.

    The allowance is the error of the definition evaluated in that dtype, plus the rounding of
    float32 sums over N terms, plus the rounding of the result; the last two relative to the largest
    term that cancels in the sums.
    """
    dtype = inputs[0].dtype
    exact = run(inputs, cu_seqlens, grad, dtype=torch.float64, rows=rows)
    eager = run(inputs, cu_seqlens, grad, dtype=dtype, rows=rows)
    terms = largest_term(inputs, cu_seqlens, grad, rows)
    sums = math.sqrt(int(cu_seqlens.diff().max())) * torch.finfo(torch.float32).eps
    for name, a, e, x in zip(NAMES, actual, eager, exact, strict=True):
        size = float(x.abs().max() if name == "o" else torch.maximum(x.abs().max(), terms))
        slack = (sums + torch.finfo(dtype).eps) * size
        for measure in (torch.max, torch.mean):
            error, allowed = measure((a - x).abs()), measure((e - x).abs()) + slack
            assert error <= allowed, f"{name}: {measure.__name__} error {error:.2e} > {allowed:.2e}"


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize(
    ("lengths", "dim", "dtype"),
    [
        ([1], 32, torch.float32),
        ([0, 15, 0, 16, 17, 1], 16, torch.float32),
        ([33, 5, 48], 64, torch.bfloat16),
        ([64, 20, 1, 0], 64, torch.float16),
        ([65, 64, 79], 48, torch.bfloat16),
        ([17, 33, 2], 80, torch.float32),
        ([129, 16, 97], 64, torch.bfloat16),
        ([129, 40], 32, torch.float16),
        ([65, 31], 128, torch.bfloat16),
        ([40, 129], 64, torch.float32),
        ([197, 64], 32, torch.bfloat16),
    ],
    ids=lambda value: str(value).removeprefix("torch.").replace(" ", ""),
)
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_forward_and_backward_equal_float64(impl, lengths, dim, dtype, gathered):
    heads = 2 if sum(lengths) < 150 else 1
    inputs, cu_seqlens, rows, grad = make(lengths, heads, dim, dtype, gathered)
    actual = run(inputs, cu_seqlens, grad, rows=rows, impl=impl)
    assert_within_budget(actual, inputs, cu_seqlens, grad, rows)


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize(
    "config",
    [
        _launch.LaunchConfig(16, 16, 1, 1),
        _launch.LaunchConfig(16, 32, 1, 1, tail=16),
        _launch.LaunchConfig(32, 16, 1, 1, tail=16),
        _launch.LaunchConfig(32, 32, 1, 1, tail=16),
        _launch.LaunchConfig(64, 16, 1, 1, tail=32),
        _launch.LaunchConfig(64, 64, 1, 1),
    ],
    ids=lambda c: f"{c.block_m}x{c.block_n}+{c.tail}",
)
def test_every_tiling_of_both_passes_equals_float64(config, gathered):
    inputs, cu_seqlens, rows, grad = make([47, 0, 33, 16, 66, 2], 1, 16, gathered=gathered)
    names = (
        "ragged_attention.forward_kernel",
        *(f"ragged_attention_two_pass.grad_{x}_kernel" for x in ("queries", "keys")),
    )
    with _launch.override(dict.fromkeys(names, config) | {ONE_PASS: None}):
        actual = run(inputs, cu_seqlens, grad, rows=rows, impl="triton")
    assert_within_budget(actual, inputs, cu_seqlens, grad, rows)


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize(
    "config",
    [
        _launch.LaunchConfig(16, 64, 1, 1),
        _launch.LaunchConfig(32, 64, 1, 1, tail=16),
        _launch.LaunchConfig(16, 32, 1, 1, tail=16),
        _launch.LaunchConfig(32, 32, 1, 1, tail=16),
        _launch.LaunchConfig(64, 64, 1, 1, tail=32),
    ],
    ids=lambda c: f"{c.block_m}x{c.block_n}+{c.tail}",
)
def test_every_tiling_of_one_pass_equals_float64(config, gathered):
    inputs, cu_seqlens, rows, grad = make([47, 0, 33, 16, 48, 1], 2, 16, gathered=gathered)
    with _launch.override({ONE_PASS: config}):
        actual = run(inputs, cu_seqlens, grad, rows=rows, impl="triton")
    assert_within_budget(actual, inputs, cu_seqlens, grad, rows)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any),
    heads=st.integers(1, 3),
    dim=st.sampled_from([1, 5, 16, 24, 32]),
    scale=st.sampled_from([None, 0.05, 1.3]),
    gathered=st.booleans(),
    looser=st.sampled_from([0, 1, 30]),
    seed=st.integers(0, 99),
)
def test_any_lengths(impl, lengths, heads, dim, scale, gathered, looser, seed):
    inputs, cu_seqlens, rows, grad = make(lengths, heads, dim, gathered=gathered, seed=seed)
    longest = max(lengths) + looser
    actual = run(inputs, cu_seqlens, grad, longest, rows=rows, scale=scale, impl=impl)
    exact = run(inputs, cu_seqlens, grad, dtype=torch.float64, rows=rows, scale=scale)
    for name, a, x in zip(NAMES, actual, exact, strict=True):
        bound = 64 * math.sqrt(max(lengths)) * torch.finfo(torch.float32).eps
        assert (a - x).abs().max() <= bound * max(1.0, float(x.abs().max())), name


def test_float64_is_computed_in_float64():
    inputs, cu_seqlens, rows, grad = make([9, 4, 9], 2, 8, torch.float64, gathered=True)
    pairs = zip(
        run(inputs, cu_seqlens, grad, rows=rows, impl="reference"),
        run(inputs, cu_seqlens, grad, rows=rows),
        strict=True,
    )
    for actual, exact in pairs:
        torch.testing.assert_close(actual, exact, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
def test_padding_without_reading_the_lengths_makes_no_difference(monkeypatch, gathered):
    inputs, cu_seqlens, rows, grad = make([5, 0, 9, 9, 2], 2, 8, gathered=gathered)
    dense = run(inputs, cu_seqlens, grad, rows=rows, impl="reference")
    monkeypatch.setattr(_eager, "_pieces", _eager._padded_pieces)
    monkeypatch.setattr(_eager, "PADDED_BYTES", 2 * 2 * 12 * 12 * 4)
    padded = run(inputs, cu_seqlens, grad, 12, rows=rows, impl="reference")
    for a, b in zip(dense, padded, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_padding_beside_logits_far_below_zero_is_not_felt(monkeypatch):
    inputs, cu_seqlens, _, grad = make([5, 9], 2, 8)
    q, k, v = (x.clone() for x in inputs)
    q[..., 0], k[..., 0] = 30.0, -30.0
    monkeypatch.setattr(_eager, "_pieces", _eager._padded_pieces)
    padded = run((q, k, v), cu_seqlens, grad, 12, impl="reference")
    exact = run((q, k, v), cu_seqlens, grad, dtype=torch.float64)
    for a, x in zip(padded, exact, strict=True):
        # The logits are some 300 apart from zero, and known to as many eps.
        bound = 64 * 300 * torch.finfo(torch.float32).eps
        assert (a - x).abs().max() <= bound * max(1.0, float(x.abs().max()))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_one_sequence_is_plain_attention(impl):
    inputs, cu_seqlens, _, grad = make([37], 2, 32)
    o = run(inputs, cu_seqlens, grad, impl=impl)[0]
    q, k, v = (x.transpose(0, 1) for x in inputs)
    torch.testing.assert_close(o.transpose(0, 1), F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("index", [torch.int64, torch.int32], ids=str)
def test_a_row_index_gives_the_bits_of_gathering_first(path, dtype, index):
    inputs, cu_seqlens, rows, grad = make([33, 17, 0, 40], 2, 16, dtype, gathered=True)
    fused = run(inputs, cu_seqlens, grad, rows=rows.to(index), impl=path)
    gathered = run([x[rows] for x in inputs], cu_seqlens, grad, impl=path)
    assert torch.equal(fused[0], gathered[0])
    for through_rows, plain in zip(fused[1:], gathered[1:], strict=True):
        assert torch.equal(through_rows[rows], plain)
        others = torch.ones(len(through_rows), dtype=torch.bool)
        others[rows] = False
        assert torch.equal(through_rows[others], torch.zeros_like(through_rows[others]))


def test_gradients_of_a_repeated_row_add_up(path):
    inputs, cu_seqlens, _, grad = make([9, 6], 2, 16)
    rows = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 1, 9, 10, 11])
    actual = run(inputs, cu_seqlens, grad, rows=rows, impl=path)
    assert_within_budget(actual, inputs, cu_seqlens, grad, rows)


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
def test_tokens_beyond_the_last_sequence_are_neither_read_nor_given_gradient(path, gathered):
    inputs, cu_seqlens, rows, grad = make([9, 20, 5, 150], 1, 16, gathered=gathered)
    cu_seqlens, end = cu_seqlens[:-1], 34
    beyond = slice(end, None) if rows is None else rows[end:].clone()
    used = slice(0, end) if rows is None else rows[:end].clone()
    inputs = [x.clone() for x in inputs]
    for x in inputs:
        x[beyond] = math.nan
    grad[end:] = math.nan
    if rows is not None:
        rows[end:] = 2**40
    o, *grads = run(inputs, cu_seqlens, grad, rows=rows, impl=path)
    exact, *expected = run([x[used] for x in inputs], cu_seqlens, grad[:end], impl=path)
    assert torch.equal(o[:end], exact)
    for x, e in zip(grads, expected, strict=True):
        assert torch.equal(x[used], e)
        x[used] = 0.0
        assert torch.equal(x, torch.zeros_like(x))


def test_a_nan_stays_in_its_sequence(path):
    inputs, cu_seqlens, _, grad = make([20, 7, 33], 2, 16)
    clean = run(inputs, cu_seqlens, grad, impl=path)
    inputs = [x.clone() for x in inputs]
    for x in inputs:
        x[22] = math.nan
    hurt = run(inputs, cu_seqlens, grad, impl=path)
    others = torch.ones(60, dtype=torch.bool)
    others[20:27] = False
    for a, b in zip(clean, hurt, strict=True):
        assert torch.equal(a[others], b[others])


def test_the_order_of_sequences_makes_no_difference(path):
    lengths, order = [17, 0, 33, 4], [2, 3, 0, 1]
    inputs, cu_seqlens, _, grad = make(lengths, 2, 16)
    tokens = torch.arange(sum(lengths)).split(lengths)
    shuffle = torch.cat([tokens[i] for i in order])
    first = run(inputs, cu_seqlens, grad, impl=path)
    inputs = [x[shuffle] for x in inputs]
    second = run(inputs, packed([lengths[i] for i in order]), grad[shuffle], impl=path)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a[shuffle], b)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_a_looser_bound_of_the_lengths_makes_no_difference(impl):
    inputs, cu_seqlens, rows, grad = make([17, 0, 33, 4], 1, 16, gathered=True)
    tight = run(inputs, cu_seqlens, grad, 33, rows=rows, impl=impl)
    for bound in (64, 300):
        loose = run(inputs, cu_seqlens, grad, bound, rows=rows, impl=impl)
        for a, b in zip(tight, loose, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("tokens", [37, 70])
def test_kept_rows_of_masked_attention_equal_attention_over_the_kept_tokens(impl, tokens):
    qkv = torch.randn(2, tokens, 3, 1, 16)
    keep = (torch.rand(2, tokens) > 0.4).float()
    keep[:, 0] = 1.0
    indices, cu_seqlens = reference.pack(keep > 0.5)
    q, k, v = qkv.unbind(2)
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    ragged = ragged_attention(*flat, cu_seqlens, tokens, rows=indices, impl=impl)
    heads_first = [x.transpose(1, 2) for x in (q, k, v)]
    masked = masked_attention(*heads_first, keep, impl=impl).transpose(1, 2).flatten(0, 1)[indices]
    exact = reference.masked_attention(*(x.double() for x in heads_first), keep.double())
    exact = exact.transpose(1, 2).flatten(0, 1)[indices]
    defined = reference.ragged_attention(*(x.double() for x in flat), cu_seqlens, rows=indices)
    torch.testing.assert_close(defined, exact, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(ragged, masked)
    torch.testing.assert_close(ragged.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logits_of_ten_thousand_stay_finite(path, sign):
    inputs, cu_seqlens, _, grad = make([17, 3, 40], 2, 16)
    q, k, v = (x.clone() for x in inputs)
    # Of the longest sequence the first tile of keys leads by thousands, or the last one does.
    q[..., 0], k[..., 0] = 100.0, sign * torch.linspace(150.0, -100.0, 60)[:, None]
    actual = run((q, k, v), cu_seqlens, grad, scale=1.0, impl=path)
    assert all(x.isfinite().all() for x in actual)
    exact = run((q, k, v), cu_seqlens, grad, dtype=torch.float64, scale=1.0)
    bound = 64 * 1e4 * torch.finfo(torch.float32).eps
    for name, a, x in zip(NAMES, actual, exact, strict=True):
        # The other products of q and k go with rows of a hundred.
        assert (a - x).abs().max() <= bound * max(1.0, float(x.abs().max())), name


def test_strides_make_no_difference(path):
    inputs, cu_seqlens, _, grad = make([17, 30], 2, 16)
    dense = [x.contiguous() for x in inputs]
    columns = [x.transpose(-2, -1).contiguous().transpose(-2, -1) for x in inputs]
    heads_first = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs]
    expected = run(dense, cu_seqlens, grad, impl=path)
    spread = grad.new_zeros(*grad.shape[:2], 32)[..., ::2].copy_(grad)
    for mixed in (
        (dense[0], heads_first[1], inputs[2]),
        (inputs[0], columns[1], heads_first[2]),
        (heads_first[0], inputs[1], columns[2]),
    ):
        actual = run(mixed, cu_seqlens, spread, impl=path)
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_an_expanded_gradient_will_do(path):
    inputs, cu_seqlens, _, _ = make([5, 8], 2, 16)
    inputs = [x.detach().requires_grad_() for x in inputs]
    ragged_attention(*inputs, cu_seqlens, 8, impl=path).sum().backward()
    expected = run(inputs, cu_seqlens, torch.ones(13, 2, 16), impl=path)[1:]
    for x, e in zip(inputs, expected, strict=True):
        torch.testing.assert_close(x.grad, e)


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
def test_runs_are_bitwise_equal(path, gathered):
    inputs, cu_seqlens, rows, grad = make([33, 20], 2, 32, gathered=gathered)
    first, second = (run(inputs, cu_seqlens, grad, rows=rows, impl=path) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("tokens", "lengths", "longest"),
    [(0, [], 0), (0, [0, 0], 4), (3, [], 4), (3, [0, 0], 0), (3, [0], 4)],
)
def test_empty(impl, tokens, lengths, longest):
    q, k, v = (torch.randn(tokens, 2, 16).requires_grad_() for _ in range(3))
    o = ragged_attention(q, k, v, packed(lengths), longest, impl=impl)
    assert o.shape == (tokens, 2, 16)
    for x in torch.autograd.grad(o, (q, k, v), torch.ones_like(o)):
        assert torch.equal(x, torch.zeros(tokens, 2, 16))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_no_rows_read(impl):
    x = torch.randn(4, 2, 16, requires_grad=True)
    none = torch.empty(0, dtype=torch.int64)
    o = ragged_attention(x, x, x, packed([0]), 3, rows=none, impl=impl)
    assert o.shape == (0, 2, 16)
    o.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize("lengths", [[3], [2, 1]], ids=str)
def test_offsets_beyond_32_bits(lengths, gathered):
    # Rows 2**30 elements apart in memory that is reserved but otherwise never touched.
    far = 2**30
    base = torch.empty_strided((2 * far + 1024,), (1,), dtype=torch.float16)
    q = base.as_strided((3, 2, 16), (far, 16, 1))
    q.copy_(torch.randn(3, 2, 16))
    rows = torch.tensor([2, 0, 1]) if gathered else None
    grad, cu_seqlens = torch.randn(3, 2, 16).half(), packed(lengths)
    distant = run((q, q, q), cu_seqlens, grad, rows=rows, impl="triton")
    near = [q.clone(memory_format=torch.contiguous_format)] * 3
    close = run(near, cu_seqlens, grad, rows=rows, impl="triton")
    assert all(torch.equal(a, b) for a, b in zip(distant, close, strict=True))
