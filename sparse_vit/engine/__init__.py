"""Whole-model inference at the machine's limit: `run = optimize(model)`."""

from sparse_vit.engine.agreement import Agreement, agreement
from sparse_vit.engine.describe import Description, Part
from sparse_vit.engine.engine import Engine, optimize
from sparse_vit.schedule import AdaptiveSchedule

__all__ = [
    "AdaptiveSchedule",
    "Agreement",
    "Description",
    "Engine",
    "Part",
    "agreement",
    "optimize",
]
