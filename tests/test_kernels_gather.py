"""Gathering and scattering of token rows by every implementation."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import gather_layer_norm, gather_rows, reference, scatter_rows
from kernels.gather import served_by

IMPLEMENTATIONS = ("reference", "triton", "cpu")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SERVED = [(i, d) for i in IMPLEMENTATIONS for d in DTYPES if (i, d) != ("cpu", torch.float64)]


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


def strided(rows, channels, dtype, seed=0):
    """Return rows that are neither adjacent nor, within a row, one element apart."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, channels, 2, generator=generator).to(dtype)[:, :, 0]


def grad_by_loops(grad, indices, num_rows):
    total = torch.zeros(num_rows, grad.shape[1], dtype=torch.float64)
    for t, row in enumerate(indices.tolist()):
        total[row] += grad[t].double()
    return total


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("channels", [1, 100, 192, 384, 768])
@pytest.mark.parametrize(("impl", "dtype"), SERVED, ids=str)
def test_gather_and_scatter_equal_the_definition(impl, dtype, channels):
    x = strided(40, channels, dtype)
    repeated = torch.tensor([4, 0, 39, 4, 4])
    out = gather_rows(x, repeated, impl=impl)
    assert torch.equal(out, reference.gather_rows(x, repeated))
    assert out.is_contiguous()
    distinct = torch.randperm(50)[:40]
    back = scatter_rows(x, distinct, 50, -1.5, impl=impl)
    assert torch.equal(back, reference.scatter_rows(x, distinct, 50, -1.5))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_indices_need_not_be_adjacent(impl):
    x, pairs = torch.randn(6, 3), torch.tensor([[4, 0], [1, 0], [5, 0]])
    assert torch.equal(gather_rows(x, pairs[:, 0], impl=impl), x[[4, 1, 5]])
    back = scatter_rows(x[:3], pairs[:, 0], 6, impl=impl)
    assert torch.equal(back[[4, 1, 5]], x[:3])


def test_columns_beyond_32_bits():
    # Three columns 2**30 elements apart in memory that is reserved but otherwise never touched.
    base = torch.empty(2**31 + 16, dtype=torch.float16)
    far = base.as_strided((4, 3), (1, 2**30))
    far.copy_(torch.randn(4, 3))
    near, indices, repeated = (
        far.contiguous(),
        torch.tensor([2, 0, 3, 1]),
        torch.tensor([1, 3, 1, 1]),
    )
    rows, normed = gather_layer_norm(far, indices, impl="triton")
    assert torch.equal(rows, near[indices])
    assert torch.equal(normed, gather_layer_norm(near, indices, impl="triton")[1])
    assert torch.equal(gather_rows(far, indices, impl="triton"), near[indices])
    placed = scatter_rows(far, indices, 4, impl="triton")
    assert torch.equal(placed, scatter_rows(near, indices, 4, impl="triton"))
    grads = []
    for grad in (far, near):
        x = torch.zeros(5, 3, dtype=torch.float16, requires_grad=True)
        gather_rows(x, repeated, impl="triton").backward(grad)
        grads.append(x.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_gradients(impl):
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    repeated, distinct = torch.tensor([4, 0, 4]), torch.tensor([5, 0, 2])

    def gather(x):
        return gather_rows(x, repeated, impl=impl)

    assert torch.autograd.gradcheck(gather, x)
    assert torch.autograd.gradgradcheck(gather, x)
    assert torch.autograd.gradcheck(lambda t: scatter_rows(t, distinct, 6, 2.0, impl=impl), (y,))


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize(("impl", "dtype"), SERVED, ids=str)
def test_gradient_of_distinct_rows_is_exact(impl, dtype):
    x = strided(70, 130, dtype).requires_grad_()
    indices = torch.randperm(70)[:33]
    grad = strided(33, 130, dtype, seed=1)
    gather_rows(x, indices, impl=impl).backward(grad)
    assert torch.equal(x.grad.double(), grad_by_loops(grad, indices, 70))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=40), st.integers(0, 3))
@pytest.mark.parametrize("impl", ["triton", "cpu"])
def test_repeated_rows_add_up_in_order(impl, indices, seed):
    indices, grad = torch.tensor(indices), strided(len(indices), 20, torch.float32, seed)
    x = torch.zeros(9, 20, requires_grad=True)
    gather_rows(x, indices, impl=impl).backward(grad)
    in_order = torch.zeros(9, 20)
    for t, row in enumerate(indices.tolist()):
        in_order[row] += grad[t]
    assert torch.equal(x.grad, in_order)


@pytest.mark.parametrize("impl", ["triton", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_repeats_far_apart_add_up(dtype, impl):
    indices = torch.arange(300)
    indices[[1, 100, 150, 299]] = 5
    grad = strided(300, 3, dtype)
    x = torch.zeros(300, 3, dtype=dtype, requires_grad=True)
    gather_rows(x, indices, impl=impl).backward(grad)
    in_order = torch.zeros(300, 3)
    for t, row in enumerate(indices.tolist()):
        in_order[row] += grad[t].float()
    assert torch.equal(x.grad, in_order.to(dtype))


def test_ten_gradients_are_bitwise_equal():
    indices = torch.randint(0, 20, (60,))
    grad = torch.randn(60, 24)

    def gradient():
        x = torch.zeros(20, 24, requires_grad=True)
        gather_rows(x, indices, impl="triton").backward(grad)
        return x.grad

    first = gradient()
    assert all(torch.equal(first, gradient()) for _ in range(9))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_empty(impl):
    none = torch.empty(0, dtype=torch.int64)
    x = torch.randn(4, 3, requires_grad=True)
    out = gather_rows(x, none, impl=impl)
    assert out.shape == (0, 3)
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros(4, 3))
    empty = scatter_rows(out.detach(), none, 2, 7.0, impl=impl)
    assert torch.equal(empty, torch.full((2, 3), 7.0))
    assert gather_rows(torch.empty(4, 0), none + 1, impl=impl).shape == (0, 0)


def test_indices_out_of_range():
    x = torch.ones(4, 3)
    for wrong in (4, -1, 2**40):
        indices = torch.tensor([0, wrong])
        for impl in ("reference", "cpu"):
            with pytest.raises((IndexError, RuntimeError)):
                gather_rows(x, indices, impl=impl)
            with pytest.raises((IndexError, RuntimeError)):
                scatter_rows(x[:2], indices, 4, impl=impl)
        with pytest.raises(IndexError, match=rf"indices\[1\] = {wrong} is outside \[0, 4\)"):
            gather_rows(x, indices, impl="cpu")
        out = gather_rows(x, indices, impl="triton")
        assert torch.equal(out[0], x[0])
        assert out[1].isnan().all()
        placed = scatter_rows(x[:2], indices, 4, impl="triton")
        assert torch.equal(placed, torch.tensor([[1.0], [0], [0], [0]]).expand(4, 3))


def test_float64_goes_to_the_reference():
    x = torch.randn(3, 2, dtype=torch.float64)
    assert served_by(None, "gather_rows", x) == "reference"
    with pytest.raises(RuntimeError, match=r"dtype is torch\.float64"):
        gather_rows(x, torch.tensor([0]), impl="cpu")


def test_bad_arguments_are_named():
    x, indices = torch.zeros(4, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"got shape \(1, 4, 3\)"):
        gather_rows(x[None], indices)
    with pytest.raises(ValueError, match=r"floating dtype, got shape \(4, 3\) and torch.int32"):
        gather_rows(x.int(), indices)
    with pytest.raises(ValueError, match=r"int64 of one dimension, got torch.int32"):
        gather_rows(x, indices.int())
    with pytest.raises(ValueError, match="x is on cpu but indices on meta"):
        gather_rows(x, indices.to("meta"))
    with pytest.raises(ValueError, match="y has 4 rows but indices has 2 entries"):
        scatter_rows(x, indices, 8)
    with pytest.raises(ValueError, match="impl='cuda' does not exist"):
        gather_rows(x, indices, impl="cuda")


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ["gather_rows", "gather_rows_grad", "scatter_rows"])
def test_opcheck(name, impl):
    rows, indices = torch.randn(3, 4, requires_grad=True), torch.tensor([2, 0, 1])
    rest = {"gather_rows": (), "gather_rows_grad": (5,), "scatter_rows": (5, 1.0)}[name]
    operator = getattr(torch.ops.sparse_vit_kernels, name).default
    torch.library.opcheck(operator, (rows, indices, *rest, impl))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_compiles_without_graph_breaks(impl):
    def there_and_back(x, indices):
        rows = gather_rows(x, indices, impl=impl) * 2.0
        return scatter_rows(rows, indices, x.shape[0], impl=impl)

    torch.compiler.reset()
    indices = torch.tensor([3, 1])
    grads = []
    for function in (
        there_and_back,
        torch.compile(there_and_back, fullgraph=True, backend="aot_eager"),
    ):
        x = torch.arange(12.0).view(4, 3).requires_grad_()
        function(x, indices).square().sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


def test_the_default_on_the_cpu():
    x = torch.zeros(2, 3)
    assert served_by(None, "gather_rows", x) == "reference"
    for operator in ("gather_rows_grad", "scatter_rows", "gather_layer_norm"):
        assert served_by(None, operator, x) == "cpu"


def test_forward_mode_gradients_are_refused():
    x, indices = torch.randn(4, 3), torch.tensor([0, 2])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        for call in (
            lambda: gather_rows(dual, indices),
            lambda: scatter_rows(dual[:2], indices, 5),
            lambda: gather_layer_norm(dual, indices),
        ):
            with pytest.raises(RuntimeError, match="forward"):
                call()
