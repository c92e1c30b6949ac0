"""A trained model in use: images, folders, frames and boxes in, features out."""

from reid.inference.embedder import Embedder
from reid.inference.trackers import BoxmotReID, DeepSortEncoder

__all__ = ["BoxmotReID", "DeepSortEncoder", "Embedder"]
