"""Other published ways to fewer tokens: fuse the rest into one, or merge similar ones."""

from sparse_vit.reductions.encoder import encode_reduced
from sparse_vit.reductions.fuse import fuse
from sparse_vit.reductions.merge import check_halving, constant_merging, merge
from sparse_vit.reductions.state import TokenState

REDUCTIONS = ("prune", "fuse", "merge")

__all__ = [
    "REDUCTIONS",
    "TokenState",
    "check_halving",
    "constant_merging",
    "encode_reduced",
    "fuse",
    "merge",
]
