"""Gathering with LayerNorm in the same pass, by every implementation, against float64."""

import math
import os

import pytest
import torch
import torch.nn.functional as F

from kernels import gather_layer_norm, reference
from kernels._gpu import gather as _gpu

IMPLEMENTATIONS = ("reference", "triton", "cpu")
NAMES = ("rows", "normed", "dx", "dweight", "dbias")


@pytest.fixture(scope="module", autouse=True)
def _interpreter() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1", (
        "these tests run Triton kernels on the CPU: use `make test`, or set TRITON_INTERPRET=1 "
        "before Python starts"
    )


@pytest.fixture
def poison(monkeypatch):
    """Fill new memory with NaN."""

    def poisoned(make):
        def made(x, *size, **kwargs):
            fresh = make(x, *size, **kwargs)
            return fresh.fill_(float("nan")) if fresh.is_floating_point() else fresh

        return made

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))


def make(total, rows, channels, dtype, mean=0.5):
    x = (torch.randn(rows, channels, 2) + mean).to(dtype)[:, :, 0]
    affine = [torch.randn(channels), torch.randn(channels)]
    indices = torch.randint(0, rows, (total,))
    grads = [torch.randn(total, channels).to(dtype) for _ in range(2)]
    return (x, *affine), indices, grads


def run(function, inputs, indices, grads, dtype=None, **kwargs):
    x, weight, bias = (
        (t if dtype is None else t.to(dtype)).detach().requires_grad_() for t in inputs
    )
    outputs = function(x, indices, weight, bias, **kwargs)
    grads = [g.to(outputs[0].dtype) for g in grads]
    found = torch.autograd.grad(outputs, (x, weight, bias), grads)
    return *(o.detach() for o in outputs), *found


def assert_within_budget(actual, inputs, indices, grads):
    """Compare with float64 on the same numbers, allowing what the dtype costs and no more.

    The allowance is the error of the plain definition evaluated in that dtype, plus the rounding of
    float32 sums over the terms of a result, plus the rounding of the result, relative to the size
    of the largest term that cancels: of the LayerNorm that is the scaled row before its mean is
    taken off.
    """
    dtype, eps = inputs[0].dtype, torch.finfo(torch.float32).eps
    exact = run(reference.gather_layer_norm, inputs, indices, grads, torch.float64)
    eager = run(reference.gather_layer_norm, inputs, indices, grads, dtype)
    weight = inputs[1].abs().max()
    scale = grads[1].abs().max() * weight * exact[1].abs().max()
    rows = exact[0].abs().max() / exact[0].var(1, unbiased=False).min().sqrt() * weight
    summed = max(inputs[0].shape[1], len(indices))
    for name, a, e, x in zip(NAMES, actual, eager, exact, strict=True):
        if name == "rows":
            assert torch.equal(a.double(), x)
            continue
        size = float(torch.maximum(x.abs().max(), rows if name == "normed" else scale))
        slack = (math.sqrt(summed) * eps + torch.finfo(a.dtype).eps) * size
        for measure in (torch.max, torch.mean):
            error, allowed = measure((a - x).abs()), measure((e - x).abs()) + slack
            assert error <= allowed, f"{name}: {measure.__name__} error {error:.2e} > {allowed:.2e}"


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("channels", [3, 100, 192, 384, 768])
def test_equals_float64(channels, dtype, impl):
    inputs, indices, grads = make(19, 12, channels, dtype)
    actual = run(gather_layer_norm, inputs, indices, grads, impl=impl)
    assert [t.dtype for t in actual] == [dtype] * 3 + [torch.float32] * 2
    assert_within_budget(actual, inputs, indices, grads)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_a_mean_far_from_zero_leaves_the_variance(impl):
    inputs, indices, grads = make(5, 6, 192, torch.float32, mean=1000.0)
    actual = run(gather_layer_norm, inputs, indices, grads, impl=impl)
    assert_within_budget(actual, inputs, indices, grads)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_rows_without_variance_are_finite(impl):
    x = torch.full((3, 100), 7.0)
    rows, normed = gather_layer_norm(x, torch.tensor([2, 0]), impl=impl)
    assert torch.equal(rows, x[:2])
    assert torch.equal(normed, torch.zeros(2, 100))
    one = gather_layer_norm(torch.randn(4, 1), torch.tensor([1]), impl=impl)[1]
    assert torch.equal(one, torch.zeros(1, 1))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_weight_and_bias_are_optional_and_of_any_dtype(impl):
    (x, weight, bias), indices, _ = make(4, 6, 24, torch.bfloat16)
    for w in (None, weight.bfloat16(), weight.half()):
        for b in (None, bias.bfloat16()):
            rows, normed = gather_layer_norm(x, indices, w, b, 1e-5, impl=impl)
            wide = [None if p is None else p.double() for p in (w, b)]
            want = F.layer_norm(x[indices].double(), (24,), *wide, 1e-5)
            assert (normed - want).abs().max() <= 2 * torch.finfo(x.dtype).eps * want.abs().max()
            assert rows.dtype == normed.dtype == torch.bfloat16


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_gradients_through_one_output_alone(impl):
    inputs, indices, grads = make(7, 9, 20, torch.float32)
    for which in (0, 1):
        x, weight, bias = (t.detach().requires_grad_() for t in inputs)
        gather_layer_norm(x, indices, weight, bias, impl=impl)[which].backward(grads[which])
        alone = [g if i == which else torch.zeros_like(g) for i, g in enumerate(grads)]
        exact = run(reference.gather_layer_norm, inputs, indices, alone, torch.float64)
        torch.testing.assert_close(x.grad.double(), exact[2], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(weight.grad.double(), exact[3], rtol=1e-5, atol=1e-5)


def test_float64_gradients():
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    affine = [torch.randn(6, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    indices = torch.tensor([4, 0, 4])
    assert torch.autograd.gradcheck(
        lambda *a: gather_layer_norm(a[0], indices, *a[1:]), (x, *affine)
    )
    with pytest.raises(RuntimeError, match=r"dtype is torch\.float64"):
        gather_layer_norm(x, indices, impl="triton")
    with pytest.raises(RuntimeError, match="rows are 5000 channels wide"):
        gather_layer_norm(torch.zeros(2, 5000), indices, impl="triton")


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_no_rows(impl):
    inputs, _, _ = make(1, 6, 20, torch.float32)
    none = torch.empty(0, dtype=torch.int64)
    empty = [torch.empty(0, 20)] * 2
    rows, normed, dx, dweight, dbias = run(gather_layer_norm, inputs, none, empty, impl=impl)
    assert rows.shape == normed.shape == (0, 20)
    for gradient in (dx, dweight, dbias):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_an_index_out_of_range_gives_nan_in_that_row_alone():
    x = torch.randn(4, 24)
    rows, normed = gather_layer_norm(x, torch.tensor([1, 4, 2]), impl="triton")
    good = gather_layer_norm(x, torch.tensor([1, 2]), impl="triton")
    assert rows[1].isnan().all()
    assert normed[1].isnan().all()
    for a, b in zip((rows, normed), good, strict=True):
        assert torch.equal(a[[0, 2]], b)


def test_many_rows_share_the_sums_and_runs_are_equal(monkeypatch):
    monkeypatch.setattr(_gpu, "PARTS", 3)
    inputs, indices, grads = make(500, 40, 12, torch.float32)
    first = run(gather_layer_norm, inputs, indices, grads, impl="triton")
    assert_within_budget(first, inputs, indices, grads)
    for _ in range(2):
        again = run(gather_layer_norm, inputs, indices, grads, impl="triton")
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_bad_arguments_are_named():
    x, indices = torch.zeros(4, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"weight must be floating point of shape \(3,\)"):
        gather_layer_norm(x, indices, torch.ones(4))
    with pytest.raises(ValueError, match=r"bias must be floating point .* got torch.int64"):
        gather_layer_norm(x, indices, None, torch.ones(3).long())
    with pytest.raises(ValueError, match="weight is on meta but x is on cpu"):
        gather_layer_norm(x, indices, torch.ones(3, device="meta"))
    with pytest.raises((IndexError, RuntimeError)):
        gather_layer_norm(x, torch.tensor([4]))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_opcheck(impl):
    x, indices = torch.randn(5, 8, requires_grad=True), torch.tensor([2, 0, 1])
    weight, bias = torch.randn(8, requires_grad=True), torch.randn(8, requires_grad=True)
    operators = torch.ops.sparse_vit_kernels
    for affine in ((weight, bias), (None, None)):
        arguments = (x, indices, *affine, 1e-6, impl)
        torch.library.opcheck(operators.gather_layer_norm.default, arguments)
    rows, _, mean, rstd = (
        t.detach() for t in operators.gather_layer_norm(x, indices, weight, bias, 1e-6, impl)
    )
    arguments = (rows, rows + 1, rows, weight.detach(), mean, rstd, impl)
    torch.library.opcheck(operators.gather_layer_norm_grad.default, arguments)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic, impl):
    torch.compiler.reset()
    compiled = torch.compile(
        gather_layer_norm, fullgraph=True, dynamic=dynamic, backend="aot_eager"
    )
    for total in (4, 7):
        inputs, indices, grads = make(total, 9, 24, torch.float32)
        plain = run(gather_layer_norm, inputs, indices, grads, impl=impl)
        for a, b in zip(plain, run(compiled, inputs, indices, grads, impl=impl), strict=True):
            torch.testing.assert_close(a, b)
