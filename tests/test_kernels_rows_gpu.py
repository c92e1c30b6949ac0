"""Selection, gathering and LayerNorm: the compiled Triton kernels on a CUDA or ROCm device."""

import pytest
import torch

from kernels import (
    _backend,
    gather_layer_norm,
    gather_rows,
    ragged_attention,
    reference,
    scatter_rows,
    select_tokens,
)
from kernels._launch import rows as launch
from kernels.gather import served_by

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _device() -> None:
    assert torch.cuda.is_available(), "these tests need a CUDA or ROCm device: deselect `-m gpu`"
    assert not _backend.interprets(), "these tests run compiled kernels: unset TRITON_INTERPRET"


def hard_scores(images, tokens, dtype):
    scores = torch.randn(images, tokens, device="cuda").mul_(2).round_().div_(2)
    special = torch.tensor([float("nan"), float("-inf"), float("inf"), -0.0, 0.0], device="cuda")
    places = torch.randint(0, tokens * images, (tokens * images // 4,), device="cuda")
    scores.view(-1)[places] = special[torch.arange(len(places), device="cuda") % 5]
    return scores.to(dtype)


def assert_same(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        assert torch.equal(a, e)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("tokens", [1, 17, 128, 196, 576, 1000, 2048])
def test_selection_equals_plain_torch(tokens, dtype):
    scores = hard_scores(7, tokens, dtype)
    for k in {1, tokens // 2 or 1, tokens}:
        for prefix in (0, 1, 5):
            expected = select_tokens(scores, k, prefix=prefix, impl="reference")
            assert_same(select_tokens(scores, k, prefix=prefix, impl="triton"), expected)
    for threshold in (0.0, 0.3, float("-inf"), float("inf"), float("nan")):
        for padded in (False, True):
            rule = {"threshold": threshold, "max_keep": max(1, tokens // 2), "prefix": 1}
            expected = select_tokens(scores, **rule, padded=padded, impl="reference")
            assert_same(select_tokens(scores, **rule, padded=padded, impl="triton"), expected)


@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["two launches", "one launch"])
def test_many_images_by_threshold(monkeypatch, limit):
    monkeypatch.setattr(launch, "ONE_LAUNCH_SCORES", limit)
    scores = hard_scores(1500, 128, torch.float32)
    expected = select_tokens(scores, threshold=0.5, prefix=1, impl="reference")
    assert_same(select_tokens(scores, threshold=0.5, prefix=1, impl="triton"), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [3, 100, 192, 384, 768, 1024])
def test_rows_equal_the_definition(channels, dtype):
    x = torch.randn(900, 2 * channels, device="cuda").to(dtype)[:, ::2]
    repeated = torch.randint(0, 900, (700,), device="cuda")
    assert torch.equal(gather_rows(x, repeated), reference.gather_rows(x, repeated))
    distinct = torch.randperm(950, device="cuda")[:900]
    back = scatter_rows(x, distinct, 950, -1.5)
    assert torch.equal(back, reference.scatter_rows(x, distinct, 950, -1.5))
    x.requires_grad_()
    grad = torch.randn(700, channels, device="cuda").to(dtype)
    first = torch.autograd.grad(gather_rows(x, repeated), x, grad)[0]
    exact = torch.zeros(900, channels, dtype=torch.float64, device="cuda")
    exact.index_add_(0, repeated, grad.double())
    assert (first - exact).abs().max() <= 2 * torch.finfo(dtype).eps * exact.abs().max()
    for _ in range(9):
        again = torch.autograd.grad(gather_rows(x, repeated), x, grad)[0]
        assert torch.equal(again, first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("channels", [3, 100, 192, 384, 768, 1024, 4096])
def test_layer_norm_equals_float64(channels, dtype):
    x = (torch.randn(600, channels, device="cuda") + 0.5).to(dtype)
    weight, bias = torch.randn(2, channels, device="cuda")
    indices = torch.randperm(600, device="cuda")[:333]
    grads = [torch.randn(333, channels, device="cuda").to(dtype) for _ in range(2)]

    def run(function, to):
        inputs = [t.detach().to(to or t.dtype).requires_grad_() for t in (x, weight, bias)]
        outputs = function(inputs[0], indices, *inputs[1:])
        found = torch.autograd.grad(outputs, inputs, [g.to(outputs[0].dtype) for g in grads])
        return *(o.detach() for o in outputs), *found

    actual = run(gather_layer_norm, None)
    exact = run(reference.gather_layer_norm, torch.float64)
    eager = run(reference.gather_layer_norm, dtype)
    scale = grads[1].abs().max() * weight.abs().max() * exact[1].abs().max()
    for a, e, wanted in zip(actual, eager, exact, strict=True):
        size = torch.maximum(wanted.abs().max(), scale)
        sums = max(channels, 333) ** 0.5 * torch.finfo(torch.float32).eps
        slack = (sums + torch.finfo(a.dtype).eps) * size
        for measure in (torch.max, torch.mean):
            assert measure((a - wanted).abs()) <= measure((e - wanted).abs()) + slack
    again = run(gather_layer_norm, None)
    assert all(torch.equal(a, b) for a, b in zip(actual, again, strict=True))


def test_triton_is_the_default():
    x = torch.zeros(2, 8, device="cuda")
    for operator in ("gather_rows", "gather_rows_grad", "scatter_rows", "gather_layer_norm"):
        assert served_by(None, operator, x) == "triton"


def test_an_adaptive_stage_is_captured_in_a_cuda_graph():
    images, tokens, heads, dim = 5, 64, 2, 32
    scores = torch.randn(images, tokens, device="cuda")
    x = torch.randn(images * (1 + tokens), heads * dim, device="cuda")

    def stage():
        kept = select_tokens(scores, threshold=0.0, max_keep=48, prefix=1, padded=True)
        rows, normed = gather_layer_norm(x, kept.indices)
        packed = normed.view(-1, heads, dim)
        return kept, rows, ragged_attention(packed, packed, packed, kept.cu_seqlens, 49)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            stage()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept, rows, mixed = stage()
    for _ in range(2):
        scores.copy_(torch.randn_like(scores))
        graph.replay()
        torch.cuda.synchronize()
        again, again_rows, again_mixed = stage()
        assert_same(kept, again)
        assert torch.equal(rows, again_rows)
        total = int(kept.cu_seqlens[-1])
        assert torch.equal(mixed[:total], again_mixed[:total])


def test_compiles_without_graph_breaks():
    scores = torch.randn(3, 64, device="cuda")
    x = torch.randn(3 * 65, 96, device="cuda")
    weight = torch.randn(96, device="cuda")

    def stage(scores, x, weight):
        kept = select_tokens(scores, 40, prefix=1)
        rows, normed = gather_layer_norm(x, kept.indices, weight)
        return scatter_rows(rows + normed, kept.indices, len(x))

    compiled = torch.compile(stage, fullgraph=True)
    grads = []
    for function in (stage, compiled):
        leaf = x.clone().requires_grad_()
        out = function(scores, leaf, weight)
        out.square().sum().backward()
        grads.append((out.detach(), leaf.grad))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_offsets_beyond_32_bits():
    base = torch.empty(2**31 + 4096, dtype=torch.float16, device="cuda")
    x = base.as_strided((3, 64), (2**30, 1))
    x.copy_(torch.randn(3, 64))
    indices = torch.tensor([2, 0], device="cuda")
    assert torch.equal(gather_rows(x, indices), x[[2, 0]])
    assert torch.equal(gather_layer_norm(x, indices)[0], x[[2, 0]])
    assert torch.equal(scatter_rows(x, indices.new_tensor([2, 0, 1]), 3), x[[1, 2, 0]])
