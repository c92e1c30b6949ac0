"""Selection and movement of token rows."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers.base import Bound, Peer, compiled
from benchmarks.problems import Rows, Scores
from benchmarks.shapes import Case
from kernels import gather_layer_norm, gather_rows, scatter_rows, select_tokens

EPS = 1e-6
SELECTION = ("mask", "indices", "cu_seqlens")


def _named(*names: str) -> Callable[[Any], dict[str, Tensor]]:
    return lambda found: dict(zip(names, found, strict=True))


def _ours_select(inputs: Scores, case: Case) -> Bound:
    if case.mode == "top_k":
        return Bound(lambda: select_tokens(inputs.scores, inputs.k), _named(*SELECTION))
    return Bound(
        lambda: select_tokens(inputs.scores, threshold=inputs.threshold), _named(*SELECTION)
    )


def _pack(mask: Tensor) -> tuple[Tensor, Tensor]:
    indices = mask.flatten().nonzero().squeeze(1)
    return indices, F.pad(mask.sum(1).cumsum(0), (1, 0)).to(torch.int32)


def _from_order(order: Callable[[Tensor, int], Tensor]) -> Callable[[Scores, Case], Bound]:
    """Bind a function that lists the columns of the k largest scores, in any order."""

    def bind(inputs: Scores, case: Case) -> Bound:
        batch, tokens = inputs.scores.shape
        starts = torch.arange(batch, device=inputs.scores.device)[:, None] * tokens
        ends = torch.arange(batch + 1, device=inputs.scores.device, dtype=torch.int32) * inputs.k

        def call() -> tuple[Tensor, ...]:
            columns = order(inputs.scores, inputs.k).sort(1).values
            mask = torch.zeros_like(inputs.scores, dtype=torch.bool).scatter_(1, columns, True)
            return mask, (columns + starts).flatten(), ends

        return Bound(call, _named(*SELECTION))

    return bind


def _above(inputs: Scores, case: Case) -> Bound:
    def call() -> tuple[Tensor, ...]:
        best = inputs.scores.argmax(1, keepdim=True)
        mask = (inputs.scores >= inputs.threshold).scatter_(1, best, True)
        return mask, *_pack(mask)

    return Bound(call, _named(*SELECTION))


def _of_rows(function: Callable[[Rows, Case], Any], *names: str) -> Callable[[Rows, Case], Bound]:
    def bind(inputs: Rows, case: Case) -> Bound:
        if len(names) == 1:
            return Bound(lambda: function(inputs, case), lambda found: {names[0]: found})
        return Bound(lambda: function(inputs, case), _named(*names))

    return bind


def _ours_rows(inputs: Rows, case: Case) -> Bound:
    if case.mode == "gather":
        return Bound(lambda: gather_rows(inputs.x, inputs.indices), lambda x: {"rows": x})
    if case.mode == "scatter":
        total = case.batch * case.tokens
        return Bound(lambda: scatter_rows(inputs.x, inputs.indices, total), lambda x: {"rows": x})
    return Bound(
        lambda: gather_layer_norm(inputs.x, inputs.indices, inputs.weight, inputs.bias, eps=EPS),
        _named("rows", "normed"),
    )


def _norm(rows: Tensor, inputs: Rows) -> tuple[Tensor, Tensor]:
    return rows, F.layer_norm(rows, rows.shape[-1:], inputs.weight, inputs.bias, EPS)


def _index_select(inputs: Rows, case: Case) -> Any:
    rows = inputs.x.index_select(0, inputs.indices)
    return rows if case.mode == "gather" else _norm(rows, inputs)


def _advanced(inputs: Rows, case: Case) -> Any:
    return inputs.x[inputs.indices]


def _torch_gather(inputs: Rows, case: Case) -> Any:
    return inputs.x.gather(0, inputs.indices[:, None].expand(-1, inputs.x.shape[1]))


def _index_copy(inputs: Rows, case: Case) -> Any:
    target = inputs.x.new_zeros(case.batch * case.tokens, case.dim)
    return target.index_copy_(0, inputs.indices, inputs.x)


def _torch_scatter(inputs: Rows, case: Case) -> Any:
    target = inputs.x.new_zeros(case.batch * case.tokens, case.dim)
    return target.scatter_(0, inputs.indices[:, None].expand(-1, case.dim), inputs.x)


@cache
def _compiled_norm(case: Case) -> Any:
    def function(x: Tensor, indices: Tensor, weight: Tensor, bias: Tensor) -> Any:
        rows = x.index_select(0, indices)
        return rows, F.layer_norm(rows, rows.shape[-1:], weight, bias, EPS)

    return torch.compile(function, dynamic=False)


def _bind_compiled(inputs: Rows, case: Case) -> Bound:
    function = _compiled_norm(case)
    return Bound(
        lambda: function(inputs.x, inputs.indices, inputs.weight, inputs.bias),
        _named("rows", "normed"),
    )


SELECT = (
    Peer("ours", _ours_select, frozenset({"own"})),
    Peer(
        "topk, sort, scatter",
        _from_order(lambda scores, k: scores.topk(k, 1, sorted=False).indices),
        modes=("top_k",),
    ),
    Peer(
        "stable sort, sort, scatter",
        _from_order(
            lambda scores, k: scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
        ),
        modes=("top_k",),
    ),
    Peer("compare, nonzero, cumsum", _above, modes=("threshold",)),
)
GATHER = (
    Peer("ours", _ours_rows, frozenset({"own"})),
    Peer("index_select", _of_rows(_index_select, "rows"), modes=("gather",)),
    Peer("x[indices]", _of_rows(_advanced, "rows"), modes=("gather",)),
    Peer("torch.gather", _of_rows(_torch_gather, "rows"), modes=("gather",)),
    Peer(
        "index_select, F.layer_norm",
        _of_rows(_index_select, "rows", "normed"),
        modes=("gather_norm",),
    ),
    Peer(
        "compiled index_select and LayerNorm",
        _bind_compiled,
        modes=("gather_norm",),
        reasons=compiled,
    ),
    Peer("index_copy_", _of_rows(_index_copy, "rows"), modes=("scatter",)),
    Peer("scatter_", _of_rows(_torch_scatter, "rows"), modes=("scatter",)),
)
