"""The ways to compute each operator, ours first; see `base.Peer`."""

from benchmarks.peers import gathered, masked, packed, rows
from benchmarks.peers.base import Bound, Peer

PEERS: dict[str, tuple[Peer, ...]] = {
    "masked_attention": masked.PEERS,
    "ragged_attention": (*packed.RAGGED, *gathered.PEERS),
    "dense_attention": packed.DENSE,
    "token_select": rows.SELECT,
    "gather": rows.GATHER,
}

__all__ = ["PEERS", "Bound", "Peer"]
