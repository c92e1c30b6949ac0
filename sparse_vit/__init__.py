"""Vision transformers that keep fewer tokens: train with masks, infer on the kept tokens only."""

from sparse_vit._version import __version__
from sparse_vit.backbones import LoadReport, load_backbone, load_pretrained_by_tag
from sparse_vit.calibration import calibrate
from sparse_vit.checkpoints import load_weights, read_metadata, save_weights
from sparse_vit.decisions import Decision
from sparse_vit.flops import flops
from sparse_vit.losses import ratio_error, ratio_loss
from sparse_vit.model import SparseVisionTransformer, sparsify
from sparse_vit.reductions import REDUCTIONS, constant_merging
from sparse_vit.registry import create_sparse
from sparse_vit.schedule import AdaptiveSchedule, PruningSchedule
from sparse_vit.selectors import (
    ClassAttention,
    FixedDecisions,
    KeepPredictor,
    RandomSelector,
    StageInput,
    TokenSelector,
)

__all__ = [
    "REDUCTIONS",
    "AdaptiveSchedule",
    "ClassAttention",
    "Decision",
    "FixedDecisions",
    "KeepPredictor",
    "LoadReport",
    "PruningSchedule",
    "RandomSelector",
    "SparseVisionTransformer",
    "StageInput",
    "TokenSelector",
    "__version__",
    "calibrate",
    "constant_merging",
    "create_sparse",
    "flops",
    "load_backbone",
    "load_pretrained_by_tag",
    "load_weights",
    "ratio_error",
    "ratio_loss",
    "read_metadata",
    "save_weights",
    "sparsify",
]
