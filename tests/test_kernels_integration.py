"""Masked attention inside torch: its registration, compilation, autocast, DDP, and who serves."""

import os
import sys

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from kernels import _backend, masked_attention, reference
from kernels.masked_attention import served_by

OPERATORS = torch.ops.sparse_vit_kernels
_public = sys.modules["kernels.masked_attention"]


@pytest.fixture(scope="module", autouse=True)
def _interpreter() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1", (
        "these tests run Triton kernels on the CPU: use `make test`, or set TRITON_INTERPRET=1 "
        "before Python starts"
    )


def make(batch=2, heads=2, tokens=5, dim=16, dtype=torch.float32):
    qkv = torch.randn(batch, tokens, 3, heads, dim, dtype=dtype)
    keep = (torch.rand(batch, tokens) > 0.5).float()
    keep[:, 0] = 1.0
    return qkv.requires_grad_(), keep.requires_grad_()


class Attention(nn.Module):
    """The attention of a vision transformer, reduced to what matters here."""

    def __init__(self, impl, dim=32, heads=2):
        super().__init__()
        self.impl, self.heads = impl, heads
        self.qkv, self.norm = nn.Linear(dim, 3 * dim), nn.LayerNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, keep):
        images, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(images, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        o = masked_attention(self.norm(q), self.norm(k), v, keep, impl=self.impl)
        return self.proj(o.transpose(1, 2).reshape(images, tokens, dim))


def step(function, x, keep):
    x, keep = x.detach().requires_grad_(), keep.detach().requires_grad_()
    out = function(x, keep)
    return out.detach(), *torch.autograd.grad(out.float().square().sum(), (x, keep))


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_opcheck_forward(impl):
    qkv, keep = make()
    q, k, v = qkv.detach().permute(2, 0, 3, 1, 4)
    for mask in (keep, keep.detach(), keep.detach().bool()):
        inputs = [x.detach().clone().requires_grad_() for x in (q, k, v)]
        torch.library.opcheck(OPERATORS.masked_attention.default, (*inputs, mask, 0.25, impl))


@pytest.mark.parametrize("needs_keep", [True, False])
@pytest.mark.parametrize("impl", ["reference", "triton", "cpu"])
def test_opcheck_backward(impl, needs_keep):
    qkv, keep = make()
    q, k, v = (x.contiguous() for x in qkv.detach().permute(2, 0, 3, 1, 4))
    o, lse = OPERATORS.masked_attention(q, k, v, keep.detach(), 0.25, impl)
    arguments = (torch.randn_like(q), q, k, v, keep.detach(), o, lse, 0.25, impl, needs_keep)
    torch.library.opcheck(OPERATORS.masked_attention_grad.default, arguments)


def test_fake_has_the_strides_of_the_result():
    qkv, keep = make()
    real = masked_attention(*qkv.permute(2, 0, 3, 1, 4), keep)
    meta = masked_attention(*qkv.to("meta").permute(2, 0, 3, 1, 4), keep.to("meta"))
    assert (meta.shape, meta.stride(), meta.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic):
    torch.compiler.reset()
    model = Attention(None)
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for tokens in (5, 9):
        x, keep = torch.randn(2, tokens, 32), torch.ones(2, tokens)
        keep[:, 2] = 0.0
        for a, b in zip(step(model, x, keep), step(compiled, x, keep), strict=True):
            torch.testing.assert_close(a, b)


def test_compiles_under_autocast():
    torch.compiler.reset()
    model = Attention(None)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, keep = torch.randn(2, 5, 32), torch.ones(2, 5)
    with torch.autocast("cpu", torch.bfloat16):
        pairs = zip(step(model, x, keep), step(compiled, x, keep), strict=True)
        for a, b in pairs:
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)


@pytest.mark.slow
def test_compiles_with_inductor():
    torch.compiler.reset()
    model = Attention(None)
    compiled = torch.compile(model, fullgraph=True)
    x, keep = torch.randn(2, 5, 32), torch.tensor([[1.0, 0, 1, 0, 1], [1, 1, 1, 0, 0]])
    for a, b in zip(step(model, x, keep), step(compiled, x, keep), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_autocast_casts_as_torch_does_and_leaves_keep(impl):
    qkv, keep = make()
    q, k, v = qkv.detach().permute(2, 0, 3, 1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        o = masked_attention(q, k, v.bfloat16(), keep, impl=impl)
    assert o.dtype == torch.bfloat16
    lowered = masked_attention(*(x.bfloat16() for x in (q, k, v)), keep, impl=impl)
    assert torch.equal(o, lowered)
    assert torch.autograd.grad(o.float().sum(), keep)[0].dtype == torch.float32


def test_autocast_leaves_float64():
    qkv, keep = make(dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        o = masked_attention(*qkv.permute(2, 0, 3, 1, 4), keep)
    assert o.dtype == torch.float64


def test_autocast_keeps_the_softmax_in_float32():
    tokens = 65
    q = torch.zeros(1, 1, tokens, 16)
    q[..., 0] = 16.0
    k = torch.zeros_like(q)
    # Logits 256 and 257 are one bfloat16 step of two apart: a bfloat16 softmax could not tell them.
    k[..., 0] = torch.where(torch.arange(tokens) % 2 == 0, 16.0, 16.0625)
    v = (torch.arange(tokens) % 2).float()[None, None, :, None].expand_as(q).contiguous()
    keep = torch.ones(1, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        o = masked_attention(q, k, v, keep, scale=1.0)
    exact = reference.masked_attention(
        q.bfloat16().double(), k.bfloat16().double(), v.double(), keep, scale=1.0
    )
    torch.testing.assert_close(o.double(), exact, rtol=2**-8, atol=0.0)


def counted(monkeypatch):
    """Count the calls that go through torch's dispatcher."""
    calls = []

    def through(*args):
        calls.append(args)
        return OPERATORS.masked_attention.default(*args)

    monkeypatch.setattr(_public, "_forward_op", through)
    return calls


def test_eager_calls_go_around_the_dispatcher_and_others_do_not(monkeypatch):
    calls = counted(monkeypatch)
    qkv, keep = make()
    arguments = (*qkv.detach().permute(2, 0, 3, 1, 4), keep.detach())
    masked_attention(*arguments)
    masked_attention(*(x.clone().requires_grad_() for x in arguments)).sum().backward()
    assert not calls
    graph = make_fx(lambda *x: masked_attention(*x))(*arguments).graph
    assert OPERATORS.masked_attention.default in [node.target for node in graph.nodes]
    mode = FakeTensorMode()
    masked_attention(*(mode.from_tensor(x) for x in arguments))
    masked_attention(*(x.to("meta") for x in arguments))
    torch.vmap(masked_attention)(*(x[None] for x in arguments))
    assert len(calls) == 4


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_eager_gradients_are_those_of_the_operator(impl):
    qkv, keep = make()
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    direct = masked_attention(q, k, v, keep, scale=0.25, impl=impl)
    dispatched = OPERATORS.masked_attention(q, k, v, keep, 0.25, impl)[0]
    assert torch.equal(direct, dispatched)
    assert direct.stride() == dispatched.stride()
    grad = torch.randn_like(direct)
    gradients = [torch.autograd.grad(o, (qkv, keep), grad) for o in (direct, dispatched)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("wanted", ["q", "k", "v", "keep"])
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_one_gradient_alone(impl, wanted):
    qkv, keep = make()
    inputs = dict(zip("qkv", qkv.detach().permute(2, 0, 3, 1, 4), strict=True), keep=keep.detach())
    inputs[wanted] = inputs[wanted].clone().requires_grad_()
    masked_attention(**inputs, impl=impl).square().sum().backward()
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    reference.masked_attention(**exact).square().sum().backward()
    torch.testing.assert_close(
        inputs[wanted].grad.double(), exact[wanted].grad, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("dispatched", [False, True])
@pytest.mark.parametrize("impl", ["reference", "triton", "cpu"])
def test_a_mask_without_gradient_costs_none_and_changes_no_other(monkeypatch, impl, dispatched):
    serve, asked = _public._MODULES[impl], []
    backward = serve.backward

    def recorded(*args):
        asked.append(args[-1])
        return backward(*args)

    monkeypatch.setattr(serve, "backward", recorded)
    qkv, keep = make(tokens=21)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    grad = torch.randn(2, 2, 21, 16)
    found = []
    for mask in (keep.detach(), keep.detach() > 0.5):
        if dispatched:
            o = OPERATORS.masked_attention(q, k, v, mask, 0.25, impl)[0]
        else:
            o = masked_attention(q, k, v, mask, scale=0.25, impl=impl)
        found.append(torch.autograd.grad(o, qkv, grad)[0])
    assert asked == [False, False]
    o = masked_attention(q, k, v, keep, scale=0.25, impl=impl)
    expected, _ = torch.autograd.grad(o, (qkv, keep), grad)
    assert asked.pop()
    assert all(torch.equal(x, expected) for x in found)


def test_gradients_agree_with_differences():
    qkv, keep = make(1, 2, 4, 3, torch.float64)
    q, k, v = (x.detach().requires_grad_() for x in qkv.permute(2, 0, 3, 1, 4))
    keep = keep.detach()
    assert torch.autograd.gradcheck(lambda q, k, v: masked_attention(q, k, v, keep), (q, k, v))


def test_checkpointing_gives_the_same_gradients():
    qkv, keep = make()
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    plain = torch.autograd.grad(masked_attention(q, k, v, keep).sum(), (qkv, keep))
    later = checkpoint(masked_attention, q, k, v, keep, use_reentrant=False)
    again = torch.autograd.grad(later.sum(), (qkv, keep))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_inference_mode():
    qkv, keep = make()
    arguments = (*qkv.detach().permute(2, 0, 3, 1, 4), keep.detach())
    with torch.inference_mode():
        assert torch.equal(masked_attention(*arguments), masked_attention(*arguments, impl=None))


def test_functional_transforms_work_or_say_why_not():
    qkv, keep = make()
    q, k, v = (x.contiguous() for x in qkv.detach().permute(2, 0, 3, 1, 4))
    keep = keep.detach()
    stacked = torch.stack([q, 2 * q])
    mapped = torch.vmap(lambda q: masked_attention(q, k, v, keep))(stacked)
    torch.testing.assert_close(
        mapped, torch.stack([masked_attention(x, k, v, keep) for x in stacked])
    )
    with pytest.raises(RuntimeError, match="forward-mode differentiation"):
        torch.func.jvp(lambda q: masked_attention(q, k, v, keep), (q,), (q,))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward-mode"):
        masked_attention(forward_ad.make_dual(q, q), k, v, keep)
    with forward_ad.dual_level():
        masked_attention(q, k, v, keep)
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(lambda q: masked_attention(q, k, v, keep).sum())(q)


def test_second_derivatives_are_refused():
    qkv, keep = make()
    o = masked_attention(*qkv.permute(2, 0, 3, 1, 4), keep)
    (first,) = torch.autograd.grad(o.square().sum(), qkv, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_second_derivatives_through_the_dispatcher_are_refused():
    qkv, keep = make()
    with FlopCounterMode(display=False):
        o = masked_attention(*qkv.permute(2, 0, 3, 1, 4), keep)
        (first,) = torch.autograd.grad(o.square().sum(), qkv, create_graph=True)
        with pytest.raises(RuntimeError, match="masked_attention is differentiable once"):
            first.sum().backward()


@pytest.mark.filterwarnings("ignore")
def test_exports():
    qkv, keep = make()
    arguments = (*(x.contiguous() for x in qkv.detach().permute(2, 0, 3, 1, 4)), keep.detach())

    class Module(nn.Module):
        def forward(self, q, k, v, keep):
            return masked_attention(q, k, v, keep)

    exported = torch.export.export(Module(), arguments)
    assert OPERATORS.masked_attention.default in [n.target for n in exported.graph.nodes]
    torch.testing.assert_close(exported.module()(*arguments), masked_attention(*arguments))


def test_compiled_autograd_traces_the_backward_of_an_eager_call():
    qkv, keep = make()
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    expected = torch.autograd.grad(masked_attention(q, k, v, keep).sum(), qkv)[0]
    torch.compiler.reset()
    compiler = torch.compile(backend="aot_eager", fullgraph=True)
    with torch._dynamo.compiled_autograd._enable(compiler):
        masked_attention(q, k, v, keep).sum().backward()
    torch.testing.assert_close(qkv.grad, expected)


def test_backward_under_autocast_stays_exact():
    qkv, keep = make()
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    o = masked_attention(q, k, v, keep, impl="reference")
    expected = torch.autograd.grad(o.square().sum(), qkv, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(o.square().sum(), qkv)
    torch.testing.assert_close(found, expected)


def test_ddp(tmp_path):
    import torch.distributed as dist

    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        model = Attention(None)
        x, keep = torch.randn(2, 5, 32), torch.ones(2, 5)
        model(x, keep).square().sum().backward()
        alone = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        nn.parallel.DistributedDataParallel(model)(x, keep).square().sum().backward()
        for p, grad in zip(model.parameters(), alone, strict=True):
            torch.testing.assert_close(p.grad, grad)
    finally:
        dist.destroy_process_group()


def test_the_default_on_the_cpu_is_cpp_where_it_serves():
    q = torch.zeros(1, 1, 2, 4)
    expected = "reference" if _backend.cpu_reasons(q.device) else "cpu"
    assert served_by(None, q, q, q) == expected
    assert served_by(None, *[q.double()] * 3) == "reference"
    assert served_by("triton", q, q, q) == "triton"


def test_an_implementation_that_cannot_serve_raises_with_every_reason(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(_backend, "has_triton", lambda: False)
    q, keep = torch.zeros(1, 1, 2, 160, dtype=torch.float64), torch.ones(1, 2)
    with pytest.raises(RuntimeError) as error:
        masked_attention(q, q, q, keep, impl="triton")
    for reason in (
        "triton is not installed",
        "on cpu and TRITON_INTERPRET=1 is not set",
        "dtype is torch.float64",
        "head dimension is 160",
        "impl='reference'",
    ):
        assert reason in str(error.value)
    masked_attention(q, q, q, keep)


def test_an_unknown_implementation_is_named():
    q = torch.zeros(1, 1, 2, 4)
    with pytest.raises(
        ValueError, match="impl='cuda' does not exist; choose one of reference, triton"
    ):
        masked_attention(q, q, q, torch.ones(1, 2), impl="cuda")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(2, 2, 5, 8)}, r"of one shape, got \(2, 2, 5, 16\), \(2, 2, 5, 8\)"),
        ({"q": torch.zeros(2, 5, 16)}, r"must be \(B, H, N, D\)"),
        ({"keep": torch.ones(2, 4)}, r"keep must be \(B, N\) = \(2, 5\)"),
        ({"v": torch.zeros(2, 2, 5, 16).half()}, "share one floating dtype"),
        (
            {"keep": torch.ones(2, 5, dtype=torch.int64)},
            "keep must be bool or floating, got torch.int64",
        ),
        ({"keep": torch.ones(2, 5, device="meta")}, "on one device"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {name: torch.zeros(2, 2, 5, 16) for name in "qkv"} | {"keep": torch.ones(2, 5)}
    with pytest.raises(ValueError, match=message):
        masked_attention(**(arguments | change))
