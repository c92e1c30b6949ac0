"""Forward of the C++ attention against float64, on every instruction set of this processor."""

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from kernels import masked_attention, ragged_attention, reference
from kernels._cpu import build, operands
from kernels._cpu import masked_attention as masked
from kernels._cpu import ragged_attention as ragged

LENGTHS = (1, 2, 15, 16, 17, 33, 45, 63, 64, 65, 97, 128, 129, 197, 257, 600)
DIMS = (1, 8, 16, 32, 48, 64, 80, 96, 128)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EPS = torch.finfo(torch.float32).eps
HAS_PAIRS = "avx512_bf16" in Path("/proc/cpuinfo").read_text()


@pytest.fixture(autouse=True, scope="module")
def _extension() -> None:
    build.load()


@pytest.fixture(params=["avx512", "avx512 pairs", "avx2", "generic"])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name, *pairs = request.param.split()
    monkeypatch.setenv("SPARSE_VIT_CPU_ISA", name)
    monkeypatch.setenv("SPARSE_VIT_CPU_PAIRS", "1" if pairs else "0")
    if pairs and not HAS_PAIRS:
        pytest.skip("this processor does not multiply pairs of bfloat16")
    try:
        assert build.load().isa() == name
    except RuntimeError as error:
        if "lacks it" not in str(error):
            raise
        pytest.skip(str(error))
    return request.param


@pytest.fixture(autouse=True)
def _poison() -> Iterator[None]:
    """Fill fresh memory with NaN, so that whatever is not written shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def usual() -> torch.dtype:
    """Return the dtype of tests that do not care."""
    return torch.bfloat16 if os.environ.get("SPARSE_VIT_CPU_PAIRS") == "1" else torch.float32


def make(batch, heads, tokens, dim, dtype=None, spread=1.0):
    """Return q, k, v as views of a packed qkv, and a mask of both kinds."""
    qkv = torch.randn(batch, tokens, 3, heads, dim).mul_(spread).to(dtype or usual())
    keep = torch.rand(batch, tokens) > 0.4
    keep[:, 0] = True
    return qkv.permute(2, 0, 3, 1, 4), keep


def packed(tokens, heads, dim, dtype=None):
    return torch.randn(tokens, 3, heads, dim).to(dtype or usual()).unbind(1)


def offsets(lengths):
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


def definition(q, k, v, keep, scale):
    """Return o and L by the definition, in the dtype of q."""
    scores = (scale * (q @ k.transpose(-2, -1))).masked_fill(
        reference.gate(keep, q.dtype) < 0.5, -math.inf
    )
    return reference.masked_attention(q, k, v, keep, scale=scale), scores.logsumexp(-1)


def assert_within_budget(actual, q, k, v, keep, scale, times=1.0):
    """Compare o and L with float64 on the same numbers, allowing what the dtype costs and no more.

    The allowance is `times` the error of the definition evaluated in that dtype, plus float32 sums
    over the tokens and the elements of a row, plus the rounding of the result.
    """
    exact = definition(q.double(), k.double(), v.double(), keep, scale)
    eager = definition(q, k, v, keep, scale)
    terms = (q.double().abs() @ k.double().abs().transpose(-2, -1)).max() * abs(scale)
    sizes = {"o": float(v.double().abs().max()), "L": max(1.0, float(terms))}
    for name, a, e, x in zip(sizes, actual, eager, exact, strict=True):
        assert a.shape == x.shape
        assert a.dtype == (q.dtype if name == "o" else torch.float32)
        slack = EPS * math.sqrt(q.shape[-2] + q.shape[-1]) * sizes[name]
        slack += torch.finfo(a.dtype).eps * float(x.abs().max())
        for measure in (torch.max, torch.mean):
            error, allowed = measure((a - x).abs()), times * measure((e - x).abs()) + slack
            assert error <= allowed, f"{name}: {measure.__name__} error {error:.2e} > {allowed:.2e}"


def assert_masked(q, k, v, keep, scale=None, **options):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    actual = masked.forward(q, k, v, keep, scale)
    assert_within_budget(actual, q, k, v, keep, scale, **options)
    return actual


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", LENGTHS)
def test_equals_float64(isa, tokens, dtype):
    wanted = DIMS if isa == "avx512" and tokens < 200 else (1, 8, 48, 64, 80)
    for dim in wanted if tokens < 200 else (48, 64):
        (q, k, v), keep = make(2, 2, tokens, dim, dtype)
        assert_masked(q, k, v, keep)
        assert_masked(q, k, v, torch.ones_like(keep))


@pytest.mark.parametrize("dim", [1, 3, 5, 7, 9, 13, 15, 17, 24, 31, 33, 47, 63, 65, 72, 160, 256])
def test_any_head_dim(isa, dim):
    (q, k, v), keep = make(1, 2, 21, dim)
    assert_masked(q, k, v, keep)
    assert_masked(q, k, v, torch.ones_like(keep))


@pytest.mark.parametrize("tokens", range(1, 52))
def test_any_length(isa, tokens):
    (q, k, v), keep = make(1, 2, tokens, 16)
    assert_masked(q, k, v, keep)
    assert_masked(q, k, v, torch.ones_like(keep))


@pytest.mark.parametrize("scale", [0.05, 1.3, 0.0, -0.7])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scale(isa, scale, dtype):
    # Small enough for the definition in float16: R goes up to 1e6 there.
    for tokens in (35, 42):
        (q, k, v), keep = make(2, 2, tokens, 32, dtype, spread=0.6)
        assert_masked(q, k, v, keep, scale)
        assert_masked(q, k, v, torch.ones_like(keep), scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", [None, torch.int64, torch.int32])
def test_ragged_equals_every_sequence_alone(isa, dtype, index):
    lengths = (0, 5, 0, 16, 1, 129, 33, 2, 0)
    cu_seqlens, tokens = offsets(lengths), sum(lengths)
    q, k, v = packed(tokens if index is None else 300, 3, 32, dtype)
    rows = None if index is None else torch.randint(300, (tokens,)).to(index)
    o, lse = ragged.forward(q, k, v, cu_seqlens, 129, rows, 0.2)
    assert o.shape == (tokens, 3, 32)
    assert o.is_contiguous()
    assert lse.shape == (3, tokens)
    for start, end in itertools.pairwise(cu_seqlens.tolist()):
        if start == end:
            continue
        taken = slice(start, end) if rows is None else rows[start:end].long()
        alone = [x[taken].transpose(0, 1)[None] for x in (q, k, v)]
        actual = o[start:end].transpose(0, 1)[None], lse[None, :, start:end]
        keep = torch.ones(1, end - start, dtype=torch.bool)
        assert_within_budget(actual, *alone, keep, 0.2)


def test_ragged_leaves_the_capacity_beyond_the_last_sequence_alone(isa):
    q, k, v = packed(40, 2, 16)
    for x in (q, k, v):
        x[30:] = math.nan
    rows = torch.arange(40)
    rows[25:] = 10**12
    o, lse = ragged.forward(q, k, v, offsets([20, 5]), 20, rows, 0.25)
    assert o[:25].isfinite().all()
    assert lse[:, :25].isfinite().all()
    assert o[25:].isnan().all()
    assert lse[:, 25:].isnan().all()


def test_a_nan_stays_in_its_sequence_and_its_head(isa):
    lengths = (7, 19, 33)
    q, k, v = packed(sum(lengths), 3, 32)
    clean = ragged.forward(q, k, v, offsets(lengths), 33, None, 0.2)[0]
    k, v = k.clone(), v.clone()
    k[10, 1], v[11, 1] = math.nan, math.inf
    o = ragged.forward(q, k, v, offsets(lengths), 33, None, 0.2)[0]
    touched = torch.zeros_like(o, dtype=torch.bool)
    touched[7:26, 1] = True
    assert torch.equal(o[~touched], clean[~touched])
    assert not o[touched].isfinite().any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "packed", "wide", "columns", "expanded"])
def test_strides_make_no_difference(isa, layout, dtype):
    for dim, all_kept in itertools.product((5, 20, 32), (False, True)):
        (q, k, v), keep = make(2, 3, 33, dim, dtype)
        keep |= all_kept
        if layout == "expanded":
            k, v = k[:, :1].expand(-1, 3, -1, -1), v[:1].expand(2, -1, -1, -1)
        plain = masked.forward(*(x.contiguous() for x in (q, k, v)), keep, 0.3)
        if layout == "contiguous":
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        elif layout == "wide":
            around = torch.full((3, 2, 3, 34, dim + 10), math.nan, dtype=dtype)
            around[:, :, :, :33, 4:-6] = torch.stack([q, k, v])
            q, k, v = around[:, :, :, :33, 4:-6]
        elif layout == "columns":
            q, k, v = (x.transpose(-2, -1).contiguous().transpose(-2, -1) for x in (q, k, v))
        strided = masked.forward(q, k, v, keep, 0.3)
        assert all(torch.equal(a, b) for a, b in zip(plain, strided, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 5, 8, 17, 32])
def test_nothing_is_written_beside_the_rows(isa, dim, dtype):
    for tokens in (3, 16, 35):
        (q, k, v), keep = make(2, 2, tokens, dim, dtype)
        memory = torch.full((2, tokens + 1, 2, dim + 3), math.nan, dtype=dtype)
        o = memory[:, :tokens, :, :dim].transpose(1, 2)
        none = (0, 0, 0, 0)
        build.load().attention_forward(
            *masked._sequences(q, keep, 0.5), *operands.flat(map(operands.images, (q, k, v, o))),
            *none,
        )  # fmt: skip
        assert torch.equal(o, masked.forward(q, k, v, keep, 0.5)[0])
        assert memory[:, tokens:].isnan().all()
        assert memory[..., dim:].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_dropped_leaves_every_token_to_itself(isa, dtype):
    for tokens in (1, 3, 20, 35, 66):
        (q, k, v), keep = make(2, 2, tokens, 48, dtype)
        o, lse = masked.forward(q, k, v, torch.zeros_like(keep), 0.3)
        assert (o - v).abs().max() <= 2 * EPS * v.abs().max()  # half precision: equal
        own = 0.3 * (q.double() * k.double()).sum(-1)
        assert (lse - own).abs().max() <= 8 * EPS * max(1.0, float(own.abs().max()))


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("tokens", [21, 33, 64])
def test_poison_in_a_dropped_token_reaches_no_other_row(isa, poison, tokens):
    (q, k, v), keep = make(1, 2, tokens, 16)
    keep[0, [4, tokens - 1]] = False
    clean = masked.forward(q, k, v, keep, 0.25)
    q, k, v = q.clone(), k.clone(), v.clone()
    for x in (q, k, v):
        x[0, :, 4], x[0, :, -1] = poison, poison
    poisoned = masked.forward(q, k, v, keep, 0.25)
    others = [i for i in range(tokens) if i not in (4, tokens - 1)]
    for a, b in zip(clean, poisoned, strict=True):
        assert torch.equal(a[:, :, others], b[:, :, others])


@pytest.mark.parametrize("lead", [20.0, 100.0, 1000.0])
def test_dropped_key_far_ahead(isa, lead):
    for tokens in (17, 19, 33):
        (q, k, v), keep = make(1, 1, tokens, 16)
        q, k, keep = q.clone(), k.clone(), torch.ones_like(keep)
        q[..., 0], k[..., 0] = 10.0, 0.0
        keep[0, 5] = False
        k[0, 0, 5, 0] = lead / 10.0
        o, _ = assert_masked(q, k, v, keep, 1.0)
        assert o.isfinite().all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logits_of_ten_thousand(isa, sign):
    for tokens in (17, 33, 50):
        (q, k, v), keep = make(1, 2, tokens, 16)
        q, k = q.clone(), k.clone()
        q[..., 0], k[..., 0] = 100.0, sign * 100.0
        # The order of a sum of 16 products decides on the last bits of a logit, worth 1e-3 each.
        o, lse = assert_masked(q, k, v, keep, 1.0, times=2.0)
        assert o.isfinite().all()
        assert lse.isfinite().all()


@pytest.mark.parametrize("gap", [80.0, 87.0, 88.0, 103.0, 1e4, 1e30, math.inf])
def test_weights_that_underflow(isa, gap):
    for tokens in (2, 18, 33):
        q, k = torch.ones(1, 1, tokens, 1), torch.full((1, 1, tokens, 1), -gap)
        k[0, 0, 1] = 0.0
        v = torch.randn(1, 1, tokens, 8)
        o, lse = masked.forward(
            q.expand(-1, -1, -1, 8), k.expand(-1, -1, -1, 8) / 8, v,
            torch.ones(1, tokens, dtype=torch.bool), 1.0,
        )  # fmt: skip
        assert (o - v[:, :, 1:2]).abs().max() <= tokens * math.exp(-gap) * 8 + 4 * EPS
        assert lse.abs().max() <= tokens * math.exp(-gap) + 4 * EPS


def test_weights_are_exact_to_float32(isa):
    # One key leads by x: its weight against the other tells 2^x on its own.
    leads = torch.linspace(-30.0, 0.0, 481)
    q = leads.view(-1, 1, 1, 1).expand(-1, 1, 18, 1).contiguous()
    k, v = torch.zeros(481, 1, 18, 1), torch.zeros(481, 1, 18, 1)
    k[:, :, 7], v[:, :, 7] = 1.0, 1.0
    keep = torch.ones(481, 18, dtype=torch.bool)
    o = masked.forward(q, k, v, keep, 1.0)[0].double()
    weight = leads.double().exp().view(-1, 1, 1, 1).expand(-1, 1, 18, 1)
    exact = weight / (weight + 17.0)
    # Rounding of x log2 e, 2.4e-7 of the exponential, sum, inverse, product.
    allowed = (30.0 * leads.double().abs().clamp(min=1.0) / 30.0 + 6.0) * EPS
    assert ((o - exact).abs() / exact <= allowed.view(-1, 1, 1, 1)).all()


def test_kept_rows_equal_ragged_attention_on_the_kept_tokens(isa):
    (q, k, v), keep = make(3, 2, 70, 32)
    o, lse = masked.forward(q, k, v, keep, 0.2)
    rows = keep.flatten().nonzero().squeeze(1)
    flat = (x.transpose(1, 2).reshape(-1, 2, 32) for x in (q, k, v))
    short, short_lse = ragged.forward(*flat, offsets(keep.sum(1).tolist()), 70, rows, 0.2)
    torch.testing.assert_close(o.transpose(1, 2).reshape(-1, 2, 32)[rows], short)
    torch.testing.assert_close(lse.transpose(0, 1).flatten(1)[:, rows], short_lse)


def test_ragged_lengths_cut_differently(isa):
    # A short sequence may have queries left over where a longer one has none.
    for lengths in itertools.product((16, 20, 33, 35, 48, 49), repeat=2):
        q, k, v = packed(sum(lengths), 1, 8)
        o = ragged.forward(q, k, v, offsets(lengths), 49, None, 0.3)[0]
        exact = reference.ragged_attention(
            q.double(), k.double(), v.double(), offsets(lengths), scale=0.3
        )
        assert (o - exact).abs().max() <= 64 * EPS + 4 * torch.finfo(o.dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 600, 64), (1, 2, 257, 32), (3, 3, 65, 16), (9, 5, 17, 8)])
def test_bits_do_not_depend_on_the_number_of_threads(isa, shape, dtype, threads):
    (q, k, v), keep = make(*shape, dtype)
    results = []
    for count in (1, 2, 3, 8, 1):
        torch.set_num_threads(count)
        dense = masked.forward(q, k, v, torch.ones_like(keep), 0.2)
        results.append((*masked.forward(q, k, v, keep, 0.2), *dense))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_ragged_bits_do_not_depend_on_the_number_of_threads(isa, threads):
    lengths = (300, 0, 5, 129, 64)
    q, k, v = packed(sum(lengths), 1, 32)
    results = []
    for count in (1, 2, 8):
        torch.set_num_threads(count)
        results.append(ragged.forward(q, k, v, offsets(lengths), 300, None, 0.2))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_large_batches_fetched_ahead(isa):
    (q, k, v), keep = make(24, 6, 129, 40)
    for mask in (keep, torch.ones_like(keep)):
        o, lse = masked.forward(q, k, v, mask, 0.2)
        for image in (0, 11, 23):
            one = slice(image, image + 1)
            alone = masked.forward(q[one], k[one], v[one], mask[one], 0.2)
            assert torch.equal(o[one], alone[0])
            assert torch.equal(lse[one], alone[1])


@pytest.mark.skipif(not HAS_PAIRS, reason="this processor does not multiply pairs of bfloat16")
def test_pairs_are_multiplied_where_they_can_be(monkeypatch):
    def both(q, k, v):
        results = []
        for wanted in "01":
            monkeypatch.setenv("SPARSE_VIT_CPU_PAIRS", wanted)
            results.append(masked.forward(q, k, v, torch.ones(1, 33, dtype=torch.bool), 0.2)[0])
        return results

    monkeypatch.setenv("SPARSE_VIT_CPU_ISA", "avx512")
    (q, k, v), _ = make(1, 2, 33, 32, torch.bfloat16)
    assert not torch.equal(*both(q, k, v))
    assert torch.equal(*both(q[..., :31], k[..., :31], v[..., :31]))
    odd = torch.randn(1, 2, 33, 33).bfloat16()[..., :32]
    assert torch.equal(*both(odd, k, v))
    assert torch.equal(*both(q, odd, v))
    assert not torch.equal(*both(q, k, odd))
    assert torch.equal(*both(q.half(), k.half(), v.half()))


def test_public_functions_serve_by_default_and_without_gradient():
    (q, k, v), keep = make(2, 3, 33, 32)
    with torch.no_grad():
        o = masked_attention(q, k, v, torch.ones_like(keep))
        torch.testing.assert_close(o, F.scaled_dot_product_attention(q, k, v))
        assert torch.equal(o, masked_attention(q, k, v, torch.ones_like(keep), impl="cpu"))
        assert o.transpose(1, 2).is_contiguous()
        x = packed(50, 2, 16)
        o = ragged_attention(*x, offsets([20, 30]), 30)
        assert torch.equal(o, ragged_attention(*x, offsets([20, 30]), 30, impl="cpu"))


@pytest.mark.parametrize("shape", [(0, 2, 5, 16), (2, 2, 0, 16), (2, 0, 5, 16)])
def test_empty(shape):
    x = torch.empty(shape)
    keep = torch.ones(shape[0], shape[2], dtype=torch.bool)
    assert masked.forward(x, x, x, keep, 0.25)[0].shape == shape
    assert masked_attention(x, x, x, keep, impl="cpu").shape == shape


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)])
def test_ragged_empty(lengths):
    x = torch.empty(0, 2, 16)
    assert ragged.forward(x, x, x, offsets(lengths), 4, None, 0.25)[0].shape == (0, 2, 16)
    assert ragged_attention(x, x, x, offsets(lengths), 4, impl="cpu").shape == (0, 2, 16)


def test_float64_goes_elsewhere():
    (q, k, v), keep = make(1, 1, 5, 8, torch.float64)
    with pytest.raises(RuntimeError, match=r"torch\.float64.*float32, bfloat16"):
        masked_attention(q, k, v, keep, impl="cpu")
    assert masked_attention(q, k, v, keep).dtype == torch.float64


def test_an_unknown_instruction_set_raises(monkeypatch):
    monkeypatch.setenv("SPARSE_VIT_CPU_ISA", "mmx")
    (q, k, v), keep = make(1, 1, 5, 8)
    with pytest.raises(RuntimeError, match="mmx is unknown; choose avx512, avx2 or generic"):
        masked.forward(q, k, v, keep, 0.25)
