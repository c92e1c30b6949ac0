"""Exact re-identification metrics: CMC, mAP, mINP, with intervals."""

from reid.evaluation.bootstrap import Interval, bootstrap, paired_bootstrap
from reid.evaluation.features import Features
from reid.evaluation.ranking import evaluate
from reid.evaluation.result import PerQuery, RankedItem, RankingResult
from reid.evaluation.sharded import evaluate_sharded

__all__ = [
    "Features",
    "Interval",
    "PerQuery",
    "RankedItem",
    "RankingResult",
    "bootstrap",
    "evaluate",
    "evaluate_sharded",
    "paired_bootstrap",
]
