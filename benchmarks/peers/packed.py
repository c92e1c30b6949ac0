"""Attention over packed sequences, of different lengths (ragged) or of one length (dense).

Every peer gets its inputs in the layout it likes, made beforehand and not timed: padded batches for
the fused operators that know no lengths, nested tensors, masks. Dense batches come as a block of a
transformer has them, as views of one packed projection, and once more with each of q, k and v
contiguous, which no transformer gets for free.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.peers import sdpa
from benchmarks.peers.base import Bound, Peer, all_of, compiled, differentiable, installed, only
from benchmarks.problems import Packed
from benchmarks.shapes import Case
from kernels import ragged_attention


def explicit(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention by two batched products and a softmax, (B, H, N, D)."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return (scores if bias is None else scores + bias).softmax(-1) @ v


def _packed(function: Callable[..., Tensor]) -> Callable[[Packed, Case], Bound]:
    """Bind a function of q, k, v (T, H, D), inputs and case."""

    def bind(inputs: Packed, case: Case) -> Bound:
        leaves = (inputs.q, inputs.k, inputs.v)
        attend = partial(function, inputs=inputs, case=case)
        return differentiable(attend, leaves, inputs.grad, case.mode)

    return bind


def ours(q: Tensor, k: Tensor, v: Tensor, inputs: Packed, case: Case) -> Tensor:
    """Attend by this package."""
    return ragged_attention(q, k, v, inputs.cu_seqlens, case.tokens, rows=inputs.rows)


def varlen(q: Tensor, k: Tensor, v: Tensor, inputs: Packed, case: Case) -> Tensor:
    """Attend by torch's varlen operator."""
    from torch.nn.attention.varlen import varlen_attn

    ends = inputs.cu_seqlens
    return varlen_attn(q, k, v, ends, ends, case.tokens, case.tokens)


def varlen_reasons(backend: str, case: Case, device: torch.device) -> list[str]:
    """List why torch's varlen operator cannot be tried with a backend."""
    try:
        from torch.nn.attention import varlen
    except ImportError:
        return [f"torch {torch.__version__} has no torch.nn.attention.varlen"]
    if backend == "cudnn" and not hasattr(varlen, "_select_backend"):
        return [f"varlen_attn of torch {torch.__version__} cannot be pinned to cuDNN"]
    return []


def _flash(q: Tensor, k: Tensor, v: Tensor, inputs: Packed, case: Case) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    ends = inputs.cu_seqlens
    return flash_attn_varlen_func(q, k, v, ends, ends, case.tokens, case.tokens)


def _flash3(q: Tensor, k: Tensor, v: Tensor, inputs: Packed, case: Case) -> Tensor:
    from flash_attn_interface import flash_attn_varlen_func

    ends = inputs.cu_seqlens
    found = flash_attn_varlen_func(q, k, v, ends, ends, case.tokens, case.tokens)
    return found[0] if isinstance(found, tuple) else found


@cache
def _block_diagonal(lengths: tuple[int, ...], device: torch.device) -> Any:
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    return BlockDiagonalMask.from_seqlens(list(lengths)).to(device)


def _xformers(q: Tensor, k: Tensor, v: Tensor, inputs: Packed, case: Case) -> Tensor:
    from xformers.ops import memory_efficient_attention

    bias = _block_diagonal(inputs.lengths, q.device)
    return memory_efficient_attention(q[None], k[None], v[None], attn_bias=bias)[0]


@cache
def _compiled_flex(case: Case) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@cache
def _documents(lengths: tuple[int, ...], device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    counts = torch.tensor(lengths, device=device)
    owner = torch.arange(len(lengths), device=device).repeat_interleave(counts)

    def same(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return owner[i] == owner[j]

    total = sum(lengths)
    return create_block_mask(same, None, None, total, total, device=str(device))


def _flex(q: Tensor, k: Tensor, v: Tensor, inputs: Packed, case: Case) -> Tensor:
    heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))
    mask = _documents(inputs.lengths, q.device)
    return _compiled_flex(case)(*heads_first, block_mask=mask)[0].transpose(0, 1)


def _flex_reasons(case: Case, device: torch.device) -> list[str]:
    if device.type == "cpu" and case.mode != "forward":
        return ["torch has no backward of FlexAttention on a CPU"]
    return []


def each(q: Tensor, k: Tensor, v: Tensor, inputs: Packed, case: Case) -> Tensor:
    """Attend to one sequence after the other."""
    parts = (x.split(inputs.lengths) for x in (q, k, v))
    outputs = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1)[None] for x in part))[0].transpose(0, 1)
        for part in zip(*parts, strict=True)
    ]
    return torch.cat(outputs)


def _nested(inputs: Packed, case: Case) -> Bound:
    ends = inputs.cu_seqlens.long()
    q, k, v = (
        torch.nested.nested_tensor_from_jagged(
            x.contiguous(), ends, min_seqlen=min(inputs.lengths), max_seqlen=case.tokens
        ).transpose(1, 2)
        for x in (inputs.q, inputs.k, inputs.v)
    )

    def canonical(o: Tensor) -> dict[str, Tensor]:
        return {"o": o.transpose(1, 2).contiguous().values()}

    return Bound(lambda: F.scaled_dot_product_attention(q, k, v), canonical)


def _padded(function: Callable[..., Tensor], additive: bool) -> Callable[[Packed, Case], Bound]:
    """Bind a function of padded q, k, v (B, H, N, D) and a mask of the keys that exist."""

    def bind(inputs: Packed, case: Case) -> Bound:
        def pad(x: Tensor) -> Tensor:
            return pad_sequence(list(x.split(inputs.lengths)), batch_first=True).transpose(1, 2)

        counts = torch.tensor(inputs.lengths, device=inputs.q.device)
        exists = torch.arange(case.tokens, device=inputs.q.device) < counts[:, None]
        mask = exists[:, None, None, :].expand(-1, -1, case.tokens, -1)
        if additive:
            zeros = torch.zeros(mask.shape, dtype=inputs.q.dtype, device=mask.device)
            mask = zeros.masked_fill(~mask, float("-inf"))

        def canonical(x: Tensor) -> Tensor:
            return x.transpose(1, 2)[exists]

        leaves = tuple(pad(x) for x in (inputs.q, inputs.k, inputs.v))
        attend = partial(function, mask=mask)
        return differentiable(attend, leaves, pad(inputs.grad), case.mode, canonical)

    return bind


def _padded_sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _padded_explicit(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return explicit(q, k, v, mask)


def _batched(
    function: Callable[..., Tensor], contiguous: bool = False
) -> Callable[[Packed, Case], Bound]:
    """Bind a function of (B, H, N, D) to sequences of one length."""

    def bind(inputs: Packed, case: Case) -> Bound:
        def batch(x: Tensor) -> Tensor:
            x = x.unflatten(0, (case.batch, case.tokens)).transpose(1, 2)
            return x.contiguous() if contiguous else x

        def canonical(x: Tensor) -> Tensor:
            return x.transpose(1, 2).flatten(0, 1)

        leaves = tuple(batch(x) for x in (inputs.q, inputs.k, inputs.v))
        return differentiable(function, leaves, batch(inputs.grad), case.mode, canonical)

    return bind


ALL = ("forward", "backward", "step")
OURS = Peer("ours", _packed(ours), frozenset({"own"}))
LIBRARIES = (
    *(
        Peer(
            f"varlen_attn {backend}",
            _packed(varlen),
            frozenset({"varlen", "library"}),
            modes=ALL,
            reasons=partial(varlen_reasons, backend),
            context=sdpa.pin(backend),
        )
        for backend in ("flash", "cudnn")
    ),
    Peer(
        "FlashAttention 2",
        _packed(_flash),
        frozenset({"library"}),
        modes=ALL,
        reasons=installed("flash_attn"),
    ),
    Peer(
        "FlashAttention 3",
        _packed(_flash3),
        frozenset({"library"}),
        modes=ALL,
        reasons=installed("flash_attn_interface"),
    ),
    Peer(
        "xformers",
        _packed(_xformers),
        frozenset({"xformers"}),
        modes=ALL,
        reasons=installed("xformers"),
    ),
    Peer("NestedTensor SDPA", _nested, frozenset({"sdpa"}), modes=ALL, reasons=only("forward")),
    Peer(
        "FlexAttention, documents",
        _packed(_flex),
        frozenset({"flex"}),
        modes=ALL,
        reasons=all_of(compiled, _flex_reasons),
    ),
)
RAGGED = (
    OURS,
    *(
        Peer(
            f"padded SDPA {backend}",
            _padded(_padded_sdpa, additive=False),
            frozenset({"sdpa"}),
            modes=ALL,
            context=sdpa.pin(backend),
        )
        for backend in sdpa.BACKENDS
    ),
    Peer(
        "padded explicit",
        _padded(_padded_explicit, additive=True),
        frozenset({"explicit"}),
        modes=ALL,
    ),
    Peer(
        "SDPA flash per sequence",
        _packed(each),
        frozenset({"sdpa"}),
        modes=ALL,
        context=sdpa.pin("flash"),
    ),
    *LIBRARIES,
)
DENSE = (
    OURS,
    *(
        Peer(
            f"SDPA {backend}",
            _batched(F.scaled_dot_product_attention),
            frozenset({"sdpa", *(["library"] if backend in ("flash", "cudnn") else [])}),
            modes=ALL,
            context=sdpa.pin(backend),
        )
        for backend in sdpa.BACKENDS
    ),
    Peer("explicit", _batched(explicit), frozenset({"explicit"}), modes=ALL),
    Peer(
        "SDPA flash, contiguous",
        _batched(F.scaled_dot_product_attention, contiguous=True),
        frozenset({"sdpa"}),
        modes=ALL,
        context=sdpa.pin("flash"),
    ),
    Peer(
        "explicit, contiguous",
        _batched(explicit, contiguous=True),
        frozenset({"explicit"}),
        modes=ALL,
    ),
    *LIBRARIES,
)
