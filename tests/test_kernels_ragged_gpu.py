"""The compiled Triton kernels of ragged attention on a CUDA or ROCm device."""

import math

import pytest
import torch
import torch.nn.functional as F

from kernels import _backend, _launch, masked_attention, ragged_attention, reference
from kernels.ragged_attention import served_by

pytestmark = pytest.mark.gpu

NAMES = ("o", "dq", "dk", "dv")
ONE_PASS = "ragged_attention_one_pass.grad_kernel"


@pytest.fixture(autouse=True)
def _device() -> None:
    assert torch.cuda.is_available(), "these tests need a CUDA or ROCm device: deselect `-m gpu`"
    assert not _backend.interprets(), "these tests run compiled kernels: unset TRITON_INTERPRET"


def make(lengths, heads, dim, dtype, gathered=False):
    tokens = sum(lengths)
    total = tokens + tokens // 2 + 1 if gathered else tokens
    qkv = torch.randn(total, 3, heads, dim, device="cuda").to(dtype)
    rows = torch.randperm(total, device="cuda")[:tokens] if gathered else None
    grad = torch.randn(tokens, heads, dim, device="cuda").to(dtype)
    cu_seqlens = F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).int().cuda()
    return qkv.unbind(1), cu_seqlens, rows, grad


def run(inputs, cu_seqlens, longest, rows, grad):
    inputs = [x.detach().requires_grad_() for x in inputs]
    o = ragged_attention(*inputs, cu_seqlens, longest, rows=rows, impl="triton")
    return o.detach(), *torch.autograd.grad(o, inputs, grad)


def define(inputs, cu_seqlens, rows, grad, dtype):
    inputs = [x.detach().to(dtype).requires_grad_() for x in inputs]
    o = reference.ragged_attention(*inputs, cu_seqlens, rows=rows)
    return o.detach(), *torch.autograd.grad(o, inputs, grad.to(dtype))


def assert_within_budget(actual, inputs, cu_seqlens, rows, grad):
    """Allow what the definition loses in that dtype, and the rounding of float32 sums."""
    dtype = grad.dtype
    exact = define(inputs, cu_seqlens, rows, grad, torch.float64)
    eager = define(inputs, cu_seqlens, rows, grad, dtype)
    terms = grad.double().abs().sum(-1).max() * inputs[2].double().abs().max()
    sums = math.sqrt(int(cu_seqlens.diff().max())) * torch.finfo(torch.float32).eps
    slack = sums + torch.finfo(dtype).eps
    for name, a, e, x in zip(NAMES, actual, eager, exact, strict=True):
        size = x.abs().max() if name == "o" else torch.maximum(x.abs().max(), terms)
        for measure in (torch.max, torch.mean):
            error, allowed = measure((a - x).abs()), measure((e - x).abs()) + slack * size
            assert error <= allowed, f"{name}: {measure.__name__} error {error:.2e} > {allowed:.2e}"


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("dim", [16, 32, 48, 64, 80, 128])
@pytest.mark.parametrize(
    "lengths",
    [
        [1, 0, 16, 15],
        [17, 33, 32, 1, 0],
        [64, 45, 3],
        [65, 80, 0, 64, 7],
        [129, 128, 97, 144],
        [197, 193, 1, 64, 225],
        [600, 577, 33],
    ],
    ids=lambda lengths: f"max{max(lengths)}",
)
def test_compiled_kernels_equal_float64(lengths, dim, dtype, gathered):
    inputs, cu_seqlens, rows, grad = make(lengths, 3, dim, dtype, gathered)
    for longest in (max(lengths), max(lengths) + 70):
        actual = run(inputs, cu_seqlens, longest, rows, grad)
        assert_within_budget(actual, inputs, cu_seqlens, rows, grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_every_candidate_computes_the_same(dtype):
    inputs, cu_seqlens, rows, grad = make([65, 17, 0, 48, 80], 2, 64, dtype, gathered=True)
    arch = _launch.architecture(grad.device)
    problem = _launch.Problem(80, 64, dtype.itemsize, arch)
    for name in _launch.KERNELS:
        if not name.startswith("ragged_attention"):
            continue
        other = {} if name == ONE_PASS or "two_pass" not in name else {ONE_PASS: None}
        for config in _launch.KERNELS[name].candidates(problem):
            if config is None:
                continue
            with _launch.override({name: config} | other):
                try:
                    actual = run(inputs, cu_seqlens, 80, rows, grad)
                except Exception as error:
                    if type(error).__name__ != "OutOfResources":
                        raise
                    continue
            assert_within_budget(actual, inputs, cu_seqlens, rows, grad)


def test_triton_is_the_default():
    inputs, cu_seqlens, _, _ = make([33, 20], 2, 64, torch.bfloat16)
    assert served_by(None, *inputs) == "triton"
    default = ragged_attention(*inputs, cu_seqlens, 33)
    assert torch.equal(default, ragged_attention(*inputs, cu_seqlens, 33, impl="triton"))


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
def test_what_triton_cannot_serve_goes_to_the_reference_unread(gathered):
    inputs, cu_seqlens, rows, grad = make([33, 0, 20], 2, 16, torch.float64, gathered)
    assert served_by(None, *inputs) == "reference"
    inputs = [x.detach().requires_grad_() for x in inputs]
    torch.cuda.set_sync_debug_mode("error")
    try:
        o = ragged_attention(*inputs, cu_seqlens, 40, rows=rows)
        grads = torch.autograd.grad(o, inputs, grad)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    exact = define(inputs, cu_seqlens, rows, grad, torch.float64)
    for a, b in zip((o, *grads), exact, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize("longest", [40, 129, 200])
def test_ten_runs_are_bitwise_equal_and_wait_for_nothing(longest, gathered):
    lengths = [longest, 7, 0, longest // 2, longest - 1] * 8
    inputs, cu_seqlens, rows, grad = make(lengths, 6, 64, torch.bfloat16, gathered)
    problem = (inputs, cu_seqlens, longest, rows, grad)
    first = run(*problem)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = [run(*problem) for _ in range(9)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for results in again:
        assert all(torch.equal(a, b) for a, b in zip(first, results, strict=True))


@pytest.mark.parametrize("longest", [64, 129, 200])
def test_a_captured_graph_serves_other_lengths_and_rows(longest):
    """Capacity 3 * longest: the lengths change between replays, and with them the tail."""
    tokens = 3 * longest
    qkv = torch.randn(2 * tokens, 3, 4, 64, device="cuda").bfloat16().requires_grad_()
    grad = torch.randn(tokens, 4, 64, device="cuda").bfloat16()
    rows = torch.randperm(2 * tokens, device="cuda")[:tokens]
    cu_seqlens = torch.tensor([0, longest, longest + 1, 2 * longest], device="cuda").int()

    def step():
        o = ragged_attention(*qkv.unbind(1), cu_seqlens, longest, rows=rows, impl="triton")
        return o, *torch.autograd.grad(o, qkv, grad)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for lengths in ([1, 0, longest], [longest, longest, longest], [0, 17, 33], [0, 0, 0]):
        cu_seqlens.copy_(F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).int())
        rows.copy_(torch.randperm(2 * tokens, device="cuda")[:tokens])
        graph.replay()
        torch.cuda.synchronize()
        end = sum(lengths)
        expected = step()
        assert torch.equal(captured[0][:end], expected[0][:end])
        assert torch.equal(captured[1], expected[1])


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize("longest", [64, 200])
def test_tokens_beyond_the_last_sequence_get_no_gradient(longest, gathered):
    inputs, cu_seqlens, rows, grad = make([longest, 3, 9, 700], 2, 64, torch.float16, gathered)
    cu_seqlens, end = cu_seqlens[:-1], longest + 12
    if rows is not None:
        used = rows[:end].clone()
        rows[end:] = 2**40
    grad[end:] = math.nan
    _, *grads = run(inputs, cu_seqlens, longest, rows, grad)
    for x in grads:
        x[: end if rows is None else 0] = 0.0
        if rows is not None:
            x[used] = 0.0
        assert torch.equal(x, torch.zeros_like(x))


@pytest.mark.parametrize("tokens", [33, 129, 197])
def test_kept_rows_of_masked_attention_equal_attention_over_the_kept_tokens(tokens):
    qkv = torch.randn(4, tokens, 3, 6, 64, device="cuda").bfloat16()
    keep = (torch.rand(4, tokens, device="cuda") > 0.4).float()
    keep[:, 0] = 1.0
    indices, cu_seqlens = reference.pack(keep > 0.5)
    q, k, v = qkv.unbind(2)
    flat = [x.flatten(0, 1) for x in (q, k, v)]
    ragged = ragged_attention(*flat, cu_seqlens, tokens, rows=indices, impl="triton")
    masked = masked_attention(*(x.transpose(1, 2) for x in (q, k, v)), keep, impl="triton")
    masked = masked.transpose(1, 2).flatten(0, 1)[indices]
    exact = reference.ragged_attention(*(x.double() for x in flat), cu_seqlens, rows=indices)
    eps = torch.finfo(torch.bfloat16).eps
    for o in (ragged, masked):
        assert (o - exact).abs().max() <= 2 * eps * qkv.abs().max()


def test_compiles_without_graph_breaks():
    inputs, cu_seqlens, rows, grad = make([65, 0, 20], 3, 64, torch.bfloat16, gathered=True)

    def step(function):
        leaves = [x.detach().requires_grad_() for x in inputs]
        o = function(*leaves, cu_seqlens, 65, rows=rows)
        return o, *torch.autograd.grad(o, leaves, grad)

    compiled = torch.compile(ragged_attention, fullgraph=True)
    for a, b in zip(step(ragged_attention), step(compiled), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bounds", [[0, 3], [0, 2, 3]], ids=str)
def test_offsets_beyond_32_bits(bounds):
    base = torch.empty(2**31 + 4096, dtype=torch.float16, device="cuda")
    q = base.as_strided((3, 2, 64), (2**30, 64, 1))
    q.copy_(torch.randn(3, 2, 64))
    cu_seqlens = torch.tensor(bounds, device="cuda").int()
    near = q.clone(memory_format=torch.contiguous_format)
    for rows in (None, torch.tensor([2, 0, 1], device="cuda")):
        distant = ragged_attention(q, q, q, cu_seqlens, 3, rows=rows, impl="triton")
        close = ragged_attention(near, near, near, cu_seqlens, 3, rows=rows, impl="triton")
        assert torch.equal(distant, close)
