"""Losses of re-identification: one concept per file, composed by argument."""

from reid.losses.camera_triplet import camera_triplet
from reid.losses.cross_entropy import cross_entropy
from reid.losses.distances import cosine_distance, euclidean_distance
from reid.losses.distillation import FeatureAlign, kl_logits
from reid.losses.mining import hardest_pairs, label_pairs
from reid.losses.triplet import soft_margin, triplet

__all__ = [
    "FeatureAlign",
    "camera_triplet",
    "cosine_distance",
    "cross_entropy",
    "euclidean_distance",
    "hardest_pairs",
    "kl_logits",
    "label_pairs",
    "soft_margin",
    "triplet",
]
