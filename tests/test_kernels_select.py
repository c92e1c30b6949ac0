"""Token selection by every implementation against sorting in plain Python."""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import TokenSelection, reference, select_tokens
from kernels._launch import rows as launch
from kernels.token_select import served_by

IMPLEMENTATIONS = ("reference", "triton", "cpu")
INF, NAN = float("inf"), float("nan")


@pytest.fixture(scope="module", autouse=True)
def _interpreter() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1", (
        "these tests run Triton kernels on the CPU: use `make test`, or set TRITON_INTERPRET=1 "
        "before Python starts"
    )


@pytest.fixture
def poison(monkeypatch):
    """Fill new memory with what no result holds."""
    new_empty = torch.Tensor.new_empty

    def poisoned(self, *size, **kwargs):
        fresh = new_empty(self, *size, **kwargs)
        return fresh.fill_(True if fresh.dtype == torch.bool else -77)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)


def ranked(row):
    """Indices from the best to the worst; ties to the lower index, NaN as -inf."""
    values = [-INF if s != s else s for s in row]
    return sorted(range(len(row)), key=lambda i: (-values[i], i))


def reached(row, threshold, min_keep, max_keep):
    count = sum((-INF if s != s else s) >= threshold for s in row)
    return ranked(row)[: min(max(count, min_keep), max_keep)]


def expected(scores, keep_of_row, prefix=0, capacity=None):
    images, length = scores.shape[0], prefix + scores.shape[1]
    mask = torch.zeros(images, length, dtype=torch.bool)
    mask[:, :prefix] = True
    for b in range(images):
        mask[b, [prefix + i for i in keep_of_row([float(s) for s in scores[b]])]] = True
    flat = mask.flatten().tolist()
    rows = [r for r, kept in enumerate(flat) if kept]
    if capacity is not None:
        rows = (rows + [r for r, kept in enumerate(flat) if not kept])[:capacity]
    lengths = [0]
    for b in range(images):
        lengths.append(lengths[-1] + int(mask[b].sum()))
    return TokenSelection(
        mask, torch.tensor(rows, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int32)
    )


def assert_same(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        assert a.is_contiguous()
        assert torch.equal(a, e)


def hard_scores(images, tokens, dtype, seed=0):
    """Scores full of ties, with both zeros, both infinities and NaN, not adjacent in memory."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(tokens, images, generator=generator).mul_(2).round_().div_(2).to(dtype)
    special = torch.tensor([NAN, -INF, INF, -0.0, 0.0]).to(dtype)
    places = torch.randint(0, tokens * images, (tokens * images // 4,), generator=generator)
    scores.view(-1)[places] = special[torch.arange(len(places)) % 5]
    return scores.t()


values = st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-45, NAN, -INF, INF])
batches = st.lists(st.lists(values, min_size=5, max_size=5), min_size=1, max_size=3)
thresholds = st.sampled_from([0.0, 1.0, -INF, INF, NAN, 0.5])
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(batches, st.integers(1, 5), st.integers(0, 2), dtypes)
def test_top_k_equals_python(impl, values, k, prefix, dtype):
    scores = torch.tensor(values).to(dtype)
    selection = select_tokens(scores, k, prefix=prefix, impl=impl)
    assert_same(selection, expected(scores, lambda row: ranked(row)[:k], prefix))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(batches, thresholds, st.integers(1, 5), st.integers(0, 4), st.integers(0, 2), st.booleans())
def test_threshold_equals_python(impl, values, threshold, min_keep, more, prefix, padded):
    scores, max_keep = torch.tensor(values), min(min_keep + more, 5)
    selection = select_tokens(
        scores,
        threshold=threshold,
        min_keep=min_keep,
        max_keep=max_keep,
        prefix=prefix,
        padded=padded,
        impl=impl,
    )
    capacity = len(values) * (prefix + max_keep) if padded else None
    assert_same(
        selection,
        expected(scores, lambda row: reached(row, threshold, min_keep, max_keep), prefix, capacity),
    )


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("tokens", [1, 15, 128, 600, 1000])
def test_every_length_and_dtype(tokens, dtype, impl):
    scores = hard_scores(2, tokens, dtype)
    for k in {1, tokens // 3 or 1, tokens}:
        want = expected(scores, lambda row, k=k: ranked(row)[:k], 1)
        assert_same(select_tokens(scores, k, prefix=1, impl=impl), want)
    least, most = min(2, tokens), max(tokens // 2, min(2, tokens))
    want = expected(scores, lambda row: reached(row, 0.5, least, most), 5, 2 * (5 + most))
    got = select_tokens(
        scores, threshold=0.5, min_keep=least, max_keep=most, prefix=5, padded=True, impl=impl
    )
    assert_same(got, want)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("limit", [0, 1 << 17], ids=["two launches", "one launch"])
def test_many_images_by_threshold(monkeypatch, limit):
    monkeypatch.setattr(launch, "ONE_LAUNCH_SCORES", limit)
    scores = hard_scores(70, 18, torch.float32)
    want = expected(scores, lambda row: reached(row, 0.5, 5, 8), 1)
    got = select_tokens(scores, threshold=0.5, min_keep=5, max_keep=8, prefix=1, impl="triton")
    assert_same(got, want)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_neighbouring_floats_are_told_apart(dtype, impl):
    whole = torch.int32 if dtype == torch.float32 else torch.int16
    one = torch.ones((), dtype=dtype).view(whole)
    # Triton's interpreter does not read the subnormal numbers of bfloat16.
    low = 0x0400 if dtype == torch.bfloat16 else 17
    for centre in (one, torch.tensor(low, dtype=whole)):
        row = (centre + torch.arange(-16, 16, dtype=whole)).view(dtype)
        scores = torch.stack([row, -row])
        for k in (1, 15, 31):
            want = expected(scores, lambda row, k=k: ranked(row)[:k])
            assert_same(select_tokens(scores, k, impl=impl), want)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_a_threshold_is_rounded_to_the_scores(impl):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for threshold in (0.1, 0.3, 0.7):
            scores = torch.full((1, 3), threshold).to(dtype)
            kept = select_tokens(scores, threshold=threshold, impl=impl)
            assert kept.mask.all()


def test_float64_goes_to_the_reference():
    scores = torch.tensor([[1.0, 1.0 + 1e-12, 1.0]], dtype=torch.float64)
    assert select_tokens(scores, 1).indices.tolist() == [1]
    assert served_by(None, scores) == "reference"
    with pytest.raises(RuntimeError, match=r"dtype is torch\.float64"):
        select_tokens(scores, 1, impl="triton")
    with pytest.raises(RuntimeError, match="there are 5000 scores and 0 prefix tokens"):
        select_tokens(torch.zeros(1, 5000), 1, impl="triton")


def test_the_definition():
    scores = hard_scores(4, 33, torch.float32)
    top = expected(scores, lambda row: ranked(row)[:7])
    assert torch.equal(reference.select_top_k(scores, 7), top.mask)
    some = expected(scores, lambda row: reached(row, 0.5, 2, 9))
    mask = reference.select_threshold(scores, 0.5, 2, 9)
    assert torch.equal(mask, some.mask)
    for actual, want in zip(reference.pack(mask), some[1:], strict=True):
        assert torch.equal(actual, want)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("rule", [{"k": 2}, {"threshold": 0.0}, {"threshold": 0.0, "padded": True}])
def test_no_images(impl, rule):
    selection = select_tokens(torch.empty(0, 4), **rule, prefix=1, impl=impl)
    assert_same(
        selection,
        (
            torch.empty(0, 5, dtype=torch.bool),
            torch.empty(0, dtype=torch.int64),
            torch.zeros(1, dtype=torch.int32),
        ),
    )


def test_ten_runs_are_equal():
    scores = hard_scores(3, 40, torch.float32)
    first = select_tokens(scores, threshold=0.0, padded=True, impl="triton")
    for _ in range(9):
        assert_same(select_tokens(scores, threshold=0.0, padded=True, impl="triton"), first)


def test_scores_get_no_gradient():
    scores = torch.randn(2, 4, requires_grad=True)
    assert not any(x.requires_grad for x in select_tokens(scores, 2))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "either k or threshold"),
        ({"k": 2, "threshold": 0.5}, "either k or threshold"),
        ({"k": 0}, "k=0 is outside 1..4"),
        ({"k": 5}, "k=5 is outside 1..4"),
        ({"threshold": 0.5, "min_keep": 5}, "min_keep=5 is outside 1..4"),
        ({"threshold": 0.5, "min_keep": 2, "max_keep": 1}, "max_keep=1 is outside 2..4"),
        ({"threshold": 0.5, "max_keep": 5}, "max_keep=5 is outside 1..4"),
        ({"k": 2.5}, "k must be an int known on the host, got float"),
        ({"k": True}, "k must be an int known on the host, got bool"),
        ({"k": 2, "prefix": 1.0}, "prefix must be an int known on the host, got float"),
        ({"k": 2, "prefix": -1}, "prefix must be 0 or more, got -1"),
        ({"k": 2, "impl": "cuda"}, "impl='cuda' does not exist"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        select_tokens(torch.zeros(2, 4), **kwargs)


def test_counts_may_be_numpy_integers():
    scores = torch.randn(2, 4)
    for a, b in zip(select_tokens(scores, np.int64(2)), select_tokens(scores, 2), strict=True):
        assert torch.equal(a, b)


def test_bad_scores_are_named():
    with pytest.raises(ValueError, match=r"\(B, N\), got shape \(4,\)"):
        select_tokens(torch.zeros(4), 1)
    with pytest.raises(ValueError, match=r"floating point, got torch.int64"):
        select_tokens(torch.zeros(1, 4, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="overflow the int32 cu_seqlens"):
        select_tokens(torch.empty(1, device="meta").expand(2**20, 2**11), 1)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    "rule", [(0.0, 2, 2, 1, True), (0.0, 1, 4, 1, True), (0.0, 1, 5, 0, False)]
)
def test_opcheck(rule, impl):
    operator = torch.ops.sparse_vit_kernels.select_tokens.default
    torch.library.opcheck(operator, (torch.randn(2, 5), *rule, impl))


@pytest.mark.parametrize("rule", [{"k": 3}, {"threshold": 0.0, "max_keep": 4, "padded": True}])
def test_compiles_without_graph_breaks(rule):
    torch.compiler.reset()
    scores = torch.randn(2, 6)

    def select(scores):
        return select_tokens(scores, prefix=1, **rule)

    compiled = torch.compile(select, fullgraph=True, backend="aot_eager")
    assert_same(compiled(scores), select(scores))
