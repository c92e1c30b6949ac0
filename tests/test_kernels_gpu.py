"""The compiled Triton kernels on a CUDA or ROCm device."""

import math

import pytest
import torch

from kernels import _backend, _launch, masked_attention, reference
from kernels._launch import LaunchConfig
from kernels.masked_attention import served_by

pytestmark = pytest.mark.gpu

NAMES = ("o", "dq", "dk", "dv", "dkeep")


@pytest.fixture(autouse=True)
def _device() -> None:
    assert torch.cuda.is_available(), "these tests need a CUDA or ROCm device: deselect `-m gpu`"
    assert not _backend.interprets(), "these tests run compiled kernels: unset TRITON_INTERPRET"


def make(batch, heads, tokens, dim, dtype):
    qkv = torch.randn(batch, tokens, 3, heads, dim, device="cuda").to(dtype)
    keep = (torch.rand(batch, tokens, device="cuda") > 0.4).float()
    keep[:, 0] = 1.0
    grad = torch.randn(batch, heads, tokens, dim, device="cuda").to(dtype)
    return (*qkv.permute(2, 0, 3, 1, 4), keep), grad


def run(function, inputs, grad, dtype=None, **kwargs):
    inputs = [(x if dtype is None else x.to(dtype)).detach().requires_grad_() for x in inputs]
    o = function(*inputs, **kwargs)
    return o.detach(), *torch.autograd.grad(o, inputs, grad.to(o.dtype))


def assert_within_budget(actual, inputs, grad, dtype):
    """Compare with float64; see test_kernels_masked_attention for the rule."""
    exact = run(reference.masked_attention, inputs, grad, torch.float64)
    eager = run(reference.masked_attention, inputs, grad, dtype)
    terms = (grad.double() @ inputs[2].double().transpose(-2, -1)).abs().max()
    slack = math.sqrt(inputs[0].shape[2]) * torch.finfo(torch.float32).eps + torch.finfo(dtype).eps
    for name, a, e, x in zip(NAMES, actual, eager, exact, strict=True):
        size = x.abs().max() if name == "o" else torch.maximum(x.abs().max(), terms)
        for measure in (torch.max, torch.mean):
            error, allowed = measure((a - x).abs()), measure((e - x).abs()) + slack * size
            assert error <= allowed, f"{name}: {measure.__name__} error {error:.2e} > {allowed:.2e}"


LENGTHS = (1, 2, 15, 16, 17, 33, 45, 48, 63, 64, 65, 80, 96, 97, 128, 129, 144, 145, 197, 257, 600)
CASES = [
    *((tokens, 64, torch.bfloat16) for tokens in LENGTHS),
    *((tokens, 64, dtype) for tokens in (33, 197) for dtype in (torch.float16, torch.float32)),
    *((129, dim, torch.bfloat16) for dim in (24, 32, 48, 80, 128)),
    *((129, dim, torch.float32) for dim in (32, 128)),
]


@pytest.mark.parametrize(
    ("tokens", "dim", "dtype"), CASES, ids=lambda value: str(value).removeprefix("torch.")
)
def test_compiled_kernels_equal_float64(tokens, dim, dtype):
    inputs, grad = make(3, 5, tokens, dim, dtype)
    actual = run(masked_attention, inputs, grad, impl="triton")
    assert_within_budget(actual, inputs, grad, dtype)


# Tokens, then blocks of queries and keys: tails of both, of one, of none, and parts of a block.
CUTS = [(129, 64, 64), (129, 32, 128), (81, 64, 64), (70, 64, 32), (45, 32, 32), (60, 64, 64)]


@pytest.mark.parametrize("one_pass", [True, False], ids=["one pass", "two passes"])
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_every_cut_into_blocks_and_tails(cut, one_pass):
    tokens, block_m, block_n = cut
    tiles = LaunchConfig(block_m, block_n, 8 if block_n == 128 else 4, 1)
    configs = {
        "masked_attention.forward_kernel": tiles,
        "masked_attention_one_pass.grad_kernel": None,
        "masked_attention_two_pass.grad_queries_kernel": tiles,
        "masked_attention_two_pass.grad_keys_kernel": tiles,
    }
    if one_pass:
        held = LaunchConfig(32, 128 if tokens > 96 else 64, 8 if tokens > 96 else 4, 1)
        configs["masked_attention_one_pass.grad_kernel"] = held
    inputs, grad = make(2, 3, tokens, 64, torch.bfloat16)
    with _launch.override(configs):
        actual = run(masked_attention, inputs, grad, impl="triton")
    assert_within_budget(actual, inputs, grad, torch.bfloat16)


def test_nothing_that_is_allocated_stays_unwritten(monkeypatch):
    def poison(allocate):
        return lambda *args, **kwargs: allocate(*args, **kwargs).fill_(float("nan"))

    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, poison(getattr(torch, name)))
    for tokens in (33, 129, 197):
        inputs, grad = make(2, 3, tokens, 64, torch.bfloat16)
        results = run(masked_attention, inputs, grad, impl="triton")
        assert all(x.isfinite().all() for x in results)


def test_float32_products_follow_torch_s_settings():
    (q, k, v, keep), _ = make(2, 3, 129, 64, torch.float32)
    exact = reference.masked_attention(*(x.double() for x in (q, k, v, keep)))
    before = torch.get_float32_matmul_precision()
    errors = {}
    try:
        for setting in ("highest", "high"):
            torch.set_float32_matmul_precision(setting)
            o = masked_attention(q, k, v, keep, impl="triton")
            errors[setting] = float((o - exact).norm() / exact.norm())
    finally:
        torch.set_float32_matmul_precision(before)
    # Tensor-core products of float32 keep 10 bits of the operands.
    assert errors["highest"] < 1e-5
    assert 1e-5 < errors["high"] < 2**-9 or torch.version.hip is not None


def test_extreme_logits_and_poison_in_dropped_tokens():
    (q, k, v, keep), grad = make(2, 3, 129, 64, torch.bfloat16)
    q, k, v = q.clone(), k.clone(), v.clone()
    q[..., 0], k[..., 0] = 100.0, 100.0
    keep[:, 7], keep[:, 128] = 0.0, 0.0
    assert all(x.isfinite().all() for x in run(masked_attention, (q, k, v, keep), grad))
    clean = masked_attention(q, k, v, keep)
    k[:, :, [7, 128]], v[:, :, [7, 128]] = float("nan"), float("inf")
    poisoned = masked_attention(q, k, v, keep)
    others = [i for i in range(129) if i not in (7, 128)]
    assert torch.equal(clean[:, :, others], poisoned[:, :, others])


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float64], ids=str)
def test_masks_of_any_dtype(dtype):
    (q, k, v, keep), grad = make(2, 3, 65, 64, torch.bfloat16)
    qkv = [x.detach().requires_grad_() for x in (q, k, v)]
    found = [
        torch.autograd.grad(masked_attention(*qkv, mask), qkv, grad)
        for mask in (keep, keep.to(dtype))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_nothing_waits_for_the_device():
    inputs, grad = make(2, 3, 129, 64, torch.bfloat16)
    run(masked_attention, inputs, grad)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(masked_attention, inputs, grad)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_memory_grows_with_the_tokens_and_not_with_their_square():
    batch, heads, tokens, dim = 8, 6, 600, 32
    inputs, grad = make(batch, heads, tokens, dim, torch.bfloat16)
    run(masked_attention, inputs, grad)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run(masked_attention, inputs, grad)
    torch.cuda.synchronize()
    rows = batch * heads * tokens
    # o and three gradients, twice that for autograd's copies of views, and float32 vectors.
    allowed = 8 * rows * dim * 2 + 8 * rows * 4 + 2**20
    assert torch.cuda.max_memory_allocated() - before <= allowed


def test_autocast():
    (q, k, v, keep), _ = make(2, 3, 33, 64, torch.float32)
    with torch.autocast("cuda", torch.bfloat16):
        o = masked_attention(q, k, v, keep)
    lowered = masked_attention(*(x.bfloat16() for x in (q, k, v)), keep)
    assert o.dtype == torch.bfloat16
    assert torch.equal(o, lowered)


def test_triton_is_the_default():
    (q, k, v, keep), _ = make(2, 2, 33, 64, torch.bfloat16)
    assert served_by(None, q, k, v) == "triton"
    default = masked_attention(q, k, v, keep)
    assert torch.equal(default, masked_attention(q, k, v, keep, impl="triton"))


def test_what_triton_cannot_serve_goes_to_the_reference():
    (q, k, v, keep), _ = make(2, 2, 33, 64, torch.float64)
    assert served_by(None, q, k, v) == "reference"
    exact = reference.masked_attention(q, k, v, keep.double())
    torch.testing.assert_close(masked_attention(q, k, v, keep), exact)


def test_ten_runs_are_bitwise_equal():
    inputs, grad = make(8, 6, 129, 64, torch.bfloat16)
    first = run(masked_attention, inputs, grad, impl="triton")
    for _ in range(9):
        again = run(masked_attention, inputs, grad, impl="triton")
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_cuda_graph_capture_and_replay():
    (q, k, v, keep), grad = make(4, 3, 129, 64, torch.bfloat16)
    inputs = [x.detach().clone().requires_grad_() for x in (q, k, v, keep)]

    def step():
        o = masked_attention(*inputs, impl="triton")
        return o, *torch.autograd.grad(o, inputs, grad)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        inputs[3].copy_(1.0 - inputs[3])
        inputs[3][:, 0] = 1.0
    graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(a, b)


def test_compiles_without_graph_breaks():
    inputs, grad = make(2, 3, 65, 64, torch.bfloat16)
    compiled = torch.compile(masked_attention, fullgraph=True)
    pairs = zip(run(masked_attention, inputs, grad), run(compiled, inputs, grad), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b)


def test_offsets_beyond_32_bits():
    base = torch.empty(2**31 + 4096, dtype=torch.float16, device="cuda")
    q = base.as_strided((3, 1, 33, 64), (2**30, 64 * 33, 64, 1))
    q.copy_(torch.randn(3, 1, 33, 64))
    keep = torch.ones(3, 33, device="cuda")
    keep[:, 5] = 0.0
    near = q.clone(memory_format=torch.contiguous_format)
    distant = masked_attention(q, q, q, keep, impl="triton")
    assert torch.equal(distant, masked_attention(near, near, near, keep, impl="triton"))
