"""The compiled Triton kernels on a CUDA or ROCm device."""

import math

import pytest
import torch

from kernels import _backend, masked_attention, reference
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("dim", [32, 48, 64, 80, 128])
@pytest.mark.parametrize("tokens", [1, 17, 64, 129, 197, 600])
def test_compiled_kernels_equal_float64(tokens, dim, dtype):
    inputs, grad = make(3, 5, tokens, dim, dtype)
    actual = run(masked_attention, inputs, grad, impl="triton")
    exact = run(reference.masked_attention, inputs, grad, torch.float64)
    eager = run(reference.masked_attention, inputs, grad, dtype)
    terms = (grad.double() @ inputs[2].double().transpose(-2, -1)).abs().max()
    slack = math.sqrt(tokens) * torch.finfo(torch.float32).eps + torch.finfo(dtype).eps
    for name, a, e, x in zip(NAMES, actual, eager, exact, strict=True):
        size = x.abs().max() if name == "o" else torch.maximum(x.abs().max(), terms)
        for measure in (torch.max, torch.mean):
            error, allowed = measure((a - x).abs()), measure((e - x).abs()) + slack * size
            assert error <= allowed, f"{name}: {measure.__name__} error {error:.2e} > {allowed:.2e}"


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
