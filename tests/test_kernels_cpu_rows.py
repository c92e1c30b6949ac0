"""The C++ kernels for rows: every instruction set, and several threads."""

import pytest
import torch

from kernels import gather_layer_norm, gather_rows, reference, scatter_rows, select_tokens
from kernels._cpu import build

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(params=["avx512", "avx2", "generic"])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SPARSE_VIT_CPU_ISA", request.param)
    try:
        assert build.load().isa() == request.param
    except RuntimeError as error:
        if "lacks it" not in str(error):
            raise
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def norm_and_gradients(x, weight, bias, indices, grads, function=gather_layer_norm, **kwargs):
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    outputs = function(leaves[0], indices, *leaves[1:], **kwargs)
    grads = [g.to(outputs[0].dtype) for g in grads]
    return *(o.detach() for o in outputs), *torch.autograd.grad(outputs, leaves, grads)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 5, 63, 64, 65, 100, 384])
def test_layer_norm_on_every_instruction_set(channels, dtype):
    x = torch.randn(30, channels).to(dtype)
    weight, bias = torch.randn(2, channels)
    indices = torch.randint(0, 30, (41,))
    grads = [torch.randn(41, channels).to(dtype) for _ in range(2)]
    # With one channel the variance is zero: a large eps keeps its gradient from blowing up.
    inputs = (x, weight, bias, indices, grads)
    actual = norm_and_gradients(*inputs, impl="cpu", eps=0.1)
    wide = [t.double() for t in inputs[:3]]
    exact = norm_and_gradients(*wide, indices, grads, function=reference.gather_layer_norm, eps=0.1)
    eager = norm_and_gradients(
        *(t.to(dtype) for t in inputs[:3]),
        indices,
        grads,
        function=reference.gather_layer_norm,
        eps=0.1,
    )
    scale = (1 + grads[1].abs().max() * weight.abs().max()) * max(1, exact[1].abs().max())
    for a, e, wanted in zip(actual, eager, exact, strict=True):
        sums = max(channels, 41) ** 0.5 * torch.finfo(torch.float32).eps
        slack = (sums + torch.finfo(a.dtype).eps) * torch.maximum(wanted.abs().max(), scale)
        for measure in (torch.max, torch.mean):
            assert measure((a - wanted).abs()) <= measure((e - wanted).abs()) + slack


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_repeated_rows_add_up_on_every_instruction_set(dtype):
    grad, indices = torch.randn(60, 101).to(dtype), torch.randint(0, 7, (60,))
    x = torch.zeros(9, 101, dtype=dtype, requires_grad=True)
    gather_rows(x, indices, impl="cpu").backward(grad)
    in_order = torch.zeros(9, 101)
    for t, row in enumerate(indices.tolist()):
        in_order[row] += grad[t].float()
    assert torch.equal(x.grad, in_order.to(dtype))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("rule", [{"k": 300}, {"threshold": 0.25, "padded": True}])
def test_selection_by_two_threads(rule):
    scores = torch.randn(40, 500).mul_(4).round_().div_(4)
    one = select_tokens(scores, **rule, prefix=2, impl="reference")
    for a, b in zip(select_tokens(scores, **rule, prefix=2, impl="cpu"), one, strict=True):
        assert torch.equal(a, b)


def test_the_number_of_threads_changes_no_bit():
    x, indices = torch.randn(3000, 96), torch.randint(0, 3000, (2500,))
    weight, bias = torch.randn(2, 96)
    grads = [torch.randn(2500, 96) for _ in range(2)]
    before = torch.get_num_threads()
    runs = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        norm = norm_and_gradients(x, weight, bias, indices, grads, impl="cpu")
        places = torch.randperm(3000, generator=torch.Generator().manual_seed(1))[:2500]
        runs.append((*norm, scatter_rows(norm[0], places, 3000, 2.0, impl="cpu")))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
