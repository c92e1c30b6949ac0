"""Gathering and scattering of token rows."""

import pytest
import torch

from kernels import gather_rows, reference, scatter_rows


def test_gather_equals_loops_with_repeats():
    x = torch.randn(6, 3)
    indices = torch.tensor([4, 0, 4])
    out = gather_rows(x, indices)
    assert torch.equal(out, torch.stack([x[4], x[0], x[4]]))
    assert torch.equal(out, reference.gather_rows(x, indices))


def test_scatter_equals_loops():
    y = torch.randn(2, 3)
    expected = torch.full((4, 3), -1.5)
    expected[3], expected[1] = y[0], y[1]
    assert torch.equal(scatter_rows(y, torch.tensor([3, 1]), 4, fill=-1.5), expected)


def test_scatter_undoes_gather():
    x = torch.randn(5, 3)
    indices = torch.tensor([1, 2, 4])
    back = scatter_rows(gather_rows(x, indices), indices, 5)
    assert torch.equal(back[indices], x[indices])
    assert torch.equal(back[[0, 3]], torch.zeros(2, 3))


def test_gradients():
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    repeated, distinct = torch.tensor([4, 0, 4]), torch.tensor([5, 0, 2])
    assert torch.autograd.gradcheck(gather_rows, (x, repeated))
    assert torch.autograd.gradgradcheck(gather_rows, (x, repeated))
    assert torch.autograd.gradcheck(lambda t: scatter_rows(t, distinct, 6, 2.0), (y,))


def test_empty():
    none = torch.empty(0, dtype=torch.int64)
    x = torch.randn(4, 3, requires_grad=True)
    out = gather_rows(x, none)
    assert out.shape == (0, 3)
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros(4, 3))
    assert torch.equal(scatter_rows(out.detach(), none, 2, 7.0), torch.full((2, 3), 7.0))


def test_bad_arguments_are_named():
    x, indices = torch.zeros(4, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"got shape \(1, 4, 3\)"):
        gather_rows(x[None], indices)
    with pytest.raises(ValueError, match=r"int64 of one dimension, got torch.int32"):
        gather_rows(x, indices.int())
    with pytest.raises(ValueError, match="y has 4 rows but indices has 2 entries"):
        scatter_rows(x, indices, 8)
    with pytest.raises((IndexError, RuntimeError)):
        gather_rows(x, torch.tensor([4]))


@pytest.mark.parametrize("name", ["gather", "scatter"])
def test_opcheck(name):
    rows, indices = torch.randn(3, 4, requires_grad=True), torch.tensor([2, 0, 1])
    if name == "gather":
        arguments = (rows, indices)
        operator = torch.ops.sparse_vit_kernels.gather_rows.default
    else:
        arguments = (rows, indices, 5, 1.0)
        operator = torch.ops.sparse_vit_kernels.scatter_rows.default
    torch.library.opcheck(operator, arguments)


def test_compiles_without_graph_breaks():
    def there_and_back(x, indices):
        return scatter_rows(gather_rows(x, indices) * 2.0, indices, x.shape[0])

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
