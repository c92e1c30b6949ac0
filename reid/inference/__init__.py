"""A trained model in use: images, folders, frames and boxes in, features out."""

from reid.inference.compare import Comparison
from reid.inference.embedder import Embedder
from reid.inference.threshold import Threshold
from reid.inference.trackers import BoxmotReID, DeepSortEncoder

__all__ = ["BoxmotReID", "Comparison", "DeepSortEncoder", "Embedder", "Threshold"]
