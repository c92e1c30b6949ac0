"""Token selection against sorting in plain Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import TokenSelection, select_tokens


def expected_selection(scores, keep_of_row) -> TokenSelection:
    images, tokens = scores.shape
    mask = torch.zeros(images, tokens, dtype=torch.bool)
    indices, lengths = [], [0]
    for b in range(images):
        kept = sorted(keep_of_row([float(s) for s in scores[b]]))
        mask[b, kept] = True
        indices += [b * tokens + i for i in kept]
        lengths.append(lengths[-1] + len(kept))
    return TokenSelection(
        mask, torch.tensor(indices, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int32)
    )


def ranked(row):
    """Indices from the best to the worst; ties to the lower index, NaN last with -inf."""
    values = [float("-inf") if s != s else s for s in row]
    return sorted(range(len(row)), key=lambda i: (-values[i], i))


def assert_same(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        assert torch.equal(a, e)


rows = st.lists(
    st.sampled_from([0.0, 1.0, -2.5, float("nan"), float("-inf")]), min_size=5, max_size=5
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(rows, min_size=1, max_size=3), st.integers(1, 5))
def test_top_k_equals_python(values, k):
    scores = torch.tensor(values)
    selection = select_tokens(scores, k)
    assert_same(selection, expected_selection(scores, lambda row: ranked(row)[:k]))
    assert selection.indices.view(len(values), k).shape == (len(values), k)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(rows, min_size=1, max_size=3), st.integers(1, 5))
def test_threshold_equals_python(values, min_keep):
    scores = torch.tensor(values)

    def keep(row):
        return {i for i, s in enumerate(row) if s >= 0.0} | set(ranked(row)[:min_keep])

    selection = select_tokens(scores, threshold=0.0, min_keep=min_keep)
    assert_same(selection, expected_selection(scores, keep))


def test_no_images():
    selection = select_tokens(torch.empty(0, 4), 2)
    assert_same(
        selection,
        (
            torch.empty(0, 4, dtype=torch.bool),
            torch.empty(0, dtype=torch.int64),
            torch.zeros(1, dtype=torch.int32),
        ),
    )


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
    ],
)
def test_bad_counts_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        select_tokens(torch.zeros(2, 4), **kwargs)


def test_bad_scores_are_named():
    with pytest.raises(ValueError, match=r"\(B, N\), got shape \(4,\)"):
        select_tokens(torch.zeros(4), 1)
    with pytest.raises(ValueError, match=r"floating point, got torch.int64"):
        select_tokens(torch.zeros(1, 4, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="overflow the int32 cu_seqlens"):
        select_tokens(torch.empty(1, device="meta").expand(2**20, 2**11), 1)


@pytest.mark.parametrize("case", [("top_k", 2), ("threshold", 0.0, 1)])
def test_opcheck(case):
    operator = getattr(torch.ops.sparse_vit_kernels, f"select_{case[0]}").default
    torch.library.opcheck(operator, (torch.randn(2, 5), *case[1:]))


def test_compiles_without_graph_breaks():
    scores = torch.randn(2, 6)
    compiled = torch.compile(lambda s: select_tokens(s, 3), fullgraph=True, backend="aot_eager")
    assert_same(compiled(scores), select_tokens(scores, 3))
