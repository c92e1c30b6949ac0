"""Exact re-identification metrics: CMC, mAP, mINP, verification, with intervals and slices."""

from reid.evaluation.bootstrap import Interval, bootstrap, paired_bootstrap
from reid.evaluation.features import Features
from reid.evaluation.protocols import evaluate_single_shot
from reid.evaluation.ranking import evaluate
from reid.evaluation.result import PerQuery, RankedItem, RankingResult
from reid.evaluation.sharded import evaluate_sharded
from reid.evaluation.slices import CameraMatrix, camera_matrix, slices
from reid.evaluation.verification import Verification, threshold_at, verify

__all__ = [
    "CameraMatrix",
    "Features",
    "Interval",
    "PerQuery",
    "RankedItem",
    "RankingResult",
    "Verification",
    "bootstrap",
    "camera_matrix",
    "evaluate",
    "evaluate_sharded",
    "evaluate_single_shot",
    "paired_bootstrap",
    "slices",
    "threshold_at",
    "verify",
]
