"""Ragged attention inside torch: its registration, compilation, autocast, and who serves."""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kernels import _backend, _launch, ragged_attention, reference
from kernels._cpu import build
from kernels.ragged_attention import served_by

OPERATORS = torch.ops.sparse_vit_kernels
IMPLEMENTATIONS = ("reference", "triton") if build.obstacles() else ("reference", "triton", "cpu")


@pytest.fixture(scope="module", autouse=True)
def _interpreter() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1", (
        "these tests run Triton kernels on the CPU: use `make test`, or set TRITON_INTERPRET=1 "
        "before Python starts"
    )


def make(lengths=(4, 0, 7), heads=2, dim=16, dtype=torch.float32, gathered=False):
    tokens = sum(lengths)
    qkv = torch.randn(tokens + 3 if gathered else tokens, 3, heads, dim).to(dtype)
    cu_seqlens = F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).int()
    rows = torch.randperm(tokens + 3)[:tokens] if gathered else None
    return qkv, cu_seqlens, max(lengths), rows


class Attention(nn.Module):
    """The attention of a pruned vision transformer, reduced to what matters here."""

    def __init__(self, impl=None, dim=32, heads=2):
        super().__init__()
        self.impl, self.heads = impl, heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x, cu_seqlens, max_seqlen, rows):
        qkv = self.qkv(x).unflatten(1, (3, self.heads, -1))
        o = ragged_attention(*qkv.unbind(1), cu_seqlens, max_seqlen, rows=rows, impl=self.impl)
        return self.proj(o.flatten(1))


def step(function, x, *arguments):
    x = x.detach().requires_grad_()
    out = function(x, *arguments)
    return out.detach(), *torch.autograd.grad(out.float().square().sum(), x)


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_opcheck_forward(impl, gathered):
    qkv, cu_seqlens, longest, rows = make(gathered=gathered)
    for view in (lambda x: x, lambda x: x.clone()):
        inputs = [view(x).detach().requires_grad_() for x in qkv.unbind(1)]
        arguments = (*inputs, cu_seqlens, longest, rows, 0.25, impl)
        torch.library.opcheck(OPERATORS.ragged_attention.default, arguments)


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_opcheck_backward(impl, gathered):
    qkv, cu_seqlens, longest, rows = make(gathered=gathered)
    problem = (cu_seqlens, longest, rows)
    o, lse = OPERATORS.ragged_attention(*qkv.unbind(1), *problem, 0.25, impl)
    arguments = (torch.randn_like(o), *qkv.unbind(1), *problem, o, lse, 0.25, impl)
    torch.library.opcheck(OPERATORS.ragged_attention_grad.default, arguments)


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize(
    ("impl", "dtype"),
    [
        ("reference", torch.float64),
        *((impl, dtype) for impl in IMPLEMENTATIONS for dtype in (torch.float32, torch.bfloat16)),
    ],
    ids=str,
)
def test_fakes_tell_shapes_strides_and_dtypes(impl, dtype, gathered):
    qkv, cu_seqlens, longest, rows = make(dtype=dtype, gathered=gathered)
    problem = (cu_seqlens, longest, rows)
    real = OPERATORS.ragged_attention(*qkv.unbind(1), *problem, 0.25, impl)
    grads = OPERATORS.ragged_attention_grad(real[0], *qkv.unbind(1), *problem, *real, 0.25, impl)

    def meta(*tensors):
        return [x.to("meta") if isinstance(x, torch.Tensor) else x for x in tensors]

    views = [qkv.to("meta")[:, i] for i in range(3)]
    fake = OPERATORS.ragged_attention(*views, *meta(*problem), 0.25, impl)
    fake_grads = OPERATORS.ragged_attention_grad(
        fake[0], *views, *meta(*problem), *fake, 0.25, impl
    )
    for a, b in zip((*real, *grads), (*fake, *fake_grads), strict=True):
        assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)
        assert a.is_contiguous()


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_eager_calls_and_the_operator_agree(impl, gathered):
    qkv, cu_seqlens, longest, rows = make(gathered=gathered)
    grad = torch.randn(11, 2, 16)
    results = []
    for function in (
        lambda q, k, v: ragged_attention(q, k, v, cu_seqlens, longest, rows=rows, impl=impl),
        lambda q, k, v: OPERATORS.ragged_attention(q, k, v, cu_seqlens, longest, rows, 0.25, impl)[
            0
        ],
    ):
        inputs = [x.detach().requires_grad_() for x in qkv.unbind(1)]
        o = function(*inputs)
        results.append((o.detach(), *torch.autograd.grad(o, inputs, grad)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        assert torch.equal(results[0][0], function(*inputs))


@pytest.mark.parametrize("gathered", [False, True], ids=["packed", "rows"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic, gathered):
    torch.compiler.reset()
    model = Attention()
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for lengths in ((4, 0, 7), (9, 3)):
        _, cu_seqlens, longest, rows = make(lengths, gathered=gathered)
        x = torch.randn(sum(lengths) + 3 * gathered, 32)
        arguments = (x, cu_seqlens, longest, rows)
        for a, b in zip(step(model, *arguments), step(compiled, *arguments), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_compiles_with_inductor():
    torch.compiler.reset()
    model = Attention()
    compiled = torch.compile(model, fullgraph=True)
    _, cu_seqlens, longest, rows = make(gathered=True)
    arguments = (torch.randn(14, 32), cu_seqlens, longest, rows)
    for a, b in zip(step(model, *arguments), step(compiled, *arguments), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_autocast_casts_as_torch_does(impl):
    qkv, cu_seqlens, longest, _ = make()
    q, k, v = (x.detach().requires_grad_() for x in qkv.unbind(1))
    with torch.autocast("cpu", torch.bfloat16):
        o = ragged_attention(q, k, v.bfloat16(), cu_seqlens, longest, impl=impl)
        grads = torch.autograd.grad(o.float().sum(), (q, k))
    assert o.dtype == torch.bfloat16
    assert all(x.dtype == torch.float32 for x in grads)
    lowered = [x.bfloat16() for x in (q, k, v)]
    assert torch.equal(o, ragged_attention(*lowered, cu_seqlens, longest, impl=impl))


def test_autocast_leaves_float64():
    qkv, cu_seqlens, longest, _ = make(dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        o = ragged_attention(*qkv.unbind(1), cu_seqlens, longest)
    assert o.dtype == torch.float64


def test_forward_mode_gradients_are_refused():
    qkv, cu_seqlens, longest, _ = make()
    q, k, v = qkv.unbind(1)
    with pytest.raises(RuntimeError, match="ragged_attention: forward-mode differentiation"):
        torch.func.jvp(lambda q: ragged_attention(q, k, v, cu_seqlens, longest), (q,), (q,))


def test_gradcheck():
    qkv, cu_seqlens, longest, rows = make((3, 0, 2), 1, 2, torch.float64, gathered=True)
    inputs = [x.detach().clone().requires_grad_() for x in qkv.unbind(1)]

    def function(q, k, v):
        return ragged_attention(q, k, v, cu_seqlens, longest, rows=rows)

    assert torch.autograd.gradcheck(function, inputs)


def test_what_the_reference_defines():
    qkv, cu_seqlens, _, rows = make((3, 0, 2), 2, 4, torch.float64, gathered=True)
    q, k, v = qkv.unbind(1)
    expected = torch.zeros(5, 2, 4, dtype=torch.float64)
    sequences = [rows[a:b].tolist() for a, b in ((0, 3), (3, 3), (3, 5))]
    token = 0
    for sequence in sequences:
        for i in sequence:
            for h in range(2):
                weights = torch.stack([(0.3 * (q[i, h] @ k[j, h])).exp() for j in sequence])
                values = torch.stack([v[j, h] for j in sequence])
                expected[token, h] = weights @ values / weights.sum()
            token += 1
    actual = reference.ragged_attention(q, k, v, cu_seqlens, rows=rows, scale=0.3)
    torch.testing.assert_close(actual, expected)


def test_who_serves(monkeypatch):
    q = torch.zeros(2, 1, 4)
    assert served_by("reference", q, q, q) == "reference"
    assert served_by("triton", q, q, q) == "triton"
    assert served_by(None, q, q, q) == ("reference" if build.obstacles() else "cpu")
    assert served_by(None, q.double(), q.double(), q.double()) == "reference"
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(_backend, "has_triton", lambda: False)
    wide = torch.zeros(2, 1, 160, dtype=torch.float64)
    with pytest.raises(RuntimeError) as error:
        ragged_attention(wide, wide, wide, torch.tensor([0, 2]).int(), 2, impl="triton")
    for reason in (
        "triton is not installed",
        "on cpu and TRITON_INTERPRET=1 is not set",
        "dtype is torch.float64",
        "head dimension is 160",
        "impl='reference'",
    ):
        assert reason in str(error.value)


def test_an_unknown_implementation_is_named():
    q = torch.zeros(2, 1, 4)
    with pytest.raises(ValueError, match="impl='cuda' does not exist; choose one of reference"):
        ragged_attention(q, q, q, torch.tensor([0, 2]).int(), 2, impl="cuda")


def test_the_launcher_offers_no_one_pass_that_leaves_keys_out():
    for tokens in range(1, 300):
        kernel = _launch.KERNELS["ragged_attention_one_pass.grad_kernel"]
        problem = _launch.Problem(tokens, 64, 2, "sm_90")
        for config in (kernel.rule(problem), *kernel.candidates(problem)):
            if config is not None:
                tail = config.tail if config.tail < config.block_n else 0
                assert tokens <= config.block_n + tail, config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(5, 2, 8)}, r"of one shape .* got \(5, 2, 16\), \(5, 2, 8\)"),
        ({"q": torch.zeros(5, 16)}, r"must be \(T, H, D\)"),
        ({name: torch.zeros(5, 2, 0) for name in "qkv"}, "D of 1 or more"),
        ({"v": torch.zeros(5, 2, 16).half()}, "share one floating dtype"),
        (
            {"cu_seqlens": torch.tensor([0, 5])},
            r"must be \(B \+ 1,\) int32, got \(2,\) torch.int64",
        ),
        ({"cu_seqlens": torch.zeros(0).int()}, r"must be \(B \+ 1,\) int32, got \(0,\)"),
        ({"cu_seqlens": torch.zeros(1, 2).int()}, r"int32, got \(1, 2\)"),
        ({"cu_seqlens": torch.zeros(2, device="meta").int()}, "on one device, got cpu, .* meta"),
        ({"max_seqlen": torch.tensor(5)}, "must be an int known on the host, got Tensor"),
        ({"max_seqlen": -1}, "max_seqlen must be 0 or more, got -1"),
        ({"rows": torch.zeros(5)}, r"rows must be \(T,\) int64 or int32, got \(5,\) torch.float32"),
        ({"rows": torch.zeros(5, 1).long()}, r"rows must be \(T,\) .* got \(5, 1\)"),
        ({"rows": torch.zeros(5, device="meta").long()}, "on one device, got .* meta"),
        ({"cu_seqlens": torch.tensor([1, 5]).int()}, r"start at 0, .* got \[1, 5\]"),
        ({"cu_seqlens": torch.tensor([0, 3, 2]).int()}, r"never fall .* got \[0, 3, 2\]"),
        ({"cu_seqlens": torch.tensor([0, 6]).int()}, r"end at T = 5 or before, got \[0, 6\]"),
        ({"rows": torch.zeros(4).long()}, r"end at T = 4 or before, got \[0, 2, 5\]"),
        ({"max_seqlen": 2}, "has 3 tokens, more than max_seqlen=2"),
        ({"rows": torch.tensor([0, 1, 2, 3, 5])}, r"in \[0, R\) for R = 5 rows of q, got 0 to 5"),
        ({"rows": torch.tensor([0, -1, 2, 3, 4])}, r"in \[0, R\) for R = 5 .* got -1 to 4"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {name: torch.zeros(5, 2, 16) for name in "qkv"}
    arguments |= {"cu_seqlens": torch.tensor([0, 2, 5]).int(), "max_seqlen": 3}
    ragged_attention(**arguments)
    with pytest.raises(ValueError, match=message):
        ragged_attention(**(arguments | change))
