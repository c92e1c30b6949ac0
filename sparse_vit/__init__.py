"""Vision transformers that keep fewer tokens: train with masks, infer on the kept tokens only."""

from sparse_vit._version import __version__
from sparse_vit.decisions import Decision
from sparse_vit.losses import ratio_loss
from sparse_vit.model import SparseVisionTransformer, sparsify
from sparse_vit.schedule import PruningSchedule
from sparse_vit.selectors import (
    ClassAttention,
    FixedDecisions,
    KeepPredictor,
    RandomSelector,
    StageInput,
    TokenSelector,
)

__all__ = [
    "ClassAttention",
    "Decision",
    "FixedDecisions",
    "KeepPredictor",
    "PruningSchedule",
    "RandomSelector",
    "SparseVisionTransformer",
    "StageInput",
    "TokenSelector",
    "__version__",
    "ratio_loss",
    "sparsify",
]
