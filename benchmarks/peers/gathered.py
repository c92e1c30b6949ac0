"""Attention to kept tokens that still lie among the others: gather, then attend."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.peers import sdpa
from benchmarks.peers.base import Bound, Peer
from benchmarks.peers.packed import each, ours, varlen, varlen_reasons
from benchmarks.problems import Packed
from benchmarks.shapes import Case


def _after_selection(function: Callable[..., Tensor]) -> Callable[[Packed, Case], Bound]:
    """Bind a function of packed tokens behind a gather of the rows."""

    def bind(inputs: Packed, case: Case) -> Bound:
        here = inputs._replace(rows=None)

        def call() -> Tensor:
            kept = inputs.qkv.index_select(0, inputs.rows)
            return function(*kept.unbind(1), inputs=here, case=case)

        return Bound(call, lambda o: {"o": o})

    return bind


def _into_padding(inputs: Packed, case: Case) -> Bound:
    """Gather straight into a padded batch; the table of rows is made beforehand."""
    table = pad_sequence(list(inputs.rows.split(inputs.lengths)), batch_first=True)
    counts = torch.tensor(inputs.lengths, device=table.device)
    exists = torch.arange(table.shape[1], device=table.device) < counts[:, None]
    mask = exists[:, None, None, :].expand(-1, -1, table.shape[1], -1)

    def call() -> Tensor:
        q, k, v = inputs.qkv[table].permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return Bound(call, lambda o: {"o": o.transpose(1, 2)[exists]})


PEERS = (
    Peer(
        "index_select, ours",
        _after_selection(ours),
        frozenset({"own"}),
        modes=("gathered",),
    ),
    *(
        Peer(
            f"index_select, varlen_attn {backend}",
            _after_selection(varlen),
            modes=("gathered",),
            reasons=partial(varlen_reasons, backend),
            context=sdpa.pin(backend),
        )
        for backend in ("flash", "cudnn")
    ),
    Peer(
        "index_select, SDPA flash per sequence",
        _after_selection(each),
        modes=("gathered",),
        context=sdpa.pin("flash"),
    ),
    *(
        Peer(
            f"gather into padding, SDPA {backend}",
            _into_padding,
            modes=("gathered",),
            context=sdpa.pin(backend),
        )
        for backend in ("flash", "efficient", "cudnn")
    ),
)
